//! The arbiter's memory: workers, slots, and the index of their deadlines.
//!
//! A deadline is never stored twice: it is derived from a worker's [`State`] or a slot's wait, and the
//! index is rewritten in the same function that rewrites what it is derived from. The same function
//! keeps the counts, so no event ever looks at all workers.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::action::RecycleReason;
use super::backoff::{Backoff, Jitter};
use super::event::{Slot, WorkerId};
use super::time::Time;
use super::worker::{Record, State};

/// Whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A worker's.
    Worker(WorkerId),
    /// A slot's.
    Slot(Slot),
}

/// What is known of one slot. It outlives scale-down, so that scaling up again forgives nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The worker that holds the slot.
    pub(super) current: Option<WorkerId>,
    /// The worker that is to take its place.
    pub(super) successor: Option<WorkerId>,
    /// The record of its deaths.
    pub(super) backoff: Backoff,
    /// It is in a crash loop, and people have been told.
    pub(super) looping: bool,
    /// It is in the queue of those that want a successor; nobody is there twice.
    pub(super) queued: bool,
    /// No spawn before this.
    not_before: Option<Time>,
}

/// How many workers there are of each sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not yet ready.
    pub booting: u32,
    /// At work.
    pub ready: u32,
    /// Told to end, not yet ended.
    pub stopping: u32,
    /// Of these: killed and given up, because the kernel does not end them.
    pub unreaped: u32,
}

impl Counts {
    /// All that have not been reaped.
    #[must_use]
    pub const fn live(self) -> u32 {
        self.booting + self.ready + self.stopping
    }

