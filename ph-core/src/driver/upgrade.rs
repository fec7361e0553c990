//! An upgrade, as the master sees it that is to be replaced: it starts the successor, hands over what that
//! needs, and goes when that has taken over. Whatever goes wrong before changes nothing here (I19).

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::str::FromStr as _;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{error, info};

use super::command::describe;
use super::handover::{
    Commit, FromMaster, FromSuccessor, HandedListener, Handover, MESSAGE_MAX, VERSION, read,
    written,
};
use super::listeners::Opened;
use super::perform::wake_and_send;
use super::{Driver, SUCCESSOR, SUCCESSOR_START};
use crate::arbiter::{Event, ExitStatus, ORDERS, Order, Time};
use crate::sys::channel::{Channel, FDS_MAX};
use crate::sys::process;
use crate::sys::spawn::{self, SpawnOutcome};

/// Messages taken in one turn of the loop.
const MESSAGES_A_TURN: usize = 16;

/// The most lines of a reason that are told.
const REASON_LINES: usize = 40;

/// A successor that has not been reaped.
pub(super) struct Succession {
    pid: Pid,
    /// Until it is closed at the other end.
    channel: Option<Channel>,
    /// What says why its program was not executed.
    report: Option<OwnedFd>,
    /// The listeners it was told of, and which of them it has, once it is ready.
    handed: Vec<Rc<Opened>>,
    kept: Vec<usize>,
    has_pidfile: bool,
    has_taken_over: bool,
    is_executed: bool,
    /// It has been reaped: whatever it said last, it does nothing of it.
    has_ended: bool,
}

impl Succession {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        let channel = self.channel.iter().map(|channel| channel.as_fd().as_raw_fd());
        channel.chain(self.report.iter().map(std::os::fd::AsRawFd::as_raw_fd))
    }

    /// Whether it can still serve: it has not ended, be it reaped or not.
    fn is_alive(&self) -> bool {
        !self.has_ended && !process::has_ended(self.pid)
    }

    fn say(&self, message: &FromMaster, fds: &[BorrowedFd<'_>]) -> Result<(), String> {
        let channel = self.channel.as_ref().ok_or("it has closed its channel")?;
        channel.send_all(&written(message)?, fds).map_err(|errno| errno.to_string())
    }
}

