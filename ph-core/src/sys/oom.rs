//! How often the kernel ran out of memory in this process's cgroup and killed somebody for it.
//!
//! A SIGKILL does not say who sent it; the counter beside the memory limit does. It is looked at only
//! when a worker was killed and nobody here had done it.

use std::cell::Cell;
use std::path::PathBuf;

/// The counter, and what it said at the last look.
#[derive(Debug)]
pub(crate) struct OomCounter {
    path: Option<PathBuf>,
    seen: Cell<u64>,
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
        let counter = Self { path, seen: Cell::new(0) };
        counter.has_grown();
        counter
    }

    /// Whether somebody was killed since the last look.
    pub(crate) fn has_grown(&self) -> bool {
        let Some(path) = &self.path else { return false };
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.is_some_and(|count: u64| count > self.seen.replace(count))
    }
}
