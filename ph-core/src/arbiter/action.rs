//! What the arbiter wants done, and what it wants known.
//!
//! An action that fails is reported as an event, never as a result: see
//! [`Event::SpawnFailed`](super::Event::SpawnFailed).

use core::time::Duration;

use super::event::{ExitStatus, Generation, HelperId, Slot, SpawnFault, WorkerId};

/// Something to do, in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a worker. Answered by `Ready`, `Exited` or `SpawnFailed`.
    Spawn {
        /// Its identity, new with every spawn.
        worker: WorkerId,
        /// Its place.
        slot: Slot,
        /// Its configuration.
        generation: Generation,
    },
    /// Send a worker a signal.
    Signal {
        /// Which one; it has not been reaped.
        worker: WorkerId,
        /// What it is to do.
        signal: WorkerSignal,
    },
    /// Look up when a worker last beat; answered by `Heartbeat` in the same turn.
    ReadHeartbeat {
        /// Which one.
        worker: WorkerId,
    },
    /// Start a helper. Answered by `HelperEnded` when it ends, or cannot be started.
    SpawnHelper {
        /// Which one; it has no process.
        helper: HelperId,
    },
    /// Tell a helper to end.
    StopHelper {
        /// Which one; it has not been reaped.
        helper: HelperId,
    },
    /// SIGKILL to a helper.
    KillHelper {
        /// Which one; it has not been reaped.
        helper: HelperId,
    },
    /// No worker is left: end whatever workers left behind, until nothing is. Answered by
    /// `StraysCounted` at once, and again whenever some have ended.
    EndStrays,
    /// Reopen the master's own log.
    ReopenLog,
    /// Tell the people.
    Notify(Notice),
    /// Leave. Always the last action.
    Exit(Outcome),
}

/// What a signal means; the driver knows its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerSignal {
    /// Finish what you do and leave (`stop_signal`, followed by SIGCONT).
    Stop,
    /// You are stuck: say where, and leave (`SIGABRT`, followed by SIGCONT).
    Abort,
    /// SIGKILL, to the worker and all it started.
    Kill,
    /// Reopen your log (SIGUSR1).
    Reopen,
}

/// Why a worker was told to end. Every kill has one, and it reaches the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The master stops.
    Shutdown,
    /// The target was lowered.
    ScaleDown,
    /// It served enough requests and its successor is ready.
    Recycle,
    /// It was silent for `timeout`.
    Stuck,
    /// It was not ready within `boot_timeout`.
    BootTimeout,
}

impl StopReason {
    /// Whether the worker is to blame: its end counts as a death of the slot.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        match self {
            Self::Stuck | Self::BootTimeout => true,
            Self::Shutdown | Self::ScaleDown | Self::Recycle => false,
        }
    }
}

/// How the master's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An ordered stop.
    Stopped,
    /// An ordered stop that left processes the kernel did not end.
    Unreaped {
        /// How many: workers, and what they left behind.
        processes: u32,
    },
    /// The service ended with its workers, as [`ExitWith`](super::ExitWith) had asked for.
    WorkersEnded {
        /// The exit code that counts, as a shell reports it.
        code: u8,
    },
    /// Before any worker was ready, one said it cannot boot (exit code 3 or 4, as in gunicorn).
    BootFailed {
        /// The worker's exit code.
        code: u8,
    },
    /// Before any worker was ready: the command cannot be executed.
    NotExecutable,
    /// Before any worker was ready: the command does not exist.
    NotFound,
}

impl Outcome {
    /// The process exit code: 0, 1, 3, 4, 126 and 127 as in a POSIX shell, or a worker's.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Unreaped { .. } => 1,
            Self::BootFailed { code } | Self::WorkersEnded { code } => code,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
        }
    }
}

/// A fact for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A worker became ready, so long after its spawn.
    WorkerReady {
        /// Which one.
        worker: WorkerId,
        /// Since its spawn.
        after: Duration,
    },
    /// A worker was told to stop.
    WorkerStopping {
        /// Which one.
        worker: WorkerId,
        /// Why.
        reason: StopReason,
        /// It will be killed after this.
        grace: Duration,
    },
    /// A worker had not ended in time and was killed.
    WorkerKilled {
        /// Which one.
        worker: WorkerId,
        /// Why it had been told to stop.
        reason: StopReason,
    },
    /// A killed worker is still not reaped: the kernel does not let it go.
    WorkerUnreaped {
        /// Which one.
        worker: WorkerId,
        /// Why it was killed.
        reason: StopReason,
    },
    /// A worker ended.
    WorkerExited {
        /// Which one.
        worker: WorkerId,
        /// Its place.
        slot: Slot,
        /// How.
        status: ExitStatus,
        /// Why it had been told to, if it had.
        reason: Option<StopReason>,
        /// Since its spawn.
        life: Duration,
        /// When its slot gets another worker; `None`: not because of this end.
        respawn_in: Option<Duration>,
    },
    /// A worker could not be started.
    SpawnFailed {
        /// Which one.
        worker: WorkerId,
        /// Its place.
        slot: Slot,
        /// Why.
        fault: SpawnFault,
        /// When it is tried again; `None`: it is not.
        retry_in: Option<Duration>,
    },
    /// A slot's workers keep dying.
    CrashLoop {
        /// Which one.
        slot: Slot,
        /// Bad deaths in a row.
        deaths: u32,
    },
    /// A slot in a crash loop has a worker that lives.
    Recovered {
        /// Which one.
        slot: Slot,
    },
    /// A worker is to be replaced because it served enough requests.
    Recycling {
        /// Which one.
        worker: WorkerId,
    },
    /// The number of workers to keep alive changed.
    Scaled {
        /// Before.
        from: u32,
        /// Now.
        to: u32,
    },
    /// A scale order asked for more or less than there may be.
    ScaleLimited {
        /// What was asked for.
        wanted: i64,
        /// The nearest that may be.
        limit: u32,
    },
    /// The master woke so late that silence proves nothing: workers get one fresh period.
    LateWake {
        /// How late.
        by: Duration,
    },
    /// A helper ended without having been told to.
    HelperEnded {
        /// Which one.
        helper: HelperId,
        /// How; `None`: it could not be started.
        status: Option<ExitStatus>,
        /// When it is started again; `None`: it is not.
        respawn_in: Option<Duration>,
    },
    /// The service ends because its workers did.
    EndsWithWorkers {
        /// The exit code that counts.
        code: u8,
    },
    /// Processes that workers left behind do not end.
    StraysLeft {
        /// How many.
        left: u32,
    },
    /// The master stops.
    Stopping {
        /// Workers that still live.
        workers: u32,
    },
    /// The master stops at once.
    Quitting {
        /// Workers that still live.
        workers: u32,
    },
    /// Nobody is left but the helpers that end last: `Exit` follows when they have ended too.
    Leaving {
        /// How the master's life ends.
        outcome: Outcome,
    },
    /// An internal check failed; the master serves on.
    Bug(&'static str),
}
