//! Lives of commands under `ph run`: started, killed, replaced, stopped, and what they leave.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ph;
use crate::support::{Master, Stage, eventually, timed};

/// `ph run -n N` with the pidfile and the log in the stage's folder.
fn run(stage: &Stage, workers: &str, command: &[&str]) -> Master {
    let here = ["run", "-n", workers, "--set", "base_path=.", "--set", "log_file=ph.log", "--"];
    stage.launch(&[], &[&here[..], command].concat())
}

#[test]
fn an_ad_hoc_service_runs_any_command_without_a_file() {
    let stage = ph();
    let master = run(&stage, "4", &["sleep", "1000"]);
    stage.log().wait_ready(4);
    let workers = master.wait_workers(4);
    assert!(workers.iter().map(|worker| worker.slot).eq(0..4));
    assert!(workers.iter().all(|worker| worker.process.title() == "sleep 1000"));
    assert_eq!(master.process.title(), "ph: master [sleep]");
    assert_eq!(stage.files(), ["ph.log", "sleep.lock", "sleep.pid", "sleep.sock"]);
    let second = run(&stage, "1", &["sleep", "1000"]);
    eventually("a second instance", || stage.path("sleep.2.pid").exists().then_some(()));
    assert_eq!(second.stop(), 0);
    assert_eq!(master.stop(), 0);
    assert_eq!(stage.files(), ["ph.log"]);
}

#[test]
fn the_originals_sample_runs_with_a_program_after_the_dashes() {
    let stage = ph();
    let sample = include_str!("../../../examples/conf/config.ini");
    std::fs::write(stage.path("config.ini"), sample).expect("the sample");
    let words =
        ["run", "-c", "config.ini", "jobexecute", "--", "sh", "-c", "echo go...; exec sleep 99"];
    let master = stage.launch(&[], &words);
    let log = crate::support::Log(stage.path("master.log"));
    log.wait_ready(2);
    log.wait_for_count("go...", 2);
    assert_eq!(stage.read("master.pid").trim(), master.process.0.to_string());
    assert_eq!(master.process.title(), "ph: master [jobexecute]");
    master.send(Signal::SIGINT);
    assert_eq!(master.wait_with_stderr(), (0, String::new()));
    assert_eq!(stage.files(), ["master.log"]);
}

#[test]
fn a_killed_command_is_replaced_in_its_slot() {
    let stage = ph();
    let master = run(&stage, "3", &["sleep", "1000"]);
    stage.log().wait_ready(3);
    let before = master.wait_workers(3);
    before[1].process.send(Signal::SIGKILL);
    let successor = master.wait_replaced(before[1]);
    assert_eq!(master.wait_workers(3), [before[0], successor, before[2]]);
    stage.log().wait_ends(1, "was ended by SIGKILL", 1);
    assert_eq!(master.stop(), 0);
}

#[test]
fn each_of_the_stop_signals_stops_and_a_deaf_command_is_killed_after_the_grace() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let stage = ph();
        stage.configure("graceful_timeout = 1\nnumber_workers = 2");
        let deaf = "trap '' TERM INT QUIT; while :; do sleep 1; done";
        let words = ["run", "-c", "config.ini", "--", "sh", "-c", deaf];
        let master = stage.launch(&[], &words);
        stage.log().wait_ready(2);
        // The trap is set when its first child runs.
        eventually("both traps", || {
            let workers = master.workers();
            let has_child = |it: &crate::support::Worker| !it.process.children().is_empty();
            (workers.len() == 2 && workers.iter().all(has_child)).then_some(())
        });
        master.send(signal);
        let (code, took) = timed(|| master.wait());
        assert_eq!(code, 0);
        assert!(took >= Duration::from_secs(1), "{took:?}");
        assert_eq!(stage.log().with("killing worker").len(), 2);
        // The stage sees to it that the `sleep 1` of each is gone too.
    }
}

#[test]
fn the_stop_signal_is_the_one_that_was_set() {
    let stage = ph();
    stage.configure("stop_signal = USR2\nmin_uptime = 0.1");
    let script = "trap 'echo asked; exit 0' USR2; trap '' TERM; echo ready; \
                  while :; do sleep 0.1; done";
    let words = ["run", "-c", "config.ini", "--", "sh", "-c", script];
    let master = stage.launch(&[], &words);
    stage.log().wait_for("ready");
    stage.log().wait_ready(1);
    assert_eq!(master.stop(), 0);
    assert_eq!(stage.log().with("asked").len(), 1);
    assert!(stage.log().with("killing").is_empty());
}

