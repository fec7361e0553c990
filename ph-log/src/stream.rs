//! Stderr as a place for lines, and the account of what it could not take.
//!
//! Invariants:
//!
//! * A write hands over whole lines, in pieces of at most [`PIPE_ATOMIC`] bytes that end at a
//!   line's end: stderr may be a pipe that others write to as well, and a pipe keeps no larger
//!   piece together.
//! * A short write goes on with the rest, EINTR is tried again; any other error ends the attempt
//!   and the lines that did not get out whole are counted as lost.
//! * Once lines were lost, the next attempt begins with the report of it, on a line of its own
//!   even if the last line was torn (stderr may be a file on a disk that became full). While the
//!   report fails, nothing else is tried.
//! * Stderr never blocks for ever: it is asked with `poll(2)` first. A reader that does not read
//!   is given [`STALL_LIMIT`] once, and no time after that until it reads again. Asking also
//!   finds out a closed pipe without the SIGPIPE that would end a worker. What is left is a
//!   reader that goes, or another writer that fills the pipe, between the question and the write.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

use crate::output::{Writer, lines_in};

/// What a pipe takes as one piece: PIPE_BUF of Linux.
const PIPE_ATOMIC: usize = 4096;

/// How long a stderr that takes nothing is waited for.
const STALL_LIMIT: Duration = Duration::from_secs(1);

/// How often an interrupted or refused write to stderr is tried again.
const TRIES: u32 = 10;

/// Stderr and what it still has to be told.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Lines lost and not yet reported, with the error that lost the last of them.
    lost: Option<(u64, Errno)>,
    is_torn: bool,
    is_stalled: bool,
}

/// A write that ended early.
struct Failure {
    written: usize,
    errno: Errno,
}

impl Stream {
    /// Forgets the account, which is that of the process this one was forked from.
    pub(crate) fn forget(&mut self) {
        *self = Stream::default();
    }

    /// Lines lost and not yet reported.
    pub(crate) fn unreported(&self) -> u64 {
        self.lost.map_or(0, |(lines, _)| lines)
    }

    /// Writes whole lines and returns how many of them were lost.
    pub(crate) fn write(&mut self, lines: &[u8], writer: &Writer) -> u64 {
        if let Err(failure) = self.report(writer) {
            return self.lose(lines, failure.errno);
        }
        match self.put(lines) {
            Ok(()) => 0,
            Err(Failure { written, errno }) => self.lose(&lines[written..], errno),
        }
    }

    fn report(&mut self, writer: &Writer) -> Result<(), Failure> {
        let Some((lost, errno)) = self.lost else { return Ok(()) };
        let mut report = String::new();
        if self.is_torn {
            report.push('\n');
        }
        let error = io::Error::from(errno).to_string();
        writer.notice_of_loss(&mut report, lost, &error);
        self.put(report.as_bytes())?;
        self.lost = None;
        Ok(())
    }

    fn lose(&mut self, rest: &[u8], errno: Errno) -> u64 {
        let lines = lines_in(rest);
        let before = self.lost.map_or(0, |(lost, _)| lost);
        self.lost = Some((before + lines, errno));
        lines
    }

    /// Writes all bytes, or says how many got out.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut written = 0;
        while written < bytes.len() {
            match self.put_some(first_piece(&bytes[written..])) {
                Ok(0) => return Err(Failure { written, errno: Errno::EIO }),
                Ok(some) => {
                    written += some;
                    self.is_torn = bytes[written - 1] != b'\n';
                }
                Err(errno) => return Err(Failure { written, errno }),
            }
        }
        Ok(())
    }

    fn put_some(&mut self, piece: &[u8]) -> Result<usize, Errno> {
        let stderr = io::stderr();
        for _ in 0..TRIES {
            let patience = if self.is_stalled { Duration::ZERO } else { STALL_LIMIT };
            let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
            let mut asked = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut asked, timeout) {
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
                Ok(0) => {
                    self.is_stalled = true;
                    return Err(Errno::ETIMEDOUT);
                }
                Ok(_) => {}
            }
            let answer = asked[0].revents().unwrap_or(PollFlags::empty());
            if let Some(errno) = closed(answer) {
                return Err(errno);
            }
            match write(stderr.as_fd(), piece) {
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => return Err(errno),
                Ok(written) => {
                    self.is_stalled = false;
                    return Ok(written);
                }
            }
        }
        self.is_stalled = true;
        Err(Errno::EAGAIN)
    }
}

/// The error a write would end in, by the answer of poll.
fn closed(answer: PollFlags) -> Option<Errno> {
    if answer.contains(PollFlags::POLLNVAL) {
        Some(Errno::EBADF)
    } else if answer.contains(PollFlags::POLLHUP) {
        Some(Errno::EIO)
    } else if answer.contains(PollFlags::POLLERR) {
        Some(Errno::EPIPE)
    } else {
        None
    }
}

/// The longest run of whole lines a pipe takes as one; of a longer line, its beginning.
fn first_piece(bytes: &[u8]) -> &[u8] {
    let within = &bytes[..bytes.len().min(PIPE_ATOMIC)];
    match within.iter().rposition(|&byte| byte == b'\n') {
        Some(end) => &within[..=end],
        None => within,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_ends_at_a_line() {
        assert_eq!(first_piece(b"one\ntwo\n"), b"one\ntwo\n");
        let mut long = vec![b'x'; PIPE_ATOMIC - 10];
        long.extend(b"\nthe second line\n");
        assert_eq!(first_piece(&long).len(), PIPE_ATOMIC - 9);
        let endless = vec![b'x'; PIPE_ATOMIC + 10];
        assert_eq!(first_piece(&endless).len(), PIPE_ATOMIC);
    }
}
