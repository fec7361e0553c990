//! How the life of a master ends, and the exit code of each end.

/// How the master's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Outcome {
    /// An ordered stop.
    Stopped,
    /// An ordered stop that left processes the kernel did not end.
    Unreaped {
        /// How many: workers, and what they left behind.
        processes: u32,
    },
    /// An ordered stop, but those who end last did not end well: what others had to say is not all
    /// written down.
    Unwritten,
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
    /// A slot's workers keep dying, and the policy is to end the service then.
    CrashLoop,
    /// The first boot failed, and somebody waited for it.
    NotBooted,
    /// A successor has taken over.
    Upgraded,
}

impl Outcome {
    /// The process exit code: 0, 1, 3, 4, 155, 126 and 127 as in a POSIX shell, or a worker's.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Stopped | Self::Upgraded => 0,
            Self::Unreaped { .. } | Self::Unwritten | Self::NotBooted => 1,
            Self::BootFailed { code } | Self::WorkersEnded { code } => code,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::CrashLoop => 155,
        }
    }
}
