//! The acting half of the arbiter: what has come due, and what differs from what is wanted.

use alloc::vec::Vec;
use core::time::Duration;

use super::action::{Action, Notice, RecycleReason, RollFault, StopReason, WorkerSignal};
use super::backoff::Jitter;
use super::event::{Slot, WorkerId};
use super::policy::{ABORT_GRACE, LEAST_WAIT, Policy, REAP_GRACE, SPAWN_BATCH, is_too_late};
use super::probing::end_probe;
use super::roster::Due;
use super::time::Time;
use super::worker::{Record, State, Watch};
use super::{Arbiter, Phase};

impl Arbiter {
    /// Handles every deadline that has passed. Each handler moves its deadline into the future or
    /// removes it, so the loop ends and a second call at the same time does nothing (I13).
    pub(super) fn expire(&mut self, actions: &mut Vec<Action>) {
        self.expire_load(actions);
        self.expire_upgrade(actions);
        self.expire_boot(actions);
        while let Some((at, due)) = self.roster.earliest() {
            if at > self.now {
                break;
            }
            match due {
                Due::Slot(slot) => self.on_wait_over(slot),
                Due::Worker(worker) => self.on_worker_due(worker, actions),
            }
        }
    }

    fn on_wait_over(&mut self, slot: Slot) {
        self.roster.set_wait(slot, None);
        self.dirty.insert(slot);
    }

    fn on_worker_due(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        let Some(record) = self.roster.worker(worker).copied() else { return };
        let past = |at| at <= self.now;
        match record.state {
            State::Booting { proven_at, .. } if proven_at.is_some_and(past) => {
                self.make_ready(worker, actions);
            }
            State::Booting { give_up_at, .. } if give_up_at.is_some_and(past) => {
                self.on_boot_timeout(worker, record, actions);
            }
            State::Booting { .. } => self.on_probe_due(worker, record, actions),
            State::Ready(watch) => {
                let watch = self.on_watch_due(worker, record, watch, actions);
                self.roster.set_state(worker, State::Ready(watch));
            }
            State::Stopping { reason, .. } => self.kill(worker, reason, actions),
            State::Killed { .. } => self.on_unreaped(worker, record, actions),
        }
    }

    /// Handles what is due of a worker at work, one thing at a time, and says what is still to come.
    fn on_watch_due(
        &mut self,
        worker: WorkerId,
        record: Record,
        watch: Watch,
        actions: &mut Vec<Action>,
    ) -> Watch {
        let past = |at: Option<Time>| at.is_some_and(|at| at <= self.now);
        if past(watch.steady_at) {
            return Watch { steady_at: self.on_steady(record, actions), ..watch };
        }
        if past(watch.proven_at) {
            self.on_proven(worker, &record, actions);
            return Watch { proven_at: None, ..watch };
        }
        if past(watch.expires_at) {
            self.want_recycling(worker, RecycleReason::Age, actions);
            return Watch { expires_at: None, ..watch };
        }
        if past(watch.memory_at) {
            actions.push(Action::ReadMemory { worker });
            let policy = *self.policy_of(record.generation);
            return Watch { memory_at: Some(self.next_memory_look(&policy)), ..watch };
        }
        // Only a pulse can be due here, and a pulse exists only where there is a timeout.
        let Some((pulse, timeout)) = watch.pulse.zip(record.timeout) else {
            return Watch { pulse: None, ..watch };
        };
        actions.push(Action::ReadHeartbeat { worker });
        Watch { pulse: Some(pulse.asked(self.now, timeout)), ..watch }
    }

    /// Memory is looked at on a grid, so that many looks cost one wake-up.
    pub(super) fn next_memory_look(&self, policy: &Policy) -> Time {
        let interval = policy.memory_check_interval.max(LEAST_WAIT);
        self.now.floor(interval).after(interval)
    }

