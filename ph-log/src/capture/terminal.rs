//! Stderr, as the log or beside it. Its description is shared with whoever started ph, so it is
//! never made non-blocking: it is asked first, and gets no more than a pipe takes without a wait. A
//! terminal may wait all the same, so that is opened once more, on a description of its own.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

/// What a pipe takes as one piece: PIPE_BUF of Linux.
const PIECE: usize = 4096;

/// Why not everything was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody reads. It is worth asking again.
    Stalled,
    /// It is closed, or broken.
    Failed(Errno),
}

/// How long a copy waits for somebody who does not read, until he reads again.
const COPY_PATIENCE: Duration = Duration::from_secs(1);

/// The copy of a log on stderr. What it does not take is in the log all the same.
#[derive(Debug, Default)]
pub(super) struct Copy {
    is_stalled: bool,
    is_torn: bool,
}

impl Copy {
    pub(super) fn put(&mut self, lines: &[u8]) {
        let patience = if self.is_stalled { Duration::ZERO } else { COPY_PATIENCE };
        if self.is_torn && put(b"\n", patience).1.is_some() {
            return;
        }
        let (written, refusal) = put(lines, patience);
        self.is_stalled = refusal == Some(Refusal::Stalled);
        self.is_torn = written > 0 && lines[written - 1] != b'\n';
    }
}

/// Writes as much as stderr takes. Returns how many bytes that was.
pub(super) fn put(bytes: &[u8], patience: Duration) -> (usize, Option<Refusal>) {
    let mut written = 0;
    let mut note = |done| {
        written = done;
        Ok(())
    };
    let refusal = put_noted(bytes, patience, &mut note).map_or(None, |(_, refusal)| refusal);
    (written, refusal)
}

/// The same; `note` is told after each piece how many bytes are written in all. Its error is
/// returned.
pub(super) fn put_noted(
    bytes: &[u8],
    patience: Duration,
    note: &mut dyn FnMut(usize) -> io::Result<()>,
) -> io::Result<(usize, Option<Refusal>)> {
    let stderr = io::stderr();
    let mut written = 0;
    while written < bytes.len() {
        if let Err(refusal) = ask(patience) {
            return Ok((written, Some(refusal)));
        }
        let piece = piece_of(&bytes[written..]);
        let fd = own_terminal().map_or(stderr.as_fd(), File::as_fd);
        match write(fd, piece) {
            Err(Errno::EINTR) => {}
            // Somebody else made it non-blocking and filled it since the question.
            Err(Errno::EAGAIN) => return Ok((written, Some(Refusal::Stalled))),
            Err(errno) => return Ok((written, Some(Refusal::Failed(errno)))),
            Ok(some) => {
                written += some;
                note(written)?;
            }
        }
    }
    Ok((written, None))
}

/// What is written next: whole lines, as many as fit into a piece, or a piece of a longer one.
fn piece_of(bytes: &[u8]) -> &[u8] {
    let piece = &bytes[..bytes.len().min(PIECE)];
    memchr::memrchr(b'\n', piece).map_or(piece, |end| &piece[..=end])
}

/// The terminal that stderr is, if it is one, on a description that never waits.
fn own_terminal() -> Option<&'static File> {
    static OWN: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let how = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
        File::options().write(true).custom_flags(how).open("/proc/self/fd/2").ok()
    };
    OWN.get_or_init(|| io::stderr().is_terminal().then(open).flatten()).as_ref()
}

/// Whether it is worth trying again.
pub(super) fn is_stalled() -> bool {
    ask(Duration::ZERO) == Err(Refusal::Stalled)
}

/// Whether stderr takes a piece now or within so much time.
fn ask(patience: Duration) -> Result<(), Refusal> {
    let stderr = io::stderr();
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    let mut asked = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut asked, timeout) {
        Ok(0) | Err(Errno::EINTR) => return Err(Refusal::Stalled),
        Err(errno) => return Err(Refusal::Failed(errno)),
        Ok(_) => {}
    }
    let answer = asked[0].revents().unwrap_or(PollFlags::empty());
    for (flag, errno) in [
        (PollFlags::POLLNVAL, Errno::EBADF),
        (PollFlags::POLLHUP, Errno::EIO),
        (PollFlags::POLLERR, Errno::EPIPE),
    ] {
        if answer.contains(flag) {
            return Err(Refusal::Failed(errno));
        }
    }
    Ok(())
}
