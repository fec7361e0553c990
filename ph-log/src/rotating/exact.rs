//! Appending so that, after a kill at any moment, somebody else can tell what of it is in the log.
//!
//! Before a byte is written the caller is told the *spot*: which file, and where in it. It notes
//! that down where a kill cannot take it. Who goes on in its place looks at the spot: what stands
//! there is written, a line that was cut off is blanked as `append` does it, and the rest is to be
//! written anew. The file is found by what it is, whatever its name has become meanwhile.
//!
//! The exclusive lock is held from the look at the length to the end of the write, so nobody who
//! keeps to the lock comes in between. If it cannot be had (somebody is stopped while holding it),
//! the spot is only where the search begins.

use std::ffi::OsStr;
use std::io;

use memchr::memmem;

use super::append::Append;
use super::folder::FileId;
use super::ledger::Hold;
use super::turn::Cause;
use super::{Notice, RotatingFile};
use crate::output::monotonic;

/// How much of a file is searched for lines whose place is not certain.
const SEARCH_LIMIT: usize = 64 << 20;

/// Where lines are about to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spot {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) offset: u64,
    /// Whether they are just there, or somewhere behind.
    pub(crate) is_certain: bool,
}

/// What became of lines that were to be appended.
#[derive(Debug, Default)]
pub(crate) struct Exact {
    /// So many bytes of whole lines are in the log.
    pub(crate) written: usize,
    /// Why not all of them. Without it, the rest can be tried at once.
    pub(crate) failure: Option<io::Error>,
    pub(crate) is_rotated: bool,
    pub(crate) notice: Option<Notice>,
}

/// What of the lines of somebody who was killed is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// So many bytes of whole lines.
    Bytes(usize),
    /// The file cannot be found any more.
    Gone,
}

impl RotatingFile {
    /// Appends whole lines with one write. `note` is called with the spot before that; if it
    /// fails, nothing is written.
    pub(crate) fn write_exact(
        &mut self,
        lines: &[u8],
        note: &mut dyn FnMut(Spot) -> io::Result<()>,
    ) -> Exact {
        self.leave_parent();
        let is_exclusive = self.hold_for_exact();
        let mut is_named = self.find().is_some();
        if is_exclusive && monotonic() >= self.retry_at {
            let tended = self.tend_held(Cause::Batch(lines.len() as u64));
            match tended {
                Ok(false) if is_named => {}
                // There is another log now.
                Ok(_) => is_named = self.find().is_some(),
                Err(error) => self.fail("rotate the log", error),
            }
        }
        let (written, failure) = match self.put_exact(lines, (is_named, is_exclusive), note) {
            Ok(written) => (written, None),
            Err(error) => (0, Some(error)),
        };
        self.release();
        let is_rotated = std::mem::take(&mut self.account.is_rotated);
        let notice = self.account.notice(failure.is_some());
        Exact { written, failure, is_rotated, notice }
    }

    /// Whether the lock is held exclusively; if that cannot be had, it may be held shared.
    fn hold_for_exact(&mut self) -> bool {
        let is_exclusive = self.hold(Hold::Exclusive);
        if !is_exclusive {
            self.hold(Hold::Shared);
        }
        is_exclusive
    }

    fn put_exact(
        &mut self,
        lines: &[u8],
        (is_named, is_certain): (bool, bool),
        note: &mut dyn FnMut(Spot) -> io::Result<()>,
    ) -> io::Result<usize> {
        let deleted = || io::Error::other("the log was deleted");
        if !is_named && self.file.is_deleted() {
            return Err(deleted());
        }
        let FileId { device, inode } = self.file.id;
        note(Spot { device, inode, offset: self.file.length()?, is_certain })?;
        let written = self.file.put_once(lines)?;
        // Who is stopped here may be robbed of his lock; then his lines are in no log.
        if self.file.is_deleted() { Err(deleted()) } else { Ok(written) }
    }

