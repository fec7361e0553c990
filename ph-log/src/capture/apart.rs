//! Writing, and the thread it is done in with [`Overflow::Drop`]: a disk that does not answer holds
//! the thread and nobody else.
//!
//! The thread gets the file and the lines, and gives both back. While it keeps them for longer than
//! [`HANG_LIMIT`] nothing else is written, and pipes that are nearly full are emptied. What becomes
//! of the batch it has depends on how far it has come, which the *gate* decides:
//!
//! * Nothing was noted down yet: the thread is told to leave it, and the bytes stay in their pipes.
//! * It was, so the lines may be written at any moment. Their bytes are taken out of the pipes and
//!   count as dropped, until the thread comes back and says what is written.
//!
//! A log process that is killed meanwhile leaves them counted as dropped, although they may be in
//! the log.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};

use super::batch::Outcome;
use super::journal::{CaptureJournal, Entry, Record, State, to_usize};
use super::{Capture, CaptureStep, Loss};
use crate::output::monotonic;
use crate::rotating::RotatingFile;
use crate::rotating::exact::Exact;

#[cfg(doc)]
use super::Overflow;

/// How long a disk may take to answer. The log's lock may be waited for nearly as long.
const HANG_LIMIT: Duration = Duration::from_millis(2500);

/// How often the thread is asked then whether it has come back.
const ASK_EVERY: Duration = Duration::from_millis(100);

const THREAD_NAME: &str = "ph-write";

/// How far the writing of a batch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// It is noted down what is about to be written.
    Noted,
    /// It must not be noted down any more.
    Abandoned,
}

/// What is written, by whom it is asked for and with which end.
#[derive(Debug)]
struct Job {
    file: RotatingFile,
    lines: Vec<u8>,
    record: Record,
    journal: Arc<CaptureJournal>,
    gate: Arc<Mutex<Gate>>,
    after_step: Option<fn(CaptureStep)>,
}

#[derive(Debug)]
struct Done {
    file: RotatingFile,
    lines: Vec<u8>,
    record: Record,
    exact: io::Result<Exact>,
}

/// The thread.
#[derive(Debug)]
pub(super) struct Apart {
    jobs: Sender<Job>,
    done: Receiver<Done>,
}

/// A batch the thread has not come back with.
#[derive(Debug)]
pub(super) struct Flight {
    number: usize,
    record: Record,
    /// Its bytes count as dropped meanwhile.
    is_noted: bool,
}

impl Job {
    /// Appends what the record says is not written yet. An error is one of the journal.
    fn run(self) -> Done {
        let Job { mut file, lines, mut record, journal, gate, after_step } = self;
        let mut unnoted = None;
        let done = to_usize(record.done);
        let exact = file.write_exact(&lines[done..], &mut |spot| {
            let mut gate = lock(&gate);
            if *gate == Gate::Abandoned {
                return Err(io::ErrorKind::TimedOut.into());
            }
            (record.state, record.spot) = (State::Writing, Some(spot));
            if let Err(error) = journal.store(&record) {
                let kind = error.kind();
                unnoted = Some(error);
                return Err(kind.into());
            }
            *gate = Gate::Noted;
            drop(gate);
            if let Some(call) = after_step {
                call(CaptureStep::Intended);
            }
            Ok(())
        });
        Done { file, lines, record, exact: unnoted.map_or(Ok(exact), Err) }
    }
}

impl Apart {
    /// `None` if the system gives no thread.
    fn start() -> Option<Apart> {
        let (jobs, taken) = channel::<Job>();
        let (give, done) = channel();
        let work = move || {
            for job in taken {
                if give.send(job.run()).is_err() {
                    break;
                }
            }
        };
        // Signals are for the thread that knows what to do with them.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).ok()?;
        let started = thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(work);
        // Setting a mask the system itself gave cannot fail.
        let _ = before.thread_set_mask();
        started.is_ok().then_some(Apart { jobs, done })
    }
}

