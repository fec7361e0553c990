//! Lines at every border of a block, too long ones, and ends that are looked for from behind.

use std::io::Write as _;
use std::time::Duration;

use super::*;
use crate::follow::chain::Chain;

/// A file of this text, as a reader has it, and its path to change it by.
fn lines_of(text: &[u8]) -> (tempfile::TempDir, Lines) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    std::fs::write(&path, text).expect("a file");
    let chain = Chain::of(&path).expect("a folder");
    let member = chain.log().expect("a look").expect("a log");
    let file = chain.open(&member).expect("an open").expect("a log");
    (folder, Lines::new(file, &member).expect("lines"))
}

fn all(lines: &mut Lines) -> Vec<(Vec<u8>, bool)> {
    let mut found = Vec::new();
    while let Piece::Line(text, is_cut) = lines.next().expect("a read") {
        found.push((text, is_cut));
    }
    found
}

fn append(folder: &tempfile::TempDir, text: &[u8]) {
    let path = folder.path().join("log");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).expect("the log");
    file.write_all(text).expect("room");
}

#[test]
fn lines_are_whole_wherever_a_block_ends() {
    for length in BLOCK - 3..BLOCK + 3 {
        let text = [vec![b'x'; length], b"\n\n\x00\xff\r\nlast".to_vec()].concat();
        let (folder, mut lines) = lines_of(&text);
        let expected = vec![vec![b'x'; length], vec![], b"\x00\xff\r".to_vec()];
        let found = all(&mut lines);
        assert_eq!(found, expected.into_iter().map(|text| (text, false)).collect::<Vec<_>>());
        assert_eq!(lines.next().expect("a read"), Piece::End);
        append(&folder, b" one\n");
        assert_eq!(all(&mut lines), [(b"last one".to_vec(), false)]);
    }
}

#[test]
fn an_open_end_is_shown_as_it_is_when_it_is_closed() {
    let (folder, mut lines) = lines_of(b"one\nhalf");
    assert_eq!(all(&mut lines).len(), 1);
    // A writer mends what was torn.
    let path = folder.path().join("log");
    std::fs::write(path, b"one\n   \ntwo\n").expect("the log");
    let shown: Vec<_> = all(&mut lines).into_iter().map(|(text, _)| text).collect();
    assert_eq!(shown, [b"   ", b"two"]);
}

#[test]
fn an_open_end_can_be_asked_for() {
    let (folder, mut lines) = lines_of(b"one\nhalf");
    assert_eq!(all(&mut lines).len(), 1);
    assert_eq!(lines.take_open_end().expect("a read"), Some(b"half".to_vec()));
    assert_eq!(lines.take_open_end().expect("a read"), None);
    append(&folder, b" rest\nnext\nopen");
    let shown: Vec<_> = all(&mut lines).into_iter().map(|(text, _)| text).collect();
    assert_eq!(shown, [b" rest".to_vec(), b"next".to_vec()]);
    append(&folder, b"\n");
    assert_eq!(lines.take_open_end().expect("a read"), None, "it is a whole line by now");
    assert_eq!(all(&mut lines), [(b"open".to_vec(), false)]);
}

#[test]
fn a_long_line_is_cut_and_its_rest_passed_over() {
    let long = vec![b'x'; LINE_MAX];
    let text = [&long[..], b"\n", &long, b"y\nnext\n", &long, &long, &long, b"\nend\n"].concat();
    let (_folder, mut lines) = lines_of(&text);
    let found = all(&mut lines);
    let shapes: Vec<_> = found.iter().map(|(text, is_cut)| (text.len(), *is_cut)).collect();
    let (whole, cut) = ((LINE_MAX, false), (LINE_MAX, true));
    assert_eq!(shapes, [whole, cut, (4, false), cut, (3, false)]);
    assert!(lines.buffer.capacity() <= 4 * LINE_MAX, "{}", lines.buffer.capacity());
}

#[test]
fn what_got_shorter_is_read_again() {
    let (folder, mut lines) = lines_of(b"one\ntwo\nhal");
    assert_eq!(all(&mut lines).len(), 2);
    File::create(folder.path().join("log")).expect("a truncation");
    append(&folder, b"new\n");
    assert_eq!(lines.next().expect("a read"), Piece::Truncated);
    assert_eq!(all(&mut lines), [(b"new".to_vec(), false)]);
}

#[test]
fn the_last_lines_are_found_from_behind() {
    let line = |n: usize| format!("{n:05} {}\n", "x".repeat(n * 37 % 3000));
    for end in ["", "open"] {
        let text: String = (0..500).map(line).collect::<String>() + end;
        let (_folder, lines) = lines_of(text.as_bytes());
        for wanted in [0, 1, 2, 100, 499, 500] {
            let at = find_last(lines.file(), wanted).expect("a read").expect("enough");
            let rest = &text[usize::try_from(at).expect("small")..];
            assert_eq!(rest.matches('\n').count(), wanted);
            assert!(wanted == 0 || rest.starts_with(&format!("{:05} ", 500 - wanted)));
        }
        assert_eq!(find_last(lines.file(), 510).expect("a read"), Err(10));
    }
}

#[test]
fn a_member_keeps_the_time_of_its_last_line() {
    let (folder, _) = lines_of(b"one\n");
    let chain = Chain::of(&folder.path().join("log")).expect("a folder");
    let log = chain.log().expect("a look").expect("a log");
    assert!(log.modified > Duration::from_secs(1_600_000_000));
}
