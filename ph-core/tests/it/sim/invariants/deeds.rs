//! The observer's view of actions: for each, whether it was allowed.

use super::{
    Notice, Observer, Outcome, REAP_GRACE, Seen, Slot, Stop, StopReason, Told, Verdict, Violation,
    WorkerId, WorkerSignal, hold,
};
use std::time::Duration;

use ph_core::arbiter::{ABORT_GRACE, Generation, Readiness};

impl Observer {
    /// I1, I6, I9 and I22.
    pub(super) fn on_spawn(
        &mut self,
        worker: WorkerId,
        slot: Slot,
        generation: Generation,
    ) -> Verdict {
        let missed = self.stop.filter(|stop| !stop.is_told && !stop.is_ordered);
        hold!(10, missed.is_none(), "{worker:?} is spawned after {missed:?}");
        hold!(6, self.is_started && self.stop.is_none(), "{worker:?} is spawned");
        hold!(22, worker > self.newest, "{worker:?} is not a new identity");
        hold!(1, slot.0 < self.target, "{slot:?} is beyond the target");
        hold!(10, !self.finished.contains(&slot), "{slot:?} has ended and is not refilled");
        hold!(14, self.is_slot_wanted(slot), "{slot:?} is drained");
        let goal = self.reloads.goal(slot);
        hold!(18, generation == goal, "{slot:?} gets one of {generation:?}, and not {goal:?}");
        if let Some(record) = self.slots.get(&slot) {
            hold!(9, self.now >= record.earliest, "{slot:?} must wait until {:?}", record.earliest);
        }
        let surge = self.policy.reload_surge.of(self.target);
        for (other, seen) in self.workers.iter().filter(|(_, seen)| seen.slot == slot) {
            let is_replaced = surge > 0 && self.is_to_go(seen);
            hold!(1, seen.is_detached || is_replaced, "{slot:?} still belongs to {other:?}");
        }
        self.newest = worker;
        self.workers.insert(worker, Seen::new(slot, generation, self.policy_of(generation)));
        Ok(())
    }

    /// I2, I3 and I4.
    pub(super) fn on_signal(&mut self, worker: WorkerId, signal: WorkerSignal) -> Verdict {
        let is_succeeded = self.stop.is_some_and(|stop| stop.cause == Outcome::Upgraded);
        let shares = self.workers.get(&worker).is_some_and(|seen| {
            let is_rollback = seen.told.is_some_and(|told| told.reason == StopReason::Rollback);
            // What is taken back counts before that is told.
            let old = self.reloads.roll().filter(|_| is_rollback).map(|roll| roll.old.1);
            let policy = old.unwrap_or_else(|| self.policy_of(self.reloads.goal(seen.slot)));
            !policy.own_queues
        });
        let Some(seen) = self.workers.get_mut(&worker) else {
            return Err(Violation::new(2, format!("{signal:?} to {worker:?}, who is not there")));
        };
        let is_announced = self.announced.take() == Some(worker);
        match signal {
            WorkerSignal::Reopen => {}
            WorkerSignal::Stop | WorkerSignal::StopLast | WorkerSignal::Abort => {
                let Some(told) = &mut seen.told else {
                    return Err(Violation::new(4, format!("{signal:?} to {worker:?}, no reason")));
                };
                let is_first = is_announced && !std::mem::replace(&mut told.is_signalled, true);
                hold!(4, is_first, "a second {signal:?} to {worker:?}");
                hold!(4, seen.killed_at.is_none(), "{signal:?} to {worker:?} after its SIGKILL");
                let is_shutdown = told.reason == StopReason::Shutdown && !is_succeeded;
                let is_own = seen.policy.own_queues && !is_everybodys(told.reason);
                let is_own = is_own && !told.reason.is_fault();
                let is_alone = is_own && (told.reason == StopReason::ScaleDown || shares);
                let is_last = is_shutdown || told.reason == StopReason::Drain || is_alone;
                let is_told_so = signal == WorkerSignal::StopLast;
                hold!(4, is_told_so == is_last, "{signal:?} for {:?}", told.reason);
                let is_abort = signal == WorkerSignal::Abort;
                hold!(4, is_abort == told.reason.is_fault(), "{signal:?} for {:?}", told.reason);
            }
            WorkerSignal::Kill => {
                hold!(3, seen.killed_at.is_none(), "a second SIGKILL to {worker:?}");
                hold!(3, is_announced, "a SIGKILL to {worker:?} and nobody is told why");
                let in_time = seen.told.is_some_and(|told| self.now >= told.kill_at);
                hold!(3, in_time || self.quit.is_some(), "SIGKILL to {worker:?} too early");
                seen.killed_at = Some(self.now);
                seen.unreaped_due = self.now.after(REAP_GRACE);
            }
        }
        Ok(())
    }

