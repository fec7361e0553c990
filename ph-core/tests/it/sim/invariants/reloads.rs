//! The observer's view of reloads: what was ordered, what is under way, and what each slot should have.
//!
//! The rules of `docs` and of ARCHITECTURE.md once more (I15–I18, and I14 for the orders): one reload
//! at a time, one verdict for each; one slot goes first, and the others follow when its worker has
//! lived long enough; whoever fails before that brings everything back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::loads::LOAD_TIMEOUT;
use ph_core::arbiter::{
    Action, Generation, Notice, Policy, Readiness, RollFault, Slot, Time, WorkerId,
};

use super::{Observer, Seen, Verdict, Violation, hold};

/// Workers of a new generation take the places of the old ones.
#[derive(Clone, Debug)]
pub(super) struct Roll {
    pub(super) old: (Generation, Policy),
    /// The slot that goes first; `None`: its worker has stood its test.
    pub(super) canary: Option<Slot>,
    /// Slots in which a new worker has.
    pub(super) proven: BTreeSet<Slot>,
    /// The target that comes with it, and the one that it has replaced.
    target: Option<u32>,
    target_before: Option<u32>,
}

impl Roll {
    /// Whether it comes from this generation.
    pub(super) fn is_from(&self, generation: Generation) -> bool {
        self.old.0 == generation
    }
}

/// How a load was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Good,
    Bad,
    Unneeded,
}

#[expect(clippy::large_enum_variant, reason = "there is one of these")]
#[derive(Clone, Debug)]
pub(super) enum Stage {
    Idle,
    Loading { generation: Generation, since: Time },
    Rolling(Roll),
    Restoring { failed: Generation },
}

#[derive(Clone, Debug)]
pub(super) struct Reloads {
    pub(super) stage: Stage,
    pub(super) current: Generation,
    /// The highest number that was asked for.
    newest: Generation,
    pub(super) is_wanted: bool,
    pub(super) is_drain_wanted: bool,
    pub(super) is_drained: bool,
    /// Failed generations that were still serving when everything else was back.
    pub(super) leftover: BTreeSet<Generation>,
    /// What this step tells: that a roll failed, that it is over, that the canary is proven.
    pub(super) fails_now: bool,
    pub(super) ends_now: bool,
    /// What the event of this step was an answer to.
    pub(super) answered: Option<(Generation, Answer)>,
}

impl Reloads {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Idle,
            current: Generation(1),
            newest: Generation(1),
            is_wanted: false,
            is_drain_wanted: false,
            is_drained: false,
            leftover: BTreeSet::new(),
            fails_now: false,
            ends_now: false,
            answered: None,
        }
    }

    pub(super) fn roll(&self) -> Option<&Roll> {
        match &self.stage {
            Stage::Rolling(roll) => Some(roll),
            Stage::Idle | Stage::Loading { .. } | Stage::Restoring { .. } => None,
        }
    }

    /// The slot whose worker is on trial for all others.
    pub(super) fn canary(&self) -> Option<Slot> {
        self.roll().and_then(|roll| roll.canary)
    }

    /// The generation a slot's worker should have.
    pub(super) fn goal(&self, slot: Slot) -> Generation {
        match self.roll() {
            Some(Roll { canary: Some(canary), old, .. }) if *canary != slot => old.0,
            _ => self.current,
        }
    }

    pub(super) fn begin_step(&mut self, actions: &[Action]) {
        let fails = |it: &Action| matches!(it, Action::Notify(Notice::RollFailed { .. }));
        self.fails_now = actions.iter().any(fails);
        self.ends_now = false;
        self.answered = None;
    }

    pub(super) fn on_reload(&mut self) {
        self.is_wanted = true;
        self.is_drain_wanted = false;
    }

    pub(super) fn on_drain(&mut self) {
        let is_idle = matches!(self.stage, Stage::Idle) && !self.is_wanted;
        self.is_drain_wanted = !(self.is_drained && is_idle);
    }
}

impl Observer {
    /// What is under way, for people.
    pub(in super::super) fn stage(&self) -> String {
        let Reloads { stage, is_wanted, is_drain_wanted, is_drained, .. } = &self.reloads;
        format!("{stage:?}, wanted {is_wanted} {is_drain_wanted}, drained {is_drained}")
    }

