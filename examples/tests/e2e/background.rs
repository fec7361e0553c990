//! Programs with workers of their own in the background.

use nix::sys::signal::Signal;

use crate::misbehave;
use crate::support::{Log, Process, Stage, eventually, require};

/// The original's own file, to the byte; it says `daemonize = true`.
const SAMPLE: &str = include_str!("../../conf/config.ini");

fn master_of(stage: &Stage, pidfile: &str) -> Process {
    Process(stage.read(pidfile).trim().parse().expect("a pid"))
}

fn stop(stage: &Stage, pidfile: &str) {
    let master = master_of(stage, pidfile);
    master.send(Signal::SIGTERM);
    eventually("the end of the master", || (!master.is_alive()).then_some(()));
}

#[test]
fn the_originals_sample_goes_to_the_background_without_a_verb() {
    let stage = Stage::of(env!("CARGO_BIN_EXE_jobexecute"), "jobexecute");
    std::fs::write(stage.path("config.ini"), SAMPLE).expect("the sample");
    let caller = stage.launch(&[], &["-c", "config.ini", "-s", "jobexecute"]);
    assert_eq!(caller.wait_with_stderr(), (0, String::new()));
    let master = master_of(&stage, "master.pid");
    let told = stage.read("stdout.0");
    assert!(told.starts_with("jobexecute: ready, 2 workers after "), "{told}");
    assert!(told.ends_with(&format!(" s, pid {}\n", master.0)), "{told}");
    let log = Log(stage.path("master.log"));
    log.wait_for_count("go...", 4);
    // An upgrade by the same words does not go to the background once more.
    master.send(Signal::SIGUSR2);
    eventually("the end of the old master", || (!master.is_alive()).then_some(()));
    let successor = master_of(&stage, "master.pid");
    assert_eq!(stage.wait_titled("ph: master [jobexecute]", 1), [successor]);
    stop(&stage, "master.pid");
    stage.wait_empty();
    assert_eq!(stage.files(), ["master.log"]);
}

/// No forked worker, no warden and no log process has the end by which the master tells how its start
/// comes along: it alone decides when that is over.
#[test]
fn what_the_caller_waits_at_is_the_masters_alone() {
    let stage = Stage::of(env!("CARGO_BIN_EXE_jobexecute"), "jobexecute");
    stage.configure("number_workers = 2");
    let caller = stage.launch(&[], &["start", "-c", "config.ini"]);
    assert_eq!(caller.wait_with_stderr(), (0, String::new()));
    let sockets = |title: &str| {
        let all = stage.processes().into_iter().filter(|it| it.title().starts_with(title));
        let counts = all.map(|it| {
            let targets = it.descriptors().into_values();
            targets.filter(|target| target.starts_with("socket:")).count()
        });
        counts.collect::<Vec<_>>()
    };
    assert_eq!(sockets("ph: worker "), [0, 0]);
    assert_eq!(sockets("ph: warden "), [0]);
    assert_eq!(sockets("ph: log "), [1], "by which the master tells it what there is to read");
    assert_eq!(sockets("ph: master "), [2], "the other end of that, and the control socket");
    stop(&stage, "ph.pid");
}

#[test]
fn a_worker_that_cannot_boot_ends_the_start_with_its_code() {
    let stage = misbehave();
    stage.configure("number_workers = 2\napp_behaviour = boot_error");
    stage.expect_error("this worker cannot boot: asked to fail at boot");
    let caller = stage.launch(&[], &["start", "-c", "config.ini"]);
    let (code, stderr) = caller.wait_with_stderr();
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.starts_with("misbehave: cannot start misbehave: worker "), "{stderr}");
    assert!(stderr.contains(" exited with code 3\n    the last it said:\n    | "), "{stderr}");
    stage.wait_empty();
    assert_eq!(stage.files(), ["ph.log"]);
}

/// Its terminal goes away with all that is in the foreground there; it stays.
#[test]
fn it_outlives_the_terminal_that_it_was_started_from() {
    require(&["python3"]);
    let stage = Stage::of(env!("CARGO_BIN_EXE_jobexecute"), "jobexecute");
    stage.configure("number_workers = 2");
    let play = "import os, pty, sys\nsys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let caller = stage.launch(&["python3", "-c", play], &["start", "-c", "config.ini"]);
    assert_eq!(caller.wait(), 0);
    let told = stage.read("stdout.0");
    assert!(told.contains("jobexecute: ready, 2 workers after "), "{told}");
    for process in stage.processes() {
        // The seventh field is the terminal.
        assert_eq!(process.stat(7).as_deref(), Some("0"), "{}", process.title());
        let descriptors = process.descriptors();
        let terminal = descriptors.values().find(|it| it.contains("/pts/") || it.contains("ptmx"));
        assert_eq!(terminal, None, "{}", process.title());
    }
    let log = stage.log();
    let before = log.with("go...").len();
    log.wait_for_count("go...", before + 4);
    stop(&stage, "ph.pid");
}
