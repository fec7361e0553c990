//! A reload: one canary, then the rest, or everything back as it was.

use std::time::Duration;

use ph_core::arbiter::{Arbiter, Policy, Share};

use super::{command, one, two};
use crate::story::{continue_with, tell};

/// Four workers that were ready long ago, and one more at a time.
fn four() -> Arbiter {
    tell(
        Policy { target: 4, reload_surge: Share::Count(1), ..one() },
        "0 | started | spawn 1@0, spawn 2@1, spawn 3@2, spawn 4@3
         1 | ready 1 | -
         1 | ready 2 | -
         1 | ready 3 | -
         1 | ready 4 | -",
    )
}

#[test]
fn the_canary_goes_first_and_proves_itself_beside_the_old_worker() {
    continue_with(
        four(),
        "100   | reload   | *loading 2, load 2
         100   | due      | 160
         100.5 | loaded 2 | *rolling 2 canary @0, spawn 5@0 g2
         101   | ready 5  | *ready 5 0.5
         101   | due      | 102
         102   | tick     | *canary 5, *Reload 1 grace 30, stop 1, spawn 6@1 g2
         102.1 | ready 6  | stop 2, spawn 7@2 g2
         102.2 | ready 7  | stop 3, spawn 8@3 g2
         102.3 | ready 8  | stop 4
         102.4 | exit 1 0 | -
         103.1 | tick     | -
         103.2 | tick     | -
         103.3 | tick     | *reloaded 2 in 3.3",
    );
}

#[test]
fn a_refused_configuration_changes_nothing() {
    let before = four();
    let after = continue_with(
        before.clone(),
        "100 | reload    | load 2
         101 | refused 2 | *refused 2
         101 | loaded 2  | -",
    );
    let mut before = before;
    before.step(crate::story::time("101"), ph_core::arbiter::Event::Tick, &mut Vec::new());
    assert_eq!(before, after);
}

#[test]
fn a_configuration_of_which_nothing_is_to_come_changes_nothing() {
    continue_with(
        four(),
        "100 | reload     | load 2
         101 | unneeded 2 | *unneeded 2
         101 | loaded 2   | -
         102 | reload     | load 2",
    );
}

#[test]
fn a_configuration_that_is_not_read_in_time_is_refused() {
    continue_with(
        four(),
        "100 | reload   | load 2
         160 | tick     | abandon, *late load 2
         161 | loaded 2 | -
         162 | reload   | load 2",
    );
}

#[test]
fn a_canary_that_dies_takes_the_reload_with_it_and_nobody_else() {
    continue_with(
        four(),
        "100 | reload   | load 2
         100 | loaded 2 | spawn 5@0 g2
         101 | exit 5 1 | *exited 5 again in 0, *failed 2 back to 1: 5@0 exited, *back 2 to 1
         200 | tick     | -",
    );
}

#[test]
fn a_canary_that_is_ready_and_dies_before_it_has_proved_itself_fails_too() {
    continue_with(
        four(),
        "100   | reload          | load 2
         100   | loaded 2 hold=10 | spawn 5@0 g2
         101   | ready 5         | -
         110.5 | signalled 5 11  | *exited 5 again in 0, *failed 2 back to 1: 5@0 exited, *back 2 to 1",
    );
}

#[test]
fn a_canary_that_does_not_boot_in_time_fails() {
    continue_with(
        four(),
        "100 | reload   | load 2
         100 | loaded 2 | spawn 5@0 g2
         160 | tick     | abort 5
         165 | tick     | kill 5
         165 | exit 5 0 | -",
    );
}

#[test]
fn a_failure_among_the_rest_brings_everything_back() {
    continue_with(
        four(),
        "100 | reload    | load 2
         100 | loaded 2  | spawn 5@0 g2
         101 | ready 5   | -
         102 | tick      | stop 1, spawn 6@1 g2
         103 | ready 6   | stop 2, spawn 7@2 g2
         104 | exit 7 1  | spawn 8@0
         104 | ready 8   | stop 5, spawn 9@1
         105 | ready 9   | *ready 9 1, *Rollback 6 grace 30, stop 6, *back 2 to 1
         106 | exit 5 0  | -
         106 | exit 6 0  | -
         107 | tick      | -",
    );
}

