//! Small worlds, looked through to the end: one or two workers, and every sequence of a few events.
//!
//! What the seeds draw at random is here complete, but short: after each step the arbiter agrees with
//! itself, and the invariants hold that need no history. Sequences that lead to the same arbiter are
//! followed once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use ph_core::arbiter::{
    Action, Arbiter, Event, ExitStatus, Generation, Jitter, Order, Policy, Share, SpawnFault,
    State, Time, WorkerId, WorkerSignal,
};

/// Events after the start.
const DEPTH: usize = 6;

/// States at most, so that a larger alphabet cannot make this test endless.
const STATES: usize = 400_000;

/// How far the successor of an upgrade has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Successor {
    Started,
    Committed,
    Stopped,
    Killed,
}

/// What happened so far, as far as it cannot be asked of the arbiter.
#[derive(Clone)]
struct Path {
    arbiter: Arbiter,
    now: Time,
    stopping: bool,
    killed: BTreeSet<WorkerId>,
    known: BTreeMap<WorkerId, Generation>,
    loading: Option<Generation>,
    successor: Option<Successor>,
    trail: Vec<Event>,
}

impl Path {
    fn new(policy: Policy) -> Self {
        let mut path = Self {
            arbiter: Arbiter::new(policy),
            now: Time::ZERO,
            stopping: false,
            killed: BTreeSet::new(),
            known: BTreeMap::new(),
            loading: None,
            successor: None,
            trail: Vec::new(),
        };
        path.step(Event::Started);
        path
    }

    /// Everything that may happen next.
    fn events(&self) -> Vec<Event> {
        let jitter = Jitter(0);
        let mut events = vec![
            Event::Tick,
            Event::Ordered(Order::Reload),
            Event::Ordered(Order::Upgrade),
            Event::Ordered(Order::Stop),
            Event::Ordered(Order::Drain),
            Event::Ordered(Order::ScaleBy(1)),
            Event::Ordered(Order::ScaleBy(-1)),
        ];
        if let Some(generation) = self.loading {
            let policy = Policy { target: 2, ..*self.arbiter.policy() };
            events.push(Event::Loaded { generation, policy });
            events.push(Event::LoadFailed { generation });
            events.push(Event::LoadUnneeded { generation });
        }
        if let Some(successor) = self.successor {
            events.push(Event::SuccessorEnded { status: Some(ExitStatus::Code(1)) });
            match successor {
                Successor::Started => events.push(Event::SuccessorReady),
                Successor::Committed | Successor::Stopped => events.push(Event::TakenOver),
                Successor::Killed => {}
            }
        }
        for (worker, record) in self.arbiter.workers() {
            let status = ExitStatus::Code(1);
            events.push(Event::Exited { worker, status, jitter });
            match record.state {
                State::Booting { .. } => {
                    events.push(Event::Ready { worker, jitter });
                    let fault = SpawnFault::Passing;
                    events.push(Event::SpawnFailed { worker, fault, jitter });
                }
                State::Ready(_) => events.push(Event::RecycleDue { worker }),
                State::Stopping { .. } | State::Killed { .. } => {}
            }
        }
        events
    }

    /// One more event; a tick comes when the next deadline has passed.
    fn step(&mut self, event: Event) {
        if event == Event::Tick {
            self.now = self.arbiter.next_deadline().unwrap_or(self.now).max(self.now);
        }
        self.trail.push(event);
        let mut actions = Vec::new();
        self.arbiter.step(self.now, event, &mut actions);
        let answered = match event {
            Event::Loaded { generation, .. }
            | Event::LoadFailed { generation }
            | Event::LoadUnneeded { generation } => Some(generation),
            Event::Started
            | Event::Ordered(_)
            | Event::Ready { .. }
            | Event::Heartbeat { .. }
            | Event::RecycleDue { .. }
            | Event::MemoryRead { .. }
            | Event::SpawnFailed { .. }
            | Event::Exited { .. }
            | Event::HelperEnded { .. }
            | Event::StraysCounted { .. }
            | Event::Watched { .. }
            | Event::Probed { .. }
            | Event::SuccessorReady
            | Event::TakenOver
            | Event::SuccessorEnded { .. }
            | Event::PredecessorGone
            | Event::Tick => None,
        };
        if matches!(event, Event::SuccessorEnded { .. }) {
            self.successor = None;
        }
        self.loading = self.loading.filter(|it| Some(*it) != answered);
        self.stopping |= event == Event::Ordered(Order::Stop);
        for action in actions {
            self.judge(action);
        }
        let trail = &self.trail;
        assert_eq!(self.arbiter.check(), Ok(()), "{trail:?}");
        let wanted = self.arbiter.workers().filter(|(_, it)| it.state.reason().is_none());
        let generations: BTreeSet<_> = wanted.map(|(_, record)| record.generation).collect();
        assert!(generations.len() <= 3, "{generations:?} live: {trail:?}");
        self.check_idle();
    }

