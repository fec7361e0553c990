//! What a master does, told as stories: one for each behaviour that people rely on.
//!
//! A story is also the shortest documentation of its rule; `story` says how to read one.

use std::time::Duration;

use ph_core::arbiter::{Policy, Readiness, Share, WorkerKind};

use crate::story::{continue_with, tell};

fn two() -> Policy {
    Policy { target: 2, ..Policy::default() }
}

fn one() -> Policy {
    Policy::default()
}

fn command() -> Policy {
    Policy { kind: WorkerKind::Command, readiness: Readiness::Spawned, ..two() }
}

fn judged() -> Policy {
    Policy { timeout: Some(Duration::from_secs(8)), ..one() }
}

#[test]
fn a_master_starts_its_workers_and_then_rests() {
    let policy = Policy { boot_timeout: None, ..two() };
    tell(
        policy,
        "0   | started | spawn 1@0, spawn 2@1
         0.3 | ready 2 | *ready 2 0.3
         0.4 | ready 1 | *ready 1 0.4
         0.4 | ready 1 | -
         0.4 | due     | never
         900 | tick    | -",
    );
}

#[test]
fn a_dead_worker_is_replaced_at_once() {
    tell(
        two(),
        "0    | started       | spawn 1@0, spawn 2@1
         0.1  | ready 1       | -
         0.1  | ready 2       | -
         50   | signalled 1 9 | *exited 1 again in 0, spawn 3@0
         50.2 | ready 3       | *ready 3 0.2",
    );
}

#[test]
fn from_the_second_early_death_on_the_slot_waits_twice_as_long_each_time() {
    tell(
        two(),
        "0    | started  | spawn 1@0, spawn 2@1
         0    | ready 1  | -
         0    | exit 2 1 | *exited 2 again in 0, spawn 3@1
         0    | exit 3 0 | *exited 3 again in 0.1
         0    | due      | 0.1
         0.09 | tick     | -
         0.1  | tick     | spawn 4@1
         0.1  | exit 4 1 | *exited 4 again in 0.2
         0.3  | tick     | spawn 5@1
         0.3  | exit 5 1 | *exited 5 again in 0.4",
    );
}

#[test]
fn jitter_adds_a_quarter_at_most() {
    tell(
        one(),
        "0     | started             | spawn 1@0
         0     | exit 1 1            | spawn 2@0
         0     | exit 2 1 jitter 100 | -
         0.1   | tick                | -
         0.125 | tick                | spawn 3@0",
    );
}

#[test]
fn only_the_slot_whose_workers_die_waits() {
    tell(
        two(),
        "0    | started       | spawn 1@0, spawn 2@1
         0    | ready 1       | -
         0    | exit 2 1      | spawn 3@1
         0    | exit 3 1      | -
         0.05 | signalled 1 9 | spawn 4@0
         0.1  | tick          | spawn 5@1",
    );
}

#[test]
fn dying_just_above_min_uptime_again_and_again_waits_too() {
    tell(
        Policy { max_restarts: 2, ..one() },
        "0   | started  | spawn 1@0
         0   | ready 1  | -
         2   | exit 1 1 | spawn 2@0
         2   | ready 2  | -
         4   | exit 2 1 | spawn 3@0
         4   | ready 3  | -
         6   | exit 3 1 | *crash loop @0 2, *exited 3 again in 0.1",
    );
}

#[test]
fn a_crash_loop_is_told_once_and_its_end_too() {
    tell(
        one(),
        "0   | started  | spawn 1@0
         0   | exit 1 1 | spawn 2@0
         0   | exit 2 1 | -
         0.1 | tick     | spawn 3@0
         0.1 | exit 3 1 | -
         0.3 | tick     | spawn 4@0
         0.3 | exit 4 1 | *exited 4 again in 0.4
         0.7 | tick     | spawn 5@0
         0.7 | exit 5 1 | *crash loop @0 5, *exited 5 again in 0.8
         1.5 | tick     | spawn 6@0
         1.5 | exit 6 1 | *exited 6 again in 1.6
         3.1 | tick     | spawn 7@0
         3.5 | ready 7  | -
         4.5 | tick     | *recovered @0
         4.6 | exit 7 1 | *exited 7 again in 0, spawn 8@0",
    );
}

