//! The observer: knows only the events and the actions, never the arbiter's private state, and checks
//! after every step what must always hold (I1–I24, ARCHITECTURE.md).
//!
//! I12 and I25 need a whole life and are checked by the driver of the simulation; I13, I23 and the
//! effect of strays need a copy of the arbiter and are checked in `copies`. I15, I16, I18 and I19 are
//! about reloads and upgrades, which do not exist yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ph_core::arbiter::{
    Action, CLOSING_GRACE, Event, ExitStatus, HelperRole, LATE_TOLERANCE, Notice, Order, Outcome,
    Policy, REAP_GRACE, SPAWN_BATCH, Slot, SpawnFault, StopReason, Time, WorkerId, WorkerKind,
    WorkerSignal,
};

use super::ledger::{Seen, SlotRecord, Told};
use closing::Closing;

mod closing;
mod deeds;
mod service;

/// What did not hold.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    /// The number of the invariant, as in ARCHITECTURE.md.
    pub(super) invariant: u8,
    what: String,
}

impl Violation {
    pub(super) fn new(invariant: u8, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "I{}: {}", self.invariant, self.what)
    }
}

pub(super) type Verdict = Result<(), Violation>;

/// Fails with an invariant's number unless the condition holds.
macro_rules! hold {
    ($invariant:literal, $condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(Violation::new($invariant, format!($($what)+)));
        }
    };
}
pub(super) use hold;

/// A stop that began.
#[derive(Clone, Copy, Debug)]
struct Stop {
    at: Time,
    cause: Outcome,
    /// How much of the time since was overslept.
    slack: Duration,
    is_told: bool,
    /// An operator said so, at first or later; only what is said after that is a second stop.
    is_ordered: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Observer {
    policy: Policy,
    workers: BTreeMap<WorkerId, Seen>,
    slots: BTreeMap<Slot, SlotRecord>,
    pub(super) target: u32,
    newest: WorkerId,
    is_started: bool,
    /// A worker was ready once.
    is_proven: bool,
    stop: Option<Stop>,
    quit: Option<(Time, Duration)>,
    pub(super) exit: Option<Outcome>,
    now: Time,
    /// How much too late this turn began.
    late: Duration,
    /// With a surge of zero: the slot that is without a worker for the sake of recycling.
    vacant_for_recycling: Option<Slot>,
    /// Whose end this step must tell, and whose stop or kill it has just announced.
    ended: Option<WorkerId>,
    announced: Option<WorkerId>,
    closing: Closing,
    /// With `ExitWith::All`: the slots that get no worker any more, and the code that counts.
    finished: BTreeSet<Slot>,
    finished_code: u8,
}

impl Observer {
    pub(super) fn new(policy: &Policy, helpers: &[HelperRole]) -> Self {
        Self {
            target: policy.target.clamp(1, policy.max_workers.max(1)),
            policy: policy.clone(),
            workers: BTreeMap::new(),
            slots: BTreeMap::new(),
            newest: WorkerId(0),
            is_started: false,
            is_proven: false,
            stop: None,
            quit: None,
            exit: None,
            now: Time::ZERO,
            late: Duration::ZERO,
            vacant_for_recycling: None,
            ended: None,
            announced: None,
            closing: Closing::new(helpers),
            finished: BTreeSet::new(),
            finished_code: 0,
        }
    }

    /// A turn of the driver begins; the arbiter had asked to be woken at `promised`.
    pub(super) fn begin_turn(&mut self, now: Time, promised: Option<Time>) {
        let wanted = promised.map_or(now, |at| at.max(self.now));
        self.late = now.since(wanted);
        self.closing.on_late_turn(self.late);
        // Who oversleeps the reaping of a killed worker, or of strays, gives them one more period.
        let fresh = match self.late {
            late if late > REAP_GRACE / 4 => REAP_GRACE,
            late if late > CLOSING_GRACE / 4 => CLOSING_GRACE,
            _ => Duration::ZERO,
        };
        if let Some(stop) = &mut self.stop {
            stop.slack += self.late + fresh;
        }
        if let Some((_, slack)) = &mut self.quit {
            *slack += self.late + fresh;
        }
        if self.late > LATE_TOLERANCE && self.policy.timeout.is_some() {
            for seen in self.workers.values_mut() {
                seen.on_late_turn(now, self.late);
            }
        }
    }

