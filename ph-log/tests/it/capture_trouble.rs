//! Disks and terminals that take nothing, until they do again.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{dup2_stderr, pipe2};
use ph_log::{CaptureOptions, CaptureStep, CaptureTarget, Overflow, Totals};

use crate::capture::{Bench, options, output};
use crate::stage::{self, Scenario, expect_exit, fork};
use crate::trail::line;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("capture_full_disk_blocks", full_disk_blocks),
    ("capture_full_disk_drops", full_disk_drops),
    ("capture_stalled_stderr_blocks", stalled_stderr_blocks),
    ("capture_stalled_stderr_drops", stalled_stderr_drops),
    ("capture_closed_stderr", closed_stderr),
    ("capture_copy", copy),
    ("capture_hanging_disk", hanging_disk),
];

/// Puts a small disk on `disk` in the folder; needs root. Most of it is filled.
fn small_disk(folder: &Path) -> std::path::PathBuf {
    unshare(CloneFlags::CLONE_NEWNS).expect("root, for mounts of its own");
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing).expect("root");
    let disk = folder.join("disk");
    fs::create_dir(&disk).expect("a folder");
    let options = Some("size=1m,mode=755");
    mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), options).expect("root");
    fs::write(disk.join("filler"), vec![0; 960 << 10]).expect("room");
    disk
}

/// Writes numbered lines as fast as the pipe takes them.
fn print(mut pipe: File, process: u32, lines: u32) {
    for number in 0..lines {
        pipe.write_all(line(process, number).as_bytes()).expect("a reader");
    }
}

/// The numbers of the lines of a process that are in the text, in order.
fn numbers(text: &str, process: u32) -> Vec<u32> {
    let head = format!(" worker {process} gen 2 stdout: ");
    let number = |found: &str| {
        let (_, text) = found.split_once(&head)?;
        let number = text.get(8..16)?.parse().ok()?;
        assert_eq!(line(process, number), format!("{text}\n"));
        Some(number)
    };
    text.lines().filter_map(number).collect()
}

/// What is said of dropped output.
fn told(text: &str) -> (u64, u64) {
    let mut sum = (0, 0);
    for found in text.lines().filter(|line| line.contains(" WARN test[")) {
        let (_, rest) = found.split_once("log: output of workers was dropped lines=").expect(found);
        let (lines, bytes) = rest.split_once(" bytes=").expect("bytes");
        sum.0 += lines.parse::<u64>().expect("a number");
        sum.1 += bytes.parse::<u64>().expect("a number");
    }
    sum
}

fn full_disk_blocks(folder: &Path) {
    let disk = small_disk(folder);
    let mut bench = Bench::new(options(&disk));
    let pipe = bench.add(1, output(1));
    let worker = fork(|| print(pipe.try_clone().expect("a descriptor"), 1, 5000));
    drop(pipe);
    let size = || fs::metadata(disk.join("log")).expect("the log").len();
    // It fills what is left, and tries in vain for a while.
    bench.turn_until(|_| size() > 50 << 10);
    for _ in 0..3 {
        bench.turn();
    }
    let before = bench.capture.totals();
    assert!(before.lines < 5000 && before.dropped_bytes == 0, "{before:?}");
    fs::remove_file(disk.join("filler")).expect("the filler");
    bench.turn_until(|bench| bench.ended == [1]);
    expect_exit(worker, 0);
    let Totals { lines, dropped_bytes, .. } = bench.capture.totals();
    assert_eq!((lines, dropped_bytes), (5000, 0));
    fs::copy(disk.join("log"), folder.join("log")).expect("a copy");
}

#[test]
fn a_full_disk_makes_workers_wait() {
    let left = stage::run("capture_full_disk_blocks");
    let text = fs::read_to_string(left.folder().join("log")).expect("the log");
    assert_eq!(numbers(&text, 1), (0..5000).collect::<Vec<_>>());
    assert!(left.stderr.contains("cannot write the log: "), "{}", left.stderr);
}

fn full_disk_drops(folder: &Path) {
    let disk = small_disk(folder);
    let mut bench = Bench::new(CaptureOptions { overflow: Overflow::Drop, ..options(&disk) });
    let pipe = bench.add(1, output(1));
    let (read, go_on) = crate::capture::pipe();
    let worker = fork(|| {
        print(pipe.try_clone().expect("a descriptor"), 1, 20_000);
        // The rest comes when there is room again.
        let mut byte = [0];
        nix::unistd::read(&read, &mut byte).expect("the byte");
        let mut pipe = pipe.try_clone().expect("a descriptor");
        (20_000..20_100).for_each(|n| pipe.write_all(line(1, n).as_bytes()).expect("a reader"));
    });
    drop(pipe);
    // The worker is not kept waiting.
    bench.turn_until(|bench| bench.capture.totals().dropped_lines > 10_000);
    fs::remove_file(disk.join("filler")).expect("the filler");
    let text = || fs::read_to_string(disk.join("log")).expect("the log");
    bench.turn_until(|_| text().contains(" WARN test["));
    File::from(go_on).write_all(b"x").expect("room");
    bench.turn_until(|bench| bench.ended == [1]);
    expect_exit(worker, 0);
    let totals = bench.capture.totals();
    assert_eq!(totals.read, totals.written + totals.dropped_bytes);
    assert_eq!(totals.lines + totals.dropped_lines, 20_100);
    let text = format!("{} {}", totals.dropped_lines, totals.dropped_bytes);
    fs::write(folder.join("totals"), text).expect("a file");
    fs::copy(disk.join("log"), folder.join("log")).expect("a copy");
}

