//! What others do to a log while it is in use: its lock moved away or held for ever, a limit of the
//! process, a file nobody may change, writers that never pause.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use ph_log::{Compression, Notice, RotateLimits, RotateOptions, RotatingFile, Step};

use crate::stage::{self, Scenario, expect_exit, fork};
use crate::trail::{limits, unpack};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("busy_writers", busy_writers),
    ("once_stalled", once_stalled),
    ("size_limit", size_limit),
    ("late_prune", late_prune),
    ("tiny_limit", tiny_limit),
    ("moved_process", moved_process),
];

fn open(folder: &Path, limits: RotateLimits) -> RotatingFile {
    RotatingFile::open(RotateOptions::new(folder.join("log"), limits)).expect("a log")
}

fn text(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or("-".to_owned())
}

fn gunzip(folder: &Path, index: u32) -> Option<String> {
    let name = format!("log.{index}.gz");
    unpack(&name, &fs::read(folder.join(&name)).ok()?).ok()
}

/// Since some moment.
pub(crate) fn clock() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock").into()
}

/// Tells the writers of `hammer` to end.
fn stop(folder: &Path) {
    fs::write(folder.join("stop"), "").expect("a file");
}

/// A process that writes large batches without a pause until it is told to stop.
fn hammer(folder: &Path, limits: &RotateLimits) -> Pid {
    fork(|| {
        let mut log = open(folder, limits.clone());
        let batch = b"a line that is written again and again\n".repeat(1500);
        while !folder.join("stop").exists() {
            assert_eq!(log.write_batch(&batch).lost, 0);
        }
    })
}

fn busy_writers(folder: &Path) {
    let limits = RotateLimits { backups: 2, max_size: None, ..limits(0) };
    let limits = RotateLimits { compress: Compression::Gzip, ..limits };
    let writers: Vec<_> = (0..4).map(|_| hammer(folder, &limits)).collect();
    let mut log = open(folder, limits);
    let mut vain = 0;
    for _ in 0..30 {
        stage::wait_until(|| fs::metadata(folder.join("log")).is_ok_and(|log| log.len() > 0));
        vain += u32::from(!log.rotate_now().unwrap_or(false));
    }
    stop(folder);
    writers.into_iter().for_each(|writer| expect_exit(writer, 0));
    // On a machine that is busy with other things a wait may be over before its turn comes; where
    // nobody gives way, nearly all are.
    assert!(vain <= 5, "rotations that were asked for in vain: {vain} of 30");
}

#[test]
fn who_waits_for_the_lock_gets_it_from_writers_that_never_pause() {
    stage::run("busy_writers");
}

fn once_stalled(folder: &Path) {
    let limits = RotateLimits { backups: 3, ..limits(1 << 20) };
    let log = open(folder, limits.clone());
    let stopped = fs::File::open(folder.join(".log.lock")).expect("the companion");
    stopped.lock_shared().expect("the lock");
    let writers: Vec<_> = (0..4).map(|_| hammer(folder, &limits)).collect();
    // Every writer has waited in vain for its second, and once more.
    let size = || fs::metadata(folder.join("log")).map_or(0, |log| log.len());
    let seen_at = clock();
    stage::wait_until(|| clock() - seen_at > Duration::from_secs(3) && size() > 8 << 20);
    stopped.unlock().expect("the lock");
    let given_at = clock();
    stage::wait_until(|| {
        folder.join("log.3").exists() || clock() - given_at > Duration::from_secs(20)
    });
    stop(folder);
    writers.into_iter().for_each(|writer| expect_exit(writer, 0));
    assert!(folder.join("log.3").exists(), "the log grew to {} bytes", size());
    drop(log);
}

#[test]
fn a_log_whose_rotation_was_held_up_once_is_rotated_again_however_busy_it_is() {
    stage::run("once_stalled");
}

fn size_limit(folder: &Path) {
    let mut log = open(folder, limits(1 << 20));
    assert_eq!(log.write_batch(b"before\n").lost, 0);
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("a limit");
    setrlimit(Resource::RLIMIT_FSIZE, 20, hard).expect("a limit");
    // The signal that comes with it is deadly here.
    let mut log = open(folder, limits(1 << 20));
    assert_eq!(log.write_batch(b"fits\nand this does not fit\nnor does this\n").lost, 2);
    assert_eq!(log.write_batch(b"lost\n").lost, 1);
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).expect("a limit");
    let written = log.write_batch(b"after\n");
    assert!(matches!(written.notice, Some(Notice::Lost { lines: 3, .. })), "{written:?}");
    assert_eq!(text(folder, "log"), "before\nfits\n       \nafter\n");
    // Nor does it end a process that may write nothing at all, or that compresses.
    let rotated = (0..2).all(|_| {
        let is_written = log.write_batch(&b"x\n".repeat(5000)).lost == 0;
        is_written && log.rotate_now().is_ok_and(|is_rotated| is_rotated)
    });
    assert!(rotated);
    let limits = RotateLimits { compress: Compression::Gzip, ..limits(1 << 20) };
    let packer = open(folder, limits.clone());
    let job = packer.pending_compression().expect("a folder").expect("a job");
    fs::remove_file(folder.join(".log.lock")).expect("the companion");
    setrlimit(Resource::RLIMIT_FSIZE, 0, hard).expect("a limit");
    job.run().expect_err("no room");
    let mut log = open(folder, limits);
    assert_eq!(log.write_batch(b"lost\n").lost, 1);
    assert!(!log.rotate_now().expect("an empty log"));
    // What cannot be written down is not begun.
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).expect("a limit");
    assert_eq!(log.write_batch(b"last\n").lost, 0);
    setrlimit(Resource::RLIMIT_FSIZE, 0, hard).expect("a limit");
    log.rotate_now().expect_err("no room for the record");
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).expect("a limit");
    assert_eq!(text(folder, "log"), "last\n");
}

