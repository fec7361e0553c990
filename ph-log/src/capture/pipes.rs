//! Looking into a pipe, and taking bytes out of it, without a wait and without a moment in which a
//! kill could lose them.
//!
//! Whoever writes into a pipe may also read from it, through `/proc`: there may be fewer bytes
//! than were seen a moment ago, or none. Packets (`O_DIRECT`) are read one by one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{pipe2, read};

use super::journal::to_usize;

/// Both ends of a pipe, neither of which ever waits.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

/// What is in a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peek {
    /// So many bytes at least.
    Bytes(usize),
    Empty,
    /// Nothing, and nobody is there to write more.
    Ended,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Pipe> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Pipe { read, write })
    }

    pub(super) fn resize(&self, capacity: usize) -> bool {
        let Ok(capacity) = i32::try_from(capacity) else { return false };
        fcntl(&self.read, FcntlArg::F_SETPIPE_SZ(capacity)).is_ok()
    }

    /// Throws away what is in it.
    pub(super) fn empty(&self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match read(&self.read, buffer) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// The bytes a pipe has room for.
pub(super) fn capacity(pipe: impl AsFd) -> usize {
    let size = fcntl(pipe, FcntlArg::F_GETPIPE_SZ).unwrap_or(0);
    usize::try_from(size).unwrap_or(0)
}

/// Copies the first bytes of a pipe, as many as the buffer and the scratch have room for.
pub(super) fn peek(pipe: impl AsFd, scratch: &Pipe, buffer: &mut [u8]) -> io::Result<Peek> {
    let copied = loop {
        match tee(&pipe, &scratch.write, buffer.len(), SpliceFFlags::SPLICE_F_NONBLOCK) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(Peek::Empty),
            Err(errno) => return Err(errno.into()),
            // Somebody may have emptied the pipe at this very moment.
            Ok(0) if is_ended(&pipe) => return Ok(Peek::Ended),
            Ok(0) => return Ok(Peek::Empty),
            Ok(copied) => break copied,
        }
    };
    let mut done = 0;
    while done < copied {
        match read(&scratch.read, &mut buffer[done..]) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) | Ok(0) => break,
            Err(errno) => return Err(errno.into()),
            Ok(some) => done += some,
        }
    }
    Ok(Peek::Bytes(done))
}

fn is_ended(pipe: impl AsFd) -> bool {
    let mut asked = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let answered = poll(&mut asked, PollTimeout::ZERO).is_ok();
    let answer = asked[0].revents().unwrap_or(PollFlags::empty());
    answered && answer.contains(PollFlags::POLLHUP) && !answer.contains(PollFlags::POLLIN)
}

/// Moves the first bytes of a pipe into the hold, in one step. Returns how many: fewer if they are
/// not there any more or the hold is full.
pub(super) fn take(pipe: impl AsFd, hold: &Pipe, bytes: u64) -> io::Result<u64> {
    loop {
        let wanted = to_usize(bytes);
        match splice(&pipe, None, &hold.write, None, wanted, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(0),
            Err(errno) => return Err(errno.into()),
            Ok(taken) => return Ok(taken as u64),
        }
    }
}
