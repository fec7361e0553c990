//! Whoever reads the configuration in a reload: it may hang, fail badly or be killed, and the master serves
//! on and is there for other orders.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Master, Process, Stage, Worker, eventually, let_pass, timed};

const TITLE: &str = "ph: loader [reloads]";

fn start(workers: usize) -> (Stage, Master, Vec<Worker>) {
    let mut stage = Stage::of(env!("CARGO_BIN_EXE_reloads"), "reloads");
    let folder = stage.folder().to_str().expect("a path in UTF-8").to_owned();
    stage.variable("RELOADS_FOLDER", &folder);
    say(&stage, &workers.to_string());
    let master = stage.launch(&[], &[]);
    let workers = master.wait_workers(workers);
    (stage, master, workers)
}

fn say(stage: &Stage, text: &str) {
    std::fs::write(stage.path("workers"), text).expect("a file");
}

/// A reload whose loader hangs.
fn hang(stage: &Stage, master: &Master) -> Process {
    eventually("the master's readiness for signals", || {
        stage.path("reloads.pid").exists().then_some(())
    });
    say(stage, "hang");
    master.send(Signal::SIGHUP);
    stage.wait_titled(TITLE, 1)[0]
}

/// The next reload goes well.
fn check_reloads(stage: &Stage, master: &Master, old: &[Worker]) {
    say(stage, "3");
    master.send(Signal::SIGHUP);
    eventually("three new workers", || {
        let workers = master.workers();
        let is_new = |worker: &Worker| !old.contains(worker);
        (workers.len() == 3 && workers.iter().all(is_new)).then_some(())
    });
    assert_eq!(stage.titled(TITLE), []);
}

#[test]
fn a_loader_that_hangs_is_given_up_and_hups_meanwhile_are_one_more() {
    let (stage, master, workers) = start(2);
    let loader = hang(&stage, &master);
    let used = master.process.cpu_ticks();
    loader.wait_gone();
    assert!(master.process.cpu_ticks() - used < 50, "the master waits without spinning");
    assert_eq!(master.workers(), workers);
    check_reloads(&stage, &master, &workers);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_stop_does_not_wait_for_a_loader_that_hangs() {
    let (stage, master, _) = start(2);
    let loader = hang(&stage, &master);
    let (code, took) = timed(|| master.stop());
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(15), "{took:?}");
    loader.wait_gone();
}

#[test]
fn other_orders_and_deaths_are_served_while_a_loader_hangs() {
    let (stage, master, workers) = start(2);
    let loader = hang(&stage, &master);
    workers[0].process.send(Signal::SIGKILL);
    let successor = master.wait_replaced(workers[0]);
    master.send(Signal::SIGTTIN);
    let all = master.wait_workers(3);
    assert!(all.contains(&successor) && all.contains(&workers[1]));
    loader.wait_gone();
    assert_eq!(master.workers(), all);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_loader_that_is_killed_or_panics_or_refuses_changes_nothing() {
    let (stage, master, workers) = start(2);
    let loader = hang(&stage, &master);
    loader.send(Signal::SIGKILL);
    loader.wait_gone();
    for text in ["panic", "many"] {
        say(&stage, text);
        master.send(Signal::SIGHUP);
        let_pass(Duration::from_millis(500));
    }
    std::fs::remove_file(stage.path("workers")).expect("the file");
    master.send(Signal::SIGHUP);
    let_pass(Duration::from_millis(500));
    stage.wait_titled(TITLE, 0);
    assert_eq!(master.workers(), workers);
    check_reloads(&stage, &master, &workers);
    let (code, stderr) = {
        master.send(Signal::SIGTERM);
        master.wait_with_stderr()
    };
    assert_eq!(code, 0);
    assert!(stderr.contains("asked to panic"), "{stderr}");
}