#[test]
fn a_limit_of_the_process_costs_lines_and_not_its_life() {
    stage::run("size_limit");
}

static IS_TO_STOP: AtomicU8 = AtomicU8::new(0);

fn stop_before_prune(step: Step) {
    if step == Step::Install && IS_TO_STOP.load(Ordering::Relaxed) == 1 {
        raise(Signal::SIGSTOP).expect("a stop");
    }
}

fn late_prune(folder: &Path) {
    let limits = RotateLimits { backups: 0, ..limits(1000) };
    let options = RotateOptions::new(folder.join("log"), limits).after_step(stop_before_prune);
    let mut log = RotatingFile::open(options).expect("a log");
    assert_eq!(log.write_batch(b"old\n").lost, 0);
    let rotator = fork(|| {
        IS_TO_STOP.store(1, Ordering::Relaxed);
        assert!(log.rotate_now().expect("a rotation"));
    });
    let stopped = waitpid(rotator, Some(WaitPidFlag::WUNTRACED));
    assert_eq!(stopped, Ok(WaitStatus::Stopped(rotator, Signal::SIGSTOP)));
    for _ in 0..5 {
        assert_eq!(log.write_batch(b"new\n").lost, 0);
    }
    kill(rotator, Signal::SIGCONT).expect("a process");
    expect_exit(rotator, 0);
    assert_eq!(log.write_batch(b"new\n").lost, 0);
    assert_eq!((text(folder, "log"), text(folder, "log.1")), ("new\n".repeat(6), "-".to_owned()));
}

#[test]
fn who_writes_past_a_stopped_rotator_does_not_write_into_what_it_will_delete() {
    stage::run("late_prune");
}

