//! The verdict on the first boot, for whoever waits for it: `ph start`, and the master that is to be
//! replaced in an upgrade. All workers ready, or the service ends and leaves nothing behind.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use super::action::{Action, Notice};
use super::event::Slot;
use super::outcome::Outcome;
use super::policy::is_too_late;
use super::time::Time;
use super::{Arbiter, Phase};

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boot {
    since: Time,
    limit: Duration,
    give_up_at: Time,
    /// Slots whose worker was not ready yet.
    pending: BTreeSet<Slot>,
    /// Slots whose worker has died, and none was ready since.
    died: BTreeSet<Slot>,
}

impl Boot {
    pub(super) fn deadline(&self) -> Time {
        self.give_up_at
    }
}

/// How long a first boot may take where no worker has a limit.
const LONGEST_BOOT: Duration = Duration::from_secs(60);

impl Arbiter {
    /// The same, of a master whose start somebody waits for: if every slot's worker has died, or not all are
    /// ready within `limit`, the service ends. Without a limit it is `boot_timeout`.
    #[must_use]
    pub fn with_boot_verdict(mut self, limit: Option<Duration>) -> Self {
        self.boot_limit = Some(limit.or(self.policy.boot_timeout).unwrap_or(LONGEST_BOOT));
        self
    }

    /// Whether the verdict on the first boot is still to come.
    pub(super) fn is_first_boot(&self) -> bool {
        self.boot.is_some()
    }

    pub(super) fn begin_boot(&mut self) {
        if let Some(limit) = self.boot_limit.take() {
            let pending = (0..self.target).map(Slot).collect();
            let died = BTreeSet::new();
            let (since, give_up_at) = (self.now, self.now.after(limit));
            self.boot = Some(Boot { since, limit, give_up_at, pending, died });
        }
    }

    /// Nobody waits for the verdict any more, so it can only do harm: this master serves on, however its
    /// workers fare.
    pub(super) fn forget_boot(&mut self) {
        self.boot_limit = None;
        self.boot = None;
    }

    /// A slot's worker is ready.
    pub(super) fn note_booted(&mut self, slot: Slot, actions: &mut Vec<Action>) {
        if let Some(boot) = &mut self.boot {
            boot.pending.remove(&slot);
            boot.died.remove(&slot);
            self.settle_boot(actions);
        }
    }

    /// Looks whether all are ready. Slots that are not wanted any more have no part in it.
    pub(super) fn settle_boot(&mut self, actions: &mut Vec<Action>) {
        let Some(boot) = &mut self.boot else { return };
        let _beyond = boot.pending.split_off(&Slot(self.target));
        if boot.pending.is_empty() {
            let took = self.now.since(boot.since);
            self.boot = None;
            actions.push(Action::Notify(Notice::Booted { took }));
        }
    }

    /// A worker has failed.
    pub(super) fn note_boot_fault(&mut self, slot: Slot, actions: &mut Vec<Action>) {
        let Some(boot) = &mut self.boot else { return };
        boot.died.insert(slot);
        let _beyond = boot.died.split_off(&Slot(self.target));
        if boot.died.len() >= self.target as usize {
            self.fail_boot(false, actions);
        }
    }

    pub(super) fn expire_boot(&mut self, actions: &mut Vec<Action>) {
        let Some(boot) = &mut self.boot else { return };
        if boot.give_up_at > self.now {
            return;
        }
        let limit = boot.limit;
        let late = self.now.since(boot.give_up_at);
        if is_too_late(late, limit) {
            boot.give_up_at = self.now.after(limit);
            return self.tell_late_wake(late, actions);
        }
        self.fail_boot(true, actions);
    }

    fn fail_boot(&mut self, is_timeout: bool, actions: &mut Vec<Action>) {
        self.boot = None;
        if self.phase == Phase::Running {
            actions.push(Action::Notify(Notice::NotBooted { is_timeout }));
            self.end(Outcome::NotBooted);
        }
    }
}
