//! The fault plan: everything about one simulated life that is drawn from its seed beforehand.
//!
//! Half of the faults are off in any one plan and the others are rare, frequent or common: a world in
//! which everything fails at once hides the bugs that need a quiet corner to grow in.

use std::time::Duration;

use super::loads::LOAD_TIMEOUT;
use ph_core::arbiter::{
    CLOSING_GRACE, ExitWith, HelperEnd, HelperRole, OnCrashLoop, Order, Policy, Readiness, Share,
    Time, WorkerKind,
};

use super::loads::LoadFaults;
use super::rng::Rng;
use super::upgrades::UpgradeFaults;

/// One simulated life.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) policy: Policy,
    pub(super) faults: Faults,
    /// End of the safety phase.
    pub(super) calm_at: Time,
    /// What the operator wants during the safety phase, earliest first.
    pub(super) orders: Vec<(Time, Order)>,
    /// The operator stops the master once it has converged.
    pub(super) stops_at_last: bool,
    pub(super) helpers: Vec<HelperRole>,
    pub(super) helper_faults: HelperFaults,
    /// What workers leave behind: how long each takes to end when it is to; `None`: it does not.
    pub(super) left_behind: Vec<Option<Duration>>,
    pub(super) load_faults: LoadFaults,
    pub(super) upgrade_faults: UpgradeFaults,
}

/// How often what goes wrong with a helper, in a thousand; drawn at each of its spawns.
#[derive(Clone, Debug, Default)]
pub(super) struct HelperFaults {
    pub(super) fork_fails: u64,
    pub(super) dies: u64,
    pub(super) ignores_stop: u64,
    pub(super) unkillable: u64,
}

/// How often what goes wrong, in a thousand.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    // Drawn at each spawn.
    pub(super) fork_fails: u64,
    pub(super) exec_fails: u64,
    pub(super) missing: u64,
    pub(super) crashes_at_boot: u64,
    pub(super) boots_slowly: u64,
    pub(super) lives_briefly: u64,
    pub(super) hangs: u64,
    pub(super) ignores_stop: u64,
    pub(super) ignores_abort: u64,
    pub(super) unkillable: u64,
    pub(super) recycles: u64,
    pub(super) grows: u64,
    pub(super) beats_wildly: u64,
    // Drawn at each turn of the driver.
    pub(super) oversleeps: u64,
    pub(super) tick_first: u64,
    pub(super) reaps_partly: u64,
    pub(super) odd_tick: u64,
    pub(super) stray: u64,
}

impl Plan {
    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut policy = draw_policy(&mut rng);
        let faults = draw_faults(&mut rng);
        let length = Duration::from_secs(rng.pick(&[2, 10, 30, 90]));
        let calm_at = Time::ZERO.after(length);
        let mut orders = draw_orders(&mut rng, &policy, length);
        let stops_at_last = rng.chance(500);
        policy.exit_with = draw_exit_with(&mut rng);
        let (helpers, helper_faults) = (draw_helpers(&mut rng), draw_helper_faults(&mut rng));
        let left_behind = draw_left_behind(&mut rng);
        draw_replacement(&mut policy, &mut rng);
        draw_reloads(&mut orders, length, &mut rng);
        let load_faults = LoadFaults::draw(&mut rng);
        draw_upgrades(&mut orders, &mut policy, length, &mut rng);
        let upgrade_faults = UpgradeFaults::draw(&mut rng);
        policy.drain_delay = millis(rng.pick(&[0, 0, 0, 1, 700, 5000]));
        policy.own_queues = rng.chance(300);
        Self {
            seed,
            policy,
            faults,
            calm_at,
            orders,
            stops_at_last,
            helpers,
            helper_faults,
            left_behind,
            load_faults,
            upgrade_faults,
        }
    }
}

/// By when a master without further faults must have all its workers: a sum of everything it may
/// have to wait for, one after the other, with one fresh period for each late wake; and with a reload
/// that was under way, one that waited for it, and what both of them take back.
pub(super) fn converged_by(policy: &Policy, target: u32) -> Duration {
    let boot = policy.boot_timeout.unwrap_or(Duration::from_secs(10));
    let replace = policy.graceful_timeout + boot / 2 + Duration::from_secs(8);
    let roll = LOAD_TIMEOUT + policy.canary_hold + 2 * policy.min_uptime + target * replace;
    2 * (policy.timeout.unwrap_or_default() + boot + replace + policy.backoff_max)
        + target * replace
        + 5 * roll
}