    /// What the driver was asked to load and has not answered.
    pub(in super::super) fn loading(&self) -> Option<Generation> {
        match self.reloads.stage {
            Stage::Loading { generation, .. } if self.stop.is_none() => Some(generation),
            Stage::Loading { .. } | Stage::Idle | Stage::Rolling(_) | Stage::Restoring { .. } => {
                None
            }
        }
    }

    pub(in super::super) fn newest_load(&self) -> u32 {
        self.reloads.newest.0
    }

    /// Whether no reload is under way, or waits.
    pub(in super::super) fn is_settled(&self) -> bool {
        let reloads = &self.reloads;
        matches!(reloads.stage, Stage::Idle) && !reloads.is_wanted && !reloads.is_drain_wanted
    }

    /// The policy of a generation: of those that are there to stay the one that came with it.
    pub(super) fn policy_of(&self, generation: Generation) -> Policy {
        match self.reloads.roll() {
            Some(roll) if roll.old.0 == generation => roll.old.1,
            _ => self.policy,
        }
    }

    /// Whether the verdict of a reload hangs on this worker.
    pub(super) fn is_on_trial(&self, seen: &Seen) -> bool {
        let is_new = self.reloads.roll().is_some() && seen.generation == self.reloads.current;
        is_new && seen.is_wanted() && !seen.is_proven
    }

    /// How long a worker that becomes ready now must live for the verdict.
    pub(super) fn hold_of(&self, seen: &Seen) -> Option<Duration> {
        let roll = self.reloads.roll().filter(|_| seen.generation == self.reloads.current)?;
        let least = match self.policy.readiness {
            Readiness::Reported | Readiness::Probed => self.policy.min_uptime,
            Readiness::Spawned => Duration::ZERO,
        };
        let is_canary = roll.canary == Some(seen.slot);
        Some(if is_canary { least.max(self.policy.canary_hold) } else { least })
    }

    /// An answer to a load. What holds for the whole life of a master stays as it is.
    pub(super) fn on_answer(&mut self, generation: Generation, answer: Answer, loaded: Policy) {
        if self.loading() != Some(generation) {
            return;
        }
        self.reloads.answered = Some((generation, answer));
        if answer != Answer::Good {
            return;
        }
        let Policy { max_workers, kind, exit_with, .. } = self.policy;
        let new = Policy { max_workers, kind, exit_with, ..loaded };
        let old = (self.reloads.current, std::mem::replace(&mut self.policy, new));
        let wanted = new.target.clamp(1, max_workers.max(1));
        let is_change = new.target != old.1.target && wanted != self.target;
        self.reloads.current = generation;
        self.reloads.stage = Stage::Rolling(Roll {
            old,
            canary: None,
            proven: BTreeSet::new(),
            target: is_change.then_some(wanted),
            target_before: None,
        });
    }

    /// An operator's number counts more than a configuration's.
    pub(super) fn on_scaled_by_hand(&mut self) {
        if let Stage::Rolling(roll) = &mut self.reloads.stage {
            (roll.target, roll.target_before) = (None, None);
        }
    }

    /// I14 and I18: one load at a time, and only one that was ordered.
    pub(super) fn on_load(&mut self, generation: Generation) -> Verdict {
        let reloads = &mut self.reloads;
        hold!(6, self.stop.is_none() && self.is_started, "{generation:?} is loaded in a stop");
        hold!(18, matches!(reloads.stage, Stage::Idle), "a load beside {:?}", reloads.stage);
        let is_upgrading = self.upgrades.is_under_way();
        hold!(19, !is_upgrading, "{generation:?} is loaded beside {:?}", self.upgrades);
        hold!(14, std::mem::take(&mut reloads.is_wanted), "a load that nobody ordered");
        hold!(18, generation > reloads.current, "{generation:?} is not a new generation");
        reloads.newest = reloads.newest.max(generation);
        reloads.stage = Stage::Loading { generation, since: self.now };
        Ok(())
    }

