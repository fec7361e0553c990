//! Logs that workers have for themselves and that cannot be opened: the main one takes their lines
//! meanwhile.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::unistd::dup2_stderr;
use ph_log::{CaptureOptions, CaptureStep, CaptureTarget};

use crate::capture::{Bench, options, output, text};
use crate::capture_crash::{CRASHED, Master, STEPS, WORKERS, judge};
use crate::stage::{self, Scenario, expect_exit};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("own_file_steps", steps),
    ("own_file_stderr", to_stderr),
    ("own_file_away", away),
    ("own_file_written_away", written_away),
    ("own_file_gone", gone),
];

/// What the main log says of files that cannot be opened.
fn warnings(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.contains(" WARN test[")).collect()
}

/// What a worker has printed, as far as it is in this text.
fn printed(text: &str) -> Vec<&str> {
    let lines = text.lines().filter_map(|line| line.split_once(" stdout: "));
    lines.map(|(_, printed)| printed).collect()
}

/// What is wrong with a file, how it comes to that, and how it is mended.
type Story = (&'static str, fn(&Path), fn(&Path));

#[test]
fn the_main_log_takes_the_lines_of_a_file_that_cannot_be_opened_until_it_can() {
    let stories: [Story; 3] = [
        (
            "no folder",
            |_| {},
            |path| fs::create_dir(path.parent().expect("one")).expect("a folder"),
        ),
        (
            "a folder at the name",
            |path| fs::create_dir_all(path).expect("a folder"),
            |path| fs::remove_dir(path).expect("a folder"),
        ),
        (
            "a link at the name",
            |path| {
                fs::create_dir(path.parent().expect("one")).expect("a folder");
                symlink("/dev/null", path).expect("a link");
            },
            |path| fs::remove_file(path).expect("a link"),
        ),
    ];
    for (what, spoil, mend) in stories {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("own").join("w.log");
        spoil(&path);
        let mut bench = Bench::new(options(folder.path()));
        let mut pipe = bench.add_with_file(1, output(1), &path);
        pipe.write_all(b"one\ntwo\n").expect("room");
        bench.drain();
        pipe.write_all(b"three\n").expect("room");
        bench.drain();
        let main = text(folder.path());
        assert_eq!(printed(&main), ["one", "two", "three"], "{what}");
        let said = warnings(&main);
        assert_eq!(said.len(), 1, "{what}: {said:?}");
        assert!(said[0].contains("own/w.log"), "{what}: {said:?}");
        mend(&path);
        bench.capture.reopen();
        pipe.write_all(b"four\n").expect("room");
        bench.drain();
        assert_eq!(printed(&fs::read_to_string(&path).expect("its log")), ["four"], "{what}");
        assert_eq!(printed(&text(folder.path())), ["one", "two", "three"], "{what}");
    }
}

#[test]
fn a_file_that_can_be_opened_again_is_found_by_what_comes_after_some_seconds() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("own").join("w.log");
    let mut bench = Bench::new(options(folder.path()));
    let mut pipe = bench.add_with_file(1, output(1), &path);
    pipe.write_all(b"one\n").expect("room");
    bench.drain();
    fs::create_dir(path.parent().expect("one")).expect("a folder");
    for _ in 0..600 {
        pipe.write_all(b"more\n").expect("room");
        bench.drain();
        if path.exists() {
            return;
        }
        nix::poll::poll(&mut [], nix::poll::PollTimeout::from(50_u8)).expect("a pause");
    }
    panic!("it is not opened");
}

#[test]
fn a_folder_that_is_deleted_with_the_file_in_use_does_not_keep_the_lines_either() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("own").join("w.log");
    fs::create_dir(path.parent().expect("one")).expect("a folder");
    let mut bench = Bench::new(options(folder.path()));
    let mut pipe = bench.add_with_file(1, output(1), &path);
    pipe.write_all(b"one\n").expect("room");
    bench.drain();
    fs::remove_dir_all(path.parent().expect("one")).expect("a folder");
    pipe.write_all(b"two\n").expect("room");
    bench.drain();
    assert_eq!(printed(&text(folder.path())), ["two"]);
}

