//! Reloads of forked workers: under load, and with workers that fail on their way.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::deaths::address;
use crate::misbehave;
use crate::support::{Client, Log, Process, Worker, eventually, let_pass, tell, timed};

/// What the clients of a load have met.
#[derive(Debug, Default)]
struct Met {
    served: u64,
    failed: u64,
    slowest: Duration,
}

/// Clients that come one after the other, as fast as they are served, until `is_over`.
fn load(address: &str, is_over: &AtomicBool) -> Met {
    let mut met = Met::default();
    while !is_over.load(Ordering::Relaxed) {
        let (answer, took) = timed(|| Client::try_tcp(address)?.ask("write:0"));
        met.slowest = met.slowest.max(took);
        match answer {
            Some(_) => met.served += 1,
            None => met.failed += 1,
        }
    }
    met
}

/// A reload every second, which may be waiting for the one before; nobody notices.
fn check_under_load(workers: usize, reloads: u32) {
    let stage = misbehave();
    stage.configure(&format!(
        "bind = 127.0.0.1:0\nmin_uptime = 100ms\nnumber_workers = {workers}\nlog_level = info"
    ));
    let master = stage.start(&[]);
    stage.log().wait_ready(workers);
    let old = master.wait_workers(workers);
    let (address, is_over) = (address(&stage.log()), AtomicBool::new(false));
    let met = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| load(&address, &is_over))).collect();
        for _ in 0..reloads {
            master.send(Signal::SIGHUP);
            let_pass(Duration::from_secs(1));
        }
        stage.log().wait_for("all workers are of generation");
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("a client")).collect::<Vec<_>>()
    });
    let served: u64 = met.iter().map(|met| met.served).sum();
    let failed: u64 = met.iter().map(|met| met.failed).sum();
    let slowest = met.iter().map(|met| met.slowest).max().expect("clients");
    assert_eq!(failed, 0, "of {served}");
    assert!(served > 100, "{served}");
    eventually("only new workers", || {
        let now = master.workers();
        let is_new = |worker: &Worker| !old.contains(worker);
        (now.len() == workers && now.iter().all(is_new)).then_some(())
    });
    let done = stage.log().with("all workers are of generation").len();
    tell(&format!(
        "{workers} workers: {served} clients over {done} reloads, none failed, slowest {slowest:?}"
    ));
    assert_eq!(master.stop(), 0);
    assert!(stage.log().with("rolled back").is_empty());
}

#[test]
fn fault_46_two_workers_are_reloaded_under_load_and_no_client_notices() {
    check_under_load(2, 10);
}

#[test]
fn fault_46_eight_workers_are_reloaded_under_load_and_no_client_notices() {
    check_under_load(8, 10);
}

#[test]
fn a_new_generation_that_does_not_boot_is_rolled_back() {
    for (behaviour, fault) in [
        ("boot_slow:100", "did not boot in time"),
        ("crash_at_boot", "exited with code 1 before"),
        ("exit_code:3", "exited with code 3 before"),
        ("panic_at_boot", "exited with code 3 before"),
        ("block_abort,hang", "was stuck"),
    ] {
        let stage = misbehave();
        let base = "number_workers = 3\nmin_uptime = 0.2\ngraceful_timeout = 1\nboot_timeout = 1\n\
                    timeout = 1\ncanary_hold = 30\n";
        stage.configure(base);
        let master = stage.start(&[]);
        stage.log().wait_ready(3);
        let old = master.wait_workers(3);
        stage.expect_error("reload failed: worker 0 gen 2");
        stage.allow_error("");
        stage.configure(&format!("{base}app_behaviour = {behaviour}"));
        master.send(Signal::SIGHUP);
        let failed = stage.log().wait_for("reload failed: worker 0 gen 2");
        assert!(failed.message.contains(fault), "{behaviour}: {failed:?}");
        stage.log().wait_for("generation 2 was rolled back: generation 1 serves again");
        eventually("the old workers alone", || (master.workers() == old).then_some(()));
        assert_eq!(master.stop(), 0);
    }
}

/// Each generation logs by its own settings, whoever of it is started, and when.
#[test]
fn forked_workers_log_by_the_settings_of_their_generation() {
    let stage = misbehave();
    let base = "number_workers = 2\nmin_uptime = 0.1\ngraceful_timeout = 5\n";
    let lines = |name: &str| {
        format!(
            "{base}canary_hold = 3\nworker_log_file = {name}.%(slot)s.log\n\
                 app_behaviour = count,turn:20"
        )
    };
    stage.configure(&lines("old"));
    let master = stage.start(&[]);
    stage.log().wait_ready(2);
    let old = master.wait_workers(2);
    stage.configure(&lines("new"));
    master.send(Signal::SIGHUP);
    stage.log().wait_for("worker 0 gen 2");
    // Its successor is of the old generation too, as long as the canary has not proved itself.
    old[1].process.send(Signal::SIGKILL);
    let successor = master.wait_replaced(old[1]);
    let counted = |name: &str, pid: i32| {
        let log = Log(stage.path(name));
        eventually("a worker counts in its log", || {
            let lines = log.with("count ").into_iter();
            lines.into_iter().any(|line| line.pid == pid).then_some(())
        });
    };
    counted("old.1.log", successor.process.0);
    stage.log().wait_for("all workers are of generation 2");
    let new = eventually("the new workers alone", || {
        let now = master.workers();
        let is_new = |it: &Worker| it.process.title().contains(" gen 2 ");
        (now.len() == 2 && now.iter().all(is_new)).then_some(now)
    });
    for worker in &new {
        counted(&format!("new.{}.log", worker.slot), worker.process.0);
    }
    assert_eq!(master.stop(), 0);
    let in_new = Log(stage.path("new.1.log")).lines();
    assert!(in_new.iter().all(|line| line.pid == new[1].process.0));
}

