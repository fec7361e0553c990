//! Workers that have served enough are replaced.

use ph_core::arbiter::{Policy, Share};

use super::{one, two};
use crate::story::tell;

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