#[test]
fn before_the_first_ready_worker_exit_code_3_or_4_ends_the_master() {
    for code in [3, 4] {
        tell(
            two(),
            &format!(
                "0   | started       | spawn 1@0, spawn 2@1
                 0.1 | exit 1 {code} | stop 2
                 0.2 | exit 2 0      | exit {code}"
            ),
        );
    }
}

#[test]
fn after_the_first_ready_worker_no_exit_code_ends_the_master() {
    tell(
        two(),
        "0   | started  | spawn 1@0, spawn 2@1
         0.1 | ready 2  | -
         0.2 | exit 1 3 | spawn 3@0
         0.3 | exit 3 4 | -
         0.4 | tick     | spawn 4@0",
    );
}

#[test]
fn what_a_command_means_by_exit_code_3_is_not_known() {
    tell(
        command(),
        "0   | started  | spawn 1@0, spawn 2@1
         0.1 | exit 1 3 | spawn 3@0",
    );
}

#[test]
fn a_command_that_cannot_be_executed_ends_the_first_boot() {
    for (fault, code) in [("missing", 127), ("noexec", 126)] {
        tell(
            command(),
            &format!(
                "0   | started        | spawn 1@0, spawn 2@1
                 0.1 | fail 1 {fault} | stop 2
                 0.1 | fail 2 {fault} | exit {code}"
            ),
        );
    }
}

#[test]
fn a_command_that_vanishes_later_is_tried_again_and_again() {
    tell(
        Policy { min_uptime: Duration::ZERO, ..command() },
        "0   | started        | spawn 1@0, spawn 2@1
         0   | ready 1        | -
         0   | ready 2        | -
         1   | exit 1 0       | spawn 3@0
         1   | fail 3 missing | *failed 3 NotFound again in 0, spawn 4@0
         1   | fail 4 missing | *failed 4 NotFound again in 0.1
         1.1 | tick           | spawn 5@0",
    );
}

#[test]
fn a_fork_that_fails_never_ends_the_master() {
    tell(
        one(),
        "0   | started        | spawn 1@0
         0   | fail 1 passing | spawn 2@0
         0   | fail 2 passing | -
         0.1 | tick           | spawn 3@0",
    );
}

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
fn a_silent_worker_is_aborted_after_its_timeout_and_killed_5_seconds_later() {
    tell(
        judged(),
        "0     | started       | spawn 1@0
         0     | ready 1       | -
         6     | tick          | look 1
         6     | beat 1 0      | -
         6     | due           | 8
         8     | tick          | look 1
         8     | beat 1 0      | *Stuck 1 grace 5, abort 1
         13    | tick          | *killed 1 Stuck, kill 1
         13.01 | signalled 1 9 | *exited 1 Stuck again in 0, spawn 2@0",
    );
}

#[test]
fn a_worker_that_beats_is_looked_at_four_times_a_timeout_at_most() {
    tell(
        judged(),
        "0  | started    | spawn 1@0
         0  | ready 1    | -
         6  | tick       | look 1
         6  | beat 1 5.5 | -
         6  | due        | 10
         10 | tick       | look 1
         10 | beat 1 9   | -
         10 | due        | 14",
    );
}

#[test]
fn a_master_that_wakes_late_gives_everybody_a_fresh_period() {
    tell(
        judged(),
        "0   | started    | spawn 1@0
         0   | ready 1    | -
         60  | tick       | look 1
         60  | beat 1 0   | -
         66  | tick       | look 1
         66  | beat 1 0   | -
         68  | tick       | look 1
         68  | beat 1 0   | abort 1",
    );
}

