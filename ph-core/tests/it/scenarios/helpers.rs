//! Children that are not workers: kept alive, told to leave in their turn, and never counted.

use ph_core::arbiter::{HelperRole, Policy};

use super::{LOG, PROBE, WARDEN, one, two};
use crate::story::tell_with;

#[test]
fn helpers_start_before_workers_in_the_order_given() {
    tell_with(&[WARDEN, PROBE], two(), "0 | started | help 0, help 1, spawn 1@0, spawn 2@1");
}

#[test]
fn a_helper_that_dies_is_started_again_at_once_then_waits_twice_as_long_each_time() {
    tell_with(
        &[WARDEN],
        one(),
        "0   | started    | help 0, spawn 1@0
         0.1 | ready 1    | -
         5   | helper 0 1 | *helper 0 ended again in 0, help 0
         5.1 | helper 0 1 | *helper 0 ended again in 0, help 0
         5.2 | helper 0 1 | *helper 0 ended again in 0.1
         5.2 | due        | 5.3
         5.3 | tick       | help 0
         5.4 | helper 0 1 | *helper 0 ended again in 0.2
         5.6 | tick       | help 0
         5.7 | helper 0 0 | *helper 0 ended again in 0.4
         6.1 | tick       | help 0
         6.1 | due        | never
         8   | helper 0 1 | *helper 0 ended again in 0, help 0",
    );
}

#[test]
fn one_that_others_wait_for_is_never_missing_for_longer_than_its_cap() {
    tell_with(
        &[LOG],
        one(),
        "0   | started    | help 0, spawn 1@0
         0   | ready 1    | -
         0.5 | helper 0 9 | *helper 0 ended again in 0, help 0
         0.5 | helper 0 9 | *helper 0 ended again in 0.1
         0.6 | tick       | help 0
         0.6 | helper 0 9 | *helper 0 ended again in 0.2
         0.8 | tick       | help 0
         0.8 | helper 0 9 | *helper 0 ended again in 0.4
         1.2 | tick       | help 0
         1.2 | helper 0 9 | *helper 0 ended again in 0.8
         2   | tick       | help 0
         2   | helper 0 9 | *helper 0 ended again in 1
         3   | tick       | help 0
         3   | helper 0 9 | *helper 0 ended again in 1
         4   | tick       | help 0",
    );
}

#[test]
fn a_helper_that_cannot_be_started_backs_off_and_holds_nobody_up() {
    tell_with(
        &[PROBE],
        one(),
        "0    | started         | help 0, spawn 1@0
         0    | helper 0 failed | *helper 0 ended again in 0, help 0
         0    | helper 0 failed | *helper 0 ended again in 0.1
         0.05 | exit 1 1        | spawn 2@0
         0.1  | tick            | help 0
         0.1  | helper 0 failed | *helper 0 ended again in 0.2",
    );
}

#[test]
fn a_helper_that_runs_once_is_not_started_again() {
    let once = HelperRole { respawn: false, ..PROBE };
    for end in ["0", "1", "failed"] {
        tell_with(
            &[once],
            one(),
            &format!(
                "0   | started        | help 0, spawn 1@0
                 0.1 | ready 1        | -
                 0.2 | helper 0 {end} | *helper 0 ended
                 900 | tick           | -
                 900 | due            | never
                 901 | stop           | stop 1
                 902 | exit 1 0       | exit 0"
            ),
        );
    }
}

#[test]
fn the_end_of_a_helper_that_has_no_process_means_nothing() {
    tell_with(
        &[PROBE],
        one(),
        "0   | helper 0 1      | -
         0   | started         | help 0, spawn 1@0
         0   | helper 0 failed | *helper 0 ended again in 0, help 0
         0   | helper 0 failed | *helper 0 ended again in 0.1
         0   | helper 0 failed | -
         0   | helper 7 1      | -
         0.1 | tick            | help 0",
    );
}

