//! What a value may look like: one [`Kind`] for each kind of setting.
//!
//! A value stays a string through all layers and through interpolation; only here does it become a
//! type. A kind owns the word for itself (shown in the reference), the parser, and whether an INI
//! value of it may go over several lines or carry a `; comment`. A parser only sees its own text:
//! what several keys must agree on is `check`'s concern.
//!
//! A kind also writes: the one canonical text of a value, which parses as the same value again.
//! Lists have no quotes, so a path in a list that holds a comma, because the folder it starts from
//! does, is written but not read back.

mod address;
mod choice;
mod environment;
mod identity;
mod limits;
mod number;
mod path;
mod ready;
#[cfg(test)]
mod round_trip;
mod schema;
mod socket;
mod words;

pub use address::Bind;
pub use choice::{
    AbortSignal, ExtraKeys, KillMode, LogCompress, LogFormat, LogLevel, LogOverflow, LogRotate,
    OnCrashLoop, StopSignal, WorkerClass,
};
pub use environment::EnvFile;
pub use identity::{Allow, Id, UserSpec};
pub use limits::{CpuAffinity, Rlimit};
pub use number::{Amount, WorkerCount, parse_boolean, parse_duration, parse_size};
pub use path::{ControlTarget, LogTarget};
pub use ready::{ProbeTarget, Ready};
pub use schema::Schema;
pub use socket::KeepAlive;

pub(crate) use address::ADDRESSES;
pub(crate) use choice::{
    ABORT_SIGNAL, EXTRA_KEYS, KILL_MODE, LOG_COMPRESS, LOG_FORMAT, LOG_LEVEL, LOG_OVERFLOW,
    LOG_ROTATE, ON_CRASH_LOOP, STOP_SIGNAL, WORKER_CLASS,
};
pub(crate) use environment::{
    ENV_FILES, ENVIRONMENT, MAX_VARIABLES, check as check_variable, quoted, variables,
};
pub(crate) use identity::{ALLOWED, GROUP, UMASK, USER};
pub(crate) use limits::{
    CPUS, LIMIT_COUNT, LIMIT_MICROSECONDS, LIMIT_NICE, LIMIT_PRIORITY, LIMIT_SECONDS, LIMIT_SIZE,
    NICE, OOM_SCORE,
};
pub(crate) use number::{
    AMOUNT, BOOLEAN, CONNECTION_COUNT, COUNT, COUNT_U64, DURATION, DURATION_ABOVE_ZERO, LINE_SIZE,
    OPTIONAL_BOOLEAN, OPTIONAL_DURATION, SIZE, THREAD_COUNT, WORKER_COUNT, WORKER_LIMIT,
};
pub(crate) use path::{
    BASE_PATH, CONTROL_SOCKET, FILE, FOLDER, Folders, GLOBS, LOG_TARGET, OPTIONAL_FILE,
    OPTIONAL_FOLDER, clean,
};
pub(crate) use ready::READY;
pub(crate) use socket::{BACKLOG, KEEPALIVE, SOCKET_MODE};
pub(crate) use words::{COMMAND, NAME, SECTIONS, command_line};

use std::fmt;

/// Why a text is not a value of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    /// What would have been right, to be read after "expected".
    pub expected: String,
    /// How to mend it, one sentence.
    pub mend: String,
}

impl ValueError {
    pub(crate) fn new(expected: impl Into<String>, mend: impl Into<String>) -> ValueError {
        ValueError { expected: expected.into(), mend: mend.into() }
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}: {}", self.expected, self.mend)
    }
}

impl std::error::Error for ValueError {}

/// How the texts of one kind are read and written.
pub(crate) struct Kind<T: 'static> {
    /// The word for it in the reference.
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) schema: Schema,
    /// Gets the text without white space around it.
    pub(crate) parse: fn(&str, &Folders) -> Result<T, ValueError>,
    /// The canonical text of a value, as it would stand in an INI file if `%` meant itself there.
    pub(crate) write: fn(&T) -> String,
}

/// The text of a value that need not be there: empty for "not set".
fn written<T>(value: Option<&T>, write: fn(&T) -> String) -> String {
    value.map(write).unwrap_or_default()
}

/// Joins the texts of a list.
fn listed<T>(values: &[T], write: impl Fn(&T) -> String) -> String {
    values.iter().map(write).collect::<Vec<_>>().join(", ")
}

/// How an INI file may write a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One line; white space and `;` start a comment.
    Line,
    /// As `Line`; a percent sign at the end stands for itself.
    Share,
    /// Several lines, each of which may end in such a comment.
    Lines,
    /// Words of a command; `;` is a character like others.
    Words,
    /// Names with values; `;` is a character like others.
    Pairs,
    /// Any text; no setting is of this shape, but the application's own keys are.
    Text,
}
