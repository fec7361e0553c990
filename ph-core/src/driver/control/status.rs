//! How the service is, from what the master knows without asking the system: no file of /proc is read.
//!
//! The rows of workers are made piece by piece, as far as the client takes them. The walk is by worker
//! ids, which are never used again, and then over the slots that have none, so it can be taken up again
//! however much has changed meanwhile.

use std::time::Duration;

use super::super::Driver;
use super::super::history::{End, Past};
use crate::arbiter::{ABORT_GRACE, ExitStatus, Record, Slot, State, StopReason, Time, WorkerId};
use crate::control::{ExitReason, LastExit, Service, ServiceState, Worker, WorkerState};
use crate::sys::Signal;

/// Rows of one line, and slots that are looked at for one.
const ROWS_A_LINE: usize = 64;
const SLOTS_A_LOOK: u32 = 64;

/// How far a status has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The last worker that was told of.
    worker: Option<WorkerId>,
    /// Slots up to this one were told of, if they have no worker.
    slot: u32,
}

impl Driver<'_> {
    /// The service as a whole.
    pub(super) fn service_status(&self, now: Time) -> Service {
        let state = match (self.arbiter.is_stopping(), self.arbiter.is_drained()) {
            (true, _) => ServiceState::Stopping,
            (false, true) => ServiceState::Drained,
            (false, false) => ServiceState::Running,
        };
        Service {
            name: self.eras.current().name.to_string(),
            instance: self.instance,
            state,
            target: self.arbiter.target(),
            ready: self.arbiter.counts().ready,
            generation: self.arbiter.generation().0,
            master_pid: std::process::id(),
            uptime_s: now.since(self.started).as_secs_f64(),
            crash_loop: self.arbiter.has_crash_loop(),
            last_error: self.history.last_error.clone(),
            listeners: self.eras.current().listeners.shown().map(str::to_owned).collect(),
            reloads: self.history.reloads,
            log: None,
            made_from: self.settings.made_from.clone(),
        }
    }

    /// The next rows; none means that all have been told of.
    pub(super) fn next_rows(&self, cursor: &mut Cursor, now: Time) -> Vec<Worker> {
        let mut rows = Vec::new();
        while rows.len() < ROWS_A_LINE {
            let Some((worker, record)) = self.arbiter.worker_after(cursor.worker) else { break };
            cursor.worker = Some(worker);
            rows.push(self.worker_row(worker, record, now));
        }
        // An empty line would be the end.
        let gets_no_more = self.arbiter.is_stopping() || self.arbiter.is_drained();
        while rows.is_empty() && cursor.slot < self.arbiter.target() && !gets_no_more {
            let end = cursor.slot.saturating_add(SLOTS_A_LOOK).min(self.arbiter.target());
            let slots = std::mem::replace(&mut cursor.slot, end)..end;
            rows.extend(slots.filter_map(|slot| self.empty_slot_row(Slot(slot), now)));
        }
        rows
    }

    fn worker_row(&self, worker: WorkerId, record: &Record, now: Time) -> Worker {
        let child = self.children.get(worker);
        let slot = record.slot;
        let (state, kill_at) = match record.state {
            State::Booting { .. } => (WorkerState::Booting, None),
            State::Ready { .. } => (WorkerState::Ready, None),
            State::Stopping { kill_at, .. } => (WorkerState::Stopping, Some(kill_at)),
            State::Killed { .. } => (WorkerState::Killed, None),
        };
        let requests = child.and_then(|child| match &self.seats {
            Some(seats) => Some(seats.seat(child.seat).requests()),
            // Few commands say it.
            None => Some(child.said.requests).filter(|requests| *requests > 0),
        });
        let panics = child.zip(self.seats.as_ref());
        let panics = panics.map(|(child, seats)| seats.seat(child.seat).panics());
        let is_fault = record.state.reason().is_some_and(StopReason::is_fault);
        let grace = if is_fault { record.grace.min(ABORT_GRACE) } else { record.grace };
        let kill_in = kill_at.map(|at| at.since(now));
        Worker {
            pid: child.map(|child| child.pid.as_raw().unsigned_abs()),
            state,
            generation: record.generation.0,
            uptime_s: Some(now.since(record.spawned_at).as_secs_f64()),
            requests,
            panics,
            asked_s: kill_in.map(|left| grace.saturating_sub(left).as_secs_f64()),
            kill_in_s: kill_in.map(|left| left.as_secs_f64()),
            ..self.slot_row(slot, now)
        }
    }

    /// A slot within the target that has no worker.
    fn empty_slot_row(&self, slot: Slot, now: Time) -> Option<Worker> {
        let view = self.arbiter.slot(slot);
        if view.current.is_some() {
            return None;
        }
        let last = self.history.of(slot).and_then(Past::last);
        let state = match (view.is_finished, view.not_before) {
            (true, _) => WorkerState::Finished,
            (false, None) => WorkerState::Booting,
            (false, Some(_)) if last.is_some_and(|it| it.reason == ExitReason::NotStarted) => {
                WorkerState::Failed
            }
            (false, Some(_)) => WorkerState::Backoff,
        };
        let next_in = view.not_before.map(|at| at.since(now).as_secs_f64());
        Some(Worker { state, next_in_s: next_in, ..self.slot_row(slot, now) })
    }

    /// What is known of the slot, whoever has it.
    fn slot_row(&self, slot: Slot, now: Time) -> Worker {
        let past = self.history.of(slot);
        Worker {
            slot: slot.0,
            pid: None,
            state: WorkerState::Booting,
            generation: self.arbiter.generation().0,
            uptime_s: None,
            requests: None,
            panics: None,
            restarts: past.map_or(0, |past| past.restarts),
            recycled: past.map_or(0, |past| past.recycled),
            last_exit: past.and_then(Past::last).map(|end| last_exit(end, now)),
            asked_s: None,
            kill_in_s: None,
            next_in_s: None,
            crash_loop: self.arbiter.slot(slot).is_looping,
        }
    }
}

fn last_exit(end: End, now: Time) -> LastExit {
    let (code, signal, core) = match end.status {
        None => (None, None, false),
        Some(ExitStatus::Code(code)) => (Some(code), None, false),
        Some(ExitStatus::Signal { number, core }) => (None, Some(signal_name(number)), core),
    };
    let seconds = Duration::as_secs_f64;
    LastExit {
        code,
        signal,
        core,
        uptime_s: seconds(&end.life),
        ago_s: seconds(&now.since(end.at)),
        reason: end.reason,
    }
}

/// Real-time signals have no names.
fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| number.to_string(), |it| it.as_str().to_owned())
}