#[test]
fn what_fails_while_everything_comes_back_keeps_no_better_configuration_out() {
    continue_with(
        four(),
        "100 | reload    | load 2
         100 | loaded 2  | spawn 5@0 g2
         101 | ready 5   | -
         102 | tick      | stop 1, spawn 6@1 g2
         103 | exit 6 1  | spawn 7@0
         103 | reload    | -
         104 | exit 7 1  | *exited 7 again in 0, *back 2 to 1, *loading 3, load 3, spawn 8@0",
    );
}

#[test]
fn orders_that_come_during_a_roll_are_one_and_wait_for_its_verdict() {
    continue_with(
        tell(one(), "0 | started | spawn 1@0\n 1 | ready 1 | -"),
        "10   | reload   | load 2
         10   | reload   | -
         10   | loaded 2 | spawn 2@0 g2
         10.5 | reload   | -
         10.6 | reload   | -
         11   | ready 2  | -
         12   | tick     | *canary 2, *Reload 1 grace 30, stop 1, *reloaded 2 in 2
         12   | tick     | load 3
         12   | loaded 3 | spawn 3@0 g3
         13   | ready 3  | -
         14   | tick     | stop 2
         15   | tick     | -",
    );
}

#[test]
fn each_worker_stops_in_the_time_it_was_started_with() {
    continue_with(
        tell(
            Policy { graceful_timeout: Duration::from_secs(9), ..one() },
            "0 | started | spawn 1@0\n 1 | ready 1 | -",
        ),
        "10 | reload           | load 2
         10 | loaded 2 grace=3 | spawn 2@0 g2
         10 | ready 2          | -
         11 | tick             | *canary 2, *Reload 1 grace 9, stop 1, *reloaded 2 in 1
         12 | stop             | *stopping 2, *Shutdown 2 grace 3, stop 2",
    );
}

#[test]
fn the_number_of_workers_follows_the_file_only_where_that_has_changed() {
    continue_with(
        two_ready(),
        "5  | scale 3           | spawn 3@2
         5  | ready 3           | -
         10 | reload            | load 2
         10 | loaded 2          | spawn 4@0 g2
         10 | ready 4           | -
         11 | tick              | stop 1, spawn 5@1 g2
         11 | ready 5           | stop 2, spawn 6@2 g2
         11 | ready 6           | stop 3
         12 | tick              | *reloaded 2 in 2
         20 | reload            | load 3
         20 | loaded 3 workers=1 | spawn 7@0 g3
         20 | ready 7           | -
         21 | tick              | *canary 7, *scaled 3 to 1, *ScaleDown 6 grace 30, stop 6, *ScaleDown 5 grace 30, stop 5, *Reload 4 grace 30, stop 4, *reloaded 3 in 1",
    );
}

#[test]
fn a_number_that_came_with_a_failed_configuration_goes_with_it() {
    continue_with(
        two_ready(),
        "10 | reload             | load 2
         10 | loaded 2 workers=3 | spawn 3@0 g2
         10 | ready 3            | -
         11 | tick               | *canary 3, *scaled 2 to 3, *Reload 1 grace 30, stop 1, spawn 4@2 g2, spawn 5@1 g2
         11 | exit 5 1           | *exited 5 again in 0, *failed 2 back to 1: 5@1 exited, *scaled 3 to 2, *ScaleDown 4 grace 30, stop 4, spawn 6@0
         12 | ready 6            | *ready 6 1, *Rollback 3 grace 30, stop 3, *back 2 to 1",
    );
}

fn two_ready() -> Arbiter {
    tell(
        Policy { reload_surge: Share::Count(1), ..two() },
        "0 | started | spawn 1@0, spawn 2@1
         1 | ready 1 | -
         1 | ready 2 | -",
    )
}

