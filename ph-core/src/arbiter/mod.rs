//! Ring 1: decides what the master does. `no_std`, no I/O, no clock, no pid, no descriptor, no
//! randomness: the same events at the same times give the same actions (I25).
//!
//! One entry, [`Arbiter::step`], and one question, [`Arbiter::next_deadline`]. A step has three
//! parts: the handler of the event records a fact or a wish; `expire` looks at what has come due;
//! `reconcile` compares facts with wishes and is the only one, with `expire`, that starts or ends
//! workers. So whatever comes together, the answer depends on what *is*, not on how it came to be.
//!
//! Each event costs O(log N) in the number of workers N (a stop order, being N signals, O(N)).
//! Invariants are cited by number (I1–I25); ARCHITECTURE.md lists them.

mod action;
mod backoff;
mod boot;
mod event;
mod helpers;
mod life;
mod order;
mod outcome;
mod policy;
mod probing;
mod reconcile;
mod recycle;
mod reload;
mod rollback;
mod roster;
mod stop;
mod time;
mod upgrade;
mod view;
mod worker;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

pub use action::{
    Action, Notice, RecycleReason, RollFault, StopReason, UpgradeFault, WorkerSignal,
};
pub use backoff::Jitter;
pub use event::{Event, ExitStatus, Generation, HelperId, Slot, SpawnFault, WorkerId};
pub use helpers::{HelperEnd, HelperRole};
pub use order::{ORDERS, Order, OrderRow};
pub use outcome::Outcome;
pub use policy::{
    ABORT_GRACE, CLOSING_GRACE, CRASH_LOOP_STRIKES, ExitWith, HEAVY_LOOKS, LATE_TOLERANCE,
    LEAST_WAIT, OnCrashLoop, PROBE_TIMEOUT, Policy, REAP_GRACE, Readiness, SPAWN_BATCH, Share,
    TAKEOVER_TIMEOUT, WorkerKind,
};
pub use roster::Counts;
pub use time::Time;
pub use view::SlotView;
pub use worker::{Probe, Pulse, Record, State, Watch};

use boot::Boot;
use helpers::Helpers;
use reload::Reload;
use roster::Roster;
use stop::Stop;
use upgrade::Upgrade;
use worker::earliest;

/// The state machine of a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arbiter {
    policy: Policy,
    now: Time,
    phase: Phase,
    /// Workers to keep alive; starts as the policy's and follows scale orders.
    target: u32,
    generation: Generation,
    reload: Reload,
    upgrade: Upgrade,
    /// A verdict on the first boot is to be given, within this.
    boot_limit: Option<Duration>,
    boot: Option<Boot>,
    /// Nobody is to serve until the next reload.
    drained: bool,
    next_worker: u64,
    roster: Roster,
    helpers: Helpers,
    /// A worker was ready once: from here on no worker's end is the master's (I10).
    proven: bool,
    /// Slots whose facts changed since they were last compared with the wishes.
    dirty: BTreeSet<Slot>,
    /// Slots that would spawn, were there not too many processes still stopping.
    crowded: BTreeSet<Slot>,
    /// Slots whose worker wants a successor, in the order they asked.
    recycle_queue: VecDeque<Slot>,
    /// Slots that are getting one.
    recycling: BTreeSet<Slot>,
    /// Slots whose worker stops before it has one.
    vacating: BTreeSet<Slot>,
    /// With [`ExitWith::All`]: slots whose worker ended and is not replaced, and the code that counts.
    finished: BTreeSet<Slot>,
    finished_code: u8,
    /// For how long, in all, the master slept past its deadlines.
    asleep: Duration,
    /// When people were last told of a late wake; many workers notice the same one.
    late_wake_told: Option<Time>,
}

/// Where the master is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before `Started`.
    New,
    Running,
    Stopping(Stop),
    Exited,
}

