//! What a command worker executes: the words, and where the program is.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A program and its arguments.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Command {
    words: Vec<OsString>,
    #[serde(skip)]
    pub(super) expand: Option<Expand>,
}

/// Fills in what is known only per worker: (word or value, slot, generation).
pub type Expand = fn(&OsStr, u32, u32) -> OsString;

impl Command {
    /// A command of at least one word; the first one names the program: a path if it has a slash,
    /// else a name to look for in `PATH`. No shell takes part.
    #[must_use]
    pub fn new(words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect(), expand: None }
    }

    /// Passes each argument through `expand` before every spawn, with the worker's slot and
    /// generation.
    #[must_use]
    pub fn expand_with(mut self, expand: Expand) -> Self {
        self.expand = Some(expand);
        self
    }

    /// The program as it was named.
    #[must_use]
    pub fn program(&self) -> Option<&Path> {
        self.words.first().map(Path::new)
    }

    /// The name of the program without its folder.
    #[must_use]
    pub fn base_name(&self) -> Option<String> {
        Some(self.program()?.file_name()?.to_string_lossy().into_owned())
    }

    /// The words of one worker's command, if they differ between workers.
    pub(super) fn words_of(&self, slot: u32, generation: u32) -> Vec<OsString> {
        match self.expand {
            None => self.words.clone(),
            Some(expand) => self.words.iter().map(|word| expand(word, slot, generation)).collect(),
        }
    }

    /// Finds the program as `execvp` would, before any fork.
    pub(super) fn resolve(
        &self,
        directory: Option<&Path>,
        search: Option<&OsStr>,
    ) -> Result<PathBuf, CommandError> {
        let program = self.words.first().cloned().unwrap_or_default();
        let refused = |path: &Path, source| CommandError { path: path.to_owned(), source };
        let places = places(&program, directory, search);
        if program.as_bytes().contains(&b'/') {
            let path = places.into_iter().next().unwrap_or_default();
            return match executable(&path) {
                Ok(()) => Ok(path),
                Err(source) => Err(refused(&path, source)),
            };
        }
        let mut best = io::Error::from_raw_os_error(libc::ENOENT);
        for path in places {
            match executable(&path) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => best = error,
                Err(_) => {}
            }
        }
        Err(refused(Path::new(&program), best))
    }
}

/// Where a program of this name may be, seen from a directory: at its path if it has a slash, else in one
/// of the folders of `search`.
pub(super) fn places(
    program: &OsStr,
    directory: Option<&Path>,
    search: Option<&OsStr>,
) -> Vec<PathBuf> {
    let in_directory = |path: &Path| match directory {
        Some(directory) => directory.join(path),
        None => path.to_owned(),
    };
    if program.as_bytes().contains(&b'/') {
        return vec![in_directory(Path::new(program))];
    }
    if program.is_empty() {
        return Vec::new();
    }
    let search = search.unwrap_or(OsStr::new("/usr/bin:/bin"));
    std::env::split_paths(search).map(|folder| in_directory(&folder.join(program))).collect()
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Command").field(&self.words).finish()
    }
}

/// Why a command cannot be executed.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe("exec", path, source))]
pub struct CommandError {
    /// What was tried.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl CommandError {
    /// 127 if there is no such program, else 126, as in a POSIX shell.
    #[must_use]
    pub fn code(&self) -> u8 {
        if self.source.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    }
}

/// One sentence about a failed step, with the errno's name and, where the kernel's words mislead,
/// what is really the matter.
pub(super) fn describe(step: &str, path: &Path, error: &io::Error) -> String {
    let Some(errno) = error.raw_os_error().map(nix::errno::Errno::from_raw) else {
        return format!("{step} {}: {error}", path.display());
    };
    let sentence = format!("{step} {}: {} ({errno:?})", path.display(), errno.desc());
    if errno == nix::errno::Errno::ENOENT && path.exists() {
        return format!("{sentence}: the interpreter its first line names is missing");
    }
    if errno == nix::errno::Errno::ENOEXEC {
        return format!("{sentence}: neither a binary of this machine nor a script with `#!`");
    }
    if step == "exec" && path.is_dir() {
        return format!("{sentence}: it is a directory");
    }
    sentence
}

fn executable(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    // Mode bits are not all: the file system may be noexec, an access list may say no.
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search() -> Option<OsString> {
        std::env::var_os("PATH")
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(Command::new(["sh"]).resolve(None, search().as_deref()).unwrap().ends_with("sh"));
        let missing = Command::new(["no-such-program-anywhere"])
            .resolve(None, search().as_deref())
            .unwrap_err();
        assert_eq!(missing.code(), 127);
        assert_eq!(Command::new(["/"]).resolve(None, search().as_deref()).unwrap_err().code(), 126);
        assert_eq!(Command::new([""]).resolve(None, search().as_deref()).unwrap_err().code(), 127);
        let empty: [&str; 0] = [];
        assert_eq!(Command::new(empty).resolve(None, search().as_deref()).unwrap_err().code(), 127);
    }

    #[test]
    fn a_relative_program_is_looked_for_where_the_worker_will_be() {
        let found = Command::new(["bin/sh"]).resolve(Some(Path::new("/")), None).unwrap();
        assert_eq!(found, Path::new("/bin/sh"));
    }

    #[test]
    fn an_error_says_what_is_really_the_matter() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
        let text = describe("exec", &script, &io::Error::from_raw_os_error(libc::ENOENT));
        assert!(text.contains("(ENOENT)") && text.contains("interpreter"), "{text}");
        let text = describe("exec", folder.path(), &io::Error::from_raw_os_error(libc::EACCES));
        assert!(text.contains("it is a directory"), "{text}");
    }
}