#[test]
fn a_slot_in_a_crash_loop_is_the_canary_and_does_not_wait() {
    tell(
        Policy { target: 2, ..one() },
        "0   | started  | spawn 1@0, spawn 2@1
         0   | ready 1  | -
         0   | exit 2 1 | spawn 3@1
         0   | exit 3 1 | -
         0   | reload   | load 2
         0   | loaded 2 | *rolling 2 canary @1, spawn 4@1 g2
         0.1 | ready 4  | -
         1.1 | tick     | *canary 4, spawn 5@0 g2",
    );
}

#[test]
fn a_command_is_proven_when_it_has_lived_min_uptime() {
    tell(
        Policy { target: 1, ..command() },
        "0    | started  | spawn 1@0
         0    | ready 1  | -
         1    | tick     | *ready 1 1
         10   | reload   | load 2
         10   | loaded 2 | spawn 2@0 g2
         10.1 | ready 2  | -
         11.1 | tick     | *ready 2 1.1, *canary 2, *Reload 1 grace 30, stop 1, *reloaded 2 in 1.1",
    );
}

#[test]
fn without_a_surge_the_old_worker_stops_first_and_comes_back_if_the_new_one_fails() {
    tell(
        Policy { target: 2, reload_surge: Share::Count(0), max_unavailable: Share::Count(1), ..one() },
        "0  | started  | spawn 1@0, spawn 2@1
         0  | ready 1  | -
         0  | ready 2  | -
         10 | reload   | load 2
         10 | loaded 2 | *rolling 2 canary @0, *Reload 1 grace 30, stop 1
         11 | exit 1 0 | spawn 3@0 g2
         12 | exit 3 1 | *exited 3 again in 0, *failed 2 back to 1: 3@0 exited, spawn 4@0, *back 2 to 1
         13 | ready 4  | -",
    );
}

#[test]
fn as_many_stop_before_their_successors_are_ready_as_may_be_missing() {
    tell(
        Policy {
            target: 4,
            reload_surge: Share::Count(1),
            max_unavailable: Share::Count(1),
            ..one()
        },
        "0  | started  | spawn 1@0, spawn 2@1, spawn 3@2, spawn 4@3
         0  | ready 1  | -
         0  | ready 2  | -
         0  | ready 3  | -
         0  | ready 4  | -
         10 | reload   | load 2
         10 | loaded 2 | spawn 5@0 g2
         10 | ready 5  | -
         11 | tick     | stop 1, stop 3, spawn 6@1 g2
         12 | exit 3 0 | spawn 7@2 g2",
    );
}

#[test]
fn a_stop_in_the_middle_of_a_reload_is_a_stop() {
    continue_with(
        four(),
        "100 | reload   | load 2
         100 | stop     | abandon, stop 1, stop 2, stop 3, stop 4
         100 | loaded 2 | -
         100 | reload   | -",
    );
}

#[test]
fn a_drained_service_comes_back_by_a_reload() {
    continue_with(
        two_ready(),
        "5  | drain     | *draining, *Drain 2 grace 30, stop 2, *Drain 1 grace 30, stop 1
         6  | exit 1 0  | -
         6  | exit 2 0  | -
         6  | drain     | -
         7  | reload    | load 2
         7  | refused 2 | -
         8  | reload    | load 2
         8  | loaded 2  | *rolling 2 canary @0, spawn 3@0 g2
         9  | ready 3   | -
         10 | tick      | *canary 3, spawn 4@1 g2",
    );
}

#[test]
fn a_drain_during_a_roll_waits_for_its_verdict() {
    continue_with(
        tell(one(), "0 | started | spawn 1@0\n 1 | ready 1 | -"),
        "10 | reload   | load 2
         10 | loaded 2 | spawn 2@0 g2
         10 | drain    | -
         11 | ready 2  | -
         12 | tick     | *canary 2, *Reload 1 grace 30, stop 1, *reloaded 2 in 2
         12 | tick     | *draining, *Drain 2 grace 30, stop 2",
    );
}

#[test]
fn an_old_worker_that_dies_beside_the_canary_is_replaced_by_an_old_one() {
    continue_with(
        two_ready(),
        "10 | reload   | load 2
         10 | loaded 2 | spawn 3@0 g2
         11 | exit 2 1 | spawn 4@1",
    );
}
