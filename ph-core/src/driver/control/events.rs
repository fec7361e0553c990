//! Notices become events for the clients that wait, with the pids that only the driver knows.

use super::super::children::Children;
use super::super::report::{
    describe_deaths, describe_fault, describe_reason, describe_recycling, describe_status,
    describe_upgrade_fault, due, span,
};
use crate::arbiter::{Notice, Slot, WorkerId};
use crate::control::{Event, EventKind};

/// What a client is told of a notice; of what is of no interest to it, nothing.
pub(super) fn event_of(notice: Notice, children: &Children) -> Option<Event> {
    let (kind, worker, text) = match notice {
        Notice::WorkerReady { worker, after } => {
            (EventKind::Ready, Some(worker), format!("is ready after {}", span(after)))
        }
        Notice::WorkerStopping { worker, reason, grace } => {
            let why = describe_reason(reason);
            let text = format!("was told to stop ({why}), has {}", span(grace));
            (EventKind::Stopping, Some(worker), text)
        }
        Notice::WorkerKilled { worker, reason } => {
            let text = format!("was killed ({})", describe_reason(reason));
            (EventKind::Killed, Some(worker), text)
        }
        Notice::WorkerUnreaped { worker, .. } => {
            let text = "was killed and does not end: the kernel holds it".to_owned();
            (EventKind::Unreaped, Some(worker), text)
        }
        Notice::WorkerExited { worker, status, life, respawn_in, .. } => {
            let next =
                respawn_in.map_or_else(String::new, |wait| format!(", next one {}", due(wait)));
            let text = format!("{} after {}{next}", describe_status(status), span(life));
            (EventKind::Exited, Some(worker), text)
        }
        Notice::SpawnFailed { slot, retry_in, .. } => {
            let next =
                retry_in.map_or_else(String::new, |wait| format!(", next try {}", due(wait)));
            return Some(of_slot(EventKind::SpawnFailed, slot, &format!("was not started{next}")));
        }
        Notice::CrashLoop { slot, deaths, within } => {
            let deaths = describe_deaths(deaths, within);
            let text = format!("is in a crash loop: {deaths}, backing off");
            return Some(of_slot(EventKind::CrashLoop, slot, &text));
        }
        Notice::Recovered { slot } => {
            let text = "has recovered from its crash loop";
            return Some(of_slot(EventKind::Recovered, slot, text));
        }
        Notice::Recycling { worker, reason } => {
            let text = format!("{} and is to be replaced", describe_recycling(reason));
            (EventKind::Recycling, Some(worker), text)
        }
        Notice::Scaled { from, to } => {
            (EventKind::Scaled, None, format!("workers wanted: {to} (was {from})"))
        }
        Notice::ScaleLimited { wanted, limit } => {
            let text = format!("{wanted} workers were asked for, the limit is {limit}");
            (EventKind::ScaleLimited, None, text)
        }
        Notice::StraysLeft { left } => {
            let text = format!("processes that workers left behind do not end: {left}");
            (EventKind::Other, None, text)
        }
        Notice::Stopping { workers, delay } if delay.is_zero() => {
            (EventKind::MasterStopping, None, format!("stopping, workers to end: {workers}"))
        }
        Notice::Stopping { workers, delay } => {
            let delay = span(delay);
            let text = format!("stopping after {delay}, workers that serve until then: {workers}");
            (EventKind::MasterStopping, None, text)
        }
        Notice::DelayOver { workers } => {
            let text = format!("the delay is over, workers to end: {workers}");
            (EventKind::MasterStopping, None, text)
        }
        Notice::Quitting { workers } => {
            let text = format!("stopping at once, workers to kill: {workers}");
            (EventKind::MasterStopping, None, text)
        }
        Notice::Leaving { outcome } => {
            (EventKind::Leaving, None, format!("master stopped, exit code {}", outcome.code()))
        }
        Notice::HelperEnded { .. } => {
            (EventKind::HelperEnded, None, "a helper of the master ended unasked".to_owned())
        }
        Notice::EndsWithWorkers { code } => {
            let text = format!("the service ends with its workers, exit code {code}");
            (EventKind::MasterStopping, None, text)
        }
        Notice::Loading { generation } => {
            (EventKind::Reload, None, format!("reading the configuration: generation {generation}"))
        }
        Notice::LoadRefused { .. } => {
            (EventKind::Reload, None, "reload refused; nothing has changed".to_owned())
        }
        Notice::LoadUnneeded { .. } => (EventKind::Reload, None, "nothing is reloaded".to_owned()),
        Notice::Rolling { generation, canary } => {
            let text = format!("is the canary of generation {generation}");
            return Some(of_slot(EventKind::Reload, canary, &text));
        }
        Notice::CanaryProven { worker } => {
            (EventKind::Reload, Some(worker), "has proved itself: the others follow".to_owned())
        }
        Notice::Reloaded { generation, took } => {
            let text = format!("all workers are of generation {generation} after {}", span(took));
            (EventKind::Reload, None, text)
        }
        Notice::RollFailed { worker, slot, cause, .. } => {
            let text = format!("worker {slot} {}: rolling back", describe_fault(cause));
            let child = children.get(worker);
            return Some(Event {
                kind: EventKind::RollFailed,
                slot: Some(slot.0),
                pid: child.map(|child| child.pid.as_raw().unsigned_abs()),
                generation: child.map(|child| child.generation.0),
                text,
            });
        }
        Notice::RolledBack { back_to, .. } => {
            (EventKind::Reload, None, format!("generation {back_to} serves again"))
        }
        Notice::Draining => {
            (EventKind::Other, None, "draining: workers stop until the next reload".to_owned())
        }
        Notice::Upgrading => (EventKind::Upgrade, None, "starting a successor".to_owned()),
        Notice::Upgraded { took } => {
            let text = format!("the successor has taken over after {}", span(took));
            (EventKind::Upgrade, None, text)
        }
        Notice::UpgradeFailed { fault } => {
            (EventKind::Upgrade, None, format!("upgrade failed: {}", describe_upgrade_fault(fault)))
        }
        Notice::Booted { took } => {
            (EventKind::Other, None, format!("all workers are ready after {}", span(took)))
        }
        Notice::NotBooted { .. } => {
            (EventKind::Other, None, "the first boot has failed: giving up".to_owned())
        }
        Notice::LateWake { .. } | Notice::Bug(_) => return None,
    };
    Some(match worker {
        Some(worker) => of_worker(kind, worker, &text, children),
        None => Event { kind, slot: None, pid: None, generation: None, text },
    })
}

fn of_worker(kind: EventKind, worker: WorkerId, text: &str, children: &Children) -> Event {
    let Some(child) = children.get(worker) else {
        let text = format!("worker id {worker} {text}");
        return Event { kind, slot: None, pid: None, generation: None, text };
    };
    let pid = child.pid.as_raw().unsigned_abs();
    Event {
        kind,
        slot: Some(child.slot.0),
        pid: Some(pid),
        generation: Some(child.generation.0),
        text: format!("worker {} (pid {pid}) {text}", child.slot),
    }
}

fn of_slot(kind: EventKind, slot: Slot, text: &str) -> Event {
    let text = format!("worker {slot} {text}");
    Event { kind, slot: Some(slot.0), pid: None, generation: None, text }
}
