//! How a master's run ends, well or not, and the exit code of each.

use std::io;
use std::path::{Path, PathBuf};

use super::command::CommandError;
use crate::arbiter::Outcome;
use crate::sys::signals::SignalQueue;

/// How a master's life ended. While it lives, signals stay caught, so that a second Ctrl-C on the
/// way out does not change the exit code.
#[derive(Debug)]
pub struct Finished {
    /// The verdict; [`Outcome::code`] is the exit code.
    pub outcome: Outcome,
    /// Why the last command that could not be executed was not.
    pub spawn_failure: Option<String>,
    #[expect(dead_code, reason = "held for what its drop does")]
    pub(super) signals: Option<SignalQueue>,
}

impl std::process::Termination for Finished {
    fn report(self) -> std::process::ExitCode {
        self.outcome.code().into()
    }
}

/// Why a master could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A fork copies one thread only; whatever lock another holds would stay locked for ever.
    #[error(
        "a master must be started from a single-threaded process, this one has {threads} threads \
         (start it before any runtime, such as #[tokio::main], and before any logging thread)"
    )]
    Threads {
        /// How many there are.
        threads: usize,
    },
    /// Another master holds the lock.
    #[error("{}", describe_holder(lock, *holder))]
    AlreadyRunning {
        /// The lock file.
        lock: PathBuf,
        /// The pid the holder wrote into it.
        holder: Option<i32>,
    },
    /// The pidfile, the lock file, or the working directory cannot be used.
    #[error("the {what} {} cannot be used: {}", path.display(), named(source))]
    File {
        /// Which of them.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A socket could not be opened; none is.
    #[error("cannot listen on {address}: {}", named(source))]
    Listen {
        /// Which one.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The conditions workers are to run under cannot be had.
    #[error("{why}")]
    Conditions {
        /// Which one, by the name of the method of [`Master`](crate::Master) that asked for it, or of
        /// the resource: `RLIMIT_NOFILE`.
        condition: &'static str,
        /// What was tried on what, and the system's answer.
        why: String,
    },
    /// The command cannot be executed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The command of `on_event` cannot be executed.
    #[error("on_event: {0}")]
    OnEvent(#[source] CommandError),
    /// A key or value of the application that no environment can hold.
    #[error("the application's key {key:?} is empty, or it or its value holds `=` or a NUL byte")]
    AppKey {
        /// Which one.
        key: String,
    },
    /// The code of the workers cannot be preloaded.
    #[error("preload: {why}")]
    Preload {
        /// What it said.
        why: String,
    },
    /// A system call that should not fail did.
    #[error("{call}: {}", named(source))]
    System {
        /// What was called.
        call: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A bug: the master panicked. Every worker was killed.
    #[error("bug in ph: the master panicked")]
    Panicked,
}

impl RunError {
    /// The process exit code: 154 already running, 126 or 127 for a command that cannot be
    /// executed, 3 for workers that cannot boot, 70 (`EX_SOFTWARE`) for a bug, else 1.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::AlreadyRunning { .. } => 154,
            Self::Command(error) => error.code(),
            Self::Panicked => 70,
            Self::Preload { .. } => 3,
            Self::Threads { .. }
            | Self::File { .. }
            | Self::Listen { .. }
            | Self::Conditions { .. }
            | Self::OnEvent(_)
            | Self::AppKey { .. }
            | Self::System { .. } => 1,
        }
    }
}

/// A system's answer with the errno's name, which people search for; what has none says it itself.
pub(super) fn named(error: &io::Error) -> String {
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(errno) => format!("{} ({errno:?})", errno.desc()),
        None => error.to_string(),
    }
}

fn describe_holder(lock: &Path, holder: Option<i32>) -> String {
    let lock = lock.display();
    match holder {
        Some(pid) => format!("already running: pid {pid} holds {lock}"),
        None => format!("already running: {lock} is held"),
    }
}

/// An error of a system call that should not fail.
pub(super) fn system(call: &'static str) -> impl Fn(nix::Error) -> RunError {
    move |errno| RunError::System { call, source: errno.into() }
}