#[test]
fn or_what_they_print_is_dropped_and_told() {
    let left = stage::run("capture_full_disk_drops");
    let text = fs::read_to_string(left.folder().join("log")).expect("the log");
    let numbers = numbers(&text, 1);
    assert!(numbers.is_sorted_by(|a, b| a < b), "each at most once, in order");
    assert_eq!(numbers[numbers.len() - 100..], (20_000..20_100).collect::<Vec<_>>());
    let (lines, bytes) = told(&text);
    assert_eq!(lines, 20_100 - numbers.len() as u64);
    let totals = fs::read_to_string(left.folder().join("totals")).expect("totals");
    assert_eq!(totals, format!("{lines} {bytes}"));
}

fn copy(folder: &Path) {
    let mut bench = Bench::new(CaptureOptions { also_stderr: true, ..options(folder) });
    let pipe = bench.add(1, output(1));
    let read = stderr_to_pipe();
    let worker = fork(|| print(pipe.try_clone().expect("a descriptor"), 1, 20_000));
    drop(pipe);
    // Nobody reads: the copy is waited for once.
    bench.turn_until(|bench| bench.ended == [1]);
    expect_exit(worker, 0);
    let mut write = bench.add(2, output(2));
    let mut text = vec![0; 8192];
    let mut read = File::from(read);
    let first = read.read(&mut text).expect("lines");
    text.truncate(first);
    write.write_all(line(2, 0).as_bytes()).expect("room");
    bench.drain();
    dup2_stderr(File::create(folder.join("stderr")).expect("a file")).expect("a descriptor");
    read.read_to_end(&mut text).expect("lines");
    fs::write(folder.join("copy"), text).expect("a file");
}

#[test]
fn a_copy_that_nobody_reads_is_not_waited_for_twice_and_torn_nowhere() {
    let left = stage::run("capture_copy");
    let text = |name: &str| fs::read_to_string(left.folder().join(name)).expect("a file");
    assert_eq!(numbers(&text("log"), 1), (0..20_000).collect::<Vec<_>>());
    let copy = text("copy");
    let (torn, last) = copy.trim_end().rsplit_once('\n').expect("lines");
    assert!(last.ends_with(line(2, 0).trim_end()) && copy.ends_with('\n'), "{last}");
    let torn = torn.rsplit_once('\n').expect("lines").0;
    assert_eq!(numbers(torn, 1), (0..).take(torn.lines().count()).collect::<Vec<_>>());
}

static HANGS: AtomicBool = AtomicBool::new(false);
static HAS_HUNG: AtomicBool = AtomicBool::new(false);

/// A disk that does not answer: whoever is about to write stays there.
fn hang(step: CaptureStep) {
    if step == CaptureStep::Intended && HANGS.load(Ordering::Acquire) {
        HAS_HUNG.store(true, Ordering::Release);
        stage::wait_until(|| !HANGS.load(Ordering::Acquire));
    }
}

fn hanging_disk(folder: &Path) {
    let mut bench = Bench::new(CaptureOptions { overflow: Overflow::Drop, ..options(folder) });
    bench.capture = bench.capture.after_step(hang);
    let pipes = [bench.add(1, output(1)), bench.add(2, output(2))];
    let (read, go_on) = crate::capture::pipe();
    let worker = fork(|| {
        let [one, two] = pipes.each_ref().map(|pipe| pipe.try_clone().expect("a descriptor"));
        print(two, 2, 100);
        print(one.try_clone().expect("a descriptor"), 1, 20_000);
        let mut byte = [0];
        nix::unistd::read(&read, &mut byte).expect("the byte");
        print(one, 1, 20_000);
    });
    drop(pipes);
    bench.turn_until(|bench| bench.capture.totals().lines > 1000);
    HANGS.store(true, Ordering::Release);
    // The worker is not kept waiting, and the batch that hangs counts as dropped.
    bench.turn_until(|bench| bench.capture.totals().dropped_lines > 10_000);
    assert!(HAS_HUNG.load(Ordering::Acquire));
    let before = bench.capture.totals();
    HANGS.store(false, Ordering::Release);
    bench.turn_until(|bench| bench.capture.totals().lines > before.lines);
    File::from(go_on).write_all(b"x").expect("room");
    bench.turn_until(|bench| bench.ended.len() == 2);
    bench.drain();
    expect_exit(worker, 0);
    let totals = bench.capture.totals();
    assert_eq!(totals.read, totals.written + totals.dropped_bytes);
    assert_eq!(totals.lines + totals.dropped_lines, 40_100);
    let text = format!("{} {}", totals.dropped_lines, totals.dropped_bytes);
    fs::write(folder.join("totals"), text).expect("a file");
}

