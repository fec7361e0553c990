//! Trees: a worker and all it started, and how the last of them is ended.
//!
//! Where this process may make cgroups there is one for each seat, and the kernel knows who is in it.
//! Elsewhere a tree is a process group, a session, and what bears the mark of the worker; what loses its
//! parent becomes a child of the master, which is the subreaper, and is told apart by these.
//!
//! A worker that crashed has ended when its leader has: its slot must not wait for what it left, which is
//! a *remnant* and keeps the seat until nobody is left. A worker that was told to stop has ended when its
//! tree has, within its grace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpgid};
use tracing::{debug, warn};

use super::children::Children;
use super::conditions::KillMode;
use super::helpers::HelperPlace;
use super::perform::jitter;
use crate::sys::cgroup::{self, Cgroup};
use crate::sys::fds::Spare;
use crate::sys::leaders::Leaders;
use crate::sys::mark::Mark;
use crate::sys::process::{self, Held};
use crate::sys::procfs::{self, Facts};

/// Processes one look at a tree takes in, at most: the next look takes the others.
const MEMBERS_A_LOOK: usize = 4096;

/// Members of a tree that are told to stop one by one, at most: each takes a descriptor meanwhile.
const TOLD: usize = 512;

/// How often what is stopped before it is killed is looked for once more.
const LOOKS: usize = 8;

/// What holds the trees of workers together.
#[derive(Debug)]
pub(super) enum Hold {
    Cgroups(Cgroup),
    /// Groups, sessions and marks. The table is for the warden.
    Sessions(Leaders),
    /// Groups and nothing else, because nothing else is to be ended.
    Groups(Leaders),
    Nothing,
}

/// What an ended worker left behind.
#[derive(Clone, Copy, Debug)]
struct Remnant {
    leader: Pid,
}

/// Where the leader of a worker is in its life. The number of its group is its own as long as it is not
/// reaped, or somebody is in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    Lives,
    /// A zombie.
    Ended,
    Reaped,
}

/// Whose a process is that the master became the parent of.
enum Owner {
    /// A worker that lives.
    Living,
    /// One that has ended.
    Ended,
    /// It cannot be told.
    Unknown,
}

/// All trees.
#[derive(Debug)]
pub(super) struct Trees {
    pub(super) kill_mode: KillMode,
    pub(super) hold: Hold,
    /// By seat.
    remnants: BTreeMap<usize, Remnant>,
    /// What says that a seat's cgroup, or (`None`) all of them, became empty.
    watches: HashMap<Option<usize>, OwnedFd>,
    escaped: BTreeSet<Pid>,
    /// Strays are ended wherever they are, because no worker is left.
    is_closing: bool,
    pub(super) ended: usize,
    last_count: u32,
    /// What workers bear, and all they start.
    pub(super) mark: Mark,
    /// Ending processes must not fail for want of descriptors.
    spare: Spare,
}

/// The living, as a sweep has to know them.
pub(super) struct Census<'a> {
    children: &'a Children,
    helpers: &'a [HelperPlace],
    callers: &'a [Pid],
}

impl<'a> Census<'a> {
    pub(super) fn of(
        children: &'a Children,
        helpers: &'a [HelperPlace],
        callers: &'a [Pid],
    ) -> Self {
        Self { children, helpers, callers }
    }

    /// Children of the master that are nobody's leavings.
    fn knows(&self, pid: Pid) -> bool {
        self.is_leader(pid)
            || self.callers.contains(&pid)
            || self.helpers.iter().any(|place| place.process == Some(pid))
    }

    /// Whether it leads a worker that has not been reaped.
    fn is_leader(&self, pid: Pid) -> bool {
        let worker = self.children.worker_of(pid).and_then(|worker| self.children.get(worker));
        worker.is_some_and(|child| child.reaped.is_none())
    }

    /// Whether a mark is that of a worker that has not been reaped.
    fn is_living(&self, mark: u64) -> bool {
        let mut living = self.children.living();
        living.any(|worker| Mark::means(mark, worker.0))
    }
}

