//! Actions become system calls. A failure becomes an event, to be told in the same turn.

use std::ffi::OsString;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, RawFd};
use std::rc::Rc;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{error, warn};

use super::children::Child;
use super::conditions::KillMode;
use super::era::{Era, WorkerSource};
use super::helpers::HelperPlace;
use super::load::Loading;
use super::log_process::Outputs;
use super::notify::Address;
use super::strays::Census;
use super::successor::Predecessor;
use super::{Driver, REPORTS_FROM, environment, now, report};
use crate::arbiter::{
    Action, Event, Generation, Jitter, Notice, Order, Readiness, Slot, SpawnFault, State, Time,
    WorkerId, WorkerSignal,
};
use crate::sys::process::{self, Fork};
use crate::sys::setup::{Failure, Step};
use crate::sys::signals;
use crate::sys::spawn::Instance;
use crate::worker::{self, Boot, Identity, Listener, LogOrigin};

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
            Action::ReadMemory { worker } => {
                self.to_weigh.push_back(worker);
                None
            }
            Action::StartProbe { worker } => self.start_probe(worker),
            Action::EndProbe { worker } => {
                self.end_probe(worker);
                None
            }
            Action::Load { generation } => {
                worker::call("on_reload", || self.settings.hooks.on_reload());
                self.load(generation)
            }
            Action::AbandonLoad => {
                self.abandon_load();
                None
            }
            Action::SpawnSuccessor => {
                worker::call("pre_exec", || self.settings.hooks.pre_exec());
                self.spawn_successor()
            }
            Action::CommitUpgrade => {
                self.commit_upgrade();
                None
            }
            Action::StopSuccessor => {
                self.stop_successor();
                None
            }
            Action::KillSuccessor => {
                self.kill_successor();
                None
            }
            Action::HandOver => {
                self.give_up_files();
                None
            }
            Action::Forward(order) => {
                // A signal cannot say that less is wanted. Who wanted less is told to ask again.
                if order != Order::Reload || self.load_flags.is_whole() {
                    self.forward(order);
                }
                None
            }
            Action::SpawnHelper { helper } => self.spawn_helper(helper),
            Action::StopHelper { helper } => {
                self.stop_helper(helper);
                None
            }
            Action::KillHelper { helper } => {
                self.kill_helper(helper);
                None
            }
            Action::EndStrays => self.end_strays(),
            Action::ReopenLog => {
                signals::count_reopen();
                if !self.reopen_log() {
                    tracing::info!("log files reopened");
                }
                None
            }
            Action::Notify(notice) => {
                self.manager.on_notice(&notice, now());
                let names = self.helpers.iter().map(HelperPlace::name).collect();
                let who = report::People { children: &self.children, helpers: names };
                report::report(notice, &who, self.eras.current().spec.stop_signal);
                let why = self.spawn_failure.as_ref().map(|(_, why)| why.as_str());
                let pid_of = |worker| {
                    let child = self.children.get(worker)?;
                    Some(child.pid.as_raw().unsigned_abs())
                };
                self.history.note(notice, why, pid_of, now());
                self.tell_clients(notice, now());
                self.tell_boot(notice);
                self.follow(notice);
                None
            }
            Action::Exit(outcome) => {
                worker::call("on_exit", || self.settings.hooks.on_exit());
                self.detach_log();
                self.outcome = Some(outcome);
                None
            }
        }
    }

    /// What follows from a notice, beside its line.
    fn follow(&mut self, notice: Notice) {
        self.note_occasion(&notice);
        self.note_spreading(&notice);
        if let Notice::Booted { .. } = notice {
            self.on_booted();
        } else if let Notice::NotBooted { is_timeout } = notice {
            self.on_not_booted(is_timeout);
        } else if let Notice::Leaving { outcome } = notice {
            self.tell_departing(outcome);
        } else if let Notice::Scaled { from, to } = notice {
            let hooks = &self.settings.hooks;
            worker::call("nworkers_changed", || hooks.nworkers_changed(from, to));
        }
    }

    /// The first count of what workers left behind; the loop counts again when some have ended.
    fn end_strays(&mut self) -> Option<Event> {
        self.trees.is_closing = true;
        let Self { children, helpers, callers_children: callers, loaders, .. } = self;
        let census = Census { children, helpers, callers, loaders };
        let left = self.trees.end_strays(&census, &self.epoll)?;
        Some(self.count_strays(left))
    }

    /// Forks with all signals blocked, so that one meant for the child waits until it can answer.
    pub(super) fn with_signals_blocked<T>(
        &mut self,
        fork: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<T, String> {
        match process::thread_count() {
            Ok(1) => {}
            Ok(threads) => return Err(format!("the master has {threads} threads")),
            Err(error) => return Err(format!("/proc/self/task cannot be read: {error}")),
        }
        let mask =
            signals::block_all().map_err(|errno| format!("signals cannot be blocked: {errno}"))?;
        let forked = fork(self);
        // The mask was valid a moment ago, so it can be set again.
        let _ = signals::set_mask(&mask);
        forked.map_err(|error| error.to_string())
    }

    fn spawn(&mut self, worker: WorkerId, slot: Slot, generation: Generation) -> Option<Event> {
        let era = Rc::clone(self.eras.of(generation));
        let identity = Identity {
            name: Arc::clone(&era.name),
            slot: slot.0,
            generation: generation.0,
            worker_id: worker.0,
            instance: self.instance,
        };
        let about = identity.of_hook(None);
        worker::call("pre_fork", || self.settings.hooks.pre_fork(about));
        let spawned = self.with_signals_blocked(|driver| {
            let seat = driver.children.take_seat().or_else(|| driver.trees.give_up_remnant());
            let seat = seat.ok_or_else(|| io::Error::other("no seat is free"))?;
            let spawned = driver.spawn_in(seat, worker, &era, identity);
            if spawned.is_err() {
                driver.trees.spoil(seat);
                driver.children.give_seat_back(seat);
            }
            spawned
        });
        match spawned {
            Ok(child) => {
                self.trees.on_spawned(child.seat, child.pid);
                // A command whose start cannot be watched counts as executed; its exit will tell.
                let is_awaited = era.spec.policy.readiness != Readiness::Reported;
                let is_unwatched = is_awaited && !era.is_forked() && child.report.is_none();
                self.children.insert(worker, child);
                is_unwatched.then(|| Event::Ready { worker, jitter: jitter() })
            }
            Err(why) => {
                error!("cannot start worker {slot}: {why}");
                let fault = SpawnFault::Passing;
                Some(Event::SpawnFailed { worker, fault, jitter: jitter() })
            }
        }
    }

    fn spawn_in(
        &mut self,
        seat: usize,
        worker: WorkerId,
        era: &Era,
        identity: Identity,
    ) -> io::Result<Child> {
        let (slot, generation) = (identity.slot, identity.generation);
        let is_forked = era.is_forked();
        let mut outputs = self.open_outputs(&era.spec)?;
        let child = match is_forked {
            true => self.fork_worker(seat, era, identity, &mut outputs),
            false => {
                let address = self.open_address(worker)?;
                let spawned = self.exec_worker(worker, seat, era, &identity, &outputs, &address);
                match spawned {
                    Ok(child) => Ok(Child { notify: Some(address.socket), ..child }),
                    Err(error) => {
                        self.close_address(address.socket);
                        Err(error)
                    }
                }
            }
        }?;
        let pid = child.pid.as_raw().unsigned_abs();
        let origin = |stream| LogOrigin::Worker { slot, generation, pid, stream };
        self.keep_outputs(outputs, origin);
        Ok(child)
    }

    fn fork_worker(
        &mut self,
        seat: usize,
        era: &Era,
        identity: Identity,
        outputs: &mut Outputs,
    ) -> io::Result<Child> {
        let (WorkerSource::Forked { factory, environment, setup }, Some(seats)) =
            (&era.source, &self.seats)
        else {
            return Err(Errno::EINVAL.into());
        };
        let (slot, generation) = (identity.slot, identity.generation);
        let listeners = own_listeners(era, slot)?;
        let listeners: Vec<&Listener> = listeners.iter().map(|it| &**it).collect();
        let own = own_variables(era, &identity);
        let environment = environment.table(&own, &[])?;
        seats.seat(seat).reset();
        let mark = self.trees.mark.of(identity.worker_id);
        let master = nix::unistd::getpid();
        match process::fork()? {
            Fork::Master(pid) => Ok(Child::new(pid, Slot(slot), Generation(generation), seat)),
            Fork::Child => worker::enter(Boot {
                environment: &environment,
                dev_null: &self.dev_null,
                identity,
                master,
                factory,
                listeners: &listeners,
                seats,
                seat_index: seat,
                signals: self.signals,
                not_mine: self.fds_not_for_workers(era, &listeners),
                setup,
                mark,
                logging: &self.settings.logging,
                log_settings: &era.spec.log_settings,
                outputs: std::mem::take(outputs),
                timeout: era.spec.policy.timeout,
                max_requests: era.spec.requests_of(jitter()),
                threads: era.spec.threads as usize,
                connections: era.spec.connections as usize,
                app: &era.app,
                hooks: &self.settings.hooks,
            }),
        }
    }

    /// What a caller let slip into the master stays with whoever has the caller's rights.
    fn fds_not_for_workers(&self, era: &Era, own: &[&Listener]) -> Vec<RawFd> {
        let is_other = era.spec.conditions.is_another_account();
        let callers = if is_other { self.callers_fds.clone() } else { Vec::new() };
        let its: Vec<_> = own.iter().map(|listener| listener.as_fd().as_raw_fd()).collect();
        let of_eras = self.eras.iter().flat_map(|other| other.raw_fds());
        let of_past = self.loading.iter().flat_map(Loading::listeners);
        let of_predecessor = self.predecessor.iter().flat_map(Predecessor::raw_fds);
        let of_others = of_eras.chain(of_past).chain(of_predecessor);
        let of_others = of_others.filter(|fd| !its.contains(fd)).collect();
        let own = [self.own_fds(), self.fds_of_log(), self.trees.hold_fds()];
        [own.concat(), callers, of_others].concat()
    }

    fn exec_worker(
        &mut self,
        worker: WorkerId,
        seat: usize,
        era: &Era,
        identity: &Identity,
        outputs: &Outputs,
        address: &Address,
    ) -> io::Result<Child> {
        let (WorkerSource::Command { program, .. }, Some(command)) =
            (&era.source, &era.spec.command)
        else {
            return Err(Errno::EINVAL.into());
        };
        let cgroup = self.trees.cgroup_of(seat);
        let inherited = (io::stdout(), io::stderr());
        let mut own = own_variables(era, identity);
        own.push(address.variable());
        let listeners = own_listeners(era, identity.slot)?;
        let listeners: Vec<_> = listeners.iter().map(|listener| listener.as_fd()).collect();
        let has_own = era.spec.sockets.reuse_port;
        let (pid, report) = program.spawn(&Instance {
            listeners: has_own.then_some(&*listeners),
            slot: identity.slot,
            words: &command.words_of(identity.slot, identity.generation),
            own: &own,
            outputs: outputs.or(&inherited),
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            mark: Some(self.trees.mark.of(worker.0)),
        })?;
        // Level-triggered: what is not read in this turn is read in the next.
        let event = EpollEvent::new(EpollFlags::EPOLLIN, REPORTS_FROM + worker.0);
        let watched = self.epoll.add(&report, event);
        let place = (Slot(identity.slot), Generation(identity.generation));
        let mut child = Child::new(pid, place.0, place.1, seat);
        child.max_requests = era.spec.requests_of(jitter());
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
        let era = self.eras.of(child.generation);
        let (stop_signal, abort_signal) = (era.spec.stop_signal, era.spec.abort_signal);
        let is_group_told = !era.is_forked() && self.trees.kill_mode != KillMode::Process;
        let sent = match signal {
            WorkerSignal::Kill => {
                // If it is reaped, its end is about to be told, or its tree still stops.
                self.trees.kill(child.seat, pid, child.leader());
                Ok(())
            }
            _ if child.reaped.is_some() => Ok(()),
            WorkerSignal::Stop | WorkerSignal::StopLast if is_group_told => {
                stop_group(pid, stop_signal)
            }
            WorkerSignal::Stop => wake_and_send(pid, stop_signal),
            WorkerSignal::StopLast => {
                // Before the signal, which the worker may obey at once.
                self.leave_queue_to(worker, child.seat);
                wake_and_send(pid, stop_signal)
            }
            WorkerSignal::Abort => {
                let about = child.of_hook(worker);
                worker::call("worker_abort", || self.settings.hooks.worker_abort(about));
                wake_and_send(pid, abort_signal)
            }
            WorkerSignal::Reopen => process::signal(pid, Signal::SIGUSR1),
        };
        if let Err(errno) = sent {
            warn!("cannot send {signal:?} to pid {pid}: {errno}");
        }
    }

    /// The worker is to answer what is queued, until it will be killed.
    fn leave_queue_to(&self, worker: WorkerId, seat: usize) {
        let state = self.arbiter.worker(worker).map(|record| record.state);
        if let (Some(seats), Some(State::Stopping { kill_at, .. })) = (&self.seats, state) {
            seats.seat(seat).leave_queue_until(kill_at.as_nanos());
        }
    }

    fn read_heartbeat(&mut self, worker: WorkerId) -> Option<Event> {
        let seat = self.children.get(worker)?.seat;
        let beat = match &self.seats {
            Some(seats) => Time::from_nanos(seats.seat(seat).last_beat()),
            None => self.last_beat(worker, now()),
        };
        Some(Event::Heartbeat { worker, beat })
    }
}

