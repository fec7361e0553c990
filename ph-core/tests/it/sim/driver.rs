//! A model of the driver and of its operator: one simulated life from `Started` to the end.
//!
//! It does what the real one does: it waits for the deadline, a signal or a worker's bell, takes one
//! `now` a turn, tells everything it found (stop orders first), ends the turn with a tick, and performs
//! every action at once, answering `ReadHeartbeat` in the same turn. And it does it badly: it
//! oversleeps, ticks before it looks, reaps only some, and hears of workers that never were.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ph_core::arbiter::{
    Action, Event, Jitter, LATE_TOLERANCE, Order, Outcome, Policy, SPAWN_BATCH, Time, WorkerId,
    WorkerKind,
};

use super::copies;
use super::faults::{Plan, converged_by, steady_after};
use super::invariants::{Observer, Verdict, Violation, hold};
use super::kernel::{Kernel, News, Pid};
use super::lives::End;
use super::loads::{Load, slowest};
use super::mutations::Mutation;
use super::record::Record;
use super::rng::Rng;
use super::subject::Subject;
use super::twins::Twin;
use super::upgrades::Successor;

mod deeds;

/// What is kept of a life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) steps: u64,
    /// Of every event and action and their times.
    pub(super) hash: u64,
    pub(super) exit: Option<Outcome>,
}

pub(super) struct World {
    plan: Plan,
    rng: Rng,
    kernel: Kernel,
    subject: Subject,
    observer: Observer,
    now: Time,
    is_calm: bool,
    children: BTreeMap<WorkerId, Pid>,
    newest: WorkerId,
    most_slots: u32,
    orders: VecDeque<(Time, Order)>,
    /// The configuration that is read, and what the last one says.
    load: Option<Load>,
    successor: Option<Successor>,
    file: Policy,
    /// The slowest numbers of all configurations there were.
    slowest: Policy,
    twin: Option<Twin>,
    /// News that was found and not told yet.
    backlog: Vec<(WorkerId, News)>,
    turns_without_rest: usize,
    /// When something last happened that is not a look at a heartbeat.
    last_deed: Time,
    record: Record,
    life: Life,
}

impl World {
    pub(super) fn new(plan: &Plan, mutation: Option<Mutation>, record: Record) -> Self {
        Self {
            rng: Rng::new(plan.seed ^ 0xD1CE),
            kernel: Kernel::new(plan),
            subject: Subject::new(&plan.policy, &plan.helpers, mutation),
            observer: Observer::new(&plan.policy, &plan.helpers),
            now: Time::ZERO,
            is_calm: false,
            children: BTreeMap::new(),
            newest: WorkerId(0),
            most_slots: plan.policy.target,
            orders: plan.orders.iter().copied().collect(),
            load: None,
            successor: None,
            file: plan.policy,
            slowest: plan.policy,
            twin: None,
            backlog: Vec::new(),
            turns_without_rest: 0,
            last_deed: Time::ZERO,
            record,
            life: Life::default(),
            plan: plan.clone(),
        }
    }

    /// The safety phase, the liveness phase, and perhaps a stop.
    pub(super) fn live(mut self) -> Result<Life, Violation> {
        self.observer.begin_turn(self.now, None);
        self.step(Event::Started)?;
        self.run_until(self.plan.calm_at)?;
        if self.observer.exit.is_none() && !self.subject.arbiter().is_stopping() {
            self.converge()?;
        }
        let stops = self.plan.stops_at_last || self.subject.arbiter().is_stopping();
        if stops && self.observer.exit.is_none() {
            self.stop()?;
        }
        self.check_memory()?;
        self.life.exit = self.observer.exit;
        Ok(self.life)
    }

    /// Only the safety phase, for so many steps: for what takes very long.
    pub(super) fn endure(mut self, steps: u64) -> Result<Life, Violation> {
        self.observer.begin_turn(self.now, None);
        self.step(Event::Started)?;
        let mut checked = 0;
        while self.life.steps < steps {
            self.turn(Time::from_nanos(u64::MAX))?;
            if self.life.steps >= checked + 1000 {
                checked = self.life.steps;
                self.check_memory()?;
                let to = self.rng.between(1, self.plan.policy.max_workers);
                self.orders.push_back((self.now, Order::ScaleTo(to)));
            }
        }
        Ok(self.life)
    }

