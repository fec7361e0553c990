//! Lies about reloads, drains and replacement.

use ph_core::arbiter::{
    Action, Arbiter, Event, Generation, Jitter, Notice, Order, Policy, Share, State, StopReason,
    Time, WorkerId, WorkerSignal,
};

use super::{Mutant, Mutation};

impl Mutant {
    /// What the arbiter hears in place of an event.
    pub(super) fn hear_of_reloads(&mut self, arbiter: &Arbiter, event: Event) -> Event {
        use Mutation as M;
        let is_reload = event == Event::Ordered(Order::Reload);
        match (self.mutation, event) {
            (M::LosesReloadsInRolls, _) if is_reload && arbiter.is_reloading() => Event::Tick,
            (M::IsDeafWhileLoading, Event::Ready { .. }) if arbiter.is_reloading() => Event::Tick,
            (M::LosesRefusals, Event::LoadFailed { .. }) => Event::Tick,
            (M::DropsDrain, Event::Ordered(Order::Drain)) => Event::Tick,
            (M::WeighsWrongly, Event::MemoryRead { worker, .. }) => {
                Event::MemoryRead { worker, bytes: u64::MAX }
            }
            (M::KeepsAnOldTarget, Event::Loaded { generation, policy }) => {
                let target = arbiter.policy().target;
                Event::Loaded { generation, policy: Policy { target, ..policy } }
            }
            (M::KeepsTheOldGrace, Event::Loaded { generation, policy }) => {
                let graceful_timeout = arbiter.policy().graceful_timeout;
                Event::Loaded { generation, policy: Policy { graceful_timeout, ..policy } }
            }
            (M::IgnoresTheUnavailable, Event::Loaded { generation, policy }) => {
                let max_unavailable = Share::Percent(100);
                Event::Loaded { generation, policy: Policy { max_unavailable, ..policy } }
            }
            (M::StopsAllInRolls, Event::Loaded { generation, policy }) => {
                let (max_unavailable, reload_surge) = (Share::Percent(100), Share::Count(0));
                let policy = Policy { max_unavailable, reload_surge, ..policy };
                Event::Loaded { generation, policy }
            }
            (M::HoldsNoCanary, Event::Loaded { generation, policy }) => {
                let (min_uptime, canary_hold) = Default::default();
                Event::Loaded { generation, policy: Policy { min_uptime, canary_hold, ..policy } }
            }
            // It takes the refused configuration all the same.
            (M::TakesTheRefused, Event::LoadFailed { generation }) => {
                Event::Loaded { generation, policy: *arbiter.policy() }
            }
            _ => event,
        }
    }

    /// What the arbiter hears besides.
    pub(super) fn follow_reloads(
        &mut self,
        arbiter: &mut Arbiter,
        now: Time,
        event: Event,
        actions: &mut Vec<Action>,
    ) {
        use Mutation as M;
        let is = |wanted: fn(&Notice) -> bool| {
            actions.iter().any(|it| matches!(it, Action::Notify(notice) if wanted(notice)))
        };
        let fails = is(|it| matches!(it, Notice::RollFailed { .. }));
        let is_refused = is(|it| matches!(it, Notice::LoadRefused { .. }));
        match self.mutation {
            M::ScalesWhenRefused if is_refused => {
                arbiter.step(now, Event::Ordered(Order::ScaleBy(1)), actions);
            }
            M::KeepsTheTargetOfTheFailed if fails => {
                let to = self.count;
                arbiter.step(now, Event::Ordered(Order::ScaleTo(to)), actions);
            }
            M::KeepsTheTargetOfTheFailed => self.count = arbiter.target(),
            M::BootsCanariesTwice => {
                let booting = arbiter.workers().find(|(_, record)| {
                    record.generation != Generation(1)
                        && matches!(record.state, State::Booting { .. })
                });
                let worker = booting.map(|(worker, _)| worker);
                if let Some(worker) = worker.filter(|_| matches!(event, Event::Loaded { .. })) {
                    arbiter.step(now, Event::Ready { worker, jitter: Jitter(0) }, actions);
                }
            }
            _ => {}
        }
    }

    /// What the arbiter is made to say.
    pub(super) fn say_of_reloads(
        &mut self,
        arbiter: &Arbiter,
        event: Event,
        actions: &mut Vec<Action>,
    ) {
        use Mutation as M;
        let notice = |wanted: fn(&Notice) -> bool| move |it: &Action| matches!(it, Action::Notify(notice) if wanted(notice));
        let proven = notice(|it| matches!(it, Notice::CanaryProven { .. }));
        let rolling = notice(|it| matches!(it, Notice::Rolling { .. }));
        let failed = notice(|it| matches!(it, Notice::RollFailed { .. }));
        match self.mutation {
            M::ProvesNobody => actions.retain(|it| !proven(it)),
            M::ForgetsToRollBack => actions.retain(|it| !failed(it)),
            M::AbandonsTwice => {
                if let Some(index) = actions.iter().position(|it| *it == Action::AbandonLoad) {
                    actions.insert(index, Action::AbandonLoad);
                }
            }
            M::StopsBesideTheCanary if actions.iter().any(rolling) => {
                actions.extend(stop_somebody(arbiter, StopReason::Reload));
            }
            M::StopsForNothing if matches!(event, Event::Ready { .. }) => {
                actions.extend(stop_somebody(arbiter, StopReason::Recycle));
            }
            M::MixesGenerations => {
                for action in actions {
                    if let Action::Spawn { generation, .. } = action {
                        *generation = Generation(self.count.max(1));
                        self.count = generation.0;
                    }
                    if let Action::Notify(Notice::Rolling { generation, .. }) = action {
                        self.count = generation.0;
                    }
                }
            }
            M::LoadsInAStop => {
                let stopping = notice(|it| matches!(it, Notice::Stopping { .. }));
                if actions.iter().any(stopping) {
                    actions.push(Action::Load { generation: Generation(1000) });
                }
            }
            M::LoadsAtOnce if event == Event::Ordered(Order::Reload) && arbiter.is_reloading() => {
                actions.push(Action::Load { generation: Generation(1000) });
            }
            M::ServesOnDrained => {
                let draining = notice(|it| matches!(it, Notice::Draining));
                actions.retain(|it| !draining(it));
            }
            _ => {}
        }
    }
}

/// The oldest that serves.
fn stop_somebody(arbiter: &Arbiter, reason: StopReason) -> Vec<Action> {
    let serving = arbiter.workers().find(|(_, record)| record.state.is_ready());
    let Some((worker, _)) = serving else { return Vec::new() };
    let told = |worker: WorkerId| {
        let grace = arbiter.policy().graceful_timeout;
        Action::Notify(Notice::WorkerStopping { worker, reason, grace })
    };
    vec![told(worker), Action::Signal { worker, signal: WorkerSignal::Stop }]
}
