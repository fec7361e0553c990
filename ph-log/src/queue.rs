//! The background writer of a worker: a bounded queue, a thread, and batches of whole lines.
//!
//! Queue and thread are `tracing-appender`'s; four things it does not do are done here.
//!
//! * **Messages of many lines.** Its queue carries every line as an allocation of its own. Here a line
//!   is a message only if the thread sleeps; otherwise lines gather until there is a batch of them,
//!   or until the thread comes for them (`gathering`).
//! * **Batches.** Its thread writes message by message and calls `flush` when the queue is empty. The
//!   [`Batch`] joins them up to [`BATCH_LIMIT`] and writes them with one `write(2)` when the next
//!   does not fit, or at that `flush`. A line never waits while the thread sleeps.
//! * **The account.** Its guard waits one second and then drops what is queued, and a line sent
//!   behind its shutdown message vanishes. The [`Ledger`] counts lines accepted and lines settled
//!   (written, or counted as lost), so a flush waits for its own fact and the guard is let go only
//!   when the two are equal and nobody can send any more.
//! * **Failure to start.** It panics if the thread cannot be made. A thread that does nothing is
//!   tried first, which turns that panic (and the panic hook, and an abort) into a plain answer;
//!   the catch behind it is for the last thread being taken in between.
//!
//! The thread's stack is what `std` gives, 2 MiB of address space of which a few pages are used.
//! `tracing-appender` has no setting for it, and `RUST_MIN_STACK` would shrink the threads of the
//! user's program too.

mod gathering;

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use crate::format::LINE_LIMIT;
use crate::output::lines_in;
use crate::shared::{SharedOutput, lock};
use gathering::{Gathering, LINES_LIMIT};

/// As many messages as there can be, so that none has to wait for room.
const MESSAGES_LIMIT: usize = 1000;
const _: () = assert!(MESSAGES_LIMIT as u64 >= LINES_LIMIT);

/// The most bytes of one write. No line is longer.
const BATCH_LIMIT: usize = LINE_LIMIT;

/// As `top` and `/proc/PID/task/*/comm` show it.
const THREAD_NAME: &str = "ph-log";

/// Lines accepted for the queue, and lines the thread has done with.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accepted: AtomicU64,
    settled: AtomicU64,
    /// Held around a wake-up, so that it cannot fall between a waiter's look and its sleep.
    gate: Mutex<()>,
    changed: Condvar,
}

impl Ledger {
    /// Counts one line, before it is sent.
    pub(crate) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts lines that need no more care.
    pub(crate) fn settle(&self, lines: u64) {
        self.settled.fetch_add(lines, Ordering::AcqRel);
        drop(lock(&self.gate));
        self.changed.notify_all();
    }

    pub(crate) fn open_lines(&self) -> u64 {
        // In this order, so that a line settled between the two reads does not make it negative.
        let settled = self.settled.load(Ordering::Acquire);
        self.accepted.load(Ordering::Acquire).saturating_sub(settled)
    }

