//! A reader beside many writers that rotate, compress and prune: every line once, in its order.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, pipe2, setgid, setgroups, setuid};
use ph_log::{Compression, Found, LogReader, RotateLimits, RotateOptions, RotatingFile};

use crate::stage::{self, Scenario, expect_exit, fork};
use crate::trail::{Author, limits};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("follow_plain", follow_plain),
    ("follow_gzip", follow_gzip),
    ("follow_zstd", follow_zstd),
    ("follow_last", follow_last),
    ("follow_as_other", follow_as_other),
];

const WRITERS: u32 = 4;
const LINES: u32 = 40_000;
const MAX_SIZE: u64 = 64 << 10;

/// How long the reader waits for the next line at most.
const LONG: Duration = Duration::from_secs(30);

/// What the reader has seen of each writer.
#[derive(Default)]
struct Seen {
    next: BTreeMap<u32, u32>,
    others: Vec<String>,
}

impl Seen {
    fn take(&mut self, found: &Found) {
        let Found::Line(line) = found else {
            return self.others.push(format!("{found:?}"));
        };
        let text = String::from_utf8_lossy(line);
        let number = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok();
        match (number(2, 5), number(8, 16), text.ends_with(" end")) {
            (Some(process), Some(number), true) => {
                let next = self.next.entry(process).or_insert(number);
                assert_eq!(*next, number, "process {process}: missing, doubled or moved");
                *next += 1;
            }
            _ => self.others.push(text.into_owned()),
        }
    }

    fn is_complete(&self) -> bool {
        (0..WRITERS).all(|process| self.next.get(&process) == Some(&LINES))
    }
}

/// Reads until all writers' last lines were there.
fn follow(mut reader: LogReader) -> Seen {
    let mut seen = Seen::default();
    seen.next.extend((0..WRITERS).map(|process| (process, 0)));
    loop {
        while let Some(found) = reader.next() {
            seen.take(&found);
        }
        if seen.is_complete() {
            return seen;
        }
        let before = seen.next.clone();
        let wake = reader.wait(LONG, None).expect("a wait");
        assert!(wake == ph_log::Wake::Look, "no line for long after {before:?}");
    }
}

fn play(folder: &Path, compress: Compression) {
    let limits = RotateLimits { compress, ..limits(MAX_SIZE) };
    let options = RotateOptions::new(folder.join("log"), limits);
    let mut log = RotatingFile::open(options).expect("a log");
    let reader = fork(|| {
        let reader = LogReader::open(folder.join("log")).expect("a reader");
        let seen = follow(reader);
        assert!(seen.others.is_empty(), "{:?}", seen.others);
        fs::write(folder.join("seen"), "all").expect("a file");
    });
    let compressor = (compress != Compression::None).then(|| {
        fork(|| {
            while !folder.join("done").exists() {
                if let Some(job) = log.pending_compression().expect("a folder") {
                    // A lock that others keep busy is no failure here.
                    drop(job.run());
                }
                std::thread::yield_now();
            }
        })
    });
    write_all(&mut log);
    expect_exit(reader, 0);
    fs::write(folder.join("done"), "").expect("a file");
    if let Some(compressor) = compressor {
        expect_exit(compressor, 0);
    }
}

/// Has all writers write all their lines.
fn write_all(log: &mut RotatingFile) {
    let null = fs::OpenOptions::new().write(true).open("/dev/null").expect("a device");
    let writers: Vec<_> = (0..WRITERS)
        .map(|process| {
            let acknowledge = null.try_clone().expect("a descriptor");
            fork(|| Author::new(process, acknowledge.into()).write(log, LINES))
        })
        .collect();
    for writer in writers {
        expect_exit(writer, 0);
    }
}

fn follow_plain(folder: &Path) {
    play(folder, Compression::None);
}

fn follow_gzip(folder: &Path) {
    play(folder, Compression::Gzip);
}

fn follow_zstd(folder: &Path) {
    play(folder, Compression::Zstd);
}

/// A reader that may neither list the folder nor read the backup.
fn follow_as_other(folder: &Path) {
    let options = RotateOptions::new(folder.join("log"), limits(MAX_SIZE));
    let mut log = RotatingFile::open(options).expect("a log");
    let write = |log: &mut RotatingFile, line: &[u8]| assert_eq!(log.write_batch(line).lost, 0);
    write(&mut log, b"one\n");
    assert!(log.rotate_now().expect("a rotation"));
    write(&mut log, b"two\n");
    let allow = |name: &str, mode| {
        let path = folder.join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    allow("", 0o711);
    allow("log", 0o644);
    allow("log.1", 0o600);
    let (ready, tell) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let reader = fork(|| {
        setgroups(&[]).and_then(|()| setgid(Gid::from_raw(65_534))).expect("root");
        setuid(Uid::from_raw(65_534)).expect("root");
        let mut reader = LogReader::open(folder.join("log")).expect("a reader");
        assert_eq!(reader.next(), Some(Found::Line(b"two".to_vec())));
        assert_eq!(reader.next(), None);
        nix::unistd::write(&tell, b"1").expect("a pipe");
        // Nobody tells of what happens in a folder that may not be read.
        while reader.wait(LONG, None).expect("a wait") == ph_log::Wake::Look {
            match reader.next() {
                Some(found) => return assert_eq!(found, Found::Line(b"three".to_vec())),
                None => assert!(folder.join("log").exists()),
            }
        }
        panic!("no line for long");
    });
    assert_eq!(nix::unistd::read(&ready, &mut [0]), Ok(1));
    assert!(log.rotate_now().expect("a rotation"));
    write(&mut log, b"three\n");
    expect_exit(reader, 0);
}

/// Readers that begin at the end, again and again, while others write and rotate.
fn follow_last(folder: &Path) {
    let options = RotateOptions::new(folder.join("log"), limits(MAX_SIZE));
    let mut log = RotatingFile::open(options).expect("a log");
    let reader = fork(|| {
        for wanted in (0..).take_while(|_| !folder.join("done").exists()) {
            let mut reader = LogReader::open(folder.join("log")).expect("a reader");
            reader.skip_to_last(wanted % 3000).expect("a place");
            let mut seen = Seen::default();
            for found in std::iter::from_fn(|| reader.next()).take(5000) {
                seen.take(&found);
            }
            assert!(seen.others.is_empty(), "{:?}", seen.others);
        }
    });
    write_all(&mut log);
    fs::write(folder.join("done"), "").expect("a file");
    expect_exit(reader, 0);
    let mut reader = LogReader::open(folder.join("log")).expect("a reader");
    reader.skip_to_last(1000).expect("a place");
    assert_eq!(std::iter::from_fn(|| reader.next()).count(), 1000);
}

#[test]
fn a_reader_sees_every_line_once_while_four_processes_rotate() {
    assert!(stage::run("follow_plain").folder().join("seen").exists());
}

#[test]
fn a_reader_sees_every_line_once_while_backups_are_compressed_under_it() {
    for packing in ["follow_gzip", "follow_zstd"] {
        assert!(stage::run(packing).folder().join("seen").exists());
    }
}

#[test]
fn a_reader_that_begins_at_the_end_sees_every_line_from_there_on() {
    stage::run("follow_last");
}

#[test]
fn who_may_read_the_log_alone_follows_that() {
    stage::run("follow_as_other");
}
