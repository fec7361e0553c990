//! An upgrade, as the master sees it that is to go and as its successor does; and the verdict on a first
//! boot that somebody waits for.

use std::time::Duration;

use ph_core::arbiter::{Arbiter, Policy};

use super::{command, one, two};
use crate::story::{continue_with, tell};

/// One worker that was ready long ago.
fn serving() -> Arbiter {
    tell(one(), "0 | started | spawn 1@0\n 1 | ready 1 | -")
}

/// The same in the middle of an upgrade.
fn upgrading() -> Arbiter {
    continue_with(serving(), "100 | upgrade | *upgrading, successor")
}

/// And when the successor was told to take over.
fn committing() -> Arbiter {
    continue_with(upgrading(), "101 | successor ready | commit")
}

#[test]
fn a_successor_boots_takes_over_and_only_then_the_workers_stop() {
    continue_with(
        serving(),
        "100 | upgrade         | *upgrading, successor
         100 | due             | 160
         102 | successor ready | commit
         102 | due             | 112
         103 | taken over      | hand over, *upgraded in 3, *stopping 1, *Shutdown 1 grace 30, stop 1
         104 | successor ended 0 | -
         105 | exit 1 0        | *exited 1 Shutdown, *leaving with 0, exit 0",
    );
}

#[test]
fn whatever_becomes_of_a_successor_that_has_not_taken_over_nothing_changes_here() {
    for (before, end) in [
        (upgrading(), "102 | successor ended failed | *no successor"),
        (upgrading(), "102 | successor ended 0      | *successor ended"),
        (upgrading(), "102 | successor ended 1      | *successor ended"),
        (committing(), "102 | successor ended 0     | *successor ended"),
    ] {
        let mut wanted = serving();
        let after = continue_with(before, end);
        wanted.step(crate::story::time("102"), ph_core::arbiter::Event::Tick, &mut Vec::new());
        assert_eq!(after, wanted);
        continue_with(after, "200 | upgrade | *upgrading, successor");
    }
}

#[test]
fn one_that_is_not_ready_in_time_is_told_to_stop_and_then_killed() {
    continue_with(
        upgrading(),
        "160 | tick              | stop successor, *successor late
         160 | successor ready   | -
         160 | due               | 190
         190 | tick              | kill successor
         190 | due               | 190.5
         190.5 | tick            | -
         190.5 | due             | never
         191 | upgrade           | -
         191 | successor ended 0 | *upgrading, successor",
    );
}

#[test]
fn one_that_is_ready_and_does_not_take_over_is_given_up() {
    continue_with(
        committing(),
        "111 | tick              | stop successor, *successor does not take over
         111 | taken over        | -
         112 | successor ended 0 | -
         112 | tick              | -",
    );
}

#[test]
fn a_look_that_comes_too_late_condemns_no_successor() {
    continue_with(
        upgrading(),
        "200 | tick            | *late 40
         200 | due             | 260
         259 | successor ready | commit
         300 | tick            | *late 31
         310 | tick            | stop successor, *successor does not take over",
    );
}

#[test]
fn what_nobody_has_asked_for_has_no_effect() {
    continue_with(
        serving(),
        "100 | successor ready   | -
         100 | taken over        | -
         100 | successor ended 1 | -
         100 | predecessor gone  | -",
    );
    continue_with(upgrading(), "101 | taken over | -");
}

#[test]
fn upgrade_and_reload_wait_for_each_other() {
    continue_with(
        serving(),
        "100 | reload            | load 2
         100 | upgrade           | -
         100 | refused 2         | *refused 2, *upgrading, successor
         101 | reload            | -
         102 | successor ended 1 | *successor ended, *loading 2, load 2
         102 | loaded 2          | spawn 2@0 g2
         102 | upgrade           | -
         103 | ready 2           | -
         104 | tick              | *canary 2, *Reload 1 grace 30, stop 1, *reloaded 2 in 2
         104 | tick              | successor",
    );
}

#[test]
fn a_reload_or_drain_that_waits_for_a_successor_wakes_nobody() {
    for order in ["reload", "drain"] {
        let waiting = continue_with(upgrading(), &format!("101 | {order} | -\n 101 | due | 160"));
        continue_with(waiting, "160 | tick | stop successor\n 160 | due | 190");
    }
}

#[test]
fn an_upgrade_that_waits_begins_at_once_when_a_tick_settles_the_roll() {
    continue_with(
        serving(),
        "100 | drain    | stop 1
         101 | exit 1 0 | -
         102 | reload   | load 2
         102 | loaded 2 | spawn 2@0 g2
         102 | upgrade  | -
         103 | ready 2  | -
         103 | due      | 104
         104 | tick     | *canary 2, *reloaded 2 in 2
         104 | due      | 104
         104 | tick     | successor
         104 | due      | 164",
    );
}

#[test]
fn orders_that_wait_at_the_end_are_the_successors() {
    continue_with(
        committing(),
        "102 | reload     | -
         102 | drain      | -
         102 | upgrade    | -
         103 | taken over | hand over, forward Reload, forward Drain, forward Upgrade, stop 1",
    );
    continue_with(upgrading(), "101 | upgrade | -\n 102 | successor ended 1 | successor");
}

#[test]
fn a_stop_stops_both_and_waits_for_the_successor() {
    for before in [upgrading(), committing()] {
        continue_with(
            before,
            "102 | stop              | stop successor, stop 1
             103 | exit 1 0          | -
             104 | taken over        | -
             105 | successor ended 0 | exit 0",
        );
    }
}

#[test]
fn a_successor_that_hears_of_no_stop_does_not_hold_it_up() {
    continue_with(
        upgrading(),
        "102 | stop     | stop successor, stop 1
         103 | exit 1 0 | -
         132 | tick     | kill successor
         132.1 | successor ended 1 | exit 0",
    );
}

