//! How often the kernel ran out of memory in this process's cgroup and killed somebody for it.
//!
//! A SIGKILL does not say who sent it; the counter beside the memory limit does. It is looked at only
//! when a worker was killed and nobody here had done it.

use std::cell::Cell;
use std::path::PathBuf;

/// How long a kill that was seen may be that of a worker whose end is not: it takes the kernel a
/// while to end a process, and several may have been killed at once. Afterwards the victim was
/// somebody else.
const CLAIMABLE: u64 = 5_000_000_000;

/// The counter, and what it said at the last look.
#[derive(Debug)]
pub(crate) struct OomCounter {
    path: Option<PathBuf>,
    seen: Cell<u64>,
    /// Kills that were seen and are nobody's yet, and when the last of them was seen.
    unclaimed: Cell<(u64, u64)>,
}

impl OomCounter {
    /// Finds the counter of this process's cgroup, of either version; without one nothing is told.
    pub(crate) fn find() -> Self {
        let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let found = [("memory", "memory.oom_control"), ("", "memory.events")];
        let path = found.into_iter().find_map(|(controller, file)| {
            let path = super::cgroup::own_folder(&cgroups, &mounts, controller)?.join(file);
            path.exists().then_some(path)
        });
        Self::of(path)
    }

    fn of(path: Option<PathBuf>) -> Self {
        let counter = Self { path, seen: Cell::new(0), unclaimed: Cell::new((0, 0)) };
        counter.growth();
        counter
    }

    /// Whether one of the kills of late is nobody's yet; it is the caller's then. `now` is the
    /// monotonic time in nanoseconds.
    pub(crate) fn claim(&self, now: u64) -> bool {
        let growth = self.growth();
        let (left, seen_at) = self.unclaimed.get();
        let left = if now.saturating_sub(seen_at) < CLAIMABLE { left } else { 0 };
        let seen_at = if growth > 0 { now } else { seen_at };
        let all = left.saturating_add(growth);
        self.unclaimed.set((all.saturating_sub(1), seen_at));
        all > 0
    }

    /// How many were killed since the last look.
    fn growth(&self) -> u64 {
        let Some(path) = &self.path else { return 0 };
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        // What cannot be read has not changed.
        count.map_or(0, |count: u64| count.saturating_sub(self.seen.replace(count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_is_claimed_once_and_only_for_a_while() {
        let file = std::env::temp_dir().join(format!("ph-oom-{}", std::process::id()));
        let count = |kills: u64| std::fs::write(&file, format!("under_oom 0\noom_kill {kills}\n"));
        count(7).unwrap();
        let counter = OomCounter::of(Some(file.clone()));
        assert!(!counter.claim(0), "what was before does not count");
        count(9).unwrap();
        assert_eq!([1, 2, 3].map(|now| counter.claim(now)), [true, true, false]);
        count(11).unwrap();
        assert_eq!([4, 4 + CLAIMABLE].map(|now| counter.claim(now)), [true, false]);
        std::fs::remove_file(&file).unwrap();
        assert!(!counter.claim(5));
    }
}
