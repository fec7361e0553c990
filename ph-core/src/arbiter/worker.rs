//! The life of one worker, as the arbiter sees it: one enum with data, written in one function.

use core::time::Duration;

use super::action::{RecycleReason, StopReason};
use super::backoff::Jitter;
use super::event::{Generation, Slot};
use super::policy::is_too_late;
use super::time::Time;

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Spawned, not yet ready.
    Booting {
        /// When it has had its `boot_timeout`.
        give_up_at: Option<Time>,
        /// When an executed command has lived long enough to count as ready.
        proven_at: Option<Time>,
        /// What is to come of asking whether it is ready.
        probe: Option<Probe>,
    },
    /// At work.
    Ready(Watch),
    /// Told to end.
    Stopping {
        /// Why.
        reason: StopReason,
        /// When it will be killed.
        kill_at: Time,
    },
    /// Sent SIGKILL.
    Killed {
        /// Why it had been told to end.
        reason: StopReason,
        /// When it will be named as unreaped; `None`: it has been.
        unreaped_at: Option<Time>,
    },
}

impl State {
    /// When the arbiter has to look at this worker again.
    pub(super) fn deadline(self) -> Option<Time> {
        match self {
            Self::Booting { give_up_at, proven_at, probe } => {
                earliest(earliest(give_up_at, proven_at), probe.map(Probe::deadline))
            }
            Self::Ready(watch) => watch.earliest(),
            Self::Stopping { kill_at, .. } => Some(kill_at),
            Self::Killed { unreaped_at, .. } => unreaped_at,
        }
    }

    /// Whether a probe of it runs.
    pub(super) fn is_probed(self) -> bool {
        match self {
            Self::Booting { probe, .. } => matches!(probe, Some(Probe::Running(_))),
            Self::Ready(_) | Self::Stopping { .. } | Self::Killed { .. } => false,
        }
    }

    /// Why it was told to end, if it was.
    #[must_use]
    pub fn reason(self) -> Option<StopReason> {
        match self {
            Self::Booting { .. } | Self::Ready(_) => None,
            Self::Stopping { reason, .. } | Self::Killed { reason, .. } => Some(reason),
        }
    }

    /// Whether it is at work.
    #[must_use]
    pub fn is_ready(self) -> bool {
        match self {
            Self::Ready(_) => true,
            Self::Booting { .. } | Self::Stopping { .. } | Self::Killed { .. } => false,
        }
    }

    /// Whether it was killed so long ago that nobody waits for it any more.
    pub(super) fn is_unreaped(self) -> bool {
        match self {
            Self::Killed { unreaped_at, .. } => unreaped_at.is_none(),
            Self::Booting { .. } | Self::Ready(_) | Self::Stopping { .. } => false,
        }
    }
}

/// Where the probing of a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The next probe starts then.
    Due(Time),
    /// One runs; it is ended then.
    Running(Time),
}

impl Probe {
    fn deadline(self) -> Time {
        match self {
            Self::Due(at) | Self::Running(at) => at,
        }
    }
}

/// What is still to come of a worker at work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Its heartbeat, where one is judged.
    pub pulse: Option<Pulse>,
    /// When its slot has recovered from a crash loop.
    pub steady_at: Option<Time>,
    /// When it has lived long enough for the verdict on its generation.
    pub proven_at: Option<Time>,
    /// When it is so old that it is replaced.
    pub expires_at: Option<Time>,
    /// When its memory is looked at next.
    pub memory_at: Option<Time>,
}

impl Watch {
    fn earliest(self) -> Option<Time> {
        let Self { pulse, steady_at, proven_at, expires_at, memory_at } = self;
        let all = [pulse.map(|pulse| pulse.check_at), steady_at, proven_at, expires_at, memory_at];
        all.into_iter().flatten().min()
    }
}

pub(super) fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

/// What the arbiter remembers of a worker until it is reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub slot: Slot,
    /// Its configuration.
    pub generation: Generation,
    /// Where it is in its life.
    pub state: State,
    /// When its spawn was asked for.
    pub spawned_at: Time,
    /// When it became ready, if it did.
    pub ready_at: Option<Time>,
    /// Time from its stop signal to SIGKILL: that of the policy it was started with.
    pub grace: Duration,
    /// It alone has its queue of connections.
    pub own_queue: bool,
    /// Silence after which it is stuck: that of the policy it was started with.
    pub(super) timeout: Option<Duration>,
    /// Its heart can be heard although it is a command's.
    pub(super) watched: bool,
    /// It is to be replaced, and why.
    pub(super) recycle_due: Option<RecycleReason>,
    /// Looks in a row that found it above `max_memory`.
    pub(super) heavy: u8,
    /// Randomness that came with its readiness.
    pub(super) jitter: Jitter,
}

impl Record {
    /// How long it has been ready, in all.
    pub(super) fn ready_life(&self, now: Time) -> Option<Duration> {
        self.ready_at.map(|at| now.since(at))
    }
}

/// The judgement of one worker's heartbeat.
///
/// Healthy workers are looked at on a grid of a quarter of the timeout, so that any number of them
/// costs one wake-up a quarter. Nobody is condemned by one look: a first one finds the worker
/// silent and makes it a suspect, a second one, `timeout` after the last beat, finds it still silent.
/// Both were on time, and between them the master was awake for a quarter of the timeout: so long a
/// worker that was frozen or starved together with the master had to beat again (I20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    last_beat: Time,
    pub(super) check_at: Time,
    /// When it was found silent, on a clock that stands while the master oversleeps.
    suspected_at: Option<Time>,
    /// A look was asked for and is not answered yet; how late it was.
    asked: Option<Duration>,
}