/// What the worker of a slot accepts from.
fn own_listeners(era: &Era, slot: u32) -> io::Result<Vec<Rc<Listener>>> {
    let options = era.spec.socket_options();
    era.listeners.of_slot(slot, &options).map_err(io::Error::other)
}

fn own_variables(era: &Era, identity: &Identity) -> Vec<(OsString, OsString)> {
    let given = era.spec.conditions.own_variables(identity.slot, identity.generation);
    environment::merged(given.into_iter().chain(environment::own(identity)))
}

/// A command may be a script that waits for the program it started, so the whole group is told. A
/// child so young that it leads no group yet is told by itself.
fn stop_group(leader: Pid, signal: Signal) -> nix::Result<()> {
    if process::signal_group(leader, signal).is_err() {
        return wake_and_send(leader, signal);
    }
    process::signal_group(leader, Signal::SIGCONT)
}

/// A stopped process takes no signal but SIGCONT, so it follows every other.
pub(super) fn wake_and_send(pid: Pid, signal: Signal) -> nix::Result<()> {
    process::signal(pid, signal)?;
    process::signal(pid, Signal::SIGCONT)
}

/// Fresh random bits, for the waits of slots that died together.
pub(super) fn jitter() -> Jitter {
    let bits = RandomState::new().hash_one(0_u8);
    Jitter((bits >> 32) as u32)
}

/// What a failed spawn means for the arbiter. A failed step before the exec may be met no more by the
/// next attempt.
pub(super) fn fault_of(failure: Failure, program: &std::path::Path) -> SpawnFault {
    const PASSING: [Errno; 5] =
        [Errno::EAGAIN, Errno::ENOMEM, Errno::ETXTBSY, Errno::ENFILE, Errno::EMFILE];
    let errno = Errno::from_raw(failure.errno);
    if failure.step != Step::Exec || PASSING.contains(&errno) {
        SpawnFault::Passing
    } else if matches!(errno, Errno::ENOENT | Errno::ENOTDIR) && !program.exists() {
        SpawnFault::NotFound
    } else {
        SpawnFault::NotExecutable
    }
}
