//! What is remembered of the past: how the last workers of each slot ended, and what last went wrong.
//!
//! It is bounded: ten ends a slot, and as many slots as there ever were. It decides nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::report;
use crate::arbiter::{ExitStatus, Notice, Slot, StopReason, Time, WorkerId};
use crate::control::{ExitReason, Reloads};

/// How many ends are kept of each slot.
const ENDS_A_SLOT: usize = 10;

/// The most of a refusal that is kept, in bytes: every client that waits is sent all of it.
const REFUSAL_MAX: usize = 64 * 1024;

/// The most lines, and bytes of each, that are kept of why an upgrade failed.
const FAULTS: usize = 40;
const FAULT_MAX: usize = 512;

/// The past of a master's workers.
#[derive(Debug, Default)]
pub(super) struct History {
    slots: BTreeMap<Slot, Past>,
    /// What last went wrong, one sentence.
    pub(super) last_error: Option<String>,
    /// How reloads ended.
    pub(super) reloads: Reloads,
    /// Why the last configuration was refused, as its loader said it, or why there was none.
    pub(super) refusal: String,
    /// Why the last upgrade failed, as far as it was told, line by line.
    pub(super) upgrade_faults: Vec<String>,
    /// The pid of the worker at which the last reload or upgrade failed.
    pub(super) culprit: Option<u32>,
    /// The last worker that ended unasked: its pid, and how.
    pub(super) last_death: Option<(u32, String)>,
    /// What it would have changed, if it was only to be judged, or that it changes nothing; and the exit code
    /// of those who asked.
    pub(super) outlook: (u8, String),
}

/// The past of one slot.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// The newest is the last.
    ends: VecDeque<End>,
    /// Ends that nobody had ordered, or that were the worker's fault.
    pub(super) restarts: u64,
    /// Ends of workers that were replaced before they did harm.
    pub(super) recycled: u64,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// How its process did; `None`: there was none.
    pub(super) status: Option<ExitStatus>,
    pub(super) reason: ExitReason,
    pub(super) life: Duration,
    pub(super) at: Time,
}

impl History {
    /// What is known of a slot.
    pub(super) fn of(&self, slot: Slot) -> Option<&Past> {
        self.slots.get(&slot)
    }

    /// Why a configuration is refused, of which an event follows.
    pub(super) fn refuse(&mut self, mut why: String) {
        why.truncate(why.floor_char_boundary(REFUSAL_MAX));
        self.refusal = why;
    }

    /// A line of why the upgrade fails that is under way.
    pub(super) fn blame_successor(&mut self, line: &str) {
        if self.upgrade_faults.len() < FAULTS {
            let end = line.floor_char_boundary(FAULT_MAX);
            self.upgrade_faults.push(line[..end].to_owned());
        }
    }

    /// Takes note of what happened. `why` is what a failed start had to say.
    pub(super) fn note(
        &mut self,
        notice: Notice,
        why: Option<&str>,
        pid_of: impl Fn(WorkerId) -> Option<u32>,
        now: Time,
    ) {
        match notice {
            Notice::WorkerExited { worker, slot, status, reason, life, .. } => {
                let is_own = reason.is_none_or(StopReason::is_fault);
                if let (Some(pid), true) = (pid_of(worker), is_own) {
                    self.last_death = Some((pid, report::describe_status(status)));
                }
                let reason = reason_of(reason, status);
                self.keep(slot, End { status: Some(status), reason, life, at: now }, is_own);
            }
            Notice::SpawnFailed { slot, .. } => {
                let reason = ExitReason::NotStarted;
                self.keep(slot, End { status: None, reason, life: Duration::ZERO, at: now }, true);
                let why = why.map_or_else(String::new, |why| format!(": {why}"));
                self.last_error = Some(format!("worker {slot} was not started{why}"));
            }
            Notice::CrashLoop { slot, deaths, within } => {
                let last = self.of(slot).and_then(Past::last).and_then(|end| end.status);
                let how = last.map_or_else(String::new, |status| {
                    format!(": the last one {}", report::describe_status(status))
                });
                let deaths = report::describe_deaths(deaths, within);
                let text = format!("worker {slot} is in a crash loop, {deaths}{how}");
                self.last_error = Some(text);
            }
            Notice::LoadRefused { is_timeout, .. } => {
                let why = match (is_timeout, self.refusal.lines().next()) {
                    (true, _) => "the configuration was not read in time",
                    (false, Some(line)) => line,
                    (false, None) => "see the log",
                };
                self.last_error = Some(format!("reload refused: {why}"));
            }
            Notice::Reloaded { .. } => self.reloads.ok += 1,
            Notice::RollFailed { worker, slot, cause, .. } => {
                self.culprit = pid_of(worker);
                self.reloads.rolled_back += 1;
                let how = report::describe_fault(cause);
                self.last_error = Some(format!("reload rolled back: worker {slot} {how}"));
            }
            Notice::UpgradeFailed { fault } => {
                let how = report::describe_upgrade_fault(fault);
                let why = self.upgrade_faults.first();
                let why = why.map_or_else(String::new, |why| format!(": {why}"));
                self.last_error = Some(format!("upgrade failed: {how}{why}"));
            }
            Notice::Upgrading => {
                self.upgrade_faults.clear();
                self.culprit = None;
            }
            Notice::Loading { .. } => self.culprit = None,
            Notice::LoadUnneeded { .. }
            | Notice::Rolling { .. }
            | Notice::CanaryProven { .. }
            | Notice::RolledBack { .. }
            | Notice::Draining
            | Notice::Upgraded { .. }
            | Notice::Booted { .. }
            | Notice::NotBooted { .. }
            | Notice::WorkerReady { .. }
            | Notice::WorkerStopping { .. }
            | Notice::WorkerKilled { .. }
            | Notice::WorkerUnreaped { .. }
            | Notice::Recovered { .. }
            | Notice::Recycling { .. }
            | Notice::Scaled { .. }
            | Notice::ScaleLimited { .. }
            | Notice::LateWake { .. }
            | Notice::HelperEnded { .. }
            | Notice::EndsWithWorkers { .. }
            | Notice::StraysLeft { .. }
            | Notice::Stopping { .. }
            | Notice::DelayOver { .. }
            | Notice::Quitting { .. }
            | Notice::Leaving { .. }
            | Notice::Bug(_) => {}
        }
    }

