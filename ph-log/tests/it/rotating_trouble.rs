//! A full disk, a folder that takes nothing, a writer that is stopped: the file in use stays.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Uid, geteuid, setgid, setuid};
use ph_log::{Notice, RotateLimits, RotateOptions, RotatingFile, Step};

use crate::stage::{self, Scenario, expect_exit, fork};
use crate::trail::limits;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("full_small_disk", full_small_disk),
    ("closed_folder", closed_folder),
    ("stopped_rotator", stopped_rotator),
];

fn open(folder: &Path, limits: RotateLimits) -> RotatingFile {
    RotatingFile::open(RotateOptions::new(folder.join("log"), limits)).expect("a log")
}

/// Lines of each of four writers; together about four times what the small disk holds.
const LINES: usize = 4000;

/// Needs root, as a small disk has to be mounted; the mount is this process's own and ends with
/// it.
fn full_small_disk(folder: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("root, for mounts of its own");
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing).expect("root");
    let disk = folder.join("disk");
    fs::create_dir(&disk).expect("a folder");
    let options = Some("size=256k,mode=755");
    mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), options).expect("root");

    let writers: Vec<_> = (0..4).map(|process| fork(|| fill(&disk, process))).collect();
    writers.into_iter().for_each(|writer| expect_exit(writer, 0));
    // Room again: the loss is told with the next batch, which is whole.
    let mut log = open(&disk, limits(60_000));
    let lost = log.write_batch(&[b'x'; 300_000]).lost;
    assert_eq!(lost, 1);
    // Not the youngest: that is the one in which the disk became full.
    let oldest = (1..).take_while(|n| disk.join(format!("log.{n}")).exists()).last();
    let oldest = oldest.filter(|&oldest| oldest > 1).expect("several backups");
    fs::remove_file(disk.join(format!("log.{oldest}"))).expect("a backup");
    let written = log.write_batch(b"p=9 whole\n");
    assert!(matches!(written.notice, Some(Notice::Lost { lines: 1, .. })), "{written:?}");

    let mut texts = String::new();
    for entry in fs::read_dir(&disk).expect("the disk") {
        let entry = entry.expect("an entry");
        if entry.file_name().to_string_lossy().starts_with("log") {
            texts += &fs::read_to_string(entry.path()).expect("a file");
        }
    }
    fs::write(folder.join("log"), texts).expect("a file");
}

/// Writes until the disk is full, and beyond.
fn fill(disk: &Path, process: u32) {
    let mut log = open(disk, limits(60_000));
    let mut kept = 0;
    for number in 0..LINES {
        let line = format!("p={process} n={number:06} {}\n", "=".repeat(number % 97));
        let written = log.write_batch(line.as_bytes());
        kept += 1 - written.lost;
    }
    assert_eq!(kept + log.dropped(), LINES as u64);
}

#[test]
fn a_full_disk_tears_no_line_and_the_loss_is_told() {
    let left = stage::run("full_small_disk");
    let lines = left.lines("log");
    assert!((500..3 * LINES).contains(&lines.len()), "{} lines", lines.len());
    assert!(lines.iter().any(|line| line == "p=9 whole"));
    for line in lines {
        let is_blank = line.bytes().all(|byte| byte == b' ');
        let number = line.get(6..12).and_then(|digits| digits.parse::<usize>().ok());
        let is_whole = number.is_some_and(|n| line[13..] == "=".repeat(n % 97));
        assert!(is_blank || is_whole || line == "p=9 whole", "torn: {line:?}");
    }
}

/// A folder that takes nothing stops root as little as a mode; so the writer is somebody else.
fn closed_folder(folder: &Path) {
    let logs = folder.join("logs");
    fs::create_dir(&logs).expect("a folder");
    if geteuid().is_root() {
        chown(&logs, Some(65_534), Some(65_534)).expect("an owner");
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("a mode");
        setgid(Gid::from_raw(65_534)).expect("root");
        setuid(Uid::from_raw(65_534)).expect("root");
    }
    let close = |mode| {
        fs::set_permissions(&logs, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    let mut log = open(&logs, limits(10));
    assert_eq!(log.write_batch(b"1 before\n").lost, 0);
    close(0o555);
    let mut told = 0;
    for _ in 0..100 {
        let written = log.write_batch(b"2 closed\n");
        assert_eq!(written.lost, 0);
        told += usize::from(written.notice.is_some());
    }
    assert_eq!(told, 1, "once a minute");
    // One that starts now can write too, although there is nothing it could lock anew.
    fs::remove_file(logs.join(".log.lock")).expect_err("the folder is closed");
    let mut other = open(&logs, limits(10));
    assert_eq!(other.write_batch(b"3 closed\n").lost, 0);
    close(0o755);
    assert!(log.rotate_now().expect("a rotation"));
    assert_eq!(other.write_batch(b"4 after\n").lost, 0);
    let first = fs::read_to_string(logs.join("log.1")).expect("a backup");
    assert_eq!(first.lines().count(), 102);
    assert_eq!(fs::read_to_string(logs.join("log")).expect("the log"), "4 after\n");

    // Without a companion the log is written to and not rotated.
    fs::remove_file(logs.join(".log.lock")).expect("the companion");
    close(0o555);
    let mut third = open(&logs, limits(10));
    let written = third.write_batch(b"5 without\n");
    assert_eq!(written.lost, 0);
    assert!(written.notice.is_some_and(|notice| notice.to_string().starts_with("cannot lock")));
    assert!(third.rotate_now().is_err());
    close(0o755);
}

#[test]
fn a_folder_that_takes_nothing_stops_the_rotation_and_no_line() {
    stage::run("closed_folder");
}

static IS_TO_STOP: AtomicBool = AtomicBool::new(false);

fn stop(step: Step) {
    if step == Step::Retire && IS_TO_STOP.load(Ordering::Relaxed) {
        raise(Signal::SIGSTOP).expect("a stop");
    }
}

fn stopped_rotator(folder: &Path) {
    let options = RotateOptions::new(folder.join("log"), limits(1000)).after_step(stop);
    let mut log = RotatingFile::open(options).expect("a log");
    assert_eq!(log.write_batch(b"1\n").lost, 0);
    let rotator = fork(|| {
        IS_TO_STOP.store(true, Ordering::Relaxed);
        assert!(log.rotate_now().expect("a rotation"));
    });
    let stopped = waitpid(rotator, Some(WaitPidFlag::WUNTRACED));
    assert_eq!(stopped, Ok(WaitStatus::Stopped(rotator, Signal::SIGSTOP)));
    // The lock is held and the log has no name. A hundred waits of a second would be too long for
    // the deadline of a scenario; only the first one waits.
    for _ in 0..200 {
        assert_eq!(log.write_batch(b"2\n").lost, 0);
    }
    kill(rotator, Signal::SIGKILL).expect("a process");
    waitpid(rotator, None).expect("its end");
    // The next writer finishes what the dead one began.
    assert_eq!(log.write_batch(b"3\n").lost, 0);
    let text = |name| fs::read_to_string(folder.join(name)).expect("a file");
    assert_eq!((text("log.1").len(), text("log")), (402, "3\n".to_owned()));
}

#[test]
fn a_rotator_that_is_stopped_delays_the_others_once() {
    stage::run("stopped_rotator");
}
