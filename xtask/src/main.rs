//! The project's own tasks, run as `cargo xtask TASK`.
//!
//! | where | what |
//! |---|---|
//! | `check` | everything CI runs, step by step |
//! | `tidy` | the rules no compiler holds |
//! | `gen` | the pages and the schema that are written from tables |
//! | `sim` | the simulation of the arbiter |
//! | `bench` | how fast `ph` is beside the least that could do its work |
//! | `dist` | the archive for operators |
//! | `release` | the release build that `bench` measures and `dist` packs |
//! | `shell` | running programs, and what cargo knows about the workspace |

#![expect(clippy::print_stdout, reason = "what a task prints is what it is for")]

mod bench;
mod check;
mod dist;
mod r#gen;
mod release;
mod shell;
mod sim;
mod tidy;

use std::process::ExitCode;

use clap::Parser;

/// The project's own tasks
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    /// Everything CI runs; stops at the first failure
    Check,
    /// The rules of the repository that no compiler holds
    Tidy,
    /// Writes the files that are made from tables in the code
    Gen(r#gen::Gen),
    /// Simulates the arbiter under faults, in release
    Sim(sim::Sim),
    /// Measures `ph` beside a bare loop that does the same work
    Bench(bench::Bench),
    /// Builds, packs and tries out the archive for operators
    Dist,
}

fn main() -> ExitCode {
    let succeeded = |()| ExitCode::SUCCESS;
    let done = match Task::parse() {
        Task::Check => check::check(),
        Task::Tidy => tidy::tidy().map(succeeded),
        Task::Gen(generate) => generate.run().map(succeeded),
        Task::Sim(sim) => sim.run().map(succeeded),
        Task::Bench(bench) => bench.run().map(succeeded),
        Task::Dist => dist::dist().map(succeeded),
    };
    done.unwrap_or_else(|error| {
        println!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
