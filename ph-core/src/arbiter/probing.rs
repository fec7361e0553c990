//! Readiness by probes: another process asks the worker whether it serves, again and again until it does.
//!
//! A probe runs for a worker that boots, at most one at a time, and it has a limit of its own. Whatever
//! ends the boot ends the probe.

use alloc::vec::Vec;

use super::Arbiter;
use super::action::Action;
use super::event::WorkerId;
use super::policy::PROBE_TIMEOUT;
use super::time::Time;
use super::worker::{Probe, Record, State};

impl Arbiter {
    /// The worker runs its program: it can be asked from now on.
    pub(super) fn begin_probing(&mut self, worker: WorkerId, record: &Record) {
        self.set_probe(worker, record, Probe::Due(self.now));
    }

    /// A probe is to start, or has taken too long.
    pub(super) fn on_probe_due(
        &mut self,
        worker: WorkerId,
        record: Record,
        actions: &mut Vec<Action>,
    ) {
        let State::Booting { probe: Some(probe), .. } = record.state else { return };
        match probe {
            Probe::Due(_) => {
                let until = self.now.after(PROBE_TIMEOUT);
                self.set_probe(worker, &record, Probe::Running(until));
                actions.push(Action::StartProbe { worker });
            }
            Probe::Running(_) => {
                actions.push(Action::EndProbe { worker });
                self.set_probe(worker, &record, Probe::Due(self.next_probe(&record)));
            }
        }
    }

    /// A probe has ended.
    pub(super) fn on_probed(
        &mut self,
        worker: WorkerId,
        is_ready: bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(record) = self.roster.worker(worker).copied() else { return };
        if !record.state.is_probed() {
            return;
        }
        // It has ended of itself, so nobody has to end it.
        self.set_probe(worker, &record, Probe::Due(self.next_probe(&record)));
        if is_ready {
            self.make_ready(worker, actions);
        }
    }

    fn next_probe(&self, record: &Record) -> Time {
        let interval = self.policy_of(record.generation).ready_interval;
        self.now.after(interval.max(super::LEAST_WAIT))
    }

    fn set_probe(&mut self, worker: WorkerId, record: &Record, probe: Probe) {
        if let State::Booting { give_up_at, proven_at, .. } = record.state {
            let probe = Some(probe);
            self.roster.set_state(worker, State::Booting { give_up_at, proven_at, probe });
        }
    }
}

/// A worker has come to the end of its boot, whichever: its probe ends too.
pub(super) fn end_probe(worker: WorkerId, state: State, actions: &mut Vec<Action>) {
    if state.is_probed() {
        actions.push(Action::EndProbe { worker });
    }
}
