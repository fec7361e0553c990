//! Reloads among everything else that may happen: good, bad and failing configurations, deaths of workers,
//! of the log process and of the loader, orders of all kinds. When it is over, the newest good
//! configuration has all its workers, and nothing else is left.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ph;
use crate::reload::{reload, start};
use crate::support::{Process, Random, Worker, eventually, let_pass, tell};

const ROUNDS: u32 = 60;

fn lines(version: u64, workers: u64, command: &str) -> String {
    format!(
        "command = {command}\nnumber_workers = {workers}\nmin_uptime = 0.05\nbackoff_min = 0.01\n\
         backoff_max = 0.1\ngraceful_timeout = 1\nenvironment = VERSION={version}\n\
         bind = unix:a.sock, unix:s{}.sock\nlog_max_size = {}MB",
        version % 3,
        100 + version
    )
}

/// It may have ended by itself.
fn end(process: Process) {
    let _ = kill(Pid::from_raw(process.0), Signal::SIGKILL);
}

#[test]
fn whatever_happens_around_reloads_the_newest_good_configuration_wins_in_the_end() {
    let mut random = Random::new();
    tell(&random.to_string());
    let stage = ph();
    stage.allow_error("");
    let (master, _) = start(&stage, &lines(0, 3, "sleep 1000"), 3);
    for round in 1..=ROUNDS {
        let version = u64::from(round);
        let workers = 1 + random.below(5);
        match random.below(12) {
            0..3 => reload(&stage, &master, &lines(version, workers, "sleep 1000")),
            3 => reload(&stage, &master, &lines(version, workers, "false")),
            4 => reload(&stage, &master, "number_workers = many"),
            5 => {
                let deaf = "sh -c \"trap '' TERM; while :; do sleep 0.1; done\"";
                reload(&stage, &master, &lines(version, workers, deaf));
            }
            6 => {
                let some = "sh -c \"[ $PH_SLOT = 1 ] && exit 1; exec sleep 1001\"";
                reload(&stage, &master, &lines(version, workers, some));
            }
            7 => master.workers().into_iter().take(2).for_each(|worker| end(worker.process)),
            8 => stage.titled("ph: log [web]").into_iter().for_each(end),
            9 => stage.titled("ph: loader [web]").into_iter().for_each(end),
            10 => master.send(Signal::SIGTTIN),
            _ => master.send(Signal::SIGTTOU),
        }
        let_pass(Duration::from_millis(random.below(250)));
    }
    let last = u64::from(ROUNDS) + 1;
    reload(&stage, &master, &lines(last, 4, "sleep 1002"));
    let is_new = |worker: &Worker| {
        let version = worker.process.environment().remove("VERSION");
        version.is_some_and(|version| version == last.to_string())
    };
    let has_settled = || {
        let lines = stage.log().lines();
        let place = |text: &str| lines.iter().rposition(|line| line.message.contains(text));
        place("reloading: generation") < place("all workers are of generation")
    };
    let workers = eventually("the newest configuration alone", || {
        let workers = master.workers();
        (has_settled() && workers.iter().all(is_new)).then_some(workers)
    });
    let slots = workers.iter().map(|worker| worker.slot);
    assert!(slots.eq(0..u32::try_from(workers.len()).expect("few")), "{workers:?}");
    eventually("nothing but master, warden, log process and workers", || {
        (stage.processes().len() == workers.len() + 3).then_some(())
    });
    let sockets: Vec<_> =
        stage.files().into_iter().filter(|name| name.ends_with(".sock")).collect();
    assert_eq!(sockets, ["a.sock".to_owned(), "ph.sock".to_owned(), format!("s{}.sock", last % 3)]);
    let_pass(Duration::from_secs(1));
    let switches = master.process.context_switches().0;
    let_pass(Duration::from_secs(2));
    assert_eq!(master.process.context_switches().0, switches, "a master with nothing to do");
    assert_eq!(master.workers(), workers);
    assert!(stage.log().with("bug in ph").is_empty());
    assert_eq!(master.stop(), 0);
}

/// It is forked from the master, and looked at whenever a worker has died.
#[test]
fn a_loader_is_not_taken_for_what_a_worker_left_behind() {
    let stage = ph();
    let (master, _) = start(&stage, &lines(0, 3, "sleep 1000"), 3);
    stage.allow_error("");
    for _ in 0..30 {
        master.send(Signal::SIGHUP);
        let_pass(Duration::from_millis(5));
        master.workers().into_iter().take(1).for_each(|worker| end(worker.process));
        let_pass(Duration::from_millis(60));
    }
    assert_eq!(master.stop(), 0);
    assert!(stage.log().with("escaped").is_empty());
}
