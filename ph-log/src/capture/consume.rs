//! Taking the bytes of a batch out of their pipes, and counting them.

use std::io;

use super::journal::{Account, Entry, State};
use super::lines::{Carry, Grade};
use super::pipes::{Peek, capacity, peek, take};
use super::{Capture, CaptureStep};

impl Capture {
    /// Takes the bytes of the batch out of their pipes, from where the record says it had come.
    pub(super) fn consume(&mut self) -> io::Result<()> {
        self.record.state = State::Consuming;
        self.journal.store(&self.record)?;
        self.passed(CaptureStep::Noted);
        let mut held = 0;
        let mut index = self.record.base;
        let mut left = self.left(index);
        while let Some(entry) = self.record.entries.get(index) {
            let taken = match self.feeds.get(&entry.id) {
                Some(feed) => take(&feed.pipe, &self.journal.hold, left)?,
                // It is gone with all it had.
                None => left,
            };
            held += taken;
            left -= taken;
            self.passed(CaptureStep::Moved);
            if left > 0 && held > 0 {
                // The hold is full, or the source has less than it had.
                self.pause(index, left)?;
                held = 0;
            } else {
                index += 1;
                left = self.record.entries.get(index).map_or(0, |entry| entry.bytes);
            }
        }
        self.settle()
    }

    /// How many bytes of an entry are still to be taken at the beginning of a move.
    fn left(&self, index: usize) -> u64 {
        let bytes = self.record.entries.get(index).map_or(0, |entry| entry.bytes);
        bytes.saturating_sub(self.record.base_done)
    }

    /// Empties the hold before the move is over.
    pub(super) fn pause(&mut self, index: usize, left: u64) -> io::Result<()> {
        let bytes = self.record.entries.get(index).map_or(0, |entry| entry.bytes);
        (self.record.base, self.record.base_done) = (index, bytes.saturating_sub(left));
        self.record.state = State::Emptying;
        self.journal.store(&self.record)?;
        self.passed(CaptureStep::Paused);
        self.journal.hold.empty(&mut self.input)?;
        self.record.state = State::Consuming;
        self.journal.store(&self.record)
    }

    /// Ends the batch.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let record = &mut self.record;
        let said = std::mem::take(&mut record.notice);
        record.told.bytes += said.bytes;
        record.told.lines += said.lines;
        record.state = State::Settled;
        self.journal.store(&self.record)?;
        self.passed(CaptureStep::Settled);
        self.count()?;
        self.journal.hold.empty(&mut self.input)?;
        self.passed(CaptureStep::Emptied);
        Ok(())
    }

    /// Brings the accounts up to date. What is counted already is not counted again.
    pub(super) fn count(&mut self) -> io::Result<()> {
        let sequence = self.record.sequence;
        for entry in &self.record.entries {
            let Some(account) = self.accounts.get_mut(entry.slot) else { continue };
            if account.is_of(entry.id) && account.sequence != sequence {
                account.apply(entry, sequence);
                self.journal.store_account(entry.slot, account)?;
                self.dropped.bytes += entry.bytes - entry.written;
                self.dropped.lines += entry.dropped_lines;
                if let Some(call) = self.after_step {
                    call(CaptureStep::Counted);
                }
            }
        }
        Ok(())
    }

    /// Forgets a source that is at its end.
    pub(super) fn end(&mut self, id: u64) {
        self.forget_partial(id);
        let Some(feed) = self.feeds.remove(&id) else { return };
        // The description lives on in the master and would go on being watched.
        let _ = self.epoll.delete(&feed.pipe);
        self.places.leave(feed.place);
        self.ended.push(id);
    }

    /// Adds the accounts of sources that are no more to the sum of these. To be called between
    /// batches.
    pub(super) fn fold(&mut self, slot: usize) -> io::Result<()> {
        let Some(account) = self.accounts.get(slot).copied() else { return Ok(()) };
        // All of the last batch is counted. A source that comes back must not be counted by it.
        self.record.entries.clear();
        self.record.ended.add(account.totals);
        self.record.folding = slot as u64 + 1;
        self.journal.store(&self.record)?;
        self.clear(slot)
    }

    /// Ends the folding of an account that is in the sum already.
    pub(super) fn clear(&mut self, slot: usize) -> io::Result<()> {
        if let Some(account) = self.accounts.get_mut(slot) {
            *account = Account::default();
            self.journal.store_account(slot, account)?;
        }
        self.record.folding = 0;
        self.journal.store(&self.record)
    }

    /// Empties the pipes that are nearly full, of sources that wait for a place that takes nothing.
    pub(super) fn drop_full(&mut self, number: usize) -> io::Result<()> {
        let Some(place) = self.places.get(number) else { return Ok(()) };
        let ready: Vec<u64> = place.ready.iter().copied().collect();
        for ids in ready.chunks(super::journal::ENTRIES_MAX) {
            self.begin();
            for &id in ids {
                let entry = self.surplus(id);
                self.record.entries.extend(entry);
            }
            if !self.record.entries.is_empty() {
                self.consume()?;
            }
        }
        Ok(())
    }

    /// What is dropped of a source: whole lines, or all if there is not one.
    fn surplus(&mut self, id: u64) -> Option<Entry> {
        let feed = self.feeds.get(&id)?;
        let size = capacity(&feed.pipe).min(self.input.len());
        let found = peek(&feed.pipe, &self.journal.scratch, &mut self.input[..size]).ok()?;
        let Peek::Bytes(found) = found else { return None };
        // A pipe is full when its pages are, and a write that does not fit into the last one takes
        // another: that may be little more than half of the bytes.
        if found < size / 2 {
            return None;
        }
        let found = &self.input[..found];
        let whole = memchr::memrchr(b'\n', found).map(|at| at + 1);
        let lines = memchr::memchr_iter(b'\n', found).count() as u64;
        let (bytes, carry) = match whole {
            Some(whole) => (whole as u64, Carry::default()),
            None => (found.len() as u64, Carry(Some(Grade::Info))),
        };
        let dropped_lines = lines + u64::from(whole.is_none());
        let slot = feed.slot;
        Some(Entry {
            id,
            slot,
            bytes,
            written: 0,
            lines: 0,
            dropped_lines,
            end: 0,
            carry,
            is_cut: false,
        })
    }

    /// Finds out how far a move had come by what is in the hold.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        let mut held = match peek(
            &self.journal.hold.read,
            &self.journal.scratch,
            &mut vec![0; capacity(&self.journal.hold.read)],
        )? {
            Peek::Bytes(bytes) => bytes as u64,
            Peek::Empty | Peek::Ended => 0,
        };
        let mut index = self.record.base;
        let mut left = self.left(index);
        while held >= left && index < self.record.entries.len() {
            held -= left;
            index += 1;
            left = self.record.entries.get(index).map_or(0, |entry| entry.bytes);
        }
        self.pause(index, left.saturating_sub(held))?;
        self.consume()
    }
}
