//! What the arbiter is told: facts of the world, and the orders of the operator.

use core::fmt;

use super::backoff::Jitter;
use super::order::Order;
use super::policy::Policy;
use super::time::Time;

/// One worker process, from its spawn to its reaping. Never reused within a master's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WorkerId(pub u64);

/// A numbered place for a worker, stable over respawns: 0..target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Slot(pub u32);

/// All workers of one configuration, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Generation(pub u32);

/// A helper's place, counted from 0 in the order in which the master was given its helpers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HelperId(pub u32);

macro_rules! shown_as_number {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    )*};
}
shown_as_number!(WorkerId Slot Generation HelperId);

/// Something that happened.
#[expect(clippy::large_enum_variant, reason = "events are made and used one at a time, and copied")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Event {
    /// The driver is ready to perform: start the workers.
    Started,
    /// The operator wants something.
    Ordered(Order),
    /// A worker is ready; with [`Readiness::Spawned`](super::Readiness::Spawned): was executed.
    Ready {
        /// Which one.
        worker: WorkerId,
        /// Randomness for its greatest age.
        jitter: Jitter,
    },
    /// The answer to [`Action::ReadHeartbeat`](super::Action::ReadHeartbeat).
    Heartbeat {
        /// Which one.
        worker: WorkerId,
        /// When it last beat, as far as it can be believed.
        beat: Time,
    },
    /// From now on a worker's heart can be heard: it sent its first beat by itself. A command that
    /// never does so is never judged; a forked worker needs no such event.
    Watched {
        /// Which one.
        worker: WorkerId,
    },
    /// A worker has served its `max_requests` and asks for a successor.
    RecycleDue {
        /// Which one.
        worker: WorkerId,
    },
    /// The answer to [`Action::StartProbe`](super::Action::StartProbe): it has ended.
    Probed {
        /// Of which worker.
        worker: WorkerId,
        /// Whether that is ready.
        is_ready: bool,
    },
    /// The answer to [`Action::ReadMemory`](super::Action::ReadMemory).
    MemoryRead {
        /// Which one.
        worker: WorkerId,
        /// What it and its tree hold, in bytes; 0 if that cannot be known.
        bytes: u64,
    },
    /// The answer to [`Action::Load`](super::Action::Load): what that found is good, and its listeners
    /// are open.
    Loaded {
        /// The one that was asked for.
        generation: Generation,
        /// What it is to be run by.
        policy: Policy,
    },
    /// The other answer: it is bad, and nothing came of it.
    LoadFailed {
        /// The one that was asked for.
        generation: Generation,
    },
    /// A third: it was read, and nothing is to come of it.
    LoadUnneeded {
        /// The one that was asked for.
        generation: Generation,
    },
    /// The workers of the successor are ready.
    SuccessorReady,
    /// The successor has taken over.
    TakenOver,
    /// The successor has ended, or there is none.
    SuccessorEnded {
        /// How; `None`: it could not be started, or was never the master's program.
        status: Option<ExitStatus>,
    },
    /// The master that this one is to replace is gone, however it ended, and has not said so. Nobody
    /// waits for the verdict on the first boot any more.
    PredecessorGone,
    /// No process came of a [`Action::Spawn`](super::Action::Spawn), or it ended before it was the
    /// worker's program; what there was of it is reaped.
    SpawnFailed {
        /// Which one.
        worker: WorkerId,
        /// Why.
        fault: SpawnFault,
        /// Randomness for the wait that follows.
        jitter: Jitter,
    },
    /// A worker ended and was reaped.
    Exited {
        /// Which one.
        worker: WorkerId,
        /// How.
        status: ExitStatus,
        /// Randomness for the wait that follows.
        jitter: Jitter,
    },
    /// A helper's process ended and was reaped, or none came of its spawn.
    HelperEnded {
        /// Which one.
        helper: HelperId,
        /// How; `None`: it could not be started.
        status: Option<ExitStatus>,
        /// Randomness for the wait that follows.
        jitter: Jitter,
    },
    /// The answer to [`Action::EndStrays`](super::Action::EndStrays), and news of it later on.
    StraysCounted {
        /// Processes below this master that are neither workers nor helpers and have not ended.
        left: u32,
    },
    /// Time passed.
    Tick,
}

/// Why a spawn failed, as far as it matters for what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum SpawnFault {
    /// The command does not exist.
    NotFound,
    /// The command exists and cannot be executed.
    NotExecutable,
    /// Something the next attempt may not meet: no memory, no process left, a failed set-up step.
    Passing,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ExitStatus {
    /// It exited with this code, 0..=255.
    Code(u8),
    /// A signal ended it.
    Signal {
        /// The signal's number.
        number: i32,
        /// Whether the kernel dumped core.
        core: bool,
    },
}

impl ExitStatus {
    /// The exit code a shell would report: 128 and the number for a signal.
    #[must_use]
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal { number, .. } => {
                u8::try_from(number.saturating_add(128)).unwrap_or(u8::MAX)
            }
        }
    }
}
