//! Ends: which child has ended, when that is the end of a worker, and what is told of it.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::era::WorkerSource;
use super::helpers::HelperPlace;
use super::strays::Census;
use super::tree::Leader;
use super::{Driver, REAPS_A_TURN, perform, report};
use crate::arbiter::{Event, ExitStatus, Time, WorkerId};
use crate::sys::process::{self, Ended};

impl Driver<'_> {
    /// Reaps until nothing is left: signals merge, so one SIGCHLD may mean many ends. Only then are the
    /// ends of workers told, because looking for more walks over all children and would hold up those that
    /// the answer starts. Other ends are told at once: the number may be another's from then on, and
    /// nobody may send it a signal meanwhile.
    pub(super) fn reap(&mut self, now: Time) {
        if !self.reap_pending {
            return;
        }
        let mut ended = Vec::new();
        for _ in 0..REAPS_A_TURN {
            let Some(pid) = process::next_ended() else {
                self.reap_pending = false;
                break;
            };
            if let Some(worker) = self.children.worker_of(pid) {
                match self.reap_worker(worker, pid, now) {
                    Some(is_empty) => ended.push((worker, is_empty)),
                    None => self.lingering.push(worker),
                }
            } else if self.succession.as_ref().is_some_and(|it| it.pid() == pid) {
                if let Some(ended) = process::reap(pid) {
                    self.successor_ended(status_of(ended), now);
                }
            } else if self.probes.knows(pid) {
                if let Some(ended) = super::probes::reap(pid) {
                    self.probe_ended(pid, status_of(ended), now);
                }
            } else if let Some(helper) = self.helper_of(pid) {
                let ended = process::reap(pid);
                let event = ended.and_then(|it| self.helper_ended(helper, status_of(it)));
                if let Some(event) = event {
                    self.step(now, event);
                }
            } else if self.occasions.has(pid) {
                self.occasion_ended(pid);
            } else {
                self.note_loader_ended(pid);
                process::reap(pid);
                // Its number may be another's from now on.
                self.callers_children.retain(|child| *child != pid);
            }
        }
        for (worker, is_empty) in ended {
            self.on_ended(worker, is_empty, now);
        }
        self.look_at_trees(now);
    }

    /// Looks at what is left of workers whose leader has ended.
    pub(super) fn look_at_trees(&mut self, now: Time) {
        let (children, trees, epoll) = (&self.children, &mut self.trees, &self.epoll);
        let has_ended = |worker: &mut WorkerId| {
            let child = children.get(*worker);
            child.is_none_or(|child| trees.has_ended(child.seat, child.pid, epoll))
        };
        let ended: Vec<_> = self.lingering.extract_if(.., has_ended).collect();
        for worker in ended {
            self.on_ended(worker, true, now);
        }
        let Self { children, helpers, callers_children: callers, loaders, .. } = self;
        let census = Census { children, helpers, callers, loaders };
        let emptied = self.trees.emptied(&census, &self.epoll);
        let left = self.trees.end_strays(&census, &self.epoll);
        for seat in emptied {
            self.children.give_seat_back(seat);
        }
        if let Some(left) = left {
            let event = self.count_strays(left);
            self.step(now, event);
        }
    }

    /// Reaps a worker. If that is its end, says whether its tree is known to be empty. A crash takes the rest of its tree along at once,
    /// while its leader is still a zombie and the number still its own. A command that was told to stop
    /// was told with its group, and what is left of its tree has the same time to do so.
    fn reap_worker(&mut self, worker: WorkerId, pid: Pid, now: Time) -> Option<bool> {
        // The last words first: it may have been ready, or never executed.
        self.look_at_seat(worker, now);
        self.on_report(worker, now);
        self.on_notify(worker, now);
        let is_graceful = self.seats.is_none() && self.arbiter.is_within_grace(worker);
        let Some(child) = self.children.get_mut(worker) else { return Some(false) };
        let (seat, generation) = (child.seat, child.generation);
        if !is_graceful {
            self.trees.kill(seat, pid, Leader::Ended);
        }
        child.reaped = process::reap(pid);
        if let Some(socket) = child.notify.take() {
            self.close_address(socket);
        }
        if !is_graceful {
            return Some(false);
        }
        if self.trees.has_ended(seat, pid, &self.epoll) {
            return Some(true);
        }
        let stop_signal = self.eras.of(generation).spec.stop_signal;
        self.trees.tell_rest(seat, pid, stop_signal);
        None
    }

    fn on_ended(&mut self, worker: WorkerId, is_empty: bool, now: Time) {
        let Some(child) = self.children.get(worker) else { return };
        let Some(ended) = child.reaped else { return };
        let jitter = perform::jitter();
        let mut is_unexplained = false;
        let era = self.eras.of(child.generation);
        let event = match (child.failure, &era.source) {
            (Some(failure), WorkerSource::Command { path, .. }) => {
                let why = report::describe_failure(failure, path, &era.spec.conditions);
                tracing::error!("worker {}: {why}", child.slot);
                let fault = perform::fault_of(failure, path);
                self.spawn_failure = Some((failure, why));
                Event::SpawnFailed { worker, fault, jitter }
            }
            (_, WorkerSource::Forked { .. } | WorkerSource::Command { .. }) => {
                let status = status_of(ended);
                is_unexplained = self.is_unexplained(worker, status);
                Event::Exited { worker, status, jitter }
            }
        };
        let (seat, pid) = (child.seat, child.pid);
        self.tell_last_words(worker, child.seat, child.pid, ended);
        let about = child.of_hook(worker);
        crate::worker::call("child_exit", || self.settings.hooks.child_exit(about));
        // Its seat may be free for the one who follows at once.
        let is_free = self.trees.release(seat, pid, worker, is_empty, &self.epoll);
        if is_free {
            self.children.give_seat_back(seat);
        }
        self.step(now, event);
        if is_unexplained && self.oom.claim(now.as_nanos()) {
            let who = report::who(worker, &self.children);
            tracing::error!("out of memory: the kernel has killed {who}");
        }
        // Only now, so that the line about its end can name its pid.
        self.children.remove(worker);
    }

    /// Where a worker was that SIGABRT has ended, in the form of a command that makes names of it.
    fn tell_last_words(&self, worker: WorkerId, seat: usize, pid: Pid, ended: Ended) {
        let (Ended::Signal(libc::SIGABRT, _), Some(seats)) = (ended, &self.seats) else { return };
        let addresses = seats.last_words(seat).of(pid.as_raw());
        if addresses.is_empty() {
            return;
        }
        let who = report::who(worker, &self.children);
        let program = std::env::current_exe().unwrap_or_else(|_| "PROGRAM".into());
        let shown: Vec<_> = addresses.iter().map(|address| format!("{address:#x}")).collect();
        let (program, shown) = (program.display(), shown.join(" "));
        tracing::warn!("{who} was aborted at: addr2line -Cfpie {program} {shown}");
    }

    /// Whether a worker was killed and nobody here has done it: perhaps the kernel, for want of memory.
    fn is_unexplained(&self, worker: WorkerId, status: ExitStatus) -> bool {
        let is_killed = matches!(status, ExitStatus::Signal { number: libc::SIGKILL, .. });
        let is_told = self.arbiter.worker(worker).is_none_or(|it| it.state.reason().is_some());
        is_killed && !is_told
    }

    /// The last resort of a master that cannot go on: nobody is left behind. What this cannot reach is
    /// the warden's, who sets to work when the driver is dropped.
    pub(super) fn kill_everyone(&mut self) {
        for child in self.children.iter() {
            self.trees.kill(child.seat, child.pid, child.leader());
        }
        self.kill_successor();
        self.occasions.kill_all();
        let is_needed = |place: &&HelperPlace| place.is_warden() || place.is_log();
        let helpers = self.helpers.iter().filter(|place| !is_needed(place));
        for pid in helpers.filter_map(|place| place.process) {
            // It is reaped below at the earliest.
            let _ = process::signal(pid, Signal::SIGKILL);
            let _ = process::signal_group(pid, Signal::SIGKILL);
        }
        while let Some(pid) = process::next_ended() {
            process::reap(pid);
        }
    }
}

pub(super) fn status_of(ended: Ended) -> ExitStatus {
    match ended {
        Ended::Code(code) => ExitStatus::Code(code),
        Ended::Signal(number, core) => ExitStatus::Signal { number, core },
    }
}
