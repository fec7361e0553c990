//! The lock file that makes a master the only one: a raw `flock`, held until the last close.
//!
//! It is never unlocked explicitly, so it stays held as long as any process has the descriptor, and
//! the kernel releases it however the holder ends.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt as _, MetadataExt, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::stat::{major, minor};
use nix::unistd::{Pid, geteuid};

use super::clock;

/// How often a held lock is looked at for the name of its holder, and the pause between two looks.
const LOOKS: u32 = 40;
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// How much of the kernel's list of locks is read, and how many descriptors of a process are looked at.
const LIST_AT_MOST: u64 = 1 << 22;
const LINKS_AT_MOST: usize = 1 << 17;

/// A held lock; its file names the holder's pid for people.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

/// Why a lock could not be had.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process holds it.
    Held(HeldByOther),
    /// The file could not be opened, is not a regular file, or could not be locked.
    Io(io::Error),
}

/// What a look finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// There is no lock file.
    Nothing,
    /// There is one that nobody holds.
    Free,
    /// Somebody holds it; the living process that does, as far as it is known.
    Held(Option<i32>),
}

/// A lock somebody else holds.
#[derive(Debug)]
pub(crate) struct HeldByOther(File);

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
            let mut file = open(path, true)?;
            if !try_lock(&file)? {
                return Err(LockError::Held(HeldByOther(file)));
            }
            if is_at(&file, path) {
                refuse_other_content(&file)?;
                // Whoever may open it may hold it, and keep the next master from starting.
                file.set_permissions(Permissions::from_mode(0o600))?;
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                return Ok(Self { file, path: path.to_owned() });
            }
        }
        Err(io::Error::other("the lock file is replaced again and again").into())
    }

    /// What [`acquire`](Self::acquire) would find, without making, changing or locking anything: nobody
    /// who starts at this moment is kept from it. A master that cannot be seen (on another machine, or in
    /// another container without the numbers of this one) is not found.
    pub(crate) fn look(path: &Path) -> io::Result<Sight> {
        let file = match open(path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Sight::Nothing),
            opened => opened?,
        };
        if let Some(pid) = locker(&file)? {
            let names = |pid: &i32| is_alive(*pid);
            return Ok(Sight::Held(
                Some(pid).filter(names).or_else(|| written(&file).filter(names)),
            ));
        }
        refuse_other_content(&file)?;
        // An attempt sets the mode, which is the owner's to set.
        if file.metadata()?.uid() != geteuid().as_raw() && !geteuid().is_root() {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(Sight::Free)
    }

    /// A lock that another master has handed over: it is held by both until the other is gone.
    pub(crate) fn adopt(file: OwnedFd, path: &Path) -> io::Result<Self> {
        let lock = Self { file: file.into(), path: path.to_owned() };
        match is_at(&lock.file, path) {
            true => Ok(lock),
            false => Err(io::Error::other("what was handed over is not the lock file")),
        }
    }

    /// Makes the path name a lock of this process again, should it name another file or none. That is a
    /// new file, because one that was removed has no way back to a name.
    pub(crate) fn put_back(&mut self) -> Result<(), LockError> {
        if !is_at(&self.file, &self.path) {
            *self = Self::acquire(&self.path)?;
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Has the file name this process.
    pub(crate) fn name_holder(&mut self) -> io::Result<()> {
        let text = format!("{}\n", std::process::id());
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
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

/// Locks a folder for as long as the file lives. Others do so for a moment only, at their start; so
/// does this wait.
pub(crate) fn lock_folder(path: &Path) -> io::Result<File> {
    let folder = open_folder(path)?;
    for _ in 0..LOOKS * 10 {
        if try_lock(&folder)? {
            return Ok(folder);
        }
        clock::pause(LOOK_PAUSE);
    }
    Err(io::Error::from(io::ErrorKind::WouldBlock))
}

/// Sees that [`lock_folder`] could lock a folder, without locking it; waits as long as that would.
pub(crate) fn see_lockable(path: &Path) -> io::Result<()> {
    let folder = open_folder(path)?;
    for _ in 0..LOOKS * 10 {
        if locker(&folder)?.is_none() {
            return Ok(());
        }
        clock::pause(LOOK_PAUSE);
    }
    Err(io::Error::from(io::ErrorKind::WouldBlock))
}

/// Opens a folder for reading; what is no folder is refused at once.
fn open_folder(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)
}

/// Takes an exclusive lock if nobody has one.
pub(super) fn try_lock(file: &impl AsRawFd) -> io::Result<bool> {
    // SAFETY: flock on a descriptor that lives as long as the borrow.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) }
}

/// The process that has locked a file, as the kernel's list of locks names it. Some file systems (btrfs,
/// overlays) have another device there than `stat` tells; so the process that the file itself names is
/// asked too.
fn locker(file: &File) -> io::Result<Option<i32>> {
    let there = file.metadata()?;
    let device = there.dev();
    let place = format!("{:02x}:{:02x}:{}", major(device), minor(device), there.ino());
    let mut list = Vec::new();
    // A /proc that shows processes only has no such list; the file and its holder are asked all the same.
    if let Ok(locks) = File::open("/proc/locks") {
        locks.take(LIST_AT_MOST).read_to_end(&mut list)?;
    }
    // Who took the lock may have handed it on, and its number may be another's by now.
    let named = written(file).filter(|pid| is_alive(*pid) && holds(*pid, &there));
    let listed = || String::from_utf8_lossy(&list).lines().find_map(|line| lock_of(line, &place));
    Ok(named.or_else(listed))
}

/// A line is `1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`; one of a process that waits has `->`
/// before its kind.
fn lock_of(line: &str, place: &str) -> Option<i32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let is_lock = fields.next()? == "FLOCK";
    let pid = fields.nth(2)?.parse().ok()?;
    (is_lock && fields.next()? == place).then_some(pid)
}

/// Whether a process has this file open and locked. One that may not be asked is believed.
fn holds(pid: i32, there: &Metadata) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return true };
    let is_it = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == (there.dev(), there.ino()))
    };
    let is_locked = |fd: &OsStr| {
        let info = Path::new("/proc").join(pid.to_string()).join("fdinfo").join(fd);
        let info = std::fs::read_to_string(info).unwrap_or_default();
        info.lines().any(|line| line.starts_with("lock:") && line.contains(" FLOCK "))
    };
    let mut entries = entries.take(LINKS_AT_MOST).flatten();
    entries.any(|entry| is_it(&entry.path()) && is_locked(&entry.file_name()))
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