#[test]
fn a_successor_that_the_kernel_does_not_end_does_not_hold_up_a_stop() {
    continue_with(
        upgrading(),
        "102   | stop     | stop successor, stop 1
         103   | exit 1 0 | -
         132   | tick     | kill successor
         132   | due      | 132.5
         132.5 | tick     | exit 0",
    );
}

#[test]
fn a_second_stop_kills_both() {
    continue_with(
        upgrading(),
        "102 | stop     | stop successor, stop 1
         103 | stop     | kill successor, kill 1
         104 | exit 1 0 | exit 0",
    );
}

#[test]
fn a_stop_after_the_successor_has_taken_over_is_this_masters_alone() {
    continue_with(
        committing(),
        "102 | taken over | hand over, stop 1
         103 | stop       | -
         103 | upgrade    | -
         104 | stop       | kill 1
         104 | exit 1 0   | exit 0",
    );
}

#[test]
fn an_upgrade_leads_out_of_a_crash_loop() {
    tell(
        one(),
        "0 | started  | spawn 1@0
         0 | exit 1 1 | spawn 2@0
         0 | exit 2 1 | -
         0 | upgrade  | *upgrading, successor",
    );
}

/// A master whose first boot somebody waits for.
fn awaited(policy: Policy) -> Arbiter {
    Arbiter::new(policy).with_boot_verdict(None)
}

#[test]
fn a_first_boot_is_done_when_every_slot_has_a_worker_that_is_ready() {
    continue_with(
        awaited(two()),
        "0 | started  | spawn 1@0, spawn 2@1
         1 | ready 1  | *ready 1 1
         2 | exit 2 1 | *exited 2 again in 0, spawn 3@1
         3 | ready 3  | *ready 3 1, *booted in 3
         4 | exit 1 1 | spawn 4@0
         4 | exit 3 1 | spawn 5@1",
    );
}

#[test]
fn where_the_worker_of_every_slot_dies_the_service_ends() {
    continue_with(
        awaited(two()),
        "0 | started  | spawn 1@0, spawn 2@1
         1 | exit 1 1 | spawn 3@0
         1 | exit 2 1 | *exited 2 again in 0, *not booted, *stopping 1, *Shutdown 3 grace 30, stop 3
         2 | exit 3 0 | exit 1",
    );
}

#[test]
fn a_slot_that_died_once_and_is_ready_counts_for_the_boot() {
    continue_with(
        awaited(two()),
        "0 | started  | spawn 1@0, spawn 2@1
         1 | exit 1 1 | spawn 3@0
         2 | ready 3  | -
         3 | exit 2 1 | *exited 2 again in 0, spawn 4@1
         4 | ready 4  | *ready 4 1, *booted in 4",
    );
}

#[test]
fn a_first_boot_has_boot_timeout_for_all() {
    continue_with(
        awaited(Policy { boot_timeout: Some(Duration::from_secs(20)), ..two() }),
        "0  | started  | spawn 1@0, spawn 2@1
         1  | ready 1  | -
         5  | exit 2 1 | spawn 3@1
         20 | tick     | *not booted in time, *stopping 2, *Shutdown 1 grace 30, stop 1, *Shutdown 3 grace 30, stop 3",
    );
    continue_with(
        awaited(Policy { boot_timeout: None, ..one() }),
        "0  | started | spawn 1@0
         0  | due     | 60
         60 | tick    | *not booted in time, *stopping 1, *Shutdown 1 grace 30, stop 1",
    );
    continue_with(
        awaited(Policy { boot_timeout: None, ..one() }),
        "0   | started | spawn 1@0
         100 | tick    | *late 40
         100 | due     | 160",
    );
}

#[test]
fn slots_that_are_scaled_away_have_no_part_in_the_verdict() {
    continue_with(
        awaited(two()),
        "0 | started | spawn 1@0, spawn 2@1
         1 | ready 1 | -
         2 | scale 1 | *scaled 2 to 1, *booted in 2, *ScaleDown 2 grace 30, stop 2",
    );
    continue_with(
        awaited(one()),
        "0 | started | spawn 1@0
         1 | scale 2 | spawn 2@1
         2 | ready 1 | *ready 1 2, *booted in 2",
    );
}

#[test]
fn a_first_boot_of_commands_is_done_when_every_one_has_lived_min_uptime() {
    continue_with(
        awaited(command()),
        "0   | started | spawn 1@0, spawn 2@1
         0   | ready 1 | -
         0.5 | ready 2 | -
         1   | tick    | *ready 1 1
         1.5 | tick    | *ready 2 1.5, *booted in 1.5",
    );
    continue_with(
        awaited(command()),
        "0   | started  | spawn 1@0, spawn 2@1
         0   | ready 1  | -
         0.5 | ready 2  | -
         1   | tick     | *ready 1 1
         1.2 | exit 2 1 | spawn 3@1
         1.2 | ready 3  | -
         2.2 | tick     | *ready 3 1, *booted in 2.2",
    );
}

#[test]
fn a_successor_nobody_waits_for_any_more_serves_on_however_its_workers_fare() {
    continue_with(
        awaited(two()),
        "0   | started          | spawn 1@0, spawn 2@1
         1   | exit 1 1         | spawn 3@0
         1   | predecessor gone | -
         1   | exit 2 1         | spawn 4@1
         61  | tick             | abort 3, abort 4
         62  | tick             | -",
    );
}

#[test]
fn a_stop_during_a_first_boot_is_a_stop() {
    continue_with(
        awaited(one()),
        "0  | started  | spawn 1@0
         1  | stop     | *stopping 1, *Shutdown 1 grace 30, stop 1
         2  | exit 1 0 | exit 0",
    );
}
