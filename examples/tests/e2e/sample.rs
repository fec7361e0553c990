//! The examples as people read them, and the original's sample configuration as it stands.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Log, Process, Stage, eventually, timed};

/// The original's own file, to the byte.
const SAMPLE: &str = include_str!("../../conf/config.ini");

#[test]
fn the_originals_sample_configuration_runs_unchanged() {
    let stage = Stage::of(env!("CARGO_BIN_EXE_jobexecute"), "jobexecute");
    std::fs::write(stage.path("config.ini"), SAMPLE).expect("the sample");
    let master = stage.start(&[]);
    let log = Log(stage.path("master.log"));
    log.wait_ready(2);
    let pids: Vec<_> = master.workers().iter().map(|worker| worker.process.0).collect();
    assert_eq!(pids.len(), 2);
    for pid in pids {
        eventually("two rounds of a worker", || {
            let rounds = log.with("go...").into_iter().filter(|line| line.pid == pid);
            (rounds.count() >= 2).then_some(())
        });
    }
    assert_eq!(stage.read("master.pid").trim(), master.process.0.to_string());
    assert_eq!(stage.files(), ["master.lock", "master.log", "master.pid", "master.sock"]);
    master.send(Signal::SIGINT);
    // graceful_timeout is 3 s, and no worker needs it: it sleeps in `ctx.sleep`.
    let ((code, stderr), took) = timed(|| master.wait_with_stderr());
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(log.with("killing").is_empty());
    assert_eq!(stage.files(), ["master.log"]);
    let errors: Vec<_> = log.lines().into_iter().filter(|line| line.level == "ERROR").collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// The tests of the examples set paths and ports of their own, so this looks at the files as they stand.
#[test]
fn the_configurations_of_the_examples_hold_as_they_stand() {
    for (program, name, text) in [
        (env!("CARGO_BIN_EXE_rest_api"), "rest_api", include_str!("../../conf/rest_api.ini")),
        (
            env!("CARGO_BIN_EXE_msgpack_rpc"),
            "msgpack_rpc",
            include_str!("../../conf/msgpack_rpc.ini"),
        ),
        (env!("CARGO_BIN_EXE_job_queue"), "job_queue", include_str!("../../conf/job_queue.ini")),
    ] {
        let stage = Stage::of(program, name);
        std::fs::write(stage.path("config.ini"), text).expect("the configuration");
        let shown = stage.launch(&[], &["config", "show", "-c", "config.ini"]);
        assert_eq!(shown.wait_with_stderr(), (0, String::new()), "{name}");
    }
}

#[test]
fn the_smallest_program_counts_in_two_workers_until_it_is_told_to_stop() {
    let stage = Stage::of(env!("CARGO_BIN_EXE_minimal"), "minimal");
    let master = stage.launch(&[], &[]);
    let count = |slot: u32| stage.read("stdout.0").contains(&format!("worker {slot} counts 2\n"));
    eventually("both count", || (count(0) && count(1)).then_some(()));
    let workers = master.wait_workers(2);
    assert!(workers.iter().all(|worker| worker.process.stat(4).is_some()));
    assert_eq!(master.stop(), 0);
    assert!(stage.files().is_empty());
}

#[test]
fn a_program_with_a_second_thread_is_refused_with_the_reason() {
    let stage = Stage::of(env!("CARGO_BIN_EXE_threaded"), "threaded");
    let (code, stderr) = stage.start(&[]).wait_with_stderr();
    assert_eq!(code, 1);
    let sentence = "a master must be started from a single-threaded process, this one has 2 \
                    threads (start it before any runtime, such as #[tokio::main], and before any \
                    logging thread)";
    assert!(stderr.starts_with("threaded: ") && stderr.contains(sentence), "{stderr}");
    assert_eq!(stage.files(), ["ph.log"]);
}

/// The log thread of a worker is the worker's own.
#[test]
fn the_master_has_one_thread_for_its_whole_life() {
    let stage = Stage::of(env!("CARGO_BIN_EXE_jobexecute"), "jobexecute");
    stage.configure("number_workers = 2");
    let master = stage.start(&[]);
    stage.log().wait_for_count("go...", 3);
    let threads = |process: Process| process.status_number("Threads");
    assert_eq!(threads(master.process), 1);
    assert_eq!(master.stop(), 0);
}
