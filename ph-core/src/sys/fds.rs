//! Descriptors: pipes, /dev/null, the descriptor limit, and closing what a child must not keep.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;

use super::clock;

/// A pipe (read end, write end), close-on-exec and non-blocking at both ends.
pub(crate) fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
}

/// A pipe for what a program writes: the read end is non-blocking, the write end as every program
/// expects its output to be.
pub(crate) fn output_pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read_end, write_end))
}

/// The bytes in a pipe; 0 if that cannot be told.
pub(crate) fn bytes_in(pipe: impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    let number = pipe.as_fd().as_raw_fd();
    // SAFETY: the call writes one int, to a live variable.
    let asked = unsafe { libc::ioctl(number, libc::FIONREAD, &raw mut bytes) };
    if asked == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// What was sent over a socket and not received yet, in bytes and with what the kernel keeps of each
/// message; 0 if that cannot be told.
pub(crate) fn bytes_unheard(socket: impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    let number = socket.as_fd().as_raw_fd();
    // SAFETY: the call writes one int, to a live variable.
    let asked = unsafe { libc::ioctl(number, libc::TIOCOUTQ, &raw mut bytes) };
    if asked == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Whether nobody has the other end of a pipe any more.
pub(crate) fn is_hung_up(pipe: impl AsFd) -> bool {
    let mut asked = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    let answered = poll(&mut asked, PollTimeout::ZERO) == Ok(1);
    answered && asked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

/// /dev/null for reading and writing, close-on-exec.
pub(crate) fn dev_null() -> nix::Result<OwnedFd> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
}

/// Descriptors that are kept for what must be possible even when there are no others: they are
/// closed while it is done.
#[derive(Debug)]
pub(crate) struct Spare {
    /// What all are copies of; to copy is quicker than to open.
    source: OwnedFd,
    kept: Vec<OwnedFd>,
}

impl Spare {
    /// A pidfd, a folder and a file in it.
    const COUNT: usize = 3;

    pub(crate) fn new() -> nix::Result<Self> {
        let mut spare = Self { source: dev_null()?, kept: Vec::new() };
        spare.refill();
        Ok(spare)
    }

    /// Closes them, so that as many can be opened.
    pub(crate) fn release(&mut self) {
        self.kept.clear();
    }

    /// As many as can be had now.
    pub(crate) fn refill(&mut self) {
        while self.kept.len() < Self::COUNT
            && let Ok(fd) = duplicate_above(&self.source, 3)
        {
            self.kept.push(fd);
        }
    }

    pub(crate) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        self.kept.iter().chain([&self.source]).map(AsRawFd::as_raw_fd)
    }
}

/// What the caller of this program let slip into it: descriptors that were kept over its `exec`. All
/// that this program opens is close-on-exec from birth.
pub(crate) fn inherited() -> Vec<RawFd> {
    let numbers = open_numbers().into_iter().filter(|number| *number > 2);
    numbers.filter(|number| is_kept_over_exec(*number)).collect()
}

/// All descriptors of this process, by their numbers; none where /proc cannot be read.
pub(super) fn open_numbers() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// Takes over a descriptor that was kept over this program's `exec` on purpose, if it is one: from now on it
/// is close-on-exec.
pub(crate) fn adopt(number: RawFd) -> Option<OwnedFd> {
    if number <= 2 || !is_kept_over_exec(number) {
        return None;
    }
    // SAFETY: it was open when this program began, and whoever started it has named it to be taken; all
    // that this program opens itself is close-on-exec from birth, and this is not.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    Some(fd)
}

/// A close-on-exec copy of a descriptor that was kept over this program's `exec`.
pub(crate) fn copy_of(number: RawFd) -> Option<OwnedFd> {
    if number <= 2 || !is_kept_over_exec(number) {
        return None;
    }
    duplicate_number(number)
}

/// A close-on-exec copy of a descriptor that this process was seen to have; `None`: not any more.
pub(super) fn duplicate_number(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: it was open a moment ago, and is borrowed for one call, which says EBADF if it is not now.
    duplicate_above(unsafe { BorrowedFd::borrow_raw(number) }, 3).ok()
}

fn is_kept_over_exec(fd: RawFd) -> bool {
    // SAFETY: asks for the flags of a descriptor; of one that is gone it says EBADF.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Opens /dev/null on each of the descriptors 0, 1 and 2 that is closed, so that no file of the
/// master can ever be taken for a standard stream.
pub(crate) fn fill_standard_streams() -> io::Result<()> {
    loop {
        let fd = dev_null()?;
        if fd.as_raw_fd() > 2 {
            return Ok(());
        }
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let _kept: RawFd = std::os::fd::IntoRawFd::into_raw_fd(fd);
    }
}

/// A close-on-exec copy of a descriptor, numbered `lowest` or above.
pub(crate) fn duplicate_above(fd: impl AsFd, lowest: RawFd) -> nix::Result<OwnedFd> {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: fcntl has just made this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Writes into a non-blocking pipe. An error means the bytes are not in it.
pub(crate) fn write(fd: impl AsFd, bytes: &[u8]) -> nix::Result<usize> {
    nix::unistd::write(fd, bytes)
}

/// Reads what is there, at most the buffer's length. `Ok(0)` is the end of the stream, and nothing
/// there is `EAGAIN`.
pub(crate) fn read(fd: impl AsFd, buffer: &mut [u8]) -> nix::Result<usize> {
    loop {
        match nix::unistd::read(&fd, buffer) {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// The soft and hard limit of open descriptors, as they were before [`raise_limit`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct NofileLimit {
    soft: u64,
    hard: u64,
}

/// Raises the soft descriptor limit to the hard one: a master needs some descriptors per worker.
pub(crate) fn raise_limit() -> nix::Result<NofileLimit> {
    let limit = NofileLimit::now()?;
    setrlimit(Resource::RLIMIT_NOFILE, limit.hard, limit.hard)?;
    Ok(limit)
}

impl NofileLimit {
    /// Those of this process, as they are.
    pub(crate) fn now() -> nix::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(Self { soft, hard })
    }

    pub(crate) fn soft(self) -> u64 {
        self.soft
    }

    pub(crate) fn hard(self) -> u64 {
        self.hard
    }

    /// Gives a worker the limit the operator had set.
    pub(crate) fn restore(self) -> nix::Result<()> {
        if self.soft == self.hard {
            return Ok(());
        }
        setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard)
    }
}

/// Has `exec` close every descriptor from `first` on, also those the operator's shell let slip into
/// the master. A kernel before 5.11 does not know the call; there the master's own are closed all
/// the same, being close-on-exec from birth.
pub(crate) fn close_on_exec_from(first: RawFd) {
    let first = first.unsigned_abs();
    // SAFETY: changes flags of this child's descriptors only, and touches no memory.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// Waits until there is something to read, or the end of the stream; says whether that came in time.
pub(crate) fn wait_readable(fd: impl AsFd, limit: Duration) -> bool {
    let mut asked = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut asked, timeout(limit)) == Ok(1)
}

/// What is in a pipe now.
pub(crate) fn read_all_there_is(pipe: impl AsFd) -> Vec<u8> {
    let mut bytes = vec![0; bytes_in(&pipe)];
    // Whoever else reads from it may have been faster.
    let length = if bytes.is_empty() { 0 } else { read(&pipe, &mut bytes).unwrap_or(0) };
    bytes.truncate(length);
    bytes
}

/// Waits until nobody has the other end of a pipe any more, however long that is, and gives the last
/// that was written to it.
pub(crate) fn read_to_end(fd: impl AsFd) -> Vec<u8> {
    let mut last = Vec::new();
    loop {
        let mut asked = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        // An interrupted wait is none.
        let _ = poll(&mut asked, PollTimeout::NONE);
        let mut bytes = [0; 64];
        match read(&fd, &mut bytes) {
            Ok(0) => return last,
            Ok(length) => last = bytes[..length].to_vec(),
            Err(_) => {}
        }
    }
}

/// Waits until a file of the kernel's, such as `cgroup.events`, has changed since it was last read.
pub(crate) fn wait_changed(fd: impl AsFd, limit: Duration) {
    let mut asked = [PollFd::new(fd.as_fd(), PollFlags::POLLPRI)];
    // The caller looks again whatever comes of it.
    let _ = poll(&mut asked, timeout(limit));
}

fn timeout(limit: Duration) -> PollTimeout {
    PollTimeout::try_from(clock::millis(limit)).unwrap_or(PollTimeout::ZERO)
}

/// Whether a small write would not block: a pipe has room for a page, a file always has.
pub(crate) fn has_room(fd: impl AsFd) -> bool {
    let mut asked = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready == 1)
}

/// Closes the given descriptors of the master in a forked child, where no destructor ever runs.
///
/// The numbers come from live `OwnedFd`s of the parent's copy, which the child never drops because
/// it leaves by `_exit`; so nothing is closed twice.
pub(crate) fn close_in_child(fds: impl IntoIterator<Item = RawFd>) {
    for fd in fds {
        // SAFETY: closing an integer descriptor; see above for why nobody uses it afterwards.
        unsafe { libc::close(fd) };
    }
}
