//! What must hold of a reload at the end of every step: who has lived long enough, and what follows from
//! it; that nothing waits for nothing; and how many generations live (I14, I18).

use std::collections::BTreeSet;

use super::super::loads::LOAD_TIMEOUT;
use ph_core::arbiter::{Slot, Time};

use super::reloads::{Reloads, Stage};
use super::{Observer, Seen, Verdict, Violation, hold};

impl Observer {
    /// A worker has had its time, and is stopped in the same step.
    pub(super) fn note_proven(&mut self, seen: &Seen) {
        let is_due = seen.is_at_work() && seen.proven_at().is_some_and(|at| at <= self.now);
        let is_current = seen.generation == self.reloads.current;
        if let Stage::Rolling(roll) = &mut self.reloads.stage
            && is_due
            && is_current
        {
            roll.proven.insert(seen.slot);
        }
    }

    /// The end of a step: who has lived long enough, and what follows from all of it (I14–I18).
    pub(super) fn check_reload(&mut self, next_deadline: Option<Time>) -> Verdict {
        let now = self.now;
        if self.stop.is_some() {
            let is_loading = matches!(self.reloads.stage, Stage::Loading { .. });
            hold!(7, !is_loading, "it stops, and a configuration is still read");
            return Ok(());
        }
        let answered = self.reloads.answered.take();
        hold!(14, answered.is_none(), "{answered:?} had no effect");
        hold!(18, self.failed.is_none(), "{:?} failed, and nothing follows", self.failed);
        let canary = self.reloads.canary();
        let current = self.reloads.current;
        let is_rolling = self.reloads.roll().is_some();
        let mut proven = BTreeSet::new();
        for (worker, seen) in &mut self.workers {
            let is_due = seen.is_at_work() && seen.proven_at().is_some_and(|at| at <= now);
            seen.is_proven |= is_due;
            if is_due && is_rolling && seen.generation == current {
                hold!(18, canary != Some(seen.slot), "{worker:?} is proven, and nobody is told");
                proven.insert(seen.slot);
            }
        }
        if let Stage::Rolling(roll) = &mut self.reloads.stage {
            roll.proven.append(&mut proven);
            roll.proven.retain(|slot| slot.0 < self.target);
        }
        let goes_on = next_deadline.is_some_and(|at| at <= now);
        self.check_verdict(goes_on)?;
        self.check_orders(goes_on, next_deadline)?;
        self.check_generations()
    }

    /// I18: at the end of a roll all are current, and it ends when they are.
    fn check_verdict(&mut self, goes_on: bool) -> Verdict {
        let Some(roll) = self.reloads.roll() else { return Ok(()) };
        let slots = (0..self.target).map(Slot).filter(|slot| !self.finished.contains(slot));
        let left: Vec<_> = slots.filter(|slot| !roll.proven.contains(slot)).collect();
        if !self.reloads.ends_now {
            let is_over = left.is_empty() && roll.canary.is_none();
            hold!(18, !is_over || goes_on, "all are new, and the roll is not over");
            return Ok(());
        }
        hold!(18, left.is_empty() && roll.canary.is_none(), "it is over, and {left:?} are not new");
        let is_old = |it: &&Seen| it.is_wanted() && it.generation != self.reloads.current;
        let old = self.workers.values().find(is_old);
        hold!(18, old.is_none(), "it is over, and there is {old:?}");
        self.reloads.stage = Stage::Idle;
        self.reloads.leftover.clear();
        Ok(())
    }

    /// I14: what waits is taken up once nothing is under way; and a reading ends in time.
    fn check_orders(&self, goes_on: bool, next_deadline: Option<Time>) -> Verdict {
        let Reloads { stage, is_wanted, is_drain_wanted, .. } = &self.reloads;
        if let Stage::Loading { since, .. } = stage {
            let latest = self.now.max(*since).after(LOAD_TIMEOUT);
            let in_time = next_deadline.is_some_and(|at| at <= latest);
            hold!(13, in_time, "a load that is not given up: {next_deadline:?}");
        }
        let waits = self.is_started && (*is_wanted || *is_drain_wanted);
        let is_idle = matches!(stage, Stage::Idle) && !self.upgrades.is_under_way();
        hold!(14, !waits || !is_idle || goes_on, "an order of a reload or a drain is lost");
        Ok(())
    }

    /// I18: two generations, those that stop and those that a failed restore has left.
    fn check_generations(&self) -> Verdict {
        let reloads = &self.reloads;
        let living = self.workers.values().filter(|seen| seen.is_wanted());
        let mut generations: BTreeSet<_> = living.map(|seen| seen.generation).collect();
        generations.retain(|generation| !reloads.leftover.contains(generation));
        let most = match &reloads.stage {
            Stage::Rolling(_) | Stage::Restoring { .. } => 2,
            Stage::Idle | Stage::Loading { .. } => 1,
        };
        hold!(18, generations.len() <= most, "{generations:?} live at a time");
        if reloads.is_drained {
            let canary = reloads.canary();
            let mut living = self.workers.values().filter(|seen| seen.is_wanted());
            let other = living.find(|seen| Some(seen.slot) != canary);
            hold!(14, other.is_none(), "drained, and there is {other:?}");
        }
        Ok(())
    }
}
