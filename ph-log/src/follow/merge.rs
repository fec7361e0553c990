//! Several logs as one, by the time at the head of their lines.
//!
//! The lines of one log keep their order, even where their times do not: the writers of a log
//! take turns by batches. A line without a time (a stack trace, a program that writes by itself)
//! belongs to the one before it and stays behind it. No more than one line of each log is in
//! memory.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime};

use super::watch::{Watch, wait};
use super::{Found, LogReader, Wake};

/// The longest time at the head of a line.
const STAMP_LIMIT: usize = 40;

/// Reads several logs with their backups as one.
#[derive(Debug)]
pub struct MergedReader {
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    reader: LogReader,
    head: Option<Found>,
    /// The time of the head, or of the last line that had one.
    at: SystemTime,
    /// It had nothing when it was asked last.
    is_at_end: bool,
}

impl Source {
    fn fill(&mut self) {
        if self.head.is_some() || self.is_at_end {
            return;
        }
        self.head = self.reader.next();
        match &self.head {
            Some(Found::Line(line) | Found::CutLine(line)) => {
                self.at = stamp(line).unwrap_or(self.at);
            }
            Some(Found::Truncated | Found::Gap | Found::Trouble(_)) => {}
            None => self.is_at_end = true,
        }
    }
}

impl MergedReader {
    /// One reader out of several, each at the place it is to begin at.
    pub fn new(readers: impl IntoIterator<Item = LogReader>) -> MergedReader {
        let at = SystemTime::UNIX_EPOCH;
        let source = |reader| Source { reader, head: None, at, is_at_end: false };
        MergedReader { sources: readers.into_iter().map(source).collect() }
    }

    /// What comes next and the number of the log it is from, or nothing for now. Of equal times that
    /// of the log named first comes first.
    #[expect(clippy::should_implement_trait, reason = "an end here is not for good")]
    pub fn next(&mut self) -> Option<(usize, Found)> {
        self.sources.iter_mut().for_each(Source::fill);
        let with_heads = self.sources.iter().enumerate().filter(|(_, it)| it.head.is_some());
        let Some((number, _)) = with_heads.min_by_key(|(_, it)| it.at) else {
            self.sources.iter_mut().for_each(|it| it.is_at_end = false);
            return None;
        };
        Some((number, self.sources[number].head.take()?))
    }

    /// The last lines that are not whole, for a reader that does not go on.
    pub fn take_open_ends(&mut self) -> Vec<(usize, Found)> {
        let sources = self.sources.iter_mut().enumerate();
        sources.filter_map(|(number, it)| Some((number, it.reader.take_open_end()?))).collect()
    }

    /// Waits until [`next`](MergedReader::next) may have something, as [`LogReader::wait`] does.
    ///
    /// # Errors
    ///
    /// The system refuses to wait.
    pub fn wait(&mut self, limit: Duration, output: Option<BorrowedFd<'_>>) -> io::Result<Wake> {
        let mut is_look_due = false;
        for source in &mut self.sources {
            is_look_due |= source.reader.arm();
        }
        if is_look_due {
            return Ok(Wake::Look);
        }
        let watches: Vec<&Watch> =
            self.sources.iter().filter_map(|source| source.reader.watch.as_ref()).collect();
        wait(&watches, limit, output)
    }
}

/// The time at the head of a line of ph, text or JSON.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// let at = ph_log::stamp(b"1970-01-01T00:00:01.500Z INFO web[1] master: up");
/// assert_eq!(at, Some(UNIX_EPOCH + Duration::from_millis(1500)));
/// assert_eq!(ph_log::stamp(b"    at main.rs:3"), None);
/// ```
pub fn stamp(line: &[u8]) -> Option<SystemTime> {
    let (rest, end) = match line.strip_prefix(b"{\"time\":\"") {
        Some(rest) => (rest, b'"'),
        None => (line, b' '),
    };
    if !rest.first()?.is_ascii_digit() {
        return None;
    }
    let within = &rest[..rest.len().min(STAMP_LIMIT)];
    let text = &within[..within.iter().position(|&byte| byte == end)?];
    humantime::parse_rfc3339(std::str::from_utf8(text).ok()?).ok()
}
