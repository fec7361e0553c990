//! What a worker will do, drawn when it is spawned: how it boots, how it obeys, and how it ends.

use std::time::Duration;

use ph_core::arbiter::{ExitStatus, Policy, Readiness, SpawnFault, WorkerKind};

use super::faults::Faults;
use super::rng::Rng;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exit(ExitStatus),
    /// It never became the worker's program.
    Failed(SpawnFault),
}

/// What a worker will do.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// From spawn to ready, and whether it ever gets there.
    pub(super) boot: Option<Duration>,
    /// From spawn to an end of its own.
    pub(super) end: Option<(Duration, End)>,
    /// From ready to its last heartbeat.
    pub(super) hang: Option<Duration>,
    /// From ready to its wish for a successor.
    pub(super) recycle: Option<Duration>,
    /// How long it takes to obey; `None`: it does not.
    pub(super) stop: Option<Duration>,
    pub(super) abort: Option<Duration>,
    /// How long the kernel takes to end it after SIGKILL.
    pub(super) kill: Option<Duration>,
    pub(super) beat_every: Duration,
    pub(super) beats_wildly: bool,
    /// From ready to the moment from which on it holds too much memory.
    pub(super) grow: Option<Duration>,
}

impl Life {
    /// A healthy life, spoilt by what goes wrong.
    pub(super) fn draw(policy: &Policy, faults: Option<&Faults>, rng: &mut Rng) -> Self {
        let quick = Duration::from_millis(5);
        let healthy_boot = policy.boot_timeout.map_or(quick * 20, |timeout| timeout / 3);
        let boot = match policy.readiness {
            Readiness::Spawned | Readiness::Probed => rng.span(quick),
            Readiness::Reported => rng.span(healthy_boot.min(quick * 40)),
        };
        let beat_every = policy.timeout.map_or(quick * 1000, |timeout| timeout / 10);
        let mut life = Self {
            boot: Some(boot),
            end: None,
            hang: None,
            recycle: None,
            stop: Some(rng.span(quick * 10)),
            abort: Some(rng.span(quick)),
            kill: Some(rng.span(quick)),
            beat_every,
            beats_wildly: false,
            grow: None,
        };
        if let Some(faults) = faults {
            spoil(&mut life, faults, policy, rng);
        }
        life
    }
}

pub(super) const KILLED: End = signalled(9);

pub(super) const fn signalled(number: i32) -> End {
    End::Exit(ExitStatus::Signal { number, core: false })
}

fn spoil(life: &mut Life, faults: &Faults, policy: &Policy, rng: &mut Rng) {
    let second = Duration::from_secs(1);
    let brief = policy.min_uptime.max(second / 2) * 3;
    if policy.kind == WorkerKind::Command && rng.chance(faults.exec_fails) {
        let fault = if rng.chance(faults.missing) {
            rng.pick(&[SpawnFault::NotFound, SpawnFault::NotExecutable])
        } else {
            SpawnFault::Passing
        };
        life.boot = None;
        life.end = Some((rng.span(second / 100), End::Failed(fault)));
    } else if rng.chance(faults.crashes_at_boot) {
        let code = rng.pick(&[1, 1, 1, 0, 0, 255, 3, 4]);
        life.end = Some((rng.span(second / 5), End::Exit(ExitStatus::Code(code))));
    } else if rng.chance(faults.lives_briefly) {
        let end = rng.pick(&[End::Exit(ExitStatus::Code(0)), signalled(11), KILLED]);
        let short = rng.pick(&[brief / 10, brief]);
        life.end = Some((rng.span(short), end));
    }
    if life.boot.is_some() && rng.chance(faults.boots_slowly) {
        let slow = policy.boot_timeout.unwrap_or(second * 10);
        life.boot = or_never(slow * 2, rng);
    }
    if rng.chance(faults.hangs) {
        life.hang = Some(rng.span(second * 10));
    }
    if rng.chance(faults.recycles) {
        let longest = rng.pick(&[Duration::ZERO, second * 20]);
        life.recycle = Some(rng.span(longest));
    }
    if rng.chance(faults.ignores_stop) {
        life.stop = or_never(policy.graceful_timeout * 2 + second, rng);
    }
    if rng.chance(faults.ignores_abort) {
        life.abort = or_never(second * 6, rng);
    }
    if rng.chance(faults.unkillable) {
        let longest = rng.pick(&[second * 3, second * 30]);
        life.kill = or_never(longest, rng);
    }
    life.beats_wildly = rng.chance(faults.beats_wildly);
    if rng.chance(faults.grows) {
        life.grow = Some(rng.span(second * 5));
    }
}

fn or_never(longest: Duration, rng: &mut Rng) -> Option<Duration> {
    let span = rng.span(longest);
    rng.chance(600).then_some(span)
}