/// Log processes die at every step, first without the folder, then with it.
fn steps(folder: &Path) {
    let own = folder.join("own").join("w.log");
    let mut master = Master::new(options(folder));
    master.own = Some(own.clone());
    (0..WORKERS).for_each(|process| master.author(process, 20_000));
    let before = master.crash_everywhere();
    let main = fs::read_to_string(folder.join("log")).expect("the log");
    fs::create_dir(folder.join("own")).expect("a folder");
    let after = master.crash_everywhere();
    assert!(before.min(after) >= 20, "{before} and {after} log processes died");
    master.finish();
    let printed: String = main
        .lines()
        .filter(|line| !line.contains(" WARN "))
        .fold(String::new(), |text, line| text + line + "\n");
    let own = fs::read_to_string(own).expect("their log");
    fs::write(folder.join("log"), printed + &own).expect("a file");
    assert!(!own.is_empty());
}

#[test]
fn log_processes_that_die_meanwhile_lose_and_double_nothing() {
    judge(stage::run("own_file_steps").folder(), 20_000);
}

/// A log process dies when its lines are about to be in a file, or are there, whose folder is then
/// moved away.
fn dead_beside_moved_folder(folder: &Path, step: CaptureStep) -> Master {
    let own = folder.join("own").join("log");
    fs::create_dir(folder.join("own")).expect("a folder");
    let mut master = Master::new(options(folder));
    master.own = Some(own);
    (0..WORKERS).for_each(|process| master.author(process, 2000));
    let step = STEPS.iter().position(|known| *known == step).expect("a known step");
    expect_exit(master.log_process(Some((step, 1))), CRASHED);
    fs::rename(folder.join("own"), folder.join("away")).expect("a folder");
    master
}

fn away(folder: &Path) {
    come_back(folder, CaptureStep::Intended);
}

fn written_away(folder: &Path) {
    come_back(folder, CaptureStep::Appended);
}

fn come_back(folder: &Path, step: CaptureStep) {
    let master = dead_beside_moved_folder(folder, step);
    dup2_stderr(File::create(folder.join("stderr")).expect("a file")).expect("a descriptor");
    let log_process = master.log_process(None);
    stage::wait_until(|| {
        let said = fs::read_to_string(folder.join("stderr")).expect("a file");
        said.contains("cannot look what a killed log process wrote")
    });
    fs::rename(folder.join("away"), folder.join("own")).expect("a folder");
    expect_exit(log_process, 0);
    fs::rename(folder.join("own").join("log"), folder.join("log")).expect("a log");
}

#[test]
fn a_folder_that_cannot_be_looked_into_is_waited_for() {
    judge(stage::run("own_file_away").folder(), 2000);
    judge(stage::run("own_file_written_away").folder(), 2000);
}

fn gone(folder: &Path) {
    dead_beside_moved_folder(folder, CaptureStep::Intended).finish();
}

#[test]
fn what_is_in_a_folder_that_does_not_come_back_may_be_there_twice_and_is_not_lost() {
    let left = stage::run("own_file_gone");
    let (main, away) = (left.folder().join("log"), left.folder().join("away").join("log"));
    let texts = [main, away].map(|path| fs::read_to_string(path).expect("a log"));
    let [main, away] = texts.each_ref().map(|text| printed(text));
    let all: BTreeSet<&str> = main.iter().chain(&away).copied().collect();
    assert_eq!(all.len(), WORKERS as usize * 2000);
    assert_eq!(BTreeSet::from_iter(main.iter()).len(), main.len(), "none is twice in one file");
    assert!(left.stderr.contains("cannot look what a killed log process wrote"));
}

fn to_stderr(folder: &Path) {
    let target = CaptureTarget::Stderr;
    let mut bench = Bench::new(CaptureOptions { target, ..options(folder) });
    let mut pipe = bench.add_with_file(1, output(1), &folder.join("own").join("w.log"));
    for _ in 0..2 {
        pipe.write_all(b"printed\n").expect("room");
        bench.drain();
    }
}

#[test]
fn where_the_main_log_is_stderr_that_takes_them() {
    let said = stage::run("own_file_stderr").stderr;
    assert_eq!(printed(&said), ["printed", "printed"], "{said}");
    assert_eq!(warnings(&said).len(), 1, "{said}");
}