fn tiny_limit(folder: &Path) {
    let writers: Vec<_> = (0..4)
        .map(|process| {
            fork(|| {
                let mut log = open(folder, limits(1));
                for number in 0..60 {
                    let line = format!("{process} {number}\n");
                    assert_eq!(log.write_batch(line.as_bytes()).lost, 0);
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| expect_exit(writer, 0));
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        if name.starts_with("log") {
            let text = text(folder, &name);
            // Each process may see the same empty file, and exceed the limit by its one line.
            let authors: HashSet<_> = text.lines().filter_map(|line| line.chars().next()).collect();
            assert_eq!(text.lines().count(), authors.len(), "{name}: {text:?}");
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 240);
}

#[test]
fn with_a_limit_below_a_line_a_process_writes_one_line_to_a_file() {
    stage::run("tiny_limit");
}

fn moved_process(folder: &Path) {
    std::env::set_current_dir(folder).expect("a folder");
    for at in ["logs", "elsewhere/logs"] {
        fs::create_dir_all(at).expect("a folder");
    }
    let mut log = RotatingFile::open(RotateOptions::new("logs/log", limits(1000))).expect("a log");
    assert_eq!(log.write_batch(b"1\n").lost, 0);
    std::env::set_current_dir("elsewhere").expect("a folder");
    fs::remove_dir_all(folder.join("logs")).expect("deleted");
    assert_eq!(log.write_batch(b"2\n").lost, 1);
    fs::create_dir(folder.join("logs")).expect("a folder");
    log.reopen().expect("the log");
    assert_eq!(log.write_batch(b"3\n").lost, 0);
    assert_eq!(text(folder, "logs/log"), "3\n");
    assert_eq!(text(folder, "elsewhere/logs/log"), "-");
}

#[test]
fn a_relative_path_is_that_of_the_beginning() {
    stage::run("moved_process");
}

#[test]
fn writers_of_one_log_use_the_lock_that_has_the_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut log = open(folder, limits(4));
    assert_eq!(log.write_batch(b"1\n2\n").lost, 0);
    fs::rename(folder.join(".log.lock"), folder.join("moved")).expect("a rename");
    drop(open(folder, limits(4)));
    let other = fs::File::open(folder.join(".log.lock")).expect("the companion");
    other.lock_shared().expect("the lock");
    let written = log.write_batch(b"3\n");
    assert!(written.lost == 0 && written.notice.is_some(), "{written:?}");
    assert_eq!(text(folder, "log.1"), "-", "rotated although another writer is at it");
    other.unlock().expect("the lock");
    assert!(log.rotate_now().expect("a rotation"));
    assert_eq!(text(folder, "log.1"), "1\n2\n3\n");
}

#[test]
fn a_lock_that_is_never_given_back_keeps_nobody_from_the_log_that_has_the_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut log = open(folder, limits(1000));
    let foreign = fs::File::open(folder.join(".log.lock")).expect("the companion");
    foreign.lock().expect("the lock");
    assert_eq!(log.write_batch(b"1\n").lost, 0);
    fs::rename(folder.join("log"), folder.join("old")).expect("a rename");
    fs::write(folder.join("log"), "").expect("a file");
    assert_eq!(log.write_batch(b"2\n").lost, 0);
    assert_eq!((text(folder, "old"), text(folder, "log")), ("1\n".into(), "2\n".into()));
    fs::remove_file(folder.join("log")).expect("the log");
    assert_eq!(log.write_batch(b"3\n").lost, 0);
    assert_eq!(text(folder, "log"), "3\n");
}

#[test]
fn a_file_that_nobody_may_change_loses_lines_that_are_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut log = open(folder, limits(1000));
    assert_eq!(log.write_batch(b"1\n").lost, 0);
    let change = |flag: &str| {
        let status = Command::new("chattr").arg(flag).arg(folder.join("log")).status();
        status.expect("chattr").success()
    };
    assert!(change("+i"), "needs root and a file system that knows `chattr +i`, as ext4 does");
    let written = log.write_batch(b"2\n3\n");
    let rotated = log.rotate_now();
    assert!(change("-i"));
    assert_eq!(written.lost, 2);
    rotated.expect_err("a file that cannot be renamed");
    let written = log.write_batch(b"4\n");
    assert!(matches!(written.notice, Some(Notice::Lost { lines: 2, .. })), "{written:?}");
    assert!(log.rotate_now().expect("a rotation"));
    // What may only grow is written to and not renamed.
    assert_eq!(log.write_batch(b"5\n").lost, 0);
    assert!(change("+a"));
    let rotated = log.rotate_now();
    let written = log.write_batch(b"6\n");
    assert!(change("-a"));
    rotated.expect_err("a file that cannot be renamed");
    assert_eq!(written.lost, 0);
    // The backup has made room before the log could not be moved; the next one goes into the gap.
    assert_eq!((text(folder, "log.2"), text(folder, "log")), ("1\n4\n".into(), "5\n6\n".into()));
    assert!(log.rotate_now().expect("a rotation"));
    assert_eq!((text(folder, "log.1"), text(folder, "log")), ("5\n6\n".into(), String::new()));
}

#[test]
fn a_backup_that_cannot_be_compressed_does_not_keep_the_others_from_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut log = open(folder, RotateLimits { compress: Compression::Gzip, ..limits(2) });
    for line in ["1\n", "2\n", "3\n", "4\n"] {
        assert_eq!(log.write_batch(line.as_bytes()).lost, 0);
    }
    fs::write(folder.join("log.2.gz"), "something else").expect("a file");
    let run = || log.pending_compression().expect("a folder").expect("a job").run();
    run().expect("log.3");
    run().expect_err("log.2");
    assert_eq!((text(folder, "log.2"), text(folder, "log.3")), ("2\n".into(), "-".into()));
}

#[test]
fn links_at_the_names_of_helpers_lead_nowhere() {
    type Link = fn(&Path, &Path) -> std::io::Result<()>;
    let links: [Link; 2] = [|of, at| symlink(of, at), |of, at| fs::hard_link(of, at)];
    for link in links {
        for name in [".log.new", ".log.lock", ".log.pack", "log.2", "log.2.gz"] {
            let folder = tempfile::tempdir().expect("a folder");
            let folder = folder.path();
            let victim = folder.join("victim");
            fs::write(&victim, "secret\n").expect("a file");
            link(&victim, &folder.join(name)).expect("a link");
            let limits = RotateLimits { compress: Compression::Gzip, ..limits(2) };
            let mut log = open(folder, limits);
            for line in ["1\n", "2\n", "3\n", "4\n"] {
                assert_eq!(log.write_batch(line.as_bytes()).lost, 0, "{name}");
            }
            for _ in 0..5 {
                if let Some(job) = log.pending_compression().expect("a folder") {
                    // Where the link is in the way there is nothing to compress into.
                    drop(job.run());
                }
            }
            assert_eq!(text(folder, "victim"), "secret\n", "{name}");
            let is_packed = (2..6).any(|n| gunzip(folder, n).is_some_and(|text| text == "1\n"));
            let is_stopped =
                fs::symlink_metadata(folder.join(name)).is_ok_and(|it| it.is_symlink());
            let is_in_the_way = [".log.lock", ".log.pack"].contains(&name);
            assert!(is_packed || is_stopped || is_in_the_way, "{name}");
        }
    }
}
