//! Going on where a log process was killed.

use std::io;

use super::Capture;
use super::journal::{Entry, Record, State, to_usize};
use super::place::MAIN;
use crate::rotating::RotatingFile;
use crate::rotating::exact::{Spot, Standing};

impl Capture {
    /// Ends the batch that an earlier log process was killed in. To be called once, after all
    /// sources it had were added; it does nothing in the first log process.
    ///
    /// # Errors
    ///
    /// The journal or a pipe cannot be read or written. A log that cannot be written is no error.
    pub fn recover(&mut self) -> io::Result<()> {
        if let Some(slot) = to_usize(self.record.folding).checked_sub(1) {
            self.clear(slot)?;
        }
        // The lines are to be formed as they were, whatever the settings are by now.
        let manner = self.journal.load_manner()?.unwrap_or_else(|| self.manner.clone());
        let new = std::mem::replace(&mut self.manner, manner);
        self.before = self.manner.before(self.record.millis);
        self.name_feeds();
        match self.record.state {
            State::Settled => {
                self.count()?;
                self.journal.hold.empty(&mut self.input)?;
            }
            State::Writing => self.finish_writing()?,
            State::Consuming => self.resume()?,
            State::Emptying => {
                self.journal.hold.empty(&mut self.input)?;
                self.consume()?;
            }
        }
        self.manner = new;
        self.name_feeds();
        self.journal.store_manner(&self.manner)?;
        self.fold_strangers()?;
        self.is_recovered = true;
        // A log process that was killed may have been compressing.
        self.compress(MAIN);
        Ok(())
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
    fn finish_writing(&mut self) -> io::Result<()> {
        self.journal.hold.empty(&mut self.input)?;
        let Some(spot) = self.record.spot else {
            // On stderr nobody can look.
            self.record.entries.clear();
            return self.settle();
        };
        let path = self.journal.load_path()?;
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
                self.say(&format!("cannot look what a killed log process wrote: {error}"));
                self.record.done = self.record.length();
            }
        }
        self.consume()
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
