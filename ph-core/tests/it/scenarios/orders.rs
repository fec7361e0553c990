//! What the operator says: stop, scale, reopen; and the bounds of it all.

use std::time::Duration;

use ph_core::arbiter::{ExitWith, Policy, Share};

use super::{command, one, two};
use crate::story::{continue_with, tell};

#[test]
fn a_stop_is_graceful_then_kills_and_exits_with_0() {
    tell(
        two(),
        "0    | started       | spawn 1@0, spawn 2@1
         0.1  | ready 1       | -
         1    | stop          | *stopping 2, *Shutdown 1 grace 30, stop 1, *Shutdown 2 grace 30, stop 2
         1.1  | exit 1 0      | *exited 1 Shutdown
         30.9 | tick          | -
         31   | tick          | *killed 2 Shutdown, kill 2
         31.1 | signalled 2 9 | exit 0
         31.1 | due           | never
         31.2 | started       | -",
    );
}

#[test]
fn a_second_stop_kills_at_once() {
    tell(
        two(),
        "0   | started       | spawn 1@0, spawn 2@1
         1   | stop          | stop 1, stop 2
         2   | stop          | *quitting 2, *killed 1 Shutdown, kill 1, *killed 2 Shutdown, kill 2
         2   | stop          | -
         2.1 | signalled 1 9 | -
         2.1 | signalled 2 9 | exit 0",
    );
}

#[test]
fn a_worker_that_cannot_be_reaped_is_named_and_the_code_is_1() {
    tell(
        two(),
        "0    | started       | spawn 1@0, spawn 2@1
         1    | stop          | stop 1, stop 2
         1.1  | exit 1 0      | -
         31   | tick          | kill 2
         31   | due           | 32
         32   | tick          | *unreaped 2 Shutdown, exit 1 unreaped 1",
    );
}

#[test]
fn a_stop_before_the_start_starts_nothing() {
    tell(
        two(),
        "0 | stop    | exit 0
         1 | started | -",
    );
}

#[test]
fn ttin_and_ttou_stay_within_1_and_max_workers() {
    tell(
        Policy { max_workers: 3, ..two() },
        "0 | started  | spawn 1@0, spawn 2@1
         1 | scale +1 | *scaled 2 to 3, spawn 3@2
         2 | scale +1 | *limited 4 to 3
         3 | scale -9 | *limited -6 to 1, *scaled 3 to 1, *ScaleDown 3 grace 30, stop 3, *ScaleDown 2 grace 30, stop 2
         4 | scale -1 | *limited 0 to 1
         5 | scale 1  | -",
    );
}

#[test]
fn a_scale_order_before_the_start_counts() {
    tell(
        two(),
        "0 | scale +1 | -
         1 | started  | spawn 1@0, spawn 2@1, spawn 3@2",
    );
}

#[test]
fn scaling_up_while_the_old_worker_still_stops_gives_its_slot_a_new_one() {
    tell(
        two(),
        "0   | started  | spawn 1@0, spawn 2@1
         0   | ready 1  | -
         0   | ready 2  | -
         1   | scale 1  | stop 2
         1.1 | scale 2  | spawn 3@1
         1.2 | ready 3  | -
         2   | exit 2 0 | *exited 2 ScaleDown
         31  | tick     | -",
    );
}

#[test]
fn scaling_does_not_forgive_a_crash_loop() {
    tell(
        two(),
        "0   | started  | spawn 1@0, spawn 2@1
         0   | exit 2 1 | spawn 3@1
         0   | exit 3 1 | -
         0   | scale 1  | -
         0   | scale 2  | -
         0.1 | tick     | spawn 4@1",
    );
}

#[test]
fn a_stop_while_a_command_proves_itself_ends_in_order() {
    tell(
        command(),
        "0    | started  | spawn 1@0, spawn 2@1
         0.01 | ready 1  | -
         0.5  | stop     | stop 1, stop 2
         0.6  | exit 2 3 | -
         1.01 | tick     | -
         1.1  | exit 1 0 | exit 0",
    );
}

