//! Deterministic simulation: thousands of lives of a master, each drawn from a seed, each step judged.
//!
//! A life has a safety phase, in which everything goes wrong that may, then a liveness phase, in which
//! nothing does and the master must converge and come to rest, and often a stop. The same seed gives
//! the same life on every machine (I25), so a failure is its seed.
//!
//! * `PH_SIM_SEEDS=N`: so many lives (default 2,000). `PH_SIM_FROM=K`: the first seed; `random` takes
//!   the clock and prints what it took.
//! * `PH_SIM_SEED=K`: this one only, with everything that happens in it.

mod beside;
mod copies;
mod cost;
mod driver;
mod faults;
mod invariants;
mod kernel;
mod ledger;
mod lives;
mod loads;
mod mutations;
mod record;
mod rng;
mod small;
mod subject;
mod twins;
mod upgrades;

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ph_core::arbiter::{Policy, Time};

use driver::{Life, World};
use faults::Plan;
use invariants::Violation;
use mutations::Mutation;
use record::Record;

/// Lives in a plain `cargo test`.
const SEEDS: u64 = 2000;

/// One life in so many is lived twice and must be the same (I25).
const TWICE: u64 = 16;

fn drawn(seed: u64) -> Plan {
    Plan::draw(seed)
}

/// Lives a life, twice if asked, and says what was wrong with it.
fn judge(plan: &Plan, mutation: Option<Mutation>, twice: bool) -> Result<Life, Violation> {
    if !twice {
        return World::new(plan, mutation, Record::Nothing).live();
    }
    let one = World::new(plan, mutation, Record::Hash).live()?;
    let other = World::new(plan, mutation, Record::Hash).live()?;
    if one != other {
        return Err(Violation::new(25, format!("one life: {one:?}, again: {other:?}")));
    }
    Ok(one)
}

fn report(plan: &Plan, violation: &Violation) -> String {
    let seed = plan.seed;
    format!(
        "seed {seed} breaks {violation}\n{plan:#?}\nagain, with everything that happens:\n    \
         PH_SIM_SEED={seed} cargo test -p ph-core --no-default-features --test it sim::one_seed -- \
         --nocapture"
    )
}

/// A variable that steers the simulation; a value that cannot be read is never guessed.
fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var_os(name)?;
    let number = text.to_str().and_then(|text| text.parse().ok());
    Some(number.unwrap_or_else(|| panic!("{name}={} is not a number", text.display())))
}

fn first_seed() -> u64 {
    if std::env::var_os("PH_SIM_FROM").is_some_and(|from| from == "random") {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Short enough to be typed.
        let seed = u64::from(clock.subsec_nanos()) + clock.as_secs() % 1000 * 1_000_000_000;
        println!("PH_SIM_FROM={seed}");
        return seed;
    }
    variable("PH_SIM_FROM").unwrap_or(0)
}

#[test]
fn many_seeds() {
    if variable::<u64>("PH_SIM_SEED").is_some() {
        return;
    }
    let from = first_seed();
    let seeds = variable("PH_SIM_SEEDS").unwrap_or(SEEDS);
    assert!(seeds > 0, "no seeds, nothing proven");
    let (next, steps, exits) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicU64::new(u64::MAX);
    let live = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds || failed.load(Ordering::Relaxed) != u64::MAX {
            return;
        }
        let seed = from.wrapping_add(seed);
        match judge(&drawn(seed), None, seed % TWICE == 0) {
            Ok(life) => {
                steps.fetch_add(life.steps, Ordering::Relaxed);
                exits.fetch_add(u64::from(life.exit.is_some()), Ordering::Relaxed);
            }
            Err(_) => {
                failed.fetch_min(seed, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(live);
        }
    });
    let failed = failed.into_inner();
    if failed != u64::MAX {
        let plan = drawn(failed);
        let violation = judge(&plan, None, true).expect_err("it failed a moment ago");
        panic!("{}", report(&plan, &violation));
    }
    println!("{seeds} lives from seed {from}: {steps:?} steps, {exits:?} ended by an Exit");
}

#[test]
fn one_seed() {
    let Some(seed) = variable("PH_SIM_SEED") else { return };
    let plan = drawn(seed);
    println!("{plan:#?}");
    match World::new(&plan, None, Record::Trace).live() {
        Ok(life) => println!("seed {seed} is clean: {life:?}"),
        Err(violation) => panic!("{}", report(&plan, &violation)),
    }
}

/// I24: a million steps in a world of faults, and no more memory than at the start.
#[test]
fn a_million_steps_in_bounded_memory() {
    let mut plan = drawn(1);
    plan.policy = Policy { target: 6, max_workers: 8, ..plan.policy };
    plan.orders = Vec::new();
    plan.calm_at = Time::from_nanos(u64::MAX);
    if let Err(violation) = World::new(&plan, None, Record::Nothing).endure(1_000_000) {
        panic!("{}", report(&plan, &violation));
    }
}
