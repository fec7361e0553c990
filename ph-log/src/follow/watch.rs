//! Waiting until something happens in the folder of a log.
//!
//! The kernel tells of every write and every change of a name in it. Where it does not (the folder
//! may not be read, there are too many watches, another machine writes), a look is due from time to
//! time all the same.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::output::monotonic;
use crate::rotating::folder::Folder;

/// So often a look is due if the kernel tells nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// So often if it should.
const LOOK_EVERY_ANYWAY: Duration = Duration::from_secs(5);

/// Bounds the reading of what was told: a busy folder must not keep the reader from its log.
const READS: u32 = 100;

/// A watch on one folder.
#[derive(Debug)]
pub(super) struct Watch(Option<Inotify>);

impl Watch {
    pub(super) fn on(folder: &Folder) -> Watch {
        let start = || {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            let told = AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVE
                | AddWatchFlags::IN_DELETE_SELF
                | AddWatchFlags::IN_ONLYDIR;
            inotify.add_watch(&folder.proc_path(), told)?;
            Ok::<_, Errno>(inotify)
        };
        Watch(start().ok())
    }

    fn drain(&self) {
        let Some(inotify) = &self.0 else { return };
        for _ in 0..READS {
            if inotify.read_events().is_err() {
                return;
            }
        }
    }
}

/// What a wait ended for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// A look is due.
    Look,
    /// The time is over.
    Timeout,
    /// The reader of the other descriptor has gone.
    Closed,
}

/// Waits until something happens in one of the folders, at most for `limit`; or until whoever reads
/// from `output` is gone.
pub(super) fn wait(
    watches: &[&Watch],
    limit: Duration,
    output: Option<BorrowedFd<'_>>,
) -> io::Result<Wake> {
    let told = watches.iter().filter_map(|watch| watch.0.as_ref());
    let mut asked: Vec<PollFd<'_>> =
        told.map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)).collect();
    let every = match asked.len() == watches.len() {
        true => LOOK_EVERY_ANYWAY,
        false => LOOK_EVERY,
    };
    // Whatever is asked, poll also tells of the end of a pipe.
    asked.extend(output.map(|output| PollFd::new(output, PollFlags::empty())));
    let until = monotonic().saturating_add(limit.min(every));
    loop {
        let left = until.saturating_sub(monotonic());
        // Rounded up, so that the last wait is not for nothing many times over.
        let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        match poll(&mut asked, PollTimeout::from(millis)) {
            Err(Errno::EINTR) if monotonic() < until => {}
            Err(Errno::EINTR) | Ok(0) => {
                return Ok(if limit > every { Wake::Look } else { Wake::Timeout });
            }
            Err(errno) => return Err(errno.into()),
            Ok(_) => break,
        }
    }
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    let is_closed = output.is_some()
        && asked.last().and_then(PollFd::revents).is_some_and(|answer| answer.intersects(gone));
    for watch in watches {
        watch.drain();
    }
    Ok(if is_closed { Wake::Closed } else { Wake::Look })
}