impl HeldByOther {
    /// The living process the file names. Until the one that has just taken the lock has written its
    /// pid, the file is empty or names one that is dead; so there are several looks. Only a start
    /// that is refused has this time.
    pub(crate) fn holder(&self) -> Option<i32> {
        for _ in 0..LOOKS {
            let pid = written(&self.0).filter(|&pid| is_alive(pid));
            if pid.is_some() {
                return pid;
            }
            clock::pause(LOOK_PAUSE);
        }
        None
    }
}

fn open(path: &Path, is_made: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(is_made).truncate(false).mode(0o600);
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// The file has to be empty or hold a number and nothing else: another program's `Cargo.lock` is not
/// ours to overwrite.
fn refuse_other_content(file: &File) -> io::Result<()> {
    if file.metadata()?.len() == 0 || written(file).is_some() {
        return Ok(());
    }
    Err(io::Error::other("it holds something else; it was kept"))
}

fn written(file: &File) -> Option<i32> {
    let mut text = [0; 32];
    let length = file.read_at(&mut text, 0).ok().filter(|length| *length < text.len())?;
    std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}

fn is_alive(pid: i32) -> bool {
    pid > 0 && kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
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
        let LockError::Held(held) = held else { panic!("{held:?}") };
        assert_eq!(held.holder(), Some(our_pid));
        lock.remove_file();
        assert!(!path.exists());
        let _second = Lock::acquire(&path).unwrap();
        lock.remove_file();
        assert!(path.exists(), "the file of another holder stays");
    }

    #[test]
    fn a_holder_that_has_yet_to_write_its_pid_is_not_taken_for_the_dead_one_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        let _lock = Lock::acquire(&path).unwrap();
        for text in ["", "2147483647\n", "0\n", "garbage"] {
            std::fs::write(&path, text).unwrap();
            let Err(LockError::Held(held)) = Lock::acquire(&path) else { panic!("{text}") };
            assert_eq!(held.holder(), None, "{text}");
        }
    }

    #[test]
    fn a_file_of_another_program_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Cargo.lock");
        for text in ["version = 4\n".to_owned(), "1".repeat(40), "\n".repeat(32)] {
            std::fs::write(&path, &text).unwrap();
            assert!(matches!(Lock::acquire(&path), Err(LockError::Io(_))), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_look_finds_what_an_attempt_would_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        assert_eq!(Lock::look(&path).unwrap(), Sight::Nothing);
        assert!(!path.exists());
        let our_pid = std::process::id().to_string();
        for text in ["2147483647\n", our_pid.as_str()] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Lock::look(&path).unwrap(), Sight::Free, "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let lock = Lock::acquire(&path).unwrap();
        let own = std::process::id().cast_signed();
        let holder = Some(own);
        assert_eq!(Lock::look(&path).unwrap(), Sight::Held(holder));
        // Who has the lock is known before the file says it.
        std::fs::write(&path, "").unwrap();
        assert_eq!(Lock::look(&path).unwrap(), Sight::Held(holder));
        assert!(holds(own, &lock.file.metadata().unwrap()));
        drop(lock);
        std::fs::write(&path, "version = 4\n").unwrap();
        assert!(Lock::look(&path).is_err());
        assert!(Lock::look(folder.path()).is_err());
    }

    #[test]
    fn a_lock_is_read_from_the_list_and_a_wait_for_one_is_none() {
        let line = "7: FLOCK  ADVISORY  WRITE 42 fd:01:99 0 EOF";
        assert_eq!(lock_of(line, "fd:01:99"), Some(42));
        assert_eq!(lock_of(line, "fd:01:9"), None);
        assert_eq!(lock_of("7: -> FLOCK  ADVISORY  WRITE 42 fd:01:99 0 EOF", "fd:01:99"), None);
        assert_eq!(lock_of("7: POSIX  ADVISORY  WRITE 42 fd:01:99 0 EOF", "fd:01:99"), None);
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
