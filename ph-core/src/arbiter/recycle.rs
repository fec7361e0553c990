//! Replacement: which workers are to be replaced, in which order, and how many at a time.
//!
//! A worker is replaced because it served its requests, is too old, holds too much memory, or because its
//! generation is not the wanted one. Whatever the reason, its slot stands in one queue, and goes one of
//! two ways: the successor first, where the surge allows one more worker; or the old one first, where
//! `max_unavailable` allows one fewer.

use alloc::vec::Vec;

use super::Arbiter;
use super::action::{Action, Notice, RecycleReason, StopReason};
use super::event::{Slot, WorkerId};
use super::policy::HEAVY_LOOKS;
use super::worker::{Record, State};

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Successor,
    Old,
}

impl Arbiter {
    /// Workers say it once, so it is remembered of one that does not count as ready yet.
    pub(super) fn want_recycling(
        &mut self,
        worker: WorkerId,
        reason: RecycleReason,
        actions: &mut Vec<Action>,
    ) {
        let Some(record) = self.roster.worker(worker) else { return };
        if record.recycle_due.is_some() || record.state.reason().is_some() || self.is_stopping() {
            return;
        }
        let (slot, is_ready) = (record.slot, record.state.is_ready());
        self.roster.set_recycle_due(worker, reason);
        self.dirty.insert(slot);
        if is_ready {
            actions.push(Action::Notify(Notice::Recycling { worker, reason }));
        }
    }

    /// A look at a worker's memory. One look may find it at a peak; so many in a row do not.
    pub(super) fn on_memory_read(
        &mut self,
        worker: WorkerId,
        bytes: u64,
        actions: &mut Vec<Action>,
    ) {
        let Some(record) = self.roster.worker(worker) else { return };
        let most = self.policy_of(record.generation).max_memory;
        let Some(most) = most.filter(|_| record.state.is_ready()) else { return };
        if self.roster.count_heavy(worker, bytes > most) >= HEAVY_LOOKS {
            self.want_recycling(worker, RecycleReason::Memory { bytes }, actions);
        }
    }

    /// Whether a slot's worker is to be replaced: not for its own sake before it has stood its test,
    /// or a configuration whose workers ask early would never have its verdict.
    pub(super) fn wants_successor(&self, slot: Slot, record: &Record) -> bool {
        let is_due = record.recycle_due.is_some() && !self.is_on_trial(record);
        is_due || record.generation != self.goal(slot)
    }

    /// Whether a worker can be replaced as it is now: one that boots serves nobody, and is left alone
    /// unless nobody wants its generation.
    pub(super) fn is_replaceable(&self, slot: Slot, record: &Record) -> bool {
        match record.state {
            State::Ready(_) => true,
            State::Booting { .. } => record.generation != self.goal(slot),
            State::Stopping { .. } | State::Killed { .. } => false,
        }
    }

    /// Lets as many slots replace their worker as may do so at once, and says whether it let any.
    pub(super) fn admit_recycling(&mut self, actions: &mut Vec<Action>) -> bool {
        let mut admitted = false;
        while let Some(way) = self.free_way()
            && let Some(slot) = self.recycle_queue.pop_front()
        {
            if way == Way::Old && !self.is_spared(slot) {
                self.recycle_queue.push_front(slot);
                break;
            }
            self.roster.place_mut(slot).queued = false;
            let wanted = self.current(slot).filter(|(_, record)| {
                self.wants_successor(slot, record) && self.is_replaceable(slot, record)
            });
            let is_free = self.is_wanted(slot)
                && self.roster.wait(slot).is_none()
                && !self.is_being_replaced(slot);
            let Some((worker, record)) = wanted.filter(|_| is_free) else { continue };
            admitted = true;
            self.dirty.insert(slot);
            match way {
                Way::Successor => {
                    self.recycling.insert(slot);
                }
                Way::Old => {
                    self.vacating.insert(slot);
                    self.stop(worker, self.reason_to_replace(&record), actions);
                }
            }
        }
        admitted
    }

    /// How one more slot may replace its worker; `None`: not now.
    fn free_way(&self) -> Option<Way> {
        let surge = self.surge() as usize;
        if self.recycling.len() < surge {
            return Some(Way::Successor);
        }
        (self.vacating.len() < self.may_be_missing() as usize).then_some(Way::Old)
    }

    fn may_be_missing(&self) -> u32 {
        let missing = self.policy.max_unavailable.of(self.target);
        if self.surge() == 0 { missing.max(1) } else { missing }
    }

    /// Whether a slot's worker may stop before its successor is there. In a roll, whoever is missing
    /// for another reason counts as well (I16), but not a slot that has ended for good.
    fn is_spared(&self, slot: Slot) -> bool {
        let is_ready = self.current(slot).is_some_and(|(_, record)| record.state.is_ready());
        let finished = u32::try_from(self.finished.len()).unwrap_or(u32::MAX);
        let least = self.target.saturating_sub(finished).saturating_sub(self.may_be_missing());
        !is_ready || !self.reload.is_rolling() || self.roster.counts().ready > least
    }

    /// A lower target, or another configuration, means a lower surge: the last successors wait for
    /// another time. Before anything is spawned, or it would be for nothing. In a drain they leave with it.
    pub(super) fn withdraw_surplus(&mut self, actions: &mut Vec<Action>) {
        if self.drained {
            return;
        }
        let surge = self.surge() as usize;
        while self.recycling.len() > surge
            && let Some(slot) = self.recycling.pop_last()
        {
            // One that ends anyway stays where its death counts.
            if let Some(successor) = self.roster.place_mut(slot).successor
                && self.roster.worker(successor).is_some_and(|it| it.state.reason().is_none())
            {
                self.roster.vacate(successor, slot);
                self.stop(successor, StopReason::ScaleDown, actions);
            }
            self.ask_for_recycling(slot);
        }
    }

    /// Workers above the target while some are being replaced.
    pub(super) fn surge(&self) -> u32 {
        self.policy.reload_surge.of(self.target)
    }

    fn is_being_replaced(&self, slot: Slot) -> bool {
        self.recycling.contains(&slot) || self.vacating.contains(&slot)
    }

    pub(super) fn ask_for_recycling(&mut self, slot: Slot) {
        if !core::mem::replace(&mut self.roster.place_mut(slot).queued, true) {
            self.recycle_queue.push_back(slot);
        }
    }

    /// Who serves nobody goes before those who do, and who may have to be spared.
    pub(super) fn ask_to_replace(&mut self, slot: Slot, record: &Record) {
        if record.state.is_ready() {
            self.ask_for_recycling(slot);
        } else {
            self.ask_first(slot);
        }
    }

    /// The same, before all others.
    pub(super) fn ask_first(&mut self, slot: Slot) {
        if core::mem::replace(&mut self.roster.place_mut(slot).queued, true) {
            self.recycle_queue.retain(|queued| *queued != slot);
        }
        self.recycle_queue.push_front(slot);
    }

    /// The slot has nothing to do with replacement any more.
    pub(super) fn forget_replacement(&mut self, slot: Slot) {
        self.recycling.remove(&slot);
        self.vacating.remove(&slot);
    }
}
