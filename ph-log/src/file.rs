//! Opening a log file, and refusing everything that only looks like one.
//!
//! The master may run as root and its log folder may belong to somebody else, so the open itself
//! must be harmless whatever stands under the name: no symbolic link is followed, a FIFO without
//! a reader fails instead of waiting, a terminal does not become the controlling one, and what
//! was opened must be a regular file. Every descriptor is in append mode and close-on-exec from
//! birth, and none is 0, 1 or 2: a process whose stderr is closed must not find its log there.

use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{AccessFlags, access};

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
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> io::Error {
        match &error {
            LogError::File { source, .. } => io::Error::new(source.kind(), error),
            LogError::AlreadySet => io::Error::other(error),
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

/// Opens `path` for appending, on an open file description of its own.
pub(crate) fn open(path: &Path) -> Result<File, LogError> {
    open_or_make(path, true)
}

/// Whether a log could be opened there, found out without making or writing one. What is there is not
/// even opened if it is a FIFO or a device, whose other end would notice.
///
/// # Errors
///
/// What [`init`](crate::init) would say.
pub fn probe(path: &Path) -> Result<(), LogError> {
    if let Ok(there) = fs::symlink_metadata(path).map(|there| there.file_type())
        && let Some(errno) = answer_of(there)
    {
        let found = irregular(there);
        return Err(LogError::File { path: path.into(), found, source: errno.into() });
    }
    match open_or_make(path, false) {
        Err(LogError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| LogError::File {
                path: path.into(),
                found: None,
                source: errno.into(),
            })
        }
        opened => opened.map(drop),
    }
}

/// What an open says of a file whose other end it would not leave alone.
fn answer_of(found: FileType) -> Option<Errno> {
    let is_device = found.is_char_device() || found.is_block_device();
    match found.is_fifo() || found.is_socket() {
        true => Some(Errno::ENXIO),
        false => is_device.then_some(Errno::EINVAL),
    }
}

fn open_or_make(path: &Path, is_made: bool) -> Result<File, LogError> {
    let failed = |source: io::Error, found| LogError::File { path: path.into(), found, source };
    // std adds O_CLOEXEC.
    let guards = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new()
        .append(true)
        .create(is_made)
        .mode(MODE)
        .custom_flags(guards.bits())
        .open(path)
        .map_err(|source| {
            let there = fs::symlink_metadata(path).ok();
            failed(source, there.and_then(|there| irregular(there.file_type())))
        })?;
    let found = file.metadata().map_err(|source| failed(source, None))?.file_type();
    if !found.is_file() {
        return Err(failed(Errno::EINVAL.into(), irregular(found)));
    }
    // O_NONBLOCK guarded the open alone; a program that gets this descriptor as its stderr need
    // not see it.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND)).map_err(|errno| failed(errno.into(), None))?;
    if file.as_raw_fd() > 2 {
        return Ok(file);
    }
    // A clone is made above the standard descriptors.
    file.try_clone().map_err(|source| failed(source, None))
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

    #[test]
    fn a_probe_says_what_an_open_would_and_makes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.log");
        let text = |path: &Path| probe(path).expect_err("no log").to_string();
        probe(&path).expect("room for a log");
        assert!(!path.exists());
        open(&path).expect("a log");
        probe(&path).expect("a log that is there");
        let missing = folder.path().join("missing/a.log");
        assert_eq!(text(&missing), open(&missing).expect_err("no folder").to_string());
        assert_eq!(text(folder.path()), open(folder.path()).expect_err("a folder").to_string());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert_eq!(text(&link), open(&link).expect_err("a link").to_string());
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        assert_eq!(text(&fifo), open(&fifo).expect_err("no reader").to_string());
        // A reader hears the end of the first writer that goes.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let reader = nix::fcntl::open(&fifo, flags, nix::sys::stat::Mode::empty());
        let reader = reader.expect("a reader");
        assert!(text(&fifo).contains("it is a FIFO"));
        let mut asked = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::ZERO).expect("an answer");
        assert_eq!(asked[0].revents(), Some(PollFlags::empty()), "nobody came and went");
        let null = Path::new("/dev/null");
        assert_eq!(text(null), open(null).expect_err("a device").to_string());
    }
}
