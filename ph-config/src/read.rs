//! Brings a file into memory, or says why not: the configuration, or one of its env files.
//!
//! A reload must not hang or swell on whatever a path happens to name, so a file is opened without
//! blocking (a FIFO without a writer answers at once), must be a regular file, and is read up to
//! [`MAX_BYTES`]. What comes out is UTF-8 without a byte order mark and without NUL; line ends are
//! the parser's concern.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::error::{Escaped, Origin, Place, Problem, Report};
use crate::trust::{ForeignWriters, foreign_writer};

/// The largest file that is read, in bytes.
pub(crate) const MAX_BYTES: u64 = 1024 * 1024;

/// What a file is read for, in the words of a refusal.
pub(crate) struct Purpose {
    /// What cannot be read.
    what: &'static str,
    /// What to do if there is no file.
    missing: &'static str,
    /// What to name instead of something that is not a file.
    irregular: &'static str,
    /// What to look at if it is too long.
    long: &'static str,
}

impl Purpose {
    pub(crate) const CONFIGURATION: Purpose = Purpose {
        what: "the configuration",
        missing: "check the path, or write the file",
        irregular: "name a file that holds the settings",
        long: "check that this is the configuration and not its data",
    };

    pub(crate) const VARIABLES: Purpose = Purpose {
        what: "the variables",
        missing: "check the path, or put `-` before it if the file may be missing",
        irregular: "name a file with lines of NAME=value",
        long: "check that this file holds variables and not data",
    };
}

/// Reads the file at `path`, which is absolute; `shown` is how the operator spelled it.
pub(crate) fn read(
    path: &Path,
    shown: &Path,
    purpose: &Purpose,
    foreign_writers: ForeignWriters,
    report: &mut Report,
) -> Result<String, Box<Problem>> {
    let file = open(path);
    if file.is_ok() {
        judge_writers(path, shown, foreign_writers, report)?;
    }
    contents(file, shown, purpose)
}

/// Refuses or warns of a file that others than root can write.
fn judge_writers(
    path: &Path,
    shown: &Path,
    foreign_writers: ForeignWriters,
    report: &mut Report,
) -> Result<(), Box<Problem>> {
    if foreign_writers == ForeignWriters::Accept {
        return Ok(());
    }
    let Some(writer) = foreign_writer(path) else { return Ok(()) };
    let who = writer.to_string();
    let message = format!("expected a file that only root can write, but {}", Escaped(&who));
    let mend = format!("{}; or accept it with --allow-writable", Escaped(&writer.cure()));
    let problem = Problem::new(Place::File(shown.to_owned()), message, mend);
    if foreign_writers == ForeignWriters::Warn || writer.is_owner() {
        report.warn(problem);
        return Ok(());
    }
    Err(Box::new(problem))
}

/// Opens a file so that nothing can make it wait.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// The text of an opened file; `shown` is its path in messages.
pub(crate) fn contents(
    file: io::Result<File>,
    shown: &Path,
    purpose: &Purpose,
) -> Result<String, Box<Problem>> {
    let whole = |message: String, mend: &str| {
        Box::new(Problem::new(Place::File(shown.to_owned()), message, mend.to_owned()))
    };
    let failed = |error: io::Error| {
        let mend = if error.kind() == io::ErrorKind::NotFound {
            purpose.missing
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            "give the user that runs this read permission on the file and its folders"
        } else {
            "check the path and the file system"
        };
        whole(format!("cannot read {}: {error}", purpose.what), mend)
    };
    let file = file.map_err(failed)?;
    if let Some(kind) = irregular(&file).map_err(failed)? {
        let message = format!("expected a regular file, got a {kind}");
        return Err(whole(message, purpose.irregular));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        let message = format!("expected at most {MAX_BYTES} bytes, got more");
        return Err(whole(message, purpose.long));
    }
    text(bytes, shown)
}

fn text(bytes: Vec<u8>, shown: &Path) -> Result<String, Box<Problem>> {
    let at = |bytes: &[u8], offset: usize, message: &str, mend: &str| {
        let line = bytes.iter().take(offset).filter(|byte| **byte == b'\n').count() + 1;
        let origin = Origin::File { path: shown.to_owned(), line };
        Box::new(Problem::new(Place::Value(origin), message, mend))
    };
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let message = "expected UTF-8, got bytes of another encoding";
        at(error.as_bytes(), offset, message, "save the file as UTF-8")
    })?;
    if let Some(offset) = text.find('\0') {
        let mend = "take the NUL byte out; is this a text file?";
        return Err(at(text.as_bytes(), offset, "expected text, got a NUL byte", mend));
    }
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// What the file is instead of a regular one.
fn irregular(file: &File) -> io::Result<Option<&'static str>> {
    let kind = file.metadata()?.file_type();
    Ok(if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("folder")
    } else if kind.is_fifo() {
        Some("FIFO")
    } else {
        Some("device or socket")
    })
}
