//! The settings of the log, which hold from a reload on, in a master that goes on: nothing is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ph;
use crate::reload::{reload, start, wait_reloaded};
use crate::support::{Log, Process, Stage, eventually, let_pass, tell};

const BASE: &str = "command = sleep 1000\nmin_uptime = 0.1\nnumber_workers = 2\n";

fn text(stage: &Stage, name: &str) -> String {
    std::fs::read_to_string(stage.path(name)).unwrap_or_default()
}

#[test]
fn another_log_file_and_another_format_hold_from_the_reload_on_and_come_back_with_a_rollback() {
    let stage = ph();
    let (master, _) = start(&stage, BASE, 2);
    let log_process = stage.wait_titled("ph: log [web]", 1)[0];
    reload(&stage, &master, &format!("{BASE}log_file = other.log\nlog_format = json"));
    eventually("the end of the reload in the new log", || {
        text(&stage, "other.log").contains("all workers are of generation 2").then_some(())
    });
    log_process.wait_gone();
    for line in text(&stage, "other.log").lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
    }
    let before = text(&stage, "ph.log");
    assert!(before.contains("is the canary of generation 2"));
    assert!(!before.contains("all workers are of generation 2"));
    assert!(!format!("{before}{}", text(&stage, "other.log")).contains("log process"));
    reload(&stage, &master, "command = false\nmin_uptime = 0.1\nlog_file = third.log");
    eventually("the end of the rollback", || {
        text(&stage, "other.log").contains("has its former settings again").then_some(())
    });
    // It may have been read by a log process of before the reload, of it, or of after it.
    let told = ["third.log", "other.log"].map(|name| text(&stage, name)).concat();
    assert_eq!(told.matches("generation 3 was rolled back").count(), 1);
    reload(&stage, &master, &format!("{BASE}log_file = other.log\nlog_level = error"));
    eventually("a reload nobody tells of", || {
        let workers = master.workers();
        let generation =
            |it: &crate::support::Worker| it.process.environment().get("PH_GENERATION").cloned();
        let are_new = workers.iter().all(|it| generation(it).as_deref() == Some("4"));
        (workers.len() == 2 && are_new).then_some(())
    });
    assert_eq!(master.stop(), 0);
    let other = text(&stage, "other.log");
    assert!(other.contains("is the canary of generation 4"));
    assert!(!other.contains("all workers are of generation 4"));
    assert!(!other.contains("master stopped"));
}

/// Each line of a worker once, in its order, while log processes come and go.
#[test]
fn no_line_is_lost_over_twenty_reloads_in_a_flood() {
    flood(20, |_| {});
}

/// A log process that is killed may have been told to make room for another, or not yet.
#[test]
fn no_line_is_lost_if_log_processes_are_killed_in_reloads() {
    flood(10, |log_process| {
        let_pass(Duration::from_millis(u64::from(log_process.0.unsigned_abs() % 7) * 4));
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(log_process.0),
            nix::sys::signal::Signal::SIGKILL,
        );
    });
}

fn flood(reloads: usize, meanwhile: impl Fn(Process)) {
    let stage = ph();
    let script = "trap 'echo end $i; exit 0' TERM; i=0; while :; do j=0; \
                  while [ $j -lt 200 ]; do i=$((i+1)); j=$((j+1)); echo n $i; done; \
                  sleep 0.1; done";
    let lines = |number: usize| {
        format!(
            "command = sh -c \"{script}\"\nmin_uptime = 0.1\nnumber_workers = 2\n\
             log_max_size = {}MB",
            500 + number
        )
    };
    let (master, _) = start(&stage, &lines(0), 2);
    for number in 1..=reloads {
        let log_process = stage.wait_titled("ph: log [web]", 1)[0];
        reload(&stage, &master, &lines(number));
        meanwhile(log_process);
        wait_reloaded(&stage, number);
        log_process.wait_gone();
    }
    assert_eq!(master.stop(), 0);
    let mut last: BTreeMap<i32, u64> = BTreeMap::new();
    let mut ended = 0;
    let mut all = 0_u64;
    for line in Log(stage.path("ph.log")).lines() {
        if let Some(number) = line.message.strip_prefix("n ") {
            let number: u64 = number.parse().expect("a whole line");
            let before = last.insert(line.pid, number).unwrap_or(0);
            assert_eq!(number, before + 1, "of pid {}", line.pid);
            all += 1;
        } else if let Some(number) = line.message.strip_prefix("end ") {
            let number: u64 = number.parse().expect("a whole line");
            let printed = last.get(&line.pid).copied().unwrap_or(0);
            // The signal may come between the sum and the line.
            assert!(number == printed || number == printed + 1, "of pid {}", line.pid);
            ended += 1;
        }
    }
    assert_eq!(ended, 2 * (reloads + 1));
    tell(&format!("{all} lines over {reloads} reloads, none lost, none twice"));
}
