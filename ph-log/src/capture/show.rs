//! Lines on stderr, where nobody can look what stands there.
//!
//! A batch goes there in pieces of at most 4 KiB, which end where lines do unless a line is longer.
//! After each the journal says how far it has come, by one store; whoever comes after a killed log
//! process goes on there. A kill between the return of the write and that store repeats the one
//! piece: nothing is lost, and in a pipe no line is torn, because it takes a piece whole or not at
//! all. Only within a line of more than 4 KiB, and on a terminal or in a file, which may take a part
//! of a piece from somebody who is being killed, that part may stand before its repetition.
//!
//! If stderr stops in the middle of a line, the line counts as written, and its end, the *rest*, is
//! kept in the journal. It is shown before anything else.

use std::io;
use std::time::Duration;

use super::batch::Outcome;
use super::journal::{State, to_usize};
use super::place::MAIN;
use super::terminal::{self, Refusal};
use super::{Capture, CaptureStep};

impl Capture {
    pub(super) fn write_to_stderr(&mut self) -> io::Result<Outcome> {
        // From here on the record is that of this batch, of which nothing is shown.
        self.record.state = State::Writing;
        let refusal = match self.put_rest()? {
            Some(Refusal::Failed(_)) | None => {
                self.journal.store(&self.record)?;
                self.passed(CaptureStep::Intended);
                self.put_on_stderr()?
            }
            Some(Refusal::Stalled) => Some(Refusal::Stalled),
        };
        self.passed(CaptureStep::Appended);
        Ok(match refusal {
            None => Outcome::Written,
            Some(Refusal::Failed(_)) => Outcome::Lost,
            Some(Refusal::Stalled) => Outcome::Stalled,
        })
    }

    fn put_on_stderr(&mut self) -> io::Result<Option<Refusal>> {
        let start = self.record.done;
        let Capture { output, record, journal, after_step, .. } = self;
        let mut note = |written: usize| {
            record.done = start + written as u64;
            journal.store(record)?;
            if let Some(call) = after_step {
                call(CaptureStep::Shown);
            }
            Ok(())
        };
        let (_, refusal) =
            terminal::put_noted(&output[to_usize(start)..], Duration::ZERO, &mut note)?;
        self.keep_rest()?;
        self.note_stall(refusal);
        Ok(refusal)
    }

    /// If the batch stops in the middle of a line, keeps the end of that.
    pub(super) fn keep_rest(&mut self) -> io::Result<()> {
        let (shown, rest) = self.output.split_at(to_usize(self.record.done).min(self.output.len()));
        if rest.is_empty() || shown.last().is_none_or(|last| *last == b'\n') {
            return Ok(());
        }
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        self.rest = rest[..end].to_vec();
        self.journal.store_rest(&self.rest)?;
        self.record.rest = self.rest.len() as u64;
        self.record.done += self.record.rest;
        self.journal.store(&self.record)
    }

    /// Ends the line of which stderr took only the beginning. A stderr that has failed since will
    /// not show the beginning either.
    pub(super) fn put_rest(&mut self) -> io::Result<Option<Refusal>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let length = self.rest.len();
        let Capture { rest, record, journal, .. } = self;
        let mut note = |written: usize| {
            record.rest = (length - written) as u64;
            journal.store(record)
        };
        let (written, refusal) = terminal::put_noted(rest, Duration::ZERO, &mut note)?;
        rest.drain(..written);
        self.note_stall(refusal);
        if refusal != Some(Refusal::Stalled) {
            self.rest.clear();
            self.record.rest = 0;
        }
        Ok(refusal)
    }

    fn note_stall(&mut self, refusal: Option<Refusal>) {
        if let Some(place) = self.places.get(MAIN) {
            place.is_stalled = refusal == Some(Refusal::Stalled);
        }
    }

    /// Shows a line about the log itself, unless stderr is within another one.
    pub(super) fn remark(&mut self, line: &[u8], patience: Duration) {
        if !self.rest.is_empty() {
            return;
        }
        let (written, _) = terminal::put(line, patience);
        let is_log = self.places.get(MAIN).is_some_and(|place| place.path.is_none());
        // The record goes to the journal with what comes next.
        if is_log && written > 0 && self.journal.store_rest(&line[written..]).is_ok() {
            self.rest = line[written..].to_vec();
            self.record.rest = self.rest.len() as u64;
        }
    }
}
