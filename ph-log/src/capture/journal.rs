//! What a log process leaves to the next one if it is killed: a small record, and the bytes it had
//! just taken out of a pipe.
//!
//! The record is a page of memory behind a descriptor. One `pwrite` within a page is done whole or
//! not at all, whatever kills the process. Three more things stand beside it: the path of the file
//! that is written to, the manner in which lines are formed, and an account of every source. In a
//! memory of its own is the end of a line of which stderr took the beginning.
//!
//! The *hold* is a pipe. Bytes move from a source into it by one `splice`, which the kernel does
//! under the locks of both pipes: after a kill they are in one of the two. The *scratch* is where
//! bytes are copied to be looked at; whatever is in it means nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Totals;
use super::lines::{Carry, Manner};
use super::pipes::Pipe;
use crate::Format;
use crate::rotating::exact::Spot;

/// The most sources in one batch: as many as a record has room for.
pub(super) const ENTRIES_MAX: usize = 60;

/// The sizes tried for the two pipes, largest first. The kernel gives only a page or two to a user
/// that has very many pipes.
const CAPACITIES: [usize; 4] = [1 << 20, 256 << 10, 64 << 10, 4 << 10];

const PAGE: usize = 4096;
const PATH_AT: u64 = PAGE as u64;
const MANNER_AT: u64 = 3 * PAGE as u64;
const ACCOUNTS_AT: u64 = 4 * PAGE as u64;
const ACCOUNT_LENGTH: usize = 64;
const HEAD_WORDS: usize = 24;
const ENTRY_WORDS: usize = 8;
const _: () = assert!((HEAD_WORDS + ENTRIES_MAX * ENTRY_WORDS) * 8 <= PAGE);

/// What all log processes of a master share. Made in the master before the first of them is forked.
#[derive(Debug)]
pub struct CaptureJournal {
    memory: File,
    rest: File,
    pub(super) hold: Pipe,
    pub(super) scratch: Pipe,
}

impl CaptureJournal {
    /// Makes an empty journal. To be made before the workers' pipes: to a user who has very many
    /// pipes already the kernel gives too small ones, and lines are cut that need not be.
    ///
    /// # Errors
    ///
    /// The system gives no descriptor or no memory.
    ///
    /// # Examples
    ///
    /// ```
    /// let journal = ph_log::CaptureJournal::new()?;
    /// assert_eq!(journal.fds().count(), 6);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new() -> io::Result<CaptureJournal> {
        let memory = File::from(memfd_create("ph-capture", MFdFlags::MFD_CLOEXEC)?);
        memory.set_len(ACCOUNTS_AT)?;
        let rest = File::from(memfd_create("ph-capture-rest", MFdFlags::MFD_CLOEXEC)?);
        let (hold, scratch) = (Pipe::new()?, Pipe::new()?);
        for capacity in CAPACITIES {
            // With equal sizes, what was copied from a source fits into the hold.
            if hold.resize(capacity) && scratch.resize(capacity) {
                break;
            }
        }
        Ok(CaptureJournal { memory, rest, hold, scratch })
    }

    /// Its descriptors, which are close-on-exec: a forked worker has to close them.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pipes = [&self.hold, &self.scratch];
        let ends = pipes.into_iter().flat_map(|pipe| [pipe.read.as_fd(), pipe.write.as_fd()]);
        ends.chain([self.memory.as_fd(), self.rest.as_fd()])
    }

    pub(super) fn load(&self) -> io::Result<Record> {
        let mut page = [0; PAGE];
        self.memory.read_exact_at(&mut page, 0)?;
        Ok(Record::decode(&page))
    }

    pub(super) fn store(&self, record: &Record) -> io::Result<()> {
        let mut page = [0; PAGE];
        let length = record.encode(&mut page);
        self.memory.write_all_at(&page[..length], 0)
    }

    /// The file the intent is about; written before the intent, so it need not be one piece.
    pub(super) fn store_path(&self, path: &Path) -> io::Result<()> {
        self.store_text(PATH_AT, path.as_os_str().as_bytes())
    }

    pub(super) fn load_path(&self) -> io::Result<PathBuf> {
        Ok(PathBuf::from(OsStr::from_bytes(&self.load_text(PATH_AT, 2 * PAGE)?)))
    }

    /// The end of a line; written before the record that says how much of it is to be shown.
    pub(super) fn store_rest(&self, rest: &[u8]) -> io::Result<()> {
        self.rest.set_len(rest.len() as u64)?;
        self.rest.write_all_at(rest, 0)
    }

    /// The last bytes of it.
    pub(super) fn load_rest(&self, bytes: u64) -> io::Result<Vec<u8>> {
        let length = self.rest.metadata()?.len();
        let bytes = bytes.min(length);
        let mut rest = vec![0; to_usize(bytes)];
        self.rest.read_exact_at(&mut rest, length - bytes)?;
        Ok(rest)
    }

    /// The manner in which the lines of the next batches are formed; written while none is open.
    pub(super) fn store_manner(&self, manner: &Manner) -> io::Result<()> {
        let format = match manner.format {
            Format::Text => b't',
            Format::Json => b'j',
        };
        let mut text = vec![format];
        text.extend((manner.line_max as u64).to_le_bytes());
        text.extend(manner.name.as_bytes());
        self.store_text(MANNER_AT, &text)
    }

    /// `None` if no log process was there before.
    pub(super) fn load_manner(&self) -> io::Result<Option<Manner>> {
        let text = self.load_text(MANNER_AT, PAGE)?;
        let Some((&format, rest)) = text.split_first() else { return Ok(None) };
        let Some((line_max, name)) = rest.split_first_chunk::<8>() else { return Ok(None) };
        Ok(Some(Manner {
            format: if format == b'j' { Format::Json } else { Format::Text },
            line_max: to_usize(u64::from_le_bytes(*line_max)),
            name: String::from_utf8_lossy(name).into_owned(),
        }))
    }

    fn store_text(&self, at: u64, text: &[u8]) -> io::Result<()> {
        let length = u64::try_from(text.len()).unwrap_or(0);
        self.memory.write_all_at(&[&length.to_le_bytes(), text].concat(), at)
    }

    fn load_text(&self, at: u64, limit: usize) -> io::Result<Vec<u8>> {
        let mut length = [0; 8];
        self.memory.read_exact_at(&mut length, at)?;
        let mut text = vec![0; to_usize(u64::from_le_bytes(length)).min(limit - 8)];
        self.memory.read_exact_at(&mut text, at + 8)?;
        Ok(text)
    }

    pub(super) fn load_accounts(&self) -> io::Result<Vec<Account>> {
        let length = self.memory.metadata()?.len().saturating_sub(ACCOUNTS_AT);
        let mut bytes = vec![0; to_usize(length)];
        self.memory.read_exact_at(&mut bytes, ACCOUNTS_AT)?;
        Ok(bytes.chunks_exact(ACCOUNT_LENGTH).map(Account::decode).collect())
    }

    pub(super) fn store_account(&self, slot: usize, account: &Account) -> io::Result<()> {
        let at = ACCOUNTS_AT + (slot * ACCOUNT_LENGTH) as u64;
        self.memory.write_all_at(&account.encode(), at)
    }
}

