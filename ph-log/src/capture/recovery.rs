//! Going on where a log process was killed.
//!
//! What it wrote is known by looking at the file. While that cannot be done, because the folder is
//! away or not readable, its batch stays open, and no other can begin: the journal holds one. That
//! is tried again every second, and after a limit the lines are written anew.

use std::io;
use std::time::Duration;

use super::journal::{Entry, Record, State, to_usize};
use super::place::MAIN;
use super::{Capture, Overflow};
use crate::output::monotonic;
use crate::rotating::RotatingFile;
use crate::rotating::exact::{Spot, Standing};

/// How long a file is waited for that cannot be looked at.
const LIMIT: Duration = Duration::from_secs(10);

/// The same where workers must not wait.
const DROP_LIMIT: Duration = Duration::from_secs(2);

const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How far a log process is with what an earlier one has left.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub(super) is_over: bool,
    pub(super) retry_at: Duration,
    /// When it is over in any case.
    until: Option<Duration>,
}

impl Capture {
    /// Ends the batch that an earlier log process was killed in. To be called once, after all
    /// sources it had were added; it does nothing in the first log process. If what was written
    /// cannot be looked at, every turn tries it again, and brings nothing else to any log, for some
    /// seconds.
    ///
    /// # Errors
    ///
    /// The journal or a pipe cannot be read or written. A log that cannot be written is no error.
    pub fn recover(&mut self) -> io::Result<()> {
        let now = monotonic();
        let until = *self.recovery.until.get_or_insert(now + self.recovery_limit());
        self.recover_once(now >= until)
    }

    fn recovery_limit(&self) -> Duration {
        match self.overflow {
            Overflow::Block => LIMIT,
            Overflow::Drop => DROP_LIMIT,
        }
    }

    /// Whether there is nothing left to recover. Whoever did not ask for it gets it all the same: a
    /// batch that is open must not be forgotten.
    pub(super) fn is_recovered(&mut self) -> io::Result<bool> {
        if !self.recovery.is_over && monotonic() >= self.recovery.retry_at {
            self.recover()?;
        }
        Ok(self.recovery.is_over)
    }

    /// As [`recover`](Capture::recover); with a last attempt it is over in any case.
    pub(super) fn recover_once(&mut self, is_last: bool) -> io::Result<()> {
        if self.recovery.is_over {
            return Ok(());
        }
        if let Some(slot) = to_usize(self.record.folding).checked_sub(1) {
            self.clear(slot)?;
        }
        // The lines are to be formed as they were, whatever the settings are by now.
        let manner = self.journal.load_manner()?.unwrap_or_else(|| self.manner.clone());
        let new = std::mem::replace(&mut self.manner, manner);
        self.before = self.manner.before(self.record.millis);
        self.name_feeds();
        let ended = self.end_open_batch(is_last);
        self.manner = new;
        self.name_feeds();
        if !ended? {
            self.recovery.retry_at = monotonic() + RETRY_EVERY;
            return Ok(());
        }
        self.journal.store_manner(&self.manner)?;
        self.fold_strangers()?;
        self.recovery.is_over = true;
        // A log process that was killed may have been compressing.
        self.compress(MAIN);
        Ok(())
    }

    /// Returns whether it did: not if it cannot be known what is written, and another attempt may
    /// tell.
    fn end_open_batch(&mut self, is_last: bool) -> io::Result<bool> {
        match self.record.state {
            State::Settled => {
                self.count()?;
                self.journal.hold.empty(&mut self.input)?;
            }
            State::Writing => return self.finish_writing(is_last),
            State::Consuming => self.resume()?,
            State::Emptying => {
                self.journal.hold.empty(&mut self.input)?;
                self.consume()?;
            }
        }
        Ok(true)
    }

    /// Every source's part of its lines' heads is that of the manner.
    fn name_feeds(&mut self) {
        for feed in self.feeds.values_mut() {
            feed.after = self.manner.after(feed.kind);
        }
    }

    /// Accounts of sources that were not added again.
    fn fold_strangers(&mut self) -> io::Result<()> {
        for slot in 0..self.accounts.len() {
            let account = &self.accounts[slot];
            if !account.is_free() && !self.feeds.contains_key(&account.id()) {
                self.fold(slot)?;
            }
        }
        Ok(())
    }

    /// The batch was being written: what of it stands is written.
    fn finish_writing(&mut self, is_last: bool) -> io::Result<bool> {
        self.journal.hold.empty(&mut self.input)?;
        let Some(spot) = self.record.spot else {
            // On stderr nobody can look, but it was noted down how far it had come.
            self.regenerate(&[]);
            self.keep_rest()?;
            self.trim(false);
            self.consume()?;
            return Ok(true);
        };
        let path = self.journal.load_path()?;
        let before = self.record.clone();
        let standing = match self.places.file_named(&path) {
            Ok(mut file) => self.stand(&mut file, spot),
            Err(error) => Err(error),
        };
        match standing {
            Ok(Standing::Bytes(bytes)) => {
                self.record.done += bytes as u64;
                // What does not stand stays in its pipes, and comes with the next batch.
                self.trim(false);
            }
            Ok(Standing::Gone) => {
                let text = "the file a log process was killed in is gone; its last batch is taken to be in it";
                self.say(text);
                self.record.done = self.record.length();
            }
            Err(error) => {
                self.record = before;
                let fate =
                    if is_last { "its last lines may come twice" } else { "it is tried again" };
                self.say_at = if is_last { Duration::ZERO } else { self.say_at };
                self.say(&format!("cannot look what a killed log process wrote, {fate}: {error}"));
                if !is_last {
                    return Ok(false);
                }
                // Only what was known to be written is. Rather twice than not at all.
                self.regenerate(&[]);
                self.trim(false);
            }
        }
        self.consume()?;
        Ok(true)
    }

    fn stand(&mut self, file: &mut RotatingFile, spot: Spot) -> io::Result<Standing> {
        let length = self.record.length().saturating_sub(self.record.done);
        let found = file.text_at(spot, to_usize(length))?;
        self.regenerate(&found);
        let done = to_usize(self.record.done).min(self.output.len());
        file.standing(spot, &self.output[done..])
    }

    /// Forms the lines of the batch again. Of a source that has not got them any more, what stands
    /// is taken as it is.
    fn regenerate(&mut self, found: &[u8]) {
        self.output = self.notice_line();
        let Record { done, entries, .. } = self.record.clone();
        let mut start = self.output.len();
        let mut kept = Vec::new();
        for entry in entries {
            let end = to_usize(entry.end);
            let formed = self.form_again(&entry, usize::MAX).map(|(_, lines)| lines);
            let is_same = |lines: &Vec<u8>| lines.len() == end.saturating_sub(start);
            let place = start.saturating_sub(to_usize(done))..end.saturating_sub(to_usize(done));
            let lines = match formed.filter(is_same) {
                Some(lines) => lines,
                // All of it is behind us already.
                None if end <= to_usize(done) => vec![b' '; end.saturating_sub(start)],
                None => found.get(place).map(<[u8]>::to_vec).unwrap_or_default(),
            };
            start = end;
            if !lines.is_empty() {
                self.output.extend(lines);
                kept.push(Entry { end: self.output.len() as u64, ..entry });
            }
        }
        self.record.entries = kept;
    }
}
