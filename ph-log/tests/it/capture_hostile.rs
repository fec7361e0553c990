//! Workers that print what they should not, and do with their pipes what they like.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use ph_log::{Capture, CaptureOptions, RotateLimits, Source, SourceKind};

use crate::capture::{Bench, lines, options, output, pipe, source, text};
use crate::stage::{self, Scenario, expect_exit, fork};
use crate::trail::limits;

pub(crate) const SCENARIOS: &[Scenario] =
    &[("capture_blob", blob), ("capture_flood", flood), ("capture_small_pipes", small_pipes)];

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// What this process has in memory, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("a number")
}

/// Captures what a worker prints to its end, and leaves behind by how much memory grew.
fn measure(folder: &Path, mut bench: Bench, print: impl FnOnce(File)) {
    let pipe = bench.add(1, output(1));
    let worker = fork(|| print(pipe.try_clone().expect("a descriptor")));
    drop(pipe);
    bench.turn_until(|bench| bench.capture.totals().read > 1 << 20);
    let before = resident();
    let mut most = before;
    while bench.ended.is_empty() {
        bench.turn();
        most = most.max(resident());
    }
    expect_exit(worker, 0);
    let totals = bench.capture.totals();
    assert_eq!(totals.read, totals.written);
    fs::write(folder.join("grown"), format!("{} {}", most - before, totals.read)).expect("a file");
}

fn grown(folder: &Path) -> (u64, u64) {
    let text = fs::read_to_string(folder.join("grown")).expect("a file");
    let (grown, read) = text.split_once(' ').expect("two numbers");
    (grown.parse().expect("a number"), read.parse().expect("a number"))
}

const BLOB: usize = 50_000_000;

/// 50 MB without an end of line, every hundredth byte a NUL.
fn blob(folder: &Path) {
    measure(folder, Bench::new(options(folder)), |mut pipe| {
        let chunk: Vec<u8> = (0..100_000).map(|n| if n % 100 == 0 { 0 } else { b'x' }).collect();
        for _ in 0..BLOB / chunk.len() {
            pipe.write_all(&chunk).expect("a reader");
        }
    });
}

/// Fault 17.
#[test]
fn a_line_without_end_is_cut_and_memory_stays_flat() {
    let left = stage::run("capture_blob");
    let (grown, read) = grown(left.folder());
    assert_eq!(read, BLOB as u64);
    assert!(grown < 8 << 10, "{grown} KiB");
    let lines = lines(left.folder());
    let (mut plain, mut escaped, all) = (0, 0, "x".repeat(100));
    for (at, line) in lines.iter().enumerate() {
        let text = line.strip_prefix("INFO test[77] worker 1 gen 2 stdout: ").expect("a head");
        let whole = text.strip_suffix("…[cut]");
        assert_eq!(whole.is_some(), at + 1 < lines.len(), "line {at} of {}", lines.len());
        let text = whole.unwrap_or(text);
        for (at, part) in text.split("\\u{0}").enumerate() {
            assert_eq!(part, &all[..part.len()]);
            escaped += usize::from(at > 0);
            plain += part.len();
        }
        assert!(text.len() < (16 << 10) + (16 << 10) / 100 * 5);
    }
    assert_eq!((plain, escaped), (BLOB / 100 * 99, BLOB / 100));
}

/// A hundred megabytes of lines, of which no backup is kept.
fn flood(folder: &Path) {
    let limits = RotateLimits { backups: 0, ..limits(4 << 20) };
    let bench = Bench::new(CaptureOptions { limits, ..options(folder) });
    measure(folder, bench, |mut pipe| {
        let lines = (b"y".repeat(99).into_iter().chain([b'\n']).collect::<Vec<_>>()).repeat(600);
        for _ in 0..100_000_000 / lines.len() {
            pipe.write_all(&lines).expect("a reader");
        }
    });
}

/// Fault 16.
#[test]
fn a_flood_leaves_memory_flat() {
    let (grown, read) = grown(stage::run("capture_flood").folder());
    assert!(read > 99_000_000 && grown < 8 << 10, "{grown} KiB, {read} bytes");
}