/// How far a batch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    /// Nothing is open, or the batch is over but for the hold, which is to be emptied.
    #[default]
    Settled,
    /// The lines are being appended. The hold is empty.
    Writing,
    /// The bytes are being taken out of their pipes. What is in the hold came from the entry
    /// `base` on, of which `base_done` bytes were gone before.
    Consuming,
    /// As `Consuming`, but what is in the hold is in `base` and `base_done` already.
    Emptying,
}

/// A batch: what is written where, and from which pipes it comes.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub(super) state: State,
    pub(super) sequence: u64,
    /// Since 1970; stands in every line of the batch.
    pub(super) millis: u64,
    /// Where the lines are appended, from byte `done` of them on.
    pub(super) spot: Option<Spot>,
    /// How many bytes of the lines are in a file for certain, or on stderr.
    pub(super) done: u64,
    /// So many bytes of the end of a line are still to be shown on stderr, before anything else.
    pub(super) rest: u64,
    pub(super) base: usize,
    pub(super) base_done: u64,
    /// What is said first in the batch about output that was dropped before.
    pub(super) notice: Loss,
    pub(super) notice_pid: u64,
    /// What was said about dropped output.
    pub(super) told: Loss,
    /// The accounts of sources that are no more.
    pub(super) ended: Totals,
    /// The account that is being added to `ended`, as its slot plus 1.
    pub(super) folding: u64,
    pub(super) entries: Vec<Entry>,
}

/// Bytes and lines that were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Loss {
    pub(super) bytes: u64,
    pub(super) lines: u64,
}

/// What a batch takes from one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) slot: usize,
    /// To be taken out of the pipe.
    pub(super) bytes: u64,
    /// Of these, what is in the log.
    pub(super) written: u64,
    pub(super) lines: u64,
    pub(super) dropped_lines: u64,
    /// Where the lines of this source end among those of the batch.
    pub(super) end: u64,
    pub(super) carry: Carry,
    /// Whether the last line was cut and says so.
    pub(super) is_cut: bool,
}

/// What became of the bytes of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Account {
    /// The source's id plus 1; 0 if the place is free.
    key: u64,
    pub(super) totals: Totals,
    /// The last batch that is counted here.
    pub(super) sequence: u64,
    pub(super) carry: Carry,
}

