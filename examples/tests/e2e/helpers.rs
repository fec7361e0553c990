//! Helpers: children of the master that are not workers.

use std::os::unix::fs::MetadataExt as _;

use nix::sys::signal::Signal;

use crate::support::{Process, Stage, eventually};

fn helpers() -> Stage {
    let mut stage = Stage::of(env!("CARGO_BIN_EXE_helpers"), "helpers");
    let folder = stage.folder().to_str().expect("a path in UTF-8").to_owned();
    stage.variable("HELPERS_FOLDER", &folder);
    stage
}

fn lines(stage: &Stage) -> Vec<String> {
    stage.read("stdout.0").lines().map(str::to_owned).collect()
}

/// The pids a helper has said it has, so far.
fn pids(stage: &Stage, name: &str) -> Vec<Process> {
    let own = format!("{name} is ");
    let all = stage.read("stderr.0") + &stage.read("stdout.0");
    all.lines().filter_map(|line| line.strip_prefix(&own)?.parse().ok().map(Process)).collect()
}

fn pid(stage: &Stage, name: &str, count: usize) -> Process {
    eventually(name, || pids(stage, name).get(count - 1).copied())
}

fn position(lines: &[String], text: &str) -> usize {
    let found = lines.iter().position(|line| line == text);
    found.unwrap_or_else(|| panic!("no {text:?} in {lines:?}"))
}

#[test]
fn helpers_start_beside_the_workers_and_end_in_their_order() {
    let stage = helpers();
    let master = stage.launch(&[], &[]);
    for name in ["beside", "last", "program"] {
        let helper = pid(&stage, name, 1);
        eventually("its parent", || {
            let parent = helper.status("PPid");
            (parent == master.process.0.to_string()).then_some(())
        });
    }
    assert_eq!(pid(&stage, "beside", 1).title(), "ph: beside [helpers]");
    assert_eq!(master.wait_workers(2).len(), 2, "helpers are not counted");
    master.send(Signal::SIGTERM);
    assert_eq!(master.wait(), 0);
    let lines = lines(&stage);
    let last = position(&lines, "last stops");
    for before in ["beside stops", "worker 0 stops", "worker 1 stops"] {
        assert!(position(&lines, before) < last, "{lines:?}");
    }
    assert_eq!(lines.iter().filter(|line| *line == "once ran").count(), 1);
    assert_eq!(lines.last().map(String::as_str), Some("ended with 0"));
}

#[test]
fn a_helper_that_dies_is_replaced_and_no_worker_notices() {
    let stage = helpers();
    let master = stage.launch(&[], &[]);
    let workers = master.wait_workers(2);
    for name in ["beside", "last", "program"] {
        let first = pid(&stage, name, 1);
        first.send(Signal::SIGKILL);
        let second = pid(&stage, name, 2);
        assert!(first != second && !first.is_alive());
    }
    assert_eq!(master.workers(), workers);
    master.send(Signal::SIGTERM);
    assert_eq!(master.wait(), 0);
}

#[test]
fn helpers_die_with_a_master_that_is_killed() {
    let stage = helpers();
    let master = stage.launch(&[], &[]);
    for name in ["beside", "last", "program"] {
        pid(&stage, name, 1);
    }
    master.wait_workers(2);
    master.send(Signal::SIGKILL);
    assert_eq!(master.wait(), -(Signal::SIGKILL as i32));
    stage.wait_empty();
    let lock = std::fs::metadata(stage.path("helpers.lock")).expect("the lock's file");
    assert_eq!(lock.mode() & 0o777, 0o600);
    let next = stage.launch(&[], &[]);
    next.wait_workers(2);
    next.send(Signal::SIGTERM);
    assert_eq!(next.wait(), 0);
}
