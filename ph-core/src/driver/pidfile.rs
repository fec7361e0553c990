//! The pidfile and the lock beside it: STEM.pid and STEM.lock; instance 2 has STEM.2.pid, and so on.
//! STEM is the pidfile's path without `.pid`; any other ending stays, so that `web.a` and `web.b`
//! have locks of their own, and none of them is its own lock.
//!
//! The lock decides who runs; the number in the pidfile is for people and scripts.

use std::ffi::OsString;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::RawFd;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::RunError;
use crate::sys::folder;
use crate::sys::lock::{Lock, LockError};

/// The most masters of one section that may run side by side.
const MAX_INSTANCES: u32 = 1024;

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
}

impl Pidfile {
    /// Takes the lock. The pidfile is written later, when signals are handled.
    pub(super) fn claim(&self) -> Result<HeldPidfile, RunError> {
        let last = if self.single_instance { 1 } else { MAX_INSTANCES };
        for instance in 1..=last {
            let lock_path = self.path_of(instance, "lock");
            match Lock::acquire(&lock_path) {
                Ok(lock) => {
                    let path = match instance {
                        1 => self.path.clone(),
                        _ => self.path_of(instance, "pid"),
                    };
                    return Ok(HeldPidfile { lock, path, instance, is_written: false });
                }
                Err(LockError::Held(_)) if !self.single_instance => {}
                Err(LockError::Held(held)) => {
                    let holder = held.holder();
                    return Err(RunError::AlreadyRunning { lock: lock_path, holder });
                }
                Err(LockError::Io(source)) => {
                    return Err(RunError::File { what: "lock", path: lock_path, source });
                }
            }
        }
        Err(RunError::AlreadyRunning { lock: self.path_of(last, "lock"), holder: None })
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
        for instance in 1..=MAX_INSTANCES {
            let lock = self.path_of(instance, "lock");
            let refused = |source| RunError::File { what: "lock", path: lock.clone(), source };
            match Lock::look(&lock) {
                Ok(is_there) => {
                    let folder = folder::takes_files(folder::of(&lock)).map_err(io::Error::from);
                    let pidfile = match instance {
                        1 => self.path.clone(),
                        _ => self.path_of(instance, "pid"),
                    };
                    match folder {
                        Err(source) if !is_there => errors.push(refused(source)),
                        folder => {
                            let seen = folder.and_then(|()| see_replaceable(&pidfile));
                            errors.extend(seen.err().map(|source| RunError::File {
                                what: "pidfile",
                                path: pidfile,
                                source,
                            }));
                        }
                    }
                    break;
                }
                Err(LockError::Held(held)) => {
                    running.push(Running { instance, pid: held.holder() });
                    if self.single_instance {
                        break;
                    }
                }
                Err(LockError::Io(source)) => {
                    errors.push(refused(source));
                    break;
                }
            }
        }
        (running, errors)
    }

    fn path_of(&self, instance: u32, extension: &str) -> PathBuf {
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

    /// The lock's descriptor, which a worker closes.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.lock.raw_fd()
    }
}

impl Drop for HeldPidfile {
    /// Removes pidfile and lock file, the former only if it still names this process.
    fn drop(&mut self) {
        if self.is_written && names_this_process(&self.path) {
            // What cannot be removed is stale, and the lock says so.
            let _ = std::fs::remove_file(&self.path);
        }
        self.lock.remove_file();
    }
}

fn write_whole(path: &Path) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(".new");
    let temporary = path.with_file_name(name);
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

/// Sees that what the pidfile is to replace is nothing, a link, or an old pidfile; not, by a slip in the
/// configuration, a file that matters.
fn see_replaceable(path: &Path) -> io::Result<()> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if there.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if there.is_symlink() {
        return Ok(());
    }
    if !there.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let is_number = |text: String| text.trim().is_empty() || text.trim().parse::<u32>().is_ok();
    // One that cannot be read may be a pidfile as well as not.
    let is_pidfile = there.len() <= 32 && std::fs::read_to_string(path).is_ok_and(is_number);
    let is_hidden = access(path, AccessFlags::R_OK).is_err();
    if is_pidfile || is_hidden {
        return Ok(());
    }
    Err(io::Error::other("it holds something else, which the pid would replace"))
}