    fn check_memory(&self) -> Verdict {
        copies::check_memory(&self.subject, self.most_slots, self.plan.helpers.len())
    }

    /// I12: when faults cease, all are ready within a bound, and then nothing more happens but that
    /// slots recover from their crash loops.
    fn converge(&mut self) -> Verdict {
        self.is_calm = true;
        self.kernel.calm(&mut self.rng);
        self.orders.clear();
        if let Some(load) = self.load.as_mut().filter(|load| load.at.is_none()) {
            load.at = Some(self.now);
        }
        if let Some(successor) = &mut self.successor {
            successor.calm(self.now, &mut self.rng);
        }
        let most = self.observer.target.max(self.slowest.target);
        let bound = self.now.after(converged_by(&self.slowest, most));
        while self.now < bound && !self.is_converged() {
            self.turn(bound)?;
        }
        if self.subject.arbiter().is_stopping() {
            // A worker whose end is the service's had ended before, and was reaped only now; or a
            // successor has taken over.
            return Ok(());
        }
        let counts = self.subject.arbiter().counts();
        let (alive, hung) = (self.kernel.alive(), self.kernel.hung());
        let wanted = self.observer.wanted();
        let roll = self.observer.stage();
        hold!(12, self.is_converged(), "{counts:?} of {wanted}, {alive} live, {hung} hang, {roll}");
        if self.observer.policy.max_age.is_some() {
            // Where workers grow old, there is no rest.
            return Ok(());
        }
        let steady = self.now.after(steady_after(&self.slowest));
        self.run_until(steady)?;
        self.run_until(steady.after(self.slowest.timeout.unwrap_or_default() * 3))?;
        hold!(12, self.last_deed <= steady, "not at rest: a deed {:?}", self.last_deed);
        hold!(12, self.is_converged(), "{:?} of {wanted}", self.subject.arbiter().counts());
        Ok(())
    }

    fn is_converged(&self) -> bool {
        let counts = self.subject.arbiter().counts();
        let wanted = self.observer.wanted();
        if self.observer.policy.max_age.is_some() {
            // There is always somebody who grows old.
            let least = (wanted as usize).saturating_sub(self.observer.may_be_missing());
            let is_quiet = self.load.is_none() && self.observer.is_settled();
            let is_quiet = is_quiet && self.observer.is_upgraded();
            return counts.ready as usize >= least && is_quiet;
        }
        counts.ready == wanted
            && counts.live() == wanted
            && self.kernel.alive() == wanted as usize
            && self.observer.helpers_run()
            && self.kernel.is_quiet()
            && self.backlog.is_empty()
            && !self.observer.is_replacing()
            && self.load.is_none()
            && self.observer.is_upgraded()
            && self.kernel.hung() == 0
    }

    /// I7, at the end of a life: the observer holds the bound, this waits for the fact.
    fn stop(&mut self) -> Verdict {
        if !self.subject.arbiter().is_stopping() {
            self.orders.push_back((self.now, Order::Stop));
        }
        // However much it oversleeps: the observer has the bound, this is only an end.
        self.run_until(self.now.after(Duration::from_secs(3600)))?;
        hold!(7, self.observer.exit.is_some(), "no Exit after a stop order");
        Ok(())
    }

    fn run_until(&mut self, end: Time) -> Verdict {
        while self.now < end && self.observer.exit.is_none() {
            self.turn(end)?;
        }
        Ok(())
    }

    fn fault(&mut self, per_mille: u64) -> bool {
        !self.is_calm && self.rng.chance(per_mille)
    }

