//! A model of the processes that are not workers: helpers, and what workers left behind.
//!
//! Each has at most one thing before it, its end, so there is no agenda: a process is a zombie from
//! the moment of its end on, until it is reaped.

use std::time::Duration;

use ph_core::arbiter::{CLOSING_GRACE, ExitStatus, HelperId, Time};

use super::faults::{HelperFaults, Plan};
use super::rng::Rng;

/// Longer than any life of a master: an end that never comes.
const NEVER: Time = Time::from_nanos(u64::MAX);

#[derive(Clone, Copy, Debug)]
struct Process {
    ends_at: Time,
    status: ExitStatus,
    /// How long it takes to leave when it is told, and to end when it is killed.
    stop: Option<Duration>,
    kill: Option<Duration>,
    /// How it ends when it is told.
    told: ExitStatus,
}

impl Process {
    fn end(&mut self, now: Time, after: Option<Duration>, status: ExitStatus) {
        let at = after.map_or(NEVER, |after| now.after(after));
        if at < self.ends_at {
            (self.ends_at, self.status) = (at, status);
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Beside {
    /// `None` once faults have ceased.
    faults: Option<HelperFaults>,
    now: Time,
    helpers: Vec<Option<Process>>,
    /// From the moment strays are to end to the end of each.
    left_behind: Vec<Option<Duration>>,
    /// When each stray ends, once they are to.
    strays: Option<Vec<Time>>,
    counted: u32,
}

impl Beside {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            faults: Some(plan.helper_faults.clone()),
            now: Time::ZERO,
            helpers: vec![None; plan.helpers.len()],
            left_behind: plan.left_behind.clone(),
            strays: None,
            counted: 0,
        }
    }

    /// Starts a helper's process, or says that there is none to be had.
    pub(super) fn spawn(&mut self, helper: HelperId, rng: &mut Rng) -> bool {
        let quick = Duration::from_millis(20);
        let mut process = Process {
            ends_at: NEVER,
            status: ExitStatus::Code(0),
            stop: Some(rng.span(quick)),
            kill: Some(rng.span(quick)),
            told: ExitStatus::Code(0),
        };
        if let Some(faults) = &self.faults {
            if rng.chance(faults.fork_fails) {
                return false;
            }
            if rng.chance(faults.dies) {
                let longest = Duration::from_millis(rng.pick(&[0, 50, 1500, 8000]));
                let killed = ExitStatus::Signal { number: 9, core: false };
                let status = rng.pick(&[ExitStatus::Code(0), ExitStatus::Code(1), killed]);
                process.end(self.now, Some(rng.span(longest)), status);
                // Somebody may kill it then, too.
                process.told = status;
            }
            if rng.chance(faults.ignores_stop) {
                process.stop = or_never(CLOSING_GRACE * 2, rng);
            }
            if rng.chance(faults.unkillable) {
                process.kill = or_never(Duration::from_secs(3), rng);
            }
        }
        if let Some(place) = self.helpers.get_mut(helper.0 as usize) {
            *place = Some(process);
        }
        true
    }

    pub(super) fn stop(&mut self, helper: HelperId) {
        let now = self.now;
        if let Some(process) = self.process(helper) {
            process.end(now, process.stop, process.told);
        }
    }

    pub(super) fn kill(&mut self, helper: HelperId) {
        let now = self.now;
        // Nothing it wanted to do itself comes to pass, unless it has.
        if let Some(process) = self.process(helper).filter(|process| process.ends_at > now) {
            process.ends_at = NEVER;
            process.end(now, process.kill, ExitStatus::Signal { number: 9, core: false });
        }
    }

    fn process(&mut self, helper: HelperId) -> Option<&mut Process> {
        self.helpers.get_mut(helper.0 as usize)?.as_mut()
    }

    pub(super) fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// Zombies, in the order of the helpers.
    pub(super) fn ended(&self) -> Vec<HelperId> {
        let now = self.now;
        let is_zombie = |place: &Option<Process>| place.is_some_and(|it| it.ends_at <= now);
        let places = (0..).map(HelperId).zip(&self.helpers);
        places.filter(|(_, place)| is_zombie(place)).map(|(helper, _)| helper).collect()
    }

    /// Takes a zombie away, and says how it ended.
    pub(super) fn reap(&mut self, helper: HelperId) -> Option<ExitStatus> {
        Some(self.helpers.get_mut(helper.0 as usize)?.take()?.status)
    }

    pub(super) fn is_asked_for_strays(&self) -> bool {
        self.strays.is_some()
    }

    pub(super) fn has_process(&self, helper: HelperId) -> bool {
        self.helpers.get(helper.0 as usize).is_some_and(Option::is_some)
    }

    /// Strays are to end from now on; says how many there are.
    pub(super) fn end_strays(&mut self) -> u32 {
        let now = self.now;
        let ends = |after: &Option<Duration>| after.map_or(NEVER, |after| now.after(after));
        self.strays = Some(self.left_behind.iter().map(ends).collect());
        self.counted = self.living();
        self.counted
    }

    /// How many strays are left, if that is news.
    pub(super) fn stray_news(&mut self) -> Option<u32> {
        let left = self.living();
        (std::mem::replace(&mut self.counted, left) != left).then_some(left)
    }

    fn living(&self) -> u32 {
        let now = self.now;
        let living = self.strays.iter().flatten().filter(|at| **at > now).count();
        u32::try_from(living).unwrap_or(u32::MAX)
    }

    pub(super) fn next_happening(&self) -> Option<Time> {
        let now = self.now;
        let helpers = self.helpers.iter().flatten().map(|process| process.ends_at);
        let ends = helpers.chain(self.strays.iter().flatten().copied());
        ends.filter(|at| *at > now && *at < NEVER).min()
    }

    /// Whether nobody is about to end, and nobody has whom the driver does not know of.
    pub(super) fn is_quiet(&self) -> bool {
        self.ended().is_empty() && self.next_happening().is_none()
    }

    /// Everybody is frozen for a while, the master among them.
    pub(super) fn freeze(&mut self, span: Duration) {
        let now = self.now;
        let helpers = self.helpers.iter_mut().flatten().map(|process| &mut process.ends_at);
        for at in helpers.chain(self.strays.iter_mut().flatten()) {
            if *at > now && *at < NEVER {
                *at = at.after(span);
            }
        }
    }

    /// Faults cease: no helper ends of itself any more. Only while none has been told to end.
    pub(super) fn calm(&mut self) {
        let now = self.now;
        self.faults = None;
        for process in self.helpers.iter_mut().flatten() {
            if process.ends_at > now {
                process.ends_at = NEVER;
            }
        }
    }
}

fn or_never(longest: Duration, rng: &mut Rng) -> Option<Duration> {
    let span = rng.span(longest);
    rng.chance(600).then_some(span)
}
