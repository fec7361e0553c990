//! What is found where somebody was killed while writing.

use std::fs;
use std::path::Path;

use super::*;
use crate::rotate::RotateLimits;
use crate::rotating::RotateOptions;

fn open(path: &Path) -> RotatingFile {
    RotatingFile::open(RotateOptions::new(path, RotateLimits::default())).expect("a log")
}

/// A log with an old line, the spot of three lines behind it, and the file as it is changed by
/// `change` instead of by the write.
fn judged(change: impl FnOnce(&Path)) -> (Standing, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    fs::write(&path, "old\n").expect("a file");
    let mut log = open(&path);
    let mut spot = None;
    let exact = log.write_exact(b"one\ntwo\nthree\n", &mut |found| {
        spot = Some(found);
        Err(io::Error::other("only asked"))
    });
    assert_eq!(exact.written, 0);
    assert!(exact.failure.is_some());
    let spot = spot.expect("a spot");
    assert!(spot.is_certain && spot.offset == 4, "{spot:?}");
    change(&path);
    let standing = log.standing(spot, b"one\ntwo\nthree\n").expect("an answer");
    drop(log);
    (standing, fs::read_to_string(&path).unwrap_or_default())
}

fn append(path: &Path, text: &str) {
    let old = fs::read_to_string(path).expect("a log");
    fs::write(path, old + text).expect("room");
}

#[test]
fn what_stands_counts_and_what_is_torn_becomes_blank() {
    for (text, bytes, after) in [
        ("", 0, ""),
        ("one\ntwo\nthree\n", 14, "one\ntwo\nthree\n"),
        ("one\ntwo\nthree\nother\n", 14, "one\ntwo\nthree\nother\n"),
        ("one\ntwo\n", 8, "one\ntwo\n"),
        ("one\ntwo\nthr", 8, "one\ntwo\n  \n"),
        ("t", 0, "t"),
        ("on", 0, " \n"),
        // The next writer has closed what was torn.
        ("one\nt\nother\n", 4, "one\n \nother\n"),
        ("one\n\nother\n", 4, "one\n\nother\n"),
        // Somebody else's line that begins as ours would.
        ("onerous\n", 0, "onerous\n"),
    ] {
        let (standing, log) = judged(|path| append(path, text));
        assert_eq!(standing, Standing::Bytes(bytes), "{text:?}");
        assert_eq!(log, format!("old\n{after}"), "{text:?}");
    }
}

#[test]
fn the_file_is_found_under_a_backups_name_and_missed_if_it_is_gone() {
    let (standing, _) = judged(|path| {
        append(path, "one\n");
        let mut log = open(path);
        assert!(log.rotate_now().expect("a rotation"));
        assert!(!log.rotate_now().expect("nothing to rotate"));
        assert_eq!(log.write_batch(b"new\n").lost, 0);
        assert!(log.rotate_now().expect("a rotation"));
    });
    assert_eq!(standing, Standing::Bytes(4));
    let (standing, log) = judged(|path| {
        fs::remove_file(path).expect("a file");
        fs::write(path, "another file\n").expect("a file");
    });
    assert_eq!((standing, log.as_str()), (Standing::Gone, "another file\n"));
}

#[test]
fn lines_whose_place_is_not_certain_are_searched_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    fs::write(&path, "old\n").expect("a file");
    let mut log = open(&path);
    let holder = fs::File::open(folder.path().join(".log.lock")).expect("the companion");
    holder.lock_shared().expect("the lock");
    let mut spot = None;
    let exact = log.write_exact(b"one\ntwo\n", &mut |found| {
        spot = Some(found);
        append(&path, "not one\none\ntw");
        Err(io::Error::other("killed"))
    });
    assert_eq!(exact.written, 0);
    let spot = spot.expect("a spot");
    assert!(!spot.is_certain);
    assert_eq!(log.standing(spot, b"one\ntwo\n").expect("an answer"), Standing::Bytes(4));
    assert_eq!(fs::read_to_string(&path).expect("a log"), "old\nnot one\none\n \n");
}
