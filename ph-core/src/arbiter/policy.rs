//! The numbers the arbiter decides by. Whoever reads a configuration makes one of these.

use core::time::Duration;

/// How long a stuck worker may write its last words between SIGABRT and SIGKILL, at most.
pub const ABORT_GRACE: Duration = Duration::from_secs(5);

/// How long the kernel may take to end a worker after SIGKILL before the worker is named unreaped.
pub const REAP_GRACE: Duration = Duration::from_secs(1);

/// How long helpers, and strays before them, have at the end of a stop, each at most.
pub const CLOSING_GRACE: Duration = Duration::from_millis(500);

/// Deaths in a row that make a crash loop of a slot (systemd's `StartLimitBurst` default).
pub const CRASH_LOOP_STRIKES: u32 = 5;

/// The most workers one step starts, so that a stop order is never queued behind a mass start.
pub const SPAWN_BATCH: usize = 32;

/// The shortest wait between two spawns of a slot in backoff, whatever `backoff_min` says: a failed
/// spawn is told in the same turn, and without a wait it would be answered in the same turn, for ever.
pub const LEAST_WAIT: Duration = Duration::from_millis(1);

/// A deadline is met a little late on any machine. Only a look that comes later than this, and than a
/// quarter of the period it ends, says that the master itself was asleep.
pub const LATE_TOLERANCE: Duration = Duration::from_millis(10);

/// How long a successor may take to take over once it was told to.
pub const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one probe may take.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks in a row that must find a worker above `max_memory` (as granian does it).
pub const HEAVY_LOOKS: u8 = 3;

/// Whether a look comes so late after the end of a period that it proves nothing (I20).
pub(super) fn is_too_late(late: Duration, period: Duration) -> bool {
    late > (period / 4).max(LATE_TOLERANCE)
}

/// The numbers the arbiter decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Policy {
    /// Workers to keep alive, 1..=`max_workers`.
    pub target: u32,
    /// Upper bound of every scale order. Twice as many processes exist at the very most, and as many
    /// again that were killed and that the kernel does not end.
    pub max_workers: u32,
    /// Each slot has a queue of connections of its own (`SO_REUSEPORT`), which nobody else answers.
    pub own_queues: bool,
    /// Time from the order to stop to the stop signal, in which workers go on serving (HAProxy's `grace`,
    /// the `preStop` hook of Kubernetes).
    pub drain_delay: Duration,
    /// Time from the stop signal to SIGKILL (gunicorn's `graceful_timeout`).
    pub graceful_timeout: Duration,
    /// Silence after which a ready worker is stuck (gunicorn's `timeout`); `None`: never judged.
    pub timeout: Option<Duration>,
    /// Time a worker has from its spawn to be ready (pitchfork's `spawn_timeout`); `None`: for ever.
    pub boot_timeout: Option<Duration>,
    /// Ready life below which a death counts as a crash (supervisord's `startsecs`).
    pub min_uptime: Duration,
    /// First wait of a slot whose workers keep dying; it doubles (systemd's `RestartSec`).
    pub backoff_min: Duration,
    /// Longest such wait (systemd's `RestartMaxDelaySec`).
    pub backoff_max: Duration,
    /// Deaths of one slot in `restart_window` above which it backs off although its workers lived
    /// longer than `min_uptime`.
    pub max_restarts: u32,
    /// Span in which `max_restarts` are counted.
    pub restart_window: Duration,
    /// Workers above the target while some are being replaced (Kubernetes' `maxSurge`). Zero: the
    /// old worker stops first, one at a time.
    pub reload_surge: Share,
    /// Workers that may be missing while others are being replaced (Kubernetes' `maxUnavailable`): so
    /// many old ones stop before their successors are ready. Not both this and the surge may be zero;
    /// if they are, this counts as one.
    pub max_unavailable: Share,
    /// How long the first worker of a new configuration must have been ready before others follow; at
    /// least `min_uptime`, in any case, where readiness alone proves nothing.
    pub canary_hold: Duration,
    /// Age at which a ready worker is replaced; `None`: never.
    pub max_age: Option<Duration>,
    /// At most so much is added to `max_age`, another part for each worker.
    pub max_age_jitter: Duration,
    /// Bytes above which a ready worker is replaced, if three looks in a row find it there.
    pub max_memory: Option<u64>,
    /// Time between these looks.
    pub memory_check_interval: Duration,
    /// How long a successor may take to have its workers ready (tableflip's `UpgradeTimeout`).
    pub upgrade_timeout: Duration,
    /// How long the reading of a configuration may take in a reload, look-ups and trials included.
    pub load_timeout: Duration,
    /// What follows from a crash loop.
    pub on_crash_loop: OnCrashLoop,
    /// Whether workers run this program's own code or another program.
    pub kind: WorkerKind,
    /// What makes a worker ready.
    pub readiness: Readiness,
    /// Time from the end of one probe to the next (Kubernetes' `periodSeconds`).
    pub ready_interval: Duration,
    /// Whose end is the service's; `None`: nobody's, the dead are replaced for ever.
    pub exit_with: Option<ExitWith>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            target: 1,
            max_workers: 1024,
            own_queues: false,
            drain_delay: Duration::ZERO,
            graceful_timeout: Duration::from_secs(30),
            timeout: None,
            boot_timeout: Some(Duration::from_secs(60)),
            min_uptime: Duration::from_secs(1),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            max_restarts: 10,
            restart_window: Duration::from_secs(60),
            reload_surge: Share::Percent(25),
            max_unavailable: Share::Count(0),
            canary_hold: Duration::ZERO,
            max_age: None,
            max_age_jitter: Duration::ZERO,
            max_memory: None,
            memory_check_interval: Duration::from_secs(5),
            upgrade_timeout: Duration::from_secs(60),
            load_timeout: Duration::from_secs(60),
            on_crash_loop: OnCrashLoop::Retry,
            kind: WorkerKind::Forked,
            readiness: Readiness::Reported,
            ready_interval: Duration::from_secs(1),
            exit_with: None,
        }
    }
}

