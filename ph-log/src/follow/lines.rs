//! One file of a log, cut into lines.
//!
//! Invariants:
//!
//! * Of a line that is not whole yet nothing is kept: writers mend such lines where they stand, so
//!   it is read again from its beginning.
//! * No more than [`LINE_MAX`] bytes and one block are in memory. A longer line is cut, and its
//!   rest is passed over.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use super::chain::Member;
use crate::rotating::packing::unpack;

/// The longest line that is shown whole, in bytes.
pub(super) const LINE_MAX: usize = 1 << 20;

const BLOCK: usize = 64 << 10;

/// What a file gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line without its end, and whether it was cut.
    Line(Vec<u8>, bool),
    /// Nothing more for now.
    End,
    /// The file is shorter than what was read of it. It is read again from its beginning.
    Truncated,
}

/// An open file of the log.
pub(super) struct Lines {
    file: File,
    /// The same as text, if it is compressed.
    unpacked: Option<Box<dyn Read + Send>>,
    /// Where in the file the buffer begins. Means nothing if it is compressed.
    offset: u64,
    buffer: Vec<u8>,
    /// So many bytes of the buffer are done with.
    taken: usize,
    /// So many bytes hold no end of line; never less than `taken`.
    scanned: usize,
    /// The beginning of this line was shown already.
    is_in_long_line: bool,
}

impl Lines {
    pub(super) fn new(file: File, member: &Member) -> io::Result<Lines> {
        let unpacked = match member.packing() {
            None => None,
            packing => Some(unpack(file.try_clone()?, packing)?),
        };
        Ok(Lines {
            file,
            unpacked,
            offset: 0,
            buffer: Vec::new(),
            taken: 0,
            scanned: 0,
            is_in_long_line: false,
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Goes on at a place where a line begins.
    pub(super) fn seek(&mut self, offset: u64) {
        self.forget();
        self.offset = offset;
    }

    /// The next line that is whole.
    pub(super) fn next(&mut self) -> io::Result<Piece> {
        loop {
            let end = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n');
            if let Some(end) = end.map(|end| self.scanned + end) {
                let shown = end.min(self.taken + LINE_MAX);
                if let Some(line) = self.take(shown, end + 1, shown < end) {
                    return Ok(line);
                }
                continue;
            }
            self.scanned = self.buffer.len();
            if self.scanned - self.taken > LINE_MAX {
                let long = self.take(self.taken + LINE_MAX, self.scanned, true);
                self.is_in_long_line = true;
                if let Some(line) = long {
                    return Ok(line);
                }
            }
            if !self.fill()? {
                return self.end();
            }
        }
    }

    /// What stands behind the last line, as a line of its own. To be asked for once nothing more
    /// is to be expected.
    pub(super) fn take_open_end(&mut self) -> io::Result<Option<Vec<u8>>> {
        while self.buffer.len() - self.taken < LINE_MAX && self.fill()? {}
        if self.buffer[self.taken..].contains(&b'\n') {
            // More was written since the last look.
            return Ok(None);
        }
        self.scanned = self.buffer.len();
        let end = self.buffer.len().min(self.taken + LINE_MAX);
        let open = self.take(end, self.buffer.len(), false);
        Ok(match open {
            Some(Piece::Line(text, _)) if !text.is_empty() => Some(text),
            Some(_) | None => None,
        })
    }

    /// Takes the bytes up to `end` as a line and goes on at `next`; nothing if they are the rest
    /// of a line that was cut.
    fn take(&mut self, end: usize, next: usize, is_cut: bool) -> Option<Piece> {
        let is_rest = std::mem::replace(&mut self.is_in_long_line, false);
        let line = (!is_rest).then(|| Piece::Line(self.buffer[self.taken..end].to_vec(), is_cut));
        self.taken = next;
        self.scanned = next;
        line
    }

    /// Reads a block more; says whether there was any.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.taken);
        self.offset += self.taken as u64;
        self.scanned -= self.taken;
        self.taken = 0;
        let length = self.buffer.len();
        self.buffer.resize(length + BLOCK, 0);
        let room = &mut self.buffer[length..];
        let read = loop {
            let read = match &mut self.unpacked {
                Some(unpacked) => unpacked.read(room),
                None => self.file.read_at(room, self.offset + length as u64),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(length + read.as_ref().map_or(0, |read| *read));
        Ok(read? > 0)
    }

    fn end(&mut self) -> io::Result<Piece> {
        if self.unpacked.is_some() {
            return Ok(Piece::End);
        }
        let is_shorter = self.file.metadata()?.len() < self.offset + self.buffer.len() as u64;
        self.forget();
        if is_shorter {
            self.offset = 0;
            self.is_in_long_line = false;
            return Ok(Piece::Truncated);
        }
        Ok(Piece::End)
    }

    fn forget(&mut self) {
        self.buffer.clear();
        self.taken = 0;
        self.scanned = 0;
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("file", &self.file).field("offset", &self.offset).finish()
    }
}

/// Where the last `wanted` lines that are whole begin in an uncompressed file, or how many fewer
/// it has.
pub(super) fn find_last(file: &File, wanted: usize) -> io::Result<Result<u64, usize>> {
    let mut block = vec![0; BLOCK];
    let mut at = file.metadata()?.len();
    let mut ends = 0;
    while at > 0 {
        let length = usize::try_from(at).unwrap_or(usize::MAX).min(BLOCK);
        at -= length as u64;
        let block = &mut block[..length];
        match file.read_exact_at(block, at) {
            // It was truncated meanwhile.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Ok(0)),
            read => read?,
        }
        for place in (0..length).rev().filter(|&place| block[place] == b'\n') {
            // The end of the line before the first one wanted.
            if ends == wanted {
                return Ok(Ok(at + place as u64 + 1));
            }
            ends += 1;
        }
    }
    Ok(if ends >= wanted { Ok(0) } else { Err(wanted - ends) })
}

#[cfg(test)]
#[path = "lines/tests.rs"]
mod tests;
