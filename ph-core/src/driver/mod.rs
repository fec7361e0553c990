//! Ring 2: does what the arbiter decides. One loop, one wait, one thread.
//!
//! A turn of the loop waits until a signal came, a worker rang, a command was executed (or not), or
//! the arbiter's next deadline passed. It turns what it finds into events, steps the arbiter with
//! each, and performs the actions at once. It decides nothing, never sleeps, and with nothing due
//! makes no system call at all.

mod arrivals;
mod children;
mod command;
mod conditions;
mod control;
mod elf;
mod environment;
mod era;
mod error;
mod formats;
mod handover;
mod helpers;
mod history;
mod launch;
mod listeners;
mod load;
mod log_process;
mod manager;
mod master;
mod masters;
mod memory;
mod notify;
mod occasions;
mod perform;
mod pidfile;
mod probes;
mod program;
mod prospect;
mod reap;
mod recorder;
mod rehearsal;
mod report;
mod run;
mod spec;
mod spreading;
mod strays;
mod successor;
mod tree;
mod upgrade;
mod warden;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::Pid;

pub use command::{Command, CommandError, Expand};
pub use conditions::{CpuAffinity, KillMode};
pub use control::{Allowed, ControlSocket};
pub use error::{Finished, RunError};
pub use helpers::{Helper, HelperContext};
pub use launch::{BootNews, BootReporter, BootWatch, Detached, Heard, detach};
pub(crate) use listeners::connect;
pub use listeners::{Address, KeepAlive, SocketOptions};
pub use load::LoadRequest;
pub(crate) use log_process::Outputs;
pub use log_process::{LogFeed, LogOrder};
pub use master::Master;
pub use pidfile::{Pidfile, Running};
pub use rehearsal::{Finding, Rehearsal};

use crate::arbiter::{Action, Arbiter, Event, Order, Outcome, Readiness, Time, WorkerId};
use crate::sys::channel::Channel;
use crate::sys::fds::NofileLimit;
use crate::sys::oom::OomCounter;
use crate::sys::seats::Seats;
use crate::sys::setup::Failure;
use crate::sys::signals::SignalQueue;
use crate::sys::spawn::{self, SpawnOutcome};
use crate::sys::successor::Origin;
use crate::sys::{clock, title};
use arrivals::caught_signals;
use children::Children;
use control::CONTROL_FROM;
use era::Eras;
use helpers::HelperPlace;
use history::History;
use load::{Loading, PendingLoad};
use log_process::LogPipes;
use manager::Manager;
use master::Settings;
use occasions::Occasions;
use pidfile::HeldPidfile;
use probes::Probes;
use recorder::Recorder;
use successor::Predecessor;
pub use successor::{is_successor, note_of_predecessor, tell_predecessor};
use tree::Trees;
use upgrade::Succession;

/// What an epoll event is about: a signal came, a worker rang, the log process has said something or
/// has room, the service manager has room, a command's start is decided, a command says something of itself, or a cgroup is
/// empty; from `CONTROL_FROM` on, a client.
const SIGNAL: u64 = 0;
const BELL: u64 = 1;
const LOG: u64 = 2;
const LOG_PIPE: u64 = 3;
const MANAGER: u64 = 4;
const REPORTS_FROM: u64 = 5;
const NOTIFY_FROM: u64 = 1 << 60;
const LOADER: u64 = 1 << 61;
const SUCCESSOR: u64 = LOADER + 1;
const SUCCESSOR_START: u64 = LOADER + 2;
const PREDECESSOR: u64 = LOADER + 3;
const WATCHES_FROM: u64 = 1 << 63;

/// Events taken in one wait; more are found in the next.
const EVENTS_A_TURN: usize = 64;

/// Children reaped in one turn: workers that die as fast as they are started must not keep the loop
/// from a stop order.
const REAPS_A_TURN: usize = 64;

