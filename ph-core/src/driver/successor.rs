//! An upgrade, as the successor sees it: it is born with a channel to the master that runs, gets from it
//! what there can only be one of, says when its workers are ready, and takes over when it is told to.
//!
//! Should that master die meanwhile, nobody else has the lock and the listeners any more: the successor
//! takes over at once, and serves on however its workers fare, because nobody is left who would.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use tracing::{error, info};

use super::error::system;
use super::handover::{
    Commit, FromMaster, FromSuccessor, HandedListener, Handover, MESSAGE_MAX, VERSION, read,
    written,
};
use super::listeners::{Listeners, MadeSocket, Opened};
use super::occasions::Occasion;
use super::pidfile::{HeldPidfile, Pidfile};
use super::{Driver, RunError};
use crate::arbiter::{Event, Order, Outcome, Time};
use crate::sys::channel::Channel;
use crate::sys::{fds, successor};

/// How long the master that runs may take for what it hands over. It has nothing to wait for.
const HANDOVER_LIMIT: Duration = Duration::from_secs(10);

/// How much of a reason is told, in characters: it has to fit into a message.
const REASON_MAX: usize = 8 * 1024;

/// The most messages in which it may hand over descriptors.
const MESSAGES_MAX: usize = 1024;

/// The master that is to be replaced.
pub(super) struct Predecessor {
    channel: Channel,
    pid: u32,
    pub(super) instance: u32,
    lock: Option<(OwnedFd, PathBuf)>,
    /// What it listens on, and the files of these that are still its own.
    listeners: Vec<(Rc<Opened>, Option<MadeSocket>)>,
}

impl Predecessor {
    /// The one this process was started by, if it was started as a successor.
    pub(super) fn find() -> Result<Option<Self>, RunError> {
        let Some(fd) = successor::inherited_channel() else { return Ok(None) };
        let refused =
            |source| RunError::System { call: "take over from the running master", source };
        let channel = Channel::of(fd).map_err(|errno| refused(errno.into()))?;
        Self::greet(channel).map(Some).map_err(refused)
    }

    fn greet(channel: Channel) -> std::io::Result<Self> {
        say(&channel, &FromSuccessor::Hello { version: VERSION })?;
        let mut message = vec![0; MESSAGE_MAX];
        let mut came = Vec::new();
        for _ in 0..=MESSAGES_MAX {
            if !fds::wait_readable(&channel, HANDOVER_LIMIT) {
                return Err(Errno::ETIMEDOUT.into());
            }
            let (length, fds) = channel.receive_all(&mut message)?;
            match read(&message[..length]) {
                Some(FromMaster::Descriptors) if fds.is_empty() => return Err(Errno::EMFILE.into()),
                Some(FromMaster::Descriptors) => came.extend(fds),
                Some(FromMaster::Handover(handover)) => return Self::of(channel, handover, came),
                Some(FromMaster::Commit(_)) | None => break,
            }
        }
        Err(Errno::EPROTO.into())
    }

    fn of(channel: Channel, handover: Handover, came: Vec<OwnedFd>) -> std::io::Result<Self> {
        let mut came = came.into_iter();
        let lock = match handover.pidfile {
            Some(path) => Some((came.next().ok_or(Errno::EPROTO)?, PathBuf::from(path))),
            None => None,
        };
        let mut listeners = Vec::new();
        for handed in handover.listeners {
            let socket = came.next().ok_or(Errno::EPROTO)?;
            let slots: Vec<_> = handed.slots.into_iter().zip(&mut came).collect();
            let HandedListener { address, shown, .. } = handed;
            let opened = Opened::received(address, socket, None, shown, None, slots);
            listeners.push((Rc::new(opened), handed.made));
        }
        let Handover { pid, instance, .. } = handover;
        Ok(Self { channel, pid, instance, lock, listeners })
    }

    /// The listeners that are there already.
    pub(super) fn listeners(&self) -> Vec<Rc<Opened>> {
        self.listeners.iter().map(|(opened, _)| Rc::clone(opened)).collect()
    }

