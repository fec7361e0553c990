//! The one `fork` outside of ph-core, and what its child does: stamp the clock, and wait.

use std::fs::File;

use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, Pid, fork, pause};
use xtask::Stamp;

/// Forks a child that stamps the clock on entry and lives until a signal ends it.
#[expect(unsafe_code, reason = "the floor of the bench is a bare fork, which has no safe wrapper")]
pub(crate) fn stamping_child(pipe: &File) -> nix::Result<Pid> {
    // SAFETY: this program never has a second thread, so the child may do whatever it likes.
    if let ForkResult::Parent { child } = unsafe { fork() }? {
        return Ok(child);
    }
    // If nobody reads, the bench misses the stamp and says so.
    let _ = Stamp::now().write(pipe);
    let _ = SigSet::empty().thread_set_mask();
    loop {
        pause();
    }
}
