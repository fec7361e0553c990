//! A worker lives and dies, and its slot goes on.

use std::time::Duration;

use ph_core::arbiter::Policy;

use super::{command, one, two};
use crate::story::tell;

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
         6   | exit 3 1 | *crash loop @0 3 in the window, *exited 3 again in 0.1",
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
