//! The `ph` command as its users have it: real programs under it, real signals, real files.
//!
//! The workers are commands, mostly of `sh`; what the tests stand on is shared with those of the
//! example programs. `snapshots/` holds what people read: help and errors, word for word. After a
//! wanted change `UPDATE_EXPECT=1 cargo test -p ph-cli --test e2e` writes it anew.

mod bad_files;
mod broken_file;
mod cgroups;
mod check;
mod check_many;
mod check_programs;
mod check_races;
mod commands;
mod conditions;
mod config;
mod config_errors;
mod control;
mod ends;
mod failures;
mod hostile;
mod inheritance;
mod life;
mod log_process;
mod logs;
mod machine;
mod manager;
mod notify;
mod passed;
mod place;
mod probe;
mod probing;
mod recipes;
mod recycling;
mod reload;
mod reload_chaos;
mod reload_failures;
mod reload_log;
mod reload_verb;
mod restart;
mod rotate;
mod rotation;
mod scale_stop;
mod snapshot;
mod sockets;
mod start;
mod start_many;
mod status;
#[path = "../../../examples/tests/support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the tests of the examples use all of it, these a part"
)]
mod support;
mod trees;
mod upgrade;
mod upgrade_faults;
mod upgrade_kills;
mod warden;

use support::Stage;

/// A stage for the command, with a service called `web`.
fn ph() -> Stage {
    Stage::of(env!("CARGO_BIN_EXE_ph"), "web")
}
