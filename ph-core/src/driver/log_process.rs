//! The log process, as the master sees it: the pipes it reads, and what it is told.
//!
//! Whatever a worker prints goes into pipes of its own. The master keeps the read ends until the log
//! process says that nothing is left in them, so that one that was killed takes nothing along: the next
//! gets the same pipes. The master never waits here: what the channel does not take now is told when it
//! has room.

mod feed;
mod message;

use std::collections::BTreeMap;
use std::io::{self, Stderr, Stdout};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::Pid;
use tracing::{error, warn};

use super::spec::Spec;
use super::{Driver, LOG, LOG_PIPE};
pub use feed::{LogFeed, LogOrder};
use message::{ENDED_MAX, FINISH, RENEW, REOPEN, message_of};

use crate::arbiter::{ExitStatus, Generation};
use crate::sys::channel::Channel;
use crate::sys::process::{self, Fork};
use crate::sys::{fds, mark};
use crate::worker::{self, LogEnd, LogOrigin, LogProcess, LogSource, OutputStream};

/// The master's own lines.
const MASTERS_SOURCE: u64 = 0;

/// Where a worker's outputs go, on their way from the master to the child.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    read_ends: Vec<(OutputStream, OwnedFd)>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    records: Option<OwnedFd>,
}

impl Outputs {
    fn open(is_captured: bool, has_records: bool) -> nix::Result<Self> {
        let mut outputs = Self::default();
        let mut open = |stream, is_wanted: bool| -> nix::Result<Option<OwnedFd>> {
            if !is_wanted {
                return Ok(None);
            }
            let (read_end, write_end) = fds::output_pipe()?;
            outputs.read_ends.push((stream, read_end));
            Ok(Some(write_end))
        };
        let stdout = open(OutputStream::Stdout, is_captured)?;
        let stderr = open(OutputStream::Stderr, is_captured)?;
        let records = open(OutputStream::Records, has_records)?;
        Ok(Self { stdout, stderr, records, ..outputs })
    }

    /// In the child of a fork: makes them its standard streams, closes what is the master's, and gives
    /// the pipe for its records.
    pub(crate) fn take_over(self) -> nix::Result<Option<OwnedFd>> {
        process::replace_outputs(self.stdout.as_ref(), self.stderr.as_ref())?;
        Ok(self.records)
    }

    /// Where stdout and stderr go, which may be what the master has.
    pub(super) fn or<'a>(&'a self, inherited: &'a (Stdout, Stderr)) -> [BorrowedFd<'a>; 2] {
        let stdout = self.stdout.as_ref().map_or(inherited.0.as_fd(), OwnedFd::as_fd);
        let stderr = self.stderr.as_ref().map_or(inherited.1.as_fd(), OwnedFd::as_fd);
        [stdout, stderr]
    }
}

/// The pipes of the log process, and the channel to it.
pub(super) struct LogPipes {
    /// The end to it; missing while it is not there.
    channel: Option<Channel>,
    sources: BTreeMap<u64, LogSource>,
    next: u64,
    /// Sources that may be kept at once. It is reached only while the log process does not read.
    most: usize,
    /// All sources from this number on are untold.
    untold_from: u64,
    is_reopen_due: bool,
    /// The loop waits for room in the channel.
    is_room_awaited: bool,
    /// It is to finish when it has been told of all sources.
    is_finish_due: bool,
    /// It was, or whoever comes in its place is to.
    is_finish_wanted: bool,
    renewal: Renewal,
    /// Whose settings it has, and whether that follows a rollback.
    configured: Generation,
    is_taken_back: bool,
    /// What the master writes its lines into.
    lines: Option<OwnedFd>,
    is_attached: bool,
    /// The log process that ended last had written what it was to write.
    has_done_all: bool,
}

