//! Ends of the service: asked for once or twice, in the middle of a boot, under a hail of signals.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::deaths::address;
use crate::misbehave;
use crate::support::{Client, eventually, timed};

#[test]
fn a_worker_that_ignores_the_stop_is_killed_after_the_grace_and_the_exit_code_is_0() {
    let stage = misbehave();
    let master = stage.start(&[
        "number_workers=2",
        "graceful_timeout=2",
        "app_behaviour=ignore_term",
        "app_from_slot=1",
    ]);
    stage.log().wait_ready(2);
    let (code, took) = timed(|| master.stop());
    assert_eq!(code, 0);
    // Never before the grace is over.
    assert!(took >= Duration::from_secs(2), "{took:?}");
    let killed = stage.log().with("killing worker");
    assert_eq!(killed.len(), 1, "{killed:?}");
    assert!(killed[0].message.starts_with("killing worker 1 "), "{killed:?}");
    assert!(killed[0].message.contains("the master stops"), "{killed:?}");
    assert_eq!(stage.log().with("stopped after turn").len(), 1, "the other one was polite");
    stage.log().wait_for("master stopped, exit code 0");
}

#[test]
fn a_second_stop_ends_everything_at_once() {
    for (first, second) in [(Signal::SIGTERM, Signal::SIGTERM), (Signal::SIGINT, Signal::SIGQUIT)] {
        let stage = misbehave();
        let master = stage.start(&[
            "number_workers=2",
            "graceful_timeout=10m",
            "app_behaviour=ignore_term,spawn_child",
        ]);
        stage.log().wait_ready(2);
        master.send(first);
        stage.log().wait_for("stopping, workers to end: 2");
        master.send(second);
        assert_eq!(master.wait(), 0);
        stage.log().wait_for("stopping at once, workers to kill: 2");
        assert_eq!(stage.log().with("killing worker").len(), 2);
    }
}

#[test]
fn workers_serve_on_for_the_drain_delay() {
    let stage = misbehave();
    let bind = "bind=127.0.0.1:0";
    let master = stage.start(&["number_workers=2", "drain_delay=3s", "min_uptime=0", bind]);
    stage.log().wait_ready(2);
    let is_leaving = || {
        let status = stage.launch(&[], &["status", "-c", "config.ini", "--json"]);
        assert!([0, 150].contains(&status.wait()));
        let text = stage.read(&format!("stdout.{}", stage.starts() - 1));
        text.contains("\"ready\":2,") && text.contains("\"state\":\"stopping\",\"target\":2,")
    };
    assert!(!is_leaving());
    let before = master.workers();
    let (code, took) = timed(|| {
        master.send(Signal::SIGTERM);
        stage.log().wait_for("stopping after 3.0s (drain_delay)");
        assert!(is_leaving(), "it says so, and its workers serve");
        let client = Client::tcp(&address(&stage.log()));
        assert!(before.iter().any(|worker| worker.process == client.worker));
        drop(client);
        master.send(Signal::SIGHUP);
        assert!(stage.log().with("the delay is over").is_empty());
        stage.log().wait_for("the delay is over, workers to end: 2");
        master.wait()
    });
    assert_eq!(code, 0);
    assert!(took >= Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_second_stop_ends_the_drain_delay() {
    let stage = misbehave();
    let master = stage.start(&["drain_delay=10m"]);
    stage.log().wait_ready(1);
    master.send(Signal::SIGTERM);
    stage.log().wait_for("stopping after 600s (drain_delay)");
    assert_eq!(master.stop(), 0);
    stage.log().wait_for("stopping at once, workers to kill: 1");
}

#[test]
fn each_of_the_three_stop_signals_is_graceful() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let stage = misbehave();
        let master = stage.start(&["number_workers=2"]);
        stage.log().wait_ready(2);
        master.send(signal);
        assert_eq!(master.wait_with_stderr(), (0, String::new()));
        let said = stage.log().wait_for(&format!("{signal} from pid {}", std::process::id()));
        assert!(said.message.ends_with("stop; a second one: at once"), "{said:?}");
        assert_eq!(stage.log().with("stopped after turn").len(), 2, "Worker::stop was called");
        assert!(stage.log().with("killing").is_empty());
    }
}

