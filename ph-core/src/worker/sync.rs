//! The class `sync`: one request at a time, with listeners or as a job loop.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{Connection, Context, Result, Worker};
use crate::sys::clock;

/// How long a worker waits after an `accept` that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket, non-blocking, shared with all workers.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().map(|(stream, peer)| Connection::Tcp(stream, peer))
            }
            Self::Unix(listener) => listener.accept().map(|(stream, _)| Connection::Unix(stream)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Calls `handle_request` until the worker is to stop.
pub(super) fn run(worker: &mut dyn Worker, ctx: &Context, listeners: &[&Listener]) -> Result {
    if listeners.is_empty() { run_jobs(worker, ctx) } else { serve(worker, ctx, listeners) }
}

fn run_jobs(worker: &mut dyn Worker, ctx: &Context) -> Result {
    while ctx.running() {
        worker.handle_request(ctx, None)?;
        ctx.count_request();
    }
    Ok(())
}

/// Takes connections while there are any, one system call each, and sleeps only when there are
/// none. Idle workers sleep on the listeners exclusively: a connection wakes one of them.
fn serve(worker: &mut dyn Worker, ctx: &Context, listeners: &[&Listener]) -> Result {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for listener in listeners {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        epoll.add(listener, EpollEvent::new(flags, 0))?;
    }
    epoll.add(ctx.signals.stop_pipe(), EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    let timeout = ctx.beat_every.map(clock::millis).and_then(|ms| EpollTimeout::try_from(ms).ok());
    let timeout = timeout.unwrap_or(EpollTimeout::NONE);
    let mut next = 0;
    while ctx.running() {
        match accept_one(listeners, &mut next) {
            Ok(Some(connection)) => {
                let peer = connection.peer();
                if let Err(error) = worker.handle_request(ctx, Some(connection)) {
                    tracing::error!("a request of {peer} failed: {error}");
                }
                ctx.count_request();
            }
            Ok(None) => {
                // Interrupted or not: whatever is there is found by the next look.
                let _ = epoll.wait(&mut [EpollEvent::empty()], timeout);
            }
            Err(error) => {
                tracing::warn!("accept failed, trying again: {error}");
                ctx.sleep(ACCEPT_PAUSE);
            }
        }
    }
    Ok(())
}

/// A connection from the first listener that has one, starting behind the one that gave the last, so
/// that a busy listener does not starve the others.
fn accept_one(listeners: &[&Listener], next: &mut usize) -> io::Result<Option<Connection>> {
    for _ in 0..listeners.len() {
        let listener = &listeners[*next % listeners.len()];
        *next = next.wrapping_add(1);
        match listener.accept() {
            Ok(connection) => return Ok(Some(connection)),
            Err(error) => {
                let passing = matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::Interrupted
                        | io::ErrorKind::ConnectionAborted
                );
                if !passing {
                    return Err(error);
                }
            }
        }
    }
    Ok(None)
}
