//! The end of a service: with its workers (`--exit-with`), and as the first process of a container.

use nix::sys::signal::Signal;

use crate::ph;
use crate::support::{Process, Stage, eventually, require};

/// Runs a script in two workers with `--exit-with` and gives the exit code.
fn ends(stage: &Stage, which: &str, script: &str) -> i32 {
    stage.configure("number_workers = 2\nmin_uptime = 0.1\ngraceful_timeout = 5");
    let words = ["run", "-c", "config.ini", "--exit-with", which, "--", "sh", "-c", script];
    stage.launch(&[], &words).wait()
}

#[test]
fn the_first_worker_to_end_ends_the_service_with_its_code() {
    let stage = ph();
    let code = ends(&stage, "any", "[ $PH_SLOT = 1 ] || exec sleep 1000; sleep 0.3; exit 7");
    assert_eq!(code, 7);
    stage.log().wait_for("the service ends with its workers, exit code 7");
    assert_eq!(stage.log().ends(0, "was ended by SIGTERM").len(), 0, "told to stop: no news");
}

#[test]
fn a_worker_that_a_signal_ended_gives_the_code_a_shell_would() {
    let stage = ph();
    assert_eq!(ends(&stage, "any", "[ $PH_SLOT = 1 ] || exec sleep 1000; kill -TERM $$"), 143);
}

#[test]
fn with_all_nobody_is_replaced_and_the_first_bad_code_counts() {
    let stage = ph();
    let script = "[ $PH_SLOT = 0 ] && exit 0; sleep 0.3; exit 5";
    assert_eq!(ends(&stage, "all", script), 5);
    assert_eq!(stage.log().with("exited with code").len(), 2);
    let stage = ph();
    assert_eq!(ends(&stage, "all", "exit 0"), 0);
}

#[test]
fn with_first_the_worker_of_slot_0_decides_and_the_others_are_replaced() {
    let stage = ph();
    let script = "[ $PH_SLOT = 0 ] || { sleep 0.1; exit 9; }; sleep 1; exit 4";
    assert_eq!(ends(&stage, "first", script), 4);
    assert!(stage.log().ends(1, "exited with code 9").len() >= 2);
}

#[test]
fn a_stop_order_is_still_a_stop_order() {
    let stage = ph();
    stage.configure("min_uptime = 0.1");
    let words = ["run", "-c", "config.ini", "--exit-with", "any", "--", "sleep", "1000"];
    let master = stage.launch(&[], &words);
    stage.log().wait_ready(1);
    assert_eq!(master.stop(), 0);
}

/// In a pid namespace of its own, as in a container.
fn as_pid_1(stage: &Stage, script: &str, exit_with: &[&str]) -> (crate::support::Master, Process) {
    require(&["unshare"]);
    let mut words = vec!["run", "-c", "config.ini"];
    words.extend(exit_with);
    words.extend(["--", "sh", "-c", script]);
    let wrapper = ["unshare", "--pid", "--fork", "--mount-proc", "--"];
    let outer = stage.launch(&wrapper, &words);
    let inner = eventually("pid 1", || {
        let inner = outer.process.children().into_iter().next()?;
        inner.title().starts_with("ph: master").then_some(inner)
    });
    assert_eq!(inner.status("NSpid").split_whitespace().last(), Some("1"));
    (outer, inner)
}

#[test]
fn as_pid_1_it_reaps_strangers_and_obeys() {
    let stage = ph();
    stage.configure("number_workers = 2\nmin_uptime = 0.1");
    // Orphans of orphans, some of them in sessions of their own: pid 1 is the parent of all.
    let script = "for i in 1 2 3; do (setsid sh -c 'sleep 0.2 & exit 3' &); done; exec sleep 1000";
    let (outer, inner) = as_pid_1(&stage, script, &[]);
    stage.log().wait_ready(2);
    eventually("only workers and helpers", || (inner.children().len() == 4).then_some(()));
    let zombies = inner.children().into_iter().filter(|child| !child.is_alive()).count();
    assert_eq!(zombies, 0);
    inner.send(Signal::SIGTERM);
    assert_eq!(outer.wait(), 0);
    assert!(stage.log().with("killing").is_empty());
}

#[test]
fn as_pid_1_its_exit_code_is_honest() {
    let stage = ph();
    stage.configure("min_uptime = 0.1");
    let (outer, _) = as_pid_1(&stage, "sleep 1; exit 42", &["--exit-with", "any"]);
    assert_eq!(outer.wait(), 42);
}

/// Signals nobody handles do nothing to pid 1, so it must handle those that stop.
#[test]
fn as_pid_1_each_of_the_stop_signals_stops() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        let stage = ph();
        stage.configure("min_uptime = 0.1");
        let (outer, inner) = as_pid_1(&stage, "exec sleep 1000", &[]);
        stage.log().wait_ready(1);
        inner.send(signal);
        assert_eq!(outer.wait(), 0, "{signal}");
    }
}
