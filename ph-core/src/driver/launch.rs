//! A start in the background, for which somebody waits: the *caller* hears over a channel how it comes along,
//! and what came of it.
//!
//! The caller can be wrong about none of it: a master that says nothing any more has closed its end, however
//! it ended. The master is never held up: what is no verdict is left out where the caller does not listen.
//! Once it is ready it closes its end, and nothing of the caller's is left in any of its processes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::handover::{MESSAGE_MAX, read, written};
use super::report::describe_status;
use super::{Driver, Master, RunError};
use crate::arbiter::Notice;
use crate::sys::channel::Channel;
use crate::sys::detach::{self, Side};
use crate::sys::{clock, fds, process};

/// So much may be on its way, in bytes, before progress is left out: the verdict always has room.
const UNHEARD_MAX: usize = 64 * 1024;

/// The most of a program's own words that is told, in bytes.
const WORDS_MAX: usize = 16 * 1024;

/// The workers named when a boot took too long.
const LATE_MAX: usize = 16;

/// Which process this is after [`detach`].
#[derive(Debug)]
pub enum Detached {
    /// The one that was there before.
    Caller(BootWatch),
    /// The one in the background, which is to run the master.
    Background(BootReporter),
}

/// What becomes of a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootNews {
    /// The master has its lock, its pidfile and its listeners. Workers are about to start.
    Running {
        /// The master's pid.
        pid: u32,
        /// Which of several of the same service it is, from 1.
        instance: u32,
        /// Workers wanted.
        workers: u32,
    },
    /// A worker is ready.
    WorkerReady {
        /// Its slot.
        slot: u32,
        /// Its pid.
        pid: u32,
        /// How many are, with it.
        ready: u32,
    },
    /// A worker has ended.
    WorkerEnded {
        /// Its slot.
        slot: u32,
        /// Its pid.
        pid: u32,
        /// How: `exited with code 3`.
        how: String,
    },
    /// When the time was up, this worker was not ready.
    WorkerLate {
        /// Its slot.
        slot: u32,
        /// Its pid.
        pid: u32,
    },
    /// All workers are ready. This is the verdict; the end follows.
    Ready {
        /// How many.
        workers: u32,
        /// Since the first was started.
        took: Duration,
    },
    /// The master gives up, and ends the service.
    GaveUp {
        /// Because the time was up; else the worker of every slot has died.
        is_timeout: bool,
    },
    /// What the program that runs the master has to say of it ([`BootReporter::tell`]).
    Told(String),
}

/// What a wait for news has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// News.
    News(BootNews),
    /// There are none: it is ready, or it has ended.
    End,
    /// Nothing in this time.
    Nothing,
}

/// Goes to the background: a process that has a session and no terminal is to run the master, with the
/// caller's working directory, umask and environment. It reads from /dev/null, and keeps nothing open that
/// this program was started with but stdout and stderr, which [`BootReporter::leave_outputs`] gives up.
///
/// ```no_run
/// use std::time::Duration;
///
/// use ph_core::{BootNews, Command, Detached, Heard, Master, detach};
///
/// fn main() -> ph_core::Result<()> {
///     let master = Master::command("web", Command::new(["./server"])).workers(2);
///     match detach()? {
///         Detached::Caller(watch) => loop {
///             match watch.next(Duration::from_secs(120)) {
///                 Heard::News(BootNews::Ready { workers, .. }) => println!("{workers} are ready"),
///                 Heard::News(_) => {}
///                 Heard::End => return Ok(()),
///                 Heard::Nothing => return Err("it hangs".into()),
///             }
///         },
///         Detached::Background(reporter) => {
///             reporter.leave_outputs(false)?;
///             master.report_boot(reporter, None).run()?;
///             Ok(())
///         }
///     }
/// }
/// ```
///
/// # Errors
///
/// This process has several threads, or the system has no room for another.
pub fn detach() -> Result<Detached, RunError> {
    let failed = |call| move |source| RunError::System { call, source };
    let threads = process::thread_count().map_err(failed("stat /proc/self/task"))?;
    if threads != 1 {
        return Err(RunError::Threads { threads });
    }
    Ok(match detach::detach().map_err(failed("go to the background"))? {
        Side::Caller(channel) => Detached::Caller(BootWatch(channel)),
        Side::Background(channel) => {
            let (channel, ready) = (RefCell::new(Some(channel)), RefCell::default());
            Detached::Background(BootReporter(Rc::new(Report { channel, ready })))
        }
    })
}

/// The caller's end. To drop it changes nothing: the start goes on.
#[derive(Debug)]
pub struct BootWatch(Channel);

impl BootWatch {
    /// Waits for news, so long at most. A signal may cut that short.
    pub fn next(&self, limit: Duration) -> Heard {
        if !fds::wait_readable(&self.0, limit) {
            return Heard::Nothing;
        }
        let mut message = vec![0; MESSAGE_MAX];
        match self.0.receive(&mut message) {
            Ok((length @ 1.., _)) => read(&message[..length]).map_or(Heard::Nothing, Heard::News),
            Err(Errno::EAGAIN) => Heard::Nothing,
            Ok((0, _)) | Err(_) => Heard::End,
        }
    }

    /// The time on the clock that [`next`](Self::next) waits by, since some point in the past.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(clock::monotonic())
    }
}

/// The master's end, for [`Master::report_boot`]. Its clones are one.
#[derive(Clone, Debug)]
pub struct BootReporter(Rc<Report>);

