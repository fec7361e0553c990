//! Lies about upgrades.

use ph_core::arbiter::{Action, Arbiter, Event, Notice, Order, Time};

use super::{Mutant, Mutation, double};

impl Mutant {
    /// What the arbiter hears in place of an event.
    pub(super) fn hear_of_upgrades(&mut self, event: Event) -> Event {
        match (self.mutation, event) {
            (Mutation::DropsUpgrades, Event::Ordered(Order::Upgrade))
            | (Mutation::MissesTheEndOfSuccessors, Event::SuccessorEnded { .. }) => Event::Tick,
            _ => event,
        }
    }

    /// What the arbiter hears besides.
    pub(super) fn follow_upgrades(
        &mut self,
        arbiter: &mut Arbiter,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let ready = arbiter.workers().find(|(_, record)| record.state.is_ready());
        let worker = ready.map(|(worker, _)| worker);
        if self.mutation == Mutation::RecyclesForFailedUpgrades
            && actions.iter().any(is_failure)
            && let Some(worker) = worker
        {
            arbiter.step(now, Event::RecycleDue { worker }, actions);
        }
    }

    /// What the arbiter is made to say.
    pub(super) fn say_of_upgrades(
        &mut self,
        arbiter: &Arbiter,
        event: Event,
        actions: &mut Vec<Action>,
    ) {
        use Mutation as M;
        let commits = actions.contains(&Action::CommitUpgrade);
        let gives_up = actions.contains(&Action::StopSuccessor);
        match self.mutation {
            M::UpgradesBesideReloads
                if event == Event::Ordered(Order::Upgrade) && arbiter.is_reloading() =>
            {
                actions.extend([Action::Notify(Notice::Upgrading), Action::SpawnSuccessor]);
            }
            M::StartsTwoSuccessors => double(actions, |it| *it == Action::SpawnSuccessor),
            M::CommitsTwice => double(actions, |it| *it == Action::CommitUpgrade),
            M::HandsOverWhenReady if commits => actions.push(Action::HandOver),
            M::KeepsItsSockets => actions.retain(|it| *it != Action::HandOver),
            M::ForgetsToForward => actions.retain(|it| !matches!(it, Action::Forward(_))),
            M::HidesFailedUpgrades => actions.retain(|it| !is_failure(it)),
            M::WaitsForSuccessors if gives_up && !arbiter.is_stopping() => {
                actions.retain(|it| *it != Action::StopSuccessor && !is_failure(it));
            }
            M::KillsSuccessorsAtOnce if gives_up => actions.push(Action::KillSuccessor),
            _ => {}
        }
    }
}

fn is_failure(action: &Action) -> bool {
    matches!(action, Action::Notify(Notice::UpgradeFailed { .. }))
}
