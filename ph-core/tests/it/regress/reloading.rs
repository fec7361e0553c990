//! Mended bugs of reloads, of drains, and of replacement beside them.

use std::time::Duration;

use ph_core::arbiter::{Arbiter, ExitWith, OnCrashLoop, Policy, Share};

use super::policy;
use crate::story::{continue_with, tell};

/// Two workers that were ready long ago.
fn two(policy: Policy) -> Arbiter {
    tell(
        policy,
        "0 | started | spawn 1@0, spawn 2@1
         0 | ready 1 | -
         0 | ready 2 | -",
    )
}

/// What waited for a verdict was taken up when something else happened, perhaps never: nobody had
/// asked to be woken.
#[test]
fn what_waits_for_a_verdict_is_taken_up_at_once() {
    let table = |order: &str, answer: &str| {
        format!(
            "10 | reload   | load 2
             10 | loaded 2 | spawn 3@0 g2
             11 | {order}  | -
             11 | exit 3 1 | *exited 3 again in 0, *failed 2 back to 1: 3@0 exited, *back 2 to 1
             11 | due      | 11
             11 | tick     | {answer}"
        )
    };
    continue_with(two(policy()), &table("reload", "load 3"));
    continue_with(two(policy()), &table("drain", "stop 2, stop 1"));
}

/// The deaths of canaries were the slot's: five bad reloads were a crash loop of a slot whose worker
/// had never died, and the end of a service that ends in crash loops.
#[test]
fn the_death_of_a_canary_is_not_the_slots() {
    let mut arbiter = two(Policy { on_crash_loop: OnCrashLoop::Exit, ..policy() });
    for reload in 0..6 {
        let (at, generation, worker) = (10 + reload, 2 + reload, 3 + reload);
        arbiter = continue_with(
            arbiter,
            &format!(
                "{at} | reload              | load {generation}
                 {at} | loaded {generation} | spawn {worker}@0 g{generation}
                 {at} | exit {worker} 1     | -"
            ),
        );
    }
    continue_with(arbiter, "20 | exit 1 1 | *exited 1 again in 0, spawn 9@0");
}

/// A service that ends with any of its workers ended when a canary had not booted in time.
#[test]
fn a_canary_that_was_ended_does_not_end_the_service() {
    continue_with(
        two(Policy { exit_with: Some(ExitWith::Any), ..policy() }),
        "10 | reload        | load 2
         10 | loaded 2      | spawn 3@0 g2
         70 | tick          | abort 3
         71 | signalled 3 6 | -",
    );
}

/// The slot whose turn it was had an old successor already, for the sake of recycling. That took the
/// canary's place, and was not let into the slot before it had proved what it could not: for ever.
#[test]
fn an_old_successor_makes_way_for_the_canary() {
    let recycled = || {
        let policy = Policy { reload_surge: Share::Count(2), ..policy() };
        continue_with(
            two(policy),
            "5  | recycle 1 | spawn 3@0
             5  | recycle 2 | spawn 4@1
             10 | reload    | load 2",
        )
    };
    continue_with(
        recycled(),
        "10 | loaded 2 | *rolling 2 canary @0, *Reload 3 grace 30, stop 3, spawn 5@0 g2
         11 | ready 4  | *ready 4 6, *Recycle 2 grace 30, stop 2",
    );
}

/// Slots that had ended for good were waited for: where the old worker stops first, and enough of them
/// had ended, a roll never went on.
#[test]
fn a_slot_that_has_ended_is_not_missing() {
    continue_with(
        two(Policy { exit_with: Some(ExitWith::All), reload_surge: Share::Count(0), ..policy() }),
        "5  | exit 2 0 | -
         10 | reload   | load 2
         10 | loaded 2 | *rolling 2 canary @0, *Reload 1 grace 30, stop 1
         11 | exit 1 0 | spawn 3@0 g2",
    );
}

/// A canary that had asked for a successor got one before it had stood its test. Where workers grow old
/// before that, no reload ever ended; and where a service was drained and the successor failed, what was
/// to be restored was stopped, and waited for (seed 3).
#[test]
fn who_is_on_trial_is_not_replaced() {
    continue_with(
        two(policy()),
        "5  | drain           | stop 2, stop 1
         6  | exit 1 0        | -
         6  | exit 2 0        | -
         10 | reload          | load 2
         10 | loaded 2 hold=5 | spawn 3@0 g2
         10 | ready 3         | -
         11 | recycle 3       | *recycling 3
         15 | tick            | *canary 3, spawn 4@1 g2, spawn 5@0 g2",
    );
}

