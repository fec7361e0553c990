//! Many writers of one log, and rotators that die at every step.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use ph_log::{Compression, RotateLimits, RotateOptions, RotatingFile, Step};

use crate::stage::{self, Scenario, exit_now, expect_exit, fork};
use crate::trail::{Author, Trail, acknowledged, limits};

pub(crate) const SCENARIOS: &[Scenario] =
    &[("eight_writers", eight_writers), ("killed_writers", killed_writers), ("steps", steps)];

const STEPS: [Step; 7] = [
    Step::Make,
    Step::Declare,
    Step::Shift,
    Step::Retire,
    Step::Install,
    Step::Prune,
    Step::Settle,
];

const WRITERS: u32 = 8;
const LINES: u32 = 20_000;
const CRASHED: i32 = 77;

/// After which step this process dies, as an index of `STEPS`.
static CRASH_AT: AtomicU32 = AtomicU32::new(u32::MAX);

fn crash(step: Step) {
    let index = STEPS.iter().position(|known| *known == step).expect("a known step");
    if u32::try_from(index) == Ok(CRASH_AT.load(Ordering::Relaxed)) {
        exit_now(CRASHED);
    }
}

fn open(folder: &Path, limits: RotateLimits) -> RotatingFile {
    let options = RotateOptions::new(folder.join("log"), limits).after_step(crash);
    RotatingFile::open(options).expect("a log")
}

/// Forks a process that writes so many lines, and dies at a step if one is given.
fn author(log: &mut RotatingFile, process: u32, lines: u32, crash_at: Option<usize>) -> Running {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let pid = fork(|| {
        let crash_at = crash_at.map_or(u32::MAX, |index| u32::try_from(index).expect("small"));
        CRASH_AT.store(crash_at, Ordering::Relaxed);
        Author::new(process, write).write(log, lines);
    });
    Running { process, pid, acknowledged: read }
}

struct Running {
    process: u32,
    pid: Pid,
    acknowledged: std::os::fd::OwnedFd,
}

impl Running {
    /// What the process promised, once it has ended.
    fn note(self, folder: &Path) {
        let promised = acknowledged(self.acknowledged);
        let name = folder.join(format!("promise.{}", self.process));
        fs::write(name, promised.to_string()).expect("a file");
    }
}

fn promised(folder: &Path, process: u32) -> u32 {
    let text = fs::read_to_string(folder.join(format!("promise.{process}"))).expect("a promise");
    text.parse().expect("a number")
}

fn eight_writers(folder: &Path) {
    let limits = RotateLimits { compress: Compression::Gzip, ..limits(256 << 10) };
    let mut log = open(folder, limits);
    // Without a compressor the pending files would wait; with one, they move under its hands.
    let compressor = fork(|| {
        while !folder.join("done").exists() {
            if let Some(job) = log.pending_compression().expect("a folder") {
                // A lock that others keep busy is no failure here; the last run must succeed.
                drop(job.run());
            }
            std::thread::yield_now();
        }
        while let Some(job) = log.pending_compression().expect("a folder") {
            job.run().expect("a compressed backup");
        }
    });
    let writers: Vec<_> = (0..WRITERS).map(|n| author(&mut log, n, LINES, None)).collect();
    let crashers: Vec<_> = (0..STEPS.len())
        .map(|step| {
            let process = WRITERS + u32::try_from(step).expect("small");
            author(&mut log, process, 50 * LINES, Some(step))
        })
        .collect();
    for crasher in crashers {
        expect_exit(crasher.pid, CRASHED);
        crasher.note(folder);
    }
    for writer in writers {
        expect_exit(writer.pid, 0);
        writer.note(folder);
    }
    fs::write(folder.join("done"), "").expect("a file");
    expect_exit(compressor, 0);
}

#[test]
fn eight_writers_and_seven_dead_rotators_lose_double_and_tear_nothing() {
    let left = stage::run("eight_writers");
    let trail = Trail::read(left.folder());
    assert!(trail.torn.is_empty(), "{:?}", trail.torn);
    for process in 0..WRITERS {
        assert_eq!(trail.count(process), LINES, "process {process}");
    }
    for process in (WRITERS..).take(STEPS.len()) {
        let promised = promised(left.folder(), process);
        let count = trail.count(process);
        // A crash at a rotation comes before the write of the batch.
        assert_eq!(count, promised, "process {process}");
    }
    assert!(trail.sizes.len() > 20, "{} files", trail.sizes.len());
    assert!(trail.packed > 10, "{} compressed", trail.packed);
    let largest = *trail.sizes.iter().max().expect("a file");
    assert!(largest < (256 << 10) + 15 * ph_log::BATCH_MAX, "{largest} bytes in one file");
}