    /// I2 and I21.
    pub(super) fn on_look(&mut self, worker: WorkerId) -> Verdict {
        let Some(seen) = self.workers.get_mut(&worker) else {
            return Err(Violation::new(2, format!("a look at {worker:?}, who is not there")));
        };
        hold!(21, seen.is_at_work(), "a heartbeat of {worker:?} is judged, who is not at work");
        hold!(21, seen.policy.timeout.is_some(), "a heartbeat is judged without a timeout");
        seen.on_look(self.now);
        Ok(())
    }

    /// I2.
    pub(super) fn on_weighing(&mut self, worker: WorkerId) -> Verdict {
        let Some(seen) = self.workers.get(&worker) else {
            return Err(Violation::new(2, format!("a look at {worker:?}, who is not there")));
        };
        hold!(17, seen.is_at_work(), "{worker:?} is weighed, who is not at work");
        hold!(17, seen.policy.max_memory.is_some(), "{worker:?} is weighed for nothing");
        Ok(())
    }

    pub(super) fn on_notice(&mut self, notice: Notice) -> Verdict {
        match notice {
            Notice::WorkerReady { worker, .. } => self.on_ready(worker),
            Notice::WorkerStopping { worker, reason, grace } => self.on_told(worker, reason, grace),
            Notice::WorkerKilled { worker, .. } => {
                self.announced = Some(worker);
                Ok(())
            }
            Notice::WorkerUnreaped { worker, .. } => self.on_unreaped(worker),
            Notice::WorkerExited { worker, .. } | Notice::SpawnFailed { worker, .. } => {
                hold!(5, self.ended.take() == Some(worker), "{worker:?} did not end now");
                Ok(())
            }
            Notice::Recovered { slot } => self.on_recovered(slot),
            Notice::Stopping { delay, .. } => {
                // Nobody is waited for where the last one has been given up in this very step.
                let is_anybody = self.living() > 0;
                let grace = self.longest_grace();
                let Some(stop) = &mut self.stop else {
                    return Err(Violation::new(10, "the master stops of itself"));
                };
                hold!(7, !std::mem::replace(&mut stop.is_told, true), "it stops twice");
                if !is_anybody {
                    (stop.leave_at, stop.grace) = (self.now, grace);
                }
                let wanted = stop.leave_at.since(self.now);
                hold!(7, delay == wanted, "the delay is {wanted:?}, and {delay:?} is told");
                if !is_anybody {
                    self.on_delay_over();
                }
                Ok(())
            }
            Notice::DelayOver { .. } => {
                let is_so = self.stop.is_some_and(|stop| stop.leave_at > stop.at);
                let is_due = is_so && !self.is_delayed() && self.quit.is_none();
                hold!(7, is_due, "a delay is over that there is not");
                self.on_delay_over();
                Ok(())
            }
            Notice::Quitting { .. } => {
                hold!(8, self.quit.is_some(), "it quits, and nobody said so");
                Ok(())
            }
            Notice::Bug(text) => Err(Violation::new(0, text)),
            Notice::HelperEnded { helper, respawn_in, .. } => {
                self.on_helper_end_told(helper, respawn_in)
            }
            Notice::StraysLeft { left } => self.on_strays_left(left),
            Notice::Leaving { outcome } => self.on_leaving(outcome),
            Notice::EndsWithWorkers { code } => {
                let cause = self.stop.map(|stop| stop.cause);
                let is_so = cause == Some(Outcome::WorkersEnded { code });
                hold!(10, is_so, "it says it ends with {code}, and the cause is {cause:?}");
                Ok(())
            }
            Notice::Loading { .. }
            | Notice::LoadRefused { .. }
            | Notice::LoadUnneeded { .. }
            | Notice::Rolling { .. }
            | Notice::CanaryProven { .. }
            | Notice::Reloaded { .. }
            | Notice::RollFailed { .. }
            | Notice::RolledBack { .. }
            | Notice::Draining => self.on_reload_notice(notice),
            Notice::Recycling { worker, reason } => self.on_recycling(worker, reason),
            Notice::Upgrading | Notice::Upgraded { .. } | Notice::UpgradeFailed { .. } => {
                self.on_upgrade_notice(&notice)
            }
            Notice::Booted { .. }
            | Notice::NotBooted { .. }
            | Notice::CrashLoop { .. }
            | Notice::Scaled { .. }
            | Notice::ScaleLimited { .. }
            | Notice::LateWake { .. } => Ok(()),
        }
    }

