//! An upgrade, from the order to its verdict: a successor, another master of the program that is on disk
//! now, boots workers of its own beside these, and only when they are ready takes over.
//!
//! It is a wish beside the phase of the master, as a reload is; each waits for the other's verdict. Until
//! the successor has taken over nothing of this master changes, so whatever becomes of it before that (it
//! ends, it hangs, it is told to stop) leaves this master as it was (I19). Its workers may serve already,
//! so it is told to stop as this master would be, and killed only if it does not.

use alloc::vec::Vec;

use super::Arbiter;
use super::action::{Action, Notice, UpgradeFault};
use super::event::ExitStatus;
use super::order::Order;
use super::outcome::Outcome;
use super::policy::{CLOSING_GRACE, TAKEOVER_TIMEOUT, is_too_late};
use super::time::Time;

/// What is wanted of an upgrade, and what is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Upgrade {
    /// An order waits for the verdict of what is under way.
    wanted: bool,
    stage: Option<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The successor boots its workers.
    Booting { since: Time, give_up_at: Time },
    /// It is ready and was told to take over.
    Committing { since: Time, give_up_at: Time },
    /// It was told to end.
    Stopping { kill_at: Time },
    /// It was killed, and its end is still to come; so long a stop waits for it, because only then is it
    /// known what it has left behind.
    Killed { until: Option<Time> },
}

impl Upgrade {
    pub(super) fn deadline(&self) -> Option<Time> {
        match self.stage? {
            Stage::Booting { give_up_at, .. } | Stage::Committing { give_up_at, .. } => {
                Some(give_up_at)
            }
            Stage::Stopping { kill_at } => Some(kill_at),
            Stage::Killed { until } => until,
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.stage.is_some()
    }
}

impl Arbiter {
    /// Whether a successor is there or on its way.
    #[must_use]
    pub fn is_upgrading(&self) -> bool {
        self.upgrade.is_under_way()
    }

    pub(super) fn on_upgrade(&mut self) {
        self.upgrade.wanted |= !self.is_stopping();
    }

    /// Whether a reload, a drain or an upgrade waits for nothing any more. One that waits for a verdict
    /// is no reason to wake: nothing can be done about it before.
    pub(super) fn has_order_to_begin(&self) -> bool {
        let is_upgrade_due = self.upgrade.wanted && !self.is_reloading();
        !self.is_upgrading() && (self.reload.is_waiting() || is_upgrade_due)
    }

    /// Takes up what waits, once nothing else is under way.
    pub(super) fn begin_upgrade(&mut self, actions: &mut Vec<Action>) {
        let is_free = self.upgrade.stage.is_none() && !self.is_reloading();
        if !is_free || !core::mem::take(&mut self.upgrade.wanted) {
            return;
        }
        let (since, give_up_at) = (self.now, self.now.after(self.policy.upgrade_timeout));
        self.upgrade.stage = Some(Stage::Booting { since, give_up_at });
        actions.push(Action::Notify(Notice::Upgrading));
        actions.push(Action::SpawnSuccessor);
    }

    /// The successor takes too long. A look that comes far too late proves nothing.
    pub(super) fn expire_upgrade(&mut self, actions: &mut Vec<Action>) {
        let Some(stage) = &mut self.upgrade.stage else { return };
        let (give_up_at, period, fault) = match stage {
            Stage::Booting { give_up_at, .. } => {
                let within = self.policy.upgrade_timeout;
                (give_up_at, within, UpgradeFault::NotReady { within })
            }
            Stage::Committing { give_up_at, .. } => {
                (give_up_at, TAKEOVER_TIMEOUT, UpgradeFault::NotTakenOver)
            }
            Stage::Stopping { kill_at } if *kill_at <= self.now => {
                return self.kill_successor(actions);
            }
            Stage::Killed { until } => {
                *until = until.filter(|at| *at > self.now);
                return;
            }
            Stage::Stopping { .. } => return,
        };
        if *give_up_at > self.now {
            return;
        }
        let late = self.now.since(*give_up_at);
        if is_too_late(late, period) {
            *give_up_at = self.now.after(period);
            return self.tell_late_wake(late, actions);
        }
        self.stop_successor(actions);
        actions.push(Action::Notify(Notice::UpgradeFailed { fault }));
    }

    /// The workers of the successor are ready.
    pub(super) fn on_successor_ready(&mut self, actions: &mut Vec<Action>) {
        let Some(Stage::Booting { since, .. }) = self.upgrade.stage else { return };
        let give_up_at = self.now.after(TAKEOVER_TIMEOUT);
        self.upgrade.stage = Some(Stage::Committing { since, give_up_at });
        actions.push(Action::CommitUpgrade);
    }

    /// It has the pidfile, the sockets, the name: this master has done its work.
    pub(super) fn on_taken_over(&mut self, actions: &mut Vec<Action>) {
        let Some(Stage::Committing { since, .. }) = self.upgrade.stage else { return };
        let is_upgrade_wanted = core::mem::take(&mut self.upgrade).wanted;
        actions.push(Action::HandOver);
        // It was started, and may have read its configuration, before these orders came (I14).
        let waiting = [
            (self.reload_waits(), Order::Reload),
            (self.drain_waits(), Order::Drain),
            (is_upgrade_wanted, Order::Upgrade),
        ];
        let waiting = waiting.into_iter().filter(|(is_wanted, _)| *is_wanted);
        actions.extend(waiting.map(|(_, order)| Action::Forward(order)));
        actions.push(Action::Notify(Notice::Upgraded { took: self.now.since(since) }));
        self.end(Outcome::Upgraded);
    }

    /// The successor has ended, or none came of the spawn.
    pub(super) fn on_successor_ended(
        &mut self,
        status: Option<ExitStatus>,
        actions: &mut Vec<Action>,
    ) {
        match self.upgrade.stage.take() {
            Some(Stage::Booting { .. } | Stage::Committing { .. }) => {
                let fault = status.map_or(UpgradeFault::NotStarted, UpgradeFault::Ended);
                actions.push(Action::Notify(Notice::UpgradeFailed { fault }));
            }
            Some(Stage::Stopping { .. } | Stage::Killed { .. }) | None => {}
        }
    }

    /// The master stops: so does a successor that has not taken over.
    pub(super) fn end_upgrade(&mut self, is_at_once: bool, actions: &mut Vec<Action>) {
        self.upgrade.wanted = false;
        match self.upgrade.stage {
            Some(Stage::Killed { .. }) | None => {}
            Some(_) if is_at_once => self.kill_successor(actions),
            Some(Stage::Stopping { .. }) => {}
            Some(Stage::Booting { .. } | Stage::Committing { .. }) => self.stop_successor(actions),
        }
    }

    /// Whether a successor has time to end, or to be reaped.
    pub(super) fn awaits_successor(&self) -> bool {
        self.upgrade.deadline().is_some()
    }

    fn stop_successor(&mut self, actions: &mut Vec<Action>) {
        let kill_at = self.now.after(self.policy.graceful_timeout);
        self.upgrade.stage = Some(Stage::Stopping { kill_at });
        actions.push(Action::StopSuccessor);
    }

    fn kill_successor(&mut self, actions: &mut Vec<Action>) {
        let until = Some(self.now.after(CLOSING_GRACE));
        self.upgrade.stage = Some(Stage::Killed { until });
        actions.push(Action::KillSuccessor);
    }
}
