//! How a master ends: with what workers left behind, and with the workers themselves.

use std::time::Duration;

use ph_core::arbiter::{ExitWith, Policy, Share};

use super::{WARDEN, command, one, two};
use crate::story::{tell, tell_with};

fn with(exit_with: ExitWith, mut policy: Policy) -> Policy {
    policy.exit_with = Some(exit_with);
    policy
}

#[test]
fn what_workers_left_behind_is_ended_before_the_exit() {
    tell(
        one(),
        "0   | started  | spawn 1@0
         1   | stop     | stop 1
         1.1 | exit 1 0 | strays
         1.1 | strays 2 | -
         1.1 | due      | 1.6
         1.2 | strays 0 | exit 0",
    );
}

#[test]
fn what_does_not_end_is_named_and_the_code_is_1() {
    tell_with(
        &[WARDEN],
        one(),
        "0   | started    | help 0, spawn 1@0
         1   | stop       | stop 1
         1.1 | exit 1 0   | strays
         1.1 | strays 4   | -
         1.2 | strays 3   | -
         1.6 | tick       | *left behind 3, dismiss 0
         1.7 | helper 0 0 | exit 1 unreaped 3",
    );
}

#[test]
fn a_second_stop_does_not_wait_longer_for_strays() {
    tell(
        one(),
        "0   | started  | spawn 1@0
         1   | stop     | stop 1
         1.1 | exit 1 0 | strays
         1.1 | strays 1 | -
         1.3 | stop     | *quitting 0
         1.3 | due      | 1.6
         1.6 | tick     | *left behind 1, exit 1 unreaped 1",
    );
}

#[test]
fn strays_count_beside_a_worker_that_cannot_be_reaped() {
    tell_with(
        &[WARDEN],
        two(),
        "0  | started  | help 0, spawn 1@0, spawn 2@1
         1  | stop     | stop 1, stop 2
         2  | exit 1 0 | -
         31 | tick     | kill 2
         32 | tick     | *unreaped 2 Shutdown, strays
         32 | strays 2 | *left behind 2, dismiss 0, kill helper 0, exit 1 unreaped 3",
    );
}

#[test]
fn a_count_that_was_not_asked_for_means_nothing() {
    tell(
        one(),
        "0   | started  | spawn 1@0
         0.5 | strays 0 | -
         1   | stop     | stop 1
         1   | strays 0 | -
         1.1 | exit 1 0 | strays
         1.1 | strays 0 | exit 0",
    );
}

#[test]
fn with_any_the_first_worker_to_end_ends_the_service_with_its_code() {
    for (end, code) in [("exit 1 0", 0), ("exit 1 7", 7), ("signalled 1 9", 137)] {
        tell(
            with(ExitWith::Any, two()),
            &format!(
                "0   | started  | spawn 1@0, spawn 2@1
                 0.1 | ready 1  | -
                 0.1 | ready 2  | -
                 5   | {end}    | *ends with {code}, *exited 1, *stopping 1, *Shutdown 2 grace 30, stop 2
                 5.1 | exit 2 3 | exit {code}"
            ),
        );
    }
}

#[test]
fn with_first_the_worker_of_slot_0_ends_the_service_and_others_are_replaced() {
    tell(
        with(ExitWith::First, two()),
        "0   | started  | spawn 1@0, spawn 2@1
         0.1 | ready 1  | -
         0.1 | ready 2  | -
         5   | exit 2 7 | spawn 3@1
         6   | exit 1 2 | *ends with 2, *exited 1, *stopping 1, *Shutdown 3 grace 30, stop 3
         6.1 | exit 3 1 | exit 2",
    );
}

#[test]
fn with_all_nobody_is_replaced_and_the_first_code_that_is_not_0_counts() {
    for (end, code) in [("exit 2 0", 0), ("exit 2 5", 5), ("signalled 2 11", 139)] {
        tell(
            with(ExitWith::All, Policy { target: 3, ..two() }),
            &format!(
                "0   | started  | spawn 1@0, spawn 2@1, spawn 3@2
                 0.1 | ready 1  | -
                 1   | exit 1 0 | *exited 1
                 2   | {end}    | *exited 2
                 9   | tick     | -
                 9.1 | exit 3 0 | *ends with {code}, *exited 3, *stopping 0, exit {code}"
            ),
        );
    }
}