#[test]
fn a_late_wake_is_told_once() {
    tell(
        Policy { target: 2, ..judged() },
        "0   | started  | spawn 1@0, spawn 2@1
         0   | ready 1  | -
         0   | ready 2  | -
         60  | tick     | look 1, look 2
         60  | beat 1 0 | *late 54
         60  | beat 2 0 | -",
    );
}

#[test]
fn a_worker_that_does_not_boot_in_time_is_aborted() {
    tell(
        one(),
        "0    | started       | spawn 1@0
         60   | tick          | *BootTimeout 1 grace 5, abort 1
         60.1 | signalled 1 6 | *exited 1 BootTimeout again in 0, spawn 2@0
         61   | ready 2       | -
         61   | due           | never",
    );
}

#[test]
fn a_recycled_worker_stops_when_its_successor_is_ready() {
    tell(
        one(),
        "0    | started   | spawn 1@0
         0.1  | ready 1   | -
         9    | recycle 1 | *recycling 1, spawn 2@0
         9    | recycle 1 | -
         9.4  | ready 2   | *ready 2 0.4, *Recycle 1 grace 30, stop 1
         10   | exit 1 0  | *exited 1 Recycle",
    );
}

#[test]
fn no_more_are_replaced_at_once_than_the_surge_allows() {
    tell(
        Policy { target: 4, ..one() },
        "0 | started   | spawn 1@0, spawn 2@1, spawn 3@2, spawn 4@3
         1 | ready 1   | -
         1 | ready 2   | -
         1 | ready 3   | -
         1 | ready 4   | -
         2 | recycle 3 | spawn 5@2
         2 | recycle 1 | -
         2 | recycle 2 | -
         2 | recycle 4 | -
         3 | ready 5   | stop 3, spawn 6@0
         4 | ready 6   | stop 1, spawn 7@1
         5 | ready 7   | stop 2, spawn 8@3
         6 | ready 8   | stop 4",
    );
}

#[test]
fn a_successor_that_crashes_leaves_the_old_worker_and_the_surge_to_others() {
    tell(
        Policy { reload_surge: Share::Count(1), ..two() },
        "0   | started   | spawn 1@0, spawn 2@1
         0   | ready 1   | -
         0   | ready 2   | -
         5   | recycle 1 | spawn 3@0
         5   | recycle 2 | -
         5.1 | exit 3 1  | *exited 3 again in 0, spawn 4@1
         5.2 | ready 4   | stop 2, spawn 5@0
         5.3 | exit 5 1  | *exited 5 again in 0.1
         5.4 | tick      | spawn 6@0
         5.5 | ready 6   | stop 1",
    );
}

#[test]
fn a_successor_takes_over_from_a_worker_that_dies_first() {
    tell(
        one(),
        "0   | started       | spawn 1@0
         0   | ready 1       | -
         5   | recycle 1     | spawn 2@0
         5.1 | signalled 1 9 | -
         5.2 | ready 2       | -
         9   | recycle 2     | spawn 3@0",
    );
}

#[test]
fn without_a_surge_the_old_worker_stops_first_and_one_at_a_time() {
    tell(
        Policy { reload_surge: Share::Count(0), ..two() },
        "0   | started   | spawn 1@0, spawn 2@1
         0   | ready 1   | -
         0   | ready 2   | -
         5   | recycle 2 | stop 2
         5   | recycle 1 | -
         6   | exit 2 0  | spawn 3@1
         6.5 | ready 3   | stop 1
         7   | exit 1 0  | spawn 4@0",
    );
}

#[test]
fn an_executed_command_proves_itself_at_the_first_boot_only() {
    tell(
        command(),
        "0    | started  | spawn 1@0, spawn 2@1
         0.01 | ready 1  | -
         0.02 | ready 2  | -
         0.5  | exit 2 1 | spawn 3@1
         0.51 | ready 3  | -
         1.01 | tick     | *ready 1 1.01
         1.51 | tick     | *ready 3 1.01
         2    | exit 1 0 | spawn 4@0
         2.01 | ready 4  | *ready 4 0.01",
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
