//! A model of the kernel and of the workers in it: processes, pids, signals, and ends.
//!
//! It owns the pids and gives the lowest free one to the next process, so that a pid is reused as soon
//! as it can be (I22). A signal that is pending is not pending twice. Whatever a worker does in its
//! life is drawn when it is spawned and put on an agenda; nothing happens but from there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ph_core::arbiter::{ExitStatus, Generation, Policy, SpawnFault, Time, WorkerId, WorkerSignal};

use super::beside::Beside;
use super::faults::{Faults, Plan};
use super::lives::{End, KILLED, Life, signalled};
use super::loads::Badness;
use super::rng::Rng;

/// A process number.
pub(super) type Pid = u32;

#[derive(Debug)]
struct Process {
    pid: Pid,
    life: Life,
    is_judged: bool,
    ready_at: Option<Time>,
    last_beat: Time,
    next_beat: Time,
    hangs_at: Option<Time>,
    pending: BTreeSet<u8>,
    is_killed: bool,
    /// Ended, and not reaped.
    zombie: Option<End>,
    /// What the driver can see and has not been told: it became ready; it wants a successor.
    ready_news: bool,
    recycle_news: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happening {
    Ready,
    Recycle,
    Obey,
    /// An end of its own choice.
    Leave(End),
    /// An end it was told to take.
    Die(End),
}

/// One thing the driver may find out in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Ready,
    Recycle,
    Ended,
}

#[derive(Debug)]
pub(super) struct Kernel {
    /// What each configuration says, and what is wrong with it.
    generations: BTreeMap<Generation, (Policy, Option<Badness>)>,
    /// `None` once faults have ceased.
    faults: Option<Faults>,
    now: Time,
    processes: BTreeMap<WorkerId, Process>,
    pids: BTreeMap<Pid, WorkerId>,
    agenda: BTreeMap<(Time, u64), (WorkerId, Happening)>,
    planned: u64,
    pub(super) beside: Beside,
}

