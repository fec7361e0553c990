//! One batch: what is taken from which sources, and how it gets into the file.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use super::journal::{ENTRIES_MAX, Entry, Loss, Record, to_usize};
use super::lines::{Carry, Formed, Former, Tail, open_character};
use super::pipes::{Peek, capacity, peek};
use super::place::MAIN;
use super::{Capture, CaptureStep, Overflow, SOURCE_MAX};
use crate::rotating::Notice;

/// A batch is of so many bytes of lines and not many more.
const BATCH_BYTES: usize = 256 << 10;

/// With a log this small, batches are smaller too.
const SMALL_LOG: u64 = 4 << 20;

/// How often the rest of a write that ended early is written.
const TRIES: u32 = 4;

/// With less room than that a pipe counts as full.
const FULL_BUT: usize = 512;

const PAGE: usize = 4096;

/// How the writing of a batch ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Written,
    /// Not all of it; it is to be tried again.
    Failed(io::Error),
    /// Nobody reads stderr at the moment.
    Stalled,
    /// The disk does not answer: what is written will be known when it does.
    Hanging,
    /// Stderr is closed: what was not written never will be.
    Lost,
}

impl Capture {
    /// Begins a batch without any entry.
    pub(super) fn begin(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = &mut self.record;
        record.sequence += 1;
        record.millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        record.entries.clear();
        record.spot = None;
        (record.done, record.base, record.base_done) = (0, 0, 0);
        record.notice = Loss::default();
        self.output.clear();
        self.before = self.manner.before(self.record.millis);
    }

    /// What was dropped is said at the beginning of a batch of the main log.
    pub(super) fn begin_with_notice(&mut self) {
        let untold = self.untold();
        if untold == Loss::default() {
            return;
        }
        self.record.notice = untold;
        self.record.notice_pid = u64::from(std::process::id());
        self.output = self.notice_line();
    }

    /// What was dropped and not told yet.
    pub(super) fn untold(&self) -> Loss {
        let told = self.record.told;
        Loss {
            bytes: self.dropped.bytes.saturating_sub(told.bytes),
            lines: self.dropped.lines.saturating_sub(told.lines),
        }
    }

    /// The first line of the batch, if there is something to be told.
    pub(super) fn notice_line(&self) -> Vec<u8> {
        self.notice_of(&self.record)
    }

    pub(super) fn notice_of(&self, record: &Record) -> Vec<u8> {
        let Loss { bytes, lines } = record.notice;
        if (bytes, lines) == (0, 0) {
            return Vec::new();
        }
        let fields = [("lines", lines), ("bytes", bytes)];
        let text = "output of workers was dropped";
        self.manner.notice(record.millis, record.notice_pid, text, &fields)
    }

    /// Takes lines from at most so many sources that are ready for a place. Returns how many were
    /// looked at.
    pub(super) fn collect(&mut self, number: usize, sources: usize) -> usize {
        let limits = self.places.limits();
        let is_small = limits.max_size.is_some_and(|size| size < SMALL_LOG);
        let room = if is_small { BATCH_BYTES / 4 } else { BATCH_BYTES };
        for looked_at in 0..sources {
            if self.record.entries.len() >= ENTRIES_MAX || self.output.len() >= room {
                return looked_at;
            }
            let next = self.places.get(number).and_then(|place| place.ready.pop_front());
            let Some(id) = next else { return looked_at };
            if let Some(feed) = self.feeds.get_mut(&id) {
                feed.is_queued = false;
            }
            self.collect_from(id, room.saturating_sub(self.output.len()));
        }
        sources
    }

    fn collect_from(&mut self, id: u64, room: usize) {
        let Some(feed) = self.feeds.get_mut(&id) else { return };
        let wanted = SOURCE_MAX.max(self.manner.line_max + 1).min(self.input.len());
        match peek(&feed.pipe, &self.journal.scratch, &mut self.input[..wanted]) {
            Ok(Peek::Bytes(bytes)) => self.take_lines(id, bytes, room),
            Ok(Peek::Empty) => {
                // Somebody took what was there, or opened the pipe for writing once more.
                feed.is_hung = false;
                self.forget_partial(id);
            }
            Ok(Peek::Ended) => self.end(id),
            Err(error) => {
                self.say(&format!("cannot read source {id}, it is given up: {error}"));
                self.end(id);
            }
        }
    }

    /// Forms lines of the bytes in `input`. A source that gave some may have more.
    fn take_lines(&mut self, id: u64, bytes: usize, room: usize) {
        let Some(feed) = self.feeds.get(&id) else { return };
        let (slot, carry) = (feed.slot, self.accounts[feed.slot].carry);
        let Capture { manner, output, input, before, .. } = self;
        let former = Former { manner, kind: feed.kind, before, after: &feed.after };
        let mut formed = former.form(&input[..bytes], carry, Tail::Keep, room, output);
        if formed.taken == 0 {
            let size = capacity(&feed.pipe).min(capacity(&self.journal.scratch.read));
            let may_be_full = bytes + PAGE > size / 2;
            let is_due = feed.partial.is_some_and(|partial| partial.is_due());
            let tail = match bytes + FULL_BUT > size || may_be_full && is_due {
                _ if feed.is_hung || self.is_draining => Tail::End,
                true => Tail::Cut,
                false if is_due => Tail::End,
                false => return self.wait_for_end(id, bytes, may_be_full),
            };
            // A character is not torn, unless it is all there is.
            let open = if feed.is_hung { 0 } else { open_character(&input[..bytes]) };
            let bytes = if open < bytes { bytes - open } else { bytes };
            formed = former.form(&input[..bytes], carry, tail, room, output);
        }
        let Formed { taken, lines, carry, is_cut } = formed;
        let (bytes, end) = (taken as u64, self.output.len() as u64);
        let entry =
            Entry { id, slot, bytes, written: bytes, lines, dropped_lines: 0, end, carry, is_cut };
        self.record.entries.push(entry);
        self.forget_partial(id);
        self.queue(id);
    }