    /// Judges one step.
    pub(super) fn observe(
        &mut self,
        now: Time,
        event: Event,
        actions: &[Action],
        next_deadline: Option<Time>,
        target: u32,
    ) -> Verdict {
        hold!(7, self.exit.is_none() || actions.is_empty(), "after Exit came {actions:?}");
        if self.exit.is_some() {
            return Ok(());
        }
        self.now = self.now.max(now);
        let most = 4 * (self.workers.len() + SPAWN_BATCH) + 16;
        hold!(24, actions.len() <= most, "{} actions in one step", actions.len());
        self.ended = None;
        self.announced = None;
        self.on_event(event, actions)?;
        let is_order = matches!(event, Event::Ordered(_));
        hold!(14, !is_order || target == self.target, "{event:?} gave a target of {target}");
        hold!(10, target == self.target, "the target became {target} by {event:?}");
        for (index, action) in actions.iter().enumerate() {
            let is_last = index + 1 == actions.len();
            self.on_action(*action, is_last)?;
        }
        hold!(5, self.ended.is_none(), "the end of {:?} was not told", self.ended);
        self.check_ends_told()?;
        if self.exit.is_some() {
            return Ok(());
        }
        self.check_stop()?;
        self.check_closing(next_deadline)?;
        self.check_workers(next_deadline)?;
        self.check_slots(next_deadline)
    }

    fn on_event(&mut self, event: Event, actions: &[Action]) -> Verdict {
        match event {
            Event::Started => self.is_started = true,
            Event::Ordered(order) => self.on_order(order, actions)?,
            Event::Ready { worker, .. } => {
                if let Some(seen) = self.workers.get_mut(&worker) {
                    let is_first = seen.is_wanted() && seen.said_ready_at.is_none();
                    seen.said_ready_at = if is_first { Some(self.now) } else { seen.said_ready_at };
                }
            }
            Event::Heartbeat { worker, beat } => {
                if let Some(seen) = self.workers.get_mut(&worker) {
                    seen.on_beat(beat.min(self.now));
                }
            }
            Event::RecycleDue { worker } => {
                if let Some(seen) = self.workers.get_mut(&worker) {
                    seen.recycle_asked = true;
                }
            }
            Event::SpawnFailed { worker, fault, .. } => {
                let verdict = match fault {
                    SpawnFault::NotFound => Some(Outcome::NotFound),
                    SpawnFault::NotExecutable => Some(Outcome::NotExecutable),
                    SpawnFault::Passing => None,
                };
                if let Some(seen) = self.workers.remove(&worker) {
                    self.on_end(worker, &seen, None);
                    self.on_verdict(verdict);
                }
            }
            Event::Exited { worker, status, .. } => {
                let verdict = match (status, self.policy.kind) {
                    (ExitStatus::Code(code @ 3..=4), WorkerKind::Forked) => {
                        Some(Outcome::BootFailed { code })
                    }
                    _ => None,
                };
                if let Some(seen) = self.workers.remove(&worker) {
                    let life = seen.ready_at.map(|at| self.now.since(at));
                    self.on_end(worker, &seen, life);
                    self.on_verdict(verdict.filter(|_| seen.is_wanted()));
                    self.on_own_end(&seen, status);
                }
            }
            Event::HelperEnded { helper, status, .. } => self.on_helper_ended(helper, status),
            Event::MemoryRead { .. } | Event::Loaded { .. } | Event::LoadFailed { .. } => {}
            Event::StraysCounted { left } => self.on_strays_counted(left),
            Event::Watched { .. } | Event::Tick => {}
        }
        Ok(())
    }

    /// A fact that ends the master if no worker was ready yet (I10).
    fn on_verdict(&mut self, verdict: Option<Outcome>) {
        if let Some(cause) = verdict.filter(|_| !self.is_proven && self.stop.is_none()) {
            self.begin_stop(cause);
        }
    }

    fn begin_stop(&mut self, cause: Outcome) {
        let is_ordered = cause == Outcome::Stopped;
        let (at, slack) = (self.now, Duration::ZERO);
        self.stop = Some(Stop { at, cause, slack, is_told: false, is_ordered });
        self.closing.on_stop(at, self.policy.graceful_timeout);
    }

    fn on_end(&mut self, worker: WorkerId, seen: &Seen, ready_life: Option<Duration>) {
        self.ended = Some(worker);
        let is_death = seen.told.is_none_or(|told| told.reason.is_fault());
        if is_death && !seen.is_detached {
            self.on_death(seen.slot, ready_life);
        }
    }

    fn on_death(&mut self, slot: Slot, ready_life: Option<Duration>) {
        self.slots.entry(slot).or_default().on_death(self.now, ready_life, &self.policy);
    }

    fn on_order(&mut self, order: Order, actions: &[Action]) -> Verdict {
        match order {
            Order::Stop => match &mut self.stop {
                None => self.begin_stop(Outcome::Stopped),
                Some(stop) if !stop.is_ordered => stop.is_ordered = true,
                Some(_) => {
                    self.quit = self.quit.or(Some((self.now, Duration::ZERO)));
                    self.closing.on_stop(self.now, Duration::ZERO);
                }
            },
            Order::ScaleBy(by) => self.on_scale(i64::from(self.target) + i64::from(by), actions)?,
            Order::ScaleTo(to) => self.on_scale(i64::from(to), actions)?,
            Order::Reload | Order::Drain => {}
            Order::Reopen => {
                hold!(14, actions.contains(&Action::ReopenLog), "the log is not reopened");
                let signal = WorkerSignal::Reopen;
                for worker in self.workers.keys().copied() {
                    let is_told = actions.contains(&Action::Signal { worker, signal });
                    let wanted = self.policy.kind == WorkerKind::Forked;
                    hold!(14, is_told == wanted, "{worker:?} does not reopen its log");
                }
            }
        }
        Ok(())
    }