impl Arbiter {
    /// A master that has started nothing yet. The policy's target is brought into 1..=`max_workers`.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            target: policy.target.clamp(1, policy.max_workers.max(1)),
            policy,
            now: Time::ZERO,
            phase: Phase::New,
            generation: Generation(1),
            reload: Reload::new(Generation(1)),
            upgrade: Upgrade::default(),
            boot_limit: None,
            boot: None,
            drained: false,
            next_worker: 1,
            roster: Roster::default(),
            helpers: Helpers::default(),
            proven: false,
            dirty: BTreeSet::new(),
            crowded: BTreeSet::new(),
            recycle_queue: VecDeque::new(),
            recycling: BTreeSet::new(),
            vacating: BTreeSet::new(),
            finished: BTreeSet::new(),
            finished_code: 0,
            asleep: Duration::ZERO,
            late_wake_told: None,
        }
    }

    /// The same with helpers, which are started before the workers in this order.
    #[must_use]
    pub fn with_helpers(mut self, roles: &[HelperRole]) -> Self {
        self.helpers = Helpers::new(roles);
        self
    }

    /// Advances the arbiter by one event and appends what must now be done to `actions`.
    ///
    /// A `now` before that of an earlier step counts as that one. After
    /// [`Action::Exit`] nothing has any effect.
    pub fn step(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        if self.phase == Phase::Exited {
            return;
        }
        if let Some(due) = self.next_deadline() {
            let late = now.since(due.max(self.now));
            self.asleep += if late > LATE_TOLERANCE { late } else { Duration::ZERO };
        }
        self.now = self.now.max(now);
        match event {
            Event::Started => self.on_started(),
            Event::Ordered(order) => self.on_order(order, actions),
            Event::Ready { worker, jitter } => self.on_ready(worker, jitter, actions),
            Event::Heartbeat { worker, beat } => self.on_heartbeat(worker, beat, actions),
            Event::Watched { worker } => self.on_watched(worker),
            Event::RecycleDue { worker } => {
                self.want_recycling(worker, RecycleReason::Requests, actions);
            }
            Event::Probed { worker, is_ready } => self.on_probed(worker, is_ready, actions),
            Event::MemoryRead { worker, bytes } => self.on_memory_read(worker, bytes, actions),
            Event::Loaded { generation, policy } => self.on_loaded(generation, policy, actions),
            Event::LoadFailed { generation } => self.on_load_failed(generation, actions),
            Event::LoadUnneeded { generation } => self.on_load_unneeded(generation, actions),
            Event::SuccessorReady => self.on_successor_ready(actions),
            Event::TakenOver => self.on_taken_over(actions),
            Event::SuccessorEnded { status } => self.on_successor_ended(status, actions),
            Event::PredecessorGone => self.forget_boot(),
            Event::SpawnFailed { worker, fault, jitter } => {
                self.on_spawn_failed(worker, fault, jitter, actions);
            }
            Event::Exited { worker, status, jitter } => {
                self.on_exited(worker, status, jitter, actions);
            }
            Event::HelperEnded { helper, status, jitter } => {
                let (now, policy) = (self.now, &self.policy);
                self.helpers.on_ended(helper, status, now, policy, jitter, actions);
            }
            Event::StraysCounted { left } => self.on_strays_counted(left),
            Event::Tick => {}
        }
        self.expire(actions);
        self.reconcile(actions);
    }

    /// When the arbiter wants to be woken if nothing else happens; never later than its earliest
    /// timer (I13). A point that has passed means: at once, there is more to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::New | Phase::Exited => None,
            Phase::Running if self.is_unsettled() || self.has_order_to_begin() => Some(self.now),
            Phase::Running => self.earliest(),
            Phase::Stopping(stop) => earliest(self.earliest(), stop.deadline(self.asleep)),
        }
    }

    fn earliest(&self) -> Option<Time> {
        let all = [
            self.roster.earliest().map(|(at, _)| at),
            self.helpers.earliest(),
            self.reload.deadline(),
            self.upgrade.deadline(),
            self.boot.as_ref().map(Boot::deadline),
        ];
        all.into_iter().flatten().min()
    }

    /// The numbers it decides by.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Workers to keep alive.
    #[must_use]
    pub fn target(&self) -> u32 {
        self.target
    }

    /// How many workers there are of each sort.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.roster.counts()
    }

    /// Every worker that has not been reaped, oldest first.
    pub fn workers(&self) -> impl Iterator<Item = (WorkerId, &Record)> {
        self.roster.workers()
    }

    /// One worker that has not been reaped.
    #[must_use]
    pub fn worker(&self, worker: WorkerId) -> Option<&Record> {
        self.roster.worker(worker)
    }

    /// Whether a worker was told to stop gracefully and still has time to.
    #[must_use]
    pub fn is_within_grace(&self, worker: WorkerId) -> bool {
        self.roster.worker(worker).is_some_and(|record| match record.state {
            State::Stopping { reason, .. } => !reason.is_fault(),
            State::Booting { .. } | State::Ready(_) | State::Killed { .. } => false,
        })
    }

    /// Whether the master has been told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        match self.phase {
            Phase::Stopping(_) | Phase::Exited => true,
            Phase::New | Phase::Running => false,
        }
    }

    /// Compares the arbiter's derived state with what it is derived from.
    ///
    /// # Errors
    ///
    /// The first thing that does not agree: a bug in the arbiter.
    pub fn check(&self) -> Result<(), &'static str> {
        let stray = |slot: &&Slot| !self.is_wanted(**slot) && !self.dirty.contains(*slot);
        let waiting = self.recycling.iter().chain(&self.vacating).chain(&self.crowded);
        if waiting.into_iter().find(stray).is_some() {
            return Err("a slot beyond the target is waiting for a worker");
        }
        self.helpers.check()?;
        self.roster.check()
    }

    fn on_started(&mut self) {
        if self.phase == Phase::New {
            self.phase = Phase::Running;
            self.helpers.start(self.now);
            self.begin_boot();
            self.dirty.extend((0..self.target).map(Slot));
        }
    }

    pub(super) fn tell_late_wake(&mut self, by: Duration, actions: &mut Vec<Action>) {
        if self.late_wake_told.replace(self.now) != Some(self.now) {
            actions.push(Action::Notify(Notice::LateWake { by }));
        }
    }
}
