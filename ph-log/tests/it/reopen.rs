//! A rename loses nothing, and a reopen that fails keeps the old file.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use tracing::info;

use crate::stage::{self, REOPEN, Scenario, expect_exit, fork_worker, wait_until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("renamed", renamed),
    ("fresh_in_the_worker", fresh_in_the_worker),
    ("renamed_under_writers", renamed_under_writers),
    ("refused", refused),
];

fn rename_and_ask(folder: &Path, to: &str) {
    fs::rename(folder.join("log"), folder.join(to)).expect("a rename");
    REOPEN.fetch_add(1, Ordering::AcqRel);
}

fn renamed(folder: &Path) {
    let log = stage::log(folder);
    info!("one");
    info!("two");
    rename_and_ask(folder, "log.1");
    info!("three");
    let worker = fork_worker(&log, 1, || {
        info!("four");
        wait_until(|| log.queued() == 0);
        rename_and_ask(folder, "log.2");
        info!("five");
        log.flush();
        rename_and_ask(folder, "log.3");
        info!("six");
    });
    expect_exit(worker, 0);
}

#[test]
fn the_line_after_a_reopen_is_in_the_new_file_and_those_before_are_in_the_old() {
    let left = stage::run("renamed");
    assert_eq!(left.texts("log.1"), ["master: one", "master: two"]);
    assert_eq!(left.texts("log.2"), ["master: three", "worker 1 gen 1: four"]);
    assert_eq!(left.texts("log.3"), ["worker 1 gen 1: five"]);
    assert_eq!(left.texts("log"), ["worker 1 gen 1: six"]);
}

fn fresh_in_the_worker(folder: &Path) {
    let log = stage::log(folder);
    info!("one");
    fs::rename(folder.join("log"), folder.join("log.1")).expect("a rename");
    let worker = fork_worker(&log, 1, || {
        info!("two");
        log.flush();
    });
    expect_exit(worker, 0);
    // The master follows to the file that the worker has made.
    info!("three");
    // A worker that cannot open the file goes on with what it inherited, and says so.
    fs::rename(folder.join("log"), folder.join("log.2")).expect("a rename");
    fs::create_dir(folder.join("log")).expect("a folder in the way");
    let worker = fork_worker(&log, 2, || {
        info!("four");
        log.flush();
    });
    expect_exit(worker, 0);
}

#[test]
fn a_worker_opens_the_file_for_itself() {
    let left = stage::run("fresh_in_the_worker");
    assert_eq!(left.texts("log.1"), ["master: one"]);
    let texts = left.texts("log.2");
    assert_eq!(texts.len(), 4, "{texts:#?}");
    assert_eq!(texts[..2], ["worker 1 gen 1: two", "master: three"]);
    assert!(texts[2].starts_with("worker 2 gen 1: log file not opened again, "), "{}", texts[2]);
    assert_eq!(texts[3], "worker 2 gen 1: four");
}

const ROUNDS: usize = 20;

fn renamed_under_writers(folder: &Path) {
    let log = stage::log(folder);
    let worker = fork_worker(&log, 1, || {
        for round in 0..ROUNDS {
            (0..500).for_each(|n| info!("{}", round * 500 + n));
            wait_until(|| folder.join("log").exists());
            rename_and_ask(folder, &format!("log.{round}"));
        }
        info!("{}", ROUNDS * 500);
        log.flush();
    });
    expect_exit(worker, 0);
}

#[test]
fn renames_in_full_flight_lose_nothing() {
    let left = stage::run("renamed_under_writers");
    let files = (0..ROUNDS).map(|round| format!("log.{round}")).chain(["log".to_owned()]);
    let all: Vec<String> = files.flat_map(|file| left.texts(&file)).collect();
    let wanted = (0..=ROUNDS * 500).map(|n| format!("worker 1 gen 1: {n}"));
    assert!(all.into_iter().eq(wanted));
}

fn refused(folder: &Path) {
    stage::log(folder);
    info!("one");
    fs::rename(folder.join("log"), folder.join("log.1")).expect("a rename");
    fs::create_dir(folder.join("log")).expect("a folder in the way");
    for n in 0..5 {
        REOPEN.fetch_add(1, Ordering::AcqRel);
        info!(n, "still");
    }
    fs::remove_dir(folder.join("log")).expect("the folder");
    REOPEN.fetch_add(1, Ordering::AcqRel);
    info!("two");
}

#[test]
fn a_failed_reopen_keeps_the_old_file_and_says_so_once() {
    let left = stage::run("refused");
    let old = left.texts("log.1");
    assert_eq!(old[0], "master: one");
    let notice =
        "master: log file not opened again, the old one stays in use error=\"cannot log to ";
    assert!(old[1].starts_with(notice), "{}", old[1]);
    assert!(old[1].contains("Is a directory (os error 21)"), "{}", old[1]);
    assert_eq!(old[2..], [0, 1, 2, 3, 4].map(|n| format!("master: still n={n}")));
    assert_eq!(left.texts("log"), ["master: two"]);
}