    fn on_scale(&mut self, wanted: i64, actions: &[Action]) -> Verdict {
        if self.stop.is_some() {
            return Ok(());
        }
        let limit = wanted.clamp(1, i64::from(self.policy.max_workers.max(1)));
        let to = u32::try_from(limit).unwrap_or(u32::MAX);
        let from = std::mem::replace(&mut self.target, to);
        let told = Action::Notify(Notice::Scaled { from, to });
        hold!(14, from == to || actions.contains(&told), "not told: {told:?}");
        self.vacant_for_recycling = self.vacant_for_recycling.filter(|slot| slot.0 < to);
        self.end_if_all_have();
        Ok(())
    }

    fn on_action(&mut self, action: Action, is_last: bool) -> Verdict {
        match action {
            Action::Spawn { worker, slot, .. } => self.on_spawn(worker, slot),
            Action::Signal { worker, signal } => self.on_signal(worker, signal),
            Action::ReadHeartbeat { worker } => self.on_look(worker),
            Action::SpawnHelper { .. }
            | Action::StopHelper { .. }
            | Action::KillHelper { .. }
            | Action::EndStrays => self.on_helper_action(action),
            Action::ReadMemory { .. }
            | Action::Load { .. }
            | Action::AbandonLoad
            | Action::ReopenLog => Ok(()),
            Action::Notify(notice) => self.on_notice(notice),
            Action::Exit(outcome) => self.on_exit(outcome, is_last),
        }
    }

    /// Workers that somebody waits for.
    fn living(&self) -> usize {
        self.workers.values().filter(|seen| !seen.is_unreaped).count()
    }

    /// I7 and I8: how long a stop may take, and what the second one does. A closing has no time of its
    /// own: it is over when the last worker must have been reaped, had it been killed for its slowness,
    /// and where that took all of the time, nothing is waited for any more.
    fn check_stop(&self) -> Verdict {
        let Some(stop) = self.stop else { return Ok(()) };
        let is_order = stop.cause == Outcome::Stopped;
        hold!(14, stop.is_told || !is_order, "a stop order had no effect");
        hold!(10, stop.is_told, "the master serves on after {:?}", stop.cause);
        let took = self.now.since(stop.at);
        let reaping = REAP_GRACE + self.closing.writing_grace();
        let most = self.policy.graceful_timeout + reaping + stop.slack;
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
    fn check_workers(&mut self, next_deadline: Option<Time>) -> Verdict {
        let deadline = next_deadline.unwrap_or(Time::from_nanos(u64::MAX));
        let (mut wanted, mut asked) = (0, 0);
        for (worker, seen) in &mut self.workers {
            // At the end of the step, because what was due came before the slot was emptied.
            seen.is_detached |= seen.slot.0 >= self.target;
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
                    self.policy.timeout.map(|timeout| self.now.after(timeout))
                }
                // It proves itself; that this ends is for I12 to see.
                (None, None) if seen.said_ready_at.is_some() => None,
                (None, None) => self.policy.boot_timeout.map(|timeout| self.now.after(timeout)),
            };
            let latest = latest.unwrap_or(Time::from_nanos(u64::MAX));
            hold!(13, deadline <= latest, "{worker:?} is due {latest:?}, the wake {deadline:?}");
            wanted += u32::from(seen.is_wanted());
            asked += u32::from(seen.is_at_work() && seen.recycle_asked);
        }
        let surge = self.policy.reload_surge.of(self.target).min(asked);
        let most = self.target.saturating_add(surge);
        hold!(1, wanted <= most, "{wanted} workers are wanted, {} and {surge} may be", self.target);
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
    pub(super) fn is_replacing(&self) -> bool {
        self.workers.values().any(|seen| seen.is_at_work() && seen.recycle_asked)
    }

    /// All there are, and how many of them were given up.
    fn processes(&self) -> (usize, usize) {
        let unreaped = self.workers.values().filter(|seen| seen.is_unreaped).count();
        (self.workers.len(), unreaped)
    }

    /// I11 and I13, slot by slot: a slot whose wait is over, and that could have a worker, has one.
    fn check_slots(&self, next_deadline: Option<Time>) -> Verdict {
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
            let held = held || self.finished.contains(&slot);
            hold!(11, held || latest > self.now, "{slot:?} could have a worker and has none");
            hold!(13, held || deadline <= latest, "{slot:?} waits until {latest:?} at most");
        }
        Ok(())
    }
}
