//! The observer's view of a service that ends with its workers (`Policy::exit_with`).
//!
//! Only ends that nobody ordered count, of a worker that has its slot; and with `All` a slot has
//! ended when nobody is in it any more, which a worker that dies beside its successor does not
//! bring about.

use ph_core::arbiter::{ExitStatus, ExitWith};

use super::{Observer, Outcome, Seen, Slot};

impl Observer {
    /// Workers that are to run: those whose slots have not ended for good.
    pub(in super::super) fn wanted(&self) -> u32 {
        if self.reloads.is_drained { 0 } else { self.wanted_in_all() }
    }

    /// The same, were they not drained.
    pub(super) fn wanted_in_all(&self) -> u32 {
        self.target - u32::try_from(self.finished.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn on_own_end(&mut self, seen: &Seen, status: ExitStatus) {
        let Some(exit_with) = self.policy.exit_with.filter(|_| self.stop.is_none()) else { return };
        let is_own = seen.told.is_none_or(|told| told.reason.is_fault());
        if !is_own || seen.is_detached {
            return;
        }
        let code = match status {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal { number, .. } => u8::try_from(128 + number).unwrap_or(u8::MAX),
        };
        match exit_with {
            ExitWith::First if seen.slot != Slot(0) => {}
            ExitWith::Any | ExitWith::First => self.begin_stop(Outcome::WorkersEnded { code }),
            ExitWith::All => {
                let mut others = self.workers.values();
                if others.any(|other| other.slot == seen.slot && !other.is_detached) {
                    return;
                }
                self.vacant.remove(&seen.slot);
                self.finished.insert(seen.slot);
                self.finished_code =
                    if self.finished_code == 0 { code } else { self.finished_code };
                self.end_if_all_have();
            }
        }
    }

    /// After an end or a scale-down: perhaps nobody is left.
    pub(super) fn end_if_all_have(&mut self) {
        self.finished.retain(|slot| slot.0 < self.target);
        if self.stop.is_none() && self.wanted_in_all() == 0 {
            self.begin_stop(Outcome::WorkersEnded { code: self.finished_code });
        }
    }
}