    /// Notes down that a source may have something.
    pub(super) fn queue(&mut self, id: u64) {
        let Some(feed) = self.feeds.get_mut(&id) else { return };
        if !feed.is_queued
            && let Some(place) = self.places.get(feed.place)
        {
            feed.is_queued = true;
            place.ready.push_back(id);
        }
    }

    /// Writes what is not written yet of the lines of the batch.
    pub(super) fn write(&mut self, number: usize) -> io::Result<Outcome> {
        self.passed(CaptureStep::Formed);
        let place = self.places.get(number);
        let path = place.and_then(|place| place.path.clone());
        let Some(path) = path else { return self.write_to_stderr() };
        if self.noted_path.as_ref() != Some(&path) {
            self.journal.store_path(&path)?;
            self.noted_path = Some(path);
        }
        let (start, length) = (self.record.done, self.output.len());
        let mut outcome = Outcome::Written;
        for _ in 0..TRIES {
            if to_usize(self.record.done) == length {
                break;
            }
            // It may be the last try, and the line that does not fit the only one.
            let torn = Outcome::Failed(io::Error::other("it takes only parts of lines"));
            let ended = self.append(number, self.overflow == Overflow::Drop)?;
            outcome = match ended {
                None if to_usize(self.record.done) == length => Outcome::Written,
                None => torn,
                Some(failed) => {
                    outcome = failed;
                    break;
                }
            };
        }
        self.passed(CaptureStep::Appended);
        let written = to_usize(start)..to_usize(self.record.done);
        if self.also_stderr
            && number == MAIN
            && let Some(written) = self.output.get(written)
        {
            // The file has it; nothing is lost with a terminal.
            self.copy.put(written);
        }
        Ok(outcome)
    }

    /// Logs what the log's file has to say about itself.
    pub(super) fn tell(&mut self, number: usize, notice: &Notice) {
        let pid = u64::from(std::process::id());
        let line = self.manner.notice(self.record.millis, pid, &notice.to_string(), &[]);
        if let Ok(Some(file)) = self.places.file(number) {
            // It is told again in a minute if it is not written now.
            let _ = file.write_batch(&line);
        }
    }

    /// After a write that ended early: what is not written stays in its pipe, or counts as dropped.
    pub(super) fn trim(&mut self, is_dropped: bool) {
        let mut start = self.notice_line().len() as u64;
        let done = self.record.done;
        if done < start {
            self.record.notice = Loss::default();
        }
        let mut entries = std::mem::take(&mut self.record.entries);
        for entry in &mut entries {
            let before = std::mem::replace(&mut start, entry.end);
            if done < entry.end {
                self.trim_entry(entry, to_usize(done.saturating_sub(before)), is_dropped);
            }
        }
        entries.retain(|entry| entry.bytes > 0);
        self.record.entries = entries;
    }

    /// Cuts an entry to so many bytes of its lines.
    fn trim_entry(&mut self, entry: &mut Entry, room: usize, is_dropped: bool) {
        let mut written = Formed { taken: 0, lines: 0, carry: Carry::default(), is_cut: false };
        if room > 0
            && let Some((formed, _)) = self.form_again(entry, room)
        {
            written = formed;
        }
        entry.written = written.taken as u64;
        if is_dropped {
            entry.dropped_lines = entry.lines.saturating_sub(written.lines);
        } else {
            (entry.bytes, entry.carry) = (entry.written, written.carry);
            entry.is_cut = written.is_cut;
        }
        entry.lines = written.lines;
    }

    /// Forms the lines of an entry from its pipe once more. `None` if they are not all there.
    pub(super) fn form_again(&mut self, entry: &Entry, room: usize) -> Option<(Formed, Vec<u8>)> {
        let feed = self.feeds.get(&entry.id)?;
        let wanted = to_usize(entry.bytes).min(self.input.len());
        let found = peek(&feed.pipe, &self.journal.scratch, &mut self.input[..wanted]).ok()?;
        if found != Peek::Bytes(wanted) {
            return None;
        }
        let Capture { manner, input, before, .. } = self;
        let former = Former { manner, kind: feed.kind, before, after: &feed.after };
        let tail = if entry.is_cut { Tail::Cut } else { Tail::End };
        let carry = self.accounts[feed.slot].carry;
        let mut lines = Vec::new();
        let formed = former.form(&input[..wanted], carry, tail, room, &mut lines);
        Some((formed, lines))
    }
}
