//! `cargo xtask bench`: how fast `ph` is beside the least that could do the same work.
//!
//! Each row is measured side by side with its floor in one run, a round of the one, a round of the
//! other, with the same number of live children: `bench-floor` is a bare loop of `fork` + `waitpid`
//! for forked workers and of the C library's `posix_spawn` + `waitpid` for commands. Workers and the
//! children of the floor do the same: stamp the clock on entry, then wait. Figures are medians. On a
//! shared machine only the ratio to the floor means something, and nothing here is asserted.
//!
//! The rows about logs have floors and peers of their own; see `log`. Those of `hello` have the CPU of bare
//! servers as their floor; those of `serve`, `kills` and `costs` count failed requests, latencies, system
//! calls and the nanoseconds of a heartbeat against a fixed goal.
//!
//! The goals are those the project set itself from what its peers reach on this work. One is read in
//! a fair way: "N=1000 within 1.2 of N=10" is judged by the ratio to the floor, which grows as well.

mod client;
mod config;
mod costs;
mod hello;
mod kills;
mod log;
mod rows;
mod schedule;
mod serve;
mod subject;
mod table;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::release::Release;
use crate::shell::Workspace;
use rows::Rows;
use subject::{Programs, Workers};
use table::Table;

/// A group of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Workers that are started, killed and stopped
    Workers,
    /// Loading a configuration
    Config,
    /// Eight writers of one log
    Log,
    /// What a request and a heartbeat cost, and requests during reloads, upgrades and kills
    Serve,
}

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Only this group of rows
    group: Option<Group>,

    /// Also kill workers among 5,000
    #[arg(long)]
    large: bool,

    /// A quarter of the rounds; of the logs, one round of few lines
    #[arg(long)]
    quick: bool,

    /// Only rows whose work holds this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Bench {
    /// Builds, measures and prints.
    pub(crate) fn run(&self) -> Result<()> {
        let workspace = Workspace::enter()?;
        let packages = ["--package", "ph-cli", "--package", "ph-examples", "--package", "xtask"];
        let release =
            Release::build(&workspace, &[&packages[..], &["--features", "xtask/bench"]].concat())?;
        let programs = Programs::of(&release)?;
        let mut table = Table::new(release.is_static);
        let divisor = if self.quick { 4 } else { 1 };
        let only = self.only.as_deref();
        if self.wants(Group::Workers) {
            for workers in [Workers::Forked, Workers::Command] {
                let table = &mut table;
                let mut rows = Rows { programs: &programs, workers, divisor, only, table };
                rows.kill_one(self.large)?;
                rows.start_and_stop()?;
                rows.kill_all()?;
                rows.idle()?;
            }
        }
        if self.wants(Group::Config) {
            config::load(&programs, divisor, only, &mut table)?;
        }
        if self.wants(Group::Log) {
            table.add_logs(log::measure(&programs, self.quick, only)?);
        }
        if self.wants(Group::Serve) {
            hello::measure(&programs, self.quick, only, &mut table)?;
            costs::measure(&programs, self.quick, only, &mut table)?;
            serve::measure(&programs, self.quick, only, &mut table)?;
            kills::measure(&programs, self.quick, only, &mut table)?;
        }
        if self.json { table.print_json() } else { table.print() }
    }

    fn wants(&self, group: Group) -> bool {
        self.group.is_none_or(|wanted| wanted == group)
    }
}
