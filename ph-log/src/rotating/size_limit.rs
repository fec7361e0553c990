//! Writing under a limit on the size of files (`ulimit -f`): the signal that comes with it would end
//! the process, and a log is no reason to die.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Whether this process may not write files of any size.
pub(super) fn is_there() -> bool {
    getrlimit(Resource::RLIMIT_FSIZE).is_ok_and(|(limit, _)| limit != RLIM_INFINITY)
}

/// Does something that may reach the limit. Without one nothing else is done.
pub(super) fn guard<T>(act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if is_there() { guard_always(act) } else { act() }
}

/// The same where a limit is known to be there.
pub(super) fn guard_always<T>(act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mask = SigSet::from(Signal::SIGXFSZ);
    let before = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let result = act();
    let is_reached = result
        .as_ref()
        .err()
        .is_some_and(|error| error.raw_os_error() == Some(Errno::EFBIG as i32));
    // Where it was blocked before, it may wait there as it did.
    if is_reached && !before.contains(Signal::SIGXFSZ) {
        let taken = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .and_then(|signals| signals.read_signal());
        if taken.is_err() {
            // It cannot be taken back (no descriptor is left): it stays blocked.
            return result;
        }
    }
    before.thread_set_mask()?;
    result
}