/// The canary's slot had ended for good before the canary was there, and no other went first.
#[test]
fn another_slot_goes_first_where_the_canarys_has_ended() {
    continue_with(
        two(Policy { exit_with: Some(ExitWith::All), ..policy() }),
        "5  | recycle 2 | spawn 3@1
         10 | reload    | load 2
         10 | loaded 2  | *rolling 2 canary @0
         11 | exit 1 0  | *exited 1, *rolling 2 canary @1
         11 | tick      | *Reload 3 grace 30, stop 3, spawn 4@1 g2",
    );
}

/// A ready worker that could not be spared stood before one that would never be ready, and that a
/// reload would have replaced.
#[test]
fn who_serves_nobody_is_replaced_before_who_does() {
    let policy =
        Policy { target: 3, reload_surge: Share::Count(0), boot_timeout: None, ..policy() };
    tell(
        policy,
        "0  | started  | spawn 1@0, spawn 2@1, spawn 3@2
         1  | ready 2  | -
         9  | reload   | load 2
         9  | loaded 2 | stop 1
         10 | exit 1 0 | spawn 4@0 g2
         11 | ready 4  | -
         12 | tick     | *canary 4, *Reload 3 grace 30, stop 3
         13 | exit 3 0 | spawn 5@2 g2",
    );
}

/// A drain that came while a drained service was being reloaded was lost: drained it was already.
#[test]
fn a_drain_during_the_reload_of_a_drained_service_is_not_lost() {
    continue_with(
        two(policy()),
        "5  | drain    | stop 2, stop 1
         6  | exit 1 0 | -
         6  | exit 2 0 | -
         10 | reload   | load 2
         10 | drain    | -
         10 | loaded 2 | spawn 3@0 g2
         10 | ready 3  | -
         11 | tick     | *canary 3, spawn 4@1 g2
         12 | ready 4  | -
         13 | tick     | *reloaded 2 in 3
         13 | tick     | *draining, *Drain 4 grace 30, stop 4, *Drain 3 grace 30, stop 3",
    );
}

/// A worker that was replaced by one like it, while a canary stood its test, was told that its
/// configuration was not the current one.
#[test]
fn who_is_recycled_beside_a_canary_is_recycled() {
    continue_with(
        two(Policy { reload_surge: Share::Count(2), ..policy() }),
        "10 | reload    | load 2
         10 | loaded 2  | spawn 3@0 g2
         10 | recycle 2 | spawn 4@1
         11 | ready 4   | *ready 4 1, *Recycle 2 grace 30, stop 2",
    );
}

/// Workers of the old configuration were judged by the numbers of the new one.
#[test]
fn each_worker_is_judged_by_its_own_configuration() {
    continue_with(
        two(Policy { backoff_min: Duration::from_secs(3), max_memory: Some(10), ..policy() }),
        "10 | reload                     | weigh 1, weigh 2, load 2
         10 | loaded 2 wait=20 memory=99 | spawn 3@0 g2
         10 | memory 2 50                | -
         10 | memory 2 50                | -
         10 | memory 2 50                | *recycling 2 heavy
         10 | exit 2 1                   | spawn 4@1
         11 | exit 4 1                   | spawn 5@1
         11 | exit 5 1                   | *exited 5 again in 3",
    );
}

/// While a configuration was read, recycling was as careful as in a roll already (seed 90).
#[test]
fn the_reading_of_a_configuration_holds_up_no_recycling() {
    let policy = Policy {
        target: 3,
        reload_surge: Share::Count(0),
        max_unavailable: Share::Count(1),
        ..policy()
    };
    tell(
        policy,
        "0  | started   | spawn 1@0, spawn 2@1, spawn 3@2
         1  | ready 1   | -
         1  | ready 2   | -
         9  | reload    | load 2
         10 | recycle 1 | stop 1",
    );
}

/// A worker that could not be spared in a roll was not replaced when the roll was over, until something
/// else happened (seed 617).
#[test]
fn the_end_of_a_roll_lets_recycling_go_on() {
    let policy = Policy {
        target: 3,
        reload_surge: Share::Count(0),
        max_unavailable: Share::Count(1),
        ..policy()
    };
    tell(
        policy,
        "0  | started   | spawn 1@0, spawn 2@1, spawn 3@2
         1  | ready 1   | -
         1  | ready 2   | -
         10 | exit 3 1  | spawn 4@2
         10 | exit 4 1  | -
         10 | reload    | load 2
         10 | loaded 2  | spawn 5@2 g2
         11 | recycle 1 | -
         12 | exit 5 1  | spawn 6@2, stop 1",
    );
}

/// Where all slots that a lower number left had ended for good, the first of them went first, and was
/// waited for; with the number that came with the configuration the service was over, and stayed
/// (seed 1240).
#[test]
fn a_number_that_leaves_only_slots_that_have_ended_ends_the_service() {
    continue_with(
        two(Policy { exit_with: Some(ExitWith::All), ..policy() }),
        "5  | exit 1 7           | -
         10 | reload             | load 2
         10 | loaded 2 workers=1 | *rolling 2 canary @1, spawn 3@1 g2
         11 | ready 3            | -
         12 | tick               | *canary 3, *scaled 2 to 1, *ends with 7, *stopping 2, *Shutdown 2 grace 30, stop 2, *Shutdown 3 grace 30, stop 3",
    );
}

