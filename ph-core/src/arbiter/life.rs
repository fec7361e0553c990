//! What is heard of a worker's life: that it is ready, that its heart beats, that it has ended; and what
//! its end means for its slot.

use alloc::vec::Vec;
use core::time::Duration;

use super::Arbiter;
use super::action::{Action, Notice, RollFault, StopReason};
use super::backoff::Jitter;
use super::event::{ExitStatus, SpawnFault, WorkerId};
use super::outcome::Outcome;
use super::policy::{OnCrashLoop, Readiness, WorkerKind};
use super::probing::end_probe;
use super::time::Time;
use super::worker::{Pulse, Record, State, Verdict, Watch};

impl Arbiter {
    pub(super) fn on_ready(&mut self, worker: WorkerId, jitter: Jitter, actions: &mut Vec<Action>) {
        let Some(record) = self.roster.worker(worker).copied() else { return };
        let policy = self.policy_of(record.generation);
        match record.state {
            State::Booting { probe: Some(_), .. } => {}
            State::Booting { proven_at: None, .. } if policy.readiness == Readiness::Probed => {
                self.roster.set_jitter(worker, jitter);
                self.begin_probing(worker, &record);
            }
            State::Booting { proven_at: None, .. } => {
                let min_uptime = policy.min_uptime;
                let has_verdict =
                    !self.proven || self.is_first_boot() || self.has_verdict(record.generation);
                let must_prove = policy.readiness == Readiness::Spawned && has_verdict;
                self.roster.set_jitter(worker, jitter);
                if must_prove {
                    let proven_at = Some(self.now.after(min_uptime));
                    let state = State::Booting { give_up_at: None, proven_at, probe: None };
                    self.roster.set_state(worker, state);
                } else {
                    self.make_ready(worker, actions);
                }
            }
            State::Booting { proven_at: Some(_), .. }
            | State::Ready(_)
            | State::Stopping { .. }
            | State::Killed { .. } => {}
        }
    }

    pub(super) fn make_ready(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        let Some(record) = self.roster.worker(worker).copied() else { return };
        let Record { slot, recycle_due, .. } = record;
        let is_heard = record.watched || self.policy.kind == WorkerKind::Forked;
        let after = self.now.since(record.spawned_at);
        let policy = *self.policy_of(record.generation);
        let place = self.roster.place_mut(slot);
        let steady_after = place.backoff.steady_after(&policy);
        let steady_at = place.looping.then(|| self.now.after(steady_after));
        let spread = record.jitter.part_of(policy.max_age_jitter);
        let timeout = record.timeout.filter(|_| is_heard);
        let watch = Watch {
            pulse: timeout.map(|timeout| Pulse::fresh(self.now, timeout)),
            steady_at,
            proven_at: self.proven_at(&record),
            expires_at: policy.max_age.map(|age| self.now.after(age).after(spread)),
            memory_at: policy.max_memory.map(|_| self.next_memory_look(&policy)),
        };
        self.roster.set_state(worker, State::Ready(watch));
        self.roster.set_ready_at(worker, self.now);
        self.proven = true;
        self.dirty.insert(slot);
        actions.push(Action::Notify(Notice::WorkerReady { worker, after }));
        self.note_booted(slot, actions);
        if let Some(reason) = recycle_due {
            actions.push(Action::Notify(Notice::Recycling { worker, reason }));
        }
    }

    /// The beat that says so is also the first of those that are judged.
    pub(super) fn on_watched(&mut self, worker: WorkerId) {
        self.roster.set_watched(worker);
        let Some(record) = self.roster.worker(worker) else { return };
        if let State::Ready(watch @ Watch { pulse: None, .. }) = record.state {
            let pulse = record.timeout.map(|timeout| Pulse::fresh(self.now, timeout));
            self.roster.set_state(worker, State::Ready(Watch { pulse, ..watch }));
        }
    }

    pub(super) fn on_heartbeat(&mut self, worker: WorkerId, beat: Time, actions: &mut Vec<Action>) {
        let Some(record) = self.roster.worker(worker) else { return };
        let State::Ready(watch) = record.state else { return };
        let Some((pulse, timeout)) = watch.pulse.zip(record.timeout) else { return };
        let (pulse, verdict) = pulse.judge(self.now, self.asleep, beat, timeout);
        match verdict {
            Verdict::Alive => {}
            Verdict::Stuck => return self.abort(worker, StopReason::Stuck, actions),
            Verdict::TooLateToTell { by } => self.tell_late_wake(by, actions),
        }
        self.roster.set_state(worker, State::Ready(Watch { pulse: Some(pulse), ..watch }));
    }

