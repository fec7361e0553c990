//! How much memory workers hold, for those whose service limits it.
//!
//! The arbiter says whom to look at and judges the answers; here is only the looking, a bounded number of
//! workers a turn, because each look is a file of the kernel's.

use std::collections::VecDeque;

use super::Driver;
use crate::arbiter::{Event, Time, WorkerId};
use crate::sys::procfs;

/// Workers looked at in one turn of the loop.
const LOOKS_A_TURN: usize = 50;

impl Driver<'_> {
    /// Looks at some of those the arbiter wants looked at.
    pub(super) fn look_at_memory(&mut self, now: Time) {
        let waiting = self.to_weigh.len().min(LOOKS_A_TURN);
        let rest = self.to_weigh.split_off(waiting);
        let chosen: VecDeque<WorkerId> = std::mem::replace(&mut self.to_weigh, rest);
        for worker in chosen {
            let Some(bytes) = self.weigh(worker) else { continue };
            self.step(now, Event::MemoryRead { worker, bytes });
        }
    }

    /// What a worker holds: with all it has started, where it has a cgroup that counts that; else it
    /// alone. `None`: it is not there any more.
    fn weigh(&self, worker: WorkerId) -> Option<u64> {
        let child = self.children.get(worker).filter(|child| child.reaped.is_none())?;
        let of_tree = self.trees.memory_of(child.seat);
        Some(of_tree.or_else(|| procfs::resident(child.pid)).unwrap_or(0))
    }
}
