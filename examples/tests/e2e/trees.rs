//! Trees of forked workers: what they have started ends with them, and with a master that is killed.
//! Numbers are those of docs/faults.md. No cgroup takes part.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::misbehave;
use crate::support::{Random, eventually, let_pass, require, tell, timed};

const KILLED: i32 = -(Signal::SIGKILL as i32);

#[test]
fn fault_11_a_deaf_grandchild_ends_with_its_worker_and_at_a_stop() {
    let stage = misbehave();
    let master = stage.start(&["app_behaviour=spawn_deaf,ok"]);
    let grandchild = stage.wait_titled("sleep 1001", 1)[0];
    let worker = master.wait_workers(1)[0];
    worker.process.send(Signal::SIGKILL);
    grandchild.wait_gone();
    master.wait_replaced(worker);
    let grandchild = stage.wait_titled("sleep 1001", 1)[0];
    assert_eq!(master.stop(), 0);
    assert!(!grandchild.is_alive());
}

#[test]
fn fault_12_what_left_group_session_and_parent_ends_with_its_worker_and_at_a_stop() {
    require(&["setsid"]);
    let stage = misbehave();
    let master = stage.start(&["app_behaviour=escape,ok"]);
    let escaped = stage.wait_titled("sleep 1002", 1)[0];
    let worker = master.wait_workers(1)[0];
    eventually("no parent but the master", || {
        (escaped.status("PPid") == master.process.0.to_string()).then_some(())
    });
    worker.process.send(Signal::SIGKILL);
    escaped.wait_gone();
    master.wait_replaced(worker);
    let escaped = stage.wait_titled("sleep 1002", 1)[0];
    assert_eq!(master.stop(), 0);
    assert!(!escaped.is_alive());
    assert!(stage.log().with("escaped").is_empty(), "it was known whose it was");
}

/// A worker that daemonizes has ended, and so does its copy.
#[test]
fn fault_12_a_worker_that_becomes_a_daemon_has_ended_and_its_copy_ends_too() {
    let stage = misbehave();
    let settings = [
        "number_workers=2",
        "app_from_slot=1",
        "app_behaviour=turn:200,daemonize,ok",
        "min_uptime=9",
    ];
    let master = stage.start(&settings);
    stage.log().wait_ends(1, "exited with code 0", 3);
    stage.log().wait_for_count("killed what workers had left behind: 1", 3);
    assert!(stage.log().with("escaped").is_empty());
    assert_eq!(master.stop(), 0);
}

#[test]
fn fault_23_a_killed_master_of_forked_workers_leaves_nothing() {
    require(&["setsid"]);
    let stage = misbehave();
    let settings = ["number_workers=3", "app_behaviour=spawn_deaf,escape,ok"];
    let master = stage.start(&settings);
    stage.wait_titled("sleep 1002", 3);
    stage.wait_titled("sleep 1001", 3);
    master.send(Signal::SIGKILL);
    assert_eq!(master.wait(), KILLED);
    let ((), took) = timed(|| stage.wait_empty());
    assert!(took < Duration::from_secs(5), "{took:?}");
    stage.log().wait_for("is gone: killed what it left");
    let next = stage.start(&["number_workers=3"]);
    next.wait_workers(3);
    stage.log().wait_for_count("master started", 2);
    assert_eq!(next.stop(), 0);
}

#[test]
fn fault_21_fifty_masters_killed_at_random_moments_leave_nothing() {
    const ROUNDS: u32 = 50;
    require(&["setsid"]);
    let stage = misbehave();
    let settings = [
        "number_workers=3",
        "app_behaviour=spawn_deaf,escape,ok",
        "min_uptime=0",
        "max_restarts=100000",
    ];
    let (mut random, mut slowest) = (Random::new(), Duration::ZERO);
    for round in 0..ROUNDS {
        let master = stage.start(&settings);
        if round % 2 == 1 {
            let workers = master.wait_workers(3);
            workers.iter().for_each(|worker| worker.process.send(Signal::SIGKILL));
            let_pass(Duration::from_micros(random.below(10_000)));
        } else {
            let_pass(Duration::from_micros(random.below(60_000)));
        }
        master.send(Signal::SIGKILL);
        assert_eq!(master.wait(), KILLED);
        let ((), took) = timed(|| stage.wait_empty());
        assert!(took < Duration::from_secs(5), "round {round}, {random}: {took:?}");
        slowest = slowest.max(took);
    }
    tell(&format!("{ROUNDS} rounds, {random}: all gone after {slowest:?} at most"));
    let next = stage.start(&["number_workers=3"]);
    next.wait_workers(3);
    assert_eq!(next.stop(), 0);
}
