//! The output of a process as its threads share it, and the thread that compresses backups.
//!
//! Whoever writes never waits for a compression: a rotation starts a thread, which ends when no
//! backup is left to compress. A process has one such thread at most; a rotation while it runs
//! makes it look once more. Other processes may have theirs: the backup one of them is at is left
//! to it. A master starts none, for it must stay the one thread of its process, and what it has
//! rotated is compressed after the next rotation of another process, or by
//! [`Log::compress_pending`](crate::Log::compress_pending). A backup that a dying process was at
//! stays uncompressed in the same way.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;

use nix::sys::signal::{SigSet, SigmaskHow};

use crate::output::Output;

/// As `top` and `/proc/PID/task/*/comm` show it.
const THREAD_NAME: &str = "ph-log-pack";

/// Whether there is a thread that compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Compressor {
    #[default]
    Idle,
    Running,
    /// It is to look once more before it ends.
    Again,
}

/// An output and its compressor.
#[derive(Debug)]
pub(crate) struct SharedOutput {
    output: Mutex<Output>,
    compressor: Mutex<Compressor>,
}

impl SharedOutput {
    pub(crate) fn new(output: Output) -> SharedOutput {
        SharedOutput { output: Mutex::new(output), compressor: Mutex::default() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Output> {
        lock(&self.output)
    }

    /// The output, unless somebody has it: in a forked process that may be for ever.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, Output>> {
        match self.output.try_lock() {
            Ok(output) => Some(output),
            Err(TryLockError::Poisoned(output)) => Some(output.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Writes whole lines, and sees to the backup that may have come of it.
    pub(crate) fn write(self: &Arc<Self>, lines: &[u8]) {
        let is_rotated = self.lock().write(lines);
        if is_rotated {
            self.compress();
        }
    }

    /// Makes the output that of a freshly forked process, which has none of its parent's threads.
    pub(crate) fn make_own(&self) {
        *lock(&self.compressor) = Compressor::Idle;
        self.lock().make_own();
    }

    /// Has the backups compressed, if the limits ask for that and this process may do it.
    pub(crate) fn compress(self: &Arc<Self>) {
        if !self.lock().is_compressor() {
            return;
        }
        let mut compressor = lock(&self.compressor);
        match *compressor {
            Compressor::Running | Compressor::Again => *compressor = Compressor::Again,
            Compressor::Idle => match start(Arc::clone(self)) {
                Ok(()) => *compressor = Compressor::Running,
                Err(error) => self.lock().say_uncompressed(&error),
            },
        }
    }

    /// The life of the thread.
    fn run_compressor(&self) {
        loop {
            let result = self.compress_all();
            if let Err(error) = &result {
                self.lock().say_uncompressed(error);
            }
            let mut compressor = lock(&self.compressor);
            // After a failure the next rotation is early enough.
            if *compressor != Compressor::Again || result.is_err() {
                *compressor = Compressor::Idle;
                return;
            }
            *compressor = Compressor::Running;
        }
    }

    /// Compresses one backup after the other until none is left.
    fn compress_all(&self) -> io::Result<()> {
        let mut before = None;
        loop {
            let Some(job) = self.lock().pending_compression()? else { return Ok(()) };
            let file = job.file()?;
            if file.is_some() && file == before {
                // Another process is at it, and goes on with the next by itself.
                return Ok(());
            }
            before = file;
            job.run()?;
        }
    }
}

/// Starts the thread, with every signal blocked in it: signals are for the threads of the program.
fn start(shared: Arc<SharedOutput>) -> io::Result<()> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let thread = thread::Builder::new().name(THREAD_NAME.to_owned());
    let started = thread.spawn(move || shared.run_compressor());
    // Setting a mask the system itself gave cannot fail.
    let _ = before.thread_set_mask();
    started.map(drop)
}

/// Locks; what a panic left behind here is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
