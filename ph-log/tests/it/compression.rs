//! Backups are compressed by whoever may have a second thread, and never by a master.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use tracing::info;

use ph_log::{Compression, Log, LogOptions, RotateLimits};

use crate::stage::{self, Scenario, expect_exit, fork, fork_worker, threads, wait_until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("packed_by_workers", packed_by_workers),
    ("packed_for_a_master", packed_for_a_master),
    ("not_packed", not_packed),
];

fn log(folder: &Path) -> Log {
    let max_size = Some(20_000);
    let compress = Compression::Gzip;
    let limits = RotateLimits { max_size, compress, backups: 1000, ..RotateLimits::default() };
    ph_log::init(LogOptions { limits, ..stage::options(folder) }).expect("a log")
}

/// Backups from number 2 on that are not compressed.
fn unpacked(folder: &Path) -> usize {
    (2..).map(|n| folder.join(format!("log.{n}"))).take(1000).filter(|path| path.exists()).count()
}

fn packed_by_workers(folder: &Path) {
    let log = log(folder);
    let workers: Vec<_> = (0..2)
        .map(|slot| {
            fork_worker(&log, slot, || {
                (0..3000).for_each(|n| info!("{n}"));
                wait_until(|| log.queued() == 0);
                // The queue's thread and this one are left: a compressor ends when it is done.
                wait_until(|| threads() == 2);
                log.flush();
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| expect_exit(worker, 0));
    // What one left to the other because it was at it is done by whoever looks next.
    expect_exit(
        fork(|| {
            log.enter_helper("log");
            log.compress_pending();
            wait_until(|| unpacked(folder) == 0 && threads() == 1);
        }),
        0,
    );
}

#[test]
fn what_workers_rotate_is_compressed_and_nothing_is_missing() {
    let left = stage::run("packed_by_workers");
    let mut text = String::new();
    let packed = |n: &u32| left.folder().join(format!("log.{n}.gz"));
    let last = (2..).take_while(|n| packed(n).exists()).last().expect("a compressed backup");
    for number in (2..=last).rev() {
        let file = File::open(packed(&number)).expect("a backup");
        GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    }
    text += &fs::read_to_string(left.folder().join("log.1")).expect("the youngest backup");
    text += &fs::read_to_string(left.folder().join("log")).expect("the log");
    for slot in 0..2 {
        let role = format!("worker {slot} gen 1: ");
        let texts = text.lines().map(|line| stage::parse(line).1);
        let numbers = texts.filter_map(|text| Some(text.strip_prefix(&role)?.to_owned()));
        assert!(numbers.eq((0..3000).map(|n| n.to_string())), "worker {slot}");
    }
}

fn packed_for_a_master(folder: &Path) {
    let log = log(folder);
    (0..2000).for_each(|n| info!("{n}"));
    log.compress_pending();
    assert_eq!(threads(), 1, "a master has one thread");
    assert!(unpacked(folder) > 2);
    expect_exit(
        fork(|| {
            log.enter_helper("log");
            info!("a line that rotates nothing");
            assert_eq!(threads(), 1);
            log.compress_pending();
            wait_until(|| unpacked(folder) == 0 && threads() == 1);
        }),
        0,
    );
}

#[test]
fn what_a_master_rotates_is_compressed_by_another_process() {
    let left = stage::run("packed_for_a_master");
    assert!(left.folder().join("log.2.gz").exists());
}

fn not_packed(folder: &Path) {
    let log = log(folder);
    (0..1000).for_each(|n| info!("{n}"));
    fs::create_dir(folder.join(".log.pack")).expect("a folder in the way");
    let worker = fork_worker(&log, 1, || {
        (0..2000).for_each(|n| info!("{n}"));
        wait_until(|| log.queued() == 0);
        wait_until(|| threads() == 2);
        log.flush();
    });
    expect_exit(worker, 0);
}

#[test]
fn a_compression_that_fails_is_told_once_and_loses_nothing() {
    let left = stage::run("not_packed");
    let files = (1..).map(|n| format!("log.{n}")).take_while(|n| left.folder().join(n).exists());
    let files: Vec<_> = files.chain(["log".to_owned()]).collect();
    let texts: Vec<_> = files.iter().flat_map(|file| left.texts(file)).collect();
    let told = texts.iter().filter(|text| text.contains("cannot compress a backup")).count();
    assert_eq!((told, texts.len()), (1, 3001));
}
