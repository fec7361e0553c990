//! Trees: a worker and all it started, and how the last of them is ended.
//!
//! Where this process may make cgroups there is one for each seat of a command, and the kernel knows who
//! is in it. Everywhere a tree is also a process group, a session, and what bears the mark of the worker:
//! what loses its parent becomes a child of the master, which is the subreaper, and is told apart by
//! these (see `strays`).
//!
//! A worker that crashed has ended when its leader has: its slot must not wait for what it left, which is
//! a *remnant* and keeps the seat until nobody is left. A worker that was told to stop has ended when its
//! tree has, within its grace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpgid};
use tracing::warn;

use super::conditions::KillMode;
use super::perform::jitter;
use super::strays::{Census, kill_trees};
use crate::arbiter::WorkerId;
use crate::sys::cgroup::{self, Cgroup};
use crate::sys::fds::Spare;
use crate::sys::leaders::Leaders;
use crate::sys::mark::Mark;
use crate::sys::process::{self, Held};

/// Members of a tree that are told to stop one by one, at most: each takes a descriptor meanwhile.
const TOLD: usize = 512;

/// What an ended worker left behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remnant {
    pub(super) leader: Pid,
    pub(super) worker: WorkerId,
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

/// All trees.
#[derive(Debug)]
pub(super) struct Trees {
    pub(super) kill_mode: KillMode,
    /// Where one can be had, and the end of a worker reaches so far.
    pub(super) cgroup: Option<Cgroup>,
    /// The leaders of all sessions, for the warden.
    pub(super) leaders: Option<Leaders>,
    /// What workers bear, and all they start.
    pub(super) mark: Mark,
    /// By seat.
    pub(super) remnants: BTreeMap<usize, Remnant>,
    /// What says that a seat's cgroup, or (`None`) all of them, became empty.
    watches: HashMap<Option<usize>, OwnedFd>,
    /// A worker has ended since strays were last looked for.
    pub(super) is_sweep_due: bool,
    pub(super) escaped: BTreeSet<Pid>,
    /// How many strays there were at the last count, while the master closes.
    pub(super) last_count: Option<u32>,
    pub(super) is_closing: bool,
    /// Ending processes must not fail for want of descriptors.
    pub(super) spare: Spare,
}

impl Trees {
    /// Workers are commands, or forked. Those have no cgroups: to be born into one takes a fork that
    /// the C library knows nothing of, and then what libraries have asked it to do after a fork, as to
    /// make new random numbers, is not done.
    pub(super) fn new(kill_mode: KillMode, seats: usize, are_commands: bool) -> nix::Result<Self> {
        let has_cgroup = kill_mode == KillMode::Tree && are_commands;
        let has_warden = kill_mode != KillMode::Process;
        Ok(Self {
            kill_mode,
            cgroup: has_cgroup.then(|| Cgroup::make(jitter().0)).flatten(),
            leaders: has_warden.then(|| Leaders::map(seats)).transpose()?,
            mark: Mark::new((u64::from(jitter().0) << 32) | u64::from(jitter().0)),
            remnants: BTreeMap::new(),
            watches: HashMap::new(),
            is_sweep_due: false,
            escaped: BTreeSet::new(),
            last_count: None,
            is_closing: false,
            spare: Spare::new()?,
        })
    }

    /// The cgroup for the next worker of a seat. If none can be had there is a worker all the same, held
    /// together as those of machines without.
    pub(super) fn cgroup_of(&self, seat: usize) -> Option<OwnedFd> {
        let cgroup = self.cgroup.as_ref()?;
        match cgroup.seat(seat) {
            Ok(folder) => Some(folder),
            Err(errno) => {
                warn!("{}: no cgroup for seat {seat}: {errno}", cgroup.path().display());
                None
            }
        }
    }

    /// What the tree of a seat holds, in bytes, where the kernel counts that.
    pub(super) fn memory_of(&self, seat: usize) -> Option<u64> {
        self.cgroup.as_ref()?.memory(seat)
    }

