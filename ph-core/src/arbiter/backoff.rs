//! How long a slot waits before its next worker: one small record a slot, no history (I9, I11).
//!
//! The first death is answered at once, because most deaths are single. From the second bad death in
//! a row the slot waits `backoff_min`, doubling to `backoff_max`. A death is *bad* if the worker had
//! not lived `min_uptime` of ready life, or if the slot dies faster than `max_restarts` in
//! `restart_window` allow. Only a worker that lives long enough to be within those rates clears the
//! record; the mere passing of time does not.

use core::time::Duration;

use super::policy::{CRASH_LOOP_STRIKES, LEAST_WAIT, Policy};
use super::time::Time;

/// Random bits that came in with an event; the arbiter has no randomness of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Jitter(pub u32);

impl Jitter {
    /// Adds up to a quarter, so that slots that died together do not return together.
    fn spread(self, wait: Duration) -> Duration {
        wait.saturating_add(self.part_of(wait / 4))
    }

    /// A random part of a span.
    pub(super) fn part_of(self, span: Duration) -> Duration {
        span.mul_f64(f64::from(self.0) / f64::from(u32::MAX))
    }
}

/// The record of one slot's deaths.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Backoff {
    /// Bad deaths in a row.
    strikes: u32,
    /// Start of the window in which deaths are counted, as in systemd's rate limit.
    window_start: Time,
    /// Deaths since `window_start`.
    deaths: u32,
    /// The rate of `max_restarts` in `restart_window` was exceeded since the record was clear.
    hasty: bool,
}

impl Backoff {
    /// Takes note of a death and says how long the slot has to wait.
    pub(super) fn on_death(
        &mut self,
        now: Time,
        ready_life: Option<Duration>,
        policy: &Policy,
        jitter: Jitter,
    ) -> Duration {
        if self.deaths == 0 || now.since(self.window_start) >= policy.restart_window {
            self.window_start = now;
            self.deaths = 0;
        }
        self.deaths = self.deaths.saturating_add(1);
        if ready_life.is_some_and(|life| life >= self.steady_after(policy)) {
            self.clear();
        } else {
            self.strikes = self.strikes.saturating_add(1);
        }
        if self.deaths > policy.max_restarts {
            self.hasty = true;
            self.strikes = self.strikes.max(2);
        }
        self.wait(policy, jitter)
    }

    /// Forgets the bad deaths; the window goes on.
    pub(super) fn clear(&mut self) {
        self.strikes = 0;
        self.hasty = false;
    }

    /// The ready life that clears the record.
    pub(super) fn steady_after(&self, policy: &Policy) -> Duration {
        if self.hasty {
            policy.min_uptime.max(policy.restart_window / policy.max_restarts.max(1))
        } else {
            policy.min_uptime
        }
    }

    /// Whether this slot's workers die so often that people should know.
    pub(super) fn is_crash_loop(&self) -> bool {
        self.hasty || self.strikes >= CRASH_LOOP_STRIKES
    }

    /// The deaths that make it one: so many in a row, or so many in this time.
    pub(super) fn tally(&self, policy: &Policy) -> (u32, Option<Duration>) {
        match self.hasty {
            true => (self.deaths, Some(policy.restart_window)),
            false => (self.strikes, None),
        }
    }

    fn wait(&self, policy: &Policy, jitter: Jitter) -> Duration {
        let Some(doublings) = self.strikes.checked_sub(2) else { return Duration::ZERO };
        let wait = policy.backoff_min.saturating_mul(1_u32 << doublings.min(31));
        jitter.spread(wait.min(policy.backoff_max)).min(policy.backoff_max).max(LEAST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn after(seconds: f64) -> Time {
        Time::ZERO.after(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn the_first_death_is_free_then_waits_double_to_the_maximum() {
        let policy = Policy { backoff_max: Duration::from_secs(1), ..Policy::default() };
        let mut backoff = Backoff::default();
        let waits: Vec<_> =
            (0..7).map(|_| backoff.on_death(Time::ZERO, None, &policy, Jitter(0))).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1000, 1000].map(Duration::from_millis));
    }

    #[test]
    fn jitter_adds_at_most_a_quarter_and_never_passes_the_maximum() {
        let policy = Policy { backoff_max: Duration::from_millis(110), ..Policy::default() };
        let mut backoff = Backoff::default();
        backoff.on_death(Time::ZERO, None, &policy, Jitter(u32::MAX));
        let wait = backoff.on_death(Time::ZERO, None, &policy, Jitter(u32::MAX));
        assert_eq!(wait, Duration::from_millis(110));
    }

    #[test]
    fn one_good_life_clears_the_record() {
        let policy = Policy::default();
        let mut backoff = Backoff::default();
        for _ in 0..4 {
            backoff.on_death(after(1.0), None, &policy, Jitter(0));
        }
        let wait = backoff.on_death(after(3.0), Some(policy.min_uptime), &policy, Jitter(0));
        assert_eq!((wait, backoff.strikes), (Duration::ZERO, 0));
    }

    #[test]
    fn dying_just_above_min_uptime_for_ever_still_backs_off() {
        let policy = Policy::default();
        let mut backoff = Backoff::default();
        let mut now = Time::ZERO;
        let mut longest = Duration::ZERO;
        for _ in 0..40 {
            now = now.after(Duration::from_millis(1100));
            let wait = backoff.on_death(now, Some(Duration::from_millis(1100)), &policy, Jitter(0));
            now = now.after(wait);
            longest = longest.max(wait);
        }
        assert_eq!(longest, policy.backoff_max);
        // Eight seconds a life is a pace of less than ten a minute.
        let wait = backoff.on_death(now, Some(Duration::from_secs(8)), &policy, Jitter(0));
        assert_eq!(wait, Duration::ZERO);
    }
}
