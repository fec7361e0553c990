//! Readiness by probes.

use std::time::Duration;

use ph_core::arbiter::{Policy, Readiness};

use super::command;
use crate::story::tell;

fn probed() -> Policy {
    Policy {
        target: 1,
        readiness: Readiness::Probed,
        ready_interval: Duration::from_secs(2),
        ..command()
    }
}

#[test]
fn a_worker_is_ready_when_a_probe_of_it_succeeds() {
    tell(
        probed(),
        "0   | started        | spawn 1@0
         0   | probed 1 ready | -
         0.1 | ready 1        | probe 1
         0.1 | ready 1        | -
         0.2 | probed 1 not   | -
         0.2 | due            | 2.2
         2.2 | tick           | probe 1
         2.5 | probed 1 ready | *ready 1 2.5
         2.6 | probed 1 not   | -
         9   | exit 1 1       | spawn 2@0",
    );
}

#[test]
fn a_probe_that_hangs_is_ended_and_another_one_follows() {
    tell(
        probed(),
        "0    | started        | spawn 1@0
         0    | ready 1        | probe 1
         10   | tick           | end probe 1
         11   | probed 1 ready | -
         12   | tick           | probe 1
         12.1 | probed 1 ready | *ready 1 12.1",
    );
}

#[test]
fn whatever_ends_the_boot_ends_the_probe() {
    tell(
        probed(),
        "0  | started     | spawn 1@0
         0  | ready 1     | probe 1
         1  | exit 1 1    | end probe 1, spawn 2@0
         1  | ready 2     | probe 2
         2  | stop        | end probe 2, stop 2
         2  | probed 2 ready | -",
    );
    tell(
        Policy { boot_timeout: Some(Duration::from_secs(5)), ..probed() },
        "0  | started     | spawn 1@0
         0  | ready 1     | probe 1
         5  | tick        | end probe 1, abort 1",
    );
}

#[test]
fn a_canary_that_no_probe_finds_ready_fails() {
    tell(
        Policy { boot_timeout: Some(Duration::from_secs(5)), ..probed() },
        "0   | started        | spawn 1@0
         0   | ready 1        | probe 1
         0.1 | probed 1 ready | -
         20  | reload         | load 2
         20  | loaded 2       | spawn 2@0 g2
         20  | ready 2        | probe 2
         21  | probed 2 not   | -
         23  | tick           | probe 2
         24  | probed 2 not   | -
         25  | tick           | abort 2",
    );
}
