//! The mark of a worker, which all it starts inherit: over forks, execs, new sessions and emptied
//! environments.
//!
//! It has to be something the kernel keeps, not the process. What is in a process's memory, as its
//! environment and its title are, can be made unreadable in a way that holds up whoever reads it, for
//! ever; and a master may not be held up. Of what the kernel hands on, one thing has no other use: the
//! soft limit of file locks, `RLIMIT_LOCKS`, which Linux has not looked at since 2.4.25 (getrlimit(2)).

use nix::errno::Errno;
use nix::unistd::Pid;

/// The lowest bits are the worker's, the others the master's.
const WORKER_BITS: u32 = 24;
const WORKERS: u64 = (1 << WORKER_BITS) - 1;

/// What all workers of one master have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

impl Mark {
    /// A mark of this master alone, made of random bits.
    pub(crate) fn new(random: u64) -> Self {
        // Neither zero nor as high as "no limit".
        Self(((random | 1) << WORKER_BITS) & (u64::MAX >> 1))
    }

    /// The mark of one worker.
    pub(crate) fn of(self, worker: u64) -> u64 {
        self.0 | (worker & WORKERS)
    }

    /// Whether this is what [`worker_of`](Self::worker_of) gives for a worker.
    pub(crate) fn means(found: u64, worker: u64) -> bool {
        found == worker & WORKERS
    }

    /// Which worker of this master a process comes from; `None`: from none.
    ///
    /// # Errors
    ///
    /// `ESRCH`: it is gone. `EPERM`: it became somebody this process may not ask about.
    pub(crate) fn worker_of(self, pid: Pid) -> nix::Result<Option<u64>> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        let none = std::ptr::null();
        // SAFETY: the one pointer is to a live variable, the other asks for nothing to be changed.
        let asked =
            unsafe { libc::prlimit(pid.as_raw(), libc::RLIMIT_LOCKS, none, &raw mut limit) };
        Errno::result(asked)?;
        let is_ours = limit.rlim_cur & !WORKERS == self.0;
        Ok(is_ours.then_some(limit.rlim_cur & WORKERS))
    }
}

/// In a child: puts a mark on, or takes off what it has inherited. System calls only. A limit that was
/// lowered before leaves no room for one; then there is none.
pub(crate) fn wear(mark: Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live variable.
    if unsafe { libc::getrlimit(libc::RLIMIT_LOCKS, &raw mut limit) } != 0 {
        return;
    }
    limit.rlim_cur = mark.unwrap_or(limit.rlim_max).min(limit.rlim_max);
    // SAFETY: the pointer is to a live variable; a soft limit below the hard one is always allowed.
    unsafe { libc::setrlimit(libc::RLIMIT_LOCKS, &raw const limit) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_inherited_by_what_is_executed_and_tells_masters_and_workers_apart() {
        let (mark, other) = (Mark::new(7 << 20), Mark::new(8 << 20));
        let sleep = |mark: u64| {
            let mut command = std::process::Command::new("prlimit");
            command.args([&format!("--locks={mark}:"), "sleep", "60"]).spawn().unwrap()
        };
        let mut child = sleep(mark.of(0x0500_0003));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let found = std::iter::repeat_with(|| mark.worker_of(pid).unwrap()).find_map(|it| it);
        assert_eq!(found, Some(3));
        assert!(Mark::means(3, 0x0500_0003) && !Mark::means(3, 4));
        assert_eq!(other.worker_of(pid), Ok(None));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(mark.worker_of(pid), Err(Errno::ESRCH));
        assert_eq!(mark.worker_of(Pid::this()), Ok(None));
    }
}
