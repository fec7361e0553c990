//! What a log is asked to do as processes come and go; who writes it is the program's choice.

use std::os::fd::{OwnedFd, RawFd};

use super::Result;
use crate::driver::LogFeed;

/// What a log must do when processes come and go. All methods have empty defaults.
///
/// `ph-core` itself only emits [`tracing`] events.
pub trait Logging: Send + Sync {
    /// What [`Master::log_settings`](crate::Master::log_settings) says has changed, or may have. Called
    /// in the master when a reload is taken up or taken back, and first of all in every forked worker,
    /// with the settings of its generation. Says whether anything has changed; then the log process is
    /// told to make room ([`LogOrder::Renew`](crate::LogOrder::Renew)) for one that is forked from a
    /// master that knows.
    ///
    /// It must not wait for a disk: what is opened by other settings is opened by whoever writes next.
    fn configure(&self, settings: &str) -> bool {
        let _ = settings;
        false
    }

    /// Called in a freshly forked worker, with all signals blocked and before any code of the
    /// worker: what belongs to the master must be left alone, threads may be made from here on.
    ///
    /// `records` is there if the worker runs as another user, who may not be able to open the log: the
    /// write end of a pipe that the log process reads, see [`OutputStream::Records`].
    fn enter_worker(&self, slot: u32, generation: u32, records: Option<OwnedFd>) {
        let _ = (slot, generation, records);
    }

    /// Called in a freshly forked helper of this name, in the same circumstances.
    fn enter_helper(&self, name: &str) {
        let _ = name;
    }

    /// Called on every way out of a worker but SIGKILL: hand over what is queued. May be called more
    /// than once, and from a panic hook.
    fn flush(&self) {}

    /// What this log has to do with its own process, if it wants one. Without one, workers inherit the
    /// master's stdout and stderr.
    fn process(&self) -> Option<&dyn LogProcess> {
        None
    }
}

/// What a log process has done when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEnd {
    /// All that it was given is in the log.
    Complete,
    /// The log did not take all of it.
    Incomplete,
}

/// A log with a process of its own: the one that waits for disks and terminals, so that neither the
/// master nor a worker has to.
///
/// It is a helper that ends after all others. It is killed and started anew like any; what its sources
/// hold stays in their pipes meanwhile.
pub trait LogProcess {
    /// The log process: brings to the log what `feed` gives, until that says that it is over. An error
    /// ends the process with exit code 1, a panic with 101.
    ///
    /// What it does not bring to the log at the end is lost, and makes the exit code of an ordered
    /// stop 1.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from going on; the master starts another one.
    fn run(&self, feed: LogFeed) -> Result<LogEnd>;

    /// Descriptors that nobody but the master and its log process is to have.
    fn fds(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// In the master, once the log process runs: the master's lines go into this pipe from now on,
    /// which is non-blocking and whose other end is one of the log process's sources.
    fn attach(&self, pipe: OwnedFd);

    /// In the master: writes the lines for which there was no room, as far as there is now.
    fn resume(&self);

    /// In the master: whether lines wait for room in the pipe.
    fn is_waiting(&self) -> bool;

    /// In the master: the log process is told to bring to the log what is there, and to end. What is
    /// logged from now on must wait for [`detach`](Self::detach): it may not look again.
    fn hold(&self);

    /// In the master: the log process has ended, and there will be no other. `unread` is what it may not
    /// have written of the master's lines. Neither these nor what is logged from now on must wait for a
    /// disk if it was killed (`is_killed`), because then it waited for one itself.
    fn detach(&self, unread: &[u8], is_killed: bool);
}

/// What a log process reads.
#[derive(Debug)]
pub struct LogSource {
    /// Its number, never used again by this master.
    pub id: u64,
    /// The end to read from, non-blocking. The master keeps another copy until
    /// [`LogFeed::ended`] says that nothing is left in it.
    pub pipe: OwnedFd,
    /// Who writes into the other end.
    pub origin: LogOrigin,
}

/// Who writes into a pipe of the log process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOrigin {
    /// The master, by the pipe it was given in [`LogProcess::attach`].
    Master,
    /// A worker.
    Worker {
        /// Its place.
        slot: u32,
        /// Its configuration.
        generation: u32,
        /// Its process.
        pid: u32,
        /// Which of its outputs.
        stream: OutputStream,
    },
    /// A helper that is another program.
    Helper {
        /// Its name.
        name: String,
        /// Its process.
        pid: u32,
        /// Which of its outputs.
        stream: OutputStream,
    },
}

/// An output of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
    /// What a forked worker of another user logs, given to it in [`Logging::enter_worker`]. It is not
    /// to be trusted more than what it prints.
    Records,
}
