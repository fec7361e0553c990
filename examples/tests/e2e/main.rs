//! The example programs as their users have them: real processes, real signals, real files.
//!
//! One file a subject; what they stand on is in `tests/support`. `misbehave` is the worker that
//! does whatever is asked, `jobexecute`, `minimal`, `rest_api`, `msgpack_rpc` and `job_queue` are examples as people
//! read them.

mod background;
mod class_faults;
mod classes;
mod conditions;
mod deaths;
mod events;
mod helpers;
mod hooks;
mod identity;
mod instances;
mod job_queue;
mod listeners;
mod log_process;
mod log_troubles;
mod logs;
mod machine;
mod msgpack_rpc;
mod numbers;
mod queued;
mod reload;
mod reload_loader;
mod rest_api;
mod reuse_port;
mod rotation;
mod sample;
mod sharing;
mod stops;
mod stuck;
#[path = "../support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "what the tests here do not use, others do")]
mod support;
mod trees;
mod upgrade;

use support::Stage;

/// A stage for the program that does whatever is asked.
fn misbehave() -> Stage {
    Stage::of(env!("CARGO_BIN_EXE_misbehave"), "misbehave")
}
