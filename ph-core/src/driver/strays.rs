//! Strays: what workers left behind, and whose each is.
//!
//! Whatever loses its parent becomes a child of the master. By its session or its mark it is a living
//! worker's, and is left alone; or one's that has ended, and is ended too; or nobody's: then it has
//! *escaped*, is named once, and ends with the master.
//!
//! Of other processes only what the kernel keeps is asked for, never what is in their memory: whoever
//! reads that can be made to wait (see `sys/procfs`).

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{debug, warn};

use super::children::Children;
use super::conditions::KillMode;
use super::helpers::{HELPERS_MARK, HelperPlace};
use super::tree::Trees;
use crate::sys::mark::Mark;
use crate::sys::process::{self, Held};
use crate::sys::procfs::{self, Facts};

/// Processes one look at a tree takes in, at most: the next look takes the others.
const MEMBERS_A_LOOK: usize = 4096;

/// How often what is stopped before it is killed is looked for once more.
const LOOKS: usize = 8;

/// Whose a process is that the master became the parent of.
enum Owner {
    /// A worker that lives, or a helper.
    Living,
    /// One that has ended; its seat, if it is still held.
    Ended(Option<usize>),
    /// It cannot be told.
    Unknown,
}

/// The living, as a sweep has to know them.
pub(super) struct Census<'a> {
    pub(super) children: &'a Children,
    pub(super) helpers: &'a [HelperPlace],
    pub(super) callers: &'a [Pid],
    pub(super) loaders: &'a [Pid],
}

impl Census<'_> {
    /// Children of the master that are nobody's leavings.
    fn knows(&self, pid: Pid) -> bool {
        self.is_leader(pid)
            || self.callers.contains(&pid)
            || self.loaders.contains(&pid)
            || self.helpers.iter().any(|place| place.process == Some(pid))
    }

    /// Whether it leads a worker that has not been reaped.
    fn is_leader(&self, pid: Pid) -> bool {
        let worker = self.children.worker_of(pid).and_then(|worker| self.children.get(worker));
        worker.is_some_and(|child| child.reaped.is_none())
    }

    /// Whether a mark is that of a worker that has not been reaped, or of the helpers.
    fn is_living(&self, mark: u64) -> bool {
        let mut living = self.children.living();
        Mark::means(mark, HELPERS_MARK) || living.any(|worker| Mark::means(mark, worker.0))
    }

    /// The master's children that are nobody's and have not ended.
    fn strays(&self) -> std::io::Result<Vec<Facts>> {
        let children = process::children()?.into_iter().filter(|pid| !self.knows(*pid));
        Ok(children.filter_map(procfs::facts).filter(|stray| !stray.is_zombie).collect())
    }
}

impl Trees {
    /// Looks at what became the master's child and ends what ended workers left. Gives the seats that
    /// are not free because of it; `None`: it could not be looked at.
    pub(super) fn sweep(&mut self, census: &Census<'_>) -> Option<BTreeSet<usize>> {
        self.spare.release();
        let strays = census.strays();
        self.is_sweep_due = strays.is_err();
        let strays = match strays {
            Ok(strays) => strays,
            Err(error) => {
                warn!("what workers left behind cannot be looked for: {error}");
                self.spare.refill();
                return None;
            }
        };
        let (mut doomed, mut escaped) = (BTreeMap::new(), BTreeSet::new());
        for stray in strays {
            match self.owner(&stray, census) {
                Owner::Ended(seat) => {
                    doomed.insert(stray.pid, seat);
                }
                Owner::Living => {}
                Owner::Unknown if stray.is_ending => {}
                Owner::Unknown => {
                    escaped.insert(stray.pid);
                }
            }
        }
        let killed = kill_trees(doomed.keys().copied());
        // Who may not be killed is not waited for.
        escaped.extend(doomed.keys().filter(|pid| killed.spared.contains(pid)));
        doomed.retain(|pid, _| !killed.spared.contains(pid));
        killed.tell();
        for pid in escaped.difference(&self.escaped) {
            let name = procfs::name(*pid);
            warn!("escaped: pid {pid} ({name}) is of no worker any more; it ends with the master");
        }
        self.escaped = escaped;
        self.spare.refill();
        Some(doomed.into_values().flatten().collect())
    }

