//! The one `fork` outside of ph-core, and what its children do: stamp the clock and wait, or serve.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid, fork, pause, setsid};
use xtask::Stamp;

/// Forks a child that stamps the clock on entry and lives until a signal ends it.
pub(crate) fn stamping_child(pipe: &File) -> nix::Result<Pid> {
    child(|| {
        // If nobody reads, the bench misses the stamp and says so.
        let _ = Stamp::now().write(pipe);
        let _ = SigSet::empty().thread_set_mask();
        loop {
            pause();
        }
    })
}

/// Forks a child that serves one connection after the other, by four system calls each. It has a session of its
/// own, as workers have: the kernel gives each session its share of a CPU (autogroup), and one that shares that of
/// the load finds more connections at a time, and sleeps less.
pub(crate) fn serving_child(listener: &TcpListener) -> nix::Result<Pid> {
    child(|| {
        let _ = SigSet::empty().thread_set_mask();
        let _ = setsid();
        // Ctrl-C does not reach another session.
        let _ = set_pdeathsig(Signal::SIGKILL);
        loop {
            let Ok((mut connection, _)) = listener.accept() else { continue };
            let mut request = [0; 1024];
            // A client that goes away is none that was served, and the bench counts those.
            let _ = connection.read(&mut request).and_then(|_| connection.write_all(xtask::HELLO));
        }
    })
}

#[expect(unsafe_code, reason = "the floor of the bench is a bare fork, which has no safe wrapper")]
fn child(live: impl FnOnce()) -> nix::Result<Pid> {
    // SAFETY: this program never has a second thread, so the child may do whatever it likes.
    if let ForkResult::Parent { child } = unsafe { fork() }? {
        return Ok(child);
    }
    live();
    std::process::abort()
}
