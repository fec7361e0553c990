//! Ring 2: does what the arbiter decides. One loop, one wait, one thread.
//!
//! A turn of the loop waits until a signal came, a worker rang, a command was executed (or not), or
//! the arbiter's next deadline passed. It turns what it finds into events, steps the arbiter with
//! each, and performs the actions at once. It decides nothing, never sleeps, and with nothing due
//! makes no system call at all.

mod children;
mod command;
mod environment;
mod error;
mod listeners;
mod master;
mod perform;
mod pidfile;
mod report;

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr as _;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::info;

pub use command::{Command, CommandError};
pub use error::{Finished, RunError};
pub use listeners::Address;
pub use master::Master;
pub use pidfile::Pidfile;

use crate::arbiter::{
    Action, Arbiter, Event, ExitStatus, ORDERS, Order, Outcome, REAP_GRACE, Time, WorkerId,
};
use crate::sys::clock;
use crate::sys::environ::Environment;
use crate::sys::fds::NofileLimit;
use crate::sys::process::{self, Ended};
use crate::sys::seats::Seats;
use crate::sys::signals::{Arrived, Sender, SignalQueue};
use crate::sys::spawn::{self, Program, SpawnOutcome};
use crate::worker::Factory;
use children::{Child, Children};
use listeners::Listeners;
use master::Settings;
use pidfile::HeldPidfile;

/// What an epoll event is about: a signal came, a worker rang, or a command's start is decided.
const SIGNAL: u64 = 0;
const BELL: u64 = 1;
const REPORTS_FROM: u64 = 2;

/// Events taken in one wait; more are found in the next.
const EVENTS_A_TURN: usize = 64;

/// Children reaped in one turn: workers that die as fast as they are started must not keep the loop
/// from a stop order.
const REAPS_A_TURN: usize = 64;

/// What the workers are made of.
enum WorkerSource {
    Forked {
        factory: Factory,
        seats: Rc<Seats>,
        environment: Environment,
        dev_null: OwnedFd,
        max_requests: u64,
    },
    Command {
        program: Program,
        path: PathBuf,
        command: Command,
    },
}

/// Everything a running master holds.
struct Driver<'a> {
    settings: &'a Settings,
    name: Rc<str>,
    instance: u32,
    source: WorkerSource,
    listeners: &'a Listeners,
    pidfile: Option<&'a HeldPidfile>,
    signals: &'a SignalQueue,
    epoll: Epoll,
    nofile: NofileLimit,
    /// What command workers get as stdout and stderr.
    output: OwnedFd,
    arbiter: Arbiter,
    children: Children,
    /// Those the program had before it became a master.
    callers_children: Vec<Pid>,
    /// There may be more to reap than one turn took.
    reap_pending: bool,
    /// Workers that are reaped while others of their group still stop.
    lingering: Vec<WorkerId>,
    /// Set by the arbiter's last action.
    outcome: Option<Outcome>,
    /// Why the last command that could not be executed was not.
    spawn_failure: Option<(spawn::Failure, String)>,
}