impl Kernel {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            generations: BTreeMap::from([(Generation(1), (plan.policy, None))]),
            faults: Some(plan.faults.clone()),
            now: Time::ZERO,
            processes: BTreeMap::new(),
            pids: BTreeMap::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            beside: Beside::new(plan),
        }
    }

    /// A configuration was read.
    pub(super) fn learn(
        &mut self,
        generation: Generation,
        policy: Policy,
        badness: Option<Badness>,
    ) {
        self.generations.insert(generation, (policy, badness));
    }

    /// Starts a process, or says that there is none to be had.
    pub(super) fn spawn(
        &mut self,
        worker: WorkerId,
        generation: Generation,
        rng: &mut Rng,
    ) -> Result<Pid, SpawnFault> {
        if self.faults.as_ref().is_some_and(|faults| rng.chance(faults.fork_fails)) {
            return Err(SpawnFault::Passing);
        }
        let (policy, badness) = self.generations.get(&generation).copied().unwrap_or_default();
        let mut life = Life::draw(&policy, self.faults.as_ref(), rng);
        if let Some(badness) = badness.filter(|_| self.faults.is_some()) {
            badness.spoil(&mut life, &policy, rng);
        }
        let pid = (1..).find(|pid| !self.pids.contains_key(pid)).unwrap_or(0);
        self.pids.insert(pid, worker);
        if let Some(boot) = life.boot {
            self.plan(self.now.after(boot), worker, Happening::Ready);
        }
        if let Some((after, end)) = life.end {
            self.plan(self.now.after(after), worker, Happening::Leave(end));
        }
        let process = Process {
            pid,
            life,
            is_judged: policy.timeout.is_some(),
            ready_at: None,
            last_beat: self.now,
            next_beat: self.now,
            hangs_at: None,
            pending: BTreeSet::new(),
            is_killed: false,
            zombie: None,
            ready_news: false,
            recycle_news: false,
        };
        self.processes.insert(worker, process);
        Ok(pid)
    }

    /// Sends a signal to whoever has this pid, and says who that was.
    pub(super) fn signal(
        &mut self,
        pid: Pid,
        signal: WorkerSignal,
        rng: &mut Rng,
    ) -> Option<WorkerId> {
        let worker = *self.pids.get(&pid)?;
        let number = match signal {
            WorkerSignal::Kill => 9,
            WorkerSignal::Abort => 6,
            WorkerSignal::Stop | WorkerSignal::StopLast => 15,
            WorkerSignal::Reopen => 10,
        };
        if self.processes.get_mut(&worker)?.pending.insert(number) {
            let heard = self.now.after(rng.span(Duration::from_micros(500)));
            self.plan(heard, worker, Happening::Obey);
        }
        Some(worker)
    }

    /// How a zombie ended.
    pub(super) fn end_of(&self, worker: WorkerId) -> Option<End> {
        self.processes.get(&worker)?.zombie
    }

    /// Gives a zombie's pid back.
    pub(super) fn reap(&mut self, worker: WorkerId) {
        if let Some(process) = self.processes.remove(&worker) {
            self.pids.remove(&process.pid);
        }
    }

    /// What the worker's line in shared memory says.
    pub(super) fn beat(&self, worker: WorkerId, rng: &mut Rng) -> Option<Time> {
        let process = self.processes.get(&worker)?;
        if process.life.beats_wildly {
            return Some(Time::from_nanos(rng.pick(&[0, u64::MAX, self.now.as_nanos()])));
        }
        Some(process.last_beat(self.now))
    }

    /// How much memory a worker holds.
    pub(super) fn weigh(&self, worker: WorkerId) -> Option<u64> {
        let process = self.processes.get(&worker)?;
        let grown = process.ready_at.zip(process.life.grow).map(|(at, grow)| at.after(grow));
        Some(if grown.is_some_and(|at| at <= self.now) { 1 << 40 } else { 0 })
    }

    pub(super) fn next_happening(&self) -> Option<Time> {
        let of_workers = self.agenda.first_key_value().map(|((at, _), _)| *at);
        of_workers.into_iter().chain(self.beside.next_happening()).min()
    }

    /// Whether nothing is planned for anybody who lives, and the driver has been told everything.
    pub(super) fn is_quiet(&self) -> bool {
        let lives = |worker| self.processes.get(worker).is_some_and(|it| it.zombie.is_none());
        let is_news = |it: &Process| it.ready_news || it.recycle_news || it.zombie.is_some();
        !self.agenda.values().any(|(worker, _)| lives(worker))
            && !self.processes.values().any(is_news)
            && self.beside.is_quiet()
    }

    /// Lets time pass and everything happen that is due.
    pub(super) fn advance(&mut self, now: Time) {
        while let Some(entry) = self.agenda.first_entry() {
            let at = entry.key().0;
            if at > now {
                break;
            }
            let (worker, happening) = entry.remove();
            self.now = self.now.max(at);
            self.happen(worker, happening);
        }
        self.now = self.now.max(now);
        self.beside.advance(self.now);
    }

    /// The whole tree of processes is frozen for a while, the master in it.
    pub(super) fn freeze(&mut self, span: Duration) {
        let thawed = self.now.after(span);
        self.beside.freeze(span);
        for process in self.processes.values_mut() {
            process.last_beat = process.last_beat(self.now);
            process.next_beat = process.next_beat_after(self.now).after(span);
            process.hangs_at = process.hangs_at.map(|at| at.max(self.now).after(span));
        }
        self.agenda = std::mem::take(&mut self.agenda)
            .into_iter()
            .map(|((at, number), what)| ((at.after(span), number), what))
            .collect();
        self.now = thawed;
    }

    /// Faults cease: nobody ends, hangs or asks for a successor any more of itself.
    pub(super) fn calm(&mut self, rng: &mut Rng) {
        self.faults = None;
        self.beside.calm();
        self.agenda
            .retain(|_, (_, what)| !matches!(what, Happening::Leave(_) | Happening::Recycle));
        let workers: Vec<_> = self.processes.keys().copied().collect();
        for worker in workers {
            let soon = self.now.after(rng.span(Duration::from_millis(50)));
            let Some(process) = self.processes.get_mut(&worker) else { continue };
            process.life.beats_wildly = false;
            process.life.recycle = None;
            process.life.grow = None;
            process.life.hang = None;
            process.life.kill = Some(Duration::from_millis(1));
            process.hangs_at = process.hangs_at.filter(|at| *at <= self.now);
            if process.is_killed {
                self.plan(soon, worker, Happening::Die(KILLED));
            } else if process.ready_at.is_none() {
                self.plan(soon, worker, Happening::Ready);
            }
        }
    }

    /// Takes what the driver can see of its children, each worker's news in the order they came.
    pub(super) fn news(&mut self) -> Vec<(WorkerId, Vec<News>)> {
        let mut all = Vec::new();
        for (worker, process) in &mut self.processes {
            let mut news = Vec::new();
            if std::mem::take(&mut process.ready_news) {
                news.push(News::Ready);
            }
            if std::mem::take(&mut process.recycle_news) {
                news.push(News::Recycle);
            }
            if process.zombie.is_some() {
                news.push(News::Ended);
            }
            if !news.is_empty() {
                all.push((*worker, news));
            }
        }
        all
    }

    /// Workers that live, will never beat again, and are judged by it.
    pub(super) fn hung(&self) -> usize {
        let hung = |process: &&Process| {
            process.is_judged && process.hangs_at.is_some() && process.zombie.is_none()
        };
        self.processes.values().filter(hung).count()
    }

    pub(super) fn alive(&self) -> usize {
        self.processes.values().filter(|process| process.zombie.is_none()).count()
    }

    fn plan(&mut self, at: Time, worker: WorkerId, what: Happening) {
        self.planned += 1;
        self.agenda.insert((at, self.planned), (worker, what));
    }

    fn happen(&mut self, worker: WorkerId, what: Happening) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if process.zombie.is_some() {
            return;
        }
        match what {
            Happening::Ready if process.ready_at.is_some() => {}
            Happening::Ready => {
                process.ready_at = Some(now);
                process.ready_news = true;
                process.last_beat = now;
                process.next_beat = now.after(process.life.beat_every);
                process.hangs_at = process.life.hang.map(|after| now.after(after));
                if let Some(after) = process.life.recycle {
                    self.plan(now.after(after), worker, Happening::Recycle);
                }
            }
            Happening::Recycle => process.recycle_news = true,
            Happening::Obey => self.obey(worker),
            Happening::Leave(_) if process.is_killed => {}
            Happening::Leave(end) | Happening::Die(end) => process.zombie = Some(end),
        }
    }

    fn obey(&mut self, worker: WorkerId) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&worker) else { return };
        let mut ends = Vec::new();
        while let Some(number) = process.pending.pop_first() {
            match number {
                9 => {
                    process.is_killed = true;
                    ends.extend(process.life.kill.map(|after| (after, KILLED)));
                }
                6 => ends.extend(process.life.abort.map(|after| (after, signalled(6)))),
                15 => {
                    let end = End::Exit(ExitStatus::Code(0));
                    ends.extend(process.life.stop.map(|after| (after, end)));
                }
                _ => {}
            }
        }
        for (after, end) in ends {
            self.plan(now.after(after), worker, Happening::Die(end));
        }
    }
}

impl Process {
    fn next_beat_after(&self, now: Time) -> Time {
        let now = self.hangs_at.map_or(now, |at| at.min(now));
        if now < self.next_beat {
            return self.next_beat;
        }
        let every = u64::try_from(self.life.beat_every.as_nanos()).unwrap_or(u64::MAX).max(1);
        let beats = (now.as_nanos() - self.next_beat.as_nanos()) / every + 1;
        Time::from_nanos(self.next_beat.as_nanos() + beats * every)
    }

    fn last_beat(&self, now: Time) -> Time {
        let next = self.next_beat_after(now);
        if next == self.next_beat {
            return self.last_beat;
        }
        let every = u64::try_from(self.life.beat_every.as_nanos()).unwrap_or(u64::MAX);
        Time::from_nanos(next.as_nanos() - every)
    }
}
