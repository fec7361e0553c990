//! No event costs a look at all workers: a machine with ten thousand slots takes two hundred thousand
//! events as if it had ten.
//!
//! There is no clock here, so the measure is the test's own patience: one scan of ten thousand workers
//! per event would be four thousand million steps, and somebody would come and look.

use std::collections::VecDeque;

use ph_core::arbiter::{
    Action, Arbiter, Event, ExitStatus, Generation, Jitter, Notice, Order, Policy, SPAWN_BATCH,
    Time, WorkerId,
};

const SLOTS: u32 = 10_000;
const EVENTS: u32 = 200_000;

#[test]
fn an_event_costs_the_same_among_ten_thousand_workers() {
    let timeout = Some(std::time::Duration::from_secs(1000));
    let policy = Policy { target: SLOTS, max_workers: SLOTS, timeout, ..Policy::default() };
    let mut arbiter = Arbiter::new(policy);
    let mut actions = Vec::new();
    arbiter.step(Time::ZERO, Event::Started, &mut actions);
    let mut turns = 1;
    while arbiter.next_deadline().is_some_and(|at| at <= Time::ZERO) {
        arbiter.step(Time::ZERO, Event::Tick, &mut actions);
        turns += 1;
    }
    assert!(turns <= SLOTS as usize / SPAWN_BATCH + 2, "{turns} turns for a mass start");
    let mut booting: VecDeque<_> = actions.iter().filter_map(spawned).collect();
    let mut ready = VecDeque::new();
    assert_eq!(booting.len(), SLOTS as usize);

    let mut now = Time::ZERO;
    for event in 0..EVENTS {
        actions.clear();
        now = now.after(std::time::Duration::from_micros(100));
        if event % 2 == 0
            && let Some(worker) = booting.pop_front()
        {
            arbiter.step(now, Event::Ready { worker, jitter: Jitter::default() }, &mut actions);
            ready.push_back(worker);
        } else if let Some(worker) = ready.pop_front() {
            let (status, jitter) = (ExitStatus::Code(0), Jitter(event));
            arbiter.step(now, Event::Exited { worker, status, jitter }, &mut actions);
        }
        booting.extend(actions.iter().filter_map(spawned));
        assert!(actions.len() <= 4, "{} actions for one event", actions.len());
    }
    assert_eq!(arbiter.check(), Ok(()));

    // A stop is one signal to each.
    actions.clear();
    arbiter.step(now, Event::Ordered(Order::Stop), &mut actions);
    let signals = actions.iter().filter(|action| matches!(action, Action::Signal { .. })).count();
    assert_eq!(signals, arbiter.workers().count());
}

/// A whole roll of as many workers is linear too: so many steps, and so many actions.
#[test]
fn a_roll_of_ten_thousand_workers_costs_as_much_for_each() {
    let second = std::time::Duration::from_secs(1);
    let policy = Policy { target: SLOTS, max_workers: SLOTS, ..Policy::default() };
    let mut arbiter = Arbiter::new(policy);
    let (mut now, mut steps, mut count) = (Time::ZERO, 0_u32, 0);
    let generation = Generation(2);
    let mut events = VecDeque::from([Event::Started]);
    let mut is_over = false;
    let mut is_loaded = false;
    while !is_over {
        let event = events.pop_front().unwrap_or(Event::Tick);
        if event == Event::Tick {
            let due = arbiter.next_deadline().unwrap_or(now);
            now =
                if arbiter.counts().ready == SLOTS && !is_loaded { now.after(second) } else { due };
        }
        if arbiter.counts().ready == SLOTS && !std::mem::replace(&mut is_loaded, true) {
            events.extend([Event::Ordered(Order::Reload), Event::Loaded { generation, policy }]);
            (steps, count) = (0, 0);
        }
        let mut actions = Vec::new();
        arbiter.step(now, event, &mut actions);
        steps += 1;
        count += actions.len();
        for action in actions {
            match action {
                Action::Spawn { worker, .. } => {
                    events.push_back(Event::Ready { worker, jitter: Jitter::default() });
                }
                Action::Signal { worker, .. } => {
                    let (status, jitter) = (ExitStatus::Code(0), Jitter::default());
                    events.push_back(Event::Exited { worker, status, jitter });
                }
                Action::Notify(Notice::Reloaded { .. }) => is_over = true,
                Action::Notify(_)
                | Action::ReadHeartbeat { .. }
                | Action::ReadMemory { .. }
                | Action::StartProbe { .. }
                | Action::EndProbe { .. }
                | Action::Load { .. }
                | Action::AbandonLoad
                | Action::SpawnSuccessor
                | Action::CommitUpgrade
                | Action::StopSuccessor
                | Action::KillSuccessor
                | Action::HandOver
                | Action::Forward(_)
                | Action::SpawnHelper { .. }
                | Action::StopHelper { .. }
                | Action::KillHelper { .. }
                | Action::EndStrays
                | Action::ReopenLog
                | Action::Exit(_) => {}
            }
        }
    }
    assert_eq!(arbiter.check(), Ok(()));
    assert!(steps <= 4 * SLOTS, "{steps} steps");
    assert!(count <= 8 * SLOTS as usize, "{count} actions");
}

fn spawned(action: &Action) -> Option<WorkerId> {
    match action {
        Action::Spawn { worker, .. } => Some(*worker),
        Action::Signal { .. }
        | Action::SpawnHelper { .. }
        | Action::StopHelper { .. }
        | Action::KillHelper { .. }
        | Action::EndStrays
        | Action::ReadHeartbeat { .. }
        | Action::ReadMemory { .. }
        | Action::StartProbe { .. }
        | Action::EndProbe { .. }
        | Action::Load { .. }
        | Action::AbandonLoad
        | Action::SpawnSuccessor
        | Action::CommitUpgrade
        | Action::StopSuccessor
        | Action::KillSuccessor
        | Action::HandOver
        | Action::Forward(_)
        | Action::ReopenLog
        | Action::Notify(_)
        | Action::Exit(_) => None,
    }
}