/// Everything a running master holds.
struct Driver<'a> {
    settings: &'a Settings,
    instance: u32,
    eras: Eras,
    /// The shared memory of forked workers.
    seats: Option<Arc<Seats>>,
    dev_null: OwnedFd,
    /// The configuration that is being read.
    loading: Option<Loading>,
    load_flags: PendingLoad,
    /// Loaders that are not reaped, of which one at most is waited for.
    loaders: Vec<Pid>,
    pidfile: Option<&'a RefCell<HeldPidfile>>,
    /// How this process was started.
    origin: &'a Origin,
    /// The master that this one is to replace, until it has.
    predecessor: Option<Predecessor>,
    /// It has been replaced, and has yet to say so to the service manager: then this channel ends.
    departing: Option<Channel>,
    /// The one that is to replace this one.
    succession: Option<Succession>,
    signals: &'a SignalQueue,
    epoll: Epoll,
    nofile: NofileLimit,
    log: LogPipes,
    manager: Manager,
    arbiter: Arbiter,
    recorder: Recorder,
    /// Given to it, because clients are let go only after the lock is given up.
    control: &'a mut control::Server,
    history: History,
    started: Time,
    children: Children,
    helpers: Vec<HelperPlace>,
    probes: Probes,
    occasions: Occasions,
    trees: Trees,
    oom: OomCounter,
    /// Those the program had before it became a master.
    callers_children: Vec<Pid>,
    /// Descriptors its caller let slip into it.
    callers_fds: Vec<RawFd>,
    /// There may be more to reap than one turn took.
    reap_pending: bool,
    /// Workers that are reaped while others of their group still stop.
    lingering: Vec<WorkerId>,
    /// Whose memory is still to be looked at.
    to_weigh: VecDeque<WorkerId>,
    /// What was heard of workers while an action was performed, to be told after it.
    heard: Vec<Event>,
    /// Set by the arbiter's last action.
    outcome: Option<Outcome>,
    /// Why the last command that could not be executed was not.
    spawn_failure: Option<(Failure, String)>,
    /// Other slots may be ready than those that get connections.
    is_spreading_due: bool,
}

