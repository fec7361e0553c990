//! What workers print, on its way into the log: whatever is killed, fills up, floods or lies.
//!
//! Each test of a fault has its number in the catalogue of faults.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ph;
use crate::support::{Master, Process, Stage, eventually, let_pass, timed};

/// No stop takes longer than its grace and this, on any machine.
const STOP_LIMIT: Duration = Duration::from_secs(15);

const MEBI: u64 = 1 << 20;

fn run(stage: &Stage, wrapper: &[&str], command: &[&str]) -> Master {
    stage.launch(wrapper, &[&["run", "-c", "config.ini", "--"], command].concat())
}

/// The log process of the stage, once it is there.
fn log_process(stage: &Stage) -> Process {
    stage.wait_titled("ph: log [web]", 1)[0]
}

/// The next one.
fn log_process_after(stage: &Stage, old: Process) -> Process {
    eventually("another log process", || {
        stage.titled("ph: log [web]").into_iter().find(|it| *it != old)
    })
}

fn resident(process: Process) -> u64 {
    process.status_number("VmRSS") * 1024
}

fn stop_in_time(master: Master) {
    stop_in_time_with(0, master);
}

/// As every stop after which lines are in no log, it ends with 1.
fn stop_in_time_with(expected: i32, master: Master) {
    let (code, took) = timed(|| master.stop());
    assert_eq!(code, expected);
    assert!(took < STOP_LIMIT, "{took:?}");
}

/// All lines of the log and its backups, oldest first. While they are rotated, a name may be nobody's
/// for a moment; what counts is judged when nothing moves any more.
fn all_lines(folder: &Path) -> Vec<String> {
    let mut backups: Vec<_> = fs::read_dir(folder)
        .expect("the folder")
        .filter_map(|entry| {
            let name = entry.expect("an entry").file_name().into_string().ok()?;
            name.strip_prefix("ph.log.")?.parse::<u32>().ok()
        })
        .collect();
    backups.sort_unstable_by(|a, b| b.cmp(a));
    let mut bytes = Vec::new();
    for number in backups {
        bytes.extend(fs::read(folder.join(format!("ph.log.{number}"))).unwrap_or_default());
    }
    bytes.extend(fs::read(folder.join("ph.log")).unwrap_or_default());
    String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
}

/// The numbers that each slot has printed as "n NUMBER", in the order of the log.
fn numbers(lines: &[String]) -> BTreeMap<u32, Vec<u64>> {
    let mut found: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for line in lines {
        let Some((head, number)) = line.split_once(" stdout: n ") else { continue };
        let slot = head.rsplit_once("worker ").and_then(|(_, rest)| rest.split(' ').next());
        let slot = slot.and_then(|slot| slot.parse().ok()).expect("a slot");
        found.entry(slot).or_default().push(number.parse().expect("a whole line"));
    }
    found
}

/// Every slot has printed all numbers from 1 on, each once and in order.
fn check_complete(folder: &Path, slots: u32, last: u64) {
    let found = numbers(&all_lines(folder));
    for slot in 0..slots {
        let got = found.get(&slot).map_or(&[][..], Vec::as_slice);
        let wrong = got.iter().zip(1..).find(|(got, wanted)| **got != *wanted);
        assert_eq!(wrong, None, "slot {slot}");
        assert_eq!(got.len() as u64, last, "slot {slot}");
    }
}

fn counting(last: u64) -> String {
    format!("i=0; while [ $i -lt {last} ]; do i=$((i+1)); echo n $i; done; exec sleep 1000")
}