    /// Waits until every accepted line is settled; `false` if it did not come to that in time.
    pub(crate) fn wait_settled(&self, limit: Duration) -> bool {
        let gate = lock(&self.gate);
        let waited = self.changed.wait_timeout_while(gate, limit, |()| self.open_lines() > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.open_lines() == 0
    }

    /// Begins anew in a forked process, whose parent's lines are the parent's.
    pub(crate) fn reset(&self) {
        self.accepted.store(0, Ordering::Release);
        self.settled.store(0, Ordering::Release);
    }
}

/// The way of a worker's lines to the thread.
#[derive(Debug)]
pub(crate) struct Queue {
    gathering: Arc<Gathering>,
    messages: NonBlocking,
}

impl Queue {
    /// Takes one whole line that is in the ledger, and waits while there are too many. Gives back
    /// lines, of which this is the last, if the thread is gone and will take none of them: by a bug.
    pub(crate) fn push(&self, line: &[u8]) -> Result<(), Vec<u8>> {
        self.gathering.push(line, |lines| self.messages.clone().write_all(lines).is_ok())
    }
}

/// Starts the thread, with every signal blocked in it: signals are for the threads of the program.
/// `None` if the system gives no thread.
pub(crate) fn start(
    output: &Arc<SharedOutput>,
    ledger: &Arc<Ledger>,
) -> Option<(Queue, WorkerGuard)> {
    let gathering = Arc::<Gathering>::default();
    let batch = Batch {
        gathering: Arc::clone(&gathering),
        output: Arc::clone(output),
        ledger: Arc::clone(ledger),
        bytes: Vec::with_capacity(BATCH_LIMIT),
    };
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).ok()?;
    let started = can_start_a_thread().then(|| {
        let builder = NonBlockingBuilder::default()
            .lossy(false)
            .buffered_lines_limit(MESSAGES_LIMIT)
            .thread_name(THREAD_NAME);
        catch_unwind(AssertUnwindSafe(|| builder.finish(batch))).ok()
    });
    // Setting a mask the system itself gave cannot fail.
    let _ = before.thread_set_mask();
    let (messages, guard) = started.flatten()?;
    Some((Queue { gathering, messages }, guard))
}

fn can_start_a_thread() -> bool {
    let probe = thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(|| ());
    probe.is_ok_and(|thread| thread.join().is_ok())
}

/// Joins messages to batches. Errors end in the output's account: one returned from here would make
/// the thread forget the lines behind it.
struct Batch {
    gathering: Arc<Gathering>,
    output: Arc<SharedOutput>,
    ledger: Arc<Ledger>,
    bytes: Vec<u8>,
}

impl Batch {
    fn commit(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        self.output.write(&self.bytes);
        let lines = lines_in(&self.bytes);
        self.bytes.clear();
        self.gathering.settle(lines);
        self.ledger.settle(lines);
    }
}

impl Write for Batch {
    /// Takes one message, which is of whole lines, always.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.gathering.receive();
        if self.bytes.len() + lines.len() > BATCH_LIMIT {
            self.commit();
        }
        self.bytes.extend_from_slice(lines);
        Ok(lines.len())
    }

    /// Writes all there is, for the queue was empty.
    fn flush(&mut self) -> io::Result<()> {
        self.commit();
        while self.gathering.take(&mut self.bytes) {
            self.commit();
        }
        Ok(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.gathering.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::output::{Output, Writer};
    use crate::{Format, Level, LogOptions, RotateLimits, Target};

    static REOPEN: AtomicU32 = AtomicU32::new(0);

    #[test]
    fn a_batch_is_of_whole_lines_and_leaves_when_the_next_does_not_fit_or_nothing_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let writer = Arc::new(Writer::new(LogOptions {
            name: "test".to_owned(),
            target: Target::File(path.clone()),
            limits: RotateLimits::default(),
            worker_path: None,
            also_stderr: false,
            level: Level::Info,
            format: Format::Text,
            reopen: &REOPEN,
            pid: None,
        }));
        let output = Arc::new(SharedOutput::new(Output::open(&writer).expect("an output")));
        let ledger = Arc::new(Ledger::default());
        let gathering = Arc::default();
        let mut batch = Batch { gathering, output, ledger: Arc::clone(&ledger), bytes: Vec::new() };
        let size = || usize::try_from(std::fs::metadata(&path).expect("the log").len());
        let (mut all, mut ends, mut before) = (Vec::new(), vec![0], 0);
        for n in 0..2000 {
            let mut line = vec![b'x'; n * 37 % LINE_LIMIT];
            line.push(b'\n');
            ledger.accept();
            batch.write_all(&line).expect("taken");
            all.extend(line);
            ends.push(all.len());
            let written = size().expect("a size");
            assert!(written - before <= BATCH_LIMIT, "one batch at most");
            assert!(ends.contains(&written), "whole lines");
            before = written;
        }
        assert!(before < all.len() && ledger.open_lines() > 0);
        batch.flush().expect("taken");
        assert_eq!(std::fs::read(&path).expect("the log"), all);
        assert_eq!(ledger.open_lines(), 0);
    }
}
