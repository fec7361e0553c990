//! A model of the successor of an upgrade: when it is ready, when it has taken over, how it ends.

use std::time::Duration;

use ph_core::arbiter::{Event, ExitStatus, Policy, TAKEOVER_TIMEOUT, Time};

use super::rng::Rng;

/// How often what goes wrong with a successor, in a thousand; drawn at each of them.
#[derive(Clone, Debug, Default)]
pub(super) struct UpgradeFaults {
    spawn_fails: u64,
    dies: u64,
    slow: u64,
    never: u64,
    takes_long: u64,
    ignores_stop: u64,
    unkillable: u64,
}

impl UpgradeFaults {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut rate = |rates: [u64; 3]| if rng.chance(400) { 0 } else { rng.pick(&rates) };
        Self {
            spawn_fails: rate([100, 300, 1000]),
            dies: rate([300, 800, 1000]),
            slow: rate([100, 300, 800]),
            never: rate([50, 300, 900]),
            takes_long: rate([100, 500, 1000]),
            ignores_stop: rate([100, 300, 800]),
            unkillable: rate([50, 200, 500]),
        }
    }
}

/// The successor's process, from its spawn to its reaping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Successor {
    /// When it will have news; `None`: not by itself.
    ready_at: Option<Time>,
    takes_over_at: Option<Time>,
    ends_at: Option<Time>,
    status: ExitStatus,
    /// How long it takes to do what it is told.
    take_over: Option<Duration>,
    stop: Option<Duration>,
    die: Option<Duration>,
}

impl Successor {
    /// One that was started; `None`: none came of it.
    pub(super) fn draw(
        now: Time,
        policy: &Policy,
        faults: Option<&UpgradeFaults>,
        rng: &mut Rng,
    ) -> Option<Self> {
        let soon = Duration::from_millis(200);
        let mut drawn = Self {
            ready_at: Some(now.after(rng.span(soon))),
            takes_over_at: None,
            ends_at: None,
            status: ExitStatus::Code(rng.pick(&[1, 6, 0])),
            take_over: Some(rng.span(soon / 10)),
            stop: Some(rng.span(soon)),
            die: Some(Duration::from_millis(1)),
        };
        let Some(faults) = faults else { return Some(drawn) };
        if rng.chance(faults.spawn_fails) {
            return None;
        }
        if rng.chance(faults.slow) {
            drawn.ready_at = Some(now.after(rng.span(policy.upgrade_timeout * 5 / 4)));
        }
        if rng.chance(faults.never) {
            drawn.ready_at = None;
        }
        if rng.chance(faults.takes_long) {
            let span = rng.span(TAKEOVER_TIMEOUT * 5 / 4);
            drawn.take_over = rng.pick(&[None, Some(span)]);
        }
        if rng.chance(faults.dies) {
            let span = rng.pick(&[soon * 2, policy.upgrade_timeout, TAKEOVER_TIMEOUT]);
            drawn.ends_at = Some(now.after(rng.span(span)));
        }
        if rng.chance(faults.ignores_stop) {
            let span = rng.span(policy.graceful_timeout * 2);
            drawn.stop = rng.pick(&[None, Some(span)]);
        }
        if rng.chance(faults.unkillable) {
            drawn.die = rng.pick(&[None, Some(Duration::from_secs(3))]);
        }
        Some(drawn)
    }

    pub(super) fn commit(&mut self, now: Time) {
        self.takes_over_at = self.take_over.map(|after| now.after(after));
    }

    pub(super) fn stop(&mut self, now: Time) {
        self.end_within(now, self.stop);
    }

    pub(super) fn kill(&mut self, now: Time) {
        (self.ends_at, self.ready_at, self.takes_over_at) = (None, None, None);
        self.status = ExitStatus::Signal { number: 9, core: false };
        self.end_within(now, self.die);
    }

    fn end_within(&mut self, now: Time, span: Option<Duration>) {
        let told = span.map(|after| now.after(after));
        self.ends_at = [self.ends_at, told].into_iter().flatten().min();
    }

    /// Faults cease: whatever it would never do, it does soon.
    pub(super) fn calm(&mut self, now: Time, rng: &mut Rng) {
        let soon = now.after(rng.span(Duration::from_millis(50)));
        let news = [self.ready_at, self.takes_over_at, self.ends_at];
        if news.iter().flatten().all(|at| *at > soon) {
            self.ends_at = Some(soon);
        }
        self.die = Some(Duration::from_millis(1));
    }

    /// The freeze of everybody holds it up as well.
    pub(super) fn freeze(&mut self, span: Duration) {
        for at in [&mut self.ready_at, &mut self.takes_over_at, &mut self.ends_at] {
            *at = at.map(|at| at.after(span));
        }
    }

    pub(super) fn next_happening(&self) -> Option<Time> {
        [self.ready_at, self.takes_over_at, self.ends_at].into_iter().flatten().min()
    }

    /// What the driver sees of it now, earliest first. A successor that has ended says nothing else.
    pub(super) fn news(&mut self, now: Time) -> Option<Event> {
        let is_due = |at: &mut Time| *at <= now;
        let ended = self.ends_at.filter(|at| *at <= now);
        let was_before = |at: Option<Time>| at.filter(|at| ended.is_none_or(|end| *at < end));
        (self.ready_at, self.takes_over_at) =
            (was_before(self.ready_at), was_before(self.takes_over_at));
        if self.ready_at.take_if(is_due).is_some() {
            return Some(Event::SuccessorReady);
        }
        if self.takes_over_at.take_if(is_due).is_some() {
            return Some(Event::TakenOver);
        }
        ended.map(|_| Event::SuccessorEnded { status: Some(self.status) })
    }
}
