//! How a thread serves: requests one after the other, with listeners or as a job loop.

use std::io;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::panics::caught;
use super::queue::Queue;
use super::{Connection, Context, Listener, Result};
use crate::sys::clock;

/// How long a worker waits after an `accept` that failed for want of descriptors or memory.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a request is given to.
pub(super) type Handle<'a> = &'a mut dyn FnMut(&Context, Option<Connection>) -> Result;

/// Gives away requests until the worker is to stop.
pub(super) fn serve(ctx: &Context, listeners: &[&Listener], handle: Handle<'_>) -> Result {
    if listeners.is_empty() {
        run_jobs(ctx, handle)
    } else {
        take_connections(ctx, listeners, handle)
    }
}

fn run_jobs(ctx: &Context, handle: Handle<'_>) -> Result {
    while ctx.running() {
        handle(ctx, None)?;
        ctx.count_request();
    }
    Ok(())
}

/// One wait in so many is left out, to see whether there is a crowd; in fewer, up to one in [`LOOK_RARELY`],
/// where there never is.
const LOOK_EVERY: u32 = 8;
const LOOK_RARELY: u32 = 128;

/// Waits for a connection and takes it, by two system calls; in a crowd, where the next one is there
/// already, by one. Idle workers wait on the listeners exclusively: a connection wakes one of them.
fn take_connections(ctx: &Context, listeners: &[&Listener], handle: Handle<'_>) -> Result {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for listener in listeners {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        epoll.add(listener, EpollEvent::new(flags, 0))?;
    }
    epoll.add(ctx.own().signals.stop_pipe(), EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    let timeout =
        ctx.own().beat_every.map(clock::millis).and_then(|ms| EpollTimeout::try_from(ms).ok());
    let timeout = timeout.unwrap_or(EpollTimeout::NONE);
    let (mut next, mut is_crowd) = (0, false);
    let (mut every, mut left) = (LOOK_EVERY, 0);
    while ctx.running() {
        let looks_at_once = is_crowd || left == 0;
        if !looks_at_once {
            ctx.rest();
            // Interrupted or not, told to stop or not: whoever is woken owes a look (`sys::exclusive`).
            let _ = epoll.wait(&mut [EpollEvent::empty()], timeout);
            ctx.beat();
        }
        left = if looks_at_once { every } else { left - 1 };
        is_crowd = false;
        match accept_one(listeners, &mut next, true) {
            Ok(Some(connection)) => {
                is_crowd = looks_at_once;
                every = if is_crowd { LOOK_EVERY } else { every };
                answer(ctx, connection, handle);
            }
            Ok(None) if looks_at_once => every = (2 * every).min(LOOK_RARELY),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!("accept failed, trying again: {error}");
                ctx.sleep(ACCEPT_PAUSE);
            }
        }
    }
    let mut queue = Queue::left_to(ctx, listeners, true);
    while let Some(connection) = queue.take() {
        answer(ctx, connection, handle);
    }
    Ok(())
}

fn answer(ctx: &Context, connection: Connection, handle: Handle<'_>) {
    let peer = connection.peer();
    match caught(|| handle(ctx, Some(connection))) {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::error!("a request of {peer} failed: {error}"),
        None => ctx.count_panic(),
    }
    ctx.count_request();
}

/// A connection from the first listener that has one, starting behind the one that gave the last, so
/// that a busy listener does not starve the others.
pub(super) fn accept_one(
    listeners: &[&Listener],
    next: &mut usize,
    is_blocking: bool,
) -> io::Result<Option<Connection>> {
    for _ in 0..listeners.len() {
        let listener = &listeners[*next % listeners.len()];
        *next = next.wrapping_add(1);
        match listener.accept(is_blocking) {
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