/// A successor that was withdrawn, for want of surge, left a slot that could have gone the other way at
/// once, and did when something else happened (seed 2898).
#[test]
fn a_slot_whose_successor_is_withdrawn_may_go_the_other_way() {
    let policy = Policy {
        target: 3,
        reload_surge: Share::Percent(50),
        max_unavailable: Share::Count(1),
        ..policy()
    };
    tell(
        policy,
        "0 | started   | spawn 1@0, spawn 2@1, spawn 3@2
         1 | ready 1   | -
         1 | ready 2   | -
         5 | recycle 1 | spawn 4@0
         5 | recycle 2 | spawn 5@1
         6 | scale 2   | stop 5, stop 3, stop 2",
    );
}

/// A worker that had stood its test, and was stuck afterwards, counted as one on trial when it died: the
/// service that ends with any of its workers went on (seed 4319).
#[test]
fn who_has_stood_its_test_is_not_on_trial_when_it_is_stuck() {
    continue_with(
        two(Policy { exit_with: Some(ExitWith::Any), boot_timeout: None, ..policy() }),
        "10 | reload             | load 2
         10 | loaded 2 timeout=8 | spawn 3@0 g2
         10 | ready 3            | -
         11 | tick               | stop 1, spawn 4@1 g2
         11 | exit 1 0           | -
         16 | tick               | look 3
         16 | beat 3 10          | -
         18 | tick               | look 3
         18 | beat 3 10          | abort 3
         19 | signalled 3 6      | *ends with 134, *exited 3 Stuck, *stopping 2, *Shutdown 2 grace 30, stop 2, *Shutdown 4 grace 30, stop 4",
    );
}

/// Where a new configuration has no surge, a canary was started for the surge of the old one, and stopped
/// in the same breath (seed 15783).
#[test]
fn no_canary_is_started_for_a_surge_that_is_no_more() {
    tell(
        Policy { target: 1, ..policy() },
        "0  | started          | spawn 1@0
         1  | ready 1          | -
         5  | recycle 1        | spawn 2@0
         9  | reload           | load 2
         10 | loaded 2 surge=0 | stop 2, stop 1
         11 | exit 1 0         | spawn 3@0 g2",
    );
}

/// A drain that began in the turn in which the target fell found a recycling slot without surge: its
/// successor was stopped for a lower target, which it was not beyond (seed 627579460044).
#[test]
fn a_drain_takes_the_successors_that_a_lower_target_has_no_surge_for() {
    tell(
        Policy {
            target: 4,
            reload_surge: Share::Percent(50),
            min_uptime: Duration::ZERO,
            ..policy()
        },
        "0 | started   | spawn 1@0, spawn 2@1, spawn 3@2, spawn 4@3
         1 | ready 1   | -
         1 | ready 2   | -
         1 | ready 3   | -
         1 | ready 4   | -
         5 | reload    | load 2
         5 | loaded 2  | spawn 5@0 g2
         5 | drain     | -
         6 | ready 5   | stop 1, spawn 6@1 g2, spawn 7@2 g2
         6 | recycle 5 | -
         6 | ready 6   | stop 2, spawn 8@3 g2
         6 | recycle 6 | -
         6 | ready 7   | stop 3, spawn 9@0 g2
         6 | ready 8   | *ready 8 0, *Reload 4 grace 30, stop 4, spawn 10@1 g2, *reloaded 2 in 1
         7 | scale 2   | *scaled 4 to 2, *draining, *ScaleDown 8 grace 30, stop 8, *ScaleDown 7 grace 30, stop 7, *Drain 6 grace 30, stop 6, *Drain 10 grace 30, stop 10, *Drain 5 grace 30, stop 5, *Drain 9 grace 30, stop 9",
    );
}

/// A roll that failed took the target back, and nobody was left: that the service ends with its workers was
/// told before what it followed from (seed 125118228841).
#[test]
fn that_a_roll_failed_is_told_before_what_follows_from_it() {
    continue_with(
        two(Policy { exit_with: Some(ExitWith::All), ..policy() }),
        "10 | reload            | load 2
         10 | exit 1 7          | -
         10 | loaded 2 workers=3 | spawn 3@1 g2
         11 | ready 3           | -
         12 | tick              | *canary 3, *scaled 2 to 3, *Reload 2 grace 30, stop 2, spawn 4@2 g2
         13 | exit 2 0          | -
         13 | exit 3 5          | -
         14 | exit 4 1          | *exited 4 again in 0, *failed 2 back to 1: 4@2 exited, *scaled 3 to 2, *ends with 7, *stopping 0, exit 7",
    );
}
