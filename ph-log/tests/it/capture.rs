//! What workers print, brought to the log by one process that lives; and the stage for those that
//! are killed: a master that keeps the pipes and starts one log process after the other.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use ph_log::{
    Capture, CaptureJournal, CaptureOptions, CaptureTarget, Compression, Format, Overflow,
    RotateLimits, Source, SourceKind, StandardStream, Totals,
};

use crate::trail::limits;

/// A log `log` in the folder that is never rotated.
pub(crate) fn options(folder: &Path) -> CaptureOptions {
    CaptureOptions {
        name: "test".to_owned(),
        target: CaptureTarget::File(folder.join("log")),
        limits: RotateLimits { max_size: None, ..limits(1) },
        also_stderr: false,
        format: Format::Text,
        line_max: 16 << 10,
        overflow: Overflow::Block,
    }
}

pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    pipe2(OFlag::O_CLOEXEC).expect("a pipe")
}

pub(crate) fn output(slot: u32) -> SourceKind {
    SourceKind::Output { slot, generation: 2, pid: 77, stream: StandardStream::Stdout }
}

/// A source, and the end to write to.
pub(crate) fn source(id: u64, kind: SourceKind) -> (Source, File) {
    let (read, write) = pipe();
    (Source { id, pipe: read, kind, path: None }, File::from(write))
}

/// A capture in this very process, and something to wait with.
pub(crate) struct Bench {
    pub(crate) capture: Capture,
    journal: Arc<CaptureJournal>,
    control: (OwnedFd, OwnedFd),
    pub(crate) ended: Vec<u64>,
}

impl Bench {
    pub(crate) fn new(options: CaptureOptions) -> Bench {
        let journal = Arc::new(CaptureJournal::new().expect("a journal"));
        Bench::with(options, journal)
    }

    fn with(options: CaptureOptions, journal: Arc<CaptureJournal>) -> Bench {
        let capture = Capture::open(options, Arc::clone(&journal)).expect("a log");
        Bench { capture, journal, control: pipe(), ended: Vec::new() }
    }

    pub(crate) fn add(&mut self, id: u64, kind: SourceKind) -> File {
        let (source, write) = source(id, kind);
        self.capture.add(source).expect("a source");
        write
    }

    /// As `add`, with a log of its own.
    pub(crate) fn add_with_file(&mut self, id: u64, kind: SourceKind, path: &Path) -> File {
        let (source, write) = source(id, kind);
        self.capture.add(Source { path: Some(path.to_owned()), ..source }).expect("a source");
        write
    }

    /// Turns until a fact is there. The wait of a turn has no limit of its own, so every turn is
    /// let go by the control descriptor.
    pub(crate) fn turn_until(&mut self, fact: impl Fn(&Bench) -> bool) {
        let mut write = File::from(self.control.1.try_clone().expect("a descriptor"));
        write.write_all(b"x").expect("room");
        for _ in 0..1_000_000 {
            if fact(self) {
                let mut byte = [0];
                nix::unistd::read(&self.control.0, &mut byte).expect("the byte");
                return;
            }
            self.turn();
        }
        panic!("it does not come to that");
    }

    pub(crate) fn turn(&mut self) {
        let turn = self.capture.turn(self.control.0.as_fd()).expect("a turn");
        self.ended.extend(turn.ended);
    }

    /// A drain that cannot bring everything to the log.
    pub(crate) fn drain_in_vain(&mut self) {
        let drained = self.capture.drain(Duration::from_millis(10)).expect("a drain");
        assert!(!drained.is_done);
    }

    pub(crate) fn drain(&mut self) {
        let drained = self.capture.drain(Duration::from_secs(20)).expect("a drain");
        assert!(drained.is_done);
        self.ended.extend(drained.ended);
    }
}

pub(crate) fn text(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).expect("the log")
}

