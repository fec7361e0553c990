//! Lies about helpers, about what workers leave behind, and about a service that ends with its
//! workers.

use std::time::Duration;

use ph_core::arbiter::{
    Action, Arbiter, Event, ExitStatus, HelperEnd, HelperId, HelperRole, Notice, Order, Time,
};

use super::{Mutant, Mutation, double};

impl Mutant {
    /// The role a helper has for the arbiter; the observer knows the real one.
    pub(in super::super::super) fn role(&self, real: HelperRole) -> HelperRole {
        match self.mutation {
            Mutation::DismissesTheWardenFirst => {
                HelperRole { ends: HelperEnd::WithWorkers, ..real }
            }
            Mutation::DismissesTheLogFirst if real.ends == HelperEnd::Last => {
                HelperRole { ends: HelperEnd::AfterWorkers, ..real }
            }
            Mutation::ForgetsTheCap => HelperRole { backoff_cap: None, ..real },
            _ => real,
        }
    }

    /// What the arbiter hears in place of an event.
    pub(super) fn hear_of_closing(&self, event: Event) -> Event {
        match (self.mutation, event) {
            (Mutation::OverlooksStrays, Event::StraysCounted { .. }) => {
                Event::StraysCounted { left: 0 }
            }
            _ => event,
        }
    }

    /// What the arbiter hears besides.
    pub(super) fn follow_closing(
        &self,
        arbiter: &mut Arbiter,
        now: Time,
        event: Event,
        actions: &mut Vec<Action>,
    ) {
        let is_helpers_end = matches!(event, Event::HelperEnded { .. });
        match self.mutation {
            Mutation::CountsHelpers if is_helpers_end => {
                arbiter.step(now, Event::Ordered(Order::ScaleBy(-1)), actions);
            }
            Mutation::EndsWithAHelper if is_helpers_end => {
                arbiter.step(now, Event::Ordered(Order::Stop), actions);
            }
            Mutation::ForgetsStrays if actions.contains(&Action::EndStrays) => {
                actions.retain(|action| *action != Action::EndStrays);
                arbiter.step(now, Event::StraysCounted { left: 0 }, actions);
            }
            _ => {}
        }
    }

    /// What the arbiter is made to say.
    pub(super) fn say_of_closing(&mut self, event: Event, actions: &mut Vec<Action>) {
        use Mutation as M;
        let spawn = |action: &Action| matches!(action, Action::SpawnHelper { .. });
        let stop = |action: &Action| matches!(action, Action::StopHelper { .. });
        let ended = |action: &Action| matches!(action, Action::Notify(Notice::HelperEnded { .. }));
        let stopping = |action: &Action| matches!(action, Action::Notify(Notice::Stopping { .. }));
        let killed = Some(ExitStatus::Signal { number: 9, core: false });
        let is_end = matches!(event, Event::HelperEnded { status, .. } if status == killed);
        match self.mutation {
            M::ForgetsHelpers if event != Event::Started => actions.retain(|it| !spawn(it)),
            M::LeavesTheLastTaskUndone if is_end && actions.iter().any(stop) => {
                actions.retain(|it| !spawn(it) && !stop(it));
            }
            M::DismissesTwice => double(actions, stop),
            M::TellsAHelpersEndTwice => double(actions, ended),
            M::KillsHelpersAtOnce => {
                if let Some(Action::StopHelper { helper }) = actions.iter().copied().find(stop) {
                    actions.push(Action::KillHelper { helper });
                }
            }
            M::HelpsAfterStop if actions.iter().any(stopping) => {
                actions.push(Action::SpawnHelper { helper: HelperId(0) });
            }
            M::GivesStraysUpAsleep => {
                if let Event::StraysCounted { left } = event {
                    self.count = left;
                }
                let late = |it: &Action| matches!(it, Action::Notify(Notice::LateWake { .. }));
                if self.count > 0 && actions.iter().any(late) {
                    actions.push(Action::Notify(Notice::StraysLeft { left: self.count }));
                }
            }
            M::HelpersSpin => {
                let waiting = actions.iter().find_map(|action| match action {
                    Action::Notify(Notice::HelperEnded {
                        helper, respawn_in: Some(wait), ..
                    }) if *wait > Duration::ZERO => Some(*helper),
                    _ => None,
                });
                actions.extend(waiting.map(|helper| Action::SpawnHelper { helper }));
            }
            _ => {}
        }
    }
}