impl Driver<'_> {
    /// Starts the successor, unless this is no place for one.
    pub(super) fn spawn_successor(&mut self) -> Option<Event> {
        let never = Some(Event::SuccessorEnded { status: None });
        if self.succession.is_some() {
            self.blame_successor("the last successor has not ended yet");
            return never;
        }
        if let Some(why) = no_place_for_a_successor() {
            self.blame_successor(why);
            return never;
        }
        if let Some(predecessor) = &self.predecessor {
            let pid = predecessor.pid();
            self.blame_successor(&format!("this master has yet to take over from pid {pid}"));
            return never;
        }
        match self.with_signals_blocked(Self::fork_successor) {
            Ok(succession) => {
                // It is none of what workers leave behind, nor is anything below it.
                self.callers_children.push(succession.pid);
                self.succession = Some(succession);
                None
            }
            Err(why) => {
                self.blame_successor(&format!("cannot start a successor: {why}"));
                never
            }
        }
    }

    fn fork_successor(&mut self) -> std::io::Result<Succession> {
        let (channel, its_end) = Channel::pair()?;
        let its_end = its_end.into_fd();
        let (pid, report) = {
            let (note, ignored) =
                (self.settings.successors_note.as_deref(), self.signals.ignored());
            self.origin.spawn(&its_end, note, self.nofile, ignored)?
        };
        let input = EpollFlags::EPOLLIN;
        // Both were made a moment ago, so they can be watched, or there is no memory left.
        self.epoll.add(&channel, EpollEvent::new(input, SUCCESSOR))?;
        self.epoll.add(&report, EpollEvent::new(input, SUCCESSOR_START))?;
        Ok(Succession {
            pid,
            channel: Some(channel),
            report: Some(report),
            handed: Vec::new(),
            kept: Vec::new(),
            has_pidfile: false,
            has_taken_over: false,
            is_executed: true,
            has_ended: false,
        })
    }

    /// Whether its program was executed.
    pub(super) fn on_successor_start(&mut self) {
        let path = self.origin.path();
        let Some(succession) = &mut self.succession else { return };
        let Some(report) = &succession.report else { return };
        let outcome = spawn::outcome(report);
        if matches!(outcome, SpawnOutcome::Pending) {
            return;
        }
        let _ = self.epoll.delete(report);
        succession.report = None;
        if let SpawnOutcome::Failed(failure) = outcome {
            succession.is_executed = false;
            let why = std::io::Error::from_raw_os_error(failure.errno);
            let why = describe(&failure.tried(), path, &why);
            self.blame_successor(&why);
        }
    }

    /// The successor has said something.
    pub(super) fn on_successor(&mut self, now: Time) {
        let mut message = vec![0; MESSAGE_MAX];
        for _ in 0..MESSAGES_A_TURN {
            let Some(succession) = &mut self.succession else { return };
            let Some(channel) = &succession.channel else { return };
            match channel.receive(&mut message) {
                Ok((length @ 1.., _)) => match read(&message[..length]) {
                    Some(said) => self.on_successor_said(said, now),
                    None => {
                        self.give_up_successor("it speaks another language than this master");
                    }
                },
                Err(Errno::EAGAIN) => return,
                // Its end is told by its reaping.
                Ok((0, _)) | Err(_) => {
                    if let Some(channel) = succession.channel.take() {
                        let _ = self.epoll.delete(channel);
                    }
                }
            }
        }
    }

    fn on_successor_said(&mut self, said: FromSuccessor, now: Time) {
        match said {
            FromSuccessor::Hello { version: VERSION } => {
                if let Err(why) = self.hand_over() {
                    self.give_up_successor(&format!("nothing can be handed over to it: {why}"));
                }
            }
            FromSuccessor::Hello { version } => {
                self.give_up_successor(&format!(
                    "it wants version {version} of the handover, and this master has {VERSION}"
                ));
            }
            FromSuccessor::Ready { listeners, has_pidfile } => {
                if let Some(succession) = &mut self.succession {
                    (succession.kept, succession.has_pidfile) = (listeners, has_pidfile);
                }
                self.step(now, Event::SuccessorReady);
            }
            FromSuccessor::TakenOver => {
                // If it has ended since, this master is the only one left, and goes on.
                if self.succession.as_ref().is_some_and(Succession::is_alive) {
                    self.step(now, Event::TakenOver);
                }
            }
            // Whoever has heard of the taking over does not listen any more.
            FromSuccessor::Stopped => {
                info!(
                    "the successor was told to stop when it had just taken over, so this master stops"
                );
                self.step(now, Event::Ordered(Order::Stop));
            }
            FromSuccessor::Failed { why, worker } => {
                self.history.culprit = worker;
                for line in why.lines().take(REASON_LINES) {
                    self.blame_successor(line);
                }
            }
        }
    }

    /// A line of why the upgrade fails: for the log, and for the verdict that follows.
    fn blame_successor(&mut self, line: &str) {
        error!("the upgrade fails: {line}");
        self.history.blame_successor(line);
    }

    fn give_up_successor(&mut self, why: &str) {
        self.blame_successor(why);
        self.kill_successor();
    }

    /// Gives the successor the lock and the listeners.
    fn hand_over(&mut self) -> Result<(), String> {
        let listeners = self.eras.current().listeners.all().to_vec();
        let handed = |opened: &Rc<Opened>| HandedListener {
            address: opened.address.clone(),
            slots: opened.slots().into_iter().map(|(slot, _)| slot).collect(),
            made: opened.made.get(),
            shown: opened.shown.clone(),
        };
        let held = self.pidfile.map(|held| held.borrow());
        let handover = Handover {
            pid: std::process::id(),
            instance: self.instance,
            pidfile: held.as_ref().map(|held| held.path().as_os_str().to_owned()),
            listeners: listeners.iter().map(handed).collect(),
        };
        let succession = self.succession.as_mut().ok_or("it is gone")?;
        let slots: Vec<_> = listeners.iter().map(|opened| opened.slots()).collect();
        let mut fds: Vec<_> = held.iter().map(|held| held.lock_fd()).collect();
        for (opened, slots) in listeners.iter().zip(&slots) {
            fds.push(opened.as_fd());
            fds.extend(slots.iter().map(|(_, socket)| socket.as_fd()));
        }
        for fds in fds.chunks(FDS_MAX) {
            succession.say(&FromMaster::Descriptors, fds)?;
        }
        succession.say(&FromMaster::Handover(handover), &[])?;
        succession.handed = listeners;
        Ok(())
    }

    /// Tells the successor to take over.
    pub(super) fn commit_upgrade(&mut self) {
        let configured = self.arbiter.policy().target;
        let commit = Commit { configured, target: self.arbiter.target() };
        let Some(succession) = &self.succession else { return };
        if let Err(why) = succession.say(&FromMaster::Commit(commit), &[]) {
            self.give_up_successor(&format!("it cannot be told to take over: {why}"));
        }
    }

    /// Pidfile, lock and sockets that the successor goes on with are its own to remove.
    pub(super) fn give_up_files(&mut self) {
        let Some(succession) = &mut self.succession else { return };
        succession.has_taken_over = true;
        self.manager.move_to(succession.pid);
        if let Some(held) = self.pidfile.filter(|_| succession.has_pidfile) {
            held.borrow_mut().hand_over();
        }
        for opened in succession.kept.iter().filter_map(|index| succession.handed.get(*index)) {
            opened.made.set(None);
        }
        // The successor is the main process before it says anything: it waits for the end of the channel.
        self.tell_manager();
        if let Some(channel) = self.succession.as_mut().and_then(|it| it.channel.take()) {
            let _ = self.epoll.delete(channel);
        }
    }

    /// The successor, unless it was reaped: its number may be another's then.
    fn unreaped_successor(&self) -> Option<&Succession> {
        self.succession.as_ref().filter(|succession| !succession.has_ended)
    }

    /// The signal to stop, to the successor.
    pub(super) fn stop_successor(&mut self) {
        if let Some(succession) = self.unreaped_successor() {
            let _ = wake_and_send(succession.pid, Signal::SIGTERM);
        }
    }

    /// SIGKILL to the successor; its warden ends what it leaves. One that has taken over is the service, and
    /// is left alone whatever becomes of this master.
    pub(super) fn kill_successor(&mut self) {
        if let Some(succession) = self.unreaped_successor().filter(|it| !it.has_taken_over) {
            let _ = process::signal(succession.pid, Signal::SIGKILL);
        }
    }

    /// An order that came too late for this master.
    pub(super) fn forward(&self, order: Order) {
        let Some(succession) = self.unreaped_successor() else { return };
        let row = ORDERS.iter().find(|row| row.order == Some(order));
        if let Some(signal) = row.and_then(|row| Signal::from_str(row.signal).ok()) {
            let _ = process::signal(succession.pid, signal);
        }
    }

    /// The successor was reaped. If it was on the point of taking over, the files are put right.
    pub(super) fn successor_ended(&mut self, status: ExitStatus, now: Time) {
        if let Some(succession) = &mut self.succession {
            succession.has_ended = true;
        }
        self.on_successor_start();
        self.on_successor(now);
        let Some(succession) = self.succession.take() else { return };
        if let Some(channel) = &succession.channel {
            let _ = self.epoll.delete(channel);
        }
        self.callers_children.retain(|child| *child != succession.pid);
        if !succession.has_taken_over {
            let files = self.pidfile.map_or(Ok(()), |held| held.borrow_mut().put_right());
            for error in [files, self.take_over_control()].into_iter().filter_map(Result::err) {
                error!("the upgrade has left this master without its file: {error}");
            }
        }
        let status = succession.is_executed.then_some(status);
        self.step(now, Event::SuccessorEnded { status });
    }
}

/// Why no successor can be started here.
fn no_place_for_a_successor() -> Option<&'static str> {
    if std::process::id() == 1 {
        return Some("this master is pid 1, and with it everything ends; start another container");
    }
    process::has_controlling_terminal().then_some(
        "this master has a controlling terminal, which a successor would lose; restart it",
    )
}
