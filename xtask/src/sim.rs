//! `cargo xtask sim`: the arbiter under a simulated kernel and faults, in release.
//!
//! The simulation is a test of ph-core, steered by three variables: `PH_SIM_SEEDS` (how many),
//! `PH_SIM_FROM` (the first) and `PH_SIM_SEED` (just this one). It needs ring 1 alone.

use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::shell::{Invocation, Workspace};

const TEST: &str = "cargo test --release --locked -p ph-core --no-default-features --test it sim";

const REPLAY: &str = "cargo test --locked -p ph-core --test it the_trace_that_was_asked_for";

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// How many seeds
    #[arg(long, default_value_t = 20_000, conflicts_with = "seed")]
    seeds: u64,

    /// First seed, or `random`
    #[arg(long, default_value = "0", value_name = "K", conflicts_with = "seed")]
    from: From,

    /// Tell the arbiter what a master was told that ran with PH_TRACE=FILE, and see that it wants the same
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "from"])]
    replay: Option<PathBuf>,

    /// Only this seed, as a failure names it
    #[arg(long, value_name = "K")]
    seed: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum From {
    Seed(u64),
    Random,
}

impl std::str::FromStr for From {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "random" => Ok(Self::Random),
            number => number.parse().map(Self::Seed).map_err(|_| "expected a number or `random`"),
        }
    }
}

impl Sim {
    /// So many seeds nobody has seen before.
    pub(crate) fn fresh(seeds: u64) -> Self {
        Self { seeds, from: From::Random, replay: None, seed: None }
    }

    /// Runs the simulation.
    pub(crate) fn run(&self) -> Result<()> {
        if let Some(trace) = &self.replay {
            let trace = std::path::absolute(trace)?;
            Workspace::enter()?;
            let test = Invocation::new(REPLAY).argument("--").argument("--nocapture");
            let trace = trace.to_string_lossy();
            return test.variable("PH_SIM_REPLAY", trace.into_owned()).run();
        }
        Workspace::enter()?;
        let started = xtask::monotonic();
        // A filter that matches nothing would pass.
        let listed = Invocation::new(TEST).argument("--").argument("--list").output()?;
        if !listed.lines().any(|line| line.ends_with(": test")) {
            bail!("ph-core has no test whose name holds `sim`");
        }
        let what = self.simulate()?;
        let took = Duration::from_nanos(xtask::monotonic() - started);
        println!("simulated {what} in {:.1} s, build included", took.as_secs_f64());
        println!("a seed again: cargo xtask sim --seed K");
        Ok(())
    }

    fn simulate(&self) -> Result<String> {
        let test = Invocation::new(TEST).argument("--").argument("--nocapture");
        let (test, what, replay) = match self.seed {
            Some(seed) => (
                test.variable("PH_SIM_SEED", seed.to_string()),
                format!("seed {seed}"),
                format!("cargo xtask sim --seed {seed}"),
            ),
            None => {
                let from = match self.from {
                    From::Seed(seed) => seed,
                    // Short enough to be typed.
                    From::Random => RandomState::new().hash_one(0_u8) >> 24,
                };
                let seeds = self.seeds;
                (
                    test.variable("PH_SIM_SEEDS", seeds.to_string())
                        .variable("PH_SIM_FROM", from.to_string()),
                    format!("{seeds} seeds from {from}"),
                    format!("cargo xtask sim --seeds {seeds} --from {from}"),
                )
            }
        };
        test.run()
            .with_context(|| format!("the simulation of {what}; all of it again: {replay}"))?;
        Ok(what)
    }
}
