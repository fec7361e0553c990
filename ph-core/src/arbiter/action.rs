//! What the arbiter wants done, and what it wants known.
//!
//! An action that fails is reported as an event, never as a result: see
//! [`Event::SpawnFailed`](super::Event::SpawnFailed).

use core::time::Duration;

use super::event::{ExitStatus, Generation, HelperId, Slot, SpawnFault, WorkerId};
use super::order::Order;
use super::outcome::Outcome;

/// Something to do, in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
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
    /// Look up how much memory a worker has; answered by `MemoryRead`, soon.
    ReadMemory {
        /// Which one.
        worker: WorkerId,
    },
    /// Ask whether a worker is ready, by another process. Answered by `Probed`.
    StartProbe {
        /// Which one; no probe of it runs.
        worker: WorkerId,
    },
    /// End the probe of a worker. No answer is waited for.
    EndProbe {
        /// Which one; it may have been reaped.
        worker: WorkerId,
    },
    /// Read the configuration anew and open what it wants to listen on. Answered by `Loaded` or
    /// `LoadFailed`.
    Load {
        /// What it will be called, if it is good.
        generation: Generation,
    },
    /// It takes too long, or is not wanted any more: end the reading. No answer is waited for.
    AbandonLoad,
    /// Start another master, of the program that is on disk now. Answered by `SuccessorReady` or
    /// `SuccessorEnded`.
    SpawnSuccessor,
    /// Tell the successor to take over. Answered by `TakenOver` or `SuccessorEnded`.
    CommitUpgrade,
    /// Tell the successor to stop. Answered by `SuccessorEnded`.
    StopSuccessor,
    /// SIGKILL to the successor. Answered by `SuccessorEnded`.
    KillSuccessor,
    /// Pidfile and sockets are the successor's now.
    HandOver,
    /// Hand an order on to the successor, which has taken over.
    Forward(Order),
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
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum WorkerSignal {
    /// Finish what you do and leave (`stop_signal`, followed by SIGCONT).
    Stop,
    /// The same where nobody serves after it: answer what is queued too, as far as there is time.
    StopLast,
    /// You are stuck: say where, and leave (`SIGABRT`, followed by SIGCONT).
    Abort,
    /// SIGKILL, to the worker and all it started.
    Kill,
    /// Reopen your log (SIGUSR1).
    Reopen,
}

/// Why a worker is replaced by one like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum RecycleReason {
    /// It served its `max_requests`.
    Requests,
    /// It reached the greatest age there is.
    Age,
    /// It was above `max_memory`, look after look.
    Memory {
        /// At the last look, in bytes.
        bytes: u64,
    },
}

/// How a worker of a new generation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum RollFault {
    /// It ended before it had lived long enough.
    Exited(ExitStatus),
    /// It could not be started.
    NotSpawned(SpawnFault),
    /// It was not ready in time.
    BootTimeout,
    /// It was silent for its `timeout`.
    Stuck,
}

/// What went wrong with a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum UpgradeFault {
    /// There is none: it could not be started, or must not be.
    NotStarted,
    /// It ended.
    Ended(ExitStatus),
    /// It was not ready in time: `upgrade_timeout`.
    NotReady {
        /// That time.
        within: Duration,
    },
    /// It was ready, and did not take over within [`TAKEOVER_TIMEOUT`](super::TAKEOVER_TIMEOUT).
    NotTakenOver,
}

/// Why a worker was told to end. Every kill has one, and it reaches the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum StopReason {
    /// The master stops.
    Shutdown,
    /// The target was lowered.
    ScaleDown,
    /// It served enough requests, is too old or too big, and its successor is ready.
    Recycle,
    /// A reload: its configuration is not the current one any more.
    Reload,
    /// A reload that failed: its configuration is taken back.
    Rollback,
    /// Nothing is to serve until the next reload.
    Drain,
    /// It was silent for `timeout`.
    Stuck,
    /// It was not ready within `boot_timeout`.
    BootTimeout,
}

impl StopReason {
    /// Whether all workers go, and nobody is left who would serve what is queued.
    pub(super) const fn is_everybodys(self) -> bool {
        match self {
            Self::Shutdown | Self::Drain => true,
            Self::ScaleDown
            | Self::Recycle
            | Self::Reload
            | Self::Rollback
            | Self::Stuck
            | Self::BootTimeout => false,
        }
    }

    /// Whether the worker is to blame: its end counts as a death of the slot.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        match self {
            Self::Stuck | Self::BootTimeout => true,
            Self::Shutdown
            | Self::ScaleDown
            | Self::Recycle
            | Self::Reload
            | Self::Rollback
            | Self::Drain => false,
        }
    }
}

/// A fact for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
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
        /// The deaths that make it one.
        deaths: u32,
        /// In what time, if they were more than `max_restarts` allow; else they came in a row.
        within: Option<Duration>,
    },
    /// A slot in a crash loop has a worker that lives.
    Recovered {
        /// Which one.
        slot: Slot,
    },
    /// A worker is to be replaced although its configuration is the current one.
    Recycling {
        /// Which one.
        worker: WorkerId,
        /// Why.
        reason: RecycleReason,
    },
    /// A reload began: the configuration is read.
    Loading {
        /// What it will be called.
        generation: Generation,
    },
    /// The configuration was refused, and nothing has changed.
    LoadRefused {
        /// What it would have been called.
        generation: Generation,
        /// It was not refused, but not read in time.
        is_timeout: bool,
    },
    /// The configuration was read, and nothing is to come of it: it is the one that is in force, or was only
    /// to be judged.
    LoadUnneeded {
        /// What it would have been called.
        generation: Generation,
    },
    /// The workers are being replaced, that of one slot first.
    Rolling {
        /// What the new ones are.
        generation: Generation,
        /// The slot of the canary.
        canary: Slot,
    },
    /// The canary has stood its test: the others follow.
    CanaryProven {
        /// Which one.
        worker: WorkerId,
    },
    /// All workers are of the new generation and have lived long enough.
    Reloaded {
        /// What they are.
        generation: Generation,
        /// Since the order was taken up.
        took: Duration,
    },
    /// A new worker has failed: the former generation comes back.
    RollFailed {
        /// What failed.
        generation: Generation,
        /// What comes back.
        back_to: Generation,
        /// Which worker.
        worker: WorkerId,
        /// Its place.
        slot: Slot,
        /// How it failed.
        cause: RollFault,
    },
    /// The former generation is back, as far as its own workers let it.
    RolledBack {
        /// What failed.
        generation: Generation,
        /// What is back.
        back_to: Generation,
    },
    /// Workers are stopped until the next reload.
    Draining,
    /// An upgrade began.
    Upgrading,
    /// A successor has taken over; this master stops.
    Upgraded {
        /// Since the order was taken up.
        took: Duration,
    },
    /// Nothing has come of an upgrade, and nothing has changed.
    UpgradeFailed {
        /// Why.
        fault: UpgradeFault,
    },
    /// All workers of the first boot are ready.
    Booted {
        /// Since the start.
        took: Duration,
    },
    /// The first boot has failed; the master stops.
    NotBooted {
        /// Not all workers were ready in time; else each slot's worker has died.
        is_timeout: bool,
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
        /// How long they go on before they hear of it.
        delay: Duration,
    },
    /// That time is over: workers are told to stop.
    DelayOver {
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