    /// Waits, and tells the arbiter what it finds.
    fn turn(&mut self, end: Time) -> Verdict {
        let promised = self.subject.next_deadline();
        self.check_rest(promised)?;
        self.sleep(promised, end);
        self.observer.begin_turn(self.now, promised);
        if promised.is_some_and(|at| self.now.since(at) > LATE_TOLERANCE / 2) {
            // What a master oversleeps is counted from its deadline, and a load is one.
            self.twin = None;
        }
        // A signal may interrupt the wait before what it brought can be read.
        if self.fault(self.plan.faults.tick_first) {
            self.step(Event::Tick)?;
        }
        let mut orders = Vec::new();
        while self.orders.front().is_some_and(|(at, _)| *at <= self.now) {
            orders.extend(self.orders.pop_front().map(|(_, order)| order));
        }
        let (urgent, orders): (Vec<_>, Vec<_>) = orders.into_iter().partition(|o| o.is_urgent());
        if let Some(stop) = urgent.first() {
            self.step(Event::Ordered(*stop))?;
        }
        let helpers_first = self.rng.chance(500);
        if helpers_first {
            self.tell_helpers()?;
        }
        self.tell_news()?;
        if !helpers_first {
            self.tell_helpers()?;
        }
        if let Some(left) = self.kernel.beside.stray_news() {
            self.step(Event::StraysCounted { left })?;
        }
        if let Some(load) = self.load.filter(|load| load.is_due(self.now)) {
            self.load = None;
            self.learn(load);
            self.step(load.answer)?;
        }
        self.tell_of_successor()?;
        if self.fault(self.plan.faults.stray) {
            self.tell_stray()?;
        }
        for order in orders {
            self.step(Event::Ordered(order))?;
            if order == Order::Reload && self.rng.chance(200) {
                self.step(Event::Ordered(order))?;
            }
            self.most_slots = self.most_slots.max(self.observer.target);
        }
        self.most_slots = self.most_slots.max(self.observer.target);
        self.step(Event::Tick)
    }

    fn learn(&mut self, load: Load) {
        if let Event::Loaded { generation, policy } = load.answer {
            self.file = policy;
            self.slowest = slowest(&self.slowest, &policy);
            self.kernel.learn(generation, policy, load.badness);
        }
    }

    fn sleep(&mut self, promised: Option<Time>, end: Time) {
        let mut wake = end;
        wake = wake.min(self.kernel.next_happening().unwrap_or(wake));
        wake = wake.min(self.orders.front().map_or(wake, |(at, _)| *at));
        wake = wake.min(self.load.and_then(|load| load.at).unwrap_or(wake));
        let of_successor = self.successor.and_then(|it| it.next_happening());
        wake = wake.min(of_successor.unwrap_or(wake));
        if self.fault(self.plan.faults.odd_tick) {
            wake = wake.min(self.now.after(self.rng.span(Duration::from_secs(1))));
        }
        // The wait is counted in milliseconds, rounded up.
        let rounding = self.rng.span(Duration::from_millis(1));
        wake = wake.min(promised.map_or(wake, |at| at.max(self.now).after(rounding)));
        if !self.backlog.is_empty() || !self.kernel.beside.ended().is_empty() {
            wake = self.now;
        }
        let mut wake = wake.max(self.now);
        if self.fault(self.plan.faults.oversleeps) {
            let short = Duration::from_millis(self.rng.pick(&[20, 300, 1500]));
            let span = self.rng.pick(&[short, Duration::from_secs(40)]);
            let span = self.rng.span(span);
            self.kernel.advance(wake);
            wake = wake.after(span);
            // The master alone was stopped, or everybody with it.
            if self.rng.chance(500) {
                self.kernel.freeze(span);
                if let Some(successor) = &mut self.successor {
                    successor.freeze(span);
                }
            }
        }
        self.kernel.advance(wake);
        self.now = wake;
    }

    /// I13: an arbiter that wants to be woken at once, again and again, never lets the master rest.
    fn check_rest(&mut self, promised: Option<Time>) -> Verdict {
        let at_once = promised.is_some_and(|at| at <= self.now) && self.backlog.is_empty();
        self.turns_without_rest = if at_once { self.turns_without_rest + 1 } else { 0 };
        let most = 200 + 4 * (self.observer.target as usize / SPAWN_BATCH);
        hold!(13, self.turns_without_rest < most, "the master never rests");
        Ok(())
    }

