//! How a service is, as a client is told. Times are spans, in seconds: the two need not have one clock.

use serde::{Deserialize, Serialize};

/// A service as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Which of several masters of it this is, from 1.
    pub instance: u32,
    /// Where its master is in its life.
    pub state: ServiceState,
    /// Workers to keep alive.
    pub target: u32,
    /// Workers at work.
    pub ready: u32,
    /// Configuration of the newest workers.
    pub generation: u32,
    /// The master's process.
    pub master_pid: u32,
    /// Since its start.
    pub uptime_s: f64,
    /// Whether the workers of some slot keep dying.
    pub crash_loop: bool,
    /// What last went wrong with its workers, if anything did.
    pub last_error: Option<String>,
    /// Where it listens.
    pub listeners: Vec<String>,
    /// Reloads since the master's start.
    pub reloads: Reloads,
    /// What became of log lines, if that is known.
    pub log: Option<LogCounts>,
    /// What the service was made from, if the program has said it
    /// ([`Master::made_from`](crate::Master::made_from)).
    #[serde(default)]
    pub made_from: Option<String>,
}

/// Where a master is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// It keeps its workers alive.
    Running,
    /// Its workers are stopped until the next reload; its listeners stay open.
    Drained,
    /// It was told to stop.
    Stopping,
}

/// How reloads ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloads {
    /// All workers are of the new configuration.
    pub ok: u64,
    /// A new worker failed, and the old ones went on.
    pub rolled_back: u64,
}

/// What became of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCounts {
    /// Lines written.
    pub lines: u64,
    /// Lines lost because nobody took them.
    pub dropped: u64,
}

/// A worker, or a slot that has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its place.
    pub slot: u32,
    /// Its process, if there is one.
    pub pid: Option<u32>,
    /// Where it is in its life.
    pub state: WorkerState,
    /// Its configuration.
    pub generation: u32,
    /// Since its start, if there is a process.
    pub uptime_s: Option<f64>,
    /// Requests it has served; of commands that is not known.
    pub requests: Option<u64>,
    /// Requests of a forked worker that panicked; of a command nobody counts them.
    pub panics: Option<u64>,
    /// Workers of this slot that ended unasked, were stuck, or could not be started.
    pub restarts: u64,
    /// Workers of this slot that were replaced for `max_requests`, `kill_interval` or `max_memory`, or because
    /// they asked for it.
    #[serde(default)]
    pub recycled: u64,
    /// How the slot's worker before this one ended.
    pub last_exit: Option<LastExit>,
    /// Since it was told to stop.
    #[serde(default)]
    pub asked_s: Option<f64>,
    /// Until it is killed.
    #[serde(default)]
    pub kill_in_s: Option<f64>,
    /// Until the slot gets its next worker.
    #[serde(default)]
    pub next_in_s: Option<f64>,
    /// Whether the workers of this slot keep dying.
    #[serde(default)]
    pub crash_loop: bool,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Started, or about to be, and not ready yet.
    Booting,
    /// At work.
    Ready,
    /// Told to stop.
    Stopping,
    /// Sent SIGKILL, not ended yet.
    Killed,
    /// The slot waits before it gets another one.
    Backoff,
    /// The same after one that could not be started at all.
    Failed,
    /// The slot gets no other (`--exit-with all`).
    Finished,
}

/// The end of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastExit {
    /// Its exit code, if it exited.
    pub code: Option<u8>,
    /// The signal that ended it, as `SIGSEGV`.
    pub signal: Option<String>,
    /// Whether the kernel wrote a core.
    pub core: bool,
    /// How long it had lived.
    pub uptime_s: f64,
    /// Since its end.
    pub ago_s: f64,
    /// Why it ended.
    pub reason: ExitReason,
}

/// Why a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// Unasked, with code 0.
    Exited,
    /// Unasked, with another code or by a signal.
    Crashed,
    /// It could not be started.
    NotStarted,
    /// The master stopped.
    Shutdown,
    /// Fewer workers were wanted.
    ScaleDown,
    /// It had served its share.
    Recycled,
    /// A reload replaced it.
    Reloaded,
    /// A reload that failed was taken back.
    RolledBack,
    /// Workers were stopped until the next reload.
    Drained,
    /// It was silent for `timeout`.
    Stuck,
    /// It was not ready within `boot_timeout`.
    BootTimeout,
    /// Anything else, also what a newer master tells.
    #[serde(other)]
    Other,
}