    /// A slot in a crash loop has recovered, unless its successors died since its worker became ready
    /// and it has to live longer for that; says until when.
    fn on_steady(&mut self, record: Record, actions: &mut Vec<Action>) -> Option<Time> {
        let policy = *self.policy_of(record.generation);
        let place = self.roster.place_mut(record.slot);
        let steady_at = record.ready_at?.after(place.backoff.steady_after(&policy));
        if steady_at > self.now {
            return Some(steady_at);
        }
        place.backoff.clear();
        place.looping = false;
        actions.push(Action::Notify(Notice::Recovered { slot: record.slot }));
        None
    }

    /// Gives up a worker that the kernel does not end: its slot is free. A master that slept through
    /// the time of the reaping may have the death still before it, so it looks once more.
    fn on_unreaped(&mut self, worker: WorkerId, record: Record, actions: &mut Vec<Action>) {
        let State::Killed { reason, unreaped_at: Some(unreaped_at) } = record.state else {
            return;
        };
        let late = self.now.since(unreaped_at);
        if is_too_late(late, REAP_GRACE) {
            let unreaped_at = Some(self.now.after(REAP_GRACE));
            self.roster.set_state(worker, State::Killed { reason, unreaped_at });
            return self.tell_late_wake(late, actions);
        }
        self.roster.set_state(worker, State::Killed { reason, unreaped_at: None });
        actions.push(Action::Notify(Notice::WorkerUnreaped { worker, reason }));
        if self.roster.vacate(worker, record.slot) && reason.is_fault() {
            // A tick brings no randomness; each of these took its own time to get here.
            self.bury(&record, record.ready_life(self.now), Jitter::default(), actions);
        }
        self.dirty.insert(record.slot);
    }

    /// A look that comes far too late proves nothing about a worker that slept as long as the
    /// master did; it gets a fresh period, as with heartbeats.
    fn on_boot_timeout(&mut self, worker: WorkerId, record: Record, actions: &mut Vec<Action>) {
        let State::Booting { give_up_at: Some(give_up_at), proven_at, probe } = record.state else {
            return;
        };
        let boot_timeout = self.policy_of(record.generation).boot_timeout.unwrap_or_default();
        let late = self.now.since(give_up_at);
        if is_too_late(late, boot_timeout) {
            let give_up_at = Some(self.now.after(boot_timeout));
            self.roster.set_state(worker, State::Booting { give_up_at, proven_at, probe });
            self.tell_late_wake(late, actions);
        } else {
            self.abort(worker, StopReason::BootTimeout, actions);
        }
    }

