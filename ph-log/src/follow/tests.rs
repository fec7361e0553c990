//! What a reader makes of renames, compression, deletion and truncation between its looks.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;

use super::*;
use crate::output::monotonic;
use crate::{Compression, RotateLimits, RotateOptions, RotatingFile};

/// No test waits longer.
const LONG: Duration = Duration::from_secs(20);

struct Scene {
    folder: tempfile::TempDir,
    log: RotatingFile,
}

impl Scene {
    fn new(backups: u32) -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = RotateLimits { backups, compress: Compression::Gzip, ..Default::default() };
        let options = RotateOptions::new(folder.path().join("log"), limits);
        Scene { log: RotatingFile::open(options).expect("a log"), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn reader(&self) -> LogReader {
        LogReader::open(self.path("log")).expect("a reader")
    }

    fn write(&mut self, text: &str) {
        assert_eq!(self.log.write_batch(text.as_bytes()).lost, 0);
    }

    fn rotate(&mut self) {
        assert!(self.log.rotate_now().expect("a rotation"));
    }

    fn compress(&self) {
        while let Some(job) = self.log.pending_compression().expect("a folder") {
            job.run().expect("a compressed backup");
        }
    }

    /// Lines 1 to 9, three in each of `log.2.gz`, `log.1` and `log`.
    fn nine_lines() -> Scene {
        let mut scene = Scene::new(10);
        for file in 0..3 {
            if file > 0 {
                scene.rotate();
            }
            let line = |n: i32| format!("{}\n", file * 3 + n);
            scene.write(&(1..4).map(line).collect::<String>());
        }
        scene.compress();
        assert!(scene.path("log.2.gz").exists() && !scene.path("log.2").exists());
        scene
    }
}

/// All there is now, lines as text and the rest as its name.
fn all(reader: &mut LogReader) -> Vec<String> {
    std::iter::from_fn(|| reader.next()).map(|found| shown(&found)).collect()
}

fn shown(found: &Found) -> String {
    match found {
        Found::Line(text) => String::from_utf8_lossy(text).into_owned(),
        Found::CutLine(text) => format!("cut after {}", text.len()),
        Found::Truncated => "(truncated)".to_owned(),
        Found::Gap => "(gap)".to_owned(),
        Found::Trouble(trouble) => format!("({trouble})"),
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(path).expect("a file");
    file.write_all(text.as_bytes()).expect("room");
}

#[test]
fn all_files_are_read_the_oldest_first() {
    let mut scene = Scene::nine_lines();
    let mut reader = scene.reader();
    assert_eq!(all(&mut reader), ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(reader.next(), None);
    scene.write("10\n");
    assert_eq!(all(&mut reader), ["10"]);
}

#[test]
fn the_last_lines_are_found_in_every_kind_of_file() {
    let mut scene = Scene::nine_lines();
    append(&scene.path("log"), "open");
    for wanted in 0..12_usize {
        let mut reader = scene.reader();
        reader.skip_to_last(wanted).expect("a place");
        let expected: Vec<_> = (1..10).rev().take(wanted).map(|n| n.to_string()).rev().collect();
        assert_eq!(all(&mut reader), expected, "{wanted}");
        assert_eq!(reader.take_open_end(), Some(Found::Line(b"open".to_vec())));
    }
    let mut reader = scene.reader();
    reader.skip_to_last(0).expect("a place");
    for _ in 0..3 {
        scene.rotate();
        scene.write("more\n");
    }
    assert_eq!(all(&mut reader), ["open", "more", "more", "more"]);
}

#[test]
fn rotations_between_two_looks_are_all_followed() {
    let mut scene = Scene::nine_lines();
    let mut reader = scene.reader();
    reader.skip_to_last(2).expect("a place");
    assert_eq!(reader.next(), Some(Found::Line(b"8".to_vec())));
    for n in 10..15 {
        scene.rotate();
        scene.write(&format!("{n}\n"));
    }
    scene.compress();
    assert!(!scene.path("log.5").exists(), "what is being read was compressed");
    assert_eq!(all(&mut reader), ["9", "10", "11", "12", "13", "14"]);
    scene.rotate();
    assert!(all(&mut reader).is_empty());
    scene.rotate_empty();
    scene.write("15\n");
    assert_eq!(all(&mut reader), ["15"]);
}

impl Scene {
    /// An empty log is not rotated.
    fn rotate_empty(&mut self) {
        assert!(!self.log.rotate_now().expect("a look"));
    }
}

#[test]
fn files_with_the_time_of_the_one_being_read_are_told_from_it_by_their_text() {
    let mut scene = Scene::new(10);
    let time = SystemTime::now() - Duration::from_secs(100);
    let mut reader = scene.reader();
    for n in 1..5 {
        scene.write(&format!("{n}\n"));
        fs::File::open(scene.path("log")).and_then(|it| it.set_modified(time)).expect("a time");
        if n == 2 {
            assert_eq!(all(&mut reader), ["1", "2"]);
        }
        scene.rotate();
    }
    scene.write("5\n");
    scene.compress();
    assert_eq!(all(&mut reader), ["3", "4", "5"]);
}

#[test]
fn what_is_deleted_before_it_was_read_is_told_of() {
    let mut scene = Scene::new(1);
    scene.write("1\n");
    let mut reader = scene.reader();
    assert_eq!(all(&mut reader), ["1"]);
    scene.write("2\n");
    for n in 3..6 {
        scene.rotate();
        scene.write(&format!("{n}\n"));
    }
    // The log that was held, and what is left.
    assert_eq!(all(&mut reader), ["2", "(gap)", "4", "5"]);
}

#[test]
fn a_log_moved_by_hand_is_read_to_its_end_and_on() {
    let mut scene = Scene::nine_lines();
    let mut reader = scene.reader();
    assert_eq!(all(&mut reader).len(), 9);
    let moved = scene.path("log-20261123");
    fs::rename(scene.path("log"), &moved).expect("a move");
    append(&moved, "into the old one\n");
    assert_eq!(all(&mut reader), ["into the old one"]);
    scene.log.reopen().expect("a new log");
    scene.write("into the new one\n");
    append(&moved, "late\n");
    assert_eq!(all(&mut reader), ["late", "into the new one"]);
    append(&moved, "later\n");
    assert_eq!(all(&mut reader), ["later"]);
}

#[test]
fn a_truncated_log_is_told_of_and_read_again() {
    let mut scene = Scene::new(1);
    scene.write("1\n2\n");
    let mut reader = scene.reader();
    assert_eq!(all(&mut reader), ["1", "2"]);
    fs::copy(scene.path("log"), scene.path("log.1")).expect("a copy");
    fs::File::create(scene.path("log")).expect("a truncation");
    scene.write("3\n");
    assert_eq!(all(&mut reader), ["(truncated)", "3"]);
}

#[test]
fn a_log_without_backups_is_followed_from_file_to_file() {
    let mut scene = Scene::new(0);
    let mut reader = scene.reader();
    scene.write("1\n");
    assert_eq!(all(&mut reader), ["1"]);
    scene.rotate();
    scene.write("2\n");
    assert_eq!(all(&mut reader), ["(gap)", "2"]);
}

#[test]
fn what_is_no_log_is_left_alone() {
    let mut scene = Scene::nine_lines();
    fs::rename(scene.path("log.1"), scene.path("log.3")).expect("a move");
    std::os::unix::fs::symlink("log", scene.path("log.1")).expect("a link");
    nix::unistd::mkfifo(&scene.path("log.4"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    fs::write(scene.path("log.5.gz"), "not compressed").expect("a file");
    fs::write(scene.path("log.6.zst"), "not compressed").expect("a file");
    fs::write(scene.path("log.06"), "another name").expect("a file");
    let found = all(&mut scene.reader());
    assert!(found[0].starts_with('(') && found[0].contains("log.6.zst"), "{found:?}");
    assert!(found[1].starts_with('(') && found[1].contains("log.5.gz"), "{found:?}");
    assert_eq!(found[2..], ["4", "5", "6", "1", "2", "3", "7", "8", "9"]);
    scene.write("10\n");
    fs::hard_link(scene.path("log"), scene.path("log.1.lnk")).expect("a link");
    let found = all(&mut scene.reader());
    assert!(found.last().expect("something").contains("hard links"), "{found:?}");
}

#[test]
fn several_logs_are_one_by_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, lines: &[&str]| {
        let path = folder.path().join(name);
        fs::write(&path, lines.join("\n") + "\n").expect("a file");
        LogReader::open(path).expect("a reader")
    };
    let text = |second: u32, text| format!("2026-11-23T08:00:{second:02}.000Z INFO {text}");
    let one = write("one", &["head", &text(1, "a"), "  trace", &text(4, "d"), &text(3, "late")]);
    let json = r#"{"time":"2026-11-23T08:00:02.000Z","message":"b"}"#;
    let two = write("two", &[&text(1, "same"), json, "", &text(5, "e")]);
    let mut merged = MergedReader::new([one, two]);
    let found: Vec<_> = std::iter::from_fn(|| merged.next())
        .map(|(number, found)| {
            let text = shown(&found);
            let end = text.rfind(' ').map_or(0, |at| at + 1);
            format!("{number} {}", &text[end..])
        })
        .collect();
    let b = format!("1 {json}");
    assert_eq!(found, ["0 head", "0 a", "0 trace", "1 same", &b, "1 ", "0 d", "0 late", "1 e"]);
    append(&folder.path().join("two"), "more\nopen");
    assert_eq!(merged.next(), Some((1, Found::Line(b"more".to_vec()))));
    assert_eq!(merged.next(), None);
    assert_eq!(merged.take_open_ends(), [(1, Found::Line(b"open".to_vec()))]);
}

#[test]
fn a_wait_ends_for_a_line_a_rotation_a_closed_pipe_and_its_time() {
    let mut scene = Scene::new(3);
    let mut reader = scene.reader();
    assert_eq!(reader.wait(LONG, None).expect("a wait"), Wake::Look, "the watch has just begun");
    assert_eq!(reader.wait(Duration::ZERO, None).expect("a wait"), Wake::Timeout);
    let start = monotonic();
    for n in 0..4 {
        scene.write(&format!("{n}\n"));
        assert_eq!(reader.wait(LONG, None).expect("a wait"), Wake::Look);
        assert_eq!(all(&mut reader), [n.to_string()]);
        scene.rotate();
        assert_eq!(reader.wait(LONG, None).expect("a wait"), Wake::Look);
        assert!(all(&mut reader).is_empty());
    }
    let (read, write) = io::pipe().expect("a pipe");
    assert_eq!(reader.wait(Duration::ZERO, Some(write.as_fd())).expect("a wait"), Wake::Timeout);
    drop(read);
    assert_eq!(reader.wait(LONG, Some(write.as_fd())).expect("a wait"), Wake::Closed);
    assert!(monotonic() - start < LONG, "nothing was told by the kernel");
}

#[test]
fn a_folder_deleted_and_made_again_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).expect("a folder");
    fs::write(logs.join("log"), "1\n").expect("a file");
    let mut reader = LogReader::open(logs.join("log")).expect("a reader");
    assert_eq!(all(&mut reader), ["1"]);
    fs::remove_dir_all(&logs).expect("a deletion");
    assert!(all(&mut reader).is_empty());
    fs::create_dir(&logs).expect("a folder");
    fs::write(logs.join("log"), "2\n").expect("a file");
    assert_eq!(all(&mut reader), ["(gap)", "2"]);
}