    fn owner(&self, stray: &Facts, census: &Census<'_>) -> Owner {
        // First, because the number of a remnant's session may have been given again.
        if census.is_leader(stray.session) {
            return Owner::Living;
        }
        let mut remnants = self.remnants.iter();
        if let Some((seat, _)) = remnants.find(|(_, it)| it.leader == stray.session) {
            return Owner::Ended(Some(*seat));
        }
        match self.mark.worker_of(stray.pid) {
            Ok(Some(mark)) if census.is_living(mark) => Owner::Living,
            Ok(Some(mark)) => {
                let mut remnants = self.remnants.iter();
                let of_it = remnants.find(|(_, it)| Mark::means(mark, it.worker.0));
                Owner::Ended(of_it.map(|(seat, _)| *seat))
            }
            // Gone: nobody's business any more.
            Err(Errno::ESRCH) => Owner::Living,
            Ok(None) | Err(_) => Owner::Unknown,
        }
    }

    /// Whether the last count of what workers left behind found nobody.
    pub(super) fn are_ended(&self) -> bool {
        self.last_count == Some(0)
    }

    /// While the master closes: ends whoever is left, and says how many there are, if that is news.
    pub(super) fn end_strays(
        &mut self,
        census: &Census<'_>,
        epoll: &nix::sys::epoll::Epoll,
    ) -> Option<u32> {
        if !self.is_closing {
            return None;
        }
        let left = if self.kill_mode == KillMode::Tree {
            self.spare.release();
            let left = self.end_all(census, epoll);
            self.spare.refill();
            left
        } else {
            self.remnants.len()
        };
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        (self.last_count.replace(left) != Some(left)).then_some(left)
    }

    /// Kills all in the cgroup and all strays, and says how many there were. Whatever cannot be looked
    /// at counts as one.
    fn end_all(&mut self, census: &Census<'_>, epoll: &nix::sys::epoll::Epoll) -> usize {
        let mut left = BTreeSet::new();
        if let Some(cgroup) = self.cgroup.as_ref().filter(|cgroup| cgroup.is_populated(None)) {
            left.extend(cgroup.members(None));
            if self.last_count.is_none() && !left.is_empty() {
                warn!("killing what workers have left behind: {}", left.len());
            }
            if let Err(errno) = cgroup.kill(None) {
                warn!("cannot kill {}: {errno}", cgroup.path().display());
            }
        }
        let is_known = match census.strays() {
            Ok(strays) => {
                let strays: Vec<_> = strays.into_iter().map(|stray| stray.pid).collect();
                kill_trees(strays.iter().copied().filter(|pid| !left.contains(pid))).tell();
                left.extend(strays);
                true
            }
            Err(error) => {
                warn!("what workers left behind cannot be looked for: {error}");
                false
            }
        };
        let is_empty = self.is_empty_or_watched(None, epoll) && is_known;
        left.len().max(usize::from(!is_empty))
    }
}

/// What came of a kill.
#[derive(Debug, Default)]
pub(super) struct Killed {
    pub(super) count: usize,
    /// They may not be killed: having become somebody else, as by a set-user-id program.
    spared: BTreeSet<Pid>,
}

impl Killed {
    fn tell(&self) {
        if self.count > 0 {
            warn!("killed what workers had left behind: {}", self.count);
        }
    }
}

/// Ends some processes and all below them, and says how many there were. They are stopped first: what
/// is stopped starts nobody else meanwhile.
pub(super) fn kill_trees(roots: impl IntoIterator<Item = Pid>) -> Killed {
    let roots: Vec<_> = roots.into_iter().collect();
    let mut killed = Killed::default();
    if roots.is_empty() {
        return killed;
    }
    let mut stopped = BTreeMap::new();
    for _ in 0..LOOKS {
        let mut is_news = false;
        for pid in procfs::trees(roots.iter().copied(), MEMBERS_A_LOOK) {
            let Some(facts) = procfs::facts(pid).filter(|it| !it.is_zombie) else { continue };
            if stopped.insert(pid, facts.started).is_none() {
                // Whether that was possible is seen at the kill.
                let _ = send(pid, facts.started, Signal::SIGSTOP);
                is_news = true;
            }
        }
        if !is_news {
            break;
        }
    }
    for (pid, started) in stopped {
        debug!("ending pid {pid} ({})", procfs::name(pid));
        match send(pid, started, Signal::SIGKILL) {
            Ok(()) => killed.count += 1,
            Err(Errno::ESRCH) => {}
            Err(errno) => {
                debug!("cannot kill pid {pid}: {errno}");
                killed.spared.insert(pid);
            }
        }
    }
    killed
}

fn send(pid: Pid, started: u64, signal: Signal) -> nix::Result<()> {
    let held = Held::of(pid)?;
    match procfs::facts(pid) {
        Some(facts) if facts.started == started => held.signal(signal),
        Some(_) | None => Err(Errno::ESRCH),
    }
}
