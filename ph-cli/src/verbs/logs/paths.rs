//! The files that workers log to, if they are not the main one.
//!
//! `worker_log_file` may name the slot and the generation, which only a worker knows. So its files
//! are those whose names could have come of it.

use std::path::{Path, PathBuf};

use ph_config::Settings;

/// What may stand in the name for a number.
const NUMBERS: [&str; 2] = ["%(slot)s", "%(generation)s"];

/// No more files than this are read as one.
const FILES_LIMIT: usize = 1024;

/// The files there are.
pub(super) fn of_workers(settings: &Settings) -> Vec<PathBuf> {
    settings.worker_log_file.as_deref().map(expand).unwrap_or_default()
}

/// The files whose names come of a pattern; the pattern itself if nothing is left open in it.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let name = name.to_string_lossy();
    if !NUMBERS.iter().any(|number| name.contains(number)) {
        return vec![pattern.to_owned()];
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut found: Vec<PathBuf> = names
        .filter(|found| is_of(&found.to_string_lossy(), &name))
        .map(|found| folder.join(found))
        .collect();
    found.sort();
    found.truncate(FILES_LIMIT);
    found
}

/// Whether a name comes of a pattern by numbers in the open places.
fn is_of(name: &str, pattern: &str) -> bool {
    let first =
        NUMBERS.iter().filter_map(|number| Some((pattern.find(number)?, number.len()))).min();
    let Some((at, length)) = first else { return name == pattern };
    let Some(rest) = name.strip_prefix(&pattern[..at]) else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    (1..=digits).any(|end| is_of(&rest[end..], &pattern[at + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_of_their_pattern() {
        for (name, pattern, expected) in [
            ("web.3.log", "web.%(slot)s.log", true),
            ("web.3.12.log", "web.%(slot)s.%(generation)s.log", true),
            ("web.312.log", "web.%(slot)s%(generation)s.log", true),
            ("web.3.log.1", "web.%(slot)s.log", false),
            ("web..log", "web.%(slot)s.log", false),
            ("web.x.log", "web.%(slot)s.log", false),
            ("web.log", "web.log", true),
        ] {
            assert_eq!(is_of(name, pattern), expected, "{name} {pattern}");
        }
    }

    #[test]
    fn the_files_that_are_there_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["w.1.log", "w.0.log", "w.0.log.1", "other"] {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        let found = expand(&folder.path().join("w.%(slot)s.log"));
        assert_eq!(found, [folder.path().join("w.0.log"), folder.path().join("w.1.log")]);
        let plain = folder.path().join("plain.log");
        assert_eq!(expand(&plain), [plain]);
    }
}
