//! Hooks: which process calls which, and in which order, over a whole life; and hooks that misbehave.

use nix::sys::signal::Signal;

use crate::support::{Master, Process, Stage, eventually};

/// One line of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    process: Process,
    /// The hook and its arguments, without the identity and the pid of a worker.
    what: String,
    /// The pid among its arguments.
    about: Option<Process>,
}

fn hooks(variables: &[(&str, &str)]) -> Stage {
    let mut stage = Stage::of(env!("CARGO_BIN_EXE_hooks"), "hooks");
    let file = stage.path("record").to_str().expect("a path in UTF-8").to_owned();
    stage.variable("HOOKS_FILE", &file);
    for (name, value) in variables {
        stage.variable(name, value);
    }
    stage
}

fn calls(stage: &Stage) -> Vec<Call> {
    let text = std::fs::read_to_string(stage.path("record")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(parse).collect()
}

fn parse(line: &str) -> Call {
    let (process, rest) = line.split_once(' ').expect("a pid and a hook");
    let pid = |text: &str| text.parse().ok().map(Process);
    let about = rest.split_once(" pid=").and_then(|(_, number)| pid(number));
    let words =
        rest.split(' ').filter(|word| !word.starts_with("id=") && !word.starts_with("pid="));
    let what = words.collect::<Vec<_>>().join(" ");
    Call { process: pid(process).expect("a pid"), what, about }
}

/// What one process has called.
fn of(process: Process, calls: &[Call]) -> Vec<&str> {
    let own = calls.iter().filter(|call| call.process == process);
    own.map(|call| call.what.as_str()).collect()
}

/// Waits until a hook was called so often, and gives the last of these calls.
fn wait_call(stage: &Stage, what: &str, count: usize) -> Call {
    eventually(&format!("{count} calls of {what:?}"), || {
        calls(stage).into_iter().filter(|call| call.what == what).nth(count - 1)
    })
}

/// What a worker calls that lives from its fork to a polite end.
const WHOLE_LIFE: [&str; 3] = ["post_fork", "post_worker_init", "worker_exit"];

/// Every worker has the hooks of its life, as far as it went, each with its own place.
fn see_life(calls: &[Call], worker: Process, place: &str, hooks: &[&str]) {
    let wanted: Vec<_> = hooks.iter().map(|hook| format!("{hook} {place}")).collect();
    assert_eq!(of(worker, calls), wanted, "{worker:?}");
    let own = calls.iter().filter(|call| call.process == worker);
    for call in own {
        assert_eq!(call.about, Some(worker), "a worker is told of itself");
    }
}

/// The worker that has the nth place of this kind.
fn worker(stage: &Stage, place: &str, count: usize) -> Process {
    wait_call(stage, &format!("post_worker_init {place}"), count).process
}

/// A crash, more and fewer workers, and a stuck one; gives the master's calls, and sees to the workers'.
fn live(stage: &Stage, master: &Master) -> Vec<String> {
    let (first, second) = ("slot=0 generation=1", "slot=1 generation=1");
    let crashed = worker(stage, first, 1);
    crashed.send(Signal::SIGKILL);
    let stuck = worker(stage, first, 2);
    master.send(Signal::SIGTTIN);
    let surplus = worker(stage, second, 1);
    master.send(Signal::SIGTTOU);
    assert_eq!(wait_call(stage, &format!("child_exit {second}"), 1).about, Some(surplus));
    std::fs::write(stage.path("hang"), "").expect("a file");
    let aborted = wait_call(stage, &format!("worker_abort {first}"), 1);
    assert_eq!((aborted.process, aborted.about), (master.process, Some(stuck)));
    std::fs::remove_file(stage.path("hang")).expect("the file");
    let reloaded = worker(stage, first, 3);
    stage.log().wait_for_count("is ready after", 4);
    master.send(Signal::SIGHUP);
    wait_call(stage, &format!("child_exit {first}"), 3);
    let all = calls(stage);
    see_life(&all, crashed, first, &WHOLE_LIFE[..2]);
    see_life(&all, surplus, second, &WHOLE_LIFE);
    see_life(&all, stuck, first, &WHOLE_LIFE[..2]);
    see_life(&all, reloaded, first, &WHOLE_LIFE);
    let wanted = [
        "on_starting",
        "when_ready",
        "pre_fork slot=0 generation=1",
        "child_exit slot=0 generation=1",
        "pre_fork slot=0 generation=1",
        "nworkers_changed from=1 to=2",
        "pre_fork slot=1 generation=1",
        "nworkers_changed from=2 to=1",
        "child_exit slot=1 generation=1",
        "worker_abort slot=0 generation=1",
        "child_exit slot=0 generation=1",
        "pre_fork slot=0 generation=1",
        "on_reload",
        "pre_fork slot=0 generation=2",
        "child_exit slot=0 generation=1",
    ];
    assert_eq!(of(master.process, &all), wanted);
    wanted.map(str::to_owned).to_vec()
}

#[test]
fn each_process_calls_its_hooks_in_their_order_over_a_whole_life() {
    let stage = hooks(&[]);
    stage.expect_error("is stuck: aborting it");
    let hang = format!("app_hang={}", stage.path("hang").display());
    let settings =
        ["number_workers=1", "max_workers=4", "timeout=1", "min_uptime=0", "canary_hold=0", &hang];
    // A successor needs a master without a terminal.
    let master = stage.start_through(&["setsid"], &settings);
    let mut wanted = live(&stage, &master);
    let former = master.process;
    let last = worker(&stage, "slot=0 generation=2", 1);
    former.send(Signal::SIGUSR2);
    assert_eq!(master.wait(), 0);
    let all = calls(&stage);
    let taken_down = ["pre_exec", "child_exit slot=0 generation=2", "on_exit"];
    wanted.extend(taken_down.map(str::to_owned));
    assert_eq!(of(former, &all), wanted);
    see_life(&all, last, "slot=0 generation=2", &WHOLE_LIFE);

    let successor = wait_call(&stage, "on_starting", 2).process;
    assert_ne!(successor, former);
    assert_eq!(stage.read("ph.pid").trim(), successor.0.to_string());
    let its_worker = worker(&stage, "slot=0 generation=1", 4);
    successor.send(Signal::SIGTERM);
    successor.wait_gone();
    let all = calls(&stage);
    let place = "slot=0 generation=1";
    let life = ["on_starting", "when_ready", &format!("pre_fork {place}")];
    let end = [&format!("child_exit {place}"), "on_exit"];
    assert_eq!(of(successor, &all), [&life[..], &end].concat());
    see_life(&all, its_worker, place, &WHOLE_LIFE);
    see_forks(&all);
}

/// Across processes: the master's hook comes before that of the worker it forks, and each end before the
/// master is told of it.
fn see_forks(all: &[Call]) {
    let position = |call: &Call| all.iter().position(|other| other == call).expect("it is there");
    for call in all.iter().filter(|call| call.what.starts_with("pre_fork")) {
        assert_eq!(call.about, None, "there is no process yet");
        let place = call.what.trim_start_matches("pre_fork ");
        let born = all[position(call)..].iter();
        let mut born = born.filter(|call| call.what == format!("post_fork {place}"));
        assert!(born.next().is_some(), "{call:?} led to nothing");
    }
    for call in all.iter().filter(|call| call.what.starts_with("child_exit")) {
        let later = &all[position(call)..];
        let ended = call.about.expect("a pid");
        assert!(of(ended, later).is_empty(), "a hook of {ended:?} after its end");
    }
}

#[test]
fn a_hook_that_panics_is_logged_and_nothing_else_happens() {
    let every = "on_starting,when_ready,pre_fork,post_fork,post_worker_init,worker_exit,child_exit,\
                 nworkers_changed,on_reload,on_exit";
    let stage = hooks(&[("HOOKS_PANIC", every)]);
    stage.allow_error("panicked");
    let master = stage.start(&["number_workers=1", "max_workers=2", "min_uptime=0"]);
    let crashed = worker(&stage, "slot=0 generation=1", 1);
    stage.log().wait_ready(1);
    crashed.send(Signal::SIGKILL);
    stage.log().wait_ready(2);
    master.send(Signal::SIGTTIN);
    stage.log().wait_ready(3);
    master.send(Signal::SIGHUP);
    stage.log().wait_for("reloaded in ");
    let process = master.process;
    master.send(Signal::SIGTERM);
    assert_eq!(master.wait(), 0);
    stage.log().wait_for("master stopped, exit code 0");
    // The first two come before the log is open, and the last after it is closed, each where the master prints.
    let all = stage.log().with("panicked: asked to");
    for hook in every.split(',').filter(|hook| *hook != "on_exit") {
        let line = format!("the hook {hook} panicked");
        let own = all.iter().find(|found| found.message.contains(&line));
        let own = own.unwrap_or_else(|| panic!("no {line:?} in {all:#?}"));
        let is_worker = ["post_fork", "post_worker_init", "worker_exit"].contains(&hook);
        assert_eq!(own.pid == process.0, !is_worker, "{hook}");
    }
    assert!(of(process, &calls(&stage)).contains(&"on_exit"));
}

/// A fork would copy one thread only, so there is none until that thread is gone; then life goes on.
#[test]
fn a_hook_that_starts_a_thread_costs_forks_and_not_the_master() {
    let stage = hooks(&[("HOOKS_THREAD", "child_exit")]);
    stage.expect_error("cannot start worker 0: the master has 2 threads");
    stage.expect_error("worker 0 was not started");
    stage.allow_error("crash loop");
    std::fs::write(stage.path("record.thread"), "").expect("a file");
    let master = stage.start(&["number_workers=2", "min_uptime=0", "backoff_max=200ms"]);
    stage.log().wait_ready(2);
    let crashed = worker(&stage, "slot=0 generation=1", 1);
    let other = worker(&stage, "slot=1 generation=1", 1);
    crashed.send(Signal::SIGKILL);
    stage.log().wait_for_count("the master has 2 threads", 2);
    assert!(other.is_alive(), "it serves on with the others");
    std::fs::remove_file(stage.path("record.thread")).expect("the file");
    let next = worker(&stage, "slot=0 generation=1", 2);
    assert_ne!(next, crashed);
    assert_eq!(master.stop(), 0);
}