/// A number of workers, given as a count or as a part of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Share {
    /// So many workers.
    Count(u32),
    /// Percent of the target, rounded up.
    Percent(u32),
}

impl Share {
    /// The number of workers this share of `target` comes to.
    #[must_use]
    pub fn of(self, target: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let workers = (u64::from(target) * u64::from(percent)).div_ceil(100);
                u32::try_from(workers).unwrap_or(u32::MAX)
            }
        }
    }
}

/// What a worker process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum WorkerKind {
    /// Code of this program, after `fork`. It is known to reopen its log on request, and its exit
    /// codes 3 and 4 mean "cannot boot" (gunicorn's `WORKER_BOOT_ERROR` and `APP_LOAD_ERROR`).
    Forked,
    /// Another program, by `exec`. Nothing is known about it.
    Command,
}

/// Whose end is the end of the service: for containers and batches, where a worker that is done is not
/// to be replaced. Only ends that nobody ordered count; the others are told to stop, gracefully.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ExitWith {
    /// The first worker to end; its code counts.
    Any,
    /// The last: nobody is replaced. Code 0 if all ended with 0, else the first other code. A
    /// worker that ends while another one has its slot is not a slot's last, and its code does not
    /// count.
    All,
    /// The worker of slot 0; its code counts, and the other slots are refilled as ever.
    First,
}

/// What follows when a slot's workers keep dying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum OnCrashLoop {
    /// The slot goes on trying, ever more slowly.
    Retry,
    /// The service ends, with exit code 155: for containers, whose keeper decides then.
    Exit,
}

/// What makes a worker ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Readiness {
    /// The worker reports it: the end of `init_process` for a forked one.
    Reported,
    /// Its program was executed; and, for the first worker of a master, it lived `min_uptime`.
    Spawned,
    /// A probe of it has succeeded, another process that is started again and again until then.
    Probed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_rounds_up_and_never_overflows() {
        assert_eq!(Share::Percent(25).of(1), 1);
        assert_eq!(Share::Percent(25).of(8), 2);
        assert_eq!(Share::Percent(25).of(9), 3);
        assert_eq!(Share::Percent(0).of(9), 0);
        assert_eq!(Share::Percent(u32::MAX).of(u32::MAX), u32::MAX);
        assert_eq!(Share::Count(3).of(1), 3);
    }
}