/// While there are two generations, a worker has the listeners of its own and no other.
#[test]
fn a_forked_worker_has_the_listeners_of_its_generation_only() {
    let stage = misbehave();
    let lines = |bind: &str| {
        format!("number_workers = 2\nmin_uptime = 0.1\ncanary_hold = 3\nbind = {bind}")
    };
    stage.configure(&lines("unix:a.sock, unix:b.sock, unix:c.sock"));
    let master = stage.start(&[]);
    stage.log().wait_ready(2);
    let old = master.wait_workers(2);
    let sockets = |process: Process| {
        let all = process.descriptors().into_values();
        all.filter(|name| name.starts_with("socket:")).collect::<BTreeSet<_>>()
    };
    let of_old = sockets(old[1].process);
    assert_eq!(of_old.len(), 3);
    stage.configure(&lines("unix:b.sock, unix:d.sock"));
    master.send(Signal::SIGHUP);
    stage.log().wait_for("worker 0 gen 2");
    let workers = master.wait_workers(3);
    let canary = workers.iter().find(|worker| !old.contains(worker)).expect("a canary");
    let of_new = sockets(canary.process);
    assert_eq!(of_new.len(), 2);
    assert_eq!(of_new.intersection(&of_old).count(), 1, "b.sock");
    // One of the former generation that starts now does not get the new ones either.
    old[1].process.send(Signal::SIGKILL);
    let successor = master.wait_replaced(old[1]);
    eventually("its listeners", || (sockets(successor.process) == of_old).then_some(()));
    stage.log().wait_for("all workers are of generation 2");
    eventually("the end of the others", || (!successor.process.is_alive()).then_some(()));
    eventually("their files", || {
        let files = stage.files().into_iter().filter(|name| name.ends_with(".sock"));
        files.eq(["b.sock", "d.sock", "ph.sock"]).then_some(())
    });
    assert_eq!(master.stop(), 0);
}

/// Nobody is judged by time in which nobody ran.
#[test]
fn fault_34_a_service_that_is_frozen_in_a_roll_is_reloaded_all_the_same() {
    let stage = misbehave();
    let base = "number_workers = 2\nmin_uptime = 0.2\nboot_timeout = 3\ntimeout = 2\n";
    stage.configure(base);
    let master = stage.start(&[]);
    stage.log().wait_ready(2);
    stage.configure(&format!("{base}app_behaviour = boot_slow:1,ok"));
    master.send(Signal::SIGHUP);
    stage.log().wait_for("is the canary of generation 2");
    let frozen = eventually("the canary", || {
        Some(stage.processes()).filter(|_| master.workers().len() == 3)
    });
    // The master first, so that it sees nobody stop.
    master.send(Signal::SIGSTOP);
    frozen.iter().filter(|it| it.is_alive()).for_each(|it| it.send(Signal::SIGSTOP));
    let_pass(Duration::from_secs(6));
    frozen.iter().filter(|it| it.is_alive()).for_each(|it| it.send(Signal::SIGCONT));
    stage.log().wait_for("all workers are of generation 2");
    assert!(stage.log().with("did not boot in time").is_empty());
    assert!(stage.log().with("reload failed").is_empty());
    assert_eq!(master.stop(), 0);
}

/// The kernel gives each worker a number of its own, so they do not all go at once.
#[test]
fn workers_are_recycled_after_different_numbers_of_requests() {
    let stage = misbehave();
    let settings = ["max_requests=5", "max_requests_jitter=200", "app_behaviour=turn:1"];
    let master = stage.start(&[&settings[..], &["number_workers=2", "min_uptime=0.01"]].concat());
    let ends = stage.log().wait_for_count("stopped after turn ", 8);
    let turns = ends.iter().filter_map(|line| line.message.rsplit(' ').next()?.parse().ok());
    let mut turns: Vec<u64> = turns.collect();
    assert_eq!(master.stop(), 0);
    turns.sort_unstable();
    // A worker goes on until its successor is ready.
    assert!(turns[0] >= 5 && turns.len() >= 8, "{turns:?}");
    turns.dedup();
    assert!(turns.len() >= 3, "{turns:?}");
}
