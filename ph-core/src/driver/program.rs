//! What a program is, as far as its first bytes tell: a binary, a script and what interprets it, or nothing
//! the kernel would execute.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// As much as the kernel reads of a program before it decides what that is.
const HEAD: u64 = 256;

/// Formats that were told to the kernel while it ran are listed here, beside two files that are always
/// there.
const FURTHER_FORMATS: &str = "/proc/sys/fs/binfmt_misc";
const ALWAYS_THERE: [&str; 2] = ["register", "status"];

/// What a program is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In the kernel's own format.
    Binary,
    /// The first line names an interpreter; if that is `env`, it names another one to look for in `PATH`.
    Script { interpreter: PathBuf, named: Option<String> },
    /// Neither, and no other format is known here.
    NoProgram,
    /// It cannot be read, or may be of a format the kernel was told of.
    Unknown,
}

impl Kind {
    /// What has to be executable besides the program.
    pub(super) fn interpreter(&self) -> Option<&Path> {
        match self {
            Self::Script { interpreter, .. } => Some(interpreter),
            Self::Binary | Self::NoProgram | Self::Unknown => None,
        }
    }
}

/// Reads the beginning of a program.
pub(super) fn kind(path: &Path) -> Kind {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    match (read, kind_of(&head)) {
        (Err(_), _) => Kind::Unknown,
        (Ok(_), Kind::NoProgram) if has_further_formats() => Kind::Unknown,
        (Ok(_), kind) => kind,
    }
}

fn kind_of(head: &[u8]) -> Kind {
    if head.starts_with(b"\x7fELF") {
        return Kind::Binary;
    }
    let Some(line) = head.strip_prefix(b"#!") else { return Kind::NoProgram };
    let is_whole = line.contains(&b'\n') || (head.len() as u64) < HEAD;
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty());
    let Some(interpreter) = words.next() else { return Kind::NoProgram };
    let interpreter = PathBuf::from(OsStr::from_bytes(interpreter));
    let rest = std::str::from_utf8(words.next().unwrap_or_default()).unwrap_or_default();
    let is_env = interpreter.file_name() == Some(OsStr::new("env")) && words.next().is_none();
    let is_name = !rest.is_empty() && !rest.starts_with('-') && !rest.contains('=');
    let named = (is_whole && is_env && is_name).then(|| rest.to_owned());
    Kind::Script { interpreter, named }
}

fn has_further_formats() -> bool {
    let Ok(entries) = std::fs::read_dir(FURTHER_FORMATS) else { return false };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| !ALWAYS_THERE.contains(&name.as_str())).count() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        let script = |interpreter: &str, named: Option<&str>| Kind::Script {
            interpreter: interpreter.into(),
            named: named.map(str::to_owned),
        };
        for (head, wanted) in [
            (&b"\x7fELF\x02\x01"[..], Kind::Binary),
            (b"", Kind::NoProgram),
            (b"\x01\x02", Kind::NoProgram),
            (b"#!", Kind::NoProgram),
            (b"#! \nls", Kind::NoProgram),
            (b"#!/bin/sh", script("/bin/sh", None)),
            (b"#! /bin/sh -e\nls", script("/bin/sh", None)),
            (b"#!/usr/bin/env python3\n", script("/usr/bin/env", Some("python3"))),
            (b"#!/usr/bin/env -S python3 -u\n", script("/usr/bin/env", None)),
            (b"#!/usr/bin/env A=1\n", script("/usr/bin/env", None)),
            (b"#!/bin/sh env\n", script("/bin/sh", None)),
        ] {
            assert_eq!(kind_of(head), wanted, "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn what_cannot_be_read_may_be_anything() {
        assert_eq!(kind(Path::new("/no/such/program")), Kind::Unknown);
        assert_eq!(kind(&std::env::current_exe().unwrap()), Kind::Binary);
    }
}
