//! What the end-to-end tests of all packages stand on: real masters in folders of their own.
//!
//! | where | what |
//! |---|---|
//! | `wait` | the only place that waits, and that looks at a clock |
//! | `process` | processes as /proc shows them |
//! | `log` | the log file, line by line |
//! | `environment` | what a master is given, and what of it workers may see |
//! | `stage` | a folder, a configuration and a program, and the proof that nothing is left |
//! | `master` | a master that was started on a stage |
//! | `client` | a conversation with a worker of the program `misbehave` |

mod client;
pub(crate) mod environment;
mod log;
mod master;
mod process;
mod stage;
mod wait;

pub(crate) use client::Client;
pub(crate) use log::{Line, Log};
pub(crate) use master::{Master, Worker};
pub(crate) use process::Process;
pub(crate) use stage::{Stage, needs_root};
pub(crate) use wait::{eventually, let_pass, timed};
