//! How many workers: scaled, recycled, very many, and idle.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::misbehave;
use crate::support::{Line, let_pass, timed};

#[test]
fn ttin_adds_a_worker_and_ttou_takes_the_highest_slot_away() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=2", "max_workers=4"]);
    stage.log().wait_ready(2);
    let two = master.wait_workers(2);
    master.send(Signal::SIGTTIN);
    stage.log().wait_for("workers wanted: 3 (was 2)");
    stage.log().wait_ready(3);
    assert_eq!(master.wait_workers(3)[..2], two);
    master.send(Signal::SIGTTOU);
    stage.log().wait_for("workers wanted: 2 (was 3)");
    assert_eq!(master.wait_workers(2), two);
    // The limits hold in both directions, and are said aloud.
    for _ in 0..3 {
        let before = stage.log().with("SIGTTOU").len();
        master.send(Signal::SIGTTOU);
        stage.log().wait_for_count("SIGTTOU", before + 1);
    }
    stage.log().wait_for("0 workers were asked for, the limit is 1");
    assert_eq!(master.wait_workers(1), two[..1]);
    for number in 0..5 {
        master.send(Signal::SIGTTIN);
        stage.log().wait_for_count("SIGTTIN", number + 2);
    }
    stage.log().wait_for("5 workers were asked for, the limit is 4");
    assert_eq!(master.wait_workers(4)[..1], two[..1]);
    assert_eq!(master.stop(), 0);
    assert!(stage.log().with("killing").is_empty());
}

#[test]
fn a_recycled_worker_leaves_only_after_its_successor_is_ready_in_the_same_slot() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=2", "max_requests=20", "app_behaviour=turn:20"]);
    stage.log().wait_for_count("(its successor is ready), grace", 8);
    assert_eq!(master.stop(), 0);
    let mut ready = 0;
    let mut fewest = usize::MAX;
    let lines = stage.log().lines();
    let running = lines.iter().take_while(|line| !line.message.starts_with("stopping, workers"));
    for line in running {
        if line.message.contains("is ready after") {
            ready += 1;
        } else if line.message.starts_with("stopping worker") {
            ready -= 1;
            let slot = slot_of(line, 2);
            let at = lines.iter().position(|it| std::ptr::eq(it, line)).expect("itself");
            let before = &lines[..at];
            let last = before.iter().rfind(|it| it.message.contains("is ready after"));
            assert_eq!(slot_of(last.expect("its successor"), 1), slot, "{line:?}");
            fewest = fewest.min(ready);
        }
    }
    assert!(fewest >= 2, "there were {fewest} ready workers");
    assert!(stage.log().with("killing").is_empty());
    assert!(stage.log().with("next one").is_empty(), "a recycled worker is no crash");
}

fn slot_of(line: &Line, word: usize) -> String {
    line.message.split(' ').nth(word).expect("a slot").to_owned()
}

#[test]
fn a_thousand_workers_start_are_counted_and_end() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=1000", "max_workers=1000", "graceful_timeout=60"]);
    let (_, took) = timed(|| stage.log().wait_ready(1000));
    let workers = master.wait_workers(1000);
    assert!(workers.iter().map(|worker| worker.slot).eq(0..1000));
    let rss = master.process.status_number("VmRSS");
    assert!(rss < 64 * 1024, "the master holds {rss} kB");
    let fds = master.process.descriptors().len();
    assert!(fds < 32, "a forked worker costs the master no descriptor, it has {fds}");
    workers[500].process.send(Signal::SIGKILL);
    stage.log().wait_ready(1001);
    let (code, stop_took) = timed(|| master.stop());
    assert_eq!(code, 0);
    assert!(stage.log().with("killing").is_empty(), "after {took:?} and {stop_took:?}");
    assert_eq!(stage.log().with("stopped after turn").len(), 1000);
}

/// Without strace: a process that makes no system call and is not woken switches no context.
#[test]
fn an_idle_master_does_not_wake() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=20", "timeout=0"]);
    stage.log().wait_ready(20);
    master.wait_workers(20);
    // The boot timers are gone with the boots; what is left to be done is done by now.
    let_pass(Duration::from_secs(1));
    let before = master.process.context_switches();
    let_pass(Duration::from_secs(3));
    assert_eq!(master.process.context_switches(), before);
    assert_eq!(master.stop(), 0);
}
