//! The masters of a service, for those who want something of them: by their locks, not by a number
//! that somebody wrote into a pidfile.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::pidfile::{MAX_INSTANCES, Pidfile, Running};
use crate::sys::lock::{Lock, Sight};
use crate::sys::process::Held;
use crate::sys::{Signal, folder};

impl Pidfile {
    /// The masters that run, as their locks tell. Nothing is made, changed or locked.
    ///
    /// # Errors
    ///
    /// A lock file cannot be looked at.
    pub fn running(&self) -> io::Result<Vec<Running>> {
        let mut running = Vec::new();
        for instance in self.instances() {
            if let Sight::Held(pid) = Lock::look(&self.path_of(instance, "lock"))? {
                running.push(Running { instance, pid });
            }
        }
        Ok(running)
    }

    /// The numbers of which there can be a master: those that have a lock file, as far as the folder can be
    /// listed. To try all of them takes a thousand times as long.
    fn instances(&self) -> Vec<u32> {
        if self.single_instance {
            return vec![1];
        }
        let first = self.path_of(1, "lock");
        let (folder, name) = (folder::of(&first), first.with_extension(""));
        let name = name.file_name().unwrap_or_default().as_bytes();
        let number = |file: &OsStr| {
            let rest = file.as_bytes().strip_prefix(name)?.strip_prefix(b".")?;
            let digits = std::str::from_utf8(rest.strip_suffix(b".lock")?).ok()?;
            let number = digits.parse().ok().filter(|number| (2..=MAX_INSTANCES).contains(number));
            number.filter(|number: &u32| number.to_string() == digits)
        };
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return vec![1],
            Err(_) => return (1..=MAX_INSTANCES).collect(),
            Ok(entries) => entries,
        };
        let mut numbers = vec![1];
        for entry in entries {
            let Ok(entry) = entry else { return (1..=MAX_INSTANCES).collect() };
            numbers.extend(number(&entry.file_name()));
        }
        numbers.sort_unstable();
        numbers
    }

    /// Waits until a master has ended; says whether that came in time. One that does not hold its lock any more
    /// counts as ended.
    ///
    /// # Errors
    ///
    /// The lock file cannot be looked at.
    pub fn wait_ended(&self, master: Running, limit: Duration) -> io::Result<bool> {
        let Some(pid) = master.pid else { return Ok(true) };
        let held = match Held::of(Pid::from_raw(pid)) {
            Err(Errno::ESRCH) => return Ok(true),
            held => held?,
        };
        if Lock::look(&self.path_of(master.instance, "lock"))? != Sight::Held(Some(pid)) {
            return Ok(true);
        }
        Ok(held.wait(limit))
    }

    /// Sends a signal to a master that runs; says whether it still did. A number alone is not
    /// enough: that the process holds the lock is looked at once more when nobody else can have its
    /// number any more.
    ///
    /// # Errors
    ///
    /// The signal may not be sent, or the lock file cannot be looked at.
    pub fn signal(&self, master: Running, signal: Signal) -> io::Result<bool> {
        let Some(pid) = master.pid else { return Ok(false) };
        let held = match Held::of(Pid::from_raw(pid)) {
            Err(Errno::ESRCH) => return Ok(false),
            held => held?,
        };
        if Lock::look(&self.path_of(master.instance, "lock"))? != Sight::Held(Some(pid)) {
            return Ok(false);
        }
        match held.signal(signal) {
            Err(Errno::ESRCH) => Ok(false),
            sent => Ok(sent.map(|()| true)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_goes_to_whoever_holds_the_lock_and_to_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.pid");
        let pidfile = Pidfile { path, single_instance: false };
        assert_eq!(pidfile.running().unwrap(), []);
        let own = Running { instance: 1, pid: i32::try_from(std::process::id()).ok() };
        // It would end this process.
        assert!(!pidfile.signal(own, Signal::SIGUSR1).unwrap());
        let held = pidfile.claim().unwrap();
        assert_eq!(pidfile.running().unwrap(), [own]);
        assert!(pidfile.signal(own, Signal::SIGWINCH).unwrap());
        assert!(!pidfile.signal(Running { pid: Some(1), ..own }, Signal::SIGUSR1).unwrap());
        assert!(!pidfile.signal(Running { pid: None, ..own }, Signal::SIGUSR1).unwrap());
        assert!(!pidfile.wait_ended(own, Duration::ZERO).unwrap());
        drop(held);
        assert!(pidfile.wait_ended(own, Duration::from_secs(60)).unwrap());
        assert_eq!(pidfile.running().unwrap(), []);
    }
    #[test]
    fn only_numbers_with_a_lock_file_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["web.lock", "web.12.lock", "web.2.lock", "web.03.lock", "web.1.lock"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        for name in ["web.1025.lock", "web.x.lock", "web.2.pid", "webb.5.lock", "web.4.5.lock"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let of = |name: &str, single_instance| {
            let path = folder.path().join(name);
            Pidfile { path, single_instance }.instances()
        };
        assert_eq!(of("web.pid", false), [1, 2, 12]);
        assert_eq!(of("web.pid", true), [1]);
        assert_eq!(of("web.4.pid", false), [1, 5]);
        assert_eq!(of("no/web.pid", false), [1]);
    }
}