/// In the delay before a stop workers serve and are watched, and nobody new comes.
#[test]
fn a_stop_waits_for_the_drain_delay() {
    let delay = Duration::from_secs(5);
    tell(
        Policy { drain_delay: delay, ..two() },
        "0   | started   | spawn 1@0, spawn 2@1
         0   | ready 1   | -
         0   | ready 2   | -
         1   | stop      | *stopping 2 after 5
         1   | due       | 6
         2   | exit 2 1  | -
         3   | recycle 1 | -
         3   | reload    | -
         3   | upgrade   | -
         3   | scale 4   | -
         6   | tick      | *stopping 1 now, *Shutdown 1 grace 30, stop 1
         6.1 | exit 1 0  | exit 0",
    );
}

/// Seed 883609678305: a worker that booted in the delay was judged by the policy of another generation.
#[test]
fn who_boots_is_stopped_when_the_drain_delay_begins() {
    tell(
        Policy { drain_delay: Duration::from_secs(5), ..two() },
        "0   | started  | spawn 1@0, spawn 2@1
         0   | ready 1  | -
         1   | stop     | stop 2
         1.1 | exit 2 0 | -
         6   | tick     | stop 1
         6.1 | exit 1 0 | exit 0",
    );
}

#[test]
fn a_second_stop_ends_the_drain_delay_at_once() {
    tell(
        Policy { drain_delay: Duration::from_secs(5), ..one() },
        "0   | started  | spawn 1@0
         0   | ready 1  | -
         1   | stop     | *stopping 1 after 5
         2   | stop     | kill 1
         2.1 | exit 1 9 | exit 0",
    );
}

#[test]
fn when_nobody_is_left_the_drain_delay_is_over() {
    tell(
        Policy { drain_delay: Duration::from_secs(5), ..one() },
        "0   | started  | spawn 1@0
         0   | ready 1  | -
         1   | stop     | *stopping 1 after 5
         2   | exit 1 0 | exit 0",
    );
}

/// What ends of itself has nobody who would have to be told before.
#[test]
fn only_an_order_waits_for_the_drain_delay() {
    let policy = Policy { drain_delay: Duration::from_secs(5), ..one() };
    tell(
        Policy { exit_with: Some(ExitWith::Any), target: 2, ..policy },
        "0   | started  | spawn 1@0, spawn 2@1
         0   | ready 1  | -
         0   | ready 2  | -
         1   | exit 1 0 | stop 2
         1.1 | exit 2 0 | exit 0",
    );
}

#[test]
fn a_mass_start_comes_in_batches_and_a_stop_goes_before_the_next() {
    let policy = Policy { target: 100, ..one() };
    let batch = |from: u32| -> String {
        let all: Vec<_> = (from..from + 32).map(|n| format!("spawn {n}@{}", n - 1)).collect();
        all.join(", ")
    };
    let (first, second) = (batch(1), batch(33));
    let arbiter = tell(
        policy,
        &format!(
            "0     | started | {first}
             0     | due     | 0
             0.001 | tick    | {second}
             0.001 | due     | 0.001"
        ),
    );
    let stops: Vec<_> = (1..=64).map(|n| format!("stop {n}")).collect();
    continue_with(
        arbiter,
        &format!(
            "0.002 | stop | {}
             0.003 | tick | -",
            stops.join(", ")
        ),
    );
}

#[test]
fn reopen_reaches_forked_workers_and_spares_commands() {
    tell(
        two(),
        "0 | started | spawn 1@0, spawn 2@1
         1 | reopen  | reopen, usr1 1, usr1 2",
    );
    tell(
        command(),
        "0 | started | spawn 1@0, spawn 2@1
         1 | reopen  | reopen",
    );
}

#[test]
fn a_policy_of_extremes_is_brought_into_bounds() {
    let zero = Duration::ZERO;
    tell(
        Policy {
            target: 5,
            max_workers: 0,
            graceful_timeout: zero,
            timeout: Some(Duration::from_nanos(1)),
            boot_timeout: Some(zero),
            min_uptime: zero,
            backoff_min: zero,
            backoff_max: zero,
            max_restarts: 0,
            restart_window: zero,
            reload_surge: Share::Percent(u32::MAX),
            ..Policy::default()
        },
        "0     | started       | spawn 1@0
         0     | ready 1       | -
         0.001 | tick          | look 1
         0.001 | beat 1 0.001  | -
         0.001 | recycle 1     | spawn 2@0
         0.001 | ready 2       | stop 1
         0.001 | tick          | kill 1
         0.002 | signalled 1 9 | look 2
         0.002 | stop          | stop 2
         0.002 | tick          | kill 2
         0.003 | signalled 2 9 | exit 0",
    );
}
