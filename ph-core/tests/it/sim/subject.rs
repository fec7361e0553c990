//! The arbiter under test, seen through the seam at which a mutation may corrupt it.

use ph_core::arbiter::{Action, Arbiter, Event, HelperRole, Policy, Time};

use super::mutations::{Mutant, Mutation};

/// An arbiter, and perhaps a mutation that lies to it or for it.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    arbiter: Arbiter,
    mutant: Option<Mutant>,
}

impl Subject {
    pub(super) fn new(policy: &Policy, helpers: &[HelperRole], mutation: Option<Mutation>) -> Self {
        let mutant = mutation.map(|mutation| Mutant::new(mutation, policy));
        let policy = mutant.as_ref().map_or_else(|| *policy, Mutant::policy);
        let mut helpers = helpers.to_vec();
        if let Some(mutant) = &mutant {
            helpers.iter_mut().for_each(|role| *role = mutant.role(*role));
        }
        Self { arbiter: Arbiter::new(policy).with_helpers(&helpers), mutant }
    }

    pub(super) fn step(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        match &mut self.mutant {
            None => self.arbiter.step(now, event, actions),
            Some(mutant) => mutant.step(&mut self.arbiter, now, event, actions),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let deadline = self.arbiter.next_deadline();
        self.mutant.as_ref().map_or(deadline, |mutant| mutant.deadline(deadline))
    }

    pub(super) fn arbiter(&self) -> &Arbiter {
        &self.arbiter
    }
}
