//! The log process's end: what it gets from its master, and what it says.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use nix::errno::Errno;

use super::message::{ENDED_MAX, MESSAGE_LIMIT, is_source, parse};
use crate::sys::channel::Channel;
use crate::sys::signals;
use crate::worker::LogSource;

/// Messages taken from the channel in one turn.
const MESSAGES_A_TURN: usize = 64;

/// What the log process is told.
#[derive(Debug)]
pub enum LogOrder {
    /// There is another source.
    Source(LogSource),
    /// Files are to be opened anew (SIGUSR1). It is the log process that says when it has done it: the
    /// line is to be in the new file.
    Reopen,
    /// End now, as after a kill: another one is started at once, which has the settings of today.
    Renew,
    /// Everything has ended: bring to the log what is there, and end.
    Finish,
    /// The master is no more, and ended nobody: bring everything to the log until all sources have
    /// ended, which the warden sees to, and end.
    Orphaned,
}

/// What a log process gets from its master.
#[derive(Debug)]
pub struct LogFeed {
    channel: Channel,
    sources: Vec<LogSource>,
    untold: Vec<u64>,
    is_over: bool,
}

impl LogFeed {
    pub(super) fn new(channel: Channel, sources: Vec<LogSource>) -> Self {
        Self { channel, sources, untold: Vec::new(), is_over: false }
    }

    /// The sources that were there when the process was forked. Empty at the second call.
    pub fn sources(&mut self) -> Vec<LogSource> {
        std::mem::take(&mut self.sources)
    }

    /// What becomes readable when there are orders.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// The orders that are there now, without waiting. After [`LogOrder::Renew`],
    /// [`LogOrder::Finish`] and [`LogOrder::Orphaned`] there are no more.
    ///
    /// # Errors
    ///
    /// A source came without its pipe, because no descriptor is left, or nothing can be heard of the
    /// master any more. Whoever comes after this process inherits all sources, which takes no room.
    pub fn orders(&mut self) -> io::Result<Vec<LogOrder>> {
        self.tell_ended();
        let mut orders = Vec::new();
        let mut message = [0; MESSAGE_LIMIT];
        while !self.is_over && orders.len() < MESSAGES_A_TURN {
            let order = match self.channel.receive(&mut message) {
                Ok((0, _)) => Some(LogOrder::Orphaned),
                Ok((length, None)) if is_source(&message[..length]) => {
                    return Err(Errno::EMFILE.into());
                }
                Ok((length, pipe)) => parse(&message[..length], pipe),
                Err(Errno::EAGAIN) => break,
                Err(Errno::ECONNRESET) => Some(LogOrder::Orphaned),
                Err(errno) => return Err(errno.into()),
            };
            self.is_over =
                matches!(order, Some(LogOrder::Renew | LogOrder::Finish | LogOrder::Orphaned));
            if let Some(LogOrder::Reopen) = order {
                signals::count_reopen();
            }
            orders.extend(order);
        }
        Ok(orders)
    }

    /// Tells the master that nothing is left in these sources, and nobody has their other ends.
    pub fn ended(&mut self, sources: &[u64]) {
        self.untold.extend(sources);
        self.tell_ended();
    }

    fn tell_ended(&mut self) {
        while !self.untold.is_empty() {
            let some = &self.untold[..self.untold.len().min(ENDED_MAX)];
            let numbers: Vec<_> = some.iter().map(|id| id.to_le_bytes()).collect();
            // A master that takes nothing now is told with the next; one that is no more, not at all.
            if self.channel.send(numbers.as_flattened(), None).is_err() {
                return;
            }
            self.untold.drain(..numbers.len());
        }
    }
}
