//! One thing that a rehearsal found, and how it is told.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nix::unistd::Pid;

use crate::driver::error::{RunError, named};
use crate::sys::procfs;

/// One thing that would keep the master, or its workers, from starting.
#[derive(Debug)]
pub enum Finding {
    /// What `run` would end with.
    Refused(RunError),
    /// Another process listens on the address.
    Taken {
        /// Which one.
        address: String,
        /// The pid and the name of that process, if it can be found.
        holder: Option<(i32, String)>,
    },
    /// Somebody listens on the address, and it cannot be told whether that is a master of this service.
    Hidden {
        /// Which one.
        address: String,
    },
    /// A socket file is there that nobody who can be seen listens on.
    Unseen {
        /// Which address.
        address: String,
    },
    /// A master of this service listens there. It need not be the only one of its service, but another
    /// could not listen there too.
    SecondInstance {
        /// Which address.
        address: String,
    },
    /// The same service listens there already, by another of its addresses.
    Twice {
        /// Which one.
        address: String,
        /// The one before it.
        other: String,
    },
    /// The workers' user may not execute the program, or not even reach it.
    Forbidden {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// What the first line of the program names cannot be executed.
    Interpreter {
        /// The program.
        program: PathBuf,
        /// What is to interpret it.
        interpreter: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The workers' user may not read the program, which its interpreter would.
    Unreadable {
        /// The program, or an interpreter that is a script itself.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The master may not open as many descriptors as it needs for so many workers.
    MasterDescriptors {
        /// For how many.
        workers: u32,
        /// Whether so many are wanted from the start; else it is `max_workers`.
        is_target: bool,
        /// Whether it cannot do with fewer; else it is a warning.
        is_certain: bool,
        /// What it may need at most.
        needed: u64,
        /// The hard limit of this process.
        limit: u64,
    },
    /// A worker may not open as many descriptors as it starts with.
    WorkerDescriptors {
        /// What it needs as a rule.
        needed: u64,
        /// Whether it cannot do with fewer; else it is a warning.
        is_certain: bool,
        /// What it may have.
        limit: u64,
    },
}

impl Finding {
    /// Whether the master would start all the same.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::Hidden { .. } | Self::Unseen { .. } | Self::SecondInstance { .. } => true,
            Self::MasterDescriptors { is_certain, .. }
            | Self::WorkerDescriptors { is_certain, .. } => !is_certain,
            Self::Refused(_)
            | Self::Taken { .. }
            | Self::Twice { .. }
            | Self::Forbidden { .. }
            | Self::Interpreter { .. }
            | Self::Unreadable { .. } => false,
        }
    }
}

impl Finding {
    /// Whether somebody has an address, who may be a master that has just come or is about to go.
    pub(super) fn may_be_passing(&self) -> bool {
        matches!(self, Self::Taken { .. } | Self::Hidden { .. })
    }

    /// Whether whoever has the address is about to end.
    pub(super) fn is_about_to_pass(&self) -> bool {
        let Self::Taken { holder: Some((pid, _)), .. } = self else { return false };
        procfs::facts(Pid::from_raw(*pid)).is_none_or(|it| it.is_ending || it.is_zombie)
    }

    /// Whether nobody was found who has the address: the last one may have been about to give it up.
    pub(super) fn is_by_nobody(&self) -> bool {
        matches!(self, Self::Taken { holder: None, .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Taken { address, holder } => {
                let in_use = named(&io::Error::from_raw_os_error(libc::EADDRINUSE));
                write!(f, "cannot listen on {address}: {in_use}")?;
                match holder {
                    Some((pid, name)) => write!(f, ": pid {pid} ({name}) has it"),
                    None => Ok(()),
                }
            }
            Self::Twice { address, other } => {
                write!(f, "cannot listen on {address}: {other} of the same service overlaps it")
            }
            Self::Hidden { address } => {
                write!(
                    f,
                    "cannot tell who listens on {address}: it may be a master of this service"
                )
            }
            Self::Unseen { address } => {
                write!(
                    f,
                    "the socket of {address} is there, stale or taken by a process that cannot be seen"
                )
            }
            Self::SecondInstance { address } => {
                write!(f, "a second instance could not listen on {address}: the one that runs does")
            }
            Self::Forbidden { program, source } => {
                write!(f, "exec {} as the workers' user: {}", program.display(), named(source))
            }
            Self::Interpreter { program, interpreter, source } => {
                let (program, interpreter) = (program.display(), interpreter.display());
                write!(f, "exec {program}: its interpreter {interpreter}: {}", named(source))
            }
            Self::Unreadable { program, source } => {
                let program = program.display();
                write!(f, "read {program} as the workers' user: {}", named(source))
            }
            Self::MasterDescriptors { workers, needed, limit, .. } => {
                write!(
                    f,
                    "a master of {workers} workers may need {needed} descriptors, and the hard limit \
                     of this process is {limit}"
                )
            }
            Self::WorkerDescriptors { needed, limit, .. } => {
                write!(f, "a worker starts with {needed} descriptors, and its limit is {limit}")
            }
        }
    }
}