impl Trees {
    /// Workers are commands, or forked. Those have no cgroups: to be born into one takes a fork that
    /// the C library knows nothing of, and then what libraries have asked it to do after a fork, as to
    /// make new random numbers, is not done.
    pub(super) fn new(kill_mode: KillMode, seats: usize, are_commands: bool) -> nix::Result<Self> {
        let cgroup = || are_commands.then(|| Cgroup::make(jitter().0)).flatten();
        let hold = match kill_mode {
            KillMode::Process => Hold::Nothing,
            KillMode::Group => Hold::Groups(Leaders::map(seats)?),
            KillMode::Tree => match cgroup() {
                Some(cgroup) => Hold::Cgroups(cgroup),
                None => Hold::Sessions(Leaders::map(seats)?),
            },
        };
        Ok(Self {
            kill_mode,
            hold,
            remnants: BTreeMap::new(),
            watches: HashMap::new(),
            escaped: BTreeSet::new(),
            is_closing: false,
            ended: 0,
            last_count: u32::MAX,
            mark: Mark::new((u64::from(jitter().0) << 32) | u64::from(jitter().0)),
            spare: Spare::new()?,
        })
    }

    /// The cgroup for the next worker of a seat. If none can be had there is a worker all the same.
    pub(super) fn cgroup_of(&self, seat: usize) -> Option<OwnedFd> {
        let Hold::Cgroups(cgroup) = &self.hold else { return None };
        match cgroup.seat(seat) {
            Ok(folder) => Some(folder),
            Err(errno) => {
                warn!("{}: no cgroup for seat {seat}: {errno}", cgroup.path().display());
                None
            }
        }
    }

    /// A worker leads a session now.
    pub(super) fn on_spawned(&self, seat: usize, leader: Pid) {
        self.note_leader(seat, Some(leader));
    }

    fn note_leader(&self, seat: usize, leader: Option<Pid>) {
        match &self.hold {
            Hold::Sessions(leaders) | Hold::Groups(leaders) => leaders.set(seat, leader),
            Hold::Cgroups(_) | Hold::Nothing => {}
        }
    }

    /// SIGKILL to whatever the end of a worker reaches, itself included.
    pub(super) fn kill(&mut self, seat: usize, leader: Pid, state: Leader) {
        self.spare.release();
        if state == Leader::Lives {
            if matches!(self.hold, Hold::Sessions(_)) {
                // Now its descendants can be told from others, whatever they did.
                kill_trees([leader]);
            }
            // One so young that it leads no group yet must not survive.
            let _ = process::signal(leader, Signal::SIGKILL);
        }
        if self.kill_mode != KillMode::Process {
            self.kill_rest(seat, leader, state);
        }
        self.spare.refill();
    }

    fn kill_rest(&self, seat: usize, leader: Pid, state: Leader) {
        if state != Leader::Reaped || process::has_left_group(leader) {
            // ESRCH is what is hoped for: nobody is left.
            let _ = process::signal_group(leader, Signal::SIGKILL);
        }
        match &self.hold {
            Hold::Cgroups(cgroup) if cgroup.is_populated(Some(seat)) => {
                if let Err(errno) = cgroup.kill(Some(seat)) {
                    warn!("cannot kill the cgroup of seat {seat}: {errno}");
                }
            }
            Hold::Cgroups(_) | Hold::Sessions(_) | Hold::Groups(_) | Hold::Nothing => {}
        }
    }

    /// The leader of a worker that was told to stop has ended; those who were not told with it are now.
    pub(super) fn tell_rest(&self, seat: usize, leader: Pid, signal: Signal) {
        let Hold::Cgroups(cgroup) = &self.hold else { return };
        if !cgroup.is_populated(Some(seat)) {
            return;
        }
        let members = cgroup.members(Some(seat)).into_iter().take(TOLD);
        let held: Vec<_> = members.filter_map(|pid| Some((pid, Held::of(pid)?))).collect();
        // Whoever is still a member after it was taken hold of is meant.
        let members: BTreeSet<_> = cgroup.members(Some(seat)).into_iter().collect();
        for (pid, held) in held.iter().filter(|(pid, _)| members.contains(pid)) {
            if getpgid(Some(*pid)).is_ok_and(|group| group != leader) && held.signal(signal) {
                held.signal(Signal::SIGCONT);
            }
        }
    }