    /// Tells what became of the children, in any order that keeps each worker's own.
    fn tell_news(&mut self) -> Verdict {
        let mut found = self.kernel.news();
        self.rng.shuffle(&mut found);
        let mut news = std::mem::take(&mut self.backlog);
        for (worker, of_it) in found {
            for what in of_it {
                // A zombie is found again and again until it is reaped.
                if !news.contains(&(worker, what)) {
                    news.push((worker, what));
                }
            }
        }
        if self.fault(self.plan.faults.reaps_partly) {
            let kept = self.rng.below(u64::try_from(news.len()).unwrap_or(0) + 1);
            self.backlog = news.split_off(usize::try_from(kept).unwrap_or(0));
        }
        let events: Vec<_> = news.into_iter().filter_map(|one| self.event_of(one)).collect();
        if !self.observer.is_replacing() {
            copies::check_order(&self.subject, self.now, &events)?;
        }
        for event in events {
            if let Event::Exited { worker, .. } | Event::SpawnFailed { worker, .. } = event {
                self.kernel.reap(worker);
                self.children.remove(&worker);
            }
            // The commands of the simulation beat from the beginning, as forked workers do.
            if let (Event::Ready { worker, .. }, WorkerKind::Command) =
                (event, self.plan.policy.kind)
            {
                self.step(Event::Watched { worker })?;
            }
            self.step(event)?;
        }
        Ok(())
    }

    /// Tells which helpers have ended.
    fn tell_helpers(&mut self) -> Verdict {
        for helper in self.kernel.beside.ended() {
            if self.fault(self.plan.faults.reaps_partly) {
                continue;
            }
            let status = self.kernel.beside.reap(helper);
            let jitter = self.jitter();
            self.step(Event::HelperEnded { helper, status, jitter })?;
        }
        Ok(())
    }

    fn event_of(&mut self, (worker, what): (WorkerId, News)) -> Option<Event> {
        Some(match what {
            News::Ready => Event::Ready { worker, jitter: Jitter::default() },
            News::Recycle => Event::RecycleDue { worker },
            News::Ended => {
                let jitter = self.jitter();
                match self.kernel.end_of(worker)? {
                    End::Exit(status) => Event::Exited { worker, status, jitter },
                    End::Failed(fault) => Event::SpawnFailed { worker, fault, jitter },
                }
            }
        })
    }

    fn jitter(&mut self) -> Jitter {
        let bits = u32::try_from(self.rng.next() >> 32).unwrap_or(0);
        Jitter(self.rng.pick(&[0, u32::MAX, bits]))
    }

    /// Steps the arbiter, performs what it wants, and tells it at once what came of that.
    fn step(&mut self, event: Event) -> Verdict {
        let mut events = VecDeque::from([event]);
        let mut answers = 0;
        while let Some(event) = events.pop_front() {
            answers += 1;
            hold!(13, answers <= 10_000, "an endless answer to {event:?}");
            let mut actions = Vec::new();
            Twin::before(&mut self.twin, &self.subject, self.now, event);
            self.subject.step(self.now, event, &mut actions);
            self.note(event, &actions);
            Twin::after(&mut self.twin, &self.subject, self.now, event, &actions)?;
            let deadline = self.subject.next_deadline();
            let target = self.subject.arbiter().target();
            self.observer.observe(self.now, event, &actions, deadline, target)?;
            // What costs a look at everything is not done at every step where there is much.
            if self.most_slots <= 8 || self.life.steps.is_multiple_of(8) {
                let checked = self.subject.arbiter().check();
                checked.map_err(|error| Violation::new(0, error))?;
                copies::check_idempotence(&self.subject, self.observer.now)?;
            }
            for action in &actions {
                events.extend(self.perform(*action)?);
            }
        }
        Ok(())
    }

    fn note(&mut self, event: Event, actions: &[Action]) {
        self.life.steps += 1;
        let is_look = |action: &&Action| {
            matches!(action, Action::ReadHeartbeat { .. } | Action::ReadMemory { .. })
        };
        if actions.iter().any(|action| !is_look(&action)) {
            self.last_deed = self.now;
        }
        self.record.write(&mut self.life.hash, self.now, event, actions);
    }
}