fn names_this_process(path: &Path) -> bool {
    let is_file = std::fs::symlink_metadata(path).is_ok_and(|it| it.is_file() && it.len() <= 32);
    let text =
        if is_file { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    text.trim() == std::process::id().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pidfile(folder: &Path, single_instance: bool) -> Pidfile {
        Pidfile { path: folder.join("master.pid"), single_instance }
    }

    #[test]
    fn a_single_instance_refuses_the_second_and_names_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let _first = pidfile(folder.path(), true).claim().unwrap();
        let refused = pidfile(folder.path(), true).claim().unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
    }

    #[test]
    fn instances_take_the_lowest_free_number() {
        let folder = tempfile::tempdir().unwrap();
        let claim = || {
            let mut held = pidfile(folder.path(), false).claim().unwrap();
            held.write().unwrap();
            held
        };
        let (first, second, third) = (claim(), claim(), claim());
        assert_eq!((first.instance, second.instance, third.instance), (1, 2, 3));
        drop(second);
        assert_eq!(claim().instance, 2);
        assert!(folder.path().join("master.pid").exists());
        assert!(folder.path().join("master.3.pid").exists());
    }

    #[test]
    fn no_two_pidfiles_share_a_lock_and_none_is_its_own() {
        let lock = |path: &str| Pidfile { path: path.into(), single_instance: true };
        assert_eq!(lock("/run/web.pid").path_of(1, "lock"), Path::new("/run/web.lock"));
        assert_eq!(lock("/run/web.a").path_of(1, "lock"), Path::new("/run/web.a.lock"));
        assert_eq!(lock("/run/web.lock").path_of(1, "lock"), Path::new("/run/web.lock.lock"));
        assert_eq!(lock("/run/web.pid").path_of(2, "pid"), Path::new("/run/web.2.pid"));
    }

    #[test]
    fn a_link_is_replaced_not_followed_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join("master.pid")).unwrap();
        let mut held = pidfile(folder.path(), true).claim().unwrap();
        held.write().unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
        drop(held);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn what_a_predecessor_left_half_written_is_gone_with_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let half_written = folder.path().join(".master.pid.new");
        std::fs::write(&half_written, "12").unwrap();
        let mut held = pidfile(folder.path(), true).claim().unwrap();
        held.write().unwrap();
        assert!(!half_written.exists());
        let pid = std::fs::read_to_string(folder.path().join("master.pid")).unwrap();
        assert_eq!(pid.trim(), std::process::id().to_string());
    }

    #[test]
    fn a_look_finds_who_runs_and_what_is_in_the_way_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.pid");
        let texts = |single| -> Vec<String> {
            let (running, errors) = pidfile(folder.path(), single).look();
            assert!(running.is_empty());
            errors.iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts(true), [""; 0]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        for (text, count) in [("12\n", 0), ("", 0), ("root:x:0:0\n", 1), ("1 2", 1)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(texts(true).len(), count, "{text:?}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(texts(true)[0].contains("EISDIR"));
        std::fs::remove_dir(&path).unwrap();
        let _held = pidfile(folder.path(), false).claim().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        for single in [true, false] {
            let (running, errors) = pidfile(folder.path(), single).look();
            assert_eq!(running, [Running { instance: 1, pid: Some(own) }]);
            assert!(errors.is_empty(), "{errors:?}");
        }
        let missing = pidfile(&folder.path().join("missing"), true).look().1;
        assert!(missing[0].to_string().contains("master.lock"), "{missing:?}");
    }

    #[test]
    fn a_directory_in_its_place_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("master.pid")).unwrap();
        let mut held = pidfile(folder.path(), true).claim().unwrap();
        let text = held.write().unwrap_err().to_string();
        assert!(text.contains("master.pid"), "{text}");
    }
}