    /// Finds out what of `lines` stands at a spot, and blanks what is only a part of a line.
    pub(crate) fn standing(&mut self, spot: Spot, lines: &[u8]) -> io::Result<Standing> {
        self.leave_parent();
        self.hold_for_exact();
        let standing = self.find_spot(spot).and_then(|file| match file {
            None => Ok(Standing::Gone),
            Some(mut file) => Ok(Standing::Bytes(judge(&mut file, spot, lines)?)),
        });
        self.release();
        standing
    }

    /// The bytes that stand at a spot, at most so many.
    pub(crate) fn text_at(&mut self, spot: Spot, length: usize) -> io::Result<Vec<u8>> {
        self.leave_parent();
        let Some(file) = self.find_spot(spot)? else { return Ok(Vec::new()) };
        let mut text = vec![0; length];
        let found = file.read_at(&mut text, spot.offset)?;
        text.truncate(found);
        Ok(text)
    }

    /// Opens the file of a spot, under the log's name or a backup's. The folder is listed only if it
    /// has not the log's: that takes a right that writing does not.
    fn find_spot(&self, spot: Spot) -> io::Result<Option<Append>> {
        let wanted = FileId { device: spot.device, inode: spot.inode };
        if let Some(file) = self.open_if(&self.names.log, wanted)? {
            return Ok(Some(file));
        }
        let mut backups = self.folder.backups(&self.names)?;
        backups.sort_by_key(|found| found.backup);
        let mut names =
            backups.iter().map(|found| self.names.backup(found.backup)).collect::<Vec<_>>();
        // A rotation may have come in between.
        names.push(self.names.log.clone());
        for name in names {
            if let Some(file) = self.open_if(&name, wanted)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Opens what has a name, if it is the file that is wanted.
    fn open_if(&self, name: &OsStr, wanted: FileId) -> io::Result<Option<Append>> {
        let found = self.folder.look(name)?;
        if !found.is_some_and(|stat| FileId::of(&stat) == wanted) {
            return Ok(None);
        }
        match self.folder.open_log(name, None) {
            Ok((file, id)) if id == wanted => Ok(Some(Append::new((file, id)))),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How many bytes of whole lines stand at the spot. A part of a line behind them becomes blank.
fn judge(file: &mut Append, spot: Spot, lines: &[u8]) -> io::Result<usize> {
    let offset = match spot.is_certain {
        true => Some(spot.offset),
        false => search(file, spot.offset, lines)?,
    };
    let Some(offset) = offset else { return Ok(0) };
    let mut found = vec![0; lines.len() + 1];
    let length = file.read_at(&mut found, offset)?;
    let found = &found[..length];
    let alike = found.iter().zip(lines).take_while(|(one, other)| one == other).count();
    let whole = memchr::memrchr(b'\n', &lines[..alike]).map_or(0, |at| at + 1);
    // Whoever came next has made the last byte of the part an end of line.
    let torn = match found.get(alike) {
        None => alike - whole,
        Some(b'\n') if alike > whole => alike + 1 - whole,
        // These are somebody else's lines, which begin as ours would have.
        Some(_) => 0,
    };
    if torn > 0 {
        file.blank(offset + whole as u64, torn);
    }
    Ok(whole)
}

/// Where the first of the lines stands, if it does.
fn search(file: &Append, from: u64, lines: &[u8]) -> io::Result<Option<u64>> {
    let length = file.length()?.saturating_sub(from);
    let mut text = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(SEARCH_LIMIT)];
    let found = file.read_at(&mut text, from)?;
    let first = memchr::memchr(b'\n', lines).map_or(lines, |at| &lines[..=at]);
    let mut places = memmem::find_iter(&text[..found], first);
    let at = places.find(|&at| at == 0 || text[at - 1] == b'\n');
    Ok(at.map(|at| from + at as u64))
}

#[cfg(test)]
#[path = "exact/tests.rs"]
mod tests;
