//! What the observer remembers: of each worker, what it saw; of each slot, the waits it owes.
//!
//! The rules of backoff are written here a second time, from their description in docs/lifecycle.md
//! and `Policy`, not from the arbiter's code. Jitter leaves a span between the earliest and the latest
//! time of the next spawn.

use std::time::Duration;

use ph_core::arbiter::{Generation, Jitter, Policy, Slot, StopReason, Time};

use super::invariants::Violation;

/// The least wait after a second bad death, so that no policy makes a master spin.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// Bad deaths in a row that make a crash loop.
const CRASH_LOOP_STRIKES: u32 = 5;

/// How a worker was told to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) reason: StopReason,
    /// When it may, and must, be killed.
    pub(super) kill_at: Time,
    pub(super) is_signalled: bool,
}

/// One worker, as far as it can be seen from outside.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    /// Of its generation.
    pub(super) policy: Policy,
    /// Its program runs, so it can be probed; and whether a probe of it runs.
    pub(super) is_executed: bool,
    pub(super) is_probed: bool,
    /// The `Ready` event came while it was booting; of one that is probed, the good answer.
    pub(super) said_ready_at: Option<Time>,
    pub(super) ready_at: Option<Time>,
    pub(super) jitter: Jitter,
    /// It is to be replaced by one like it.
    pub(super) recycle_asked: bool,
    /// Looks in a row that found it above `max_memory`.
    pub(super) heavy: u32,
    /// In a reload: how long it has to be ready for the verdict, and whether it has been.
    pub(super) hold: Option<Duration>,
    pub(super) is_proven: bool,
    pub(super) told: Option<Told>,
    pub(super) killed_at: Option<Time>,
    /// When it may be named as unreaped; later if the master overslept that.
    pub(super) unreaped_due: Time,
    pub(super) is_unreaped: bool,
    /// It does not hold its slot any more: its end is not the slot's affair.
    pub(super) is_detached: bool,
    /// The last beat it was granted, and the looks at it that found no newer one.
    beat: Time,
    looks: Vec<Time>,
    is_asked: bool,
    /// When the master came late since then, and by how much.
    overslept: Vec<(Time, Duration)>,
}

impl Seen {
    pub(super) fn new(slot: Slot, generation: Generation, policy: Policy) -> Self {
        Self {
            slot,
            generation,
            policy,
            jitter: Jitter::default(),
            heavy: 0,
            hold: None,
            is_proven: false,
            is_executed: false,
            is_probed: false,
            said_ready_at: None,
            ready_at: None,
            recycle_asked: false,
            told: None,
            killed_at: None,
            unreaped_due: Time::ZERO,
            is_unreaped: false,
            is_detached: false,
            beat: Time::ZERO,
            looks: Vec::new(),
            is_asked: false,
            overslept: Vec::new(),
        }
    }

    /// Not told to end.
    pub(super) fn is_wanted(&self) -> bool {
        self.told.is_none() && self.killed_at.is_none()
    }

    pub(super) fn is_at_work(&self) -> bool {
        self.ready_at.is_some() && self.is_wanted()
    }

    /// When it has lived long enough for the verdict of a reload.
    pub(super) fn proven_at(&self) -> Option<Time> {
        Some(self.ready_at?.after(self.hold?))
    }

    /// When it is so old that it is replaced.
    pub(super) fn expires_at(&self) -> Option<Time> {
        let part = f64::from(self.jitter.0) / f64::from(u32::MAX);
        let spread = self.policy.max_age_jitter.mul_f64(part);
        Some(self.ready_at?.after(self.policy.max_age?).after(spread))
    }

    pub(super) fn on_ready(&mut self, now: Time) {
        self.ready_at = Some(now);
        self.beat = now;
        self.overslept.clear();
    }

    pub(super) fn on_look(&mut self, now: Time) {
        self.looks.push(now);
        self.is_asked = true;
    }

    /// An answer nobody asked for proves nothing.
    pub(super) fn on_beat(&mut self, beat: Time) {
        if std::mem::take(&mut self.is_asked) && beat > self.beat {
            self.beat = beat;
            self.looks.retain(|at| *at > beat);
            self.overslept.retain(|(at, _)| *at > beat);
        }
    }

