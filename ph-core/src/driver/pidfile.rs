//! The pidfile and the lock beside it: STEM.pid and STEM.lock; instance 2 has STEM.2.pid, and so on.
//! STEM is the pidfile's path without `.pid`; any other ending stays, so that `web.a` and `web.b`
//! have locks of their own, and none of them is its own lock.
//!
//! The lock decides who runs; the number in the pidfile is for people and scripts.

use std::ffi::OsString;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::RunError;
use crate::sys::folder;
use crate::sys::lock::{Lock, LockError, Sight};

/// The most masters of one section that may run side by side.
pub(super) const MAX_INSTANCES: u32 = 1024;

/// A file that is longer than this, in bytes, never was a pidfile.
const MAX_STALE: u64 = 64;

/// Where the master's pid goes, and whether it must be the only one.
#[derive(Clone, Debug)]
pub struct Pidfile {
    /// The file.
    pub path: PathBuf,
    /// True: a second master is refused. False: it becomes the next free instance.
    pub single_instance: bool,
}

/// A master that runs, as its lock tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Which of several of the same service it is, from 1.
    pub instance: u32,
    /// Its pid, if the lock file names a living process.
    pub pid: Option<i32>,
}

/// A held lock and, once written, the pidfile beside it.
#[derive(Debug)]
pub(super) struct HeldPidfile {
    lock: Lock,
    path: PathBuf,
    /// Which instance this is, from 1.
    pub(super) instance: u32,
    is_written: bool,
    /// Another master has it, or may still have it: the files stay.
    pub(super) is_shared: bool,
}

impl Pidfile {
    /// Takes the lock. The pidfile is written later, when signals are handled.
    pub(super) fn claim(&self) -> Result<HeldPidfile, RunError> {
        let last = if self.single_instance { 1 } else { MAX_INSTANCES };
        for instance in 1..=last {
            match self.claim_instance(instance) {
                Err(RunError::AlreadyRunning { .. }) if !self.single_instance => {}
                claimed => return claimed,
            }
        }
        Err(RunError::AlreadyRunning { lock: self.path_of(last, "lock"), holder: None })
    }

    /// The same for this instance and no other.
    pub(super) fn claim_instance(&self, instance: u32) -> Result<HeldPidfile, RunError> {
        let lock_path = self.path_of(instance, "lock");
        let lock = match Lock::acquire(&lock_path) {
            Ok(lock) => lock,
            Err(LockError::Held(held)) => {
                let holder = held.holder();
                return Err(RunError::AlreadyRunning { lock: lock_path, holder });
            }
            Err(LockError::Io(source)) => {
                return Err(RunError::File { what: "lock", path: lock_path, source });
            }
        };
        let path = self.file_of(instance);
        let held = HeldPidfile { lock, path, instance, is_written: false, is_shared: false };
        match see_replaceable(&held.path) {
            Ok(()) => Ok(held),
            Err(source) => {
                let path = held.path.clone();
                Err(RunError::File { what: "pidfile", path, source })
            }
        }
    }

    /// The lock file that decides whether another master runs. Services whose pidfiles have the same one
    /// keep each other from starting.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.path_of(1, "lock")
    }

    /// What a claim would come to, made without leaving anything behind: the masters that run, and
    /// everything that would keep the next one from its files.
    pub(super) fn look(&self) -> (Vec<Running>, Vec<RunError>) {
        let (mut running, mut errors) = (Vec::new(), Vec::new());
        let last = if self.single_instance { 1 } else { MAX_INSTANCES };
        let mut is_placed = false;
        for instance in 1..=last {
            let lock = self.path_of(instance, "lock");
            match Lock::look(&lock) {
                Ok(Sight::Held(pid)) => running.push(Running { instance, pid }),
                // Those behind a free number are looked at for masters alone.
                _ if is_placed => {}
                Ok(sight) => {
                    is_placed = true;
                    errors.extend(self.see_files(instance, sight != Sight::Nothing).err());
                }
                Err(source) => {
                    is_placed = true;
                    errors.push(RunError::File { what: "lock", path: lock, source });
                }
            }
        }
        (running, errors)
    }

    /// Sees that a master could make its files, or replace those that are there.
    fn see_files(&self, instance: u32, has_lock_file: bool) -> Result<(), RunError> {
        let lock = self.path_of(instance, "lock");
        let path = self.file_of(instance);
        let refused = |what, path| move |source| RunError::File { what, path, source };
        // Beside a lock file that is there, only the pidfile is made.
        let files = if has_lock_file { 1 } else { 2 };
        match folder::takes_data(folder::of(&lock), files).map_err(io::Error::from) {
            Err(source) if !has_lock_file => Err(refused("lock", lock)(source)),
            folder => folder
                .and_then(|()| see_replaceable(&path))
                .and_then(|()| see_room_for_new(&path))
                .map_err(refused("pidfile", path)),
        }
    }

    pub(super) fn file_of(&self, instance: u32) -> PathBuf {
        match instance {
            1 => self.path.clone(),
            _ => self.path_of(instance, "pid"),
        }
    }

    pub(super) fn path_of(&self, instance: u32, extension: &str) -> PathBuf {
        let is_plain = self.path.extension().is_some_and(|extension| extension == "pid");
        let stem = if is_plain { self.path.with_extension("") } else { self.path.clone() };
        let mut path: OsString = stem.into();
        if instance > 1 {
            path.push(format!(".{instance}"));
        }
        path.push(".");
        path.push(extension);
        path.into()
    }
}

