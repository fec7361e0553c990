//! Logs that workers have for themselves and that cannot be opened: the main one takes their lines
//! meanwhile.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use ph_log::{CaptureOptions, CaptureTarget};

use crate::capture::{Bench, options, output, text};
use crate::capture_crash::{Master, WORKERS, judge};
use crate::stage::{self, Scenario};

pub(crate) const SCENARIOS: &[Scenario] =
    &[("own_file_steps", steps), ("own_file_stderr", to_stderr)];

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