#[test]
fn what_a_command_left_in_its_group_ends_with_it() {
    let stage = ph();
    let master =
        run(&stage, "1", &["sh", "-c", "trap '' TERM; (trap '' TERM; exec sleep 1000) & wait"]);
    stage.log().wait_ready(1);
    let worker = master.wait_workers(1)[0];
    let grandchild = eventually("a grandchild", || {
        let mut children = worker.process.children().into_iter();
        children.find(|child| child.title() == "sleep 1000")
    });
    worker.process.send(Signal::SIGKILL);
    eventually("its end", || (!grandchild.is_alive()).then_some(()));
    stage.log().wait_ends(0, "was ended by SIGKILL", 1);
    master.wait_replaced(worker);
    master.send(Signal::SIGTERM);
    stage.log().wait_for("stopping, workers to end: 1");
    assert_eq!(master.stop(), 0);
}

/// A command may end as it likes: its codes 3 and 4 say nothing about the others.
#[test]
fn no_exit_code_of_a_command_ends_the_service() {
    for code in ["0", "1", "3", "4", "126", "127", "255"] {
        let stage = ph();
        stage.configure(
            "min_uptime = 0.2\nbackoff_min = 0.01\nbackoff_max = 0.05\nnumber_workers = 1",
        );
        let words = ["run", "-c", "config.ini", "--", "sh", "-c", &format!("exit {code}")];
        let master = stage.launch(&[], &words);
        stage.expect_error("is in a crash loop");
        stage.log().wait_ends(0, &format!("exited with code {code}"), 6);
        assert!(stage.log().with("is ready").is_empty());
        assert_eq!(master.stop(), 0);
    }
}

/// Ready by having been executed, but at the first boot only after `min_uptime` of life.
#[test]
fn a_program_that_disappears_later_backs_off_and_comes_back() {
    let stage = ph();
    stage.expect_error("exec ");
    stage.expect_error("worker 0 was not started");
    let program = stage.path("program");
    std::os::unix::fs::symlink("/bin/sleep", &program).expect("a link");
    let master = run(&stage, "1", &["./program", "1000"]);
    stage.log().wait_ready(1);
    let worker = master.wait_workers(1)[0];
    std::fs::remove_file(&program).expect("the link");
    worker.process.send(Signal::SIGKILL);
    let failed = stage.log().wait_for_count("worker 0 was not started", 3);
    assert!(failed[0].message.contains("its command does not exist"), "{failed:?}");
    std::os::unix::fs::symlink("/bin/sleep", &program).expect("a link");
    stage.log().wait_ready(2);
    assert_ne!(master.wait_workers(1)[0], worker);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_second_start_of_a_section_is_refused_with_154() {
    let stage = ph();
    stage.configure("command = sleep 1000");
    let master = stage.launch(&[], &["run", "-c", "config.ini"]);
    stage.log().wait_ready(1);
    let (code, stderr) = stage.launch(&[], &["run", "-c", "config.ini"]).wait_with_stderr();
    assert_eq!(code, 154);
    let text = stderr.replace(&master.process.0.to_string(), "$PID");
    crate::snapshot::assert_snapshot("error-already-running.txt", &stage, &text);
    assert_eq!(master.stop(), 0);
}

#[test]
fn the_commands_of_a_killed_master_die_with_it() {
    let stage = ph();
    let master = run(&stage, "4", &["sh", "-c", "trap '' TERM HUP; exec sleep 1000"]);
    stage.log().wait_ready(4);
    assert_eq!(stage.processes().len(), 7, "master, warden, log process and workers");
    master.send(Signal::SIGKILL);
    assert_eq!(master.wait(), -(Signal::SIGKILL as i32));
    stage.wait_empty();
    let next = run(&stage, "1", &["sh", "-c", "exec sleep 1000"]);
    stage.log().wait_ready(5);
    assert_eq!(stage.read("sh.pid").trim(), next.process.0.to_string());
    assert_eq!(next.stop(), 0);
}

#[test]
fn a_second_stop_kills_at_once() {
    let stage = ph();
    stage.configure("graceful_timeout = 10m");
    let words =
        ["run", "-c", "config.ini", "--", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"];
    let master = stage.launch(&[], &words);
    stage.log().wait_ready(1);
    master.send(Signal::SIGTERM);
    stage.log().wait_for("stopping, workers to end: 1");
    assert_eq!(master.stop(), 0);
}

/// With nothing due the master makes no system call; the commands' silence is theirs.
#[test]
fn an_idle_master_of_commands_does_not_wake() {
    let stage = ph();
    let master = run(&stage, "20", &["sleep", "1000"]);
    stage.log().wait_ready(20);
    crate::support::let_pass(Duration::from_secs(1));
    let before = master.process.context_switches();
    crate::support::let_pass(Duration::from_secs(3));
    assert_eq!(master.process.context_switches(), before);
    assert_eq!(master.stop(), 0);
}