    fn on_ready(&mut self, worker: WorkerId) -> Verdict {
        let now = self.now;
        let Some(seen) = self.workers.get_mut(&worker) else {
            return Err(Violation::new(2, format!("{worker:?} is ready and is not there")));
        };
        hold!(23, seen.ready_at.is_none(), "{worker:?} is ready twice");
        let proof = self.now.since(seen.said_ready_at.unwrap_or(now));
        let must_prove = seen.policy.readiness == Readiness::Spawned && !self.is_proven;
        let is_proof = !must_prove || proof >= seen.policy.min_uptime;
        hold!(10, is_proof, "{worker:?} counts as the first ready one after {proof:?}");
        seen.on_ready(now);
        self.is_proven = true;
        let seen = seen.clone();
        self.vacant.remove(&seen.slot);
        let hold = self.hold_of(&seen);
        if hold.is_some() && seen.policy.readiness == Readiness::Spawned {
            let enough = seen.policy.min_uptime;
            hold!(18, proof >= enough, "{worker:?} counts as ready in a roll after {proof:?}");
        }
        if let Some(seen) = self.workers.get_mut(&worker) {
            seen.hold = hold;
        }
        Ok(())
    }

    fn on_told(&mut self, worker: WorkerId, reason: StopReason, told: Duration) -> Verdict {
        let Some(seen) = self.workers.get(&worker).cloned() else {
            return Err(Violation::new(2, format!("{worker:?} is told to end and is not there")));
        };
        hold!(4, seen.is_wanted(), "{worker:?} is told to end twice");
        if !reason.is_fault() {
            self.note_proven(&seen);
        }
        let mut is_detached = true;
        match reason {
            StopReason::Shutdown => {
                hold!(6, self.stop.is_some(), "{worker:?} is stopped, and nobody said so");
                let is_booting = seen.ready_at.is_none();
                let is_due = self.quit.is_some() || !self.is_delayed() || is_booting;
                hold!(7, is_due, "{worker:?} is stopped before the delay is over");
            }
            StopReason::ScaleDown => {
                let is_surplus = seen.slot.0 >= self.target || self.is_surplus_successor(worker);
                hold!(1, is_surplus, "{worker:?} is not beyond the target");
            }
            StopReason::Drain => {
                let is_so = !self.is_slot_wanted(seen.slot);
                hold!(14, is_so, "{worker:?} is drained, and its slot is not");
            }
            StopReason::Reload | StopReason::Rollback | StopReason::Recycle => {
                is_detached = self.check_replaced(worker, &seen, reason)?;
            }
            StopReason::Stuck => {
                let timeout = seen.policy.timeout.unwrap_or_default();
                seen.may_be_stuck(self.now, timeout)?;
                is_detached = seen.is_detached;
            }
            StopReason::BootTimeout => {
                let is_booting = seen.said_ready_at.is_none() && seen.ready_at.is_none();
                hold!(21, is_booting, "{worker:?} has no boot timer any more");
                is_detached = seen.is_detached;
            }
        }
        let full = seen.policy.graceful_timeout;
        let grace = if reason.is_fault() { full.min(ABORT_GRACE) } else { full };
        hold!(3, told == grace, "{worker:?} has {grace:?}, and {told:?} is told");
        if reason.is_fault() && self.is_on_trial(&seen) && self.stop.is_none() {
            self.failed = Some(worker);
        }
        let kill_at = self.now.after(grace);
        if let Some(seen) = self.workers.get_mut(&worker) {
            seen.told = Some(Told { reason, kill_at, is_signalled: false });
            seen.is_detached = is_detached;
        }
        self.announced = Some(worker);
        Ok(())
    }