    pub(super) fn on_spawn_failed(
        &mut self,
        worker: WorkerId,
        fault: SpawnFault,
        jitter: Jitter,
        actions: &mut Vec<Action>,
    ) {
        let Some((record, held)) = self.roster.remove(worker) else { return };
        end_probe(worker, record.state, actions);
        let is_reloads = self.is_reloads_affair(&record);
        match fault {
            SpawnFault::NotFound | SpawnFault::NotExecutable if is_reloads => {}
            SpawnFault::NotFound => self.fail_first_boot(Outcome::NotFound),
            SpawnFault::NotExecutable => self.fail_first_boot(Outcome::NotExecutable),
            SpawnFault::Passing => {}
        }
        let slot = record.slot;
        let retry_in = self.on_end(&record, held, None, jitter, actions);
        actions.push(Action::Notify(Notice::SpawnFailed { worker, slot, fault, retry_in }));
        if held {
            self.on_fault(worker, &record, RollFault::NotSpawned(fault), actions);
        }
    }

    pub(super) fn on_exited(
        &mut self,
        worker: WorkerId,
        status: ExitStatus,
        jitter: Jitter,
        actions: &mut Vec<Action>,
    ) {
        let Some((record, held)) = self.roster.remove(worker) else { return };
        end_probe(worker, record.state, actions);
        let is_reloads = self.is_reloads_affair(&record);
        if let Some(code) = self.boot_failure(&record, status).filter(|_| !is_reloads) {
            self.fail_first_boot(Outcome::BootFailed { code });
        }
        let (slot, reason) = (record.slot, record.state.reason());
        if held && !is_reloads && reason.is_none_or(StopReason::is_fault) {
            self.on_own_end(slot, status, actions);
        }
        let life = self.now.since(record.spawned_at);
        let ready_life = record.ready_life(self.now);
        let respawn_in = self.on_end(&record, held, ready_life, jitter, actions);
        actions.push(Action::Notify(Notice::WorkerExited {
            worker,
            slot,
            status,
            reason,
            life,
            respawn_in,
        }));
        if held && reason.is_none() {
            self.on_fault(worker, &record, RollFault::Exited(status), actions);
        }
    }

    /// A worker is no more: says when its slot gets another because of that.
    fn on_end(
        &mut self,
        record: &Record,
        held: bool,
        ready_life: Option<Duration>,
        jitter: Jitter,
        actions: &mut Vec<Action>,
    ) -> Option<Duration> {
        let slot = record.slot;
        self.dirty.insert(slot);
        let is_death = record.state.reason().is_none_or(StopReason::is_fault);
        let wait = (held && is_death).then(|| self.bury(record, ready_life, jitter, actions));
        let is_refilled = self.is_wanted(slot) && !self.finished.contains(&slot);
        wait.filter(|_| !self.is_stopping() && is_refilled)
    }

    /// The exit code by which a forked worker says that no worker of this program can boot.
    fn boot_failure(&self, record: &Record, status: ExitStatus) -> Option<u8> {
        match (self.policy.kind, status) {
            (WorkerKind::Forked, ExitStatus::Code(code @ (3 | 4)))
                if record.state.reason().is_none() =>
            {
                Some(code)
            }
            (WorkerKind::Forked | WorkerKind::Command, ExitStatus::Code(_))
            | (_, ExitStatus::Signal { .. }) => None,
        }
    }

    /// Records a death of a slot's worker, which the slot has let go of, and says how long the slot
    /// waits for the next. A worker that had lost its slot before it died is not buried: the slot's
    /// record and its recycling are about those who have it now. One whose death is the affair of a
    /// reload leaves the record as it is: the verdict is the answer to that, and not a wait.
    pub(super) fn bury(
        &mut self,
        record: &Record,
        ready_life: Option<Duration>,
        jitter: Jitter,
        actions: &mut Vec<Action>,
    ) -> Duration {
        let slot = record.slot;
        self.dirty.insert(slot);
        // Old worker or successor, the slot gives its place in the surge to others and asks again
        // later. Of those that may be without a worker it stays one.
        self.recycling.remove(&slot);
        if !self.is_slots_affair(record) {
            return Duration::ZERO;
        }
        let policy = *self.policy_of(record.generation);
        let place = self.roster.place_mut(slot);
        let wait = place.backoff.on_death(self.now, ready_life, &policy, jitter);
        if place.backoff.is_crash_loop() && !place.looping {
            place.looping = true;
            let (deaths, within) = place.backoff.tally(&policy);
            actions.push(Action::Notify(Notice::CrashLoop { slot, deaths, within }));
            if policy.on_crash_loop == OnCrashLoop::Exit {
                self.end(Outcome::CrashLoop);
            }
        }
        let not_before = (!wait.is_zero()).then(|| self.now.after(wait));
        self.roster.set_wait(slot, not_before);
        wait
    }
}
