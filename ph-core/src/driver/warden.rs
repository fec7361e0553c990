//! The warden: outlives a master that was killed, and ends everything that master left.
//!
//! It is forked before any worker and waits at a pipe for the other end to close: the master is the only
//! process that has it. It blocks every signal; of those only SIGKILL and SIGSTOP reach it. Then it kills
//! until nothing is left, removes the cgroups and ends. At an ordered stop it is dismissed.

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::warn;

use super::conditions::KillMode;
use super::strays::kill_trees;
use super::tree::Trees;
use crate::sys::cgroup::{self, Cgroup};
use crate::sys::leaders::Leaders;
use crate::sys::procfs::{self, Facts};
use crate::sys::{clock, fds, process};

/// How long it goes on killing, at most.
const LIMIT: Duration = Duration::from_secs(10);

/// The pause between two looks for what is left.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks in a row that find nobody, before nobody is left: an end is not seen by all of /proc at once.
const QUIET_LOOKS: usize = 2;

/// What a master that has left nobody behind says before it closes the pipe.
pub(super) const DISMISSED: &[u8] = b"d";

/// What the warden knows of its master.
pub(super) struct Charge<'a> {
    pub(super) trees: &'a Trees,
    /// The end of the pipe that is closed when the master is no more.
    pub(super) lifeline: &'a OwnedFd,
    /// When the master started, as /proc counts it.
    pub(super) started: u64,
}

impl Charge<'_> {
    /// Waits for the end of the master, and then for that of everything else. Says how many had to
    /// be killed.
    pub(super) fn watch(&self) -> usize {
        if fds::read_to_end(self.lifeline).starts_with(DISMISSED) {
            return 0;
        }
        let leaders: Vec<_> = self.trees.leaders.iter().flat_map(Leaders::all).collect();
        for leader in &leaders {
            // ESRCH is what is hoped for: nobody is left.
            let _ = process::signal_group(*leader, Signal::SIGKILL);
        }
        if self.trees.kill_mode != KillMode::Tree {
            return leaders.len();
        }
        let of_cgroup = self.trees.cgroup.as_ref().map_or(0, end_cgroup);
        of_cgroup + self.end_sessions(&leaders)
    }

    /// Kills what is in the sessions of the master's workers, what bears their mark, and what is below
    /// any of these.
    fn end_sessions(&self, leaders: &[Pid]) -> usize {
        let until = clock::monotonic().saturating_add(clock::nanos(LIMIT));
        let (mut ended, mut quiet) = (0, 0);
        while quiet < QUIET_LOOKS && clock::monotonic() < until {
            let mut all = procfs::all();
            all.retain(|it| !it.is_zombie && it.pid != Pid::this() && it.started >= self.started);
            let is_ours = |it: &Facts| {
                leaders.contains(&it.session)
                    || leaders.contains(&it.group)
                    || matches!(self.trees.mark.worker_of(it.pid), Ok(Some(_)))
            };
            let roots: Vec<_> = all.into_iter().filter(is_ours).map(|it| it.pid).collect();
            quiet = if roots.is_empty() { quiet + 1 } else { 0 };
            ended += kill_trees(roots).count;
            if quiet < QUIET_LOOKS {
                clock::pause(LOOK_EVERY);
            }
        }
        ended
    }
}

/// Kills all in the cgroup, again and again should that be needed, and removes it.
fn end_cgroup(cgroup: &Cgroup) -> usize {
    let until = clock::monotonic().saturating_add(clock::nanos(LIMIT));
    let Ok(Some(events)) = cgroup.events(None) else { return 0 };
    let members = if cgroup::is_populated(&events) { cgroup.members(None) } else { Vec::new() };
    while cgroup::is_populated(&events) && clock::monotonic() < until {
        // A failed kill is tried again; the pause is only an upper bound of the wait for the end.
        let _ = cgroup.kill(None);
        fds::wait_changed(&events, LOOK_EVERY);
    }
    while !cgroup.remove() {
        if clock::monotonic() >= until {
            warn!("{} cannot be removed", cgroup.path().display());
            break;
        }
        clock::pause(LOOK_EVERY);
    }
    members.len()
}
