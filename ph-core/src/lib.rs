//! Master/worker (prefork) process framework, free of any protocol.
//!
//! A master forks workers, replaces the dead, kills the stuck and stops everything when asked. This
//! crate is the whole mechanism; it knows no configuration format and no log file.
//!
//! The crate is three rings, and each may only use the ones inside it:
//!
//! * [`arbiter`] **decides**. It is a pure state machine: events and the time go in, actions come
//!   out. It has no clock, no pid, no file descriptor and no randomness, and it builds alone as
//!   `no_std` (`--no-default-features`).
//! * `driver` and `worker` **do**. The driver is the master's one loop; the worker side runs in the
//!   forked child.
//! * `sys` **calls**. It is the only unsafe code of the workspace.
#![cfg_attr(feature = "driver", doc = "\n# A program on ph-core alone\n\n```no_run")]
#![cfg_attr(feature = "driver", doc = include_str!("../../examples/src/bin/minimal.rs"))]
#![cfg_attr(feature = "driver", doc = "```")]
#![cfg_attr(not(feature = "driver"), no_std)]

extern crate alloc;

pub mod arbiter;
#[cfg(feature = "driver")]
pub mod control;
#[cfg(feature = "driver")]
mod driver;
#[cfg(feature = "driver")]
mod sys;
#[cfg(feature = "driver")]
mod worker;

pub use arbiter::{ExitWith, OnCrashLoop, Outcome, Policy, Readiness, Share, WorkerKind};
#[cfg(feature = "driver")]
pub use driver::{
    Address, Allowed, BootNews, BootReporter, BootWatch, Command, CommandError, ControlSocket,
    CpuAffinity, Detached, Expand, Finding, Finished, Heard, Helper, HelperContext, KeepAlive,
    KillMode, LoadRequest, LogFeed, LogOrder, Master, Pidfile, Rehearsal, RunError, Running,
    SocketOptions, detach, is_successor, note_of_predecessor, tell_predecessor,
};
#[cfg(feature = "driver")]
pub use sys::{Account, AccountError, Resource, Signal, reopen_count, wiped_by_fork};
#[cfg(feature = "tokio")]
pub use worker::{AsyncConnection, AsyncWorker};
#[cfg(feature = "driver")]
pub use worker::{
    Connection, Context, Error, HookWorker, Hooks, LogEnd, LogOrigin, LogProcess, LogSource,
    Logging, OutputStream, Peer, Result, ThreadWorker, Worker,
};