/// A worker may open its own pipe through `/proc` and read from it.
#[test]
fn who_reads_from_his_own_pipe_gets_what_the_log_does_not_and_stops_nobody() {
    let folder = temporary();
    let mut bench = Bench::new(options(folder.path()));
    let (source, mut write) = source(1, output(1));
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&source.pipe));
    let mut thief = File::open(path).expect("the pipe once more");
    bench.capture.add(source).expect("a source");
    let mut honest = bench.add(2, output(2));
    let writing = std::thread::spawn(move || {
        for n in 0..30_000 {
            writeln!(write, "{n:09}").expect("a reader");
        }
    });
    let stealing = std::thread::spawn(move || {
        let mut stolen = Vec::new();
        let mut chunk = [0; 1000];
        // Ten bytes a line: what is stolen begins and ends with whole lines.
        for _ in 0..200 {
            match thief.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(some) => stolen.extend_from_slice(&chunk[..some]),
            }
        }
        stolen.len()
    });
    for n in 0..1000 {
        writeln!(honest, "honest {n}").expect("room");
        bench.turn();
    }
    drop(honest);
    bench.turn_until(|bench| bench.ended.len() == 2);
    writing.join().expect("it ends");
    let stolen = stealing.join().expect("it ends");
    let found: Vec<String> = lines(folder.path());
    let of = |worker: &str| -> Vec<&str> {
        let head = format!("INFO test[77] worker {worker} gen 2 stdout: ");
        found.iter().filter_map(|line| line.strip_prefix(&head)).collect()
    };
    let expected: Vec<_> = (0..1000).map(|n| format!("honest {n}")).collect();
    assert_eq!(of("2"), expected);
    let whole: Vec<_> = of("1").into_iter().filter(|line| line.len() == 9).collect();
    let distinct: BTreeSet<_> = whole.iter().collect();
    assert_eq!(distinct.len(), whole.len(), "no line twice");
    assert!(stolen > 0 && whole.len() * 10 + stolen >= 299_000, "{} and {stolen}", whole.len());
    let totals = bench.capture.totals();
    assert_eq!(totals.read, totals.written + totals.dropped_bytes);
}

/// The kernel gives a page to the pipe of a user that has very many.
fn small_pipes(folder: &Path) {
    let mut bench = Bench::new(options(folder));
    let mut pipes = Vec::new();
    let workers: Vec<_> = (0..4)
        .map(|id| {
            let mut pipe = bench.add(id, output(u32::try_from(id).expect("small")));
            fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
            let worker = fork(|| {
                for n in 0..10 {
                    // Twice the pipe, or a page that is not used to its end.
                    let length = if id % 2 == 0 { 9000 } else { 2100 };
                    writeln!(pipe, "{}", "z".repeat(length)).expect("a reader");
                    writeln!(pipe, "{n}").expect("a reader");
                }
            });
            pipes.push(pipe);
            worker
        })
        .collect();
    drop(pipes);
    bench.turn_until(|bench| bench.ended.len() == 4);
    workers.into_iter().for_each(|worker| expect_exit(worker, 0));
}

#[test]
fn a_line_that_fills_its_pipe_is_cut_there() {
    let left = stage::run("capture_small_pipes");
    let text = text(left.folder());
    for worker in 0..4 {
        let head = format!(" worker {worker} gen 2 stdout: ");
        let found = text.lines().filter_map(|line| Some(line.split_once(&head)?.1));
        let found: Vec<_> = found.collect();
        let letters = if worker % 2 == 0 { 9000 } else { 2100 };
        let printed: usize = found.iter().map(|line| line.matches('z').count()).sum();
        assert_eq!(printed, 10 * letters, "worker {worker}");
        let is_cut = found.iter().any(|line| line.ends_with("z…[cut]"));
        assert!(is_cut || worker % 2 == 1, "worker {worker}");
        let numbers: Vec<_> = found.iter().filter_map(|line| line.parse::<u32>().ok()).collect();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>(), "worker {worker}");
    }
}

#[test]
fn what_is_no_pipe_or_known_already_is_refused() {
    let folder = temporary();
    let journal = std::sync::Arc::new(ph_log::CaptureJournal::new().expect("a journal"));
    let mut capture = Capture::open(options(folder.path()), journal).expect("a log");
    let (_write, kind) = (pipe(), SourceKind::Ready);
    let file = OwnedFd::from(File::open("/dev/null").expect("a device"));
    let error = capture.add(Source { id: 1, pipe: file, kind, path: None }).expect_err("no pipe");
    assert!(error.to_string().contains("source 1 is no pipe"), "{error}");
    let (first, _first) = source(1, kind);
    let (second, _second) = source(1, kind);
    capture.add(first).expect("a source");
    let error = capture.add(second).expect_err("the same id");
    assert!(error.to_string().contains("there is a source 1 already"), "{error}");
}

/// A process that left a pipe open keeps it open for ever; that is no end of the source.
#[test]
fn who_keeps_a_pipe_open_keeps_its_source() {
    let folder = temporary();
    let mut bench = Bench::new(options(folder.path()));
    let (source, write) = source(1, output(1));
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&source.pipe));
    bench.capture.add(source).expect("a source");
    drop(write);
    // Nobody is there to write, until somebody opens it once more.
    let mut write = fs::OpenOptions::new().write(true).open(again).expect("the pipe");
    let flags = fcntl(write.as_fd(), FcntlArg::F_GETFL).expect("flags");
    assert!(!OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK));
    bench.drain();
    assert!(bench.ended.is_empty());
    write.write_all(b"still here\n").expect("room");
    bench.drain();
    assert_eq!(lines(folder.path()), ["INFO test[77] worker 1 gen 2 stdout: still here"]);
    drop(write);
    bench.turn_until(|bench| bench.ended == [1]);
}
