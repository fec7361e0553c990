//! How each mutation lies, to the arbiter or for it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each mutation lies in one place only; `Mutation::breaks` is the exhaustive match"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ph_core::arbiter::{
    Action, Arbiter, Event, ExitStatus, Jitter, Notice, Order, Outcome, Policy, Share, Slot, State,
    StopReason, Time, WorkerId, WorkerSignal,
};

use super::Mutation;

mod closing;
mod reloads;
mod upgrades;

/// A mutation at work.
#[derive(Clone, Debug)]
pub(in super::super) struct Mutant {
    mutation: Mutation,
    policy: Policy,
    /// Events of the kind the mutation waits for.
    count: u32,
    /// When each slot may have its next worker.
    waits: BTreeMap<Slot, Time>,
    /// Spawns that are held back.
    held: Vec<Action>,
    last_dead: Option<WorkerId>,
    last_end_at: Option<Time>,
    memory: Vec<Event>,
}

/// What must never be: something that differs from run to run.
static CLOCK: AtomicU32 = AtomicU32::new(0);

impl Mutant {
    pub(in super::super) fn new(mutation: Mutation, policy: &Policy) -> Self {
        Self {
            mutation,
            policy: *policy,
            count: 0,
            waits: BTreeMap::new(),
            held: Vec::new(),
            last_dead: None,
            last_end_at: None,
            memory: Vec::new(),
        }
    }

    /// The policy the arbiter is given; the observer knows the real one.
    pub(in super::super) fn policy(&self) -> Policy {
        let real = self.policy;
        let zero = Duration::ZERO;
        match self.mutation {
            Mutation::ForgetsBackoff => Policy { backoff_min: zero, backoff_max: zero, ..real },
            Mutation::ServesOnAfterTheLast => Policy { exit_with: None, ..real },
            Mutation::ForgetsMinUptime => Policy { min_uptime: zero, ..real },
            Mutation::SurgesTooMuch => Policy { reload_surge: Share::Percent(200), ..real },
            Mutation::IgnoresTheDelay => Policy { drain_delay: zero, ..real },
            Mutation::DelaysTwice => Policy { drain_delay: real.drain_delay * 2, ..real },
            Mutation::KillsEarly => Policy { graceful_timeout: real.graceful_timeout / 2, ..real },
            _ => real,
        }
    }

    pub(in super::super) fn deadline(&self, deadline: Option<Time>) -> Option<Time> {
        match self.mutation {
            Mutation::LosesDeadlines => None,
            Mutation::DelaysDeadlines => deadline.map(|at| at.after(Duration::from_millis(300))),
            _ => deadline,
        }
    }

    pub(in super::super) fn step(
        &mut self,
        arbiter: &mut Arbiter,
        now: Time,
        event: Event,
        actions: &mut Vec<Action>,
    ) {
        let is_known = worker_of(event).is_some_and(|worker| arbiter.worker(worker).is_some());
        let heard = self.hear(arbiter, now, event, is_known);
        let heard = self.hear_of_reloads(arbiter, heard);
        let heard = self.hear_of_upgrades(heard);
        arbiter.step(now, self.hear_of_closing(heard), actions);
        self.follow(arbiter, now, event, is_known, actions);
        self.follow_closing(arbiter, now, event, actions);
        self.follow_reloads(arbiter, now, event, actions);
        self.follow_upgrades(arbiter, now, actions);
        self.say(arbiter, now, event, actions);
        self.say_of_closing(event, actions);
        self.say_of_reloads(arbiter, event, actions);
        self.say_of_upgrades(arbiter, event, actions);
    }

    /// What the arbiter hears in place of an event.
    fn hear(&mut self, arbiter: &Arbiter, now: Time, event: Event, is_known: bool) -> Event {
        let is_end = matches!(event, Event::Exited { .. }) && is_known;
        let is_stop = event == Event::Ordered(Order::Stop);
        let swallowed = match self.mutation {
            Mutation::SwallowsExited => is_end && self.every(3),
            Mutation::IgnoresSecondStop => is_stop && arbiter.is_stopping(),
            Mutation::DropsStop => is_stop && !arbiter.is_stopping(),
            Mutation::LosesReady => matches!(event, Event::Ready { .. }) && self.every(4),
            Mutation::DropsReopen => event == Event::Ordered(Order::Reopen),
            Mutation::DropsScale => matches!(event, Event::Ordered(Order::ScaleTo(_))),
            Mutation::DependsOnOrder => {
                let follows = self.last_end_at == Some(now);
                self.last_end_at = if is_end { Some(now) } else { None };
                matches!(event, Event::Ready { .. }) && follows
            }
            _ => false,
        };
        if swallowed {
            return Event::Tick;
        }
        match (self.mutation, event) {
            (
                Mutation::ServesTheUnbootable,
                Event::Exited { worker, status: ExitStatus::Code(3 | 4), jitter },
            ) => Event::Exited { worker, status: ExitStatus::Code(1), jitter },
            (Mutation::HasAClockOfItsOwn, Event::Exited { worker, status, .. }) => {
                let jitter = Jitter(CLOCK.fetch_add(0x1357_9BDF, Ordering::Relaxed));
                Event::Exited { worker, status, jitter }
            }
            _ => event,
        }
    }