impl LogPipes {
    /// With the pipe of the master's own lines if there is to be a log process.
    pub(super) fn new(has_process: bool, most: usize) -> nix::Result<Self> {
        let mut pipes = Self {
            channel: None,
            sources: BTreeMap::new(),
            next: MASTERS_SOURCE + 1,
            most,
            untold_from: MASTERS_SOURCE,
            is_reopen_due: false,
            is_room_awaited: false,
            is_finish_due: false,
            is_finish_wanted: false,
            renewal: Renewal::None,
            configured: Generation(1),
            is_taken_back: false,
            lines: None,
            is_attached: false,
            has_done_all: false,
        };
        if has_process {
            let (read_end, write_end) = fds::pipe()?;
            pipes.lines = Some(write_end);
            let origin = LogOrigin::Master;
            let source = LogSource { id: MASTERS_SOURCE, pipe: read_end, origin };
            pipes.sources.insert(MASTERS_SOURCE, source);
        }
        Ok(pipes)
    }

    /// The master's descriptors, which no other process may keep.
    pub(super) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        let sources = self.sources.values().map(|source| source.pipe.as_raw_fd());
        let channel = self.channel.iter().map(|channel| channel.as_fd().as_raw_fd());
        sources.chain(channel).chain(self.lines.iter().map(AsRawFd::as_raw_fd))
    }

    /// A log process was forked: it has all that was there.
    fn on_inherited(&mut self) {
        self.untold_from = self.next;
        (self.is_reopen_due, self.is_room_awaited) = (false, false);
        self.renewal = Renewal::None;
    }

    /// It is killed: its end is an end.
    pub(super) fn forget_renewal(&mut self) {
        self.renewal = Renewal::None;
    }

    /// Bytes that nobody has brought to the log.
    fn left(&self) -> usize {
        self.sources.values().map(|source| fds::bytes_in(&source.pipe)).sum()
    }

    /// Keeps the read ends of a worker's or helper's outputs.
    fn keep(&mut self, outputs: Outputs, origin: impl Fn(OutputStream) -> LogOrigin) {
        for (stream, pipe) in outputs.read_ends {
            let source = LogSource { id: self.next, pipe, origin: origin(stream) };
            self.sources.insert(self.next, source);
            self.next += 1;
        }
    }

    /// Gives up the oldest sources nobody writes into any more, if there are too many.
    fn make_room(&mut self) {
        while self.sources.len() >= self.most {
            let is_over = |source: &&LogSource| fds::is_hung_up(&source.pipe);
            let oldest = self.sources.values().find(is_over).map(|source| source.id);
            let Some(source) = oldest.and_then(|id| self.sources.remove(&id)) else { return };
            let (bytes, origin) = (fds::bytes_in(&source.pipe), &source.origin);
            // If the log process knows it, it may still write them, unless it is killed first.
            let fate = if source.id < self.untold_from { "may be lost" } else { "are lost" };
            if bytes > 0 {
                warn!("the log process takes nothing: {bytes} bytes {fate}, of {origin:?}");
            }
        }
    }

    /// Tells the log process what it has not been told, as far as the channel has room.
    fn tell(&mut self) -> nix::Result<()> {
        let Some(channel) = &self.channel else { return Ok(()) };
        if self.is_reopen_due {
            channel.send(&[REOPEN], None)?;
            self.is_reopen_due = false;
        }
        for (id, source) in self.sources.range(self.untold_from..) {
            channel.send(&message_of(source), Some(source.pipe.as_fd()))?;
            self.untold_from = id + 1;
        }
        if self.renewal == Renewal::Due {
            channel.send(&[RENEW], None)?;
            self.renewal = Renewal::Told;
        }
        if self.is_finish_due {
            channel.send(&[FINISH], None)?;
            self.is_finish_due = false;
        }
        Ok(())
    }

    fn hear(&mut self) {
        let Some(channel) = &self.channel else { return };
        let mut message = [0; 8 * ENDED_MAX];
        // Each names a source at least, and the next event comes only with the next message.
        for _ in 0..=self.sources.len() {
            // Its end is told by its reaping.
            let Ok((length @ 1.., _)) = channel.receive(&mut message) else { return };
            for id in message[..length].as_chunks::<8>().0 {
                self.sources.remove(&u64::from_le_bytes(*id));
            }
        }
    }
}

