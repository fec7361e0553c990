//! The last connections of a service: those that were queued when all its workers were told to stop.
//!
//! The kernel accepts a connection before any worker does, and a client may have said all it has to say by
//! then. In a roll or a scale-down the others serve it. Where everybody goes, nobody would, and it would be
//! reset when the last listener is closed. So whoever is stopped for good goes on with what is queued at that
//! moment, and with no more than that: clients that come later must not keep a service from ending.

use std::io;
use std::time::Duration;

use super::{Connection, Context, Listener};
use crate::sys::{clock, fds, sockets};

/// Where the kernel does not say how many are queued, it is at most so many: the longest queue there can be
/// unless somebody has raised it (`net.core.somaxconn`).
const LONGEST: u32 = 4096;

/// What is queued at the listeners of a worker that stops.
pub(super) struct Queue<'a> {
    /// How many are still to be taken of each.
    listeners: Vec<(&'a Listener, u32)>,
    is_blocking: bool,
    /// When the worker will be killed.
    until: u64,
    taken_at: Option<u64>,
    /// The longest time that one has taken: with less than twice that left, no other is begun.
    longest: u64,
}

impl<'a> Queue<'a> {
    /// Nothing, if others go on with it.
    pub(super) fn left_to(ctx: &Context, listeners: &[&'a Listener], is_blocking: bool) -> Self {
        let until = ctx.own().seat.queue_until();
        let listeners = match until {
            0 => Vec::new(),
            _ => listeners.iter().map(|listener| (*listener, queued(listener))).collect(),
        };
        Self { listeners, is_blocking, until, taken_at: None, longest: 0 }
    }

    /// The next one. Each is to be served before the next is asked for.
    pub(super) fn take(&mut self) -> Option<Connection> {
        let now = clock::monotonic();
        if let Some(taken_at) = self.taken_at.take() {
            self.longest = self.longest.max(now.saturating_sub(taken_at));
        }
        let has_time = now.saturating_add(2 * self.longest) < self.until;
        while let Some((listener, left)) = self.listeners.last_mut() {
            if !has_time {
                let is_any = fds::wait_readable(*listener, Duration::ZERO);
                if is_any && *left > 0 {
                    tracing::warn!("there is no time left for what is queued: {left} at most");
                }
            } else if let Some(rest) = left.checked_sub(1) {
                *left = rest;
                match listener.accept(self.is_blocking) {
                    Ok(connection) => {
                        self.taken_at = Some(now);
                        return Some(connection);
                    }
                    Err(error) if is_passing(&error) => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => tracing::warn!("accept failed, what is queued is left: {error}"),
                }
            }
            self.listeners.pop();
        }
        None
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted)
}

fn queued(listener: &Listener) -> u32 {
    match listener {
        Listener::Tcp(listener) => sockets::queued(listener).unwrap_or(LONGEST),
        Listener::Unix(_) => LONGEST,
    }
}
