//! No line is lost: neither when the log is renamed, nor when a worker leaves without a word.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use crate::deaths::address;
use crate::misbehave;
use crate::support::{Client, Log, eventually};

#[test]
fn after_a_rename_and_usr1_everybody_writes_the_new_file_and_nothing_is_lost() {
    const ROUNDS: usize = 3;
    let stage = misbehave();
    let master = stage.start(&["number_workers=2", "app_behaviour=count,turn:1"]);
    let pids: BTreeSet<_> = eventually("two workers count", || {
        let pids: BTreeSet<_> =
            stage.log().with("count ").into_iter().map(|line| line.pid).collect();
        (pids.len() == 2).then_some(pids)
    });
    let old = |round| Log(stage.path(&format!("ph.log.{round}")));
    for round in 0..ROUNDS {
        std::fs::rename(stage.path("ph.log"), old(round).0).expect("the log");
        master.send(Signal::SIGUSR1);
        stage.log().wait_for("log files reopened");
        for pid in &pids {
            eventually("both count in the new file", || {
                let lines = stage.log().with("count ").into_iter();
                lines.into_iter().any(|line| line.pid == *pid).then_some(())
            });
        }
    }
    assert_eq!(master.stop(), 0);
    let all = (0..ROUNDS).map(old).chain([stage.log()]).flat_map(|log| log.lines());
    let all: Vec<_> = all.collect();
    for pid in pids {
        let of_worker = all.iter().filter(|line| line.pid == pid);
        let counts: Vec<usize> = of_worker
            .filter_map(|line| line.message.strip_prefix("count ")?.parse().ok())
            .collect();
        assert_eq!(counts, (1..=counts.len()).collect::<Vec<_>>(), "each once, in order");
        let last = format!("stopped after turn {}", counts.len());
        assert!(all.iter().any(|line| line.pid == pid && line.message == last), "{last}");
    }
}

#[test]
fn an_exit_in_the_middle_of_the_users_code_loses_no_line() {
    const LINES: usize = 20_000;
    let stage = misbehave();
    let master = stage.start(&["bind=127.0.0.1:0"]);
    stage.log().wait_ready(1);
    for end in ["exit:0", "exit:9"] {
        let mut client = Client::tcp(&address(&stage.log()));
        let pid = client.worker.0;
        assert_eq!(client.ask(&format!("write:{LINES}")), Some(vec![]));
        assert_eq!(client.ask(end), None);
        eventually("its end", || (!client.worker.is_alive()).then_some(()));
        let written = stage.log().with(&format!("of {LINES}")).into_iter();
        let written: Vec<_> = written.filter(|line| line.pid == pid).collect();
        assert_eq!(written.len(), LINES);
        let in_order = (1..).zip(&written);
        for (number, line) in in_order {
            assert_eq!(line.message, format!("line {number} of {LINES}"));
        }
    }
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_panic_loses_no_line() {
    const LINES: usize = 5_000;
    let stage = misbehave();
    stage.expect_error("asked to panic");
    stage.expect_error("is in a crash loop");
    let master = stage.start(&[&format!("app_behaviour=write:{LINES},panic")]);
    stage.log().wait_for_count("exited with code 101", 5);
    assert_eq!(master.stop(), 0);
    let lines = stage.log().lines();
    for panic in lines.iter().filter(|line| line.message.contains("asked to panic")) {
        let of_worker = lines.iter().filter(|line| line.pid == panic.pid);
        assert_eq!(of_worker.filter(|line| line.message.starts_with("line ")).count(), LINES);
    }
}

#[test]
fn a_log_that_is_no_regular_file_is_refused_with_its_name() {
    let stage = misbehave();
    std::fs::create_dir(stage.path("folder.log")).expect("a folder");
    let (code, stderr) = stage.start(&["log_file=folder.log"]).wait_with_stderr();
    assert_eq!(code, 1);
    assert!(stderr.contains("folder.log") && stderr.contains("set by --set log_file"), "{stderr}");
    assert_eq!(stage.files(), ["folder.log"]);
}
