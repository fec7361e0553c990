//! The observer: knows only the events and the actions, never the arbiter's private state, and checks
//! after every step what must always hold (I1–I24, ARCHITECTURE.md).
//!
//! I12 and I25 need a whole life and are checked by the driver of the simulation; I13, I23 and the
//! effect of strays need a copy of the arbiter and are checked in `copies`, and so do I15 and a part of I19.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ph_core::arbiter::Readiness;
use ph_core::arbiter::{
    Action, CLOSING_GRACE, Event, ExitStatus, Generation, HelperRole, LATE_TOLERANCE, Notice,
    OnCrashLoop, Order, Outcome, Policy, REAP_GRACE, SPAWN_BATCH, Slot, SpawnFault, StopReason,
    Time, WorkerId, WorkerKind, WorkerSignal,
};
use reloads::{Answer, Reloads};
use upgrades::Upgrades;

use super::ledger::{Seen, SlotRecord, Told};
use closing::Closing;

mod closing;
mod deeds;
mod reloads;
mod replacing;
mod service;
mod standing;
mod upgrades;
mod verdicts;

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
    /// The longest time any worker has.
    grace: Duration,
    /// How much of the time since was overslept.
    slack: Duration,
    is_told: bool,
    /// When the workers are told; not before.
    leave_at: Time,
    /// An operator said so, at first or later; only what is said after that is a second stop.
    is_ordered: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Observer {
    /// Of the newest good configuration.
    pub(super) policy: Policy,
    reloads: Reloads,
    upgrades: Upgrades,
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
    /// The latest there was; a step may seem to go back.
    pub(super) now: Time,
    /// How much too late this turn began.
    late: Duration,
    /// Slots that are without a worker so that it can be replaced.
    vacant: BTreeSet<Slot>,
    /// In this step, a worker failed before it had lived long enough for the verdict of a reload.
    failed: Option<WorkerId>,
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
            policy: *policy,
            reloads: Reloads::new(),
            upgrades: Upgrades::default(),
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
            vacant: BTreeSet::new(),
            failed: None,
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
        if self.late > LATE_TOLERANCE {
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
        self.failed = None;
        self.reloads.begin_step(actions);
        self.on_event(event, actions)?;
        if !actions.iter().any(reloads::moves_target) {
            self.check_target(event, target)?;
        }
        for (index, action) in actions.iter().enumerate() {
            let is_last = index + 1 == actions.len();
            self.on_action(*action, is_last)?;
        }
        self.check_target(event, target)?;
        hold!(5, self.ended.is_none(), "the end of {:?} was not told", self.ended);
        self.check_ends_told()?;
        if self.exit.is_some() {
            return Ok(());
        }
        self.check_stop()?;
        self.check_closing(next_deadline)?;
        self.check_reload(next_deadline)?;
        self.check_upgrade(next_deadline)?;
        self.check_recycling()?;
        self.check_workers(next_deadline)?;
        self.check_slots(next_deadline)
    }

    /// The target is what the operator says, or else the newest good configuration.
    fn check_target(&self, event: Event, target: u32) -> Verdict {
        let is_order = matches!(event, Event::Ordered(_));
        hold!(14, !is_order || target == self.target, "{event:?} gave a target of {target}");
        hold!(10, target == self.target, "the target became {target} by {event:?}");
        Ok(())
    }

    fn on_event(&mut self, event: Event, actions: &[Action]) -> Verdict {
        match event {
            Event::Started => self.is_started = true,
            Event::Ordered(order) => self.on_order(order, actions)?,
            Event::Probed { worker, is_ready: true } => {
                if let Some(seen) = self.workers.get_mut(&worker)
                    && seen.is_wanted()
                    && seen.is_probed
                {
                    seen.is_probed = false;
                    seen.said_ready_at = seen.said_ready_at.or(Some(self.now));
                }
            }
            Event::Probed { worker, .. } => {
                if let Some(seen) = self.workers.get_mut(&worker) {
                    seen.is_probed = false;
                }
            }
            Event::Ready { worker, jitter } => {
                if let Some(seen) = self.workers.get_mut(&worker)
                    && seen.policy.readiness == Readiness::Probed
                {
                    seen.jitter = if seen.is_executed { seen.jitter } else { jitter };
                    seen.is_executed = true;
                } else if let Some(seen) = self.workers.get_mut(&worker)
                    && seen.is_wanted()
                    && seen.said_ready_at.is_none()
                {
                    (seen.said_ready_at, seen.jitter) = (Some(self.now), jitter);
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
                    let counts = !self.is_reloads(&seen);
                    self.on_verdict(verdict.filter(|_| counts));
                    self.on_end(worker, &seen, None);
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
                    let counts = !self.is_reloads(&seen);
                    self.on_verdict(verdict.filter(|_| seen.is_wanted() && counts));
                    if counts {
                        self.on_own_end(&seen, status);
                    }
                    self.on_end(worker, &seen, life);
                }
            }
            Event::HelperEnded { helper, status, .. } => self.on_helper_ended(helper, status),
            Event::MemoryRead { worker, bytes } => self.on_weighed(worker, bytes),
            Event::Loaded { generation, policy } => {
                self.on_answer(generation, Answer::Good, policy);
            }
            Event::LoadFailed { generation } => {
                self.on_answer(generation, Answer::Bad, self.policy);
            }
            Event::LoadUnneeded { generation } => {
                self.on_answer(generation, Answer::Unneeded, self.policy);
            }
            Event::SuccessorReady | Event::TakenOver | Event::SuccessorEnded { .. } => {
                self.on_upgrade_event(event);
            }
            Event::PredecessorGone => {}
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
        let grace = self.longest_grace();
        let is_delayed = is_ordered && self.living() > 0;
        let delay = if is_delayed { self.policy.drain_delay } else { Duration::ZERO };
        let (grace, leave_at) = (grace + delay, at.after(delay));
        self.stop = Some(Stop { at, cause, grace, slack, is_told: false, leave_at, is_ordered });
        self.closing.on_stop(at, grace);
    }

    fn longest_grace(&self) -> Duration {
        let of_workers = self.workers.values().map(|seen| seen.policy.graceful_timeout);
        of_workers.max().unwrap_or_default().max(self.policy.graceful_timeout)
    }

    /// Whether an end is the affair of a reload, and not of the service: of a worker on trial, or of one
    /// whose configuration has failed.
    fn is_reloads(&self, seen: &Seen) -> bool {
        let is_needed = seen.generation == self.reloads.current
            || self.reloads.roll().is_some_and(|roll| roll.is_from(seen.generation));
        self.is_on_trial(seen) || !is_needed
    }

    /// Whether it counts as a death of the slot: not of a worker whose generation that does not want.
    fn is_ended_for_good(&self, seen: &Seen) -> bool {
        seen.generation == self.reloads.goal(seen.slot) && !self.is_on_trial(seen)
    }

    fn on_end(&mut self, worker: WorkerId, seen: &Seen, ready_life: Option<Duration>) {
        self.ended = Some(worker);
        let is_death = seen.told.is_none_or(|told| told.reason.is_fault());
        if self.is_on_trial(seen) && self.stop.is_none() {
            self.failed = Some(worker);
        }
        if is_death && !seen.is_detached && self.is_ended_for_good(seen) {
            self.on_death(seen.slot, seen.generation, ready_life);
        }
    }

    fn on_death(&mut self, slot: Slot, generation: Generation, ready_life: Option<Duration>) {
        let policy = self.policy_of(generation);
        let record = self.slots.entry(slot).or_default();
        record.on_death(self.now, ready_life, &policy);
        let begins = record.begins_crash_loop();
        if begins && policy.on_crash_loop == OnCrashLoop::Exit && self.stop.is_none() {
            self.begin_stop(Outcome::CrashLoop);
        }
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
            Order::Reload if self.stop.is_none() => self.reloads.on_reload(),
            Order::Drain if self.stop.is_none() => self.reloads.on_drain(),
            Order::Upgrade => self.on_upgrade_order(),
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
        self.vacant.retain(|slot| slot.0 < to);
        self.on_scaled_by_hand();
        self.end_if_all_have();
        Ok(())
    }

    fn on_action(&mut self, action: Action, is_last: bool) -> Verdict {
        match action {
            Action::Spawn { worker, slot, generation } => self.on_spawn(worker, slot, generation),
            Action::Signal { worker, signal } => self.on_signal(worker, signal),
            Action::ReadHeartbeat { worker } => self.on_look(worker),
            Action::SpawnHelper { .. }
            | Action::StopHelper { .. }
            | Action::KillHelper { .. }
            | Action::EndStrays => self.on_helper_action(action),
            Action::ReadMemory { worker } => self.on_weighing(worker),
            Action::StartProbe { worker } => self.on_probe(worker, true),
            Action::EndProbe { worker } => self.on_probe(worker, false),
            Action::Load { generation } => self.on_load(generation),
            Action::AbandonLoad => self.on_abandon(),
            Action::SpawnSuccessor
            | Action::CommitUpgrade
            | Action::StopSuccessor
            | Action::KillSuccessor
            | Action::HandOver
            | Action::Forward(_) => self.on_upgrade_action(action),
            Action::ReopenLog => Ok(()),
            Action::Notify(notice) => self.on_notice(notice),
            Action::Exit(outcome) => self.on_exit(outcome, is_last),
        }
    }
}