#[test]
fn those_that_end_last_are_told_when_no_worker_and_no_stray_is_left() {
    tell_with(
        &[WARDEN, PROBE],
        two(),
        "0   | started    | help 0, help 1, spawn 1@0, spawn 2@1
         1   | stop       | *stopping 2, dismiss 1, *Shutdown 1 grace 30, stop 1, *Shutdown 2 grace 30, stop 2
         1.1 | helper 1 0 | -
         1.2 | exit 1 0   | -
         1.3 | exit 2 0   | strays
         1.3 | strays 3   | -
         1.4 | strays 1   | -
         1.5 | strays 0   | dismiss 0
         1.5 | due        | 2
         1.6 | helper 0 0 | exit 0
         1.6 | due        | never",
    );
}

#[test]
fn a_stop_before_the_start_needs_no_helpers() {
    tell_with(
        &[WARDEN, PROBE],
        one(),
        "0 | stop    | exit 0
         1 | started | -",
    );
}

#[test]
fn a_helper_that_does_not_leave_is_killed() {
    tell_with(
        &[PROBE],
        one(),
        "0   | started    | help 0, spawn 1@0
         1   | stop       | dismiss 0, stop 1
         1   | due        | 1.5
         1.1 | exit 1 0   | -
         1.5 | tick       | kill helper 0
         1.6 | helper 0 0 | exit 0",
    );
    tell_with(
        &[WARDEN],
        one(),
        "0   | started    | help 0, spawn 1@0
         1   | stop       | stop 1
         2   | exit 1 0   | dismiss 0
         2.4 | tick       | -
         2.5 | tick       | kill helper 0
         2.6 | helper 0 0 | exit 0",
    );
}

#[test]
fn a_helper_the_kernel_does_not_end_delays_the_exit_by_a_second_at_most() {
    tell_with(
        &[WARDEN],
        one(),
        "0   | started  | help 0, spawn 1@0
         1   | stop     | stop 1
         2   | exit 1 0 | dismiss 0
         2.5 | tick     | kill helper 0
         2.5 | due      | 3.5
         3.5 | tick     | exit 0",
    );
}

#[test]
fn helpers_have_no_more_time_than_the_stop_has() {
    let policy = Policy { graceful_timeout: std::time::Duration::ZERO, ..one() };
    tell_with(
        &[WARDEN],
        policy,
        "0   | started       | help 0, spawn 1@0
         1   | stop          | stop 1
         1   | tick          | kill 1
         1.9 | signalled 1 9 | dismiss 0
         1.9 | due           | 2
         2   | tick          | kill helper 0, exit 0",
    );
}

#[test]
fn the_warden_is_replaced_as_long_as_workers_stop() {
    tell_with(
        &[WARDEN, PROBE],
        one(),
        "0   | started    | help 0, help 1, spawn 1@0
         1   | stop       | dismiss 1, stop 1
         1.1 | helper 0 1 | *helper 0 ended again in 0, help 0
         1.2 | helper 1 1 | -
         1.3 | exit 1 0   | dismiss 0
         1.4 | helper 0 1 | exit 0",
    );
}

#[test]
fn a_warden_in_backoff_is_not_started_for_the_end() {
    tell_with(
        &[WARDEN],
        one(),
        "0    | started         | help 0, spawn 1@0
         0.1  | helper 0 1      | help 0
         0.2  | helper 0 failed | -
         0.2  | stop            | stop 1
         0.25 | exit 1 0        | exit 0",
    );
}

#[test]
fn a_second_stop_kills_those_that_leave_with_the_workers_at_once() {
    tell_with(
        &[WARDEN, PROBE],
        one(),
        "0   | started       | help 0, help 1, spawn 1@0
         1   | stop          | dismiss 1, stop 1
         1.2 | stop          | kill 1, kill helper 1
         1.3 | helper 1 0    | -
         1.4 | signalled 1 9 | dismiss 0
         1.5 | stop          | -
         1.9 | tick          | kill helper 0
         2   | helper 0 0    | exit 0",
    );
}