    /// The pidfile, with the lock of the master that runs if it is the same file.
    pub(super) fn claim(&mut self, pidfile: &Pidfile) -> Result<HeldPidfile, RunError> {
        match self.lock.take() {
            Some((lock, path)) if path == pidfile.file_of(self.instance) => {
                HeldPidfile::adopt(lock, path, self.instance, pidfile)
            }
            Some(_) | None => pidfile.claim(),
        }
    }

    /// Which of the listeners this master goes on with, by their places.
    fn kept(&self, used: &Listeners) -> Vec<usize> {
        let is_used = |opened: &Rc<Opened>| used.all().iter().any(|it| Rc::ptr_eq(it, opened));
        let indexed = self.listeners.iter().enumerate();
        indexed.filter(|(_, (opened, _))| is_used(opened)).map(|(index, _)| index).collect()
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        let lock = self.lock.iter().map(|(lock, _)| lock.as_raw_fd());
        let listeners = self.listeners.iter().flat_map(|(opened, _)| opened.raw_fds());
        lock.chain(listeners).chain([self.channel.as_fd().as_raw_fd()])
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Why this process does not become a master. The exit code tells as well.
    pub(super) fn tell_failure(&self, error: &RunError) {
        let _ = say(&self.channel, &failed(&error.to_string()));
    }
}

fn failed(why: &str) -> FromSuccessor {
    FromSuccessor::Failed { why: why.chars().take(REASON_MAX).collect(), worker: None }
}

fn say(channel: &Channel, message: &FromSuccessor) -> std::io::Result<()> {
    let text = written(message).map_err(std::io::Error::other)?;
    Ok(channel.send(&text, None)?)
}

/// Tells the master that runs why its successor does not come up, where this process was started to be one;
/// for whatever keeps a program from [`Master::run`](crate::Master::run), such as a bad configuration. Elsewhere
/// it does nothing.
pub fn tell_predecessor(why: &str) {
    let channel = successor::borrowed_channel().and_then(|fd| Channel::of(fd).ok());
    if let Some(channel) = channel {
        // The exit code tells as well.
        let _ = say(&channel, &failed(why));
    }
}

/// Whether this process was started to take over from a master that runs, by an upgrade. A program whose
/// command line says to go to the background is there already then. Once [`Master::run`](crate::Master::run) was
/// called it is not told any more.
#[must_use]
pub fn is_successor() -> bool {
    successor::borrowed_channel().is_some()
}

/// What the master that runs has noted for this process ([`Master::note_for_successor`](crate::Master::note_for_successor)),
/// if this is a successor.
#[must_use]
pub fn note_of_predecessor() -> Option<String> {
    successor::note().filter(|_| is_successor())
}

impl Driver<'_> {
    /// All workers are ready: the master that runs can go.
    pub(super) fn on_booted(&mut self) {
        let Some(predecessor) = &self.predecessor else { return };
        let listeners = predecessor.kept(&self.eras.current().listeners);
        let has_pidfile = self.pidfile.is_some_and(|held| held.borrow().is_shared());
        // If that master is gone, the end of the channel says so.
        let _ = say(&predecessor.channel, &FromSuccessor::Ready { listeners, has_pidfile });
    }

    /// Not all workers are ready, so this successor gives up: the master that runs learns why.
    pub(super) fn on_not_booted(&self, is_timeout: bool) {
        let Some(predecessor) = &self.predecessor else { return };
        let what = match is_timeout {
            true => "not all workers of the successor were ready in time",
            false => "the worker of every slot of the successor has died",
        };
        let (why, worker) = match &self.history.last_death {
            Some((pid, how)) => (format!("{what}; the last one, pid {pid}, {how}"), Some(*pid)),
            None => (what.to_owned(), None),
        };
        let _ = say(&predecessor.channel, &FromSuccessor::Failed { why, worker });
    }

