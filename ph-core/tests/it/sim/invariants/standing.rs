//! What must hold at the end of every step: the time a stop takes, the workers and their timers, and
//! the slots that could have a worker (I1, I3, I7, I8, I11, I13).

use super::{Observer, Outcome, REAP_GRACE, Seen, Slot, Time, Verdict, Violation, hold};

impl Observer {
    /// Workers that somebody waits for.
    pub(super) fn living(&self) -> usize {
        self.workers.values().filter(|seen| !seen.is_unreaped).count()
    }

    /// Whether there are workers who are not to hear yet of a stop.
    pub(super) fn is_delayed(&self) -> bool {
        self.stop.is_some_and(|stop| self.now < stop.leave_at) && self.living() > 0
    }

    /// Whether they have heard.
    pub(super) fn is_leaving(&self) -> bool {
        self.stop.is_some() && (self.quit.is_some() || !self.is_delayed())
    }

    /// I7 and I13: once the delay is over, everybody is told.
    fn check_delay(&self, deadline: Time) -> Verdict {
        let Some(stop) = self.stop.filter(|_| self.quit.is_none()) else { return Ok(()) };
        let is_untold = self.workers.values().any(Seen::is_wanted);
        hold!(7, !is_untold || self.is_delayed(), "the delay is over, and not all are told");
        let is_woken = !is_untold || deadline <= stop.leave_at;
        hold!(13, is_woken, "the delay ends {:?}, the wake {deadline:?}", stop.leave_at);
        Ok(())
    }

    /// I7 and I8: how long a stop may take, and what the second one does. A closing has no time of its
    /// own: it is over when the last worker must have been reaped, had it been killed for its slowness,
    /// and where that took all of the time, nothing is waited for any more.
    pub(super) fn check_stop(&self) -> Verdict {
        let Some(stop) = self.stop else { return Ok(()) };
        let is_order = stop.cause == Outcome::Stopped;
        hold!(14, stop.is_told || !is_order, "a stop order had no effect");
        hold!(10, stop.is_told, "the master serves on after {:?}", stop.cause);
        let took = self.now.since(stop.at);
        let reaping = REAP_GRACE + self.closing.writing_grace();
        let most = stop.grace + reaping + stop.slack;
        hold!(7, took <= most, "no Exit {took:?} after the stop order, {:?} slack", stop.slack);
        if let Some((at, slack)) = self.quit {
            let spared = self.workers.values().any(|seen| seen.killed_at.is_none());
            hold!(8, !spared, "a second stop kills at once");
            let took = self.now.since(at);
            hold!(8, took <= reaping + slack, "no Exit {took:?} after the second stop");
        }
        Ok(())
    }

    /// I1, I3 and I13, worker by worker.
    pub(super) fn check_workers(&mut self, next_deadline: Option<Time>) -> Verdict {
        let deadline = next_deadline.unwrap_or(Time::from_nanos(u64::MAX));
        self.check_delay(deadline)?;
        let asked = self.workers.values().filter(|seen| self.is_to_go(seen)).count();
        let asked = u32::try_from(asked).unwrap_or(u32::MAX);
        let mut wanted = 0;
        let is_stopping = self.stop.is_some();
        // At the end of the step, because what was due came before the slot was emptied.
        self.detach_unwanted();
        for (worker, seen) in &mut self.workers {
            let latest = match (seen.told, seen.killed_at) {
                (Some(told), None) => {
                    let in_time = self.now < told.kill_at || deadline <= self.now;
                    hold!(3, in_time, "{worker:?} is overdue for its SIGKILL");
                    Some(told.kill_at)
                }
                (_, Some(_)) if !seen.is_unreaped => {
                    if self.now.since(seen.unreaped_due) > REAP_GRACE / 4 {
                        seen.unreaped_due = self.now.after(REAP_GRACE);
                    }
                    Some(seen.unreaped_due)
                }
                (_, Some(_)) => None,
                (None, None) if seen.ready_at.is_some() => {
                    seen.policy.timeout.map(|timeout| self.now.after(timeout))
                }
                // It proves itself; that this ends is for I12 to see.
                (None, None) if seen.said_ready_at.is_some() => None,
                (None, None) => seen.policy.boot_timeout.map(|timeout| self.now.after(timeout)),
            };
            let latest = latest.unwrap_or(Time::from_nanos(u64::MAX));
            hold!(13, deadline <= latest, "{worker:?} is due {latest:?}, the wake {deadline:?}");
            wanted += u32::from(seen.is_wanted());
            let is_replaced = seen.is_at_work() && !seen.recycle_asked && !is_stopping;
            let told_at = seen.expires_at().filter(|_| is_replaced);
            hold!(
                13,
                told_at.is_none_or(|at| deadline <= at),
                "{worker:?} grows old at {told_at:?}"
            );
            let proven_at =
                seen.proven_at().filter(|_| seen.is_at_work() && !seen.is_proven && !is_stopping);
            hold!(13, proven_at.is_none_or(|at| deadline <= at), "{worker:?}: {proven_at:?}");
        }
        let surge = self.policy.reload_surge.of(self.target).min(asked);
        let most = self.target.saturating_add(surge);
        // Who is too many when a stop comes serves on in its delay, as all do.
        hold!(
            1,
            is_stopping || wanted <= most,
            "{wanted} workers are wanted, {} and {surge} may be",
            self.target
        );
        let (live, unreaped) = self.processes();
        let max = self.policy.max_workers.max(1) as usize;
        hold!(
            1,
            live - unreaped <= 2 * max,
            "{live} processes, {unreaped} unreaped, {max} workers"
        );
        hold!(1, live <= 3 * max, "{live} processes for {max} workers");
        Ok(())
    }

    /// Whether a worker still waits for the successor it asked for.
    pub(in super::super) fn is_replacing(&self) -> bool {
        !self.is_settled() || self.workers.values().any(|seen| self.is_to_go(seen))
    }

    /// All there are, and how many of them were given up.
    fn processes(&self) -> (usize, usize) {
        let unreaped = self.workers.values().filter(|seen| seen.is_unreaped).count();
        (self.workers.len(), unreaped)
    }

    /// I11 and I13, slot by slot: a slot whose wait is over, and that could have a worker, has one.
    pub(super) fn check_slots(&self, next_deadline: Option<Time>) -> Verdict {
        let (live, unreaped) = self.processes();
        let max = self.policy.max_workers.max(1) as usize;
        let is_full = live - unreaped >= 2 * max || live >= 3 * max;
        let goes_on = next_deadline.is_some_and(|at| at <= self.now);
        if !self.is_started || self.stop.is_some() || is_full || goes_on {
            return Ok(());
        }
        let mut held = vec![false; self.target as usize];
        for seen in self.workers.values().filter(|seen| !seen.is_detached) {
            if let Some(held) = held.get_mut(seen.slot.0 as usize) {
                *held = true;
            }
        }
        let deadline = next_deadline.unwrap_or(Time::from_nanos(u64::MAX));
        for (slot, held) in (0..).map(Slot).zip(held) {
            let latest = self.slots.get(&slot).map_or(Time::ZERO, |record| record.latest);
            let held = held || !self.is_slot_wanted(slot);
            hold!(11, held || latest > self.now, "{slot:?} could have a worker and has none");
            hold!(13, held || deadline <= latest, "{slot:?} waits until {latest:?} at most");
        }
        Ok(())
    }
}
