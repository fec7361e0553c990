//! A reload, from the order to its verdict: one canary, then the rest, or everything back as it was.
//!
//! It is a wish beside the phase of the master. While the configuration is read nothing has changed
//! (I15). Then one slot, the canary's, wants a worker of the new generation, and all others still want
//! the old one. Once the canary has lived long enough, all want the new one; the first new worker
//! that fails before it has lived long enough makes all want the old one again. What a slot wants is
//! asked for by [`Arbiter::goal`], and `reconcile` does the rest: so a reload in the middle of crashes,
//! scale orders and recycling has one answer.
//!
//! There are two generations at a time, and those that are stopping (I18): an order that comes meanwhile
//! waits for the verdict, and however many came, they are one.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use super::action::{Action, Notice, StopReason};
use super::event::{Generation, Slot, WorkerId};
use super::policy::{ExitWith, Policy, Readiness, is_too_late};
use super::time::Time;
use super::worker::{Record, State};
use super::{Arbiter, Phase};

/// What is wanted of a reload, and what is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reload {
    /// An order waits for the verdict of what is under way.
    wanted: bool,
    /// So does one to stop all workers until the next reload.
    drain_wanted: bool,
    pub(super) stage: Option<Stage>,
    /// The highest number a generation has had.
    newest: Generation,
}