/// SIGCONT follows every signal, so a worker somebody had halted can still be polite.
#[test]
fn a_halted_worker_is_woken_to_stop() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=2", "graceful_timeout=60"]);
    stage.log().wait_ready(2);
    let halted = master.wait_workers(2)[0].process;
    halted.send(Signal::SIGSTOP);
    eventually("it is halted", || (halted.stat(3).as_deref() == Some("T")).then_some(()));
    assert_eq!(master.stop(), 0);
    assert_eq!(stage.log().with("stopped after turn").len(), 2);
    assert!(stage.log().with("killing").is_empty());
}

#[test]
fn a_stop_while_workers_boot_is_obeyed_within_the_grace() {
    let stage = misbehave();
    let master =
        stage.start(&["number_workers=3", "graceful_timeout=1", "app_behaviour=boot_slow:1000"]);
    master.wait_workers(3);
    assert_eq!(master.stop(), 0);
    assert_eq!(stage.log().with("killing worker").len(), 3);
    assert!(stage.log().with("is ready after").is_empty());
}

#[test]
fn a_boot_that_takes_too_long_is_aborted_and_tried_again() {
    let stage = misbehave();
    stage.expect_error("did not boot in time");
    let master = stage.start(&["boot_timeout=1", "min_uptime=0", "app_behaviour=boot_slow:1000"]);
    stage.log().wait_ends(0, "was ended by SIGABRT", 2);
    assert_eq!(master.stop(), 0);
}

/// The pidfile is there before the first worker is: whoever reads it may signal at once.
#[test]
fn a_stop_right_after_the_pidfile_appeared_is_obeyed() {
    for _ in 0..10 {
        let stage = misbehave();
        let master = stage.start(&["number_workers=4"]);
        eventually("the pidfile", || stage.path("ph.pid").exists().then_some(()));
        assert_eq!(master.stop(), 0);
    }
}

/// TTIN and TTOU move the target up and down between 1 and 6; the rest changes nothing. CHLD, WINCH
/// and the others wake the master for nothing, and none of them may cost memory.
#[test]
fn a_hundred_thousand_signals_and_then_a_stop() {
    const HAIL: [Signal; 7] = [
        Signal::SIGUSR1,
        Signal::SIGTTIN,
        Signal::SIGCHLD,
        Signal::SIGWINCH,
        Signal::SIGTTOU,
        Signal::SIGHUP,
        Signal::SIGUSR2,
    ];
    let stage = misbehave();
    let master = stage.start(&["number_workers=2", "max_workers=6"]);
    stage.log().wait_ready(2);
    let hail = |count: usize| {
        for number in 0..count {
            master.send(HAIL[number % HAIL.len()]);
        }
    };
    hail(10_000);
    let before = master.process.status_number("VmRSS");
    hail(90_000);
    let after = master.process.status_number("VmRSS");
    assert!(after < before + 4096, "the master grew from {before} kB to {after} kB");
    assert!(master.process.children().len() <= 12);
    assert_eq!(master.stop(), 0);
    stage.log().wait_for("SIGTERM from pid");
    stage.log().wait_for("master stopped, exit code 0");
    for signal in ["SIGUSR1", "SIGTTIN", "SIGTTOU", "SIGHUP", "SIGUSR2"] {
        assert!(!stage.log().with(signal).is_empty(), "{signal} left no trace");
    }
}

/// An order that came together with a stop is not served first.
#[test]
fn a_stop_goes_before_whatever_else_is_pending() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=2", "max_workers=100"]);
    stage.log().wait_ready(2);
    master.send(Signal::SIGSTOP);
    for signal in [Signal::SIGTTIN, Signal::SIGUSR1, Signal::SIGHUP, Signal::SIGTERM] {
        master.send(signal);
    }
    master.send(Signal::SIGCONT);
    assert_eq!(master.wait(), 0);
    assert!(stage.log().with("workers wanted: 3").is_empty());
    assert_eq!(stage.log().with("is ready after").len(), 2, "nobody was started any more");
}