impl Driver<'_> {
    fn log_process(&self) -> Option<&dyn LogProcess> {
        self.settings.logging.process()
    }

    /// What of the log's own is for the log process only.
    pub(super) fn fds_of_log(&self) -> Vec<RawFd> {
        self.log_process().map(LogProcess::fds).unwrap_or_default()
    }

    /// The pipes for a worker's outputs.
    pub(super) fn open_outputs(&mut self, spec: &Spec) -> nix::Result<Outputs> {
        if self.log_process().is_none() {
            return Ok(Outputs::default());
        }
        self.log.make_room();
        let ids = spec.conditions.ids();
        let is_forked = spec.command.is_none();
        let is_captured = spec.capture_output.unwrap_or(!is_forked);
        let outputs = Outputs::open(is_captured, is_forked && ids.is_some())?;
        if let Some(ids) = ids {
            for stream in [&outputs.stdout, &outputs.stderr].into_iter().flatten() {
                // A program that opens /dev/stdout needs it; where it is refused, no other does.
                let _ = ids.give(stream);
            }
        }
        Ok(outputs)
    }

    /// Takes over the read ends of a process that runs now.
    pub(super) fn keep_outputs(
        &mut self,
        outputs: Outputs,
        origin: impl Fn(OutputStream) -> LogOrigin,
    ) {
        self.log.keep(outputs, origin);
        self.tell_log();
    }

    /// Has the log process open its files anew, and say so there; `false` if there is none.
    pub(super) fn reopen_log(&mut self) -> bool {
        self.log.is_reopen_due = self.log_process().is_some();
        self.tell_log();
        self.log.is_reopen_due || self.log.channel.is_some()
    }

    /// The log has the settings of the current generation from now on. A log process that was told to
    /// make room is not told again: whoever comes is forked from this master as it is then.
    pub(super) fn configure_log(&mut self) {
        let era = Rc::clone(self.eras.current());
        let former = std::mem::replace(&mut self.log.configured, self.arbiter.generation());
        self.log.is_taken_back = self.log.configured < former;
        let has_changed = self.settings.logging.configure(&era.spec.log_settings);
        let is_wanted = has_changed && !self.log.is_finish_wanted;
        if is_wanted && self.log.channel.is_some() && self.log.renewal == Renewal::None {
            self.log.renewal = Renewal::Due;
            self.tell_log();
        }
    }

    /// The next log process is there. What failed was told before, and may stand in another file.
    pub(super) fn on_log_renewed(&mut self) {
        self.tell_log();
        if std::mem::take(&mut self.log.is_taken_back) {
            warn!(
                "a reload failed and the log has its former settings again; some of what happened \
                 may stand where the others said"
            );
        }
    }

    /// Tells what is to be told; what there is no room for, later.
    pub(super) fn tell_log(&mut self) {
        // What the kernel refuses for another reason is tried again with whatever comes next: to wait for
        // room that is there would be no wait.
        let is_full = self.log.tell() == Err(Errno::EAGAIN);
        let was_full = std::mem::replace(&mut self.log.is_room_awaited, is_full);
        if !is_full && !was_full {
            return;
        }
        let Some(channel) = &self.log.channel else { return };
        let room = if is_full { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET | room;
        // It was added a moment ago, so it can be changed.
        let _ = self.epoll.modify(channel, &mut EpollEvent::new(flags, LOG));
    }

    /// The channel has messages, or room.
    pub(super) fn on_log_channel(&mut self) {
        self.log.hear();
        self.tell_log();
    }

    /// The pipe of the master's lines has room.
    pub(super) fn on_log_room(&mut self) {
        if let Some(process) = self.log_process() {
            process.resume();
        }
    }

    /// Has the loop wait for room where lines of the master wait for it.
    pub(super) fn watch_log_room(&self) {
        let Some(lines) = &self.log.lines else { return };
        if !self.log_process().is_some_and(LogProcess::is_waiting) {
            return;
        }
        let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT;
        // It was added when the log process came up, so it can be changed.
        let _ = self.epoll.modify(lines, &mut EpollEvent::new(flags, LOG_PIPE));
    }

    /// Forks the log process. All that the master keeps for it is inherited.
    pub(super) fn fork_log_process(&mut self) -> io::Result<Pid> {
        let (masters_end, own_end) = Channel::pair()?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll.add(&masters_end, EpollEvent::new(flags, LOG))?;
        match process::fork()? {
            Fork::Master(pid) => {
                self.log.channel = Some(masters_end);
                self.log.on_inherited();
                self.attach_log();
                Ok(pid)
            }
            Fork::Child => worker::never_return(|| {
                drop(masters_end);
                let kept = std::mem::take(&mut self.log.sources);
                let sources = kept.into_values().collect();
                self.settle_helper(LOG_NAME, &[]);
                // As the warden, it is not what a master that is a worker itself leaves behind.
                mark::wear(None);
                fds::close_in_child(self.trees.hold_fds());
                let feed = LogFeed::new(own_end, sources);
                let Some(process) = self.log_process() else { return 1 };
                // It has as many descriptors as the master, and keeps the master's limit of them.
                match process.run(feed) {
                    Ok(LogEnd::Complete) => 0,
                    // The log process has said so, where it could.
                    Ok(LogEnd::Incomplete) => 1,
                    Err(why) => {
                        error!("the log process failed: {why}");
                        1
                    }
                }
            }),
        }
    }

    /// From now on the master's lines take the way through the log process.
    fn attach_log(&mut self) {
        if std::mem::replace(&mut self.log.is_attached, true) {
            return;
        }
        let (Some(lines), Some(process)) = (&self.log.lines, self.log_process()) else { return };
        let quiet = EpollEvent::new(EpollFlags::empty(), LOG_PIPE);
        let watched = self.epoll.add(lines, quiet).map_err(io::Error::from);
        match watched.and_then(|()| lines.try_clone()) {
            Ok(lines) => process.attach(lines),
            Err(error) => warn!("the master goes on writing the log itself: {error}"),
        }
    }

    /// The log process is to bring everything to the log and end.
    pub(super) fn finish_log(&mut self) {
        (self.log.is_finish_due, self.log.is_finish_wanted) = (true, true);
        if let Some(process) = self.log_process() {
            process.hold();
        }
        self.tell_log();
    }

    /// The log process was reaped. Says whether it had been told to make room for another.
    pub(super) fn on_log_ended(&mut self, status: ExitStatus) -> bool {
        self.log.has_done_all = status.shell_code() == 0;
        // A child forked meanwhile may still have a copy, so closing it is not enough.
        if let Some(channel) = self.log.channel.take() {
            let _ = self.epoll.delete(channel);
        }
        let is_renewed = self.log.renewal == Renewal::Told;
        // What it was told last, it need not have read.
        self.log.is_finish_due |= is_renewed && self.log.is_finish_wanted;
        self.log.renewal = Renewal::None;
        is_renewed
    }

    /// There will be no log process any more: what the master still has to say, it writes itself.
    pub(super) fn detach_log(&mut self) {
        self.log.hear();
        let masters = self.log.sources.remove(&MASTERS_SOURCE);
        let unread = masters.map(|source| fds::read_all_there_is(source.pipe)).unwrap_or_default();
        let left = self.log.left();
        if let Some(process) = self.log_process() {
            let is_any_left = left > 0 || !unread.is_empty();
            process.detach(&unread, is_any_left && !self.log.has_done_all);
        }
        // One that was killed between writing and taking them out has written some of them.
        let most = if self.log.has_done_all { "" } else { "up to " };
        if left > 0 {
            error!("{most}{left} bytes are lost: the log process did not write them in time");
        }
    }
}

/// Whether a log process is to make room for one with other settings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Renewal {
    None,
    /// It is to be told.
    Due,
    /// It was told, and will end.
    Told,
}

/// Its name among the helpers.
pub(super) const LOG_NAME: &str = "log";
