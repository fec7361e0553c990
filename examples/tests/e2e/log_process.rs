//! Forked workers and the log process: what they print past the log, and what they log as another user.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use nix::sys::signal::Signal;

use crate::misbehave;
use crate::rotation::numbers;
use crate::support::{Log, Stage, eventually};

/// The messages of one slot that begin with this word, in their order.
fn messages(stage: &Stage, pid: i32, word: &str) -> Vec<String> {
    let lines = stage.log().lines().into_iter().filter(|line| line.pid == pid);
    lines.map(|line| line.message).filter(|message| message.starts_with(word)).collect()
}

fn wanted(word: &str, last: usize) -> Vec<String> {
    (1..=last).map(|number| format!("{word} {number} of {last}")).collect()
}

#[test]
fn stray_prints_of_forked_workers_are_lines_of_the_log_if_that_is_wanted() {
    let stage = misbehave();
    let settings = ["number_workers=2", "app_behaviour=print:3000,ok", "capture_output=yes"];
    let master = stage.start(&settings);
    stage.log().wait_for_count("and this on stderr", 2);
    for worker in master.wait_workers(2) {
        let pid = worker.process.0;
        eventually("all of it", || {
            (messages(&stage, pid, "printed") == wanted("printed", 3000)).then_some(())
        });
        let head = format!("INFO misbehave[{pid}] worker {} gen 1 stderr: and this", worker.slot);
        assert!(stage.read("ph.log").contains(&head), "{head}");
    }
    assert_eq!(master.stop(), 0);
    assert_eq!(stage.read("stdout.0"), "");
}

#[test]
fn stray_prints_of_forked_workers_go_where_the_master_prints_if_nothing_is_said() {
    let stage = misbehave();
    let master = stage.start(&["app_behaviour=print:2,ok"]);
    eventually("the print", || stage.read("stdout.0").contains("printed 2 of 2").then_some(()));
    master.send(Signal::SIGTERM);
    assert_eq!(master.wait_with_stderr(), (0, "and this on stderr\n".to_owned()));
    assert!(stage.log().with("printed").is_empty());
}

/// The workers may not even enter the folder of the log.
#[test]
fn fault_58_workers_of_another_user_log_through_the_log_process_before_and_after_a_reopen() {
    let stage = misbehave();
    fs::create_dir(stage.path("logs")).expect("a folder");
    fs::set_permissions(stage.path("logs"), fs::Permissions::from_mode(0o700)).expect("mine");
    let master = stage.start(&[
        "number_workers=2",
        "app_behaviour=count,turn:1",
        "user=nobody",
        "directory=/",
        "log_file=logs/ph.log",
    ]);
    let log = Log(stage.path("logs/ph.log"));
    log.wait_for_count("count 20", 2);
    let workers = master.wait_workers(2);
    for worker in &workers {
        assert_ne!(worker.process.status_number("Uid"), 0);
    }
    let old = stage.path("logs/old.log");
    fs::rename(&log.0, &old).expect("a rename");
    master.send(Signal::SIGUSR1);
    log.wait_for("log files reopened");
    log.wait_for_count("count ", 10);
    assert_eq!(fs::metadata(&log.0).expect("the log").uid(), 0, "it is the master's");
    assert_eq!(master.stop(), 0);
    let all = [Log(old).lines(), log.lines()].concat();
    for worker in workers {
        let of_worker = numbers(&all, "count").remove(&worker.process.0).expect("its lines");
        assert!(of_worker.iter().copied().eq(1..=of_worker.len()), "{of_worker:?}");
    }
}

#[test]
fn records_of_workers_of_another_user_are_json_where_the_log_is() {
    let stage = misbehave();
    let master = stage.start(&[
        "app_behaviour=write:10,ok",
        "user=nobody",
        "directory=/",
        "log_format=json",
    ]);
    eventually("all lines", || {
        let text = fs::read_to_string(stage.path("ph.log")).ok()?;
        (text.matches("of 10\"").count() == 10).then_some(())
    });
    let pid = master.wait_workers(1)[0].process.0;
    let head = format!(
        "\"level\":\"INFO\",\"name\":\"misbehave\",\"pid\":{pid},\"role\":\"worker\",\"slot\":0"
    );
    assert_eq!(master.stop(), 0);
    let text = stage.read("ph.log");
    let of_worker: Vec<_> = text.lines().filter(|line| line.contains("of 10\"")).collect();
    assert_eq!(of_worker.len(), 10);
    assert!(of_worker.iter().all(|line| line.contains(&head) && line.ends_with('}')), "{text}");
}