#[test]
fn a_disk_that_does_not_answer_keeps_nobody_waiting() {
    let left = stage::run("capture_hanging_disk");
    let text = fs::read_to_string(left.folder().join("log")).expect("the log");
    let (one, two) = (numbers(&text, 1), numbers(&text, 2));
    assert_eq!(two, (0..100).collect::<Vec<_>>(), "nearly empty pipes are left alone");
    let (lines, bytes) = told(&text);
    assert_eq!(lines + one.len() as u64 + 100, 40_100);
    let totals = fs::read_to_string(left.folder().join("totals")).expect("totals");
    assert_eq!(totals, format!("{lines} {bytes}"));
    assert!(left.stderr.contains("the disk of the log does not answer"), "{}", left.stderr);
}

/// Makes a small pipe the stderr of this process and returns the end to read from.
pub(crate) fn stderr_to_pipe() -> OwnedFd {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    fcntl(&read, FcntlArg::F_SETPIPE_SZ(8192)).expect("a small pipe");
    dup2_stderr(&write).expect("a descriptor");
    read
}

/// Ends with stderr a file again, so that the reader sees the end of its pipe.
fn stalled(folder: &Path, overflow: Overflow, is_enough: impl Fn(&Bench) -> bool) {
    let target = CaptureTarget::Stderr;
    let mut bench = Bench::new(CaptureOptions { target, overflow, ..options(folder) });
    let pipe = bench.add(1, output(1));
    let read = stderr_to_pipe();
    let worker = fork(|| print(pipe.try_clone().expect("a descriptor"), 1, 20_000));
    drop(pipe);
    bench.turn_until(is_enough);
    let (control, release) = crate::capture::pipe();
    let reader = fork(|| {
        drop(release);
        dup2_stderr(File::open("/dev/null").expect("a device")).expect("a descriptor");
        let mut text = Vec::new();
        File::from(read).read_to_end(&mut text).expect("lines");
        fs::write(folder.join("log"), text).expect("a file");
        drop(control);
    });
    bench.turn_until(|bench| bench.ended == [1]);
    bench.drain();
    expect_exit(worker, 0);
    let totals = bench.capture.totals();
    assert_eq!(totals.read, totals.written + totals.dropped_bytes);
    assert_eq!(totals.lines + totals.dropped_lines, 20_000);
    dup2_stderr(File::open("/dev/null").expect("a device")).expect("a descriptor");
    expect_exit(reader, 0);
}

fn stalled_stderr_blocks(folder: &Path) {
    stalled(folder, Overflow::Block, |bench| bench.capture.totals().lines > 10);
}

#[test]
fn a_stderr_that_stalls_is_waited_for() {
    let left = stage::run("capture_stalled_stderr_blocks");
    let text = fs::read_to_string(left.folder().join("log")).expect("the log");
    assert_eq!(numbers(&text, 1), (0..20_000).collect::<Vec<_>>());
}

fn stalled_stderr_drops(folder: &Path) {
    stalled(folder, Overflow::Drop, |bench| bench.capture.totals().dropped_lines > 5000);
}

#[test]
fn or_the_output_is_dropped_and_told_when_it_goes_on() {
    let left = stage::run("capture_stalled_stderr_drops");
    let text = fs::read_to_string(left.folder().join("log")).expect("the log");
    let numbers = numbers(&text, 1);
    assert!(numbers.is_sorted_by(|a, b| a < b), "each at most once, in order");
    assert_eq!(told(&text).0, 20_000 - numbers.len() as u64);
}

fn closed_stderr(folder: &Path) {
    let target = CaptureTarget::Stderr;
    let mut bench = Bench::new(CaptureOptions { target, ..options(folder) });
    let pipe = bench.add(1, output(1));
    drop(stderr_to_pipe());
    let (read, go_on) = crate::capture::pipe();
    let worker = fork(|| {
        print(pipe.try_clone().expect("a descriptor"), 1, 20_000);
        let mut byte = [0];
        nix::unistd::read(&read, &mut byte).expect("the byte");
        print(pipe.try_clone().expect("a descriptor"), 1, 1);
    });
    drop(pipe);
    bench.turn_until(|bench| bench.capture.totals().dropped_lines == 20_000);
    let log = File::create(folder.join("log")).expect("a file");
    nix::unistd::close(2).expect("stderr was open");
    bench.drain_in_vain();
    dup2_stderr(&log).expect("a descriptor");
    File::from(go_on).write_all(b"x").expect("room");
    bench.turn_until(|bench| bench.ended == [1]);
    bench.drain();
    expect_exit(worker, 0);
}

#[test]
fn a_closed_stderr_is_no_end_and_what_it_lost_is_told() {
    let left = stage::run("capture_closed_stderr");
    let text = fs::read_to_string(left.folder().join("log")).expect("the log");
    assert_eq!(numbers(&text, 1), [0]);
    assert_eq!(told(&text).0, 20_000);
}