    /// Whether nobody is left that the end of a worker reaches, its leader being reaped. If somebody
    /// is, the loop hears of the end: from the cgroup, or as SIGCHLD.
    pub(super) fn has_ended(&mut self, seat: usize, leader: Pid, epoll: &Epoll) -> bool {
        match &self.hold {
            Hold::Cgroups(_) => {
                // A worker for which no cgroup could be had is held together by its group.
                self.is_empty_or_watched(Some(seat), epoll) && !process::has_left_group(leader)
            }
            Hold::Sessions(_) | Hold::Groups(_) => !process::has_left_group(leader),
            Hold::Nothing => true,
        }
    }

    /// The look comes before the watch is set and the kernel compares with it, so nothing is missed.
    fn is_empty_or_watched(&mut self, seat: Option<usize>, epoll: &Epoll) -> bool {
        let Hold::Cgroups(cgroup) = &self.hold else { return true };
        if let Some(events) = self.watches.get(&seat) {
            if cgroup::is_populated(events) {
                return false;
            }
            // Closing would be enough, were there no copy of it in a child that has yet to execute.
            let _ = epoll.delete(events);
            self.watches.remove(&seat);
            return true;
        }
        let Ok(events) = cgroup.events(seat) else { return true };
        if !cgroup::is_populated(&events) {
            return true;
        }
        let number = seat.map_or(0, |seat| seat as u64 + 1);
        let event = EpollEvent::new(EpollFlags::EPOLLPRI, super::WATCHES_FROM + number);
        match epoll.add(&events, event) {
            Ok(()) => {
                self.watches.insert(seat, events);
            }
            Err(errno) => warn!("cannot watch a cgroup of {}: {errno}", cgroup.path().display()),
        }
        false
    }

    /// A worker has ended, and its tree may not have. Says whether its seat is free.
    pub(super) fn release(&mut self, seat: usize, leader: Pid, epoll: &Epoll) -> bool {
        if !self.is_swept() && self.has_ended(seat, leader, epoll) {
            self.note_leader(seat, None);
            return true;
        }
        self.remnants.insert(seat, Remnant { leader });
        false
    }

    /// Looks for remnants of which nothing is left, and gives their seats.
    pub(super) fn emptied(&mut self, census: &Census<'_>, epoll: &Epoll) -> Vec<usize> {
        if self.remnants.is_empty() || (self.is_swept() && self.sweep(census)) {
            return Vec::new();
        }
        let remnants: Vec<_> = self.remnants.iter().map(|(seat, it)| (*seat, it.leader)).collect();
        let is_empty = |(seat, leader): &(usize, Pid)| self.has_ended(*seat, *leader, epoll);
        let empty: Vec<_> = remnants.into_iter().filter(is_empty).map(|(seat, _)| seat).collect();
        for seat in &empty {
            self.remnants.remove(seat);
            self.note_leader(*seat, None);
        }
        empty
    }

    /// Whether what has a session of its own is found by a sweep only.
    fn is_swept(&self) -> bool {
        matches!(self.hold, Hold::Sessions(_))
    }

    /// Looks at what became the master's child and ends what ended workers left; says whether there
    /// was any.
    fn sweep(&mut self, census: &Census<'_>) -> bool {
        self.spare.release();
        let strays: Vec<_> = process::children()
            .into_iter()
            .filter(|pid| !census.knows(*pid))
            .filter_map(procfs::facts)
            .filter(|stray| !stray.is_zombie)
            .collect();
        let (mut doomed, mut escaped) = (Vec::new(), BTreeSet::new());
        for stray in strays {
            match self.owner(&stray, census) {
                Owner::Ended => doomed.push(stray.pid),
                Owner::Living => {}
                Owner::Unknown => {
                    escaped.insert(stray.pid);
                }
            }
        }
        for pid in escaped.difference(&self.escaped) {
            let name = procfs::name(*pid);
            warn!("escaped: pid {pid} ({name}) is of no worker any more; it ends with the master");
        }
        self.escaped = escaped;
        self.ended += kill_trees(doomed.iter().copied());
        self.spare.refill();
        !doomed.is_empty()
    }

    /// Whether the last count of what workers left behind found nobody.
    pub(super) fn are_ended(&self) -> bool {
        self.last_count == 0
    }

