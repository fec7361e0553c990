//! Checks that need a copy of the arbiter: what it *would* do.

use std::collections::BTreeSet;

use ph_core::arbiter::{Action, Arbiter, Event, Notice, Slot, Time};

use super::invariants::{Verdict, Violation, hold};
use super::subject::Subject;

/// I13: a second tick at the same time does nothing, unless the arbiter said that it would.
pub(super) fn check_idempotence(subject: &Subject, now: Time) -> Verdict {
    if subject.next_deadline().is_some_and(|at| at <= now) {
        return Ok(());
    }
    let mut copy = subject.clone();
    let mut actions = Vec::new();
    copy.step(now, Event::Tick, &mut actions);
    hold!(13, actions.is_empty(), "a tick with nothing due gives {actions:?}");
    hold!(13, copy.arbiter() == subject.arbiter(), "a tick with nothing due changes the state");
    Ok(())
}

/// I5: an event about a worker that is not there does what a tick does.
pub(super) fn check_stray(subject: &Subject, now: Time, event: Event) -> Verdict {
    let (mut one, mut other) = (subject.clone(), subject.clone());
    let (mut actions, mut wanted) = (Vec::new(), Vec::new());
    one.step(now, event, &mut actions);
    other.step(now, Event::Tick, &mut wanted);
    hold!(5, actions == wanted, "{event:?} is about nobody and gives {actions:?}");
    hold!(5, one.arbiter() == other.arbiter(), "{event:?} is about nobody and changes the state");
    Ok(())
}

/// I23: what came together gives the same state in any order. It may not where being first is the
/// point: in a race for the verdict on the first boot, for a place under `max_workers`, in a batch
/// or in the surge, where two workers of one slot die (the slot's record is a history), and where
/// the service ends with a worker.
pub(super) fn check_order(subject: &Subject, now: Time, events: &[Event]) -> Verdict {
    let bystander = |event: &Event| {
        matches!(event, Event::Ready { .. } | Event::Exited { .. } | Event::SpawnFailed { .. })
    };
    let events: Vec<_> = events.iter().copied().filter(bystander).collect();
    if events.len() < 2 {
        return Ok(());
    }
    // What is due comes first, so that no timer is raced.
    let (mut subject, mut due) = (subject.clone(), Vec::new());
    subject.step(now, Event::Tick, &mut due);
    if due.iter().any(|action| matches!(action, Action::Notify(Notice::Recycling { .. }))) {
        return Ok(());
    }
    let arbiter = subject.arbiter();
    let was_ready = arbiter.workers().any(|(_, record)| record.state.is_ready());
    let slots: BTreeSet<_> = events.iter().filter_map(|event| slot_of(arbiter, *event)).collect();
    let is_due = subject.next_deadline().is_some_and(|at| at <= now);
    if !was_ready
        || is_due
        || arbiter.is_stopping()
        || arbiter.is_reloading()
        || slots.len() < events.len()
    {
        return Ok(());
    }
    let outcome = |events: &mut dyn Iterator<Item = &Event>| {
        let mut copy = subject.clone();
        let mut actions = Vec::new();
        for event in events {
            copy.step(now, *event, &mut actions);
        }
        copy
    };
    let one = outcome(&mut events.iter());
    let other = outcome(&mut events.iter().rev());
    let goes_on = |subject: &Subject| {
        subject.arbiter().is_stopping() || subject.next_deadline().is_some_and(|at| at <= now)
    };
    if goes_on(&one) || goes_on(&other) {
        return Ok(());
    }
    let (one, other) = (one.arbiter(), other.arbiter());
    hold!(
        23,
        one.counts() == other.counts(),
        "{events:?} gives {:?} or, reversed, {:?}",
        one.counts(),
        other.counts()
    );
    Ok(())
}

fn slot_of(arbiter: &Arbiter, event: Event) -> Option<Slot> {
    match event {
        Event::Ready { worker, .. }
        | Event::Probed { worker, .. }
        | Event::MemoryRead { worker, .. }
        | Event::Exited { worker, .. }
        | Event::SpawnFailed { worker, .. }
        | Event::RecycleDue { worker }
        | Event::Watched { worker }
        | Event::Heartbeat { worker, .. } => Some(arbiter.worker(worker)?.slot),
        Event::Started
        | Event::Loaded { .. }
        | Event::LoadFailed { .. }
        | Event::SuccessorReady
        | Event::TakenOver
        | Event::LoadUnneeded { .. }
        | Event::SuccessorEnded { .. }
        | Event::PredecessorGone
        | Event::Ordered(_)
        | Event::HelperEnded { .. }
        | Event::StraysCounted { .. }
        | Event::Tick => None,
    }
}

/// I24: the arbiter's memory, measured by what it would print, is bounded by what it is in charge of.
pub(super) fn check_memory(subject: &Subject, slots: u32, helpers: usize) -> Verdict {
    let printed = format!("{subject:?}").len();
    let workers = subject.arbiter().workers().count();
    let most = 8000 + 600 * (workers + slots as usize + helpers);
    if printed > most {
        return Err(Violation::new(24, format!("{printed} bytes of state for {workers} workers")));
    }
    Ok(())
}