#[derive(Debug)]
struct Report {
    /// Until the verdict is that all are ready.
    channel: RefCell<Option<Channel>>,
    /// The pids of workers that have become ready.
    ready: RefCell<BTreeSet<u32>>,
}

impl BootReporter {
    /// Gives up the caller's stdout, and its stderr unless that is to be kept: once the log is open.
    ///
    /// # Errors
    ///
    /// /dev/null cannot be opened.
    pub fn leave_outputs(&self, keeps_stderr: bool) -> Result<(), RunError> {
        detach::leave_outputs(keeps_stderr)
            .map_err(|source| RunError::System { call: "open /dev/null", source })
    }

    /// Has the caller hear this as [`BootNews::Told`], cut after 16 KiB; for whatever keeps a program from
    /// [`Master::run`], and for how that ended. Once all workers were ready nobody hears it.
    pub fn tell(&self, words: &str) {
        let mut end = words.len().min(WORDS_MAX);
        while !words.is_char_boundary(end) {
            end -= 1;
        }
        self.send(&BootNews::Told(words[..end].to_owned()));
    }

    fn send(&self, news: &BootNews) {
        if let (Some(channel), Ok(text)) = (&*self.0.channel.borrow(), written(news)) {
            // A caller that does not wait any more has no need of it.
            let _ = channel.send(&text, None);
        }
    }

    /// The same for what can be left out.
    fn send_if_heard(&self, news: &BootNews) {
        let is_heard = |channel: &Channel| fds::bytes_unheard(channel) < UNHEARD_MAX;
        if self.0.channel.borrow().as_ref().is_some_and(is_heard) {
            self.send(news);
        }
    }

    pub(super) fn running(&self, instance: u32, workers: u32) {
        self.send(&BootNews::Running { pid: std::process::id(), instance, workers });
    }

    /// What no child may keep: the caller waits for its end.
    pub(super) fn raw_fd(&self) -> Option<RawFd> {
        self.0.channel.borrow().as_ref().map(|channel| channel.as_fd().as_raw_fd())
    }
}

impl Master {
    /// Somebody waits for the start, and hears of it by this. The service ends, and leaves nothing behind,
    /// unless all workers are ready within `limit`, or `boot_timeout` if there is none, and also once the worker
    /// of every slot has died.
    pub fn report_boot(mut self, reporter: BootReporter, limit: Option<Duration>) -> Self {
        self.0.boot = Some((reporter, limit));
        self
    }
}

impl Driver<'_> {
    /// Passes on what is about the first boot.
    pub(super) fn tell_boot(&self, notice: Notice) {
        let Some((reporter, _)) = &self.settings.boot else { return };
        let pid_of = |worker| {
            let child = self.children.get(worker)?;
            Some((child.slot.0, child.pid.as_raw().unsigned_abs()))
        };
        if let Notice::WorkerReady { worker, .. } = notice
            && let Some((slot, pid)) = pid_of(worker)
        {
            let mut all = reporter.0.ready.borrow_mut();
            all.insert(pid);
            let ready = u32::try_from(all.len()).unwrap_or(u32::MAX);
            reporter.send_if_heard(&BootNews::WorkerReady { slot, pid, ready });
        } else if let Notice::WorkerExited { worker, status, .. } = notice
            && let Some((slot, pid)) = pid_of(worker)
        {
            reporter.0.ready.borrow_mut().remove(&pid);
            let how = describe_status(status);
            reporter.send_if_heard(&BootNews::WorkerEnded { slot, pid, how });
        } else if let Notice::NotBooted { is_timeout } = notice {
            if is_timeout {
                self.tell_late(reporter);
            }
            reporter.send(&BootNews::GaveUp { is_timeout });
        } else if let Notice::Booted { took } = notice {
            reporter.send(&BootNews::Ready { workers: self.arbiter.target(), took });
            let channel = reporter.0.channel.borrow_mut().take();
            drop(channel);
        }
    }

    fn tell_late(&self, reporter: &BootReporter) {
        let ready = reporter.0.ready.borrow();
        let all = self.children.iter().filter(|child| child.reaped.is_none());
        let all = all.map(|child| (child.slot.0, child.pid.as_raw().unsigned_abs()));
        for (slot, pid) in all.filter(|(_, pid)| !ready.contains(pid)).take(LATE_MAX) {
            reporter.send_if_heard(&BootNews::WorkerLate { slot, pid });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (BootWatch, BootReporter) {
        let (caller, background) = Channel::pair().unwrap();
        let (channel, ready) = (RefCell::new(Some(background)), RefCell::default());
        (BootWatch(caller), BootReporter(Rc::new(Report { channel, ready })))
    }

    #[test]
    fn the_verdict_has_room_however_long_nobody_has_listened() {
        let (watch, reporter) = pair();
        for slot in 0..10_000 {
            reporter.send_if_heard(&BootNews::WorkerReady { slot, pid: slot, ready: slot });
        }
        let words = "\u{e9}".repeat(WORDS_MAX);
        reporter.tell(&words);
        drop(reporter);
        let mut last = None;
        while let Heard::News(news) = watch.next(Duration::ZERO) {
            last = Some(news);
        }
        assert_eq!(last, Some(BootNews::Told(words[..WORDS_MAX].to_owned())));
        assert_eq!(watch.next(Duration::ZERO), Heard::End);
    }

    #[test]
    fn a_caller_that_is_gone_holds_up_nobody() {
        let (watch, reporter) = pair();
        assert_eq!(watch.next(Duration::ZERO), Heard::Nothing);
        drop(watch);
        reporter.running(1, 1);
        reporter.tell("nobody hears it");
    }
}