fn killed_writers(folder: &Path) {
    let mut log = open(folder, limits(64 << 10));
    let mut process = 0;
    for _ in 0..10 {
        let round: Vec<_> = (0..4)
            .map(|_| {
                process += 1;
                author(&mut log, process, 10_000 * LINES, None)
            })
            .collect();
        // They are killed wherever they are, once all of them have written a while.
        let before = written(folder);
        stage::wait_until(|| written(folder) >= before + 4);
        for running in round {
            kill(running.pid, Signal::SIGKILL).expect("a process");
            let status = waitpid(running.pid, None);
            assert!(
                matches!(status, Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))),
                "{status:?}"
            );
            running.note(folder);
        }
    }
    author(&mut log, 0, 100, None).end(folder);
}

impl Running {
    fn end(self, folder: &Path) {
        expect_exit(self.pid, 0);
        self.note(folder);
    }
}

/// The number of files of the log.
fn written(folder: &Path) -> usize {
    let names = fs::read_dir(folder).expect("a folder");
    names
        .filter(|name| {
            name.as_ref().is_ok_and(|name| name.file_name().to_string_lossy().starts_with("log."))
        })
        .count()
}

#[test]
fn writers_killed_anywhere_keep_what_they_promised() {
    let left = stage::run("killed_writers");
    let trail = Trail::read(left.folder());
    // A write that was cut off by the kill leaves its part, on a line of its own.
    assert!(trail.torn.len() <= 40, "{:?}", trail.torn);
    for process in 0..=40 {
        let (count, promised) = (trail.count(process), promised(left.folder(), process));
        // The last batch may have been written and not acknowledged.
        assert!((promised..=promised + 60).contains(&count), "{process}: {count} of {promised}");
    }
}

fn steps(folder: &Path) {
    for index in 0..STEPS.len() {
        let folder = folder.join(index.to_string());
        fs::create_dir(&folder).expect("a folder");
        let mut log = open(&folder, limits(4000));
        // Two backups are there, and one more is about to be made.
        author(&mut log, 0, 170, None).end(&folder);
        let before = written(&folder);
        let began_at_1 = format!("{:020} {:020} {:020}\n", 1, 0, 0);
        fs::write(folder.join(".log.lock"), began_at_1).expect("a companion");
        let crasher = author(&mut log, 1, 1000, Some(index));
        expect_exit(crasher.pid, CRASHED);
        crasher.note(&folder);
        // One line that fits: whoever writes it repairs, and nothing more is due. A log that had
        // not retired yet is the log again.
        author(&mut log, 2, 1, None).end(&folder);
        let after = written(&folder);
        fs::write(folder.join("backups"), format!("{before} {after}")).expect("a file");
        fs::copy(folder.join(".log.lock"), folder.join("ledger")).expect("a file");
        author(&mut log, 3, 500, None).end(&folder);
    }
}

#[test]
fn a_rotator_that_dies_at_any_step_is_repaired_by_the_next_writer() {
    let left = stage::run("steps");
    for (index, step) in STEPS.iter().enumerate() {
        let folder = left.folder().join(index.to_string());
        let trail = Trail::read(&folder);
        assert!(trail.torn.is_empty(), "{step:?}: {:?}", trail.torn);
        for process in 0..4 {
            assert_eq!(trail.count(process), promised(&folder, process), "{step:?} {process}");
        }
        let backups = fs::read_to_string(folder.join("backups")).expect("a file");
        let (before, after) = backups.split_once(' ').expect("two numbers");
        let (before, after): (u32, u32) =
            (before.parse().expect("one"), after.parse().expect("one"));
        let expected = before + u32::from(index >= 3);
        assert!(before >= 2 && after == expected, "{step:?}: {before} backups, then {after}");
        assert!(!folder.join(".log.new").exists(), "{step:?}");
        let ledger = fs::read_to_string(folder.join("ledger")).expect("a companion");
        let began: u64 = ledger[..20].parse().expect("a time");
        assert_eq!(began == 1, index < 3, "{step:?}: the period is that of the log in use");
        assert!(ledger.ends_with(" 00000000000000000000\n"), "{step:?}: {ledger}");
    }
}