    /// A successor that came too early for a target that has been lowered since.
    fn is_surplus_successor(&self, worker: WorkerId) -> bool {
        let Some(seen) = self.workers.get(&worker) else { return false };
        self.workers.range(..worker).any(|(_, old)| old.slot == seen.slot && !old.is_detached)
    }

    fn on_unreaped(&mut self, worker: WorkerId) -> Verdict {
        let Some(seen) = self.workers.get_mut(&worker) else {
            return Err(Violation::new(2, format!("{worker:?} is unreaped and is not there")));
        };
        hold!(7, seen.killed_at.is_some() && !seen.is_unreaped, "{worker:?} was not killed");
        hold!(7, self.now >= seen.unreaped_due, "{worker:?} is given up too early");
        let late = self.now.since(seen.unreaped_due);
        hold!(20, late <= REAP_GRACE / 4, "{worker:?} is given up by a look {late:?} late");
        seen.is_unreaped = true;
        let is_fault = seen.told.is_some_and(|told| told.reason.is_fault());
        let is_held = !std::mem::replace(&mut seen.is_detached, true);
        let seen = seen.clone();
        if is_held && is_fault && self.is_ended_for_good(&seen) {
            let life = seen.ready_at.map(|at| self.now.since(at));
            self.on_death(seen.slot, seen.generation, life);
        }
        Ok(())
    }

    /// I9: a slot's record is cleared by a worker that has lived long enough, and by nothing else.
    fn on_recovered(&mut self, slot: Slot) -> Verdict {
        let record = self.slots.entry(slot).or_default();
        let mut lives = self.workers.values().filter(|seen| seen.slot == slot && seen.is_at_work());
        let is_steady = lives.any(|seen| {
            let enough = record.steady_after(&seen.policy);
            let enough = enough.min(record.steady_after(&self.policy));
            seen.ready_at.is_some_and(|ready_at| self.now.since(ready_at) >= enough)
        });
        hold!(9, is_steady, "{slot:?} recovered, and nobody in it lives so long");
        record.on_recovery();
        Ok(())
    }

    /// I7: honest, and with nobody left who was not named.
    fn on_leaving(&mut self, outcome: Outcome) -> Verdict {
        let Some(Stop { cause, is_told: true, .. }) = self.stop else {
            return Err(Violation::new(7, "it leaves, and nobody said so"));
        };
        let left = self.living();
        hold!(7, left == 0, "it leaves, and {left} workers live");
        let strays = self.begin_last_part(outcome)?;
        let unreaped = u32::try_from(self.workers.len()).unwrap_or(u32::MAX) + strays;
        let is_unreaped = cause == Outcome::Stopped && unreaped > 0;
        let honest = if is_unreaped { Outcome::Unreaped { processes: unreaped } } else { cause };
        hold!(7, outcome == honest, "it leaves with {outcome:?} and should with {honest:?}");
        Ok(())
    }

    /// I7: once, last, and as it was told.
    pub(super) fn on_exit(&mut self, outcome: Outcome, is_last: bool) -> Verdict {
        hold!(7, is_last && self.exit.is_none(), "Exit is not the last action");
        let told = self.check_left()?;
        hold!(7, outcome == told, "Exit says {outcome:?}, and {told:?} was told");
        self.check_successor_left(outcome)?;
        self.exit = Some(outcome);
        Ok(())
    }
}

fn is_everybodys(reason: StopReason) -> bool {
    matches!(reason, StopReason::Shutdown | StopReason::Drain)
}
