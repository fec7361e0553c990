//! How a master ends: what begins a stop, and the order in which everything below it goes.
//!
//! An order lets `drain_delay` pass first: workers serve, whoever sends them clients learns that they will
//! not for long, and nobody new comes.
//!
//! Then workers, within their grace; then what they left behind, when nobody can leave more; then the
//! helpers that were needed so long, the warden among them, so that a master which is killed on the way
//! is still survived by somebody who cleans up; and at the very end those who write down what all others
//! had to say. Each part has its limit, and all of them together have one (I7).

use alloc::vec::Vec;
use core::time::Duration;

use super::action::{Action, Notice, StopReason};
use super::event::{ExitStatus, Slot};
use super::helpers::HelperEnd;
use super::outcome::Outcome;
use super::policy::{CLOSING_GRACE, ExitWith, REAP_GRACE, is_too_late};
use super::time::Time;
use super::worker::State;
use super::{Arbiter, Phase};

/// A stop: a wish (`wanted`), how far it was carried out (`done`), and how far everything has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    wanted: Pace,
    done: Option<Pace>,
    /// When the workers are told, after a delay.
    leave_at: Time,
    /// An operator said so; else the master stops of itself, and no operator has spoken yet.
    is_ordered: bool,
    outcome: Outcome,
    closing: Closing,
    /// When the master leaves, whatever is left, on the master's waking time: what it oversleeps
    /// was nobody's time to end. Known once the stop is carried out.
    end_by: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pace {
    /// All go on with what they do, for a while.
    Delayed,
    Graceful,
    AtOnce,
}

/// Who is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    Workers,
    /// What workers left behind, as far as it has been counted.
    Strays {
        left: Option<u32>,
        until: Time,
    },
    /// The helpers that end after the workers; so many strays are left for good.
    Helpers {
        strays: u32,
        /// On the master's waking time, as `end_by`.
        until: Time,
    },
    /// The helpers that end last. What comes of the stop is told already.
    Last {
        outcome: Outcome,
    },
}

impl Stop {
    /// When the next part begins although the one before is not over; `asleep` is for how long the
    /// master has overslept in all.
    pub(super) fn deadline(&self, asleep: Duration) -> Option<Time> {
        match self.closing {
            Closing::Workers if self.wanted == Pace::Delayed => Some(self.leave_at),
            Closing::Workers => None,
            Closing::Strays { until, .. } => Some(until),
            Closing::Helpers { until, .. } => Some(until.min(self.end_by).after(asleep)),
            Closing::Last { .. } => Some(self.end_by.after(asleep)),
        }
    }
}

impl Arbiter {
    /// A first stop is graceful, a second one only shortens (I8).
    pub(super) fn on_stop(&mut self) {
        match &mut self.phase {
            Phase::New | Phase::Running => self.begin_stop(true, Outcome::Stopped),
            Phase::Stopping(stop) if stop.is_ordered => stop.wanted = Pace::AtOnce,
            Phase::Stopping(stop) => stop.is_ordered = true,
            Phase::Exited => {}
        }
    }

    fn begin_stop(&mut self, is_ordered: bool, outcome: Outcome) {
        let delay = if is_ordered { self.policy.drain_delay } else { Duration::ZERO };
        self.phase = Phase::Stopping(Stop {
            wanted: if delay.is_zero() { Pace::Graceful } else { Pace::Delayed },
            done: None,
            leave_at: self.now.after(delay),
            is_ordered,
            outcome,
            closing: Closing::Workers,
            end_by: self.now,
        });
    }

    /// Whether another master goes on with the listeners of this one.
    pub(super) fn is_succeeded(&self) -> bool {
        match self.phase {
            Phase::Stopping(stop) => stop.outcome == Outcome::Upgraded,
            Phase::New | Phase::Running | Phase::Exited => false,
        }
    }

    /// The master ends of itself, gracefully.
    pub(super) fn end(&mut self, outcome: Outcome) {
        if !self.is_stopping() {
            self.begin_stop(false, outcome);
        }
    }

    /// Before any worker was ready, the end of this one is the master's.
    pub(super) fn fail_first_boot(&mut self, outcome: Outcome) {
        if !self.proven && !self.is_stopping() {
            self.begin_stop(false, outcome);
        }
    }

