//! The master's way to its log process: a pipe that is never waited for, and a bounded queue before it.
//!
//! Invariants:
//!
//! * No call here waits. What the pipe does not take is queued, in its order; what the queue does not
//!   take is lost, counted, and told in a line of its own as soon as there is room again.
//! * The pipe gets whole lines, however many writes one takes: nobody else writes into it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::unistd::write;

/// The most bytes that wait for room in the pipe: some thousand lines of a master that is never talkative.
const QUEUE_LIMIT: usize = 256 * 1024;

/// The pipe and what waits for it.
#[derive(Debug)]
pub(crate) struct Relay {
    pipe: OwnedFd,
    waiting: VecDeque<u8>,
    /// Lines lost since the last report of it.
    lost: u64,
    /// Nobody reads what the pipe would take now.
    is_held: bool,
}

impl Relay {
    /// Of a non-blocking pipe.
    pub(crate) fn new(pipe: OwnedFd) -> Relay {
        Relay { pipe, waiting: VecDeque::new(), lost: 0, is_held: false }
    }

    /// Sends one whole line, or queues it. Says how many lines were lost by that: none or one.
    pub(crate) fn send(&mut self, line: &[u8], report: impl FnOnce(u64) -> String) -> u64 {
        self.resume();
        if self.lost > 0 {
            let report = report(self.lost);
            if self.waiting.len() + report.len() + line.len() > QUEUE_LIMIT {
                self.lost += 1;
                return 1;
            }
            self.lost = 0;
            self.put(report.as_bytes());
        }
        if self.waiting.len() + line.len() > QUEUE_LIMIT {
            self.lost += 1;
            return 1;
        }
        self.put(line);
        0
    }

    /// Sends nothing more. What waits is for [`into_rest`](Self::into_rest).
    pub(crate) fn hold(&mut self) {
        self.is_held = true;
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn resume(&mut self) {
        while !self.is_held && !self.waiting.is_empty() {
            let (first, _) = self.waiting.as_slices();
            match self.write(first) {
                Some(written @ 1..) => drop(self.waiting.drain(..written)),
                Some(0) | None => return,
            }
        }
    }

    /// Whether anything waits for room.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.is_held && !self.waiting.is_empty()
    }

    /// What the pipe has not taken: whole lines, but that the first may lack its beginning.
    pub(crate) fn into_rest(self) -> Vec<u8> {
        self.waiting.into()
    }

    fn put(&mut self, bytes: &[u8]) {
        let is_next = self.waiting.is_empty() && !self.is_held;
        let written = if is_next { self.write(bytes).unwrap_or(0) } else { 0 };
        self.waiting.extend(&bytes[written..]);
    }

    /// The bytes the pipe has taken. It has a reader as long as there is a master, who keeps a copy of
    /// that end, so `None` means that it is full.
    fn write(&self, bytes: &[u8]) -> Option<usize> {
        loop {
            match write(&self.pipe, bytes) {
                Err(Errno::EINTR) => {}
                result => return result.ok(),
            }
        }
    }
}

/// How a report of lost lines explains them.
pub(crate) const NO_ROOM: &str = "the log process did not take them";

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::unistd::{pipe2, read};

    fn everything(pipe: &OwnedFd) -> String {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = read(pipe, &mut buffer) {
            all.extend(&buffer[..length]);
        }
        String::from_utf8(all).expect("text")
    }

    #[test]
    fn nothing_waits_and_what_is_lost_is_told_in_its_place() {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        let mut relay = Relay::new(writer);
        let report = |lost: u64| format!("lost {lost}\n");
        let line = |number: usize| format!("{number:0>99}\n");
        let sent: u64 = (0..10_000).map(|n| 1 - relay.send(line(n).as_bytes(), report)).sum();
        assert!(relay.is_waiting() && sent < 10_000);
        let mut came = everything(&reader);
        for _ in 0..100 {
            relay.resume();
            came += &everything(&reader);
        }
        assert!(!relay.is_waiting());
        assert_eq!(relay.send(line(10_000).as_bytes(), report), 0);
        came += &everything(&reader);
        let sent = usize::try_from(sent).expect("a number");
        let wanted: String = (0..sent).map(line).collect();
        assert_eq!(came, format!("{wanted}lost {}\n{}", 10_000 - sent, line(10_000)));
    }

    #[test]
    fn what_is_sent_after_the_last_look_into_the_pipe_is_given_back() {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        let mut relay = Relay::new(writer);
        relay.send(b"master stopped\n", |_| String::new());
        relay.hold();
        relay.send(b"the command was killed\n", |_| String::new());
        relay.resume();
        assert!(!relay.is_waiting(), "nothing waits for room");
        assert_eq!(everything(&reader), "master stopped\n");
        assert_eq!(relay.into_rest(), b"the command was killed\n");
    }

    #[test]
    fn what_the_pipe_has_not_taken_is_given_back() {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        let mut relay = Relay::new(writer);
        let line = [b'x'; 99].into_iter().chain(*b"\n").collect::<Vec<_>>();
        for _ in 0..1000 {
            assert_eq!(relay.send(&line, |_| String::new()), 0);
        }
        let came = everything(&reader).len();
        assert_eq!(relay.into_rest().len() + came, 100_000);
    }
}