#[test]
fn what_is_ordered_does_not_count_as_an_end() {
    tell(
        with(ExitWith::Any, Policy { reload_surge: Share::Count(1), ..two() }),
        "0   | started   | spawn 1@0, spawn 2@1
         0.1 | ready 1   | -
         0.1 | ready 2   | -
         1   | scale 1   | stop 2
         1.1 | exit 2 9  | -
         2   | recycle 1 | spawn 3@0
         2.1 | ready 3   | stop 1
         2.2 | exit 1 9  | -
         3   | stop      | stop 3
         3.1 | exit 3 9  | exit 0",
    );
}

#[test]
fn a_worker_that_was_stuck_has_ended() {
    let policy = Policy { timeout: Some(Duration::from_secs(8)), ..one() };
    tell(
        with(ExitWith::Any, policy),
        "0   | started       | spawn 1@0
         1   | ready 1       | -
         6   | tick          | look 1
         6   | beat 1 1      | -
         9   | tick          | look 1
         9   | beat 1 1      | abort 1
         9.1 | signalled 1 6 | *ends with 134, *exited 1 Stuck, *stopping 0, exit 134",
    );
}

#[test]
fn a_scale_down_may_complete_all() {
    tell(
        with(ExitWith::All, two()),
        "0   | started  | spawn 1@0, spawn 2@1
         0.1 | ready 1  | -
         0.1 | ready 2  | -
         1   | exit 1 4 | -
         2   | scale 1  | *scaled 2 to 1, *ends with 4, *stopping 1, *Shutdown 2 grace 30, stop 2
         2.1 | exit 2 0 | exit 4",
    );
}

#[test]
fn with_all_a_slot_that_is_added_has_a_worker_of_its_own() {
    tell(
        with(ExitWith::All, one()),
        "0   | started  | spawn 1@0
         0.1 | ready 1  | -
         1   | scale +1 | spawn 2@1
         2   | exit 1 0 | -
         3   | scale +1 | spawn 3@2
         4   | exit 2 0 | -
         5   | exit 3 6 | exit 6",
    );
}

#[test]
fn a_first_boot_that_fails_has_its_own_code_whatever_the_service_ends_with() {
    for exit_with in [ExitWith::Any, ExitWith::All, ExitWith::First] {
        tell(
            with(exit_with, two()),
            "0   | started  | spawn 1@0, spawn 2@1
             0.1 | exit 1 3 | *exited 1, *stopping 1, *Shutdown 2 grace 30, stop 2
             0.2 | exit 2 0 | exit 3",
        );
    }
}

#[test]
fn a_command_that_ends_before_it_was_ready_ends_the_service_too() {
    tell(
        with(ExitWith::Any, command()),
        "0   | started  | spawn 1@0, spawn 2@1
         0.1 | ready 1  | -
         0.2 | exit 1 3 | stop 2
         0.3 | exit 2 0 | exit 3",
    );
}

#[test]
fn a_spawn_that_fails_is_no_end_of_a_worker() {
    tell(
        with(ExitWith::Any, one()),
        "0   | started        | spawn 1@0
         0   | fail 1 passing | *failed 1 Passing again in 0, spawn 2@0
         0.1 | ready 2        | -
         0.2 | exit 2 0       | exit 0",
    );
}

#[test]
fn an_order_to_stop_during_such_an_end_is_the_first() {
    tell(
        with(ExitWith::Any, two()),
        "0   | started  | spawn 1@0, spawn 2@1
         0.1 | ready 1  | -
         1   | exit 1 5 | stop 2
         1.1 | stop     | -
         1.2 | stop     | kill 2
         1.3 | exit 2 0 | exit 5",
    );
}

#[test]
fn the_workers_code_stands_although_processes_are_left() {
    tell(
        with(ExitWith::Any, one()),
        "0   | started  | spawn 1@0
         1   | exit 1 5 | *ends with 5, *exited 1, *stopping 0, strays
         1   | strays 1 | -
         1.5 | tick     | *left behind 1, exit 5",
    );
}
