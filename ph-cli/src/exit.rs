//! The exit codes of verbs. Those of a master are `ph_core`'s: `Outcome::code`, `RunError::code`.

use std::process::ExitCode;

/// How a verb ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Ok,
    /// It is not.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// The user that runs this may not do it.
    NotPermitted,
    /// The configuration has no such section.
    NoSection,
    /// The configuration is missing or bad.
    Config,
    /// No master of the service runs.
    NotRunning,
    /// Some of the service is not as it should be.
    Degraded,
    /// What was asked for did not come true in time.
    TimedOut,
    /// Ended by a master or by a worker that could not boot, with this code.
    Code(u8),
}

impl Exit {
    /// The number the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotPermitted => 4,
            Self::NoSection => 5,
            Self::Config => 6,
            Self::NotRunning => 7,
            Self::Degraded => 150,
            Self::TimedOut => 152,
            Self::Code(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
