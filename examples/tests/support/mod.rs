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
//! | `machine` | limits of a cgroup, and what a test needs of the machine |
//! | `random` | random numbers that can be had again |
//! | `client` | a conversation with a worker of the program `misbehave` |

mod client;
pub(crate) mod environment;
mod log;
mod machine;
mod master;
mod process;
mod random;
mod stage;
mod wait;

pub(crate) use client::{Client, Over, Queued, while_clients_talk};
pub(crate) use log::{Line, Log};
pub(crate) use machine::{Limited, cgroups_of, listening, require};
pub(crate) use master::{Master, Worker};
pub(crate) use process::Process;
pub(crate) use random::Random;
pub(crate) use stage::{Stage, WITHOUT_CGROUPS};
pub(crate) use wait::{eventually, let_pass, tell, timed};