impl Driver<'_> {
    /// Runs until the arbiter says `Exit`.
    fn run(&mut self) -> nix::Result<Outcome> {
        let wake = EpollFlags::EPOLLIN;
        self.epoll.add(self.signals.wake_fd(), EpollEvent::new(wake, SIGNAL))?;
        if let WorkerSource::Forked { seats, .. } = &self.source {
            self.epoll.add(seats.bell_fd(), EpollEvent::new(wake, BELL))?;
        }
        self.step(now(), Event::Started);
        loop {
            if let Some(outcome) = self.outcome {
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
        for event in &ready[..found] {
            match event.data() {
                SIGNAL => self.take_signals(&mut orders),
                BELL => rung = true,
                report => started.push(WorkerId(report - REPORTS_FROM)),
            }
        }
        let (urgent, orders): (Vec<_>, Vec<_>) =
            orders.into_iter().partition(|order: &Order| order.is_urgent());
        // However many stops came together, they are one (equal orders coalesce).
        if let Some(stop) = urgent.first() {
            self.step(now, Event::Ordered(*stop));
        }
        if rung {
            self.on_bell(now);
        }
        for worker in started {
            self.on_report(worker, now);
        }
        self.reap(now);
        for order in orders {
            self.step(now, Event::Ordered(order));
        }
        self.step(now, Event::Tick);
        Ok(())
    }

    /// How long to wait: until the arbiter's deadline, or until something happens.
    fn timeout(&self) -> EpollTimeout {
        if self.reap_pending {
            return EpollTimeout::ZERO;
        }
        let Some(deadline) = self.arbiter.next_deadline() else { return EpollTimeout::NONE };
        EpollTimeout::try_from(clock::millis(deadline.since(now()))).unwrap_or(EpollTimeout::ZERO)
    }

    /// Steps the arbiter and performs what it wants, including what the outcomes make it want.
    fn step(&mut self, now: Time, event: Event) {
        let mut actions: Vec<Action> = Vec::new();
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.arbiter.step(now, event, &mut actions);
            for action in actions.drain(..) {
                events.extend(self.perform(action));
            }
        }
    }

    fn take_signals(&mut self, orders: &mut Vec<Order>) {
        for arrived in self.signals.take() {
            if arrived.signal == Signal::SIGCHLD {
                self.reap_pending = true;
                continue;
            }
            let row = ORDERS.iter().find(|row| row.signal == arrived.signal.as_str());
            let Some(row) = row else { continue };
            info!("{}: {}", Received(arrived), row.meaning);
            match row.order {
                Some(Order::ScaleBy(by)) => {
                    let count = i32::try_from(arrived.count).unwrap_or(i32::MAX);
                    orders.push(Order::ScaleBy(by.saturating_mul(count)));
                }
                Some(order) => orders.push(order),
                None => {}
            }
        }
    }

    /// Looks at the seats workers rang for. A ring is a hint; what counts is what the seat says.
    fn on_bell(&mut self, now: Time) {
        let WorkerSource::Forked { seats, .. } = &self.source else { return };
        let workers = match seats.rung() {
            Some(rung) => rung.iter().filter_map(|seat| self.children.worker_in(*seat)).collect(),
            None => self.children.workers(),
        };
        for worker in workers {
            self.look_at_seat(worker, now);
        }
    }

    fn look_at_seat(&mut self, worker: WorkerId, now: Time) {
        let WorkerSource::Forked { seats, .. } = &self.source else { return };
        let Some(child) = self.children.get_mut(worker) else { return };
        let Some(seat) = child.seat.map(|seat| seats.seat(seat)) else { return };
        let is_ready =
            seat.is_ready() && !std::mem::replace(&mut child.ready_told, seat.is_ready());
        let is_recycle_due = seat.is_recycle_due() && !child.recycle_told;
        child.recycle_told |= is_recycle_due;
        if is_ready {
            self.step(now, Event::Ready { worker });
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
            SpawnOutcome::Running => self.step(now, Event::Ready { worker }),
            SpawnOutcome::Pending => {}
        }
    }

    /// Reaps until nothing is left: signals merge, so one SIGCHLD may mean many ends. Only then are the
    /// ends told, because looking for more walks over all children and would hold up those that the
    /// answer starts.
    fn reap(&mut self, now: Time) {
        if !self.reap_pending {
            return;
        }
        let mut ended = Vec::new();
        for _ in 0..REAPS_A_TURN {
            let Some(pid) = process::next_ended() else {
                self.reap_pending = false;
                break;
            };
            match self.children.worker_of(pid) {
                Some(worker) if self.reap_worker(worker, pid, now) => ended.push(worker),
                Some(worker) => self.lingering.push(worker),
                None => {
                    process::reap(pid);
                }
            }
        }
        let children = &self.children;
        ended.extend(self.lingering.extract_if(.., |worker| {
            children.get(*worker).is_none_or(|child| !process::group_has_children(child.pid))
        }));
        for worker in ended {
            self.on_ended(worker, now);
        }
    }

    /// Reaps a worker; says whether that is its end. A worker has ended when its group has. A crash
    /// takes the rest of the group along at once, while its leader is still a zombie and the number
    /// still its own. A command that was told to stop was told with its group, and what is left of
    /// that has the same time to do so.
    fn reap_worker(&mut self, worker: WorkerId, pid: Pid, now: Time) -> bool {
        // The last words first: it may have been ready, or never executed.
        self.look_at_seat(worker, now);
        self.on_report(worker, now);
        let is_graceful = match self.source {
            WorkerSource::Forked { .. } => false,
            WorkerSource::Command { .. } => self.arbiter.is_within_grace(worker),
        };
        if !is_graceful {
            // ESRCH is what is hoped for: nobody is left.
            let _ = process::signal_group(pid, Signal::SIGKILL);
        }
        if let Some(child) = self.children.get_mut(worker) {
            child.reaped = process::reap(pid);
        }
        !(is_graceful && process::group_has_children(pid))
    }

    fn on_ended(&mut self, worker: WorkerId, now: Time) {
        let Some(child) = self.children.get(worker) else { return };
        let Some(ended) = child.reaped else { return };
        let jitter = perform::jitter();
        let event = match (child.failure, &self.source) {
            (Some(failure), WorkerSource::Command { path, .. }) => {
                let directory = self.settings.directory.as_deref();
                let why = report::describe_failure(failure, path, directory);
                tracing::error!("worker {}: {why}", child.slot);
                let fault = perform::fault_of(failure, path);
                self.spawn_failure = Some((failure, why));
                Event::SpawnFailed { worker, fault, jitter }
            }
            (_, WorkerSource::Forked { .. } | WorkerSource::Command { .. }) => {
                let status = match ended {
                    Ended::Code(code) => ExitStatus::Code(code),
                    Ended::Signal(number, core) => ExitStatus::Signal { number, core },
                };
                Event::Exited { worker, status, jitter }
            }
        };
        self.step(now, event);
        // Only now, so that the line about its end can name its pid.
        self.children.remove(worker);
    }

    /// The master's own descriptors, which no worker may keep.
    fn own_fds(&self) -> Vec<RawFd> {
        let mut own = vec![self.epoll.0.as_raw_fd(), self.output.as_raw_fd()];
        own.extend(self.signals.raw_fds());
        own.extend(self.pidfile.map(HeldPidfile::raw_fd));
        if let WorkerSource::Forked { seats, dev_null, .. } = &self.source {
            own.extend([seats.raw_fd(), dev_null.as_raw_fd()]);
        }
        own
    }

    /// The last resort of a master that cannot go on: nobody is left behind.
    fn kill_everyone(&self) {
        for child in self.children.iter().filter(|child| child.reaped.is_none()) {
            let _ = process::signal(child.pid, Signal::SIGKILL);
            let _ = process::signal_group(child.pid, Signal::SIGKILL);
        }
    }

    /// Ends what workers left behind outside their groups. The master being their subreaper, such
    /// processes have become its children when theirs ended, one generation after the other.
    fn end_strays(&mut self) {
        let until = now().after(REAP_GRACE);
        let mut ended = 0;
        loop {
            for pid in std::iter::from_fn(process::next_ended).take(REAPS_A_TURN) {
                process::reap(pid);
            }
            let mut strays = process::children();
            strays.retain(|pid| {
                let is_worker = self.children.worker_of(*pid).is_some();
                !is_worker && !self.callers_children.contains(pid)
            });
            if strays.is_empty() {
                break;
            }
            let left = until.since(now());
            if left.is_zero() {
                tracing::error!("processes left behind that do not end: {strays:?}");
                break;
            }
            for pid in &strays {
                ended += usize::from(process::signal(*pid, Signal::SIGKILL).is_ok());
            }
            // SIGCHLD ends the wait; whatever else comes is too late to matter.
            let timeout = EpollTimeout::try_from(clock::millis(left)).unwrap_or(EpollTimeout::ZERO);
            let _ = self.epoll.wait(&mut [EpollEvent::empty()], timeout);
            drop(self.signals.take());
        }
        if ended > 0 {
            tracing::warn!("killed what workers had left behind outside their groups: {ended}");
        }
    }
}

impl Child {
    fn new(pid: Pid, seat: Option<usize>) -> Self {
        Self {
            pid,
            slot: crate::arbiter::Slot(0),
            generation: crate::arbiter::Generation(0),
            seat,
            report: None,
            failure: None,
            reaped: None,
            ready_told: false,
            recycle_told: false,
        }
    }
}

/// A signal and who sent it.
struct Received(Arrived);

impl std::fmt::Display for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Arrived { signal, count, sender } = self.0;
        write!(f, "{signal}")?;
        if count > 1 {
            write!(f, " x{count}")?;
        }
        match sender {
            Some(Sender { pid: 0, .. }) => f.write_str(" from outside this pid namespace"),
            Some(Sender { pid, uid }) => write!(f, " from pid {pid} uid {uid}"),
            None => f.write_str(" from the kernel, as by a terminal"),
        }
    }
}

/// The signals a master catches.
fn caught_signals() -> Vec<Signal> {
    ORDERS.iter().filter_map(|row| Signal::from_str(row.signal).ok()).collect()
}

fn new_epoll() -> nix::Result<Epoll> {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
}

fn now() -> Time {
    Time::from_nanos(clock::monotonic())
}