    fn of(&mut self, state: State) -> &mut u32 {
        match state {
            State::Booting { .. } => &mut self.booting,
            State::Ready(_) => &mut self.ready,
            State::Stopping { .. } | State::Killed { .. } => &mut self.stopping,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roster {
    workers: BTreeMap<WorkerId, Record>,
    places: Vec<Place>,
    deadlines: BTreeSet<(Time, Due)>,
    counts: Counts,
}

impl Roster {
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn worker(&self, worker: WorkerId) -> Option<&Record> {
        self.workers.get(&worker)
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = (WorkerId, &Record)> {
        self.workers.iter().map(|(id, record)| (*id, record))
    }

    /// The workers from `after` on, without a copy of the list: for walks that change states.
    pub(super) fn next_worker(&self, after: Option<WorkerId>) -> Option<WorkerId> {
        let from = after.map_or(WorkerId(0), |id| WorkerId(id.0.saturating_add(1)));
        self.workers.range(from..).next().map(|(id, _)| *id)
    }

    pub(super) fn insert(&mut self, worker: WorkerId, record: Record) {
        *self.counts.of(record.state) += 1;
        if let Some(at) = record.state.deadline() {
            self.deadlines.insert((at, Due::Worker(worker)));
        }
        self.workers.insert(worker, record);
    }

    /// Forgets a worker, takes it out of its slot, and says whether it was still in it.
    pub(super) fn remove(&mut self, worker: WorkerId) -> Option<(Record, bool)> {
        let record = self.workers.remove(&worker)?;
        *self.counts.of(record.state) -= 1;
        if record.state.is_unreaped() {
            self.counts.unreaped -= 1;
        }
        if let Some(at) = record.state.deadline() {
            self.deadlines.remove(&(at, Due::Worker(worker)));
        }
        let held = self.vacate(worker, record.slot);
        Some((record, held))
    }

    /// The only place that changes a worker's state.
    pub(super) fn set_state(&mut self, worker: WorkerId, state: State) {
        let Some(record) = self.workers.get_mut(&worker) else { return };
        let old = core::mem::replace(&mut record.state, state);
        *self.counts.of(old) -= 1;
        *self.counts.of(state) += 1;
        if state.is_unreaped() && !old.is_unreaped() {
            self.counts.unreaped += 1;
        }
        if old.deadline() != state.deadline() {
            if let Some(at) = old.deadline() {
                self.deadlines.remove(&(at, Due::Worker(worker)));
            }
            if let Some(at) = state.deadline() {
                self.deadlines.insert((at, Due::Worker(worker)));
            }
        }
    }

    pub(super) fn set_ready_at(&mut self, worker: WorkerId, now: Time) {
        if let Some(record) = self.workers.get_mut(&worker) {
            record.ready_at = Some(now);
        }
    }

    pub(super) fn set_watched(&mut self, worker: WorkerId) {
        if let Some(record) = self.workers.get_mut(&worker) {
            record.watched = true;
        }
    }

    pub(super) fn set_jitter(&mut self, worker: WorkerId, jitter: Jitter) {
        if let Some(record) = self.workers.get_mut(&worker) {
            record.jitter = jitter;
        }
    }

    pub(super) fn set_recycle_due(&mut self, worker: WorkerId, reason: RecycleReason) {
        if let Some(record) = self.workers.get_mut(&worker) {
            record.recycle_due = Some(reason);
        }
    }

    /// Counts a look at a worker's memory, and says how many in a row found too much.
    pub(super) fn count_heavy(&mut self, worker: WorkerId, is_heavy: bool) -> u8 {
        let Some(record) = self.workers.get_mut(&worker) else { return 0 };
        record.heavy = if is_heavy { record.heavy.saturating_add(1) } else { 0 };
        record.heavy
    }

    /// The slot lets go of a worker, which may live on; says whether it had it.
    pub(super) fn vacate(&mut self, worker: WorkerId, slot: Slot) -> bool {
        let place = self.place_mut(slot);
        if place.current == Some(worker) {
            place.current = place.successor.take();
        } else if place.successor == Some(worker) {
            place.successor = None;
        } else {
            return false;
        }
        true
    }

    pub(super) fn place(&self, slot: Slot) -> Option<&Place> {
        self.places.get(index(slot))
    }

    /// The slot's record, made if this is the first time it is needed.
    pub(super) fn place_mut(&mut self, slot: Slot) -> &mut Place {
        let index = index(slot);
        if index >= self.places.len() {
            self.places.resize_with(index + 1, Place::default);
        }
        &mut self.places[index]
    }

    /// Sets (or clears) the time before which the slot gets no worker.
    pub(super) fn set_wait(&mut self, slot: Slot, not_before: Option<Time>) {
        let old = core::mem::replace(&mut self.place_mut(slot).not_before, not_before);
        if let Some(at) = old {
            self.deadlines.remove(&(at, Due::Slot(slot)));
        }
        if let Some(at) = not_before {
            self.deadlines.insert((at, Due::Slot(slot)));
        }
    }

    pub(super) fn wait(&self, slot: Slot) -> Option<Time> {
        self.place(slot).and_then(|place| place.not_before)
    }

    pub(super) fn earliest(&self) -> Option<(Time, Due)> {
        self.deadlines.first().copied()
    }

    /// Compares everything derived with what it is derived from.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let mut counts = Counts::default();
        let mut deadlines = BTreeSet::new();
        for (id, record) in &self.workers {
            *counts.of(record.state) += 1;
            counts.unreaped += u32::from(record.state.is_unreaped());
            deadlines.extend(record.state.deadline().map(|at| (at, Due::Worker(*id))));
        }
        for (slot, place) in (0..).map(Slot).zip(&self.places) {
            deadlines.extend(place.not_before.map(|at| (at, Due::Slot(slot))));
            for holder in [place.current, place.successor].into_iter().flatten() {
                if self.workers.get(&holder).is_none_or(|record| record.slot != slot) {
                    return Err("a slot names a worker that is not its own");
                }
            }
            if place.current.is_none() && place.successor.is_some() {
                return Err("a successor waits for nobody");
            }
        }
        if counts != self.counts {
            return Err("the counts differ from the workers' states");
        }
        if deadlines != self.deadlines {
            return Err("the deadlines differ from what they are derived from");
        }
        Ok(())
    }
}

fn index(slot: Slot) -> usize {
    slot.0 as usize
}
