//! No event costs a look at all workers: a machine with ten thousand slots takes two hundred thousand
//! events as if it had ten.
//!
//! There is no clock here, so the measure is the test's own patience: one scan of ten thousand workers
//! per event would be four thousand million steps, and somebody would come and look.

use std::collections::VecDeque;

use ph_core::arbiter::{
    Action, Arbiter, Event, ExitStatus, Jitter, Order, Policy, SPAWN_BATCH, Time, WorkerId,
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
        | Action::Load { .. }
        | Action::AbandonLoad
        | Action::ReopenLog
        | Action::Notify(_)
        | Action::Exit(_) => None,
    }
}
