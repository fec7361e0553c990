//! Why there is no log, and finding that out without making one.
//!
//! The master may run as root and its log folder may belong to somebody else, so a look must be
//! harmless whatever stands under the name, as the open of a [`RotatingFile`](crate::RotatingFile)
//! is: nothing is made, no symbolic link is followed, and a FIFO or a device, whose other end would
//! notice, is not even opened.

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::rotate::Names;
use crate::rotating::folder::{Folder, name_of};

/// Who may read and write a log file that did not exist, before the umask.
pub(crate) const MODE: u32 = 0o640;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened, or is no regular file.
    #[error("cannot log to {path:?}: {source}{}", Hint(*found))]
    File {
        /// The file as it was named.
        path: PathBuf,
        /// What stands there instead of a regular file, as `"a FIFO"`.
        found: Option<&'static str>,
        /// What the system said; EINVAL where the open succeeded but the file is of a wrong kind.
        source: io::Error,
    },
    /// The process has a global `tracing` subscriber already.
    #[error("cannot set up the log: the process has a global tracing subscriber already")]
    AlreadySet,
    /// The system gives no memory or no descriptor for the journal of the log process.
    #[error("cannot set up the log process: {0}")]
    Journal(#[source] io::Error),
}

impl LogError {
    /// A log of this path could not be opened.
    pub(crate) fn at(path: &Path, source: io::Error) -> LogError {
        let there = fs::symlink_metadata(path).ok();
        let found = there.and_then(|there| irregular(there.file_type()));
        let source = match source.raw_os_error() {
            // What was found says it better than the look at what was opened.
            None if found.is_some() => Errno::EINVAL.into(),
            _ => source,
        };
        LogError::File { path: path.to_owned(), found, source }
    }
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> io::Error {
        match &error {
            LogError::File { source, .. } => io::Error::new(source.kind(), error),
            LogError::AlreadySet => io::Error::other(error),
            LogError::Journal(source) => io::Error::new(source.kind(), error),
        }
    }
}

/// The end of an error's text, if something is known about the file.
struct Hint(Option<&'static str>);

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(found) => write!(f, "; it is {found}, and a log must be a regular file"),
            None => Ok(()),
        }
    }
}

/// Why a log will be written to and never rotated.
#[derive(Debug, thiserror::Error)]
#[error("the log {path:?} will not be rotated: cannot use {companion:?}: {source}")]
pub struct Unrotatable {
    /// The log as it was named.
    pub path: PathBuf,
    /// The file beside it that its writers take turns by, or the folder that takes none.
    pub companion: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Whether a log could be opened there, found out without making or writing one; and, as a success,
/// what would keep it from being rotated.
///
/// # Errors
///
/// What [`init`](crate::init) would say.
pub fn probe(path: &Path) -> Result<Option<Unrotatable>, LogError> {
    let failed = |source| LogError::at(path, source);
    if let Ok(there) = fs::symlink_metadata(path)
        && let Some(errno) = answer_of(there.file_type())
    {
        return Err(failed(errno.into()));
    }
    let names = Names::new(&name_of(path).map_err(failed)?);
    let folder = Folder::of(path).map_err(failed)?;
    let room = folder.is_open_to_changes();
    match folder.open_log(&names.log, None) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match &room {
            Ok(()) => {}
            Err(errno) => return Err(failed((*errno).into())),
        },
        opened => drop(opened.map_err(failed)?),
    }
    let companion = path.with_file_name(&names.ledger);
    let trouble = match folder.open_regular(&names.ledger, OFlag::O_RDWR, Mode::empty()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Some((companion, error)),
        _ => room.err().map(|errno| (folder.path().to_owned(), errno.into())),
    };
    let path = path.to_owned();
    Ok(trouble.map(|(companion, source)| Unrotatable { path, companion, source }))
}

/// What an open says of a file whose other end it would not leave alone.
fn answer_of(found: FileType) -> Option<Errno> {
    let is_device = found.is_char_device() || found.is_block_device();
    match found.is_socket() {
        true => Some(Errno::ENXIO),
        false => (found.is_fifo() || is_device).then_some(Errno::EINVAL),
    }
}

/// What a file is, unless it is a regular one.
fn irregular(found: FileType) -> Option<&'static str> {
    match found {
        found if found.is_file() => None,
        found if found.is_dir() => Some("a directory"),
        found if found.is_symlink() => Some("a symbolic link"),
        found if found.is_fifo() => Some("a FIFO"),
        found if found.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd as _;

    use crate::{RotateLimits, RotateOptions, RotatingFile};

    fn open(path: &Path) -> Result<RotatingFile, LogError> {
        RotatingFile::open(RotateOptions::new(path, RotateLimits::default()))
    }

    #[test]
    fn a_probe_says_what_an_open_would_and_makes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.log");
        let text = |path: &Path| probe(path).expect_err("no log").to_string();
        assert!(probe(&path).expect("room for a log").is_none());
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
        open(&path).expect("a log");
        assert!(probe(&path).expect("a log that is there").is_none());
        let missing = folder.path().join("missing/a.log");
        assert_eq!(text(&missing), open(&missing).expect_err("no folder").to_string());
        assert_eq!(text(folder.path()), open(folder.path()).expect_err("a folder").to_string());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert_eq!(text(&link), open(&link).expect_err("a link").to_string());
        let second = folder.path().join("second");
        fs::hard_link(&path, &second).expect("a second name");
        assert_eq!(text(&second), open(&second).expect_err("two names").to_string());
        assert!(text(&second).contains("hard links"), "{}", text(&second));
        let null = Path::new("/dev/null");
        assert_eq!(text(null), open(null).expect_err("a device").to_string());
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).expect("a FIFO");
        assert_eq!(text(&fifo), open(&fifo).expect_err("a FIFO").to_string());
        // A reader hears the end of the first writer that goes.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let reader = nix::fcntl::open(&fifo, flags, Mode::empty());
        let reader = reader.expect("a reader");
        assert!(text(&fifo).contains("it is a FIFO"));
        let mut asked = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::ZERO).expect("an answer");
        assert_eq!(asked[0].revents(), Some(PollFlags::empty()), "nobody came and went");
    }

    #[test]
    fn a_probe_tells_of_a_log_that_cannot_be_rotated() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.log");
        fs::create_dir(folder.path().join(".a.log.lock")).expect("a folder in the way");
        let trouble = probe(&path).expect("room for a log").expect("no room for the lock");
        let text = trouble.to_string();
        assert!(text.contains(".a.log.lock\": Is a directory"), "{text}");
    }
}
