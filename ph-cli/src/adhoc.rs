//! A service without a configuration file: where its pidfile and lock live.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use ph_config::Override;

use crate::source;

/// What of a command is shown at most, in bytes.
const LONGEST_SHOWN: usize = 2048;

/// `$XDG_RUNTIME_DIR/ph`, if that variable names a folder of this user, as its specification asks; for
/// root `/run/ph`; else a private folder in the temp dir. It is made with mode 0700 if it is not there.
///
/// # Errors
///
/// It cannot be made, or belongs to somebody else, who could then choose whom a script signals.
pub(crate) fn runtime_folder() -> io::Result<PathBuf> {
    let uid = source::effective_uid()?;
    let xdg = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let folder = match xdg.filter(|folder| folder.is_absolute() && is_own_folder(folder, uid)) {
        Some(folder) => folder.join("ph"),
        None if uid == 0 => PathBuf::from("/run/ph"),
        None => std::env::temp_dir().join(format!("ph-{uid}")),
    };
    match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io::Error::new(error.kind(), format!("{}: {error}", folder.display())));
        }
        _ => {}
    }
    if !is_own_folder(&folder, uid) {
        let text = format!("{} is not a folder of user {uid}", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(folder)
}

fn is_own_folder(path: &Path, uid: u32) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|it| it.is_dir() && it.uid() == uid)
}

/// A service name made of a program's: what does not belong into a file name becomes `_`.
pub(crate) fn service_name(program: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = program.chars().take(64).map(legal).collect();
    if name.is_empty() { "service".to_owned() } else { name }
}

/// What tells a service without a file from others of its name: the words it executes, and where.
pub(crate) fn made_from(words: &[OsString], folder: &Path) -> String {
    let shown: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let line = Override::command(shown.iter().map(AsRef::as_ref), "--").value;
    let whole = format!("{line}, in {}", folder.display());
    if whole.len() <= LONGEST_SHOWN {
        return whole;
    }
    let mut hasher = DefaultHasher::new();
    (words, folder).hash(&mut hasher);
    let shown: String = line.chars().take(LONGEST_SHOWN / 4).collect();
    format!("{shown}… ({:016x})", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_is_legal_whatever_the_program_is_called() {
        assert_eq!(service_name("redis-server"), "redis-server");
        assert_eq!(service_name("my prog\u{e9}"), "my_prog_");
        assert_eq!(service_name(""), "service");
        assert_eq!(service_name(&"x".repeat(100)).len(), 64);
    }

    #[test]
    fn services_of_one_name_are_told_apart_by_their_words_and_their_folder() {
        let of = |words: &[&str], folder: &str| {
            let words: Vec<_> = words.iter().map(OsString::from).collect();
            made_from(&words, Path::new(folder))
        };
        assert_eq!(of(&["sleep", "1 2"], "/srv"), "sleep '1 2', in /srv");
        let long = "x".repeat(100_000);
        let all = [
            of(&["sleep", "1"], "/srv"),
            of(&["sleep", "1"], "/opt"),
            of(&["sleep", &long, "1"], "/srv"),
            of(&["sleep", &long, "2"], "/srv"),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert!(different.len() == 4 && all.iter().all(|it| it.len() <= LONGEST_SHOWN));
    }
}
