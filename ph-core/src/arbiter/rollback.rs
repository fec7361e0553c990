//! The way back: a worker of a new generation has failed before it had lived long enough, and everything
//! wants the former one again.
//!
//! Those that do not serve yet are stopped at once. Those that do are replaced in their turn, as in any
//! roll, so that going back costs no more service than going on would have; what comes back may fail
//! too, and nothing waits for it then (I18).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::action::{Action, Notice, RollFault, StopReason};
use super::event::{Generation, Slot, WorkerId};
use super::reload::Stage;
use super::worker::Record;
use super::{Arbiter, Phase};

impl Arbiter {
    /// A worker has failed. If that decides a reload, everything goes back.
    pub(super) fn on_fault(
        &mut self,
        worker: WorkerId,
        record: &Record,
        cause: RollFault,
        actions: &mut Vec<Action>,
    ) {
        if record.generation != self.generation || self.phase != Phase::Running {
            return;
        }
        self.note_boot_fault(record.slot, actions);
        let is_on_trial = self.is_on_trial(record);
        match &self.reload.stage {
            Some(Stage::Rolling(roll)) if is_on_trial => {
                let (generation, back_to, slot) = (self.generation, roll.old.0, record.slot);
                let failed = Notice::RollFailed { generation, back_to, worker, slot, cause };
                actions.push(Action::Notify(failed));
                self.roll_back(actions);
            }
            // What came back fails as well. To wait for it would keep a better one out.
            Some(Stage::Restoring { failed, .. }) => {
                let (generation, back_to) = (*failed, self.generation);
                self.reload.stage = None;
                actions.push(Action::Notify(Notice::RolledBack { generation, back_to }));
            }
            Some(Stage::Rolling(_) | Stage::Loading { .. }) | None => {}
        }
    }

    /// Everything wants the former generation again.
    fn roll_back(&mut self, actions: &mut Vec<Action>) {
        let Some(Stage::Rolling(roll)) = self.reload.stage.take() else { return };
        let failed = self.generation;
        (self.generation, self.policy) = roll.old;
        if let Some(before) = roll.target_before {
            self.set_target(before, actions);
        }
        let mut pending = BTreeSet::new();
        for slot in (0..self.target).map(Slot) {
            let Some(place) = self.roster.place(slot) else { continue };
            for worker in [place.successor, place.current].into_iter().flatten() {
                let is_serving = place_of(self, worker, failed);
                match is_serving {
                    None => {}
                    Some(true)
                        if self.roster.place(slot).and_then(|it| it.current) == Some(worker) =>
                    {
                        pending.insert(slot);
                    }
                    Some(_) => {
                        self.roster.vacate(worker, slot);
                        self.stop(worker, StopReason::Rollback, actions);
                    }
                }
            }
            self.roster.set_wait(slot, None);
            self.dirty.insert(slot);
        }
        self.reload.stage = Some(Stage::Restoring { failed, pending });
    }

    /// A slot's worker is not of the failed generation any more.
    pub(super) fn note_restored(&mut self, slot: Slot) {
        let Some(Stage::Restoring { failed, pending }) = &mut self.reload.stage else { return };
        let holder = self.roster.place(slot).and_then(|place| place.current);
        let record = holder.and_then(|worker| self.roster.worker(worker));
        if record.is_none_or(|record| record.generation != *failed) {
            pending.remove(&slot);
        }
    }

    /// The slot is to be empty, and waits for nobody.
    pub(super) fn forget_restored(&mut self, slot: Slot) {
        if let Some(Stage::Restoring { pending, .. }) = &mut self.reload.stage {
            pending.remove(&slot);
        }
    }
}

/// Whether a worker of the failed generation serves; `None`: it is of another, or ends anyway.
fn place_of(arbiter: &Arbiter, worker: WorkerId, failed: Generation) -> Option<bool> {
    let record = arbiter.roster.worker(worker)?;
    let is_it = record.generation == failed && record.state.reason().is_none();
    is_it.then(|| record.state.is_ready())
}