    /// What the arbiter hears besides.
    fn follow(
        &mut self,
        arbiter: &mut Arbiter,
        now: Time,
        event: Event,
        is_known: bool,
        actions: &mut Vec<Action>,
    ) {
        let failed = matches!(event, Event::SpawnFailed { .. }) && is_known;
        match self.mutation {
            Mutation::EndsOnSpawnError if failed && arbiter.counts().ready > 0 => {
                arbiter.step(now, Event::Ordered(Order::Stop), actions);
            }
            Mutation::LowersTargetOnSpawnError if failed => {
                arbiter.step(now, Event::Ordered(Order::ScaleBy(-1)), actions);
            }
            Mutation::StopsBeforeSuccessor => {
                for worker in successors(arbiter, actions) {
                    arbiter.step(now, Event::Ready { worker, jitter: Jitter::default() }, actions);
                }
            }
            Mutation::SignalsTheDead if is_known && arbiter.worker_is_gone(event) => {
                self.last_dead = worker_of(event);
            }
            Mutation::ReusesIdentities if is_known && arbiter.worker_is_gone(event) => {
                self.last_dead = worker_of(event);
            }
            Mutation::RemembersEverything => self.memory.push(event),
            _ => {}
        }
    }

    /// What the arbiter is made to say.
    fn say(&mut self, arbiter: &Arbiter, now: Time, event: Event, actions: &mut Vec<Action>) {
        use Mutation as M;
        let kill = |action: &Action| is_signal(action, WorkerSignal::Kill);
        let stop = |action: &Action| {
            is_signal(action, WorkerSignal::Stop) || is_signal(action, WorkerSignal::StopLast)
        };
        let exit = |action: &Action| matches!(action, Action::Exit(_));
        let ended = |action: &Action| matches!(action, Action::Notify(Notice::WorkerExited { .. }));
        let stopping = |action: &Action| matches!(action, Action::Notify(Notice::Stopping { .. }));
        match self.mutation {
            M::DoublesKill => double(actions, kill),
            M::DropsKill => actions.retain(|action| !kill(action)),
            M::DoublesStop => double(actions, stop),
            M::LeavesTheQueue => {
                for action in actions {
                    if let Action::Signal { signal: signal @ WorkerSignal::StopLast, .. } = action {
                        *signal = WorkerSignal::Stop;
                    }
                }
            }
            M::TellsAnEndTwice => double(actions, ended),
            M::ExitsTwice => double(actions, exit),
            M::NeverExits => actions.retain(|action| !exit(action)),
            M::ExitsEarly if actions.iter().any(stopping) && !actions.iter().any(exit) => {
                actions.push(Action::Exit(Outcome::Stopped));
            }
            M::SpawnsAfterStop if actions.iter().any(stopping) => {
                actions.extend(spawn_like(arbiter));
            }
            M::SpawnsOneTooMany => {
                if let Some(Action::Spawn { worker, slot, generation }) = last_spawn(actions) {
                    let worker = WorkerId(worker.0 + 1);
                    actions.push(Action::Spawn { worker, slot, generation });
                }
            }
            M::SignalsTheDead => {
                let signal = WorkerSignal::Kill;
                let dead = self.last_dead.take();
                actions.extend(dead.map(|worker| Action::Signal { worker, signal }));
            }
            M::ReusesIdentities => {
                for action in actions {
                    if let Action::Spawn { worker, .. } = action {
                        *worker = self.last_dead.unwrap_or(*worker);
                    }
                }
            }
            M::OneWaitsAllWait => self.hold_back(now, actions),
            M::TicksAreDeeds if event == Event::Tick => actions.push(Action::ReopenLog),
            M::CondemnsTheBooting => {
                if let Some(Action::Spawn { worker, .. }) = last_spawn(actions) {
                    actions.push(Action::ReadHeartbeat { worker });
                }
            }
            M::CondemnsLateWakers => self.condemn(arbiter, now, event, actions),
            M::Babbles if !actions.is_empty() => {
                let late = Notice::LateWake { by: Duration::ZERO };
                actions.extend(std::iter::repeat_n(Action::Notify(late), 2000));
            }
            _ => {}
        }
    }