    /// Whose a process is that became the master's child.
    fn owner(&self, stray: &Facts, census: &Census<'_>) -> Owner {
        // First, because the number of a remnant's session may have been given again.
        if census.is_leader(stray.session) {
            return Owner::Living;
        }
        if self.remnants.values().any(|remnant| remnant.leader == stray.session) {
            return Owner::Ended;
        }
        match self.mark.worker_of(stray.pid) {
            Ok(Some(mark)) if census.is_living(mark) => Owner::Living,
            Ok(Some(_)) => Owner::Ended,
            // Gone: nobody's business any more.
            Err(Errno::ESRCH) => Owner::Living,
            Ok(None) | Err(_) => Owner::Unknown,
        }
    }

    pub(super) fn begin_closing(&mut self) {
        self.is_closing = true;
    }

    /// While the master closes: ends whoever is left, and says how many there are, if that is news.
    pub(super) fn end_strays(&mut self, census: &Census<'_>, epoll: &Epoll) -> Option<u32> {
        if !self.is_closing {
            return None;
        }
        self.spare.release();
        let left = match (self.kill_mode, &self.hold) {
            (KillMode::Group | KillMode::Process, _) => self.remnants.len(),
            (KillMode::Tree, hold) => {
                let mut left = BTreeSet::new();
                if let Hold::Cgroups(cgroup) = hold
                    && cgroup.is_populated(None)
                {
                    left.extend(cgroup.members(None));
                    if let Err(errno) = cgroup.kill(None) {
                        warn!("cannot kill {}: {errno}", cgroup.path().display());
                    }
                }
                let strays = process::children().into_iter().filter(|pid| !census.knows(*pid));
                let strays =
                    strays.filter(|pid| procfs::facts(*pid).is_some_and(|it| !it.is_zombie));
                let strays: Vec<_> = strays.collect();
                if self.last_count == u32::MAX {
                    self.ended += left.len();
                }
                self.ended += kill_trees(strays.iter().copied().filter(|it| !left.contains(it)));
                left.extend(strays);
                let is_empty = self.is_empty_or_watched(None, epoll);
                left.len().max(usize::from(!is_empty))
            }
        };
        self.spare.refill();
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        (std::mem::replace(&mut self.last_count, left) != left).then_some(left)
    }

    /// Does something while a fork inherits what the warden has to know.
    pub(super) fn inherited<T>(&self, fork: impl FnOnce() -> T) -> nix::Result<T> {
        match &self.hold {
            Hold::Sessions(leaders) | Hold::Groups(leaders) => leaders.inherited(fork),
            Hold::Cgroups(_) | Hold::Nothing => Ok(fork()),
        }
    }

    /// Descriptors that nobody but the master has a use for.
    pub(super) fn raw_fds(&self) -> Vec<RawFd> {
        let watches = self.watches.values().map(AsRawFd::as_raw_fd);
        watches.chain(self.spare.raw_fds()).collect()
    }

    /// Those that the warden needs too.
    pub(super) fn hold_fds(&self) -> Vec<RawFd> {
        match &self.hold {
            Hold::Cgroups(cgroup) => cgroup.raw_fds().to_vec(),
            Hold::Sessions(_) | Hold::Groups(_) | Hold::Nothing => Vec::new(),
        }
    }
}

/// Ends some processes and all below them, and says how many there were. They are stopped first: what
/// is stopped starts nobody else meanwhile.
pub(super) fn kill_trees(roots: impl IntoIterator<Item = Pid>) -> usize {
    let roots: Vec<_> = roots.into_iter().collect();
    if roots.is_empty() {
        return 0;
    }
    let mut stopped = BTreeMap::new();
    for _ in 0..LOOKS {
        let mut is_news = false;
        for pid in procfs::trees(roots.iter().copied(), MEMBERS_A_LOOK) {
            let Some(facts) = procfs::facts(pid).filter(|it| !it.is_zombie) else { continue };
            if stopped.insert(pid, facts.started).is_none() {
                send(pid, facts.started, Signal::SIGSTOP);
                is_news = true;
            }
        }
        if !is_news {
            break;
        }
    }
    for (pid, started) in &stopped {
        debug!("ending pid {pid} ({}), left behind", procfs::name(*pid));
        send(*pid, *started, Signal::SIGKILL);
    }
    stopped.len()
}

fn send(pid: Pid, started: u64, signal: Signal) {
    let Some(held) = Held::of(pid) else { return };
    if procfs::facts(pid).is_some_and(|it| it.started == started) {
        held.signal(signal);
    }
}
