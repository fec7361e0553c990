//! Reading a log while its writers go on: over rotations, compression and deletion, each line once
//! and in its order.
//!
//! ```text
//! app.log.3.gz  app.log.2  app.log.1  app.log
//! read first ─────────────────────────────▶ and then what is appended, across the next rotation
//! ```
//!
//! * `chain`: which files there are and which comes after which, while they move.
//! * `lines`: one file, cut into lines.
//! * `watch`: waiting for the kernel to tell of a change.
//! * `merge`: several logs as one, by time.
//!
//! What always holds:
//!
//! * A file stays open until it was read to its end and another one comes after it; so a rename, a
//!   deletion or a compression of what is being read loses nothing. The last two of these files
//!   are looked at further on, for a writer that has not followed yet.
//! * No lock of the writers is taken, nothing is written, and no link, FIFO or device is opened:
//!   reading somebody else's log is safe. Memory is bounded by the longest line shown, 1 MiB.
//! * A line is shown when it is whole. What a dead writer has left open is shown when its file is
//!   over, or by [`LogReader::take_open_end`].
//! * A log that is emptied in its place (`copytruncate`) is told as [`Found::Truncated`]; what was
//!   written between the last look and that is lost to the reader, as it is to `copytruncate`.

mod chain;
mod lines;
mod merge;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use merge::{MergedReader, stamp};
pub use watch::Wake;

use chain::{Chain, Member, Next, is_deleted};
use lines::{Lines, Piece, find_last};
use watch::{Watch, wait};

/// How many files are looked at further on after the one that followed them.
const TRAILING: usize = 2;

/// How often a file is looked for anew because it was renamed before it could be opened.
const ROUNDS: u32 = 50;

/// How many files without a line are passed over at once.
const EMPTY_LIMIT: u32 = 10_000;

/// How many different troubles are remembered as told.
const TOLD_LIMIT: usize = 100;

/// What a reader comes upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// One line, without its end. Any bytes but `\n` may be in it.
    Line(Vec<u8>),
    /// The beginning of a line longer than 1 MiB.
    CutLine(Vec<u8>),
    /// The log was emptied in its place. What follows is from its beginning.
    Truncated,
    /// The file that was read last was deleted, and so may others have been before they were read.
    Gap,
    /// A file cannot be read, and why. The others are read all the same.
    Trouble(String),
}

/// The file that is being read.
#[derive(Debug)]
struct Cursor {
    member: Member,
    /// None if it cannot be opened.
    lines: Option<Lines>,
}

/// Reads a log with its backups.
///
/// # Examples
///
/// ```
/// use ph_log::{Found, LogReader, RotateLimits, RotateOptions, RotatingFile};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.log");
///
/// let mut log = RotatingFile::open(RotateOptions::new(&path, RotateLimits::default()))?;
/// log.write_batch(b"one\n");
/// log.rotate_now()?;
/// log.write_batch(b"two\n");
///
/// let mut reader = LogReader::open(&path)?;
/// assert_eq!(reader.next(), Some(Found::Line(b"one".to_vec())));
/// assert_eq!(reader.next(), Some(Found::Line(b"two".to_vec())));
/// assert_eq!(reader.next(), None);
/// log.write_batch(b"three\n");
/// assert_eq!(reader.next(), Some(Found::Line(b"three".to_vec())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    chain: Chain,
    cursor: Option<Cursor>,
    /// What comes after the cursor, which is to be read to its end once more before.
    next: Option<Cursor>,
    trailing: VecDeque<Lines>,
    /// To be given out before anything else.
    found: VecDeque<Found>,
    told: Vec<String>,
    watch: Option<Watch>,
}

