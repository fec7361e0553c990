//! Actions become system calls. A failure becomes an event, to be told in the same turn.

use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::AsFd as _;
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{error, warn};

use super::children::Child;
use super::{Driver, REPORTS_FROM, WorkerSource, environment, report};
use crate::arbiter::{
    Action, Event, Generation, Jitter, Slot, SpawnFault, Time, WorkerId, WorkerSignal,
};
use crate::sys::process::{self, Fork};
use crate::sys::{signals, spawn};
use crate::worker::{self, Boot, Identity};

impl Driver<'_> {
    /// Performs one action and says what came of it, if that is known at once.
    pub(super) fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn { worker, slot, generation } => self.spawn(worker, slot, generation),
            Action::Signal { worker, signal } => {
                self.signal(worker, signal);
                None
            }
            Action::ReadHeartbeat { worker } => self.read_heartbeat(worker),
            Action::SpawnHelper { .. } | Action::StopHelper { .. } | Action::KillHelper { .. } => {
                None
            }
            Action::EndStrays => {
                self.end_strays();
                Some(Event::StraysCounted { left: 0 })
            }
            Action::ReopenLog => {
                signals::count_reopen();
                tracing::info!("log files reopened");
                self.renew_output();
                None
            }
            Action::Notify(notice) => {
                report::report(notice, &self.children, self.settings.stop_signal);
                None
            }
            Action::Exit(outcome) => {
                self.outcome = Some(outcome);
                None
            }
        }
    }

    /// Forks with all signals blocked, so that one meant for the child waits until it can answer.
    fn spawn(&mut self, worker: WorkerId, slot: Slot, generation: Generation) -> Option<Event> {
        let failed = |what: String| {
            error!("cannot start worker {slot}: {what}");
            let fault = SpawnFault::Passing;
            Some(Event::SpawnFailed { worker, fault, jitter: jitter() })
        };
        match process::thread_count() {
            Ok(1) => {}
            Ok(threads) => return failed(format!("the master has {threads} threads")),
            Err(error) => return failed(format!("/proc/self/task cannot be read: {error}")),
        }
        let mask = match signals::block_all() {
            Ok(mask) => mask,
            Err(errno) => return failed(format!("signals cannot be blocked: {errno}")),
        };
        let identity = Identity {
            name: Rc::clone(&self.name),
            slot: slot.0,
            generation: generation.0,
            worker_id: worker.0,
            instance: self.instance,
        };
        let spawned = match self.source {
            WorkerSource::Forked { .. } => self.fork_worker(identity),
            WorkerSource::Command { .. } => self.exec_worker(worker, &identity),
        };
        // The mask was valid a moment ago, so it can be set again.
        let _ = signals::set_mask(&mask);
        match spawned {
            Ok(child) => {
                // A command whose start cannot be watched counts as executed; its exit will tell.
                let is_unwatched = child.seat.is_none() && child.report.is_none();
                self.children.insert(worker, Child { slot, generation, ..child });
                is_unwatched.then_some(Event::Ready { worker })
            }
            Err(error) => failed(error.to_string()),
        }
    }

    fn fork_worker(&mut self, identity: Identity) -> std::io::Result<Child> {
        let WorkerSource::Forked { factory, seats, environment, dev_null, max_requests } =
            &self.source
        else {
            return Err(Errno::EINVAL.into());
        };
        let environment = environment.table(&environment::own(&identity), None)?;
        let seat_index = self.children.take_seat().ok_or(Errno::EAGAIN)?;
        seats.seat(seat_index).reset();
        let master = nix::unistd::getpid();
        match process::fork() {
            Ok(Fork::Master(pid)) => Ok(Child::new(pid, Some(seat_index))),
            Ok(Fork::Child) => worker::enter(Boot {
                environment: &environment,
                dev_null,
                identity,
                master,
                factory,
                listeners: self.listeners.sockets(),
                seats,
                seat_index,
                signals: self.signals,
                not_mine: self.own_fds(),
                nofile: self.nofile,
                directory: self.settings.directory.as_deref(),
                logging: &self.settings.logging,
                timeout: self.settings.policy.timeout,
                max_requests: *max_requests,
                app: &self.settings.app,
            }),
            Err(errno) => {
                self.children.give_seat_back(seat_index);
                Err(errno.into())
            }
        }
    }

    fn exec_worker(&mut self, worker: WorkerId, identity: &Identity) -> std::io::Result<Child> {
        let WorkerSource::Command { program, command, .. } = &self.source else {
            return Err(Errno::EINVAL.into());
        };
        let words = command.words_of(identity.slot, identity.generation);
        let own = environment::own(identity);
        let (pid, report) = program.spawn(&words, &own, self.output.as_fd())?;
        // Level-triggered: what is not read in this turn is read in the next.
        let event = EpollEvent::new(EpollFlags::EPOLLIN, REPORTS_FROM + worker.0);
        let watched = self.epoll.add(&report, event);
        let mut child = Child::new(pid, None);
        match watched {
            Ok(()) => child.report = Some(report),
            Err(errno) => warn!("cannot watch the start of pid {pid}: {errno}"),
        }
        Ok(child)
    }

    /// Signals go to children that have not been reaped, so never to a stranger (I2, I22).
    fn signal(&mut self, worker: WorkerId, signal: WorkerSignal) {
        let Some(child) = self.children.get(worker) else { return };
        let pid = child.pid;
        let is_command = child.seat.is_none();
        let sent = match signal {
            // Its end is about to be told, or its group still stops; the group holds the number as
            // long as it has a member.
            WorkerSignal::Kill if child.reaped.is_some() => kill_group(pid),
            _ if child.reaped.is_some() => Ok(()),
            WorkerSignal::Stop if is_command => stop_group(pid, self.settings.stop_signal),
            WorkerSignal::Stop => wake_and_send(pid, self.settings.stop_signal),
            WorkerSignal::Abort => wake_and_send(pid, Signal::SIGABRT),
            WorkerSignal::Reopen => process::signal(pid, Signal::SIGUSR1),
            // Itself first: a child so young that it leads no group yet must not survive.
            WorkerSignal::Kill => {
                let sent = process::signal(pid, Signal::SIGKILL);
                let _ = process::signal_group(pid, Signal::SIGKILL);
                sent
            }
        };
        if let Err(errno) = sent {
            warn!("cannot send {signal:?} to pid {pid}: {errno}");
        }
    }

    fn read_heartbeat(&self, worker: WorkerId) -> Option<Event> {
        let seat = self.children.get(worker)?.seat?;
        let WorkerSource::Forked { seats, .. } = &self.source else { return None };
        let beat = Time::from_nanos(seats.seat(seat).last_beat());
        Some(Event::Heartbeat { worker, beat })
    }

    /// Commands write into a description of the log file that is shared by all; a fresh one, so that
    /// those started from now on write into the file that has the name now.
    fn renew_output(&mut self) {
        match self.settings.logging.stdio() {
            Ok(output) => self.output = output,
            Err(error) => warn!("the workers' log cannot be reopened, keeping the old: {error}"),
        }
    }
}

