//! Rotation by the processes of one log as `init` makes them: a master, workers, helpers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tracing::info;

use ph_log::{LogOptions, RotateLimits, Target, WorkerPath};

use crate::stage::{self, REOPEN, Scenario, expect_exit, fork, fork_worker};
use crate::trail::limits;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("rotated_by_all", rotated_by_all),
    ("files_of_workers", files_of_workers),
    ("file_of_a_worker_refused", file_of_a_worker_refused),
];

const WORKERS: u32 = 4;
const LINES: u32 = 4000;

fn rotated_by_all(folder: &Path) {
    let options = LogOptions { limits: limits(64 << 10), ..stage::options(folder) };
    let log = ph_log::init(options).expect("a log");
    let mut children: Vec<_> = (0..WORKERS)
        .map(|slot| {
            fork_worker(&log, slot, || {
                (0..LINES).for_each(|n| info!(n, pad = "x".repeat(n as usize % 90), "w"));
                log.flush();
            })
        })
        .collect();
    children.push(fork(|| {
        log.enter_helper("warden");
        (0..LINES).for_each(|n| info!(n, "w"));
    }));
    (0..LINES).for_each(|n| info!(n, "w"));
    children.into_iter().for_each(|child| expect_exit(child, 0));
    assert_eq!(log.dropped(), 0);
}

/// Fault 54: every line once, whole, and in its writer's order, over all files.
#[test]
fn lines_of_all_kinds_of_processes_survive_their_rotations() {
    let left = stage::run("rotated_by_all");
    let backups = (1..).take_while(|n| left.folder().join(format!("log.{n}")).exists()).count();
    assert!(backups > 20, "{backups}");
    let mut seen: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let files = (1..=backups).rev().map(|n| format!("log.{n}")).chain(["log".to_owned()]);
    for file in files {
        let size = left.metadata(&file).len();
        // One batch of each process can be on its way when the size is looked at.
        assert!(size <= 7 * (64 << 10), "{file}: {size}");
        for text in left.texts(&file) {
            let (role, rest) = text.split_once(": w n=").expect(&text);
            let number = rest.split(' ').next().expect(&text);
            seen.entry(role.to_owned()).or_default().push(number.parse().expect(&text));
        }
    }
    assert_eq!(seen.len(), WORKERS as usize + 2, "{:?}", seen.keys());
    for (role, numbers) in seen {
        assert!(numbers.into_iter().eq(0..LINES), "{role}");
    }
}

fn with_worker_files(folder: &Path, target: Target) -> LogOptions {
    let of_workers = folder.to_owned();
    let path = move |slot, generation| of_workers.join(format!("w{slot}.{generation}"));
    LogOptions { target, worker_path: Some(WorkerPath::new(path)), ..stage::options(folder) }
}

fn files_of_workers(folder: &Path) {
    let limits = RotateLimits { max_size: Some(1000), backups: 2, ..RotateLimits::default() };
    let options = with_worker_files(folder, Target::Stderr);
    let log = ph_log::init(LogOptions { limits, ..options }).expect("a log");
    info!("on stderr");
    let worker = fork_worker(&log, 7, || {
        info!(n = 0, "mine");
        log.flush();
        // Each on its own now, and not in a batch that no rotation divides.
        (1..50).for_each(|n| info!(n, "mine"));
        info!("at the end");
        fs::rename(folder.join("w7.1"), folder.join("moved")).expect("a rename");
        REOPEN.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        info!("anew");
    });
    expect_exit(worker, 0);
}

#[test]
fn a_worker_has_a_file_of_its_own_and_rotates_it() {
    let left = stage::run("files_of_workers");
    let (_, master) = stage::parse(left.stderr.trim_end());
    assert_eq!(master, "master: on stderr");
    assert_eq!(left.texts("w7.1"), ["worker 7 gen 1: anew"]);
    assert_eq!(left.texts("moved").last().map(String::as_str), Some("worker 7 gen 1: at the end"));
    for backup in ["w7.1.1", "w7.1.2"] {
        let texts = left.texts(backup);
        assert!(texts.iter().all(|text| text.starts_with("worker 7 gen 1: mine n=")), "{texts:?}");
    }
    assert!(!left.folder().join("w7.1.3").exists());
}

fn file_of_a_worker_refused(folder: &Path) {
    let options = with_worker_files(folder, Target::File(folder.join("log")));
    let log = ph_log::init(options).expect("a log");
    fs::create_dir(folder.join("w3.1")).expect("a folder in the way");
    let worker = fork_worker(&log, 3, || {
        info!("one");
        log.flush();
        fs::remove_dir(folder.join("w3.1")).expect("the folder");
        REOPEN.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        info!("two");
    });
    expect_exit(worker, 0);
}

#[test]
fn a_worker_whose_file_cannot_be_opened_goes_on_with_its_masters() {
    let left = stage::run("file_of_a_worker_refused");
    let texts = left.texts("log");
    assert!(texts[0].contains("log file not opened again, the old one stays"), "{texts:?}");
    assert!(texts[0].contains("w3.1"), "{texts:?}");
    assert_eq!(texts[1..], ["worker 3 gen 1: one"]);
    assert_eq!(left.texts("w3.1"), ["worker 3 gen 1: two"]);
}
