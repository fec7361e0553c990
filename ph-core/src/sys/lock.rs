//! The lock file that makes a master the only one: a raw `flock`, held until the last close.
//!
//! It is never unlocked explicitly, so it stays held as long as any process has the descriptor, and
//! the kernel releases it however the holder ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A held lock; its file names the holder's pid for people.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

/// Why a lock could not be had.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process holds it; the pid it wrote, if it can be read.
    Held(Option<i32>),
    /// The file could not be opened, is not a regular file, or could not be locked.
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Lock {
    /// Takes the lock, or says at once who has it.
    ///
    /// The file may be removed by a holder that is just leaving; then what was locked is no longer
    /// what the path names, and the next attempt makes a new file. The attempts are bounded.
    pub(crate) fn acquire(path: &Path) -> Result<Self, LockError> {
        for _ in 0..64 {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("not a regular file").into());
            }
            // SAFETY: flock on a descriptor this function owns.
            if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
                let error = io::Error::last_os_error();
                let is_held = error.kind() == io::ErrorKind::WouldBlock;
                return Err(if is_held {
                    LockError::Held(holder(&mut file))
                } else {
                    LockError::Io(error)
                });
            }
            if is_at(&file, path) {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                return Ok(Self { file, path: path.to_owned() });
            }
        }
        Err(io::Error::other("the lock file is replaced again and again").into())
    }

    /// The descriptor, which a worker closes before its own code runs.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Removes the file, while the lock is still held, if it is still the one that was locked.
    pub(crate) fn remove_file(&self) {
        if is_at(&self.file, &self.path) {
            // A lock file that cannot be removed is harmless: the next master locks it again.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn holder(file: &mut File) -> Option<i32> {
    let mut text = [0; 32];
    let length = file.read(&mut text).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_holder_and_a_removed_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        let lock = Lock::acquire(&path).unwrap();
        let held = Lock::acquire(&path).unwrap_err();
        let our_pid = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(held, LockError::Held(Some(pid)) if pid == our_pid), "{held:?}");
        lock.remove_file();
        assert!(!path.exists());
        let _second = Lock::acquire(&path).unwrap();
        lock.remove_file();
        assert!(path.exists(), "the file of another holder stays");
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Lock::acquire(folder.path()), Err(LockError::Io(_))));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("target"), &link).unwrap();
        assert!(matches!(Lock::acquire(&link), Err(LockError::Io(_))));
        assert!(!folder.path().join("target").exists());
    }
}