impl Driver<'_> {
    /// Runs until the arbiter says `Exit`.
    fn run(&mut self) -> nix::Result<Outcome> {
        let wake = EpollFlags::EPOLLIN;
        self.epoll.add(self.signals.wake_fd(), EpollEvent::new(wake, SIGNAL))?;
        if let Some(seats) = &self.seats {
            self.epoll.add(seats.bell_fd(), EpollEvent::new(wake, BELL))?;
        }
        if let Some(predecessor) = &self.predecessor {
            self.epoll.add(predecessor.channel(), EpollEvent::new(wake, PREDECESSOR))?;
        }
        self.step(now(), Event::Started);
        loop {
            if let Some(outcome) = self.outcome {
                self.finish_control(Some(outcome));
                return Ok(outcome);
            }
            self.turn()?;
        }
    }

    /// One turn: wait, then tell the arbiter everything that happened, stop orders first (I14).
    fn turn(&mut self) -> nix::Result<()> {
        let mut ready = [EpollEvent::empty(); EVENTS_A_TURN];
        let found = match self.epoll.wait(&mut ready, self.timeout()) {
            Ok(found) => found,
            Err(nix::Error::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        let now = now();
        let mut orders = Vec::new();
        let mut rung = false;
        let mut started = Vec::new();
        let mut notified = Vec::new();
        let mut clients = Vec::new();
        let (mut is_emptied, mut is_loaded) = (false, false);
        let (mut has_successor_news, mut has_predecessor_news) = (false, false);
        for event in &ready[..found] {
            match event.data() {
                SIGNAL => self.take_signals(&mut orders),
                BELL => rung = true,
                LOG => self.on_log_channel(),
                LOG_PIPE => self.on_log_room(),
                LOADER => is_loaded = true,
                SUCCESSOR => has_successor_news = true,
                SUCCESSOR_START => self.on_successor_start(),
                PREDECESSOR => has_predecessor_news = true,
                MANAGER => self.manager.on_room(&self.epoll),
                watch if watch >= WATCHES_FROM => is_emptied = true,
                client if client >= CONTROL_FROM => clients.push((client, event.events())),
                notify if notify >= NOTIFY_FROM => notified.push(WorkerId(notify - NOTIFY_FROM)),
                report => started.push(WorkerId(report - REPORTS_FROM)),
            }
        }
        if has_successor_news || has_predecessor_news {
            // A signal that came with these is told of in the next wait only, and a stop has to be first.
            self.take_signals(&mut orders);
        }
        let (urgent, orders): (Vec<_>, Vec<_>) =
            orders.into_iter().partition(|order: &Order| order.is_urgent());
        // However many stops came together, they are one (equal orders coalesce).
        if let Some(stop) = urgent.first() {
            self.step(now, Event::Ordered(*stop));
        }
        if has_successor_news {
            // Before anything else can find that its time is over: it may have taken over in time.
            self.on_successor(now);
        }
        if rung {
            self.on_bell(now);
        }
        for worker in started {
            self.on_report(worker, now);
        }
        for worker in notified {
            self.on_notify(worker, now);
        }
        self.reap(now);
        if is_emptied {
            self.look_at_trees(now);
        }
        if is_loaded {
            self.on_loader(now);
        }
        if has_predecessor_news {
            self.on_predecessor(now);
        }
        for order in orders {
            self.step(now, Event::Ordered(order));
        }
        self.hear_clients(&clients, now);
        self.step(now, Event::Tick);
        self.follow_generations();
        if self.is_spreading_due {
            self.spread_listeners(false);
        }
        self.look_at_memory(now);
        self.see_occasions(now);
        self.serve_clients(now);
        self.watch_log_room();
        self.tell_manager();
        Ok(())
    }

    /// How long to wait: until the arbiter's deadline, or until something happens.
    fn timeout(&self) -> EpollTimeout {
        if self.reap_pending || !self.to_weigh.is_empty() {
            return EpollTimeout::ZERO;
        }
        let deadlines = [
            self.arbiter.next_deadline(),
            self.control.deadline(),
            self.occasions.next_deadline(),
            self.manager.deadline().filter(|_| self.is_main()),
        ];
        let Some(deadline) = deadlines.into_iter().flatten().min() else {
            return EpollTimeout::NONE;
        };
        EpollTimeout::try_from(clock::millis(deadline.since(now()))).unwrap_or(EpollTimeout::ZERO)
    }

    /// Steps the arbiter and performs what it wants, including what the outcomes make it want.
    fn step(&mut self, now: Time, event: Event) {
        let mut actions: Vec<Action> = Vec::new();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.arbiter.step(now, event, &mut actions);
            self.recorder.step(now, event, &actions);
            for action in actions.drain(..) {
                events.extend(self.perform(action));
                events.extend(self.heard.drain(..));
            }
        }
    }

    /// Looks at the seats workers rang for. A ring is a hint; what counts is what the seat says.
    fn on_bell(&mut self, now: Time) {
        let Some(seats) = &self.seats else { return };
        let workers = match seats.rung() {
            Some(rung) => rung.iter().filter_map(|seat| self.children.worker_in(*seat)).collect(),
            None => self.children.workers(),
        };
        for worker in workers {
            self.look_at_seat(worker, now);
        }
    }

    fn look_at_seat(&mut self, worker: WorkerId, now: Time) {
        let Some(seats) = &self.seats else { return };
        let Some(child) = self.children.get_mut(worker) else { return };
        let seat = seats.seat(child.seat);
        let is_ready =
            seat.is_ready() && !std::mem::replace(&mut child.ready_told, seat.is_ready());
        let is_recycle_due = seat.is_recycle_due() && !child.recycle_told;
        child.recycle_told |= is_recycle_due;
        if is_ready {
            self.step(now, Event::Ready { worker, jitter: perform::jitter() });
        }
        if is_recycle_due {
            self.step(now, Event::RecycleDue { worker });
        }
    }

    /// Learns whether a command was executed. If not, its failure waits for the process's end.
    fn on_report(&mut self, worker: WorkerId, now: Time) {
        let Some(child) = self.children.get_mut(worker) else { return };
        let Some(report) = &child.report else { return };
        let outcome = spawn::outcome(report);
        if matches!(outcome, SpawnOutcome::Pending) {
            return;
        }
        // Closing is not enough: a child forked meanwhile has a copy until it executes, and for so
        // long the end of this pipe would be reported again and again.
        let _ = self.epoll.delete(report);
        child.report = None;
        match outcome {
            SpawnOutcome::Failed(failure) => child.failure = Some(failure),
            SpawnOutcome::Running if self.is_told_when_executed(worker) => {
                self.step(now, Event::Ready { worker, jitter: perform::jitter() });
            }
            // It says so itself.
            SpawnOutcome::Running => {}
            SpawnOutcome::Pending => {}
        }
    }

    /// Whether the arbiter is told that a worker was executed; else it hears of it by the worker alone.
    fn is_told_when_executed(&self, worker: WorkerId) -> bool {
        self.children.get(worker).is_some_and(|child| {
            self.eras.of(child.generation).spec.policy.readiness != Readiness::Reported
        })
    }

    /// The master's own descriptors, which no worker may keep.
    fn own_fds(&self) -> Vec<RawFd> {
        let mut own = vec![self.epoll.0.as_raw_fd()];
        own.extend(self.log.raw_fds());
        own.extend(self.control.raw_fds());
        own.extend(self.signals.raw_fds());
        own.extend(self.trees.raw_fds());
        own.extend(self.helpers.iter().flat_map(HelperPlace::fds).map(AsRawFd::as_raw_fd));
        own.extend(self.occasions.raw_fds());
        own.extend(self.probes.raw_fds());
        own.extend(self.manager.raw_fd());
        own.extend(self.departing.iter().map(|channel| channel.as_fd().as_raw_fd()));
        own.extend(self.pidfile.map(|held| held.borrow().raw_fd()));
        own.extend(self.recorder.raw_fd());
        own.extend(self.succession.iter().flat_map(Succession::raw_fds));
        own.extend(self.seats.iter().map(|seats| seats.raw_fd()));
        own.push(self.dev_null.as_raw_fd());
        own.extend(self.loading.iter().flat_map(Loading::raw_fds));
        own.extend(self.settings.boot.iter().filter_map(|(reporter, _)| reporter.raw_fd()));
        own
    }

    /// The arbiter may have decided for another generation, and the last worker of one may be gone.
    fn follow_generations(&mut self) {
        if self.eras.len() == 1 {
            return;
        }
        if self.eras.set_current(self.arbiter.generation()) {
            title::set(&format!("ph: master [{}]", self.eras.current().name));
            self.configure_log();
            self.eras.current().settle_listeners();
            self.spread_listeners(true);
        }
        let (arbiter, children) = (&self.arbiter, &self.children);
        self.eras.keep(|it| arbiter.is_needed(it) || children.has_generation(it));
    }

    /// What the master keeps open for its workers, which a helper has no use for.
    fn fds_of_workers(&self) -> Vec<RawFd> {
        let mut all: Vec<_> = self.eras.iter().flat_map(|era| era.raw_fds()).collect();
        all.extend(self.loading.iter().flat_map(Loading::listeners));
        for child in self.children.iter() {
            all.extend(child.report.as_ref().map(AsRawFd::as_raw_fd));
            all.extend(child.notify.as_ref().map(|socket| socket.as_fd().as_raw_fd()));
        }
        all.extend(self.seats.iter().flat_map(|seats| seats.raw_fds()));
        all.extend(self.predecessor.iter().flat_map(Predecessor::raw_fds));
        all
    }
}

fn new_epoll() -> nix::Result<Epoll> {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
}

fn now() -> Time {
    Time::from_nanos(clock::monotonic())
}
