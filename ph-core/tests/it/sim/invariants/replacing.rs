//! The observer's view of replacement: who may be stopped for a successor, and when (I16, I17).

use ph_core::arbiter::{HEAVY_LOOKS, RecycleReason, StopReason, WorkerId};

use super::reloads::Stage;
use super::{Observer, Seen, Verdict, Violation, hold};

impl Observer {
    /// A probe runs for one that boots and was executed, one at a time; what ends is one that runs.
    pub(super) fn on_probe(&mut self, worker: WorkerId, starts: bool) -> Verdict {
        // The end of a worker is told before that of its probe is ordered.
        let Some(seen) = self.workers.get_mut(&worker) else {
            hold!(2, !starts, "{worker:?} is probed and is not there");
            return Ok(());
        };
        let may = seen.is_executed && seen.said_ready_at.is_none() && seen.is_wanted();
        hold!(21, !starts || (may && !seen.is_probed), "{worker:?} is probed and does not boot");
        hold!(21, starts || seen.is_probed, "no probe of {worker:?} runs");
        seen.is_probed = starts;
        Ok(())
    }

    /// Workers that may be missing while others are replaced.
    pub(in super::super) fn may_be_missing(&self) -> usize {
        let missing = self.policy.max_unavailable.of(self.target);
        let least = u32::from(self.policy.reload_surge.of(self.target) == 0);
        missing.max(least) as usize
    }

    /// Whether a worker is to be replaced: it asked, or its generation is not the wanted one.
    pub(super) fn is_to_go(&self, seen: &Seen) -> bool {
        let is_old = seen.generation != self.reloads.goal(seen.slot);
        let is_proven = seen.proven_at().is_some_and(|at| at <= self.now);
        let is_tried = is_proven || !self.is_on_trial(seen);
        let is_due = seen.is_at_work() && seen.recycle_asked && is_tried;
        seen.is_wanted() && (is_old || is_due)
    }

    /// Judges a stop for the sake of a successor; says whether the worker lets go of its slot at once.
    pub(super) fn check_replaced(
        &mut self,
        worker: WorkerId,
        seen: &Seen,
        reason: StopReason,
    ) -> Result<bool, Violation> {
        self.check_reason(worker, seen, reason)?;
        let is_rollback = reason == StopReason::Rollback;
        let of_slot = |other: &Seen| other.slot == seen.slot && !other.is_detached;
        let older = self.workers.range(..worker).find(|(_, other)| of_slot(other));
        if let Some((older, _)) = older {
            // A successor that nobody wants any more.
            let is_free = is_rollback || !seen.is_at_work();
            hold!(17, is_free && !seen.is_detached, "{worker:?} stops, and {older:?} waits for it");
            return Ok(true);
        }
        if is_rollback && self.reloads.fails_now && !seen.is_at_work() {
            return Ok(true);
        }
        let mut younger = self.workers.range(worker..).skip(1);
        let successor = younger.find(|(_, other)| of_slot(other) && other.is_wanted());
        if let Some((successor, other)) = successor {
            let is_ready = other.is_at_work() && other.said_ready_at.is_some();
            hold!(17, is_ready, "{worker:?} stops before {successor:?} is ready");
            let is_canary = self.reloads.canary() == Some(seen.slot)
                && other.generation == self.reloads.current;
            hold!(17, !is_canary, "{worker:?} stops, and {successor:?} is not proven");
            return Ok(true);
        }
        let missing = self.may_be_missing();
        let vacant = &self.vacant;
        hold!(
            17,
            vacant.len() < missing,
            "{worker:?} stops before it has a successor, and so have {vacant:?} of {missing}"
        );
        let is_rolling = match self.reloads.stage {
            Stage::Idle | Stage::Loading { .. } => false,
            Stage::Rolling(_) | Stage::Restoring { .. } => true,
        };
        if is_rolling && !self.reloads.ends_now && seen.is_at_work() {
            let left = self.workers.values().filter(|it| it.is_at_work()).count() - 1;
            let least = (self.wanted_in_all() as usize).saturating_sub(missing);
            hold!(16, left >= least, "{worker:?} stops: {left} are ready, and {least} must be");
        }
        self.vacant.insert(seen.slot);
        Ok(false)
    }

    fn check_reason(&self, worker: WorkerId, seen: &Seen, reason: StopReason) -> Verdict {
        let is_current = seen.generation == self.reloads.goal(seen.slot);
        let is_restoring =
            self.reloads.fails_now || matches!(self.reloads.stage, Stage::Restoring { .. });
        match reason {
            StopReason::Recycle => {
                hold!(17, seen.recycle_asked, "{worker:?} did not ask to be replaced");
                hold!(17, is_current, "{worker:?} is not replaced by one like it");
            }
            StopReason::Reload => {
                let is_so = !is_current && !is_restoring;
                hold!(18, is_so, "{worker:?} is what its slot wants, and stops for a reload");
            }
            StopReason::Rollback
            | StopReason::Shutdown
            | StopReason::ScaleDown
            | StopReason::Drain
            | StopReason::Stuck
            | StopReason::BootTimeout => {
                let is_new = self.reloads.fails_now && seen.generation == self.reloads.current;
                let is_so = is_restoring && (is_new || !is_current);
                hold!(18, is_so, "{worker:?} is taken back, and nothing has failed");
            }
        }
        Ok(())
    }

    /// Why a worker is to be replaced by one like it, and whether that is so.
    pub(super) fn on_recycling(&mut self, worker: WorkerId, reason: RecycleReason) -> Verdict {
        let now = self.now;
        let Some(seen) = self.workers.get_mut(&worker) else {
            return Err(Violation::new(2, format!("{worker:?} is recycled and is not there")));
        };
        hold!(17, seen.is_at_work(), "{worker:?} is recycled and is not at work");
        match reason {
            RecycleReason::Requests => {
                hold!(17, seen.recycle_asked, "{worker:?} did not ask to be replaced");
            }
            RecycleReason::Age => {
                let is_old = seen.expires_at().is_some_and(|at| at <= now);
                hold!(17, is_old, "{worker:?} is not so old");
            }
            RecycleReason::Memory { .. } => {
                let heavy = seen.heavy;
                hold!(17, heavy >= u32::from(HEAVY_LOOKS), "{heavy} looks found {worker:?} heavy");
            }
        }
        seen.recycle_asked = true;
        Ok(())
    }

    /// The answer to a look at a worker's memory.
    pub(super) fn on_weighed(&mut self, worker: WorkerId, bytes: u64) {
        let Some(generation) = self.workers.get(&worker).map(|seen| seen.generation) else {
            return;
        };
        let most = self.policy_of(generation).max_memory;
        if let Some(seen) = self.workers.get_mut(&worker).filter(|seen| seen.is_at_work()) {
            let is_heavy = most.is_some_and(|most| bytes > most);
            seen.heavy = match most {
                Some(_) if is_heavy => seen.heavy + 1,
                Some(_) => 0,
                None => seen.heavy,
            };
        }
    }

    /// I17: who is too big, or too old, is to be replaced at once.
    pub(super) fn check_recycling(&self) -> Verdict {
        for (worker, seen) in self.workers.iter().filter(|(_, seen)| seen.is_at_work()) {
            let is_heavy = seen.heavy >= u32::from(HEAVY_LOOKS);
            let is_old = seen.expires_at().is_some_and(|at| at <= self.now);
            // In the delay before a stop nobody new comes.
            let is_told = seen.recycle_asked || self.stop.is_some() || !(is_heavy || is_old);
            hold!(17, is_told, "{worker:?} is to be replaced, and nobody is told");
        }
        Ok(())
    }
}