    pub(super) fn on_abandon(&mut self) -> Verdict {
        let Stage::Loading { generation, since } = self.reloads.stage else {
            return Err(Violation::new(18, "nothing is loaded, and it is abandoned"));
        };
        let is_late = self.now.since(since) >= LOAD_TIMEOUT;
        let is_stopping = self.stop.is_some();
        hold!(18, is_late || is_stopping, "{generation:?} is abandoned, and there was time");
        self.reloads.stage = Stage::Idle;
        self.reloads.answered = Some((generation, Answer::Bad));
        Ok(())
    }

    pub(super) fn on_reload_notice(&mut self, notice: Notice) -> Verdict {
        match notice {
            Notice::LoadRefused { generation, .. } => {
                self.on_load_without_roll(generation, Answer::Bad)?;
            }
            Notice::LoadUnneeded { generation } => {
                self.on_load_without_roll(generation, Answer::Unneeded)?;
            }
            Notice::Rolling { generation, canary } => {
                let is_so = generation == self.reloads.current && canary.0 < self.target;
                hold!(18, is_so, "it rolls {generation:?}, {canary:?} first");
                self.reloads.answered = None;
                let Stage::Rolling(roll) = &mut self.reloads.stage else {
                    return Err(Violation::new(18, "it rolls what nobody has loaded"));
                };
                let before = roll.canary.replace(canary);
                let is_free = before.is_none_or(|before| {
                    before.0 >= self.target || self.finished.contains(&before)
                });
                hold!(18, is_free, "{canary:?} goes first, and so does {before:?}");
                self.skip_wait(canary);
            }
            Notice::CanaryProven { worker } => self.on_canary_proven(worker)?,
            Notice::Reloaded { generation, .. } => {
                let is_so = generation == self.reloads.current;
                hold!(18, is_so && self.reloads.roll().is_some(), "nothing is rolled");
                self.reloads.ends_now = true;
            }
            Notice::RollFailed { generation, back_to, worker, cause, .. } => {
                self.on_roll_failed(generation, back_to, worker, cause)?;
            }
            Notice::RolledBack { generation, back_to } => {
                let Stage::Restoring { failed } = self.reloads.stage else {
                    return Err(Violation::new(18, "nothing was rolled back"));
                };
                let is_so = failed == generation && back_to == self.reloads.current;
                hold!(18, is_so, "{generation:?} is taken back for {back_to:?}");
                self.reloads.stage = Stage::Idle;
                self.reloads.fails_now = false;
                if self.workers.values().any(|it| it.is_wanted() && it.generation == failed) {
                    self.reloads.leftover.insert(failed);
                }
            }
            Notice::Draining => {
                let is_so = std::mem::take(&mut self.reloads.is_drain_wanted);
                let is_idle = matches!(self.reloads.stage, Stage::Idle);
                hold!(14, is_so && is_idle, "it drains, and nobody said so");
                let is_upgrading = self.upgrades.is_under_way();
                hold!(19, !is_upgrading, "it drains beside {:?}", self.upgrades);
                self.reloads.is_drained = true;
                self.vacant.clear();
                self.detach_unwanted();
            }
            Notice::WorkerReady { .. }
            | Notice::WorkerStopping { .. }
            | Notice::WorkerKilled { .. }
            | Notice::WorkerUnreaped { .. }
            | Notice::WorkerExited { .. }
            | Notice::SpawnFailed { .. }
            | Notice::CrashLoop { .. }
            | Notice::Recovered { .. }
            | Notice::Recycling { .. }
            | Notice::Loading { .. }
            | Notice::Scaled { .. }
            | Notice::ScaleLimited { .. }
            | Notice::LateWake { .. }
            | Notice::HelperEnded { .. }
            | Notice::EndsWithWorkers { .. }
            | Notice::StraysLeft { .. }
            | Notice::Stopping { .. }
            | Notice::DelayOver { .. }
            | Notice::Quitting { .. }
            | Notice::Leaving { .. }
            | Notice::Upgrading
            | Notice::Upgraded { .. }
            | Notice::UpgradeFailed { .. }
            | Notice::Booted { .. }
            | Notice::NotBooted { .. }
            | Notice::Bug(_) => {}
        }
        Ok(())
    }