impl Capture {
    /// Appends to the file of a place, once. Returns how it ended, if not all was written.
    pub(super) fn append(&mut self, number: usize, is_apart: bool) -> io::Result<Option<Outcome>> {
        let file = match self.places.take_file(number) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Some(Outcome::Failed(io::Error::other("there is no file")))),
            Err(error) => return Ok(Some(Outcome::Failed(error))),
        };
        let gate = Arc::new(Mutex::new(Gate::Open));
        let job = Job {
            file,
            lines: std::mem::take(&mut self.output),
            record: std::mem::take(&mut self.record),
            journal: Arc::clone(&self.journal),
            gate: Arc::clone(&gate),
            after_step: self.after_step,
        };
        if is_apart && self.apart.is_none() {
            self.apart = Apart::start();
        }
        let Some(apart) = self.apart.as_ref().filter(|_| is_apart) else {
            return self.land(number, job.run());
        };
        self.record = job.record.clone();
        let gone = || Outcome::Failed(io::Error::other("the thread that writes has died"));
        if apart.jobs.send(job).is_err() {
            self.apart = None;
            return Ok(Some(gone()));
        }
        match apart.done.recv_timeout(HANG_LIMIT) {
            Ok(done) => self.land(number, done),
            Err(RecvTimeoutError::Disconnected) => {
                self.apart = None;
                Ok(Some(gone()))
            }
            Err(RecvTimeoutError::Timeout) => {
                let mut gate = lock(&gate);
                let is_noted = *gate == Gate::Noted;
                if !is_noted {
                    *gate = Gate::Abandoned;
                }
                self.flight = Some(Flight { number, record: self.record.clone(), is_noted });
                Ok(Some(match is_noted {
                    true => Outcome::Hanging,
                    false => Outcome::Failed(io::ErrorKind::TimedOut.into()),
                }))
            }
        }
    }

    /// Takes back the file and the lines.
    fn land(&mut self, number: usize, done: Done) -> io::Result<Option<Outcome>> {
        let Done { file, lines, record, exact } = done;
        self.places.return_file(number, file);
        (self.output, self.record) = (lines, record);
        let Exact { written, failure, is_rotated, notice } = exact?;
        self.record.done += written as u64;
        if is_rotated {
            self.compress(number);
        }
        if let Some(notice) = notice {
            self.tell(number, &notice);
        }
        Ok(failure.map(Outcome::Failed))
    }

    /// Looks whether the thread has come back with a batch that took too long. Returns whether it
    /// is still away.
    pub(super) fn is_away(&mut self) -> io::Result<bool> {
        let (Some(flight), Some(apart)) = (&self.flight, &self.apart) else { return Ok(false) };
        let done = match apart.done.try_recv() {
            Err(TryRecvError::Empty) => return Ok(true),
            Err(TryRecvError::Disconnected) => {
                (self.flight, self.apart) = (None, None);
                return Ok(false);
            }
            Ok(done) => done,
        };
        let Flight { number, is_noted, .. } = *flight;
        let Some(Flight { record, .. }) = self.flight.take() else { return Ok(false) };
        let Done { file, lines, exact, .. } = done;
        self.places.return_file(number, file);
        if self.is_reopen_due {
            self.reopen();
        }
        let Exact { written, is_rotated, .. } = exact?;
        if is_rotated {
            self.compress(number);
        }
        if is_noted {
            self.correct(&record, &lines, to_usize(record.done) + written)?;
        }
        Ok(false)
    }

    /// What counted as dropped is in the log, up to so many bytes of the lines.
    fn correct(&mut self, record: &Record, lines: &[u8], written: usize) -> io::Result<()> {
        let notice = record.notice;
        let mut start = self.notice_of(record).len();
        if notice != Loss::default() && written >= start && to_usize(record.done) < start {
            self.record.told.bytes += notice.bytes;
            self.record.told.lines += notice.lines;
        }
        for entry in &record.entries {
            let before = std::mem::replace(&mut start, to_usize(entry.end));
            if before < to_usize(record.done) || before >= written {
                continue;
            }
            let end = start.min(written).min(lines.len());
            let count = memchr::memchr_iter(b'\n', &lines[before..end]).count() as u64;
            // Of a part nobody knows any more how many bytes of the pipe it was.
            let bytes = if written >= start { entry.bytes } else { 0 };
            self.correct_account(entry, bytes, count)?;
        }
        // The sum of the closed accounts and what was told.
        self.journal.store(&self.record)
    }

    fn correct_account(&mut self, entry: &Entry, bytes: u64, lines: u64) -> io::Result<()> {
        let account = self.accounts.get_mut(entry.slot).filter(|account| account.is_of(entry.id));
        let totals = match account {
            Some(account) => {
                account.totals.take_back(bytes, lines);
                self.journal.store_account(entry.slot, account)?;
                account.totals
            }
            None => {
                self.record.ended.take_back(bytes, lines);
                self.record.ended
            }
        };
        debug_assert_eq!(totals.read, totals.written + totals.dropped_bytes);
        self.dropped.bytes = self.dropped.bytes.saturating_sub(bytes);
        self.dropped.lines = self.dropped.lines.saturating_sub(lines);
        Ok(())
    }

    /// When the thread is asked again whether it has come back.
    pub(super) fn ask_at(&self) -> Option<Duration> {
        self.flight.as_ref().map(|_| monotonic() + ASK_EVERY)
    }
}

fn lock(gate: &Mutex<Gate>) -> MutexGuard<'_, Gate> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}
