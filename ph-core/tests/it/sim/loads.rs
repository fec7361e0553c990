//! What reloads find: how long a configuration takes to be read, whether it is good, what it says
//! otherwise, and how the workers of a bad one behave.

use std::time::Duration;

use ph_core::arbiter::{Event, Generation, OnCrashLoop, Policy, Readiness, Share, Time};

use super::lives::{End, Life};
use super::rng::Rng;
use ph_core::arbiter::ExitStatus;

/// The policy's, in every life.
pub(super) const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How often what goes wrong with a reload, in a thousand; drawn at each of them.
#[derive(Clone, Debug, Default)]
pub(super) struct LoadFaults {
    slow: u64,
    never: u64,
    refused: u64,
    unneeded: u64,
    changes: u64,
    bad: u64,
}

impl LoadFaults {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut rate = |rates: [u64; 3]| if rng.chance(500) { 0 } else { rng.pick(&rates) };
        Self {
            slow: rate([100, 300, 800]),
            never: rate([20, 100, 300]),
            refused: rate([50, 200, 500]),
            changes: rate([200, 500, 1000]),
            bad: rate([100, 300, 800]),
            unneeded: rate([50, 100, 300]),
        }
    }
}

/// What is wrong with all workers of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Badness {
    CrashesAtBoot,
    DiesSoon,
    NeverReady,
    Hangs,
    /// Only every other one, so that the canary may stand its test.
    Half,
}

impl Badness {
    /// Spoils a life that was healthy.
    pub(super) fn spoil(self, life: &mut Life, policy: &Policy, rng: &mut Rng) {
        let second = Duration::from_secs(1);
        match self {
            Self::CrashesAtBoot => {
                let code = rng.pick(&[1, 1, 0, 3]);
                life.boot = None;
                life.end = Some((rng.span(second / 5), End::Exit(ExitStatus::Code(code))));
            }
            Self::DiesSoon => {
                let after = life.boot.unwrap_or_default() + rng.span(policy.min_uptime + second);
                life.end = Some((after, End::Exit(ExitStatus::Code(1))));
            }
            Self::NeverReady => life.boot = None,
            Self::Hangs => life.hang = Some(rng.span(second)),
            Self::Half if rng.chance(500) => Self::CrashesAtBoot.spoil(life, policy, rng),
            Self::Half => {}
        }
    }
}

/// The reading of a configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// When it ends; `None`: not by itself.
    pub(super) at: Option<Time>,
    pub(super) answer: Event,
    pub(super) badness: Option<Badness>,
}

impl Load {
    /// Without faults it is quick, good, and says what was said before.
    pub(super) fn draw(
        now: Time,
        generation: Generation,
        policy: Policy,
        faults: Option<&LoadFaults>,
        rng: &mut Rng,
    ) -> Self {
        let quick = rng.pick(&[Duration::ZERO, Duration::from_millis(30)]);
        let delay = rng.span(quick);
        let good = Event::Loaded { generation, policy };
        let mut load = Self { at: Some(now.after(delay)), answer: good, badness: None };
        let Some(faults) = faults else { return load };
        if rng.chance(faults.slow) {
            let longest = rng.pick(&[Duration::from_secs(3), LOAD_TIMEOUT + LOAD_TIMEOUT / 4]);
            load.at = Some(now.after(rng.span(longest)));
        }
        if rng.chance(faults.never) {
            load.at = None;
        }
        if rng.chance(faults.refused) {
            load.answer = Event::LoadFailed { generation };
            return load;
        }
        if rng.chance(faults.unneeded) {
            load.answer = Event::LoadUnneeded { generation };
            return load;
        }
        let mut changed = policy;
        if rng.chance(faults.changes) {
            for _ in 0..rng.between(1, 3) {
                change(&mut changed, rng);
            }
        }
        load.answer = Event::Loaded { generation, policy: changed };
        let kinds = [
            Badness::CrashesAtBoot,
            Badness::DiesSoon,
            Badness::NeverReady,
            Badness::Hangs,
            Badness::Half,
            Badness::Half,
        ];
        load.badness = rng.chance(faults.bad).then(|| rng.pick(&kinds));
        load
    }

    /// The answer to a load that nobody waits for means nothing, so only one that is asked for is due.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.at.is_some_and(|at| at <= now)
    }
}

/// One setting that a new configuration says otherwise.
fn change(policy: &mut Policy, rng: &mut Rng) {
    let millis = Duration::from_millis;
    match rng.below(14) {
        0 | 1 => policy.target = rng.between(1, 12),
        2 => {
            policy.graceful_timeout = millis(rng.pick(&[0, 100, 2000, 8000, 30_000]));
            policy.drain_delay = policy.graceful_timeout / 10;
        }
        3 => policy.timeout = rng.pick(&[None, Some(1000), Some(4000)]).map(millis),
        4 => policy.boot_timeout = rng.pick(&[None, Some(1000), Some(5000)]).map(millis),
        5 => policy.min_uptime = millis(rng.pick(&[0, 200, 1000, 5000])),
        6 => {
            policy.reload_surge = rng.pick(&[Share::Count(0), Share::Count(1), Share::Percent(50)]);
        }
        7 => {
            policy.max_unavailable = rng.pick(&[Share::Count(0), Share::Count(1), Share::Count(3)]);
        }
        8 => policy.canary_hold = millis(rng.pick(&[0, 500, 3000])),
        9 => {
            let (min, max) = rng.pick(&[(100, 1000), (10, 55), (0, 0)]);
            (policy.backoff_min, policy.backoff_max) = (millis(min), millis(max));
        }
        10 => {
            policy.readiness =
                rng.pick(&[Readiness::Reported, Readiness::Spawned, Readiness::Probed]);
        }
        11 => {
            policy.max_memory = rng.pick(&[None, Some(1000)]);
            policy.own_queues = !policy.own_queues;
        }
        12 => policy.max_restarts = rng.pick(&[10, 3, 0]),
        _ => policy.on_crash_loop = rng.pick(&[OnCrashLoop::Retry, OnCrashLoop::Exit]),
    }
}

/// The slowest of each number of all configurations a master has had: for bounds.
pub(super) fn slowest(one: &Policy, other: &Policy) -> Policy {
    Policy {
        drain_delay: one.drain_delay.max(other.drain_delay),
        graceful_timeout: one.graceful_timeout.max(other.graceful_timeout),
        timeout: one.timeout.max(other.timeout),
        boot_timeout: match (one.boot_timeout, other.boot_timeout) {
            (Some(one), Some(other)) => Some(one.max(other)),
            _ => None,
        },
        min_uptime: one.min_uptime.max(other.min_uptime),
        backoff_max: one.backoff_max.max(other.backoff_max),
        restart_window: one.restart_window.max(other.restart_window),
        max_restarts: one.max_restarts.min(other.max_restarts),
        canary_hold: one.canary_hold.max(other.canary_hold),
        target: one.target.max(other.target),
        ..*one
    }
}
