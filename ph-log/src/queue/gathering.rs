//! Where lines gather while the background thread is at work.
//!
//! A line that finds the thread asleep is sent to it at once, and wakes it. A line that finds it at
//! work joins what gathers here: a message of its own would cost an allocation, and a look at the
//! thread, for nothing. What has gathered is sent when the next line does not fit, and otherwise
//! taken by the thread itself before it sleeps.
//!
//! Invariants:
//!
//! * **No line is forgotten.** The thread sleeps only after it has said so here, under the lock, when
//!   nothing has gathered and no message is on its way. No timer is needed, and no line waits for
//!   another.
//! * **Order.** Messages are sent under the lock, and what has gathered is younger than all of them:
//!   it is taken only when every message has arrived.
//! * **A bound.** At most [`LINES_LIMIT`] lines are here, on their way or being written; whoever logs
//!   one more waits, without the lock. Every message carries one of those lines or more, so a queue
//!   of as many messages is never full, and nobody waits for it while holding the lock.

use std::mem;
use std::sync::{Condvar, Mutex, PoisonError};

use super::BATCH_LIMIT;
use crate::shared::lock;

/// The most lines that wait; with one more, whoever logs waits too.
pub(super) const LINES_LIMIT: u64 = 1000;

/// How many lines may be left when those who wait go on: each of them is woken once for many lines.
const LINES_TO_GO_ON: u64 = LINES_LIMIT / 2;

/// What the thread does, as those who log need to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Thread {
    /// It waits for a message, or is about to.
    #[default]
    Asleep,
    /// It looks here before it sleeps.
    AtWork,
    /// It takes nothing any more.
    Gone,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, at most `BATCH_LIMIT` bytes of them.
    bytes: Vec<u8>,
    /// Lines that were taken here and are not written yet.
    lines: u64,
    /// Messages that were sent and have not arrived.
    messages: usize,
    /// Threads that wait for room.
    waiting: usize,
    thread: Thread,
}

/// What all threads of a process and the background thread share.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    state: Mutex<State>,
    room: Condvar,
}

impl Gathering {
    /// Takes one whole line, as soon as there is room for it. `send` sends a message of whole lines
    /// and says whether that was possible; where it was not, the thread is gone, and what it will
    /// never take is given back.
    pub(super) fn push(
        &self,
        line: &[u8],
        mut send: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Vec<u8>> {
        let mut state = lock(&self.state);
        while state.lines >= LINES_LIMIT && state.thread != Thread::Gone {
            state.waiting += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        let mut is_sent = true;
        if state.bytes.len() + line.len() > BATCH_LIMIT {
            is_sent = state.send(&mut send);
        }
        state.bytes.extend_from_slice(line);
        state.lines += 1;
        if state.thread == Thread::Asleep {
            is_sent = is_sent && state.send(&mut send);
        }
        if is_sent && state.thread != Thread::Gone { Ok(()) } else { Err(state.give_back()) }
    }

    /// Counts a message that has arrived.
    pub(super) fn receive(&self) {
        let mut state = lock(&self.state);
        state.messages = state.messages.saturating_sub(1);
    }

    /// Exchanges `empty` for what has gathered; `false` if that is nothing or not its turn yet. After
    /// that the thread may wait for a message.
    pub(super) fn take(&self, empty: &mut Vec<u8>) -> bool {
        let mut state = lock(&self.state);
        if state.messages > 0 {
            return false;
        }
        if state.bytes.is_empty() {
            state.thread = Thread::Asleep;
            return false;
        }
        mem::swap(&mut state.bytes, empty);
        true
    }

    /// Counts lines that need no more care.
    pub(super) fn settle(&self, lines: u64) {
        let mut state = lock(&self.state);
        state.lines = state.lines.saturating_sub(lines);
        if state.waiting > 0 && state.lines <= LINES_TO_GO_ON {
            drop(state);
            self.room.notify_all();
        }
    }

    /// Says that the thread ends: nobody waits for it any more.
    pub(super) fn leave(&self) {
        lock(&self.state).thread = Thread::Gone;
        self.room.notify_all();
    }
}

impl State {
    /// Sends what has gathered, if that is anything.
    fn send(&mut self, send: impl FnOnce(&[u8]) -> bool) -> bool {
        if self.bytes.is_empty() {
            return true;
        }
        if self.thread == Thread::Gone || !send(&self.bytes) {
            return false;
        }
        self.thread = Thread::AtWork;
        self.messages += 1;
        self.bytes.clear();
        true
    }

    fn give_back(&mut self) -> Vec<u8> {
        self.thread = Thread::Gone;
        mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests;
