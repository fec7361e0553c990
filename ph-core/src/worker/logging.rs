//! What a worker's log is asked to do; who writes it is the program's choice.

use std::io;
use std::os::fd::OwnedFd;

use crate::sys::fds;

/// What a log must do when processes come and go. All methods have empty defaults.
///
/// `ph-core` itself only emits [`tracing`] events.
pub trait Logging: Send + Sync {
    /// Called in a freshly forked worker, with all signals blocked and before any code of the
    /// worker: what belongs to the master must be left alone, threads may be made from here on.
    fn enter_worker(&self, slot: u32, generation: u32) {
        let _ = (slot, generation);
    }

    /// Called in a freshly forked helper of this name, in the same circumstances.
    fn enter_helper(&self, name: &str) {
        let _ = name;
    }

    /// Called on every way out of a worker but SIGKILL: hand over what is queued. May be called more
    /// than once, and from a panic hook.
    fn flush(&self) {}

    /// What command workers get as stdout and stderr; asked for at the start and after each reopen.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being opened; the workers then keep what they had.
    fn stdio(&self) -> io::Result<OwnedFd> {
        Ok(fds::duplicate_above(io::stderr(), 3)?)
    }
}
