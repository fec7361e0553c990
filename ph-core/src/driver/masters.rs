//! The masters of a service, for those who want something of them: by their locks, not by a number
//! that somebody wrote into a pidfile.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::pidfile::{MAX_INSTANCES, Pidfile, Running};
use crate::sys::Signal;
use crate::sys::lock::{Lock, Sight};
use crate::sys::process::Held;

impl Pidfile {
    /// The masters that run, as their locks tell. Nothing is made, changed or locked.
    ///
    /// # Errors
    ///
    /// A lock file cannot be looked at.
    pub fn running(&self) -> io::Result<Vec<Running>> {
        let last = if self.single_instance { 1 } else { MAX_INSTANCES };
        let mut running = Vec::new();
        for instance in 1..=last {
            if let Sight::Held(pid) = Lock::look(&self.path_of(instance, "lock"))? {
                running.push(Running { instance, pid });
            }
        }
        Ok(running)
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
}