/// What a look at a heartbeat came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It lives, or it has time left.
    Alive,
    /// It was silent for all of its `timeout`.
    Stuck,
    /// It seems silent, but the look came so much too late that this proves nothing.
    TooLateToTell {
        /// How late.
        by: Duration,
    },
}

impl Pulse {
    /// The pulse of a worker that was certainly alive at `now`.
    pub(super) fn fresh(now: Time, timeout: Duration) -> Self {
        Self {
            last_beat: now,
            check_at: grid_check(now, now, timeout),
            suspected_at: None,
            asked: None,
        }
    }

    /// The pulse after a look was asked for; should it stay unanswered, another one follows.
    pub(super) fn asked(self, now: Time, timeout: Duration) -> Self {
        let late = now.since(self.check_at);
        Self { check_at: now.after(grid(timeout)), asked: Some(late), ..self }
    }

    /// Judges the answer. `asleep` is for how long the master has overslept in all.
    pub(super) fn judge(
        self,
        now: Time,
        asleep: Duration,
        beat: Time,
        timeout: Duration,
    ) -> (Self, Verdict) {
        let Some(late) = self.asked else { return (self, Verdict::Alive) };
        // Before anything else: even a beat that is news was made before the master fell asleep.
        if is_too_late(late, timeout) {
            return (Self::fresh(now, timeout), Verdict::TooLateToTell { by: late });
        }
        // A beat in the future is a lie or a torn store; it must not buy more than one period.
        let beat = beat.min(now);
        if beat > self.last_beat {
            let check_at = grid_check(now, beat, timeout);
            let pulse = Self { last_beat: beat, check_at, suspected_at: None, asked: None };
            return (pulse, Verdict::Alive);
        }
        let awake_now = now.before(asleep);
        let suspected_at = self.suspected_at.unwrap_or(awake_now);
        let watched = awake_now.since(suspected_at);
        let time_is_up = self.last_beat.after(timeout);
        if now >= time_is_up && watched >= grid(timeout) {
            return (Self { asked: None, ..self }, Verdict::Stuck);
        }
        let check_at = time_is_up.max(now.after(grid(timeout).saturating_sub(watched)));
        let suspected_at = Some(suspected_at);
        (Self { check_at, suspected_at, asked: None, ..self }, Verdict::Alive)
    }
}

fn grid(timeout: Duration) -> Duration {
    (timeout / 4).max(Duration::from_nanos(1))
}

/// The next look at a worker that beat at `beat`: on the grid, a quarter before its time is up.
fn grid_check(now: Time, beat: Time, timeout: Duration) -> Time {
    let grid = grid(timeout);
    let check_at = beat.after(grid * 3).floor(grid);
    if check_at > now { check_at } else { now.floor(grid).after(grid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(8);
    const AWAKE: Duration = Duration::ZERO;

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_silent_worker_is_stuck_after_exactly_its_timeout() {
        let pulse = Pulse::fresh(at(100), TIMEOUT);
        assert_eq!(pulse.check_at, at(106));
        let (pulse, verdict) =
            pulse.asked(at(106), TIMEOUT).judge(at(106), AWAKE, at(100), TIMEOUT);
        assert_eq!((pulse.check_at, verdict), (at(108), Verdict::Alive));
        let (_, verdict) = pulse.asked(at(108), TIMEOUT).judge(at(108), AWAKE, at(100), TIMEOUT);
        assert_eq!(verdict, Verdict::Stuck);
    }

    #[test]
    fn a_late_look_condemns_nobody() {
        let pulse = Pulse::fresh(at(100), TIMEOUT);
        let (pulse, verdict) =
            pulse.asked(at(190), TIMEOUT).judge(at(190), AWAKE, at(100), TIMEOUT);
        assert_eq!(verdict, Verdict::TooLateToTell { by: Duration::from_secs(84) });
        assert_eq!(pulse, Pulse::fresh(at(190), TIMEOUT));
    }

    #[test]
    fn a_beat_from_the_future_buys_one_period_only() {
        let pulse = Pulse::fresh(at(100), TIMEOUT);
        let (pulse, _) = pulse.asked(at(106), TIMEOUT).judge(
            at(106),
            AWAKE,
            Time::from_nanos(u64::MAX),
            TIMEOUT,
        );
        assert_eq!(pulse.check_at, at(112));
        let (pulse, verdict) =
            pulse.asked(at(112), TIMEOUT).judge(at(112), AWAKE, at(106), TIMEOUT);
        assert_eq!((pulse.check_at, verdict), (at(114), Verdict::Alive));
    }

    #[test]
    fn healthy_workers_share_the_grid() {
        for beat in [100, 101, 102, 103] {
            let pulse = Pulse::fresh(at(99), TIMEOUT);
            let asked = pulse.asked(at(104), TIMEOUT);
            let (pulse, _) = asked.judge(at(104), AWAKE, at(beat), TIMEOUT);
            assert_eq!(u128::from(pulse.check_at.as_nanos()) % grid(TIMEOUT).as_nanos(), 0);
        }
    }
}