    /// A worker ended that had its slot, and nobody had told it to: perhaps the service ends with
    /// it.
    pub(super) fn on_own_end(&mut self, slot: Slot, status: ExitStatus, actions: &mut Vec<Action>) {
        let Some(exit_with) = self.policy.exit_with.filter(|_| !self.is_stopping()) else { return };
        let code = status.shell_code();
        let verdict = match exit_with {
            ExitWith::Any => Some(code),
            ExitWith::First => (slot == Slot(0)).then_some(code),
            ExitWith::All if self.roster.place(slot).is_some_and(|it| it.current.is_some()) => None,
            ExitWith::All => {
                self.finished.insert(slot);
                self.forget_replacement(slot);
                self.forget_slot(slot);
                if self.finished_code == 0 {
                    self.finished_code = code;
                }
                self.all_finished()
            }
        };
        self.end_with_workers(verdict, actions);
    }

    /// With [`ExitWith::All`]: the code, if every slot has finished.
    pub(super) fn all_finished(&mut self) -> Option<u8> {
        let _beyond = self.finished.split_off(&Slot(self.target));
        (self.finished.len() == self.target as usize).then_some(self.finished_code)
    }

    pub(super) fn end_with_workers(&mut self, code: Option<u8>, actions: &mut Vec<Action>) {
        if let Some(code) = code {
            actions.push(Action::Notify(Notice::EndsWithWorkers { code }));
            self.begin_stop(false, Outcome::WorkersEnded { code });
        }
    }

    /// Whatever is not a worker and has not ended.
    pub(super) fn on_strays_counted(&mut self, now_left: u32) {
        if let Phase::Stopping(Stop { closing: Closing::Strays { left, .. }, .. }) = &mut self.phase
        {
            *left = Some(now_left);
        }
    }

    /// Carries out what is wanted of a stop, and leaves when everything has ended.
    pub(super) fn advance_stop(&mut self, mut stop: Stop, actions: &mut Vec<Action>) {
        let counts = self.roster.counts();
        let is_any_left = counts.live() > counts.unreaped;
        if stop.wanted == Pace::Delayed && (stop.leave_at <= self.now || !is_any_left) {
            (stop.wanted, stop.leave_at) = (Pace::Graceful, self.now);
        }
        if stop.done < Some(stop.wanted) {
            let former = stop.done.replace(stop.wanted);
            let delay = stop.leave_at.since(self.now);
            let grace = match stop.wanted {
                Pace::Delayed => self.longest_grace().saturating_add(delay),
                Pace::Graceful => self.longest_grace(),
                Pace::AtOnce => Duration::ZERO,
            };
            let end_by = self.now.before(self.asleep).after(grace).after(REAP_GRACE);
            let is_shortened = stop.wanted == Pace::AtOnce && former.is_some();
            stop.end_by = if is_shortened { stop.end_by.min(end_by) } else { end_by };
            self.begin_pace(stop.wanted, former, delay, actions);
        }
        self.close(&mut stop, actions);
        self.helpers.expire(self.now, actions);
        self.close_helpers(&mut stop, actions);
        self.phase = Phase::Stopping(stop);
        self.leave_if_done(stop, actions);
    }

    /// Each worker has the time it was started with; and whatever else is left at the end, that of
    /// the policy.
    fn longest_grace(&self) -> Duration {
        let of_workers = self.roster.workers().map(|(_, record)| record.grace);
        of_workers.max().unwrap_or_default().max(self.policy.graceful_timeout)
    }

    /// Says what comes now, and ends all that is no stop. In a delay the workers that serve hear nothing
    /// of it.
    fn begin_pace(
        &mut self,
        pace: Pace,
        former: Option<Pace>,
        delay: Duration,
        actions: &mut Vec<Action>,
    ) {
        self.dirty.clear();
        self.crowded.clear();
        self.recycling.clear();
        self.vacating.clear();
        self.recycle_queue.clear();
        self.end_reload(actions);
        self.end_upgrade(pace == Pace::AtOnce, actions);
        self.boot = None;
        let workers = self.roster.counts().live();
        actions.push(Action::Notify(match (pace, former) {
            (Pace::Graceful, Some(_)) => Notice::DelayOver { workers },
            (Pace::Delayed | Pace::Graceful, _) => Notice::Stopping { workers, delay },
            (Pace::AtOnce, _) => Notice::Quitting { workers },
        }));
        let grace = match pace {
            Pace::Delayed => None,
            Pace::Graceful => Some(CLOSING_GRACE),
            Pace::AtOnce => Some(Duration::ZERO),
        };
        if let Some(grace) = grace {
            self.helpers.stop(HelperEnd::WithWorkers, self.now.after(grace), actions);
        }
        let mut last = None;
        while let Some(worker) = self.roster.next_worker(last) {
            last = Some(worker);
            let Some(record) = self.roster.worker(worker) else { continue };
            let reason = record.state.reason().unwrap_or(StopReason::Shutdown);
            match (pace, record.state) {
                // Nobody new comes in a delay, nor whoever was about to.
                (Pace::Delayed, State::Booting { .. }) | (Pace::Graceful, _) => {
                    self.stop(worker, StopReason::Shutdown, actions);
                }
                (Pace::Delayed, _) => {}
                (Pace::AtOnce, State::Killed { .. }) => {}
                (
                    Pace::AtOnce,
                    State::Booting { .. } | State::Ready(_) | State::Stopping { .. },
                ) => self.kill(worker, reason, actions),
            }
        }
    }

