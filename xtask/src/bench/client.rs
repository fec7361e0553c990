//! A client of the servers of the bench.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Child;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::monotonic;

/// How long a request may take before it counts as failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) const SECOND: u64 = 1_000_000_000;

/// An address on loopback that nobody listens at.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Ends a child by a signal.
pub(super) fn end_by(mut child: Child, signal: Signal) -> Result<()> {
    // It has not been reaped, so the pid is still its own.
    kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
    child.wait()?;
    Ok(())
}

/// A request over a connection of its own, and the whole answer.
pub(super) fn request(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    whole(answer.ends_with(b"Hello, world!"))
}

/// An answer that is not what it should be counts as a failure.
pub(super) fn whole(is_whole: bool) -> std::io::Result<()> {
    if is_whole { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// Waits until somebody serves.
pub(super) fn await_first(address: SocketAddr) -> Result<()> {
    let give_up = monotonic() + 10 * SECOND;
    while request(address).is_err() {
        if monotonic() > give_up {
            bail!("the server does not serve");
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}
