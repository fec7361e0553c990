//! One open log and the writes to it, none of which leaves half a line before another line.
//!
//! A write can end early: the disk is full, a limit is reached, or the process is killed in it
//! (Linux looks for SIGKILL at every page). Meanwhile others append. Nothing is cut off again,
//! because that could take another's line; the bytes are mended where they are:
//!
//! * Who wrote only a part of a line turns that part into blanks and an end of line, then writes
//!   the line anew, or counts it as lost.
//! * Who finds that the byte before its own lines is no end of line makes it one. So the lines
//!   after a writer that was killed are whole; its own last part stays, on a line of its own.
//!
//! A program that appends to the log by itself and leaves a line open may therefore lose the last
//! byte of it.

use std::fs::File;
use std::io::{self, Seek as _};
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FileStat, fstat};
use nix::unistd::write;

use super::folder::FileId;
use super::size_limit;

/// The bytes that are written at once. Each process exceeds
/// [`RotateLimits::max_size`](crate::RotateLimits::max_size) by no more than that. A longer line is
/// written at once all the same.
pub const BATCH_MAX: usize = 64 << 10;

/// How often the rest of a short write is tried.
const TRIES: u32 = 4;

/// An open log.
#[derive(Debug)]
pub(super) struct Append {
    file: File,
    pub(super) id: FileId,
    /// No other process shares the position: not so after a fork, until the log is opened again.
    pub(super) is_own: bool,
    /// The end of the last lines written here, which are whole.
    end: u64,
    /// The process may not write files of any size (`ulimit -f`).
    is_limited: bool,
}

impl Append {
    pub(super) fn new((file, id): (File, FileId)) -> Append {
        Append { file, id, is_own: true, end: 0, is_limited: size_limit::is_there() }
    }

    /// Whether the file has no name any more.
    pub(super) fn is_deleted(&self) -> bool {
        fstat(&self.file).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Writes whole lines, or says how many bytes of them are in no file, and why.
    pub(super) fn put(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut rest = lines;
        let mut failure = io::Error::from(Errno::EIO);
        for _ in 0..TRIES {
            match self.write(rest) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    failure = error;
                    break;
                }
                Ok(written) => {
                    let whole = self.settle(rest, written);
                    rest = &rest[whole..];
                    if rest.is_empty() {
                        return Ok(());
                    }
                }
            }
        }
        Err((rest.len(), failure))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let write = || Ok(write(&self.file, bytes)?);
        if self.is_limited { size_limit::guard_always(write) } else { write() }
    }

    /// Writes once. Says how many bytes of whole lines are to stay; of a line that was cut off
    /// nothing does.
    pub(super) fn put_once(&mut self, lines: &[u8]) -> io::Result<usize> {
        loop {
            match self.write(lines) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(written) => return Ok(self.settle(lines, written)),
            }
        }
    }

    /// The length of the file now.
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(u64::try_from(fstat(&self.file)?.st_size).unwrap_or(0))
    }

    /// What stands from there on, as far as the file and the buffer go.
    pub(super) fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], at + done as u64) {
                Ok(0) => break,
                Ok(some) => done += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Mends what a write of so many bytes left around it, and says how many bytes are to stay.
    fn settle(&mut self, lines: &[u8], written: usize) -> usize {
        let bytes = &lines[..written];
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        // In append mode the position is the end of what was written last by this description.
        let Ok(end) = self.file.stream_position() else { return whole };
        let Some(start) = end.checked_sub(written as u64) else { return whole };
        if !self.is_own {
            return whole;
        }
        let mut before = [b'\n'];
        let is_known = start == 0 || start == self.end;
        // A log that may not be read is taken for whole.
        if !is_known && self.file.read_exact_at(&mut before, start - 1).is_ok() && before != *b"\n"
        {
            self.blank(start - 1, 1);
        }
        match whole < written {
            true => self.blank(start + whole as u64, written - whole),
            false => self.end = end,
        }
        whole
    }

    /// Replaces so many bytes by an empty line.
    pub(super) fn blank(&mut self, at: u64, length: usize) {
        let end = at + length as u64;
        let is_there = |stat: FileStat| u64::try_from(stat.st_size).is_ok_and(|size| size >= end);
        if !fstat(&self.file).is_ok_and(is_there) {
            // Somebody has truncated the log since.
            return;
        }
        let mut blanks = vec![b' '; length];
        if let Some(last) = blanks.last_mut() {
            *last = b'\n';
        }
        // Append mode would make Linux append even here. The description is this process's own.
        if fcntl(&self.file, FcntlArg::F_SETFL(OFlag::empty())).is_ok() {
            // The bytes have their place on the disk already; if they cannot be replaced all the
            // same, nothing better can be done.
            drop(self.file.write_all_at(&blanks, at));
            let _ = fcntl(&self.file, FcntlArg::F_SETFL(OFlag::O_APPEND));
        }
    }
}

/// Bytes up to the end of the last line that fits into a batch; at least one line.
pub(super) fn piece_length(lines: &[u8]) -> usize {
    let is_end = |byte: &u8| *byte == b'\n';
    if lines.len() <= BATCH_MAX {
        return lines.len();
    }
    let (within, beyond) = lines.split_at(BATCH_MAX);
    if let Some(end) = within.iter().rposition(is_end) {
        return end + 1;
    }
    beyond.iter().position(is_end).map_or(lines.len(), |end| BATCH_MAX + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotating::folder::Folder;
    use std::fs;

    #[test]
    fn an_open_end_before_a_write_is_closed_and_a_whole_one_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        for (before, after) in [
            ("", "new\n"),
            ("old\n", "old\nnew\n"),
            ("old\nhalf a li", "old\nhalf a l\nnew\n"),
            ("h", "\nnew\n"),
        ] {
            fs::write(&path, before).expect("a file");
            let held = Folder::of(&path).expect("a folder");
            let opened = held.open_log("log".as_ref(), None).expect("a log");
            Append::new(opened).put(b"new\n").expect("room");
            assert_eq!(fs::read_to_string(&path).expect("the log"), after);
        }
    }

    #[test]
    fn what_was_half_written_becomes_blank_where_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        fs::write(&path, "old\n").expect("a file");
        let held = Folder::of(&path).expect("a folder");
        let mut log = Append::new(held.open_log("log".as_ref(), None).expect("a log"));
        assert_eq!(write(&log.file, b"one\ntw"), Ok(6));
        assert_eq!(log.settle(b"one\ntwo\n", 6), 4);
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut other| io::Write::write_all(&mut other, b"other\n"))
            .expect("room");
        assert_eq!(fs::read_to_string(&path).expect("the log"), "old\none\n \nother\n");
        log.put(b"two\n").expect("room");
        assert_eq!(fs::read_to_string(&path).expect("the log"), "old\none\n \nother\ntwo\n");
    }

    #[test]
    fn pieces_are_whole_lines() {
        let text = [b"a\n".repeat(BATCH_MAX / 2), b"b\n".to_vec()].concat();
        assert_eq!(piece_length(&text), BATCH_MAX);
        let text = [b"a\n".to_vec(), vec![b'x'; BATCH_MAX], b"\nb\n".to_vec()].concat();
        assert_eq!(piece_length(&text), 2);
        assert_eq!(piece_length(&text[2..]), BATCH_MAX + 1);
        assert_eq!(piece_length(b"open"), 4);
    }
}
