//! Who of the slots gets connections, where each has sockets of its own (`reuse_port`).

use std::collections::BTreeSet;
use std::rc::Rc;

use super::Driver;
use super::listeners::Opened;
use crate::arbiter::Notice;

impl Driver<'_> {
    /// Whether it may be another set of slots after this.
    pub(super) fn note_spreading(&mut self, notice: &Notice) {
        if let Notice::WorkerStopping { .. } = notice
            && !self.arbiter.is_stopping()
        {
            // Before it is told: its queue must not grow while it is answered.
            self.spread_listeners(false);
        } else if let Notice::WorkerReady { .. }
        | Notice::Scaled { .. }
        | Notice::WorkerKilled { .. }
        | Notice::WorkerExited { .. } = notice
        {
            self.is_spreading_due = true;
        }
    }

    /// What is to be said of sockets whose slots are no more; mostly nothing.
    pub(super) fn sockets_left(&self) -> String {
        let target = self.arbiter.target();
        let is_left = |slot: &u32| *slot >= target;
        let of = |opened: &Rc<Opened>| {
            opened.slots().into_iter().map(|(slot, _)| slot).filter(is_left).count()
        };
        match self.eras.listeners().iter().map(of).sum() {
            0_usize => String::new(),
            left => format!(
                "; {left} sockets of slots that are no more stay open until the next reload, because a \
                 command is not known to empty its queue"
            ),
        }
    }

    /// Has connections come to slots whose worker is ready, and closes the sockets of slots that are no more,
    /// once their workers are gone. A command is not known to empty its queue, so what is queued at its socket
    /// waits until the slot is there again, or until the next reload.
    pub(super) fn spread_listeners(&mut self, is_reloaded: bool) {
        self.is_spreading_due = false;
        let listeners = self.eras.listeners();
        if !listeners.iter().any(|opened| opened.is_spread()) {
            return;
        }
        let current = self.eras.current();
        let (is_own, target) = (current.spec.sockets.reuse_port, self.arbiter.target());
        let is_wanted = |slot: u32| is_own && slot < target;
        let (mut ready, mut live) = (BTreeSet::new(), BTreeSet::new());
        for (_, record) in self.arbiter.workers() {
            // Whoever has none of its own shares the first.
            let has_own = self.eras.of(record.generation).spec.sockets.reuse_port;
            let slot = if has_own { record.slot.0 } else { 0 };
            live.insert(slot);
            if record.state.is_ready() && (is_wanted(slot) || slot == 0) {
                ready.insert(slot);
            }
        }
        let keeps_all = !current.is_forked() && !is_reloaded;
        for opened in listeners {
            let is_kept = |slot| is_wanted(slot) || live.contains(&slot) || keeps_all;
            opened.respread(|slot| ready.contains(&slot), is_kept);
        }
    }
}
