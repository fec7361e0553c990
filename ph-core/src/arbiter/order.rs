//! The operator's wishes, the one table of the signals that carry them, and what each changes.

use alloc::vec::Vec;

use super::Arbiter;
use super::action::{Action, Notice, WorkerSignal};
use super::policy::WorkerKind;

/// Something the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Order {
    /// Stop gracefully; said again: at once.
    Stop,
    /// So many workers more (or fewer).
    ScaleBy(i32),
    /// Exactly so many workers.
    ScaleTo(u32),
    /// Reopen the log files.
    Reopen,
    /// Read the configuration anew and replace all workers.
    Reload,
    /// Stop all workers and wait for a reload.
    Drain,
    /// Start another master, of the program that is on disk now, and let it take over.
    Upgrade,
}

impl Order {
    /// Whether this order goes before all others that came with it (I14).
    #[must_use]
    pub const fn is_urgent(self) -> bool {
        match self {
            Self::Stop => true,
            Self::ScaleBy(_)
            | Self::ScaleTo(_)
            | Self::Reopen
            | Self::Reload
            | Self::Drain
            | Self::Upgrade => false,
        }
    }
}

/// A signal to the master and what it means.
#[derive(Clone, Copy, Debug)]
pub struct OrderRow {
    /// The signal's name, as in `kill -l`, with SIG.
    pub signal: &'static str,
    /// The order it carries; `None`: it is caught and changes nothing.
    pub order: Option<Order>,
    /// One sentence for people.
    pub meaning: &'static str,
}

/// Every signal a master answers. The names and meanings are gunicorn's, but for QUIT and INT, which
/// stop as gracefully as TERM does.
pub const ORDERS: &[OrderRow] = &[
    row("SIGTERM", Some(Order::Stop), "stop; a second one: at once"),
    row("SIGINT", Some(Order::Stop), "stop; a second one: at once"),
    row("SIGQUIT", Some(Order::Stop), "stop; a second one: at once"),
    row("SIGTTIN", Some(Order::ScaleBy(1)), "one worker more"),
    row("SIGTTOU", Some(Order::ScaleBy(-1)), "one worker fewer"),
    row("SIGUSR1", Some(Order::Reopen), "reopen the log files"),
    row("SIGHUP", Some(Order::Reload), "reload: read the configuration anew, replace all workers"),
    row("SIGWINCH", Some(Order::Drain), "drain: stop all workers until the next reload"),
    row("SIGUSR2", Some(Order::Upgrade), "upgrade: let a master of the program on disk take over"),
];

const fn row(signal: &'static str, order: Option<Order>, meaning: &'static str) -> OrderRow {
    OrderRow { signal, order, meaning }
}

impl Arbiter {
    pub(super) fn on_order(&mut self, order: Order, actions: &mut Vec<Action>) {
        match order {
            Order::Stop => self.on_stop(),
            Order::ScaleBy(by) => self.on_scale(i64::from(self.target) + i64::from(by), actions),
            Order::ScaleTo(to) => self.on_scale(i64::from(to), actions),
            Order::Reopen => self.on_reopen(actions),
            Order::Reload => self.on_reload(),
            Order::Drain => self.on_drain(),
            Order::Upgrade => self.on_upgrade(),
        }
    }

    fn on_scale(&mut self, wanted: i64, actions: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        let limit = wanted.clamp(1, i64::from(self.policy.max_workers.max(1)));
        let limit = u32::try_from(limit).unwrap_or(self.target);
        if i64::from(limit) != wanted {
            actions.push(Action::Notify(Notice::ScaleLimited { wanted, limit }));
        }
        self.on_scaled_by_hand();
        self.set_target(limit, actions);
    }

    fn on_reopen(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::ReopenLog);
        match self.policy.kind {
            WorkerKind::Command => {}
            WorkerKind::Forked => {
                let signal = WorkerSignal::Reopen;
                let workers = self.roster.workers();
                actions.extend(workers.map(|(worker, _)| Action::Signal { worker, signal }));
            }
        }
    }
}