    /// Whoever was silent for `timeout` is stuck, however late the master looked.
    fn condemn(&self, arbiter: &Arbiter, now: Time, event: Event, actions: &mut Vec<Action>) {
        let (Event::Heartbeat { worker, beat }, Some(timeout)) = (event, self.policy.timeout)
        else {
            return;
        };
        let is_ready = arbiter.worker(worker).is_some_and(|record| record.state.is_ready());
        if is_ready && beat > Time::ZERO && now.since(beat) >= timeout {
            let (reason, signal) = (StopReason::Stuck, WorkerSignal::Abort);
            let grace = Duration::ZERO;
            actions.push(Action::Notify(Notice::WorkerStopping { worker, reason, grace }));
            actions.push(Action::Signal { worker, signal });
        }
    }

    /// No slot gets a worker while another one waits.
    fn hold_back(&mut self, now: Time, actions: &mut Vec<Action>) {
        for action in actions.iter() {
            if let Action::Notify(
                Notice::WorkerExited { slot, respawn_in: Some(wait), .. }
                | Notice::SpawnFailed { slot, retry_in: Some(wait), .. },
            ) = action
            {
                self.waits.insert(*slot, now.after(*wait));
            }
        }
        let waits = |slot: Slot, waits: &BTreeMap<Slot, Time>| {
            waits.iter().any(|(other, until)| *other != slot && *until > now)
        };
        let mut spawns = std::mem::take(&mut self.held);
        spawns.extend(actions.extract_if(.., |action| matches!(action, Action::Spawn { .. })));
        for action in spawns {
            match action {
                Action::Spawn { slot, .. } if waits(slot, &self.waits) => self.held.push(action),
                _ => actions.push(action),
            }
        }
    }

    fn every(&mut self, nth: u32) -> bool {
        self.count += 1;
        self.count.is_multiple_of(nth)
    }
}

fn worker_of(event: Event) -> Option<WorkerId> {
    match event {
        Event::Ready { worker, .. }
        | Event::Probed { worker, .. }
        | Event::MemoryRead { worker, .. }
        | Event::Heartbeat { worker, .. }
        | Event::RecycleDue { worker }
        | Event::Watched { worker }
        | Event::SpawnFailed { worker, .. }
        | Event::Exited { worker, .. } => Some(worker),
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

trait Gone {
    /// Whether the event was the end of its worker.
    fn worker_is_gone(&self, event: Event) -> bool;
}

impl Gone for Arbiter {
    fn worker_is_gone(&self, event: Event) -> bool {
        worker_of(event).is_some_and(|worker| self.worker(worker).is_none())
    }
}

fn is_signal(action: &Action, wanted: WorkerSignal) -> bool {
    matches!(action, Action::Signal { signal, .. } if *signal == wanted)
}

fn double(actions: &mut Vec<Action>, is_meant: impl Fn(&Action) -> bool) {
    if let Some(index) = actions.iter().position(is_meant) {
        actions.insert(index, actions[index]);
    }
}

fn last_spawn(actions: &[Action]) -> Option<Action> {
    actions.iter().rfind(|action| matches!(action, Action::Spawn { .. })).copied()
}

/// One more worker in the slot of the newest.
fn spawn_like(arbiter: &Arbiter) -> Option<Action> {
    let (worker, record) = arbiter.workers().last()?;
    let worker = WorkerId(worker.0 + 1);
    Some(Action::Spawn { worker, slot: record.slot, generation: record.generation })
}

/// Workers that were just spawned beside a ready one in the same slot.
fn successors(arbiter: &Arbiter, actions: &[Action]) -> Vec<WorkerId> {
    let mut found = Vec::new();
    for action in actions {
        if let Action::Spawn { worker, slot, .. } = action {
            let mut others = arbiter.workers().filter(|(_, record)| record.slot == *slot);
            if others.any(|(_, record)| matches!(record.state, State::Ready(_))) {
                found.push(*worker);
            }
        }
    }
    found
}