/// The lines of the log without their time, each checked for it.
pub(crate) fn lines(folder: &Path) -> Vec<String> {
    let line = |line: &str| {
        let (time, rest) = line.split_once("Z ").expect("a time");
        assert_eq!(time.len(), "2026-11-23T08:00:00.123".len(), "{line:?}");
        rest.to_owned()
    };
    text(folder).lines().map(line).collect()
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn lines_get_a_head_and_their_bytes_are_accounted_for() {
    let folder = temporary();
    let folder = folder.path();
    let mut bench = Bench::new(options(folder));
    let mut out = bench.add(1, output(3));
    let kind =
        SourceKind::Output { slot: 3, generation: 2, pid: 78, stream: StandardStream::Stderr };
    let mut err = bench.add(2, kind);
    let mut ready = bench.add(3, SourceKind::Ready);
    let mut records = bench.add(4, SourceKind::Records { slot: 5, generation: 1, pid: 79 });
    let texts = [
        "one\n\ntwo\r\n",
        "three\n",
        "2026-11-23T08:00:00.123Z INFO test[1] master: as it is\x07\n",
        "E bad\nW careful\nX what\nT\n",
    ];
    for (pipe, text) in [&mut out, &mut err, &mut ready, &mut records].into_iter().zip(texts) {
        pipe.write_all(text.as_bytes()).expect("room");
    }
    bench.drain();
    let found = lines(folder);
    let expected = [
        "INFO test[77] worker 3 gen 2 stdout: one",
        "INFO test[77] worker 3 gen 2 stdout: ",
        "INFO test[77] worker 3 gen 2 stdout: two",
        "INFO test[78] worker 3 gen 2 stderr: three",
        "INFO test[1] master: as it is\x07",
        "ERROR test[79] worker 5 gen 1: bad",
        "WARN test[79] worker 5 gen 1: careful",
        "INFO test[79] worker 5 gen 1: X what",
        "INFO test[79] worker 5 gen 1: T",
    ];
    assert_eq!(found, expected);
    drop((out, err, ready, records));
    bench.turn_until(|bench| bench.ended.len() == 4);
    let bytes = texts.concat().len() as u64;
    let expected =
        Totals { read: bytes, written: bytes, lines: 9, dropped_bytes: 0, dropped_lines: 0 };
    assert_eq!(bench.capture.totals(), expected);
    assert_eq!(Bench::with(options(folder), bench.journal).capture.totals(), expected);
}

#[test]
fn a_line_that_comes_in_parts_is_one_line() {
    let folder = temporary();
    let mut bench = Bench::new(options(folder.path()));
    let mut out = bench.add(1, output(1));
    for part in ["a li", "ne", " in parts\nand the next"] {
        out.write_all(part.as_bytes()).expect("room");
        bench.turn();
    }
    let head = "INFO test[77] worker 1 gen 2 stdout: ";
    assert_eq!(lines(folder.path()), [format!("{head}a line in parts")]);
    let (totals, buffered) = bench.capture.account(1).expect("a pipe").expect("a source");
    assert_eq!((totals.read, buffered), (16, 12));
    // Nobody writes any more, and nothing tells the process but its own clock.
    let began = std::time::SystemTime::now();
    while bench.capture.totals().lines < 2 {
        bench.turn();
    }
    assert!(began.elapsed().expect("a clock") > Duration::from_millis(500));
    // What comes now is a new line, and the end of the old one is none.
    out.write_all(b"\nlate\n").expect("room");
    drop(out);
    bench.turn_until(|bench| bench.ended == [1]);
    let expected = ["a line in parts", "and the next", "late"];
    assert_eq!(lines(folder.path()), expected.map(|text| format!("{head}{text}")));
}

#[test]
fn what_is_left_at_the_end_of_a_pipe_is_written_at_once() {
    let folder = temporary();
    let mut bench = Bench::new(options(folder.path()));
    let mut out = bench.add(1, output(1));
    out.write_all(b"one\nhalf \xe2\x82").expect("room");
    drop(out);
    bench.turn_until(|bench| bench.ended == [1]);
    let head = "INFO test[77] worker 1 gen 2 stdout: ";
    assert_eq!(lines(folder.path()), [format!("{head}one"), format!("{head}half \\xe2\\x82")]);
}

#[test]
fn a_source_may_have_a_log_of_its_own_and_few_files_are_open() {
    let folder = temporary();
    let mut bench = Bench::new(options(folder.path()));
    let path = |id: u64| -> PathBuf { folder.path().join(format!("worker{id}")) };
    let mut writers: Vec<_> = (0..200)
        .map(|id| {
            let (mut source, write) = source(id, output(1));
            source.path = Some(path(id % 100));
            bench.capture.add(source).expect("a source");
            write
        })
        .collect();
    for round in 0..3 {
        for (id, writer) in writers.iter_mut().enumerate() {
            writeln!(writer, "{id} {round}").expect("room");
        }
        bench.drain();
        let open = fs::read_dir("/proc/self/fd").expect("proc").filter_map(|entry| {
            let target = fs::read_link(entry.ok()?.path()).ok()?;
            (target.starts_with(folder.path())
                && target.file_name()?.to_str()?.starts_with("worker"))
            .then_some(())
        });
        assert!(open.count() <= 64);
    }
    for id in 0..100 {
        let text = fs::read_to_string(path(id)).expect("a log");
        let found: Vec<_> = text.lines().filter_map(|line| line.rsplit_once(": ")).collect();
        let expected = (0..3).flat_map(|round| [id, id + 100].map(|id| format!("{id} {round}")));
        assert_eq!(
            found.iter().map(|(_, text)| (*text).to_owned()).collect::<Vec<_>>(),
            expected.collect::<Vec<_>>()
        );
    }
    assert_eq!(text(folder.path()), "");
}

#[test]
fn a_flood_does_not_keep_a_slow_writer_waiting() {
    let folder = temporary();
    let mut bench = Bench::new(options(folder.path()));
    let floods: Vec<_> = (0..4)
        .map(|id| {
            let flood = bench.add(id, output(1));
            std::thread::spawn(move || {
                let line = [b'x'; 99].into_iter().chain([b'\n']).collect::<Vec<_>>().repeat(600);
                let mut flood = flood;
                for _ in 0..30 {
                    flood.write_all(&line).expect("a reader");
                }
            })
        })
        .collect();
    let mut slow = bench.add(9, output(9));
    for n in 0..50 {
        writeln!(slow, "slow {n}").expect("room");
        let before = bench.capture.totals().written;
        bench.turn_until(|bench| {
            bench.capture.totals().lines > 0 && text(folder.path()).contains(&format!("slow {n}\n"))
        });
        // Nobody else gets more than a few shares in between.
        let other = bench.capture.totals().written - before;
        assert!(other <= 3 * 4 * (64 << 10), "{other} bytes before one line");
    }
    drop(slow);
    bench.turn_until(|bench| bench.ended.len() == 5);
    floods.into_iter().for_each(|flood| flood.join().expect("a thread that ends"));
    assert_eq!(bench.capture.totals().lines, 4 * 30 * 600 + 50);
}

#[test]
fn old_backups_are_compressed_beside_the_work() {
    let folder = temporary();
    let limits = RotateLimits { compress: Compression::Gzip, ..limits(4000) };
    let mut bench = Bench::new(CaptureOptions { limits, ..options(folder.path()) });
    let mut out = bench.add(1, output(1));
    for n in 0..20 {
        out.write_all(&format!("{n}\n").into_bytes().repeat(50)).expect("room");
        bench.drain();
    }
    let is_there = |name: &str| folder.path().join(name).exists();
    bench.turn_until(|_| is_there("log.3.gz") && !is_there("log.2") && !is_there("log.3"));
    assert!(is_there("log.1"));
}

/// The kernel tells nobody of what a write adds to a pipe that is not empty until that write ends.
#[test]
fn one_write_that_is_larger_than_the_pipe_is_not_waited_for() {
    let folder = temporary();
    let mut bench = Bench::new(options(folder.path()));
    let mut out = bench.add(1, output(1));
    let line = "x".repeat(9999) + "\n";
    let text = line.repeat(1000);
    let writing = std::thread::spawn(move || out.write_all(text.as_bytes()).expect("a reader"));
    let began = std::time::SystemTime::now();
    while bench.ended.is_empty() {
        bench.turn();
    }
    let took = began.elapsed().expect("a clock");
    writing.join().expect("it ends");
    assert_eq!(bench.capture.totals().lines, 1000);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_rename_or_a_rotation_loses_nothing() {
    let folder = temporary();
    let folder = folder.path();
    let mut bench = Bench::new(options(folder));
    let mut out = bench.add(1, output(1));
    out.write_all(b"one\n").expect("room");
    bench.drain();
    fs::rename(folder.join("log"), folder.join("log.old")).expect("a rename");
    out.write_all(b"two\n").expect("room");
    bench.drain();
    bench.capture.reopen();
    out.write_all(b"three\n").expect("room");
    bench.drain();
    assert!(bench.capture.rotate_now().expect("a rotation"));
    assert!(!bench.capture.rotate_now().expect("nothing to rotate"));
    out.write_all(b"four\n").expect("room");
    bench.drain();
    let last = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).expect("a log");
        text.lines()
            .map(|line| line.rsplit_once(' ').expect("a word").1.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (last("log.old"), last("log.1"), last("log")),
        (
            vec!["one".to_owned(), "two".to_owned()],
            vec!["three".to_owned()],
            vec!["four".to_owned()],
        )
    );
}