impl HeldPidfile {
    /// Writes the pidfile whole, with mode 0644, never through a link: a new file takes the name.
    pub(super) fn write(&mut self) -> Result<(), RunError> {
        write_whole(&self.path).map_err(|source| {
            let path = self.path.clone();
            RunError::File { what: "pidfile", path, source }
        })?;
        self.is_written = true;
        Ok(())
    }

    /// The same at a start; one whose lock another master has too is written when that goes.
    pub(super) fn write_first(&mut self) -> Result<(), RunError> {
        if self.is_shared { Ok(()) } else { self.write() }
    }

    /// What the master that runs hands over to its successor. Until this one takes over, the files are
    /// that one's.
    pub(super) fn adopt(
        lock: OwnedFd,
        path: PathBuf,
        instance: u32,
        of: &Pidfile,
    ) -> Result<Self, RunError> {
        let lock_path = of.path_of(instance, "lock");
        let lock = Lock::adopt(lock, &lock_path).map_err(|source| {
            let path = lock_path.clone();
            RunError::File { what: "lock", path, source }
        })?;
        Ok(Self { lock, path, instance, is_written: false, is_shared: true })
    }

    /// Has the files name this master. It leaves them where they are at its end until it
    /// [owns](Self::own) them.
    pub(super) fn take_over(&mut self) -> Result<(), RunError> {
        self.write()?;
        self.lock.name_holder().map_err(|source| self.lock_refused(source))
    }

    /// From now on the files are this master's alone.
    pub(super) fn own(&mut self) {
        self.is_shared = false;
    }

    /// Makes the files this master's again after a successor has failed, whatever that has done to them.
    pub(super) fn put_right(&mut self) -> Result<(), RunError> {
        self.lock.put_back().map_err(|error| match error {
            LockError::Held(_) => {
                let lock = self.lock.path().to_owned();
                RunError::AlreadyRunning { lock, holder: None }
            }
            LockError::Io(source) => self.lock_refused(source),
        })?;
        self.take_over()
    }

    fn lock_refused(&self, source: io::Error) -> RunError {
        RunError::File { what: "lock", path: self.lock.path().to_owned(), source }
    }

    /// From now on they are the successor's.
    pub(super) fn hand_over(&mut self) {
        self.is_shared = true;
    }

    /// Whether it is that of another master too, or still may be.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn lock_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// The lock's descriptor, which a worker closes.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.lock.raw_fd()
    }
}

impl Drop for HeldPidfile {
    /// Removes pidfile and lock file, the former only if it still names this process.
    fn drop(&mut self) {
        if self.is_shared {
            return;
        }
        if self.is_written && names_this_process(&self.path) {
            // What cannot be removed is stale, and the lock says so.
            let _ = std::fs::remove_file(&self.path);
        }
        self.lock.remove_file();
    }
}

fn write_whole(path: &Path) -> io::Result<()> {
    let temporary = new_one(path)?;
    // One may be left of a predecessor that was killed; while the lock is held no other is about to
    // write one. It has one name, so that there is never more than one.
    let _ = std::fs::remove_file(&temporary);
    let written = (|| {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&temporary)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        writeln!(file, "{}", std::process::id())?;
        std::fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Where a pidfile is written before it takes its name.
fn new_one(path: &Path) -> io::Result<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(".new");
    Ok(path.with_file_name(name))
}

/// Sees that what the pidfile is to replace is nothing, a link, or short enough to be an old pidfile,
/// whatever it says: after a power cut it may say anything, and must not keep a service from starting.
/// Not, by a slip in the configuration, a file that matters.
fn see_replaceable(path: &Path) -> io::Result<()> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let kind = there.file_type();
    if kind.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !(kind.is_file() || kind.is_symlink() || kind.is_fifo()) {
        return Err(io::Error::other("a device or a socket is there"));
    }
    if folder::is_mount_point(path) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    if kind.is_file() && there.len() > MAX_STALE {
        let why = format!("it holds {} bytes, which the pid would replace", there.len());
        return Err(io::Error::other(why));
    }
    folder::see_removable(path)
}

/// Sees that the new pidfile could be made beside the old one.
fn see_room_for_new(path: &Path) -> io::Result<()> {
    let temporary = new_one(path)?;
    match std::fs::symlink_metadata(&temporary) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(there) if there.is_dir() => Err(io::Error::other(format!(
            "{} is a directory, and is where it is written before it takes its name",
            temporary.display()
        ))),
        Ok(_) => folder::see_removable(&temporary),
    }
}

fn names_this_process(path: &Path) -> bool {
    let is_file = std::fs::symlink_metadata(path).is_ok_and(|it| it.is_file() && it.len() <= 32);
    let text =
        if is_file { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    text.trim() == std::process::id().to_string()
}

#[cfg(test)]
mod tests;