    fn keep(&mut self, slot: Slot, end: End, is_own: bool) {
        let past = self.slots.entry(slot).or_default();
        past.restarts += u64::from(is_own);
        past.recycled += u64::from(end.reason == ExitReason::Recycled);
        if past.ends.len() == ENDS_A_SLOT {
            past.ends.pop_front();
        }
        past.ends.push_back(end);
    }
}

impl Past {
    /// The newest end.
    pub(super) fn last(&self) -> Option<End> {
        self.ends.back().copied()
    }
}

fn reason_of(reason: Option<StopReason>, status: ExitStatus) -> ExitReason {
    match reason {
        None if status == ExitStatus::Code(0) => ExitReason::Exited,
        None => ExitReason::Crashed,
        Some(StopReason::Shutdown) => ExitReason::Shutdown,
        Some(StopReason::ScaleDown) => ExitReason::ScaleDown,
        Some(StopReason::Recycle) => ExitReason::Recycled,
        Some(StopReason::Stuck) => ExitReason::Stuck,
        Some(StopReason::BootTimeout) => ExitReason::BootTimeout,
        Some(StopReason::Reload) => ExitReason::Reloaded,
        Some(StopReason::Rollback) => ExitReason::RolledBack,
        Some(StopReason::Drain) => ExitReason::Drained,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arbiter::{Generation, RollFault, SpawnFault};

    fn exited(slot: u32, status: ExitStatus, reason: Option<StopReason>) -> Notice {
        let (worker, slot) = (WorkerId(1), Slot(slot));
        let life = Duration::from_secs(9);
        Notice::WorkerExited { worker, slot, status, reason, life, respawn_in: None }
    }

    #[test]
    fn the_last_ten_ends_of_a_slot_are_kept_and_all_restarts_counted() {
        let mut history = History::default();
        for code in 0..25 {
            history.note(exited(1, ExitStatus::Code(code), None), None, |_| None, Time::ZERO);
        }
        let scaled = exited(1, ExitStatus::Code(0), Some(StopReason::ScaleDown));
        history.note(scaled, None, |_| None, Time::from_nanos(7));
        let past = history.of(Slot(1)).unwrap();
        assert_eq!((past.ends.len(), past.restarts), (10, 25));
        assert_eq!(past.ends[0].status, Some(ExitStatus::Code(16)));
        let last = past.last().unwrap();
        assert_eq!((last.reason, last.at), (ExitReason::ScaleDown, Time::from_nanos(7)));
        assert!(history.of(Slot(0)).is_none() && history.last_error.is_none());
        for _ in 0..3 {
            let recycled = exited(1, ExitStatus::Code(0), Some(StopReason::Recycle));
            history.note(recycled, None, |_| None, Time::ZERO);
        }
        let past = history.of(Slot(1)).unwrap();
        assert_eq!((past.recycled, past.restarts), (3, 25), "to be replaced is no fault");
    }

    #[test]
    fn an_error_says_what_went_wrong_and_why() {
        let mut history = History::default();
        let fault = SpawnFault::NotFound;
        let failed =
            Notice::SpawnFailed { worker: WorkerId(1), slot: Slot(0), fault, retry_in: None };
        history.note(failed, Some("exec /x: ENOENT"), |_| None, Time::ZERO);
        let text = "worker 0 was not started: exec /x: ENOENT";
        assert_eq!(history.last_error.as_deref(), Some(text));
        let status = ExitStatus::Signal { number: libc::SIGSEGV, core: false };
        history.note(exited(0, status, None), None, |_| None, Time::ZERO);
        history.note(
            Notice::CrashLoop { slot: Slot(0), deaths: 5, within: None },
            None,
            |_| None,
            Time::ZERO,
        );
        let text =
            "worker 0 is in a crash loop, 5 deaths in a row: the last one was ended by SIGSEGV";
        assert_eq!(history.last_error.as_deref(), Some(text));
    }

    #[test]
    fn a_reload_that_fails_without_a_worker_names_none_of_an_earlier_one() {
        let mut history = History::default();
        let (worker, slot, generation) = (WorkerId(3), Slot(0), Generation(2));
        let (back_to, cause) = (Generation(1), RollFault::Exited(ExitStatus::Code(9)));
        let failed = Notice::RollFailed { generation, back_to, worker, slot, cause };
        history.note(failed, None, |_| Some(77), Time::ZERO);
        assert_eq!(history.culprit, Some(77));
        let loading = Notice::Loading { generation: Generation(3) };
        history.note(loading, None, |_| None, Time::ZERO);
        assert_eq!(history.culprit, None);
    }

    #[test]
    fn a_refusal_has_a_bound_and_stays_text() {
        let mut history = History::default();
        history.refuse(format!("x{}", "\u{e9}".repeat(REFUSAL_MAX)));
        assert_eq!(history.refusal.len(), REFUSAL_MAX - 1);
        history.refuse("short".to_owned());
        assert_eq!(history.refusal, "short");
    }
}