    /// A reload ends with the answer to its load.
    fn on_load_without_roll(&mut self, generation: Generation, told: Answer) -> Verdict {
        let answered = self.reloads.answered.take();
        let is_so = answered == Some((generation, told));
        hold!(18, is_so, "{generation:?} is {told:?}, and the answer was {answered:?}");
        self.reloads.stage = Stage::Idle;
        Ok(())
    }

    fn skip_wait(&mut self, slot: Slot) {
        if let Some(record) = self.slots.get_mut(&slot) {
            record.skip_wait(self.now);
        }
    }

    fn skip_waits(&mut self) {
        let (now, target) = (self.now, self.target);
        self.slots.range_mut(..Slot(target)).for_each(|(_, record)| record.skip_wait(now));
    }

    fn on_canary_proven(&mut self, worker: WorkerId) -> Verdict {
        let (now, target) = (self.now, self.target);
        let Some(seen) = self.workers.get_mut(&worker) else {
            return Err(Violation::new(18, format!("{worker:?} is proven and is not there")));
        };
        let lived = seen.proven_at().is_some_and(|at| at <= now);
        hold!(18, seen.is_at_work() && lived, "{worker:?} is proven, and has not lived so long");
        seen.is_proven = true;
        let slot = seen.slot;
        let is_new = seen.generation == self.reloads.current;
        let Stage::Rolling(roll) = &mut self.reloads.stage else {
            return Err(Violation::new(18, "a canary, and nothing is rolled"));
        };
        let was = roll.canary.take();
        hold!(18, is_new && was == Some(slot), "{worker:?} in {slot:?} is not the canary");
        if let Some(to) = roll.target.take() {
            roll.target_before = Some(target);
            self.change_target(to);
        }
        self.reloads.is_drained = false;
        self.skip_waits();
        Ok(())
    }

    /// Only a new worker that failed by itself, before it had lived long enough, ends a roll.
    fn on_roll_failed(
        &mut self,
        generation: Generation,
        back_to: Generation,
        worker: WorkerId,
        cause: RollFault,
    ) -> Verdict {
        let failed = self.failed.take();
        hold!(18, failed == Some(worker), "{worker:?} failed by {cause:?}, or did {failed:?}?");
        let Stage::Rolling(roll) = &self.reloads.stage else {
            return Err(Violation::new(18, "nothing was rolled, and it failed"));
        };
        let is_so = generation == self.reloads.current && back_to == roll.old.0;
        hold!(18, is_so, "{generation:?} failed, and {back_to:?} comes back");
        let (old, target_before) = (roll.old, roll.target_before);
        (self.reloads.current, self.policy) = old;
        self.reloads.stage = Stage::Restoring { failed: generation };
        if let Some(before) = target_before {
            self.change_target(before);
        }
        self.skip_waits();
        if self.reloads.is_drained {
            self.vacant.clear();
        }
        self.detach_unwanted();
        Ok(())
    }

    fn change_target(&mut self, to: u32) {
        self.target = to;
        self.vacant.retain(|slot| slot.0 < to);
        self.end_if_all_have();
    }

    /// Whether a slot is to have a worker at all.
    pub(super) fn is_slot_wanted(&self, slot: Slot) -> bool {
        let is_served = !self.reloads.is_drained || self.reloads.canary() == Some(slot);
        slot.0 < self.target && is_served && !self.finished.contains(&slot)
    }

    /// Who is in a slot that nobody wants has none.
    pub(super) fn detach_unwanted(&mut self) {
        let (target, drained) = (self.target, self.reloads.is_drained);
        let canary = self.reloads.canary();
        for seen in self.workers.values_mut() {
            let is_served = !drained || canary == Some(seen.slot);
            seen.is_detached |= seen.slot.0 >= target || !is_served;
        }
    }
}

/// Whether a reload changes the target in this step.
pub(super) fn moves_target(action: &Action) -> bool {
    matches!(action, Action::Notify(Notice::CanaryProven { .. } | Notice::RollFailed { .. }))
}