/// When the last slot must have recovered from its crash loop.
pub(super) fn steady_after(policy: &Policy) -> Duration {
    policy.min_uptime.max(policy.restart_window / policy.max_restarts.max(1))
        + Duration::from_secs(1)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn draw_policy(rng: &mut Rng) -> Policy {
    let target = match rng.below(20) {
        0 => 64,
        1 => rng.between(9, 40),
        _ => rng.between(1, 8),
    };
    // A target above the limit is lowered to it; a limit of nothing is one.
    let limit = rng.pick(&[target, target, target + 1, target + 4, 1000, target / 2]);
    let (backoff_min, backoff_max) = rng.pick(&[
        (millis(100), millis(30_000)),
        (millis(100), millis(1000)),
        (millis(10), millis(55)),
        (millis(1000), millis(1000)),
        (millis(0), millis(0)),
    ]);
    Policy {
        target,
        max_workers: limit,
        graceful_timeout: millis(rng.pick(&[0, 100, 2000, 8000, 30_000])),
        timeout: rng.pick(&[None, None, Some(1000), Some(4000), Some(30_000)]).map(millis),
        boot_timeout: rng.pick(&[None, Some(1000), Some(5000), Some(60_000)]).map(millis),
        min_uptime: millis(rng.pick(&[0, 200, 1000, 5000])),
        backoff_min,
        backoff_max,
        max_restarts: rng.pick(&[10, 10, 3, 100, 0]),
        restart_window: millis(rng.pick(&[60_000, 10_000, 1000, 0])),
        reload_surge: rng.pick(&[
            Share::Count(0),
            Share::Count(1),
            Share::Percent(25),
            Share::Percent(100),
            Share::Percent(u32::MAX),
        ]),
        kind: rng.pick(&[WorkerKind::Forked, WorkerKind::Command]),
        readiness: rng.pick(&[
            Readiness::Reported,
            Readiness::Reported,
            Readiness::Spawned,
            Readiness::Probed,
        ]),
        ready_interval: millis(rng.pick(&[0, 100, 1000])),
        exit_with: None,
        ..Policy::default()
    }
}

fn draw_faults(rng: &mut Rng) -> Faults {
    let mut rate = |rates: [u64; 3]| if rng.chance(500) { 0 } else { rng.pick(&rates) };
    Faults {
        fork_fails: rate([20, 100, 400]),
        exec_fails: rate([20, 100, 400]),
        missing: rate([5, 30, 900]),
        crashes_at_boot: rate([50, 300, 900]),
        boots_slowly: rate([50, 200, 800]),
        lives_briefly: rate([50, 300, 900]),
        hangs: rate([50, 200, 500]),
        ignores_stop: rate([50, 300, 800]),
        ignores_abort: rate([50, 300, 800]),
        unkillable: rate([20, 100, 500]),
        recycles: rate([100, 500, 1000]),
        grows: rate([100, 500, 1000]),
        beats_wildly: rate([20, 100, 300]),
        oversleeps: rate([5, 20, 60]),
        tick_first: rate([20, 100, 300]),
        reaps_partly: rate([50, 200, 500]),
        odd_tick: rate([10, 50, 100]),
        stray: rate([10, 50, 100]),
    }
}

fn draw_orders(rng: &mut Rng, policy: &Policy, length: Duration) -> Vec<(Time, Order)> {
    let mut orders = Vec::new();
    let most = rng.pick(&[0, 2, 6, 20]);
    for _ in 0..rng.below(most + 1) {
        let order = match rng.below(8) {
            0 => Order::Reopen,
            1..=3 => Order::ScaleTo(rng.between(0, policy.max_workers.min(2 * policy.target) + 1)),
            4 | 5 => Order::ScaleBy(1),
            6 => Order::ScaleBy(-1),
            _ => Order::ScaleBy(i32::try_from(rng.below(40)).unwrap_or(0) - 20),
        };
        orders.push((Time::ZERO.after(rng.span(length)), order));
    }
    if rng.chance(250) {
        let stop = rng.span(length);
        orders.push((Time::ZERO.after(stop), Order::Stop));
        if rng.chance(500) {
            let again = stop + rng.span(policy.graceful_timeout + millis(500));
            orders.push((Time::ZERO.after(again), Order::Stop));
        }
    }
    orders.sort_by_key(|(at, _)| *at);
    orders
}

/// What makes workers be replaced, and how.
fn draw_replacement(policy: &mut Policy, rng: &mut Rng) {
    let missing = [0, 0, 0, 1, 2].map(Share::Count);
    policy.max_unavailable = rng.pick(&missing);
    if rng.chance(200) {
        policy.max_unavailable = Share::Percent(30);
    }
    policy.canary_hold = millis(rng.pick(&[0, 0, 500, 3000]));
    policy.max_age =
        rng.pick(&[None, None, None, None, None, Some(3000), Some(20_000)]).map(millis);
    policy.max_age_jitter = millis(rng.pick(&[0, 1000]));
    policy.max_memory = rng.pick(&[None, None, Some(1000)]);
    policy.memory_check_interval = millis(rng.pick(&[500, 5000]));
    if rng.chance(150) {
        policy.on_crash_loop = OnCrashLoop::Exit;
    }
}

/// Reloads, often several at once, and drains.
fn draw_reloads(orders: &mut Vec<(Time, Order)>, length: Duration, rng: &mut Rng) {
    let most = rng.pick(&[0, 1, 3, 8]);
    for _ in 0..rng.below(most + 1) {
        let at = rng.span(length);
        let order = if rng.chance(800) { Order::Reload } else { Order::Drain };
        orders.push((Time::ZERO.after(at), order));
        if rng.chance(300) {
            let longest = millis(rng.pick(&[0, 100, 3000]));
            let order = if rng.chance(700) { Order::Reload } else { Order::Drain };
            orders.push((Time::ZERO.after(at + rng.span(longest)), order));
        }
    }
    orders.sort_by_key(|(at, _)| *at);
}

/// Upgrades, sometimes several at once. One that succeeds is the end of a life.
fn draw_upgrades(
    orders: &mut Vec<(Time, Order)>,
    policy: &mut Policy,
    length: Duration,
    rng: &mut Rng,
) {
    policy.upgrade_timeout = millis(rng.pick(&[1000, 5000, 60_000]));
    let most = rng.pick(&[0, 0, 1, 4]);
    for _ in 0..rng.below(most + 1) {
        let at = rng.span(length);
        orders.push((Time::ZERO.after(at), Order::Upgrade));
        if rng.chance(300) {
            let after = millis(rng.pick(&[0, 100, 3000]));
            let order = rng.pick(&[Order::Upgrade, Order::Reload, Order::Drain, Order::Stop]);
            orders.push((Time::ZERO.after(at + rng.span(after)), order));
        }
    }
    orders.sort_by_key(|(at, _)| *at);
}

/// Rarely: most of such a life is over when its first worker is.
fn draw_exit_with(rng: &mut Rng) -> Option<ExitWith> {
    let some = rng.pick(&[ExitWith::Any, ExitWith::All, ExitWith::All, ExitWith::First]);
    rng.chance(120).then_some(some)
}

fn draw_helpers(rng: &mut Rng) -> Vec<HelperRole> {
    let count = rng.below(4);
    let ends = [HelperEnd::WithWorkers, HelperEnd::AfterWorkers, HelperEnd::Last];
    let role = |rng: &mut Rng| {
        let (respawn, ends) = (rng.chance(750), rng.pick(&ends));
        let cap = Duration::from_secs(1);
        HelperRole { respawn, ends, backoff_cap: (ends == HelperEnd::Last).then_some(cap) }
    };
    (0..count).map(|_| role(rng)).collect()
}

fn draw_helper_faults(rng: &mut Rng) -> HelperFaults {
    let mut rate = |rates: [u64; 3]| if rng.chance(500) { 0 } else { rng.pick(&rates) };
    HelperFaults {
        fork_fails: rate([20, 100, 700]),
        dies: rate([100, 500, 1000]),
        ignores_stop: rate([100, 300, 800]),
        unkillable: rate([50, 200, 800]),
    }
}

fn draw_left_behind(rng: &mut Rng) -> Vec<Option<Duration>> {
    let count = rng.pick(&[0, 0, 1, 3, 10]);
    let longest = rng.pick(&[millis(5), CLOSING_GRACE, CLOSING_GRACE * 3]);
    let is_stubborn = rng.chance(300);
    let stray = |rng: &mut Rng| {
        let span = rng.span(longest);
        (!is_stubborn || rng.chance(700)).then_some(span)
    };
    (0..count).map(|_| stray(rng)).collect()
}
