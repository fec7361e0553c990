//! Bugs of the end of a master, of its helpers, and of services that end with their workers.

use std::time::Duration;

use ph_core::arbiter::{ExitWith, Policy, Share};

use super::policy;
use crate::scenarios::{PROBE, WARDEN};
use crate::story::{tell, tell_with};

fn all() -> Policy {
    Policy { exit_with: Some(ExitWith::All), ..policy() }
}

/// Deadlines were handled before the stop that came with them: a helper whose wait was over was
/// started and told to leave in one breath.
#[test]
fn a_stop_goes_before_a_helper_that_is_due() {
    tell_with(
        &[PROBE],
        policy(),
        "0   | started         | help 0, spawn 1@0, spawn 2@1
         0   | helper 0 failed | help 0
         0   | helper 0 failed | -
         0.2 | stop            | stop 1, stop 2
         0.3 | exit 1 0        | -
         0.3 | exit 2 0        | exit 0",
    );
}

/// The same at the end of the stop, for those that end last.
#[test]
fn the_end_goes_before_a_warden_that_is_due() {
    tell_with(
        &[WARDEN],
        Policy { target: 1, ..policy() },
        "0    | started         | help 0, spawn 1@0
         0    | helper 0 failed | help 0
         0    | helper 0 failed | -
         0.05 | stop            | stop 1
         0.06 | exit 1 0        | strays
         0.06 | strays 1        | -
         0.2  | strays 0        | exit 0",
    );
}

/// The master slept through the time strays had, and named them by a count from before: a clean
/// stop ended with exit code 1 (seed 2116).
#[test]
fn strays_are_not_given_up_by_a_late_look() {
    tell(
        Policy { target: 1, ..policy() },
        "0    | started  | spawn 1@0
         1    | stop     | stop 1
         1.1  | exit 1 0 | strays
         1.1  | strays 2 | -
         41   | tick     | *late 39.4
         41   | due      | 41.5
         41   | strays 0 | exit 0",
    );
    tell(
        Policy { target: 1, ..policy() },
        "0    | started  | spawn 1@0
         1    | stop     | stop 1
         1.1  | exit 1 0 | strays
         1.1  | strays 2 | -
         41   | tick     | -
         41.5 | tick     | *left behind 2, exit 1 unreaped 2",
    );
}

/// The end of a stop stood fast while the master slept: strays, and helpers after them, had no time
/// at all when it woke, so they were named and killed (seed 8).
#[test]
fn the_end_of_a_stop_waits_for_a_master_that_slept() {
    tell_with(
        &[WARDEN],
        Policy { target: 1, ..policy() },
        "0    | started       | help 0, spawn 1@0
         1    | stop          | stop 1
         71   | tick          | kill 1
         71.1 | signalled 1 9 | strays
         71.1 | strays 1      | -
         71.2 | strays 0      | dismiss 0
         71.3 | helper 0 0    | exit 0",
    );
}

/// A successor that died beside the worker it was to replace ended that worker's slot for good, and
/// the service with it, although the worker served on.
#[test]
fn with_all_a_slot_has_not_ended_whose_worker_lives() {
    tell(
        all(),
        "0   | started   | spawn 1@0, spawn 2@1
         0.1 | ready 1   | -
         0.1 | ready 2   | -
         1   | exit 1 0  | -
         2   | recycle 2 | spawn 3@1
         2.1 | exit 3 1  | *exited 3 again in 0, spawn 4@1
         2.2 | ready 4   | stop 2
         2.3 | exit 2 0  | -
         3   | exit 4 5  | exit 5",
    );
}

/// So did a stuck worker whose slot had been scaled away and back, and had another worker by then.
#[test]
fn the_end_of_a_worker_that_lost_its_slot_ends_nothing() {
    let timeout = Some(Duration::from_secs(8));
    for exit_with in [ExitWith::Any, ExitWith::All] {
        tell(
            Policy { timeout, exit_with: Some(exit_with), ..policy() },
            "0    | started       | spawn 1@0, spawn 2@1
             1    | ready 1       | -
             1    | ready 2       | -
             6    | tick          | look 1, look 2
             6    | beat 1 5.9    | -
             6    | beat 2 1      | -
             9    | tick          | look 2
             9    | beat 2 1      | abort 2
             9    | scale 1       | -
             9    | scale 2       | spawn 3@1
             9.1  | ready 3       | -
             9.4  | signalled 2 6 | *exited 2 Stuck",
        );
    }
}

/// Without a surge one slot at a time may be without a worker. One that had ended for good while it
/// was that slot was never done, and nobody else was ever replaced (seed 1819).
#[test]
fn with_all_a_slot_that_ended_while_it_was_recycled_holds_nobody_up() {
    tell(
        Policy { reload_surge: Share::Count(0), ..all() },
        "0   | started   | spawn 1@0, spawn 2@1
         0.1 | ready 1   | -
         0.1 | ready 2   | -
         1   | recycle 1 | stop 1
         1.1 | exit 1 0  | spawn 3@0
         1.2 | exit 3 0  | -
         2   | recycle 2 | stop 2
         2.1 | exit 2 0  | spawn 4@1",
    );
}