    /// The master that runs has said something, or is gone.
    pub(super) fn on_predecessor(&mut self, now: Time) {
        if let Some(channel) = self.departing.take_if(|channel| fds::is_hung_up(channel)) {
            let _ = self.epoll.delete(channel);
        }
        let Some(predecessor) = &mut self.predecessor else { return };
        let mut message = vec![0; MESSAGE_MAX];
        match predecessor.channel.receive(&mut message) {
            Ok((length @ 1.., _)) => match read(&message[..length]) {
                Some(FromMaster::Commit(commit)) => self.take_over(commit, now),
                Some(FromMaster::Descriptors | FromMaster::Handover(_)) | None => {}
            },
            Err(Errno::EAGAIN) => {}
            Ok((0, _)) | Err(_) => {
                error!("pid {}, which was to be replaced, is gone: taking over", predecessor.pid);
                self.succeed_the_dead(now);
            }
        }
    }

    /// Has the path of the control socket lead to this master.
    pub(super) fn take_over_control(&mut self) -> Result<(), RunError> {
        if self.control.is_in_place() {
            return Ok(());
        }
        let Some(rules) = &self.settings.control else { return Ok(()) };
        let listening = rules.take_over(self.settings.pidfile.as_ref(), self.instance)?;
        self.control.listen(listening, rules, &self.epoll).map_err(system("epoll_ctl"))
    }

    fn take_over(&mut self, commit: Commit, now: Time) {
        if self.arbiter.is_stopping() {
            // Both would end. The end of this one tells that master to go on.
            return;
        }
        // All of this that master can put right. Nothing is owned before it is told, and from then on
        // nothing may fail.
        let taken = self.pidfile.map_or(Ok(()), |held| held.borrow_mut().take_over());
        let taken = taken.and_then(|()| self.take_over_control());
        let Some(predecessor) = &self.predecessor else { return };
        if let Err(error) = taken {
            error!("cannot take over: {error}");
            predecessor.tell_failure(&error);
            return self.step(now, Event::Ordered(Order::Stop));
        }
        if say(&predecessor.channel, &FromSuccessor::TakenOver).is_err() {
            // It died after it had said so: all it had is this one's.
            self.succeed_the_dead(now);
        } else if let Some(predecessor) = self.predecessor.take() {
            self.own_pidfile();
            let kept = predecessor.kept(&self.eras.current().listeners);
            let kept = kept.into_iter().filter_map(|index| predecessor.listeners.get(index));
            for (opened, made) in kept {
                opened.made.set(*made);
            }
            self.eras.current().settle_listeners();
            info!("took over from pid {}", predecessor.pid);
            self.departing = Some(predecessor.channel);
            let reason = format!("took over from pid {}", predecessor.pid);
            self.tell_people(Occasion::new("upgraded", reason));
        }
        let configured = self.eras.current().spec.policy.target;
        if commit.configured == configured && commit.target != configured {
            self.step(now, Event::Ordered(Order::ScaleTo(commit.target)));
        }
    }

    /// This master has done what it was told, to stop. The one before may not have heard yet that it is no
    /// master any more: it finds this one dead, and must not take that for a failure.
    pub(super) fn tell_departing(&self, outcome: Outcome) {
        let is_ordered = matches!(outcome, Outcome::Stopped | Outcome::Unreaped { .. });
        if let Some(channel) = self.departing.as_ref().filter(|_| is_ordered) {
            let _ = say(channel, &FromSuccessor::Stopped);
        }
    }

    fn own_pidfile(&self) {
        if let Some(held) = self.pidfile {
            held.borrow_mut().own();
        }
    }

    /// Nobody but this master has the lock and the listeners any more. Sockets that it does not go on
    /// with are closed, and their files removed.
    fn succeed_the_dead(&mut self, now: Time) {
        let Some(predecessor) = self.predecessor.take() else { return };
        let _ = self.epoll.delete(&predecessor.channel);
        // There is nobody to leave it to, so it serves on without.
        let taken = self.pidfile.map_or(Ok(()), |held| held.borrow_mut().take_over());
        self.own_pidfile();
        for error in [taken, self.take_over_control()].into_iter().filter_map(Result::err) {
            error!("{error}");
        }
        for (opened, made) in &predecessor.listeners {
            opened.made.set(*made);
        }
        self.eras.current().settle_listeners();
        self.step(now, Event::PredecessorGone);
    }
}