    /// Goes on to the next part of the end where the one before is over, or its time is.
    fn close(&mut self, stop: &mut Stop, actions: &mut Vec<Action>) {
        let counts = self.roster.counts();
        let end_by = stop.end_by.after(self.asleep).max(self.now);
        let have_ended = counts.live() == counts.unreaped && !self.awaits_successor();
        if stop.closing == Closing::Workers && have_ended {
            let until = self.now.after(CLOSING_GRACE).min(end_by);
            stop.closing = Closing::Strays { left: None, until };
            actions.push(Action::EndStrays);
        }
        let Closing::Strays { left: Some(left), until } = stop.closing else { return };
        let late = self.now.since(until);
        if left > 0 && is_too_late(late, CLOSING_GRACE) {
            // They may have ended unseen, as a worker may have.
            let until = self.now.after(CLOSING_GRACE);
            stop.closing = Closing::Strays { left: Some(left), until };
            self.tell_late_wake(late, actions);
        } else if left == 0 || self.now >= until {
            if left > 0 {
                actions.push(Action::Notify(Notice::StraysLeft { left }));
            }
            // Whoever is killed for its slowness is not waited for longer than a worker would be.
            let kill_at = self.now.after(CLOSING_GRACE).min(end_by);
            let until = kill_at.after(REAP_GRACE).before(self.asleep);
            stop.closing = Closing::Helpers { strays: left, until };
            self.helpers.stop(HelperEnd::AfterWorkers, kill_at, actions);
        }
    }

    /// Once the helpers that end after the workers have ended, or had their time, it is known what
    /// comes of the stop, and those that end last can be told. Whatever the others took, these have
    /// time to write that down.
    fn close_helpers(&mut self, stop: &mut Stop, actions: &mut Vec<Action>) {
        let Closing::Helpers { strays, .. } = stop.closing else { return };
        if !self.helpers.have_ended(|ends| ends <= HelperEnd::AfterWorkers) {
            if stop.deadline(self.asleep).is_some_and(|at| self.now < at) {
                return;
            }
            self.helpers.kill_all(HelperEnd::AfterWorkers, actions);
        }
        let processes = self.roster.counts().unreaped.saturating_add(strays);
        let outcome = match stop.outcome {
            Outcome::Stopped if processes > 0 => Outcome::Unreaped { processes },
            Outcome::Stopped
            | Outcome::Unreaped { .. }
            | Outcome::Unwritten
            | Outcome::WorkersEnded { .. }
            | Outcome::BootFailed { .. }
            | Outcome::NotExecutable
            | Outcome::NotFound
            | Outcome::CrashLoop
            | Outcome::NotBooted
            | Outcome::Upgraded => stop.outcome,
        };
        actions.push(Action::Notify(Notice::Leaving { outcome }));
        stop.closing = Closing::Last { outcome };
        let end_by = stop.end_by.after(self.asleep).max(self.now.after(CLOSING_GRACE));
        stop.end_by = end_by.before(self.asleep);
        self.helpers.stop(HelperEnd::Last, end_by, actions);
    }

    /// Leaves once nobody is left but those the kernel does not let go (I7).
    fn leave_if_done(&mut self, stop: Stop, actions: &mut Vec<Action>) {
        let Closing::Last { outcome } = stop.closing else { return };
        if !self.helpers.have_ended(|ends| ends == HelperEnd::Last) {
            if self.now < stop.end_by.after(self.asleep) {
                return;
            }
            self.helpers.kill_all(HelperEnd::Last, actions);
        }
        let outcome = match outcome {
            Outcome::Stopped if !self.helpers.have_done_the_last() => Outcome::Unwritten,
            Outcome::Stopped
            | Outcome::Unreaped { .. }
            | Outcome::Unwritten
            | Outcome::WorkersEnded { .. }
            | Outcome::BootFailed { .. }
            | Outcome::NotExecutable
            | Outcome::NotFound
            | Outcome::CrashLoop
            | Outcome::NotBooted
            | Outcome::Upgraded => outcome,
        };
        self.phase = Phase::Exited;
        actions.push(Action::Exit(outcome));
    }
}