#[test]
fn what_commands_print_is_in_the_log_with_slot_pid_and_stream() {
    let stage = ph();
    stage.configure("number_workers = 2");
    let script = "echo out $PH_SLOT; echo err $PH_SLOT >&2; printf 'open end'; exec sleep 1000";
    let master = run(&stage, &[], &["sh", "-c", script]);
    stage.log().wait_for_count("open end", 2);
    let workers = master.wait_workers(2);
    let text = stage.read("ph.log");
    for worker in workers {
        let (slot, pid) = (worker.slot, worker.process.0);
        let head = format!("INFO web[{pid}] worker {slot} gen 1");
        for line in [
            format!("{head} stdout: out {slot}\n"),
            format!("{head} stderr: err {slot}\n"),
            format!("{head} stdout: open end\n"),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
    assert_eq!(stage.read("stdout.0"), "");
    assert_eq!(log_process(&stage).status("PPid"), master.process.0.to_string());
    stop_in_time(master);
    let last = stage.log().lines().pop().expect("a line");
    assert_eq!(last.message, "master stopped, exit code 0");
}

#[test]
fn the_last_words_of_a_worker_that_dies_are_in_the_log() {
    let stage = ph();
    stage.configure("number_workers = 1\nmin_uptime = 0.1\nbackoff_min = 0.1");
    let script = "sleep 0.3; echo last words >&2; printf 'and an open end'; exit 7";
    let master = run(&stage, &[], &["sh", "-c", script]);
    stage.log().wait_for_count("and an open end", 2);
    assert!(stage.log().with("last words").len() >= 2);
    stop_in_time(master);
}

#[test]
fn a_log_process_that_is_killed_again_and_again_loses_nothing() {
    const LAST: u64 = 20_000;
    let stage = ph();
    stage.configure("number_workers = 4\nlog_max_size = 1MB\nlog_backups = 100\nbackoff_max = 0.1");
    let master = run(&stage, &[], &["sh", "-c", &counting(LAST)]);
    let mut log = log_process(&stage);
    for pause in [20, 50, 5, 120, 80] {
        let_pass(Duration::from_millis(pause));
        log.send(Signal::SIGKILL);
        log = log_process_after(&stage, log);
    }
    eventually("all of it", || {
        let found = numbers(&all_lines(stage.folder()));
        let is_done = |slot| found.get(&slot).and_then(|all| all.last()) == Some(&LAST);
        (0..4).all(is_done).then_some(())
    });
    stop_in_time(master);
    check_complete(stage.folder(), 4, LAST);
}

#[test]
fn what_workers_printed_before_a_stop_is_written_before_the_master_ends() {
    let stage = ph();
    stage.configure("number_workers = 2");
    let script = "trap 'i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo n $i; done; exit 0' TERM
                  echo trapped; while :; do sleep 0.1; done";
    let master = run(&stage, &[], &["sh", "-c", script]);
    stage.log().wait_for_count("trapped", 2);
    stop_in_time(master);
    check_complete(stage.folder(), 2, 2000);
}

/// More sources than the channel has room for while nobody reads it.
#[test]
fn a_log_process_that_was_stopped_is_told_of_every_source_before_it_finishes() {
    let stage = ph();
    stage.configure("number_workers = 300\nmin_uptime = 0.1\ngraceful_timeout = 30");
    let master = run(&stage, &[], &["sh", "-c", "echo n 1; exec sleep 1000"]);
    let log = log_process(&stage);
    log.send(Signal::SIGSTOP);
    master.wait_workers(300);
    master.send(Signal::SIGTERM);
    master.wait_workers(0);
    log.send(Signal::SIGCONT);
    assert_eq!(master.wait(), 0);
    check_complete(stage.folder(), 300, 1);
}

#[test]
fn a_log_process_killed_just_before_a_stop_is_replaced_for_its_end() {
    let stage = ph();
    stage.configure("number_workers = 2\nbackoff_min = 20\nbackoff_max = 20");
    let script = "trap 'i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo n $i; done; exit 0' TERM
                  echo trapped; while :; do sleep 0.1; done";
    let master = run(&stage, &[], &["sh", "-c", script]);
    stage.log().wait_for_count("trapped", 2);
    let first = log_process(&stage);
    first.send(Signal::SIGKILL);
    log_process_after(&stage, first).send(Signal::SIGKILL);
    eventually("none is there", || stage.titled("ph: log [web]").is_empty().then_some(()));
    stop_in_time(master);
    check_complete(stage.folder(), 2, 500);
}

#[test]
fn commands_of_another_user_can_open_their_outputs_by_name() {
    let stage = ph();
    stage.configure("number_workers = 1\nuser = nobody\ndirectory = /");
    let script = "echo by name > /dev/stdout; echo and this > /dev/stderr; exec sleep 1000";
    let master = run(&stage, &[], &["sh", "-c", script]);
    stage.log().wait_for("and this");
    assert_eq!(stage.log().with("by name").len(), 1);
    stop_in_time(master);
}

#[test]
fn more_sources_than_the_callers_limit_of_descriptors_are_all_read() {
    let stage = ph();
    stage.configure("number_workers = 60\nmin_uptime = 0.1");
    let limited = ["sh", "-c", "ulimit -Sn 64; exec \"$@\"", "sh"];
    let master = run(&stage, &limited, &["sh", "-c", "echo n 1; exec sleep 1000"]);
    stage.log().wait_ready(60);
    eventually("all lines", || (numbers(&all_lines(stage.folder())).len() == 60).then_some(()));
    stop_in_time(master);
    assert!(stage.log().with("log process").is_empty());
}

#[test]
fn a_log_process_outlives_a_killed_master_until_everything_is_written() {
    let stage = ph();
    stage.configure("number_workers = 1");
    let master = run(&stage, &[], &["sh", "-c", "echo here I am; exec sleep 1000"]);
    stage.log().wait_for("here I am");
    let log = log_process(&stage);
    // What is printed now waits in its pipe, and nobody but the log process has the other end.
    log.send(Signal::SIGSTOP);
    let worker = master.wait_workers(1)[0];
    let output = format!("/proc/{}/fd/1", worker.process.0);
    fs::write(output, "printed late\n").expect("the pipe");
    master.process.send(Signal::SIGKILL);
    assert_eq!(master.wait(), -(Signal::SIGKILL as i32));
    worker.process.wait_gone();
    log.send(Signal::SIGCONT);
    log.wait_gone();
    stage.log().wait_for("printed late");
    for name in ["ph.pid", "ph.lock", "ph.sock"] {
        fs::remove_file(stage.path(name)).expect("left by the killed master");
    }
}

#[test]
fn fault_16_a_flood_of_output_fills_no_memory_and_holds_up_nobody() {
    let stage = ph();
    stage.configure("number_workers = 2\nlog_max_size = 20MB\nlog_backups = 2");
    // A quarter of a gibibyte, in lines as long as a log's.
    let script = "if [ $PH_SLOT = 0 ]; then \
                  yes 01234567890123456789012345678901234567890123456789012345678901234567890123456789 \
                  | head -c 268435456; echo; echo flooded; sleep 0.5; exec yes; \
                  else while :; do echo tick; sleep 0.2; done; fi; exec sleep 1000";
    let master = run(&stage, &[], &["sh", "-c", script]);
    let log = log_process(&stage);
    stage.log().wait_for("tick");
    let before = (resident(master.process), resident(log));
    let ticks = |stage: &Stage| {
        let lines = all_lines(stage.folder());
        let is_flooded = lines.iter().any(|line| line.ends_with(" stdout: flooded"));
        is_flooded.then(|| lines.iter().filter(|line| line.ends_with(" stdout: tick")).count())
    };
    let during = eventually("the end of the flood", || ticks(&stage));
    assert!(during > 0, "the other worker's lines keep coming");
    let after = (resident(master.process), resident(log));
    assert!(after.0 < before.0 + 8 * MEBI, "the master: {before:?}, {after:?}");
    assert!(after.1 < before.1 + 8 * MEBI, "the log process: {before:?}, {after:?}");
    // And a stop in the middle of another flood.
    stop_in_time(master);
}

#[test]
fn fault_17_fifty_megabytes_without_an_end_are_cut_and_kept() {
    let stage = ph();
    stage.configure("number_workers = 1\nlog_max_size = 0\nlog_line_max = 16KB");
    let script = "head -c 50000000 /dev/zero; echo; echo done; exec sleep 1000";
    let master = run(&stage, &[], &["sh", "-c", script]);
    let log = log_process(&stage);
    let before = resident(log);
    eventually("the end of it", || {
        let text = fs::read(stage.path("ph.log")).ok()?;
        text.ends_with(b" stdout: done\n").then_some(())
    });
    assert!(resident(log) < before + 8 * MEBI);
    let text = fs::read_to_string(stage.path("ph.log")).expect("text");
    let zeros: usize = text.matches("\\u{0}").count();
    assert_eq!(zeros, 50_000_000, "every byte is there, escaped");
    let longest = text.lines().map(|line| line.matches("\\u{0}").count()).max();
    assert!(longest <= Some(16 * 1024), "{longest:?}");
    stop_in_time(master);
}

/// A log process that is stopped is what one is whose disk does not answer.
#[test]
fn fault_35_a_log_that_hangs_holds_up_no_supervision() {
    let stage = ph();
    stage.configure(
        "number_workers = 2\nmin_uptime = 0\nmax_restarts = 1000\nbackoff_max = 0.1\n\
         graceful_timeout = 2",
    );
    let script = "echo up; if [ $PH_SLOT = 0 ]; then exec yes; fi; exec sleep 1000";
    let master = run(&stage, &[], &["sh", "-c", script]);
    stage.log().wait_for_count("up", 2);
    let log = log_process(&stage);
    log.send(Signal::SIGSTOP);
    for _ in 0..20 {
        let worker = master.wait_workers(2)[1];
        worker.process.send(Signal::SIGKILL);
        master.wait_replaced(worker);
    }
    master.send(Signal::SIGTERM);
    let ((code, stderr), took) = timed(|| master.wait_with_stderr());
    assert!(code == 1 && took < STOP_LIMIT, "{code} {took:?}");
    assert!(stderr.contains("bytes are lost: the log process did not write them"), "{stderr}");
    // What it did not take of the master's lines is shown where there is still somebody to read it.
    assert!(stderr.contains("master stopped, exit code 0"), "{stderr}");
    log.wait_gone();
}

#[test]
fn fault_60_an_output_nobody_reads_holds_up_no_supervision() {
    let stage = ph();
    stage.configure("number_workers = 1\nlog_file = -\nmin_uptime = 0.1\ngraceful_timeout = 2");
    // A reader that never reads.
    let pipe = "mkfifo pipe; sleep 1000 < pipe & exec \"$@\" > pipe 2>&1";
    let master = run(&stage, &["sh", "-c", pipe, "sh"], &["sh", "-c", "exec yes"]);
    for _ in 0..3 {
        let worker = master.wait_workers(1)[0];
        let_pass(Duration::from_millis(300));
        worker.process.send(Signal::SIGKILL);
        master.wait_replaced(worker);
    }
    stop_in_time_with(1, master);
    for reader in stage.processes() {
        reader.send(Signal::SIGKILL);
    }
}

#[test]
fn fault_60_a_reader_that_goes_is_not_fatal() {
    let stage = ph();
    stage.configure("number_workers = 1\nlog_file = -\nmin_uptime = 0.1\ngraceful_timeout = 60");
    let pipe = "mkfifo pipe; head -c 100 < pipe > /dev/null & exec \"$@\" > pipe 2>&1";
    let script = "while :; do echo tick; sleep 0.01; done";
    let master = run(&stage, &["sh", "-c", pipe, "sh"], &["sh", "-c", script]);
    let log = log_process(&stage);
    eventually("the reader has gone", || {
        let is_reader = |it: &Process| it.title().starts_with("head");
        (!stage.processes().iter().any(is_reader)).then_some(())
    });
    let worker = master.wait_workers(1)[0];
    worker.process.send(Signal::SIGKILL);
    master.wait_replaced(worker);
    assert!(log.is_alive());
    stop_in_time_with(1, master);
}

#[test]
fn fault_60_a_log_on_a_full_device_holds_up_nobody() {
    let stage = ph();
    stage.configure("number_workers = 1\nlog_file = -\nmin_uptime = 0.1\ngraceful_timeout = 60");
    let wrapper = ["sh", "-c", "exec \"$@\" > /dev/full 2>&1", "sh"];
    let master = run(&stage, &wrapper, &["sh", "-c", "echo up; exec sleep 1000"]);
    let worker = master.wait_workers(1)[0];
    worker.process.send(Signal::SIGKILL);
    master.wait_replaced(worker);
    stop_in_time_with(1, master);
}

#[test]
fn fault_76_nobody_can_forge_a_line() {
    let stage = ph();
    stage.configure("number_workers = 1");
    let script = r"printf '\033]0;pwn\007\r\n2026-11-23T08:00:00.123Z INFO web[1] master: fake\n\302\233\342\200\256\377\n'; exec sleep 1000";
    let master = run(&stage, &[], &["sh", "-c", script]);
    stage.log().wait_for("\\xff");
    let text = stage.read("ph.log");
    let pid = master.wait_workers(1)[0].process.0;
    let head = format!("INFO web[{pid}] worker 0 gen 1 stdout: ");
    for shown in [
        r"\u{1b}]0;pwn\u{7}",
        "2026-11-23T08:00:00.123Z INFO web[1] master: fake",
        r"\u{9b}\u{202e}\xff",
    ] {
        assert!(text.contains(&format!("{head}{shown}\n")), "{shown} in {text}");
    }
    assert!(!text.lines().any(|line| line.starts_with("2026-11-23T08:00:00.123Z")));
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    stop_in_time(master);
}

#[test]
fn lines_in_json_are_json_whatever_workers_print() {
    let stage = ph();
    stage.configure("number_workers = 1\nlog_format = json");
    let script = r#"printf '{"a": "\\\"}\n\377\033\n'; exec sleep 1000"#;
    let master = run(&stage, &[], &["sh", "-c", script]);
    eventually("both lines", || {
        let text = fs::read_to_string(stage.path("ph.log")).ok()?;
        (text.matches("\"stdout\"").count() == 2).then_some(())
    });
    stop_in_time(master);
}

#[test]
fn without_capture_commands_print_where_the_master_does() {
    let stage = ph();
    stage.configure("number_workers = 1\ncapture_output = no");
    let script = "echo to stdout; echo to stderr >&2; exec sleep 1000";
    let master = run(&stage, &[], &["sh", "-c", script]);
    eventually("both", || {
        let is_there = stage.read("stdout.0") == "to stdout\n"
            && stage.read("stderr.0").contains("to stderr\n");
        is_there.then_some(())
    });
    master.send(Signal::SIGTERM);
    assert_eq!(master.wait_with_stderr(), (0, "to stderr\n".to_owned()));
    assert!(stage.log().with("to std").is_empty());
}

#[test]
fn after_a_rename_and_usr1_what_workers_print_is_in_the_new_file() {
    let stage = ph();
    stage.configure("number_workers = 1");
    let master = run(&stage, &[], &["sh", "-c", "while :; do echo tick; sleep 0.05; done"]);
    stage.log().wait_for("tick");
    fs::set_permissions(stage.path("ph.log"), fs::Permissions::from_mode(0o600)).expect("mine");
    fs::rename(stage.path("ph.log"), stage.path("old.log")).expect("a rename");
    master.send(Signal::SIGUSR1);
    stage.log().wait_for("log files reopened");
    stage.log().wait_for("tick");
    let size = fs::metadata(stage.path("old.log")).expect("the old one").len();
    stage.log().wait_for_count("tick", 20);
    assert_eq!(fs::metadata(stage.path("old.log")).expect("the old one").len(), size);
    stop_in_time(master);
}