#[test]
fn a_failed_first_boot_tells_helpers_too() {
    tell_with(
        &[WARDEN, PROBE],
        two(),
        "0   | started    | help 0, help 1, spawn 1@0, spawn 2@1
         0.1 | exit 1 3   | dismiss 1, stop 2
         0.2 | exit 2 0   | dismiss 0
         0.3 | helper 0 0 | -
         0.4 | helper 1 0 | exit 3",
    );
}

#[test]
fn those_who_write_down_what_others_say_end_when_all_others_have() {
    tell_with(
        &[WARDEN, LOG, PROBE],
        one(),
        "0   | started    | help 0, help 1, help 2, spawn 1@0
         1   | stop       | dismiss 2, stop 1
         1.1 | helper 2 0 | -
         2   | exit 1 0   | dismiss 0
         2.1 | helper 0 0 | *leaving with 0, dismiss 1
         2.1 | due        | 32
         2.2 | helper 1 0 | exit 0",
    );
}

#[test]
fn they_have_the_time_of_the_stop_and_are_replaced_until_then() {
    tell_with(
        &[LOG],
        one(),
        "0   | started    | help 0, spawn 1@0
         1   | stop       | stop 1
         1.1 | helper 0 9 | *helper 0 ended again in 0, help 0
         2   | exit 1 0   | *exited 1 Shutdown, *leaving with 0, dismiss 0
         31  | tick       | -
         32  | tick       | kill helper 0, exit 1 unwritten",
    );
}

#[test]
fn whatever_the_others_took_there_is_time_to_write_it_down() {
    tell_with(
        &[LOG],
        one(),
        "0    | started       | help 0, spawn 1@0
         1    | stop          | stop 1
         1.1  | stop          | kill 1
         2.1  | tick          | *unreaped 1 Shutdown, *leaving with 1, dismiss 0
         2.1  | due           | 2.6
         2.2  | helper 0 0    | exit 1 unreaped 1",
    );
}

#[test]
fn one_in_backoff_is_started_at_once_to_write_down_what_the_others_said() {
    tell_with(
        &[LOG],
        one(),
        "0    | started         | help 0, spawn 1@0
         0.1  | helper 0 9      | help 0
         0.2  | helper 0 failed | -
         0.2  | stop            | stop 1
         0.25 | exit 1 0        | *exited 1 Shutdown, *leaving with 0, help 0, dismiss 0
         0.3  | helper 0 0      | exit 0",
    );
}

#[test]
fn one_that_is_killed_while_it_writes_that_down_is_started_once_more() {
    tell_with(
        &[WARDEN, LOG],
        one(),
        "0   | started         | help 0, help 1, spawn 1@0
         1   | stop            | stop 1
         2   | exit 1 0        | dismiss 0
         2.1 | helper 0 0      | *leaving with 0, dismiss 1
         2.2 | helper 1 killed | *helper 1 ended again in 0, help 1, dismiss 1
         2.2 | due             | 32
         2.3 | helper 1 killed | exit 1 unwritten",
    );
    // One that ended of itself has done what it could.
    tell_with(
        &[LOG],
        one(),
        "0   | started    | help 0, spawn 1@0
         1   | stop       | stop 1
         2   | exit 1 0   | *exited 1 Shutdown, *leaving with 0, dismiss 0
         2.1 | helper 0 1 | exit 1 unwritten",
    );
}

#[test]
fn who_is_killed_for_its_slowness_is_not_started_once_more() {
    tell_with(
        &[LOG],
        one(),
        "0    | started        | help 0, spawn 1@0
         1    | stop           | stop 1
         2    | exit 1 0       | *exited 1 Shutdown, *leaving with 0, dismiss 0
         32.1 | helper 0 killed| exit 1 unwritten",
    );
}