    pub(super) fn on_late_turn(&mut self, now: Time, late: Duration) {
        if self.ready_at.is_some() {
            self.overslept.push((now, late));
        }
    }

    /// Whether it may be called stuck: silent for `timeout`, and the master saw that with its own eyes,
    /// in two looks a quarter apart (I20).
    pub(super) fn may_be_stuck(&self, now: Time, timeout: Duration) -> Result<(), Violation> {
        let silence = now.since(self.beat);
        let quarter = timeout / 4;
        let watched = match (self.looks.first(), self.looks.last()) {
            (Some(first), Some(last)) => last.since(*first),
            _ => Duration::ZERO,
        };
        let owes_a_period =
            |(at, late): &(Time, Duration)| *late > timeout + quarter && now.since(*at) < timeout;
        if self.overslept.iter().any(owes_a_period) {
            return Err(Violation::new(20, "stuck, without a fresh period after a late wake"));
        }
        let asleep = self.overslept.iter().map(|(at, late)| at.since(self.beat).min(*late)).sum();
        let awake = silence.saturating_sub(asleep);
        if silence < timeout || watched < quarter || awake < quarter {
            let what = format!("stuck after {silence:?}, {watched:?} watched, {awake:?} awake");
            return Err(Violation::new(20, what));
        }
        Ok(())
    }
}

/// What one slot owes after its deaths.
#[derive(Clone, Debug, Default)]
pub(super) struct SlotRecord {
    bad_in_a_row: u32,
    window: Option<(Time, u32)>,
    hasty: bool,
    /// People were told of a crash loop.
    is_looping: bool,
    /// No spawn before this.
    pub(super) earliest: Time,
    /// A spawn by then, if there is a place for it.
    pub(super) latest: Time,
}

impl SlotRecord {
    pub(super) fn on_death(&mut self, now: Time, ready_life: Option<Duration>, policy: &Policy) {
        let count = match self.window {
            Some((start, count)) if now.since(start) < policy.restart_window => {
                self.window = Some((start, count + 1));
                count + 1
            }
            _ => {
                self.window = Some((now, 1));
                1
            }
        };
        if ready_life.is_some_and(|life| life >= self.steady_after(policy)) {
            self.clear();
        } else {
            self.bad_in_a_row += 1;
        }
        if count > policy.max_restarts {
            self.hasty = true;
            self.bad_in_a_row = self.bad_in_a_row.max(2);
        }
        let mut wait = Duration::ZERO;
        let mut most = Duration::ZERO;
        if self.bad_in_a_row >= 2 {
            wait = policy.backoff_min;
            for _ in 2..self.bad_in_a_row.min(40) {
                wait = wait.saturating_mul(2).min(policy.backoff_max);
            }
            most = (wait * 5 / 4).min(policy.backoff_max).max(LEAST_WAIT);
            wait = wait.max(LEAST_WAIT);
        }
        self.earliest = now.after(wait);
        self.latest = now.after(most);
    }

    /// A life that was long enough.
    fn clear(&mut self) {
        self.bad_in_a_row = 0;
        self.hasty = false;
    }

    pub(super) fn on_recovery(&mut self) {
        self.clear();
        self.is_looping = false;
    }

    /// Whether it dies so often that people must be told, and have not been.
    pub(super) fn begins_crash_loop(&mut self) -> bool {
        let is_loop = self.hasty || self.bad_in_a_row >= CRASH_LOOP_STRIKES;
        let is_news = is_loop && !self.is_looping;
        self.is_looping |= is_loop;
        is_news
    }

    /// A reload: whoever waits, waits for the faults of another configuration.
    pub(super) fn skip_wait(&mut self, now: Time) {
        self.earliest = self.earliest.min(now);
        self.latest = now;
    }

    pub(super) fn steady_after(&self, policy: &Policy) -> Duration {
        let pace = policy.restart_window / policy.max_restarts.max(1);
        if self.hasty { policy.min_uptime.max(pace) } else { policy.min_uptime }
    }
}
