//! Who counts as stuck, and who does not.

use ph_core::arbiter::{Policy, Readiness};

use super::{command, judged, one};
use crate::story::tell;

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
fn a_command_is_judged_from_its_first_beat_on() {
    let policy = Policy { target: 1, readiness: Readiness::Reported, ..command() };
    tell(
        Policy { timeout: judged().timeout, boot_timeout: None, ..policy },
        "0    | started   | spawn 1@0
         0    | ready 1   | -
         0    | due       | never
         1000 | watched 1 | -
         1000 | due       | 1006
         1005 | watched 1 | -
         1006 | tick      | look 1
         1006 | beat 1 1000 | -
         1008 | tick      | look 1
         1008 | beat 1 1000 | *Stuck 1 grace 5, abort 1",
    );
}

#[test]
fn a_command_that_beats_before_it_is_ready_is_judged_once_it_is() {
    let policy = Policy { target: 1, readiness: Readiness::Reported, ..command() };
    tell(
        Policy { timeout: judged().timeout, boot_timeout: None, ..policy },
        "0   | started   | spawn 1@0
         1   | watched 1 | -
         1   | due       | never
         100 | ready 1   | -
         100 | due       | 106",
    );
}
