//! The only pid table: which process is which worker, and what of it has been told to the arbiter.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;

use nix::unistd::Pid;

use super::notify::Said;
use super::tree::Leader;
use crate::arbiter::{Generation, Slot, WorkerId};
use crate::sys::notify::NotifySocket;
use crate::sys::process::Ended;
use crate::sys::setup::Failure;
use crate::worker::HookWorker;

/// A process that has not been reaped.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    /// Its line in shared memory, if it is a forked worker, and its cgroup, if it has one.
    pub(super) seat: usize,
    /// What says whether its command runs, until that is known.
    pub(super) report: Option<OwnedFd>,
    /// What kept its command from running.
    pub(super) failure: Option<Failure>,
    /// How it ended, once it is reaped. Its number may be another process's from then on, unless its
    /// group has still members.
    pub(super) reaped: Option<Ended>,
    /// Where it is heard, as long as it lives.
    pub(super) notify: Option<NotifySocket>,
    pub(super) said: Said,
    /// The requests after which it is recycled, where it is a command that counts them; 0: never.
    pub(super) max_requests: u64,
    pub(super) ready_told: bool,
    pub(super) recycle_told: bool,
}

impl Child {
    /// A child that was forked a moment ago.
    pub(super) fn new(pid: Pid, slot: Slot, generation: Generation, seat: usize) -> Self {
        Self {
            pid,
            slot,
            generation,
            seat,
            report: None,
            failure: None,
            reaped: None,
            notify: None,
            said: Said::default(),
            max_requests: 0,
            ready_told: false,
            recycle_told: false,
        }
    }

    /// Who hooks are told of.
    pub(super) fn of_hook(&self, worker: WorkerId) -> HookWorker {
        HookWorker {
            slot: self.slot.0,
            generation: self.generation.0,
            id: worker.0,
            pid: Some(self.pid.as_raw()),
        }
    }

    /// Where the leader of the worker is in its life, as far as is known here.
    pub(super) fn leader(&self) -> Leader {
        if self.reaped.is_some() { Leader::Reaped } else { Leader::Lives }
    }
}

/// All children, by worker and by pid, and the seats that are free.
#[derive(Debug, Default)]
pub(super) struct Children {
    by_worker: BTreeMap<WorkerId, Child>,
    by_pid: HashMap<Pid, WorkerId>,
    by_seat: HashMap<usize, WorkerId>,
    /// How many there are of each.
    by_generation: BTreeMap<Generation, usize>,
    free_seats: BTreeSet<usize>,
    /// All seats, of which those from here on were never taken.
    fresh_seat: usize,
    seats: usize,
}

impl Children {
    pub(super) fn with_seats(seats: usize) -> Self {
        Self { seats, ..Self::default() }
    }

    /// The lowest free seat, so that few pages of shared memory, and few cgroups, are ever made.
    pub(super) fn take_seat(&mut self) -> Option<usize> {
        if let Some(seat) = self.free_seats.pop_first() {
            return Some(seat);
        }
        let seat = self.fresh_seat;
        self.fresh_seat += usize::from(seat < self.seats);
        (seat < self.seats).then_some(seat)
    }

    pub(super) fn give_seat_back(&mut self, seat: usize) {
        self.free_seats.insert(seat);
    }

    pub(super) fn insert(&mut self, worker: WorkerId, child: Child) {
        *self.by_generation.entry(child.generation).or_default() += 1;
        self.by_pid.insert(child.pid, worker);
        self.by_seat.insert(child.seat, worker);
        self.by_worker.insert(worker, child);
    }

    /// Forgets a reaped child, whose seat may still be held by what it left behind.
    pub(super) fn remove(&mut self, worker: WorkerId) -> Option<Child> {
        let child = self.by_worker.remove(&worker)?;
        if let Some(count) = self.by_generation.get_mut(&child.generation) {
            *count -= 1;
        }
        self.by_generation.retain(|_, count| *count > 0);
        // A worker started meanwhile may have the same pid already.
        if self.by_pid.get(&child.pid) == Some(&worker) {
            self.by_pid.remove(&child.pid);
        }
        // And the one that follows it the same seat.
        if self.by_seat.get(&child.seat) == Some(&worker) {
            self.by_seat.remove(&child.seat);
        }
        Some(child)
    }

    pub(super) fn get(&self, worker: WorkerId) -> Option<&Child> {
        self.by_worker.get(&worker)
    }

    pub(super) fn get_mut(&mut self, worker: WorkerId) -> Option<&mut Child> {
        self.by_worker.get_mut(&worker)
    }

    pub(super) fn worker_of(&self, pid: Pid) -> Option<WorkerId> {
        self.by_pid.get(&pid).copied()
    }

    pub(super) fn worker_in(&self, seat: usize) -> Option<WorkerId> {
        self.by_seat.get(&seat).copied()
    }

    pub(super) fn has_generation(&self, generation: Generation) -> bool {
        self.by_generation.contains_key(&generation)
    }

    pub(super) fn workers(&self) -> Vec<WorkerId> {
        self.by_worker.keys().copied().collect()
    }

    /// Those that have not been reaped.
    pub(super) fn living(&self) -> impl Iterator<Item = WorkerId> {
        self.by_worker.iter().filter(|(_, it)| it.reaped.is_none()).map(|(worker, _)| *worker)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Child> {
        self.by_worker.values()
    }
}