impl LogReader {
    /// A reader of the log of this path and its backups, at the oldest line. Neither has to be
    /// there yet; see [`exists`](LogReader::exists).
    ///
    /// # Errors
    ///
    /// The folder cannot be opened, or the path is none of a file.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<LogReader> {
        let path = path.into();
        Ok(LogReader {
            chain: Chain::of(&path)?,
            path,
            cursor: None,
            next: None,
            trailing: VecDeque::new(),
            found: VecDeque::new(),
            told: Vec::new(),
            watch: None,
        })
    }

    /// The log as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is anything to read: the log or a backup.
    ///
    /// # Errors
    ///
    /// The folder cannot be looked at.
    pub fn exists(&self) -> io::Result<bool> {
        Ok(!self.chain.snapshot()?.is_empty())
    }

    /// Goes to the last `wanted` lines; with 0, behind the last line there is now. To be called
    /// before anything is read. The log is read backwards from its end; a compressed backup, if it
    /// comes to that, from its beginning.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn skip_to_last(&mut self, wanted: usize) -> io::Result<()> {
        for _ in 0..ROUNDS {
            let members = self.chain.snapshot()?;
            if let Some((place, cursor)) = self.find_last(&members, wanted)? {
                self.start(&members[..place], Some(cursor));
                return Ok(());
            }
            if members.is_empty() {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "it is rotated faster than it can be read"))
    }

    /// Passes over the backups that were last written to before a moment. To be called before
    /// anything is read.
    ///
    /// # Errors
    ///
    /// The folder cannot be listed.
    pub fn skip_older(&mut self, than: SystemTime) -> io::Result<()> {
        let than = than.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let members = self.chain.snapshot()?;
        let is_old = |member: &Member| member.backup.is_some() && member.modified < than;
        let first = members.iter().position(|member| !is_old(member)).unwrap_or(members.len());
        self.start(&members[..first], None);
        Ok(())
    }

    /// What comes next, or nothing for now: see [`wait`](LogReader::wait).
    #[expect(clippy::should_implement_trait, reason = "an end here is not for good")]
    pub fn next(&mut self) -> Option<Found> {
        for _ in 0..EMPTY_LIMIT {
            if let Some(found) = self.found.pop_front() {
                return Some(found);
            }
            if let Some(found) = self.read() {
                return Some(found);
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return self.found.pop_front(),
                Err(error) => {
                    self.tell(&format!("{}: {error}", self.path.display()));
                    return self.found.pop_front();
                }
            }
        }
        self.found.pop_front()
    }

    /// The last line if it is not whole, for a reader that does not go on. Its rest, if it comes,
    /// will be a line of its own.
    pub fn take_open_end(&mut self) -> Option<Found> {
        let lines = self.cursor.as_mut()?.lines.as_mut()?;
        // What cannot be read now was told of before.
        lines.take_open_end().ok()?.map(Found::Line)
    }

    /// Waits until [`next`](LogReader::next) may have something, but no longer than `limit`. With
    /// `output`, the wait also ends when whoever reads from that pipe is gone.
    ///
    /// # Errors
    ///
    /// The system refuses to wait.
    pub fn wait(&mut self, limit: Duration, output: Option<BorrowedFd<'_>>) -> io::Result<Wake> {
        if self.arm() {
            return Ok(Wake::Look);
        }
        wait(&self.watch.iter().collect::<Vec<_>>(), limit, output)
    }

    /// Starts the watch; says whether that was due, in which case another look is.
    fn arm(&mut self) -> bool {
        let is_due = self.watch.is_none();
        if is_due {
            self.watch = Some(Watch::on(&self.chain.folder));
        }
        is_due
    }

    fn start(&mut self, passed: &[Member], cursor: Option<Cursor>) {
        passed.iter().for_each(|member| self.chain.pass(*member));
        self.cursor = cursor;
    }

    /// Where the last lines begin; nothing if a file was renamed meanwhile.
    fn find_last(
        &mut self,
        members: &[Member],
        mut wanted: usize,
    ) -> io::Result<Option<(usize, Cursor)>> {
        for (place, member) in members.iter().enumerate().rev() {
            let file = match self.chain.open(member) {
                Ok(Some(file)) => file,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.tell_of(member, &error);
                    if place == 0 {
                        return Ok(Some((0, Cursor { member: *member, lines: None })));
                    }
                    continue;
                }
            };
            let mut lines = Lines::new(file, member)?;
            match self.skip_in(&mut lines, member, wanted)? {
                Err(missing) if place > 0 => wanted = missing,
                Ok(()) | Err(_) => {
                    return Ok(Some((place, Cursor { member: *member, lines: Some(lines) })));
                }
            }
        }
        Ok(None)
    }

    /// Goes to the last lines of one file, or says how many fewer it has.
    fn skip_in(
        &mut self,
        lines: &mut Lines,
        member: &Member,
        wanted: usize,
    ) -> io::Result<Result<(), usize>> {
        if !member.is_packed() {
            return Ok(match find_last(lines.file(), wanted)? {
                Ok(offset) => {
                    lines.seek(offset);
                    Ok(())
                }
                Err(missing) => Err(missing),
            });
        }
        let count = |lines: &mut Lines| {
            let mut count = 0;
            while let Ok(Piece::Line(..)) = lines.next() {
                count += 1;
            }
            count
        };
        let all = count(lines);
        let Some(file) = self.chain.open(member)? else { return Ok(Err(wanted)) };
        *lines = Lines::new(file, member)?;
        for _ in wanted..all {
            lines.next()?;
        }
        Ok(if all >= wanted { Ok(()) } else { Err(wanted - all) })
    }

    /// A line of the file at hand, or of one that was read before.
    fn read(&mut self) -> Option<Found> {
        if let Some(cursor) = &mut self.cursor
            && let Some(lines) = &mut cursor.lines
        {
            match lines.next() {
                Ok(Piece::Line(text, false)) => return Some(Found::Line(text)),
                Ok(Piece::Line(text, true)) => return Some(Found::CutLine(text)),
                Ok(Piece::Truncated) => return Some(Found::Truncated),
                Ok(Piece::End) => {}
                Err(error) => {
                    let member = cursor.member;
                    cursor.lines = None;
                    self.tell_of(&member, &error);
                }
            }
        }
        let mut late = None;
        self.trailing.retain_mut(|lines| {
            if late.is_some() {
                return true;
            }
            let is_last_look = is_deleted(lines.file());
            match lines.next() {
                Ok(Piece::Line(text, is_cut)) => {
                    late = Some(if is_cut { Found::CutLine(text) } else { Found::Line(text) });
                    true
                }
                Ok(Piece::End) => !is_last_look,
                Ok(Piece::Truncated) | Err(_) => false,
            }
        });
        late
    }

    /// Goes on to the next file, if there is one; says whether there is anything to read now.
    fn advance(&mut self) -> io::Result<bool> {
        if let Some(next) = self.next.take() {
            // The file before it was read to its end once more after this one was there.
            self.leave();
            self.cursor = Some(next);
            return Ok(true);
        }
        let next = match &self.cursor {
            None => self.chain.oldest_new(None)?,
            Some(cursor) => {
                let log = self.chain.log()?;
                if log.is_some_and(|log| log.id == cursor.member.id) {
                    return Ok(self.try_again());
                }
                if log.is_none() && self.chain.folder.reopen_if_deleted().unwrap_or(false) {
                    self.watch = None;
                }
                let held = cursor.lines.as_ref().map(Lines::file);
                self.chain.after(&cursor.member, held)?
            }
        };
        let (member, is_after_gap) = match next {
            Next::Nothing => return Ok(false),
            Next::File(member) => (member, false),
            Next::AfterGap(member) => (member, true),
        };
        let opened = match self.chain.open(&member) {
            // It has another name by now.
            Ok(None) => return Ok(true),
            Ok(Some(file)) => Lines::new(file, &member).map(Some),
            Err(error) => Err(error),
        };
        if is_after_gap {
            self.found.push_back(Found::Gap);
        }
        let lines = opened.unwrap_or_else(|error| {
            self.tell_of(&member, &error);
            None
        });
        self.next = Some(Cursor { member, lines });
        Ok(true)
    }

    /// Tries to open the log that could not be opened; says whether it could.
    fn try_again(&mut self) -> bool {
        let Some(cursor) = self.cursor.as_mut().filter(|cursor| cursor.lines.is_none()) else {
            return false;
        };
        if let Ok(Some(file)) = self.chain.open(&cursor.member) {
            cursor.lines = Lines::new(file, &cursor.member).ok();
        }
        cursor.lines.is_some()
    }

    /// Puts the file at hand among those that were read.
    fn leave(&mut self) {
        let Some(cursor) = self.cursor.take() else { return };
        let Some(mut lines) = cursor.lines else { return self.chain.pass(cursor.member) };
        if let Ok(Some(open)) = lines.take_open_end() {
            self.found.push_back(Found::Line(open));
        }
        self.chain.pass(cursor.member.as_of_now(lines.file()));
        if !cursor.member.is_packed() {
            self.trailing.push_back(lines);
            if self.trailing.len() > TRAILING {
                self.trailing.pop_front();
            }
        }
    }

    fn tell_of(&mut self, member: &Member, error: &io::Error) {
        let path = self.path.with_file_name(self.chain.name(member));
        self.tell(&format!("{}: {error}", path.display()));
    }

    /// Tells of a trouble, once.
    fn tell(&mut self, trouble: &str) {
        if self.told.iter().any(|told| told == trouble) {
            return;
        }
        if self.told.len() < TOLD_LIMIT {
            self.told.push(trouble.to_owned());
        }
        self.found.push_back(Found::Trouble(trouble.to_owned()));
    }
}

#[cfg(test)]
mod tests;
