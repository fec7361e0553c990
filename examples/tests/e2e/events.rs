//! `on_event`: a command of the operator's that is told what happens.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::misbehave;
use crate::support::{Process, Stage, eventually, timed};

/// A command that writes one line a call into the file `told`.
fn told_by(stage: &Stage) -> String {
    let file = stage.path("told");
    let script = format!(
        "echo $PH_EVENT $PH_NAME $PH_MASTER_PID slot=$PH_SLOT generation=$PH_GENERATION \
         pid=$PH_WORKER_PID $PH_REASON >> {}; echo heard of $PH_EVENT",
        file.display()
    );
    format!("on_event = sh -c '{script}'\n")
}

fn told(stage: &Stage) -> Vec<String> {
    let text = std::fs::read_to_string(stage.path("told")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

/// Waits for an event, and gives what was told of it.
fn wait_told(stage: &Stage, event: &str) -> String {
    let start = format!("{event} ");
    eventually(&format!("{event} among what was told"), || {
        told(stage).into_iter().find(|line| line.starts_with(&start))
    })
}

/// The sleeping commands that live, by how long each sleeps.
fn sleeping(stage: &Stage, seconds: &str) -> Vec<Process> {
    stage.titled(&format!("sleep {seconds}"))
}

#[test]
fn a_crash_loop_and_its_end_are_told_with_their_slot() {
    let stage = misbehave();
    stage.configure(&format!("{}capture_output = on\n", told_by(&stage)));
    stage.expect_error("is in a crash loop");
    let settings = ["number_workers=2", "min_uptime=0", "app_from_slot=1"];
    let trouble = ["app_behaviour=exit:1", "max_restarts=2", "backoff_max=200ms"];
    let master = stage.start(&[&settings[..], &trouble].concat());
    let line = wait_told(&stage, "crash_loop");
    let start = format!("crash_loop misbehave {} slot=1 generation= pid= ", master.process.0);
    assert!(
        line.starts_with(&start) && line.ends_with("3 deaths within 60.0s (restart_window)"),
        "{line}"
    );
    stage.log().wait_for("heard of crash_loop");
    let (master_pid, code) = (master.process.0, master.stop());
    assert_eq!(code, 0);
    let line = wait_told(&stage, "stopping");
    assert!(line.starts_with(&format!("stopping misbehave {master_pid} slot= ")), "{line}");
}

#[test]
fn reloads_are_told_whatever_comes_of_them_and_a_kill_with_its_worker() {
    let stage = misbehave();
    let on_event = told_by(&stage);
    stage.configure(&on_event);
    stage.expect_error("reload refused");
    stage.allow_error("graceful_timeout");
    stage.allow_error("write seconds");
    let settings = ["min_uptime=0", "app_behaviour=ignore_term"];
    let master = stage.start(&settings);
    stage.log().wait_ready(1);
    let worker = master.wait_workers(1)[0].process;
    stage.configure(&format!("{on_event}graceful_timeout = soon\n"));
    master.send(Signal::SIGHUP);
    assert!(wait_told(&stage, "reload_refused").contains(" generation=2 pid= the configuration"));
    stage.configure(&format!("{on_event}graceful_timeout = 1\n"));
    master.send(Signal::SIGHUP);
    assert!(wait_told(&stage, "reloaded").contains(" generation=2 pid= in "));
    let killed = wait_told(&stage, "worker_killed");
    let about = format!(" slot=0 generation=1 pid={} ", worker.0);
    assert!(killed.contains(&about), "{killed}");
    assert_eq!(master.stop(), 0);
}

#[test]
fn what_was_rolled_back_is_told_and_so_is_a_slot_that_has_recovered() {
    let stage = misbehave();
    let on_event = told_by(&stage);
    let trouble = |behaviour: &str| {
        stage.configure(&format!(
            "{on_event}min_uptime = 0.1\nmax_restarts = 2\nbackoff_max = 200ms\n\
             app_behaviour = {behaviour}\n"
        ));
    };
    trouble("ok");
    stage.expect_error("reload failed");
    stage.allow_error("cannot boot");
    let master = stage.start(&[]);
    stage.log().wait_ready(1);
    trouble("boot_error");
    master.send(Signal::SIGHUP);
    let line = wait_told(&stage, "rolled_back");
    assert!(line.contains(" generation=2 pid= generation 1 serves again"), "{line}");
    stage.expect_error("is in a crash loop");
    for _ in 0..5 {
        let worker = master.wait_workers(1)[0];
        worker.process.send(Signal::SIGKILL);
        master.wait_replaced(worker);
    }
    assert!(wait_told(&stage, "recovered").contains(" slot=0 "));
    assert_eq!(master.stop(), 0);
}

#[test]
fn an_upgrade_is_told_by_the_successor_and_the_end_of_the_former_by_nobody() {
    let stage = misbehave();
    stage.configure(&told_by(&stage));
    // A successor needs a master without a terminal.
    let master = stage.start_through(&["setsid"], &["min_uptime=0"]);
    stage.log().wait_ready(1);
    let former = master.process;
    former.send(Signal::SIGUSR2);
    assert_eq!(master.wait(), 0);
    let line = wait_told(&stage, "upgraded");
    assert!(line.ends_with(&format!("took over from pid {}", former.0)), "{line}");
    let number = line.split(' ').nth(2).and_then(|word| word.parse().ok()).expect("a pid");
    let successor = Process(number);
    assert_eq!(stage.read("ph.pid").trim(), successor.0.to_string());
    successor.send(Signal::SIGTERM);
    successor.wait_gone();
    let stopping: Vec<_> =
        told(&stage).into_iter().filter(|it| it.starts_with("stopping")).collect();
    assert_eq!(stopping.len(), 1, "{stopping:?}");
    assert!(stopping[0].contains(&format!(" {} ", successor.0)), "{stopping:?}");
}

#[test]
fn a_program_that_is_not_there_refuses_the_start_and_the_reload() {
    let stage = misbehave();
    stage.configure("on_event = /no/such/program now\n");
    let (code, stderr) = stage.start(&[]).wait_with_stderr();
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("on_event") && stderr.contains("/no/such/program"), "{stderr}");
    stage.configure("");
    stage.expect_error("/no/such/program");
    stage.allow_error("reload refused");
    stage.allow_error("on_event");
    stage.allow_error("name a program");
    let master = stage.start(&[]);
    stage.log().wait_ready(1);
    stage.configure("on_event = /no/such/program now\n");
    master.send(Signal::SIGHUP);
    stage.log().wait_for("reload refused; nothing has changed");
    assert_eq!(master.stop(), 0);
}

/// It is killed with its group, and the stop ends as it would without it.
#[test]
fn a_command_that_hangs_is_killed_and_does_not_delay_a_stop() {
    let stage = misbehave();
    stage.configure("on_event = sh -c 'sleep 7001 & sleep 7002; true'\n");
    let master = stage.start(&["number_workers=1", "graceful_timeout=10m"]);
    stage.log().wait_ready(1);
    let ((), took) = timed(|| assert_eq!(master.stop(), 0));
    assert!(took < Duration::from_secs(20), "{took:?}");
    stage.log().wait_for("killing the command for stopping");
    stage.log().wait_for("master stopped, exit code 0");
    assert!(stage.processes().is_empty());
}

/// While the workers still stop, it has its own time, which is enforced in the same way.
#[test]
fn a_command_that_takes_too_long_is_killed_while_the_master_lives() {
    let stage = misbehave();
    stage.configure("on_event = sh -c 'sleep 7003 & sleep 7004; true'\n");
    let master = stage.start(&["min_uptime=0"]);
    stage.log().wait_ready(1);
    master.send(Signal::SIGHUP);
    let hanging = eventually("the command", || sleeping(&stage, "7003").first().copied());
    stage.log().wait_for("killing the command for reloaded");
    hanging.wait_gone();
    eventually("all of it is gone", || sleeping(&stage, "7004").is_empty().then_some(()));
    assert_eq!(master.wait_workers(1).len(), 1);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_flood_of_events_runs_a_few_commands_at_once_and_drops_what_is_too_much() {
    let stage = misbehave();
    stage.configure("on_event = sleep 7005\n");
    stage.expect_error("is in a crash loop");
    let settings = ["number_workers=60", "min_uptime=0", "app_from_slot=1", "max_restarts=2"];
    let trouble = ["app_behaviour=exit:1", "backoff_min=5s", "backoff_max=1h"];
    let master = stage.start(&[&settings[..], &trouble].concat());
    stage.log().wait_for("events wait already; dropping crash_loop");
    stage.log().wait_for_count("is in a crash loop", 59);
    assert_eq!(sleeping(&stage, "7005").len(), 4);
    let ((), took) = timed(|| {
        master.send(Signal::SIGTERM);
        assert_eq!(master.wait(), 0);
    });
    assert!(took < Duration::from_secs(20), "{took:?}");
    let dropped = stage.log().wait_for("on_event: events dropped: ");
    // What had waited is dropped as well.
    let count: u32 = dropped.message.rsplit(' ').next().and_then(|it| it.parse().ok()).unwrap();
    assert!(count >= 23, "{dropped:?}");
}