    /// No worker came of a spawn into a seat; it may be its cgroup's fault.
    pub(super) fn spoil(&self, seat: usize) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.spoil(seat);
        }
    }

    /// A worker leads a session now.
    pub(super) fn on_spawned(&self, seat: usize, leader: Pid) {
        self.note_leader(seat, Some(leader));
    }

    fn note_leader(&self, seat: usize, leader: Option<Pid>) {
        if let Some(leaders) = &self.leaders {
            leaders.set(seat, leader);
        }
    }

    /// SIGKILL to whatever the end of a worker reaches, itself included.
    pub(super) fn kill(&mut self, seat: usize, leader: Pid, state: Leader) {
        self.spare.release();
        if state == Leader::Lives {
            if self.kill_mode == KillMode::Tree && self.cgroup.is_none() {
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
        let Some(cgroup) = self.cgroup.as_ref().filter(|it| it.is_populated(Some(seat))) else {
            return;
        };
        if state != Leader::Lives {
            let left = cgroup.members(Some(seat)).len();
            warn!("killing what the worker that was pid {leader} has left behind: {left}");
        }
        if let Err(errno) = cgroup.kill(Some(seat)) {
            warn!("cannot kill the cgroup of seat {seat}: {errno}");
        }
    }

    /// The leader of a worker that was told to stop has ended; those who were not told with it are now.
    pub(super) fn tell_rest(&self, seat: usize, leader: Pid, signal: Signal) {
        let Some(cgroup) = &self.cgroup else { return };
        let members = cgroup.members(Some(seat)).into_iter().take(TOLD);
        let held: Vec<_> = members.filter_map(|pid| Some((pid, Held::of(pid).ok()?))).collect();
        // Whoever is still a member after it was taken hold of is meant.
        let members: BTreeSet<_> = cgroup.members(Some(seat)).into_iter().collect();
        for (pid, held) in held.iter().filter(|(pid, _)| members.contains(pid)) {
            if getpgid(Some(*pid)).is_ok_and(|group| group != leader) {
                // One that has ended meanwhile needs no telling.
                let _ = held.signal(signal).and_then(|()| held.signal(Signal::SIGCONT));
            }
        }
    }

    /// Whether nobody is left that the end of a worker reaches, its leader being reaped; but for what
    /// has a session of its own outside of any cgroup, which is found by a sweep only. If somebody is,
    /// the loop hears of the end: from the cgroup, or as SIGCHLD.
    pub(super) fn has_ended(&mut self, seat: usize, leader: Pid, epoll: &Epoll) -> bool {
        self.kill_mode == KillMode::Process
            || (self.is_empty_or_watched(Some(seat), epoll) && !process::has_left_group(leader))
    }

    /// The look comes before the watch is set and the kernel compares with it, so nothing is missed.
    /// What cannot be looked at may not be empty.
    pub(super) fn is_empty_or_watched(&mut self, seat: Option<usize>, epoll: &Epoll) -> bool {
        let Some(cgroup) = &self.cgroup else { return true };
        if let Some(events) = self.watches.get(&seat) {
            if cgroup::is_populated(events) {
                return false;
            }
            // Closing would be enough, were there no copy of it in a child that has yet to execute.
            let _ = epoll.delete(events);
            self.watches.remove(&seat);
            return true;
        }
        let events = match cgroup.events(seat) {
            Ok(Some(events)) if cgroup::is_populated(&events) => events,
            Ok(_) => return true,
            Err(_) => return false,
        };
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

    /// A worker has ended, and its tree may not have, unless it is known to be empty. Says whether its
    /// seat is free.
    pub(super) fn release(
        &mut self,
        seat: usize,
        leader: Pid,
        worker: WorkerId,
        is_empty: bool,
        epoll: &Epoll,
    ) -> bool {
        let is_swept = self.kill_mode == KillMode::Tree;
        self.is_sweep_due |= is_swept;
        let is_known = !is_swept || self.cgroup.is_some();
        if is_known && (is_empty || self.has_ended(seat, leader, epoll)) {
            self.note_leader(seat, None);
            return true;
        }
        self.remnants.insert(seat, Remnant { leader, worker });
        false
    }

    /// Looks for remnants of which nothing is left, and gives their seats.
    pub(super) fn emptied(&mut self, census: &Census<'_>, epoll: &Epoll) -> Vec<usize> {
        if self.remnants.is_empty() && !self.is_sweep_due {
            return Vec::new();
        }
        let is_swept = self.kill_mode == KillMode::Tree;
        let Some(busy) = (if is_swept { self.sweep(census) } else { Some(BTreeSet::new()) }) else {
            return Vec::new();
        };
        let remnants: Vec<_> = self.remnants.iter().map(|(seat, it)| (*seat, it.leader)).collect();
        let is_empty = |(seat, leader): &(usize, Pid)| {
            !busy.contains(seat) && self.has_ended(*seat, *leader, epoll)
        };
        let empty: Vec<_> = remnants.into_iter().filter(is_empty).map(|(seat, _)| seat).collect();
        for seat in &empty {
            self.remnants.remove(seat);
            self.note_leader(*seat, None);
        }
        empty
    }

    /// The seat of a remnant that does not end, for a worker that would have none: what is left of it
    /// ends with the master.
    pub(super) fn give_up_remnant(&mut self) -> Option<usize> {
        let (seat, remnant) = self.remnants.pop_first()?;
        warn!("what worker id {} left behind does not end; its seat is used again", remnant.worker);
        self.note_leader(seat, None);
        self.spoil(seat);
        // It is about the cgroup that the seat has no more.
        self.watches.remove(&Some(seat));
        Some(seat)
    }

    /// Who is in the tree of a seat, where a cgroup tells.
    pub(super) fn members(&self, seat: usize) -> Option<Vec<Pid>> {
        Some(self.cgroup.as_ref()?.members(Some(seat)))
    }

    /// Does something while a fork inherits what the warden has to know.
    pub(super) fn inherited<T>(&self, fork: impl FnOnce() -> T) -> nix::Result<T> {
        match &self.leaders {
            Some(leaders) => leaders.inherited(fork),
            None => Ok(fork()),
        }
    }

    /// Descriptors that nobody but the master has a use for.
    pub(super) fn raw_fds(&self) -> Vec<RawFd> {
        let watches = self.watches.values().map(AsRawFd::as_raw_fd);
        watches.chain(self.spare.raw_fds()).collect()
    }

    /// Those that the warden needs too.
    pub(super) fn hold_fds(&self) -> Vec<RawFd> {
        self.cgroup.iter().flat_map(Cgroup::raw_fds).collect()
    }
}