    /// Compares what is with what is wanted and does something about it. Helpers come first, because
    /// workers may need them; in a stop, after it, because some are not wanted any more.
    pub(super) fn reconcile(&mut self, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::New | Phase::Exited => {}
            Phase::Running => {
                self.helpers.expire(self.now, actions);
                self.begin_reload(actions);
                self.begin_upgrade(actions);
                self.withdraw_surplus(actions);
                let mut spawns = 0;
                loop {
                    self.fill_slots(&mut spawns, actions);
                    // What a roll had to spare may go when it is over.
                    if !self.admit_recycling(actions) && !self.settle_reload(actions) {
                        break;
                    }
                }
            }
            Phase::Stopping(stop) => self.advance_stop(stop, actions),
        }
    }

    /// Brings the slots whose facts changed to what is wanted, until `spawns` has reached a batch.
    /// Those beyond the target go first: a scale-down does not wait behind a mass start (I1).
    fn fill_slots(&mut self, spawns: &mut usize, actions: &mut Vec<Action>) {
        while let Some(slot) = self.dirty.pop_last() {
            if self.is_wanted(slot) {
                self.dirty.insert(slot);
                break;
            }
            self.empty_slot(slot, actions);
        }
        while *spawns < SPAWN_BATCH
            && let Some(slot) = self.next_unsettled()
        {
            *spawns += usize::from(self.fill_slot(slot, actions));
        }
    }

    /// Whether some slot can be brought nearer to what is wanted at once.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.dirty.is_empty() || (!self.crowded.is_empty() && self.has_room())
    }

    fn next_unsettled(&mut self) -> Option<Slot> {
        if self.dirty.is_empty() && self.has_room() {
            return self.crowded.pop_first();
        }
        self.dirty.pop_first()
    }

    /// Whether one more process may exist. Those that were given up do not count, but they are
    /// processes too: where none can be killed any more, more of them do not help (I1, I24).
    fn has_room(&self) -> bool {
        let counts = self.roster.counts();
        let max_workers = self.policy.max_workers.max(1);
        counts.live() - counts.unreaped < max_workers.saturating_mul(2)
            && counts.live() < max_workers.saturating_mul(3)
    }

    /// Brings one slot to what is wanted; says whether it spawned a worker.
    fn fill_slot(&mut self, slot: Slot, actions: &mut Vec<Action>) -> bool {
        if !self.is_wanted(slot) {
            self.empty_slot(slot, actions);
            return false;
        }
        self.note_restored(slot);
        let waiting = self.roster.wait(slot).is_some() || self.finished.contains(&slot);
        let successor = self.roster.place_mut(slot).successor;
        let Some((current, record)) = self.current(slot) else {
            return !waiting && self.spawn(slot, actions);
        };
        if !self.is_replaceable(slot, &record) {
            return false;
        }
        let is_wanted = self.wants_successor(slot, &record);
        if record.state.is_ready() {
            self.vacating.remove(&slot);
        }
        match successor {
            Some(successor) => {
                self.judge_successor(slot, current, successor, actions);
                false
            }
            None if !self.recycling.contains(&slot) => {
                if is_wanted && !waiting {
                    self.ask_to_replace(slot, &record);
                }
                false
            }
            None if is_wanted => !waiting && self.spawn(slot, actions),
            None => {
                self.recycling.remove(&slot);
                false
            }
        }
    }

    /// A successor takes over once it is ready, and a canary once it is proven. One that boots in vain,
    /// because its generation is not the wanted one, makes way for another.
    fn judge_successor(
        &mut self,
        slot: Slot,
        current: WorkerId,
        successor: WorkerId,
        actions: &mut Vec<Action>,
    ) {
        let Some(record) = self.roster.worker(successor).copied() else { return };
        let is_unwanted = record.generation != self.goal(slot);
        let (leaves, reason) = match record.state {
            State::Ready(_) if is_unwanted || !self.is_canary_on_trial(slot) => {
                let Some(old) = self.roster.worker(current) else { return };
                self.recycling.remove(&slot);
                (current, self.reason_to_replace(old))
            }
            State::Booting { .. } if is_unwanted => (successor, self.reason_to_replace(&record)),
            State::Ready(_)
            | State::Booting { .. }
            | State::Stopping { .. }
            | State::Killed { .. } => return,
        };
        self.roster.vacate(leaves, slot);
        self.stop(leaves, reason, actions);
        self.dirty.insert(slot);
    }

    /// Nobody is to be in the slot: whoever holds it leaves.
    fn empty_slot(&mut self, slot: Slot, actions: &mut Vec<Action>) {
        self.crowded.remove(&slot);
        self.forget_replacement(slot);
        self.forget_restored(slot);
        let is_surplus = slot.0 >= self.target;
        let reason = if is_surplus { StopReason::ScaleDown } else { StopReason::Drain };
        let place = self.roster.place_mut(slot);
        for worker in [place.current.take(), place.successor.take()].into_iter().flatten() {
            self.stop(worker, reason, actions);
        }
    }

    /// Starts a worker, or remembers who wants one when there is room.
    fn spawn(&mut self, slot: Slot, actions: &mut Vec<Action>) -> bool {
        if !self.has_room() {
            self.crowded.insert(slot);
            return false;
        }
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        let generation = self.goal(slot);
        let policy = self.policy_of(generation);
        let give_up_at = policy.boot_timeout.map(|timeout| self.now.after(timeout));
        let record = Record {
            slot,
            generation,
            state: State::Booting { give_up_at, proven_at: None, probe: None },
            spawned_at: self.now,
            ready_at: None,
            grace: policy.graceful_timeout,
            timeout: policy.timeout,
            own_queue: policy.own_queues,
            watched: false,
            recycle_due: None,
            heavy: 0,
            jitter: Jitter::default(),
        };
        self.roster.insert(worker, record);
        let place = self.roster.place_mut(slot);
        if place.current.is_none() {
            place.current = Some(worker);
        } else {
            place.successor = Some(worker);
        }
        actions.push(Action::Spawn { worker, slot, generation });
        true
    }

    /// Tells a worker to leave; one that was told already keeps its reason and its deadline.
    pub(super) fn stop(&mut self, worker: WorkerId, reason: StopReason, actions: &mut Vec<Action>) {
        let signal = match self.leaves_queue_to_nobody(worker, reason) {
            true => WorkerSignal::StopLast,
            false => WorkerSignal::Stop,
        };
        self.dismiss(worker, reason, Duration::MAX, signal, actions);
    }

    /// Whether nobody answers what is queued when this worker has ended: none is left, or it alone has that
    /// queue and its slot gets none who has it too.
    fn leaves_queue_to_nobody(&self, worker: WorkerId, reason: StopReason) -> bool {
        if reason.is_everybodys() {
            return !self.is_succeeded();
        }
        let record = self.roster.worker(worker).filter(|record| record.own_queue);
        record.is_some_and(|record| {
            let successors = self.policy_of(self.goal(record.slot));
            reason == StopReason::ScaleDown || !successors.own_queues
        })
    }

    /// Tells a worker that does not answer to say where it is and to leave.
    pub(super) fn abort(
        &mut self,
        worker: WorkerId,
        reason: StopReason,
        actions: &mut Vec<Action>,
    ) {
        let Some(record) = self.roster.worker(worker).copied() else { return };
        self.dismiss(worker, reason, ABORT_GRACE, WorkerSignal::Abort, actions);
        let cause = match reason {
            StopReason::Stuck => RollFault::Stuck,
            StopReason::BootTimeout
            | StopReason::Shutdown
            | StopReason::ScaleDown
            | StopReason::Recycle
            | StopReason::Reload
            | StopReason::Rollback
            | StopReason::Drain => RollFault::BootTimeout,
        };
        self.on_fault(worker, &record, cause, actions);
    }

    fn dismiss(
        &mut self,
        worker: WorkerId,
        reason: StopReason,
        most: Duration,
        signal: WorkerSignal,
        actions: &mut Vec<Action>,
    ) {
        let Some(record) = self.roster.worker(worker).copied() else { return };
        let grace = record.grace.min(most);
        match record.state {
            State::Booting { .. } | State::Ready(_) => {
                end_probe(worker, record.state, actions);
                let kill_at = self.now.after(grace);
                self.roster.set_state(worker, State::Stopping { reason, kill_at });
                actions.push(Action::Notify(Notice::WorkerStopping { worker, reason, grace }));
                actions.push(Action::Signal { worker, signal });
            }
            State::Stopping { .. } | State::Killed { .. } => {}
        }
    }

    /// The only SIGKILL (I3): a killed worker is never killed again.
    pub(super) fn kill(&mut self, worker: WorkerId, reason: StopReason, actions: &mut Vec<Action>) {
        if let Some(record) = self.roster.worker(worker) {
            end_probe(worker, record.state, actions);
        }
        let unreaped_at = Some(self.now.after(REAP_GRACE));
        self.roster.set_state(worker, State::Killed { reason, unreaped_at });
        actions.push(Action::Notify(Notice::WorkerKilled { worker, reason }));
        actions.push(Action::Signal { worker, signal: WorkerSignal::Kill });
    }

    /// The worker that holds a slot.
    pub(super) fn current(&self, slot: Slot) -> Option<(WorkerId, Record)> {
        let worker = self.roster.place(slot)?.current?;
        Some((worker, *self.roster.worker(worker)?))
    }
}