impl Record {
    /// Where the lines of the batch end.
    pub(super) fn length(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.end)
    }

    fn encode(&self, page: &mut [u8; PAGE]) -> usize {
        let state = match self.state {
            State::Settled => 0,
            State::Writing => 1,
            State::Consuming => 2,
            State::Emptying => 3,
        };
        let (has_spot, spot) = (u64::from(self.spot.is_some()), self.spot.unwrap_or_default());
        let Totals { read, written, lines, dropped_bytes, dropped_lines } = self.ended;
        let head: [u64; HEAD_WORDS] = [
            state,
            self.sequence,
            self.millis,
            has_spot,
            spot.device,
            spot.inode,
            spot.offset,
            u64::from(spot.is_certain),
            self.done,
            self.base as u64,
            self.base_done,
            self.notice.bytes,
            self.notice.lines,
            self.notice_pid,
            self.told.bytes,
            self.told.lines,
            read,
            written,
            lines,
            dropped_bytes,
            dropped_lines,
            self.folding,
            self.rest,
            self.entries.len() as u64,
        ];
        let words = head.into_iter().chain(self.entries.iter().flat_map(Entry::encode));
        let mut length = 0;
        for (word, place) in words.zip(page.chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_le_bytes());
            length += 8;
        }
        length
    }

    fn decode(page: &[u8; PAGE]) -> Record {
        let mut words = words(page);
        let mut next = || words.next().unwrap_or(0);
        let state = match next() {
            1 => State::Writing,
            2 => State::Consuming,
            3 => State::Emptying,
            _ => State::Settled,
        };
        let (sequence, millis, has_spot) = (next(), next(), next() == 1);
        let (device, inode, offset, is_certain) = (next(), next(), next(), next() == 1);
        let spot = Spot { device, inode, offset, is_certain };
        let (done, base, base_done) = (next(), to_usize(next()), next());
        let notice = Loss { bytes: next(), lines: next() };
        let notice_pid = next();
        let told = Loss { bytes: next(), lines: next() };
        let ended = Totals::from_words(&mut next);
        let (folding, rest, count) = (next(), next(), to_usize(next()).min(ENTRIES_MAX));
        let entries = (0..count).map(|_| Entry::decode(&mut next)).collect();
        let spot = has_spot.then_some(spot);
        Record {
            state,
            sequence,
            millis,
            spot,
            done,
            rest,
            base,
            base_done,
            notice,
            notice_pid,
            told,
            ended,
            folding,
            entries,
        }
    }
}

impl Entry {
    fn encode(&self) -> [u64; ENTRY_WORDS] {
        let flags = self.carry.to_word() << 1 | u64::from(self.is_cut);
        let Entry { id, bytes, written, lines, dropped_lines, end, .. } = *self;
        [id, self.slot as u64, bytes, written, lines, dropped_lines, end, flags]
    }

    fn decode(next: &mut impl FnMut() -> u64) -> Entry {
        let (id, slot, bytes, written) = (next(), to_usize(next()), next(), next());
        let (lines, dropped_lines, end, flags) = (next(), next(), next(), next());
        let (carry, is_cut) = (Carry::from_word(flags >> 1), flags & 1 == 1);
        Entry { id, slot, bytes, written, lines, dropped_lines, end, carry, is_cut }
    }
}

impl Account {
    pub(super) fn new(id: u64) -> Account {
        Account { key: id.wrapping_add(1), ..Account::default() }
    }

    pub(super) fn is_of(&self, id: u64) -> bool {
        self.key != 0 && self.key == id.wrapping_add(1)
    }

    pub(super) fn is_free(&self) -> bool {
        self.key == 0
    }

    pub(super) fn id(&self) -> u64 {
        self.key.wrapping_sub(1)
    }

    /// Counts the part of a batch.
    pub(super) fn apply(&mut self, entry: &Entry, sequence: u64) {
        self.sequence = sequence;
        self.carry = entry.carry;
        self.totals.read += entry.bytes;
        self.totals.written += entry.written;
        self.totals.lines += entry.lines;
        self.totals.dropped_bytes += entry.bytes - entry.written;
        self.totals.dropped_lines += entry.dropped_lines;
    }

    fn encode(&self) -> [u8; ACCOUNT_LENGTH] {
        let Totals { read, written, lines, dropped_bytes, dropped_lines } = self.totals;
        let carry = self.carry.to_word();
        let words =
            [self.key, read, written, lines, dropped_bytes, dropped_lines, self.sequence, carry];
        let mut bytes = [0; ACCOUNT_LENGTH];
        for (word, place) in words.iter().zip(bytes.chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Account {
        let mut words = words(bytes);
        let mut next = || words.next().unwrap_or(0);
        let key = next();
        let totals = Totals::from_words(&mut next);
        let (sequence, carry) = (next(), Carry::from_word(next()));
        Account { key, totals, sequence, carry }
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap_or_default()))
}

/// Numbers of bytes and places in memory, which fit by what they are.
pub(super) fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