    fn judge(&mut self, action: Action) {
        let trail = &self.trail;
        match action {
            Action::Spawn { worker, generation, .. } => {
                assert!(!self.stopping, "a spawn in a stop: {trail:?}");
                let is_new = self.known.insert(worker, generation).is_none();
                assert!(is_new, "{worker:?} is not new: {trail:?}");
            }
            Action::Signal { worker, signal } => {
                assert!(self.arbiter.worker(worker).is_some(), "{worker:?} is reaped: {trail:?}");
                let is_kill = signal == WorkerSignal::Kill;
                assert!(!is_kill || self.killed.insert(worker), "two SIGKILLs: {trail:?}");
            }
            Action::Load { generation } => {
                assert!(!self.stopping, "a load in a stop: {trail:?}");
                assert!(self.loading.replace(generation).is_none(), "two loads: {trail:?}");
            }
            Action::AbandonLoad => {
                assert!(self.loading.take().is_some(), "nothing to abandon: {trail:?}");
            }
            Action::SpawnSuccessor => {
                assert!(!self.stopping, "a successor in a stop: {trail:?}");
                let before = self.successor.replace(Successor::Started);
                assert!(before.is_none(), "two successors: {trail:?}");
                assert!(self.loading.is_none(), "a successor beside a load: {trail:?}");
            }
            Action::CommitUpgrade => self.tell_successor(Successor::Committed),
            Action::StopSuccessor => self.tell_successor(Successor::Stopped),
            Action::KillSuccessor => self.tell_successor(Successor::Killed),
            Action::HandOver => {
                let before = self.successor.take();
                assert_eq!(before, Some(Successor::Committed), "handed over: {trail:?}");
            }
            Action::Forward(_)
            | Action::ReadHeartbeat { .. }
            | Action::ReadMemory { .. }
            | Action::StartProbe { .. }
            | Action::EndProbe { .. }
            | Action::SpawnHelper { .. }
            | Action::StopHelper { .. }
            | Action::KillHelper { .. }
            | Action::EndStrays
            | Action::ReopenLog
            | Action::Notify(_)
            | Action::Exit(_) => {}
        }
    }

    /// A successor is told each thing once, in their order.
    fn tell_successor(&mut self, what: Successor) {
        let is_next = match (self.successor, what) {
            (Some(Successor::Started), _) => what != Successor::Started,
            (Some(Successor::Committed), _) => {
                matches!(what, Successor::Stopped | Successor::Killed)
            }
            (Some(Successor::Stopped), _) => what == Successor::Killed,
            (Some(Successor::Killed) | None, _) => false,
        };
        assert!(is_next, "{what:?} after {:?}: {:?}", self.successor, self.trail);
        self.successor = Some(what);
    }

    /// A tick with nothing due does nothing (I13).
    fn check_idle(&self) {
        if self.arbiter.next_deadline().is_some_and(|at| at <= self.now) {
            return;
        }
        let (mut copy, mut actions) = (self.arbiter.clone(), Vec::new());
        copy.step(self.now, Event::Tick, &mut actions);
        assert!(actions.is_empty(), "a tick gives {actions:?}: {:?}", self.trail);
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let seen = (&self.arbiter, self.now, self.loading, self.successor);
        format!("{seen:?}").hash(&mut hasher);
        hasher.finish()
    }
}

/// Looks through a world, and says how many sequences it followed.
fn explore(policy: Policy) -> usize {
    let mut seen = HashSet::new();
    let mut paths = vec![Path::new(policy)];
    let mut followed = 0;
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for path in &paths {
            for event in path.events() {
                let mut path = path.clone();
                path.step(event);
                followed += 1;
                if seen.len() < STATES && seen.insert(path.hash()) {
                    next.push(path);
                }
            }
        }
        paths = next;
    }
    assert!(seen.len() < STATES, "more states than are looked at");
    followed
}

#[test]
fn every_short_life_of_one_worker_and_of_two() {
    let one = Policy { target: 1, max_workers: 2, ..Policy::default() };
    let without_surge = Policy { reload_surge: Share::Count(0), ..one };
    let two = Policy { target: 2, reload_surge: Share::Count(1), ..one };
    for policy in [one, without_surge, two] {
        let followed = explore(policy);
        println!("{followed} sequences of {DEPTH} events");
        assert!(followed > 1000, "a world that is too small");
    }
}
