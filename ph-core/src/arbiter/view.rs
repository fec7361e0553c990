//! What others may see of the arbiter: slots and workers as they are. Nothing here changes anything.

use super::Arbiter;
use super::event::{Generation, Slot, WorkerId};
use super::time::Time;
use super::worker::Record;

/// A slot as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// The worker that holds it.
    pub current: Option<WorkerId>,
    /// The one that is to take its place.
    pub successor: Option<WorkerId>,
    /// It gets no worker before this.
    pub not_before: Option<Time>,
    /// Its workers keep dying.
    pub is_looping: bool,
    /// Its worker has ended and is not replaced, see [`ExitWith::All`](super::ExitWith::All).
    pub is_finished: bool,
}

impl Arbiter {
    /// One slot.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> SlotView {
        let place = self.roster.place(slot);
        SlotView {
            current: place.and_then(|place| place.current),
            successor: place.and_then(|place| place.successor),
            not_before: self.roster.wait(slot),
            is_looping: place.is_some_and(|place| place.looping),
            is_finished: self.finished.contains(&slot),
        }
    }

    /// Whether the workers of some slot within the target keep dying.
    #[must_use]
    pub fn has_crash_loop(&self) -> bool {
        (0..self.target).any(|slot| self.roster.place(Slot(slot)).is_some_and(|it| it.looping))
    }

    /// The most workers that an order can ask for; the least is one.
    #[must_use]
    pub fn max_workers(&self) -> u32 {
        self.policy.max_workers.max(1)
    }

    /// Whether workers of this generation are started now or may have to be.
    #[must_use]
    pub fn is_needed(&self, generation: Generation) -> bool {
        generation == self.generation
            || self.reload.roll().is_some_and(|roll| roll.old.0 == generation)
    }

    /// The generation that is, or is to be, that of all workers.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether a reload is under way: read, rolled or taken back.
    #[must_use]
    pub fn is_reloading(&self) -> bool {
        self.reload.is_under_way()
    }

    /// Whether all workers are stopped until the next reload.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// The oldest worker after this one, or of all: for walks that are taken up again later.
    #[must_use]
    pub fn worker_after(&self, after: Option<WorkerId>) -> Option<(WorkerId, &Record)> {
        let worker = self.roster.next_worker(after)?;
        Some((worker, self.roster.worker(worker)?))
    }
}