#[expect(clippy::large_enum_variant, reason = "there is one of these")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The configuration is read.
    Loading { generation: Generation, since: Time, give_up_at: Time },
    /// Workers of the new generation take the places of the old ones.
    Rolling(Roll),
    /// It has failed. Workers of it that serve are replaced in their turn.
    Restoring { failed: Generation, pending: BTreeSet<Slot> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Roll {
    since: Time,
    /// What comes back if this fails.
    pub(super) old: (Generation, Policy),
    /// The slot that is alone in wanting the new generation, until its worker is proven.
    canary: Option<Slot>,
    /// Slots without a proven worker of the new generation.
    pending: BTreeSet<Slot>,
    /// Workers to keep alive from the proof of the canary on, if the configuration says otherwise.
    target: Option<u32>,
    /// What the target was before that, unless an operator has changed it since.
    pub(super) target_before: Option<u32>,
}

impl Reload {
    pub(super) fn new(first: Generation) -> Self {
        Self { wanted: false, drain_wanted: false, stage: None, newest: first }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match self.stage {
            Some(Stage::Loading { give_up_at, .. }) => Some(give_up_at),
            Some(Stage::Rolling(_) | Stage::Restoring { .. }) | None => None,
        }
    }

    /// Whether an order waits for no reload any more.
    pub(super) fn is_waiting(&self) -> bool {
        self.stage.is_none() && (self.wanted || self.drain_wanted)
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.stage.is_some()
    }

    /// Whether workers are being replaced by those of another generation, on the way there or back.
    pub(super) fn is_rolling(&self) -> bool {
        match self.stage {
            Some(Stage::Rolling(_) | Stage::Restoring { .. }) => true,
            Some(Stage::Loading { .. }) | None => false,
        }
    }

    pub(super) fn roll(&self) -> Option<&Roll> {
        match &self.stage {
            Some(Stage::Rolling(roll)) => Some(roll),
            Some(Stage::Loading { .. } | Stage::Restoring { .. }) | None => None,
        }
    }

    fn roll_mut(&mut self) -> Option<&mut Roll> {
        match &mut self.stage {
            Some(Stage::Rolling(roll)) => Some(roll),
            Some(Stage::Loading { .. } | Stage::Restoring { .. }) | None => None,
        }
    }

    fn pending_mut(&mut self) -> Option<&mut BTreeSet<Slot>> {
        match &mut self.stage {
            Some(Stage::Rolling(roll)) => Some(&mut roll.pending),
            Some(Stage::Restoring { pending, .. }) => Some(pending),
            Some(Stage::Loading { .. }) | None => None,
        }
    }

    fn canary(&self) -> Option<Slot> {
        self.roll()?.canary
    }
}

impl Arbiter {
    /// The generation a slot's worker should have.
    pub(super) fn goal(&self, slot: Slot) -> Generation {
        match self.reload.roll() {
            Some(Roll { canary: Some(canary), old, .. }) if *canary != slot => old.0,
            Some(_) | None => self.generation,
        }
    }

    /// The policy of a generation; of those that are only stopping any.
    pub(super) fn policy_of(&self, generation: Generation) -> &Policy {
        match self.reload.roll() {
            Some(roll) if roll.old.0 == generation => &roll.old.1,
            Some(_) | None => &self.policy,
        }
    }

    /// Whether an order to reload waits.
    pub(super) fn reload_waits(&self) -> bool {
        self.reload.wanted
    }

    /// Whether one to drain does.
    pub(super) fn drain_waits(&self) -> bool {
        self.reload.drain_wanted
    }

    /// Whether a slot is to have a worker at all.
    pub(super) fn is_wanted(&self, slot: Slot) -> bool {
        slot.0 < self.target && (!self.drained || self.reload.canary() == Some(slot))
    }

    /// Whether the verdict of a roll hangs on workers of this generation.
    pub(super) fn has_verdict(&self, generation: Generation) -> bool {
        generation == self.generation && self.reload.roll().is_some()
    }

    /// Whether it hangs on this worker: it has not lived long enough, and has not failed.
    pub(super) fn is_on_trial(&self, record: &Record) -> bool {
        let is_judged = match record.state {
            State::Booting { .. } => false,
            State::Ready(watch) => watch.proven_at.is_none(),
            State::Stopping { .. } | State::Killed { .. } => true,
        };
        self.has_verdict(record.generation) && !is_judged
    }

    /// Whether the slot's new worker is to prove itself beside the old one.
    pub(super) fn is_canary_on_trial(&self, slot: Slot) -> bool {
        self.reload.canary() == Some(slot)
    }

    /// Whether a worker's end is the affair of a reload, and so not of the service: that of one on trial,
    /// and of one whose generation has failed.
    pub(super) fn is_reloads_affair(&self, record: &Record) -> bool {
        self.is_on_trial(record) || !self.is_needed(record.generation)
    }

    /// Whether it is the affair of its slot: not that of one whose generation the slot does not want.
    pub(super) fn is_slots_affair(&self, record: &Record) -> bool {
        record.generation == self.goal(record.slot) && !self.is_on_trial(record)
    }

    /// Why a worker that is replaced is stopped.
    pub(super) fn reason_to_replace(&self, record: &Record) -> StopReason {
        match (&self.reload.stage, record.generation == self.goal(record.slot)) {
            (_, true) => StopReason::Recycle,
            (Some(Stage::Restoring { .. }), false) => StopReason::Rollback,
            (Some(Stage::Rolling(_) | Stage::Loading { .. }) | None, false) => StopReason::Reload,
        }
    }

    /// When a worker that became ready now has lived long enough for the verdict.
    pub(super) fn proven_at(&self, record: &Record) -> Option<Time> {
        let roll = self.reload.roll().filter(|_| record.generation == self.generation)?;
        // An executed command has lived `min_uptime` already, or it would not count as ready.
        let least = match self.policy.readiness {
            Readiness::Reported | Readiness::Probed => self.policy.min_uptime,
            Readiness::Spawned => Duration::ZERO,
        };
        let is_canary = roll.canary == Some(record.slot);
        let hold = if is_canary { least.max(self.policy.canary_hold) } else { least };
        Some(self.now.after(hold))
    }

    pub(super) fn on_reload(&mut self) {
        if !self.is_stopping() {
            self.reload.wanted = true;
            self.reload.drain_wanted = false;
        }
    }

    /// A drained service that is being reloaded is to be drained again.
    pub(super) fn on_drain(&mut self) {
        let is_served = !self.drained || self.reload.wanted || self.reload.is_under_way();
        self.reload.drain_wanted = is_served && !self.is_stopping();
    }

    /// Takes up what waits, once nothing is under way. A drain that waits beside a reload came after it.
    pub(super) fn begin_reload(&mut self, actions: &mut Vec<Action>) {
        if self.reload.stage.is_some() || self.is_upgrading() {
            return;
        }
        if core::mem::take(&mut self.reload.wanted) {
            let generation = Generation(self.reload.newest.0.saturating_add(1));
            let (since, give_up_at) = (self.now, self.now.after(self.policy.load_timeout));
            self.reload.stage = Some(Stage::Loading { generation, since, give_up_at });
            actions.push(Action::Notify(Notice::Loading { generation }));
            actions.push(Action::Load { generation });
        } else if core::mem::take(&mut self.reload.drain_wanted) {
            self.drained = true;
            self.dirty.extend((0..self.target).map(Slot));
            actions.push(Action::Notify(Notice::Draining));
        }
    }

    /// The reading takes too long. A look that comes far too late proves nothing.
    pub(super) fn expire_load(&mut self, actions: &mut Vec<Action>) {
        let Some(Stage::Loading { generation, give_up_at, .. }) = &mut self.reload.stage else {
            return;
        };
        if *give_up_at > self.now {
            return;
        }
        let late = self.now.since(*give_up_at);
        if is_too_late(late, self.policy.load_timeout) {
            *give_up_at = self.now.after(self.policy.load_timeout);
            return self.tell_late_wake(late, actions);
        }
        let generation = *generation;
        self.reload.stage = None;
        actions.push(Action::AbandonLoad);
        actions.push(Action::Notify(Notice::LoadRefused { generation, is_timeout: true }));
    }

    pub(super) fn on_load_failed(&mut self, generation: Generation, actions: &mut Vec<Action>) {
        if self.loading_since(generation).is_some() {
            self.reload.stage = None;
            actions.push(Action::Notify(Notice::LoadRefused { generation, is_timeout: false }));
        }
    }

    pub(super) fn on_load_unneeded(&mut self, generation: Generation, actions: &mut Vec<Action>) {
        if self.loading_since(generation).is_some() {
            self.reload.stage = None;
            actions.push(Action::Notify(Notice::LoadUnneeded { generation }));
        }
    }

    fn loading_since(&self, wanted: Generation) -> Option<Time> {
        match self.reload.stage {
            Some(Stage::Loading { generation, since, .. }) => {
                (generation == wanted && self.phase == Phase::Running).then_some(since)
            }
            Some(Stage::Rolling(_) | Stage::Restoring { .. }) | None => None,
        }
    }

    /// The configuration is good: the canary goes first. What holds for the whole life of a master
    /// stays as it is.
    pub(super) fn on_loaded(
        &mut self,
        generation: Generation,
        policy: Policy,
        actions: &mut Vec<Action>,
    ) {
        let Some(since) = self.loading_since(generation) else { return };
        let Policy { max_workers, kind, exit_with, .. } = self.policy;
        let policy = Policy { max_workers, kind, exit_with, ..policy };
        let wanted = policy.target.clamp(1, max_workers.max(1));
        let old = (self.generation, core::mem::replace(&mut self.policy, policy));
        let target = (policy.target != old.1.target && wanted != self.target).then_some(wanted);
        let canary = self.choose_canary(self.target.min(target.unwrap_or(self.target)));
        let slots = (0..self.target).map(Slot);
        let pending = slots.filter(|slot| !self.finished.contains(slot)).collect();
        let roll = Roll { since, old, canary: Some(canary), pending, target, target_before: None };
        self.generation = generation;
        self.reload.newest = generation;
        self.reload.stage = Some(Stage::Rolling(roll));
        self.roster.set_wait(canary, None);
        self.dirty.insert(canary);
        self.ask_first(canary);
        actions.push(Action::Notify(Notice::Rolling { generation, canary }));
    }

    /// A slot without a worker has nothing to lose, and one whose worker boots has little.
    fn choose_canary(&self, below: u32) -> Slot {
        let cost = |slot: &Slot| match self.current(*slot).map(|(_, record)| record.state) {
            None => 0,
            Some(State::Booting { .. }) => 1,
            Some(State::Ready(_)) => 2,
            Some(State::Stopping { .. } | State::Killed { .. }) => 3,
        };
        let has_part = |slot: &Slot| !self.finished.contains(slot);
        let best = (0..below).map(Slot).filter(has_part).min_by_key(cost);
        let others = || (below..self.target).map(Slot).find(has_part);
        best.or_else(others).unwrap_or(Slot(0))
    }

    /// A worker has lived long enough for the verdict.
    pub(super) fn on_proven(
        &mut self,
        worker: WorkerId,
        record: &Record,
        actions: &mut Vec<Action>,
    ) {
        let slot = record.slot;
        // It may have asked for a successor meanwhile.
        self.dirty.insert(slot);
        if !self.has_verdict(record.generation) {
            return;
        }
        let Some(roll) = self.reload.roll_mut() else { return };
        roll.pending.remove(&slot);
        if roll.canary != Some(slot) {
            return;
        }
        roll.canary = None;
        let target = roll.target.take();
        actions.push(Action::Notify(Notice::CanaryProven { worker }));
        self.drained = false;
        if let Some(to) = target {
            let from = self.set_target(to, actions);
            if let Some(roll) = self.reload.roll_mut() {
                roll.target_before = Some(from);
            }
        }
        for slot in (0..self.target).map(Slot) {
            // Whoever waits, waits for the faults of another configuration.
            self.roster.set_wait(slot, None);
            self.dirty.insert(slot);
        }
    }

    /// The target follows an operator or a configuration; says what it was.
    pub(super) fn set_target(&mut self, to: u32, actions: &mut Vec<Action>) -> u32 {
        let from = core::mem::replace(&mut self.target, to);
        if from == to {
            return from;
        }
        actions.push(Action::Notify(Notice::Scaled { from, to }));
        if self.phase == Phase::Running {
            self.dirty.extend((from.min(to)..from.max(to)).map(Slot));
        }
        let _beyond = self.finished.split_off(&Slot(to));
        self.settle_boot(actions);
        if let Some(roll) = self.reload.roll_mut() {
            roll.pending.extend((from..to).map(Slot));
        }
        if let Some(pending) = self.reload.pending_mut() {
            let _beyond = pending.split_off(&Slot(to));
        }
        if self.policy.exit_with == Some(ExitWith::All) && !self.is_stopping() {
            let code = self.all_finished();
            self.end_with_workers(code, actions);
        }
        from
    }

    /// An operator has said how many there are to be: no configuration changes that now.
    pub(super) fn on_scaled_by_hand(&mut self) {
        if let Some(roll) = self.reload.roll_mut() {
            (roll.target, roll.target_before) = (None, None);
        }
    }

    /// Where the canary's slot is not wanted any more, another one goes first.
    fn replace_canary(&mut self, actions: &mut Vec<Action>) {
        let target = self.target;
        let Some(canary) = self.reload.canary() else { return };
        if canary.0 < target && !self.finished.contains(&canary) {
            return;
        }
        let next = self.choose_canary(target);
        if let Some(roll) = self.reload.roll_mut() {
            roll.canary = Some(next);
        }
        self.dirty.extend([canary, next]);
        self.roster.set_wait(next, None);
        self.ask_first(next);
        let generation = self.generation;
        actions.push(Action::Notify(Notice::Rolling { generation, canary: next }));
    }

    /// Looks whether what is under way is over, and says whether it is now.
    pub(super) fn settle_reload(&mut self, actions: &mut Vec<Action>) -> bool {
        self.replace_canary(actions);
        let notice = match &self.reload.stage {
            Some(Stage::Rolling(roll)) if roll.pending.is_empty() && roll.canary.is_none() => {
                let (generation, took) = (self.generation, self.now.since(roll.since));
                Notice::Reloaded { generation, took }
            }
            Some(Stage::Restoring { failed, pending }) if pending.is_empty() => {
                Notice::RolledBack { generation: *failed, back_to: self.generation }
            }
            Some(Stage::Rolling(_) | Stage::Restoring { .. } | Stage::Loading { .. }) | None => {
                return false;
            }
        };
        self.reload.stage = None;
        actions.push(Action::Notify(notice));
        true
    }

    /// With [`ExitWith::All`](super::ExitWith::All): a slot that has finished has no part in it.
    pub(super) fn forget_slot(&mut self, slot: Slot) {
        if let Some(pending) = self.reload.pending_mut() {
            pending.remove(&slot);
        }
    }

    /// The master stops: nothing is reloaded any more.
    pub(super) fn end_reload(&mut self, actions: &mut Vec<Action>) {
        if self.reload.deadline().is_some() {
            actions.push(Action::AbandonLoad);
        }
        self.reload = Reload::new(self.reload.newest);
    }
}