/// A command may be a script that waits for the program it started, so the whole group is told. A
/// child so young that it leads no group yet is told by itself.
fn stop_group(leader: Pid, signal: Signal) -> nix::Result<()> {
    if process::signal_group(leader, signal).is_err() {
        return wake_and_send(leader, signal);
    }
    process::signal_group(leader, Signal::SIGCONT)
}

/// Ends what is left of a group whose leader is reaped.
fn kill_group(leader: Pid) -> nix::Result<()> {
    if process::group_has_children(leader) {
        process::signal_group(leader, Signal::SIGKILL)?;
    }
    Ok(())
}

/// A stopped process takes no signal but SIGCONT, so it follows every other.
fn wake_and_send(pid: Pid, signal: Signal) -> nix::Result<()> {
    process::signal(pid, signal)?;
    process::signal(pid, Signal::SIGCONT)
}

/// Fresh random bits, for the waits of slots that died together.
pub(super) fn jitter() -> Jitter {
    let bits = RandomState::new().hash_one(0_u8);
    Jitter((bits >> 32) as u32)
}

/// What a failed `exec` means for the arbiter.
pub(super) fn fault_of(failure: spawn::Failure, program: &std::path::Path) -> SpawnFault {
    match (failure.step, Errno::from_raw(failure.errno)) {
        (spawn::Step::Exec, Errno::ENOENT | Errno::ENOTDIR) if !program.exists() => {
            SpawnFault::NotFound
        }
        (
            spawn::Step::Exec,
            Errno::EAGAIN | Errno::ENOMEM | Errno::ETXTBSY | Errno::ENFILE | Errno::EMFILE,
        ) => SpawnFault::Passing,
        (spawn::Step::Exec, _) => SpawnFault::NotExecutable,
        (
            spawn::Step::Session
            | spawn::Step::Descriptors
            | spawn::Step::Limits
            | spawn::Step::Directory,
            _,
        ) => SpawnFault::Passing,
    }
}
