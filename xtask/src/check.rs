//! `cargo xtask check`: everything CI runs, in the order in which failures are cheapest.
//!
//! It is the same with and without `CI` set. The first failure ends it, with the command that
//! repeats just that step; the last line counts the steps.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::r#gen::Gen;
use crate::shell::{Invocation, Workspace};
use crate::sim::Sim;
use crate::tidy;

/// Seeds of the simulation: enough to catch what a change broke, few enough to wait for.
const SEEDS: u64 = 2_000;

/// What a step does.
enum Work {
    Run(Invocation),
    Tidy,
    Generated,
    Simulate,
}

struct Step {
    name: &'static str,
    work: Work,
}

impl Step {
    fn run(name: &'static str, line: &str) -> Self {
        Self { name, work: Work::Run(Invocation::new(line)) }
    }

    fn perform(&self) -> Result<()> {
        match &self.work {
            Work::Run(invocation) => invocation.run(),
            Work::Tidy => tidy::tidy(),
            Work::Generated => Gen::checking().run(),
            Work::Simulate => Sim::fresh(SEEDS).run(),
        }
    }

    fn line(&self) -> String {
        match &self.work {
            Work::Run(invocation) => invocation.line(),
            Work::Tidy => "cargo xtask tidy".to_owned(),
            Work::Generated => "cargo xtask gen --check".to_owned(),
            Work::Simulate => format!("cargo xtask sim --seeds {SEEDS} --from random"),
        }
    }
}

/// Runs every step, or all up to the first that fails.
pub(crate) fn check() -> Result<ExitCode> {
    Workspace::enter()?;
    let (steps, skipped) = steps();
    let mut passed = 0;
    for step in &steps {
        say(&format!("==> {}: {}", step.name, step.line()));
        let started = xtask::monotonic();
        let done = step.perform();
        let took = Duration::from_nanos(xtask::monotonic() - started).as_secs_f64();
        match done {
            Ok(()) => say(&format!("    {} passed in {took:.1} s", step.name)),
            Err(error) => {
                say(&format!("    {} FAILED after {took:.1} s: {error:#}", step.name));
                say(&format!("    to repeat it: {}", step.line()));
                say(&format!("    steps not run: {}", steps.len() - passed - 1));
                println!("{passed} passed, 1 failed");
                return Ok(ExitCode::FAILURE);
            }
        }
        passed += 1;
    }
    for (tool, how) in skipped {
        say(&format!("SKIPPED: {tool} is not installed, so it checked nothing ({how})"));
    }
    println!("{passed} passed, 0 failed");
    Ok(ExitCode::SUCCESS)
}

/// A line of this task's own, told apart from what the steps print.
fn say(line: &str) {
    if std::io::stdout().is_terminal() {
        println!("\x1b[1m{line}\x1b[0m");
    } else {
        println!("{line}");
    }
    // The steps write to the same place by another way.
    let _ = std::io::stdout().flush();
}

/// The steps, and the tools that are missing here with how to get them.
fn steps() -> (Vec<Step>, Vec<(&'static str, &'static str)>) {
    let clippy = "--locked -- -D warnings";
    let ring_1 = "-p ph-core --no-default-features";
    let mut docs = Step::run("docs", "cargo doc --workspace --no-deps --locked");
    if let Work::Run(invocation) = docs.work {
        docs.work = Work::Run(invocation.variable("RUSTDOCFLAGS", "-D warnings"));
    }
    let mut steps = vec![
        Step { name: "tidy", work: Work::Tidy },
        Step { name: "generated files", work: Work::Generated },
        Step::run("format", "cargo fmt --all --check"),
        Step::run("clippy", &format!("cargo clippy --workspace --all-targets {clippy}")),
        Step::run(
            "clippy of the bench",
            &format!("cargo clippy -p xtask --features bench {clippy}"),
        ),
        // What only the class `async` needs is there in all of the above.
        Step::run(
            "clippy without tokio",
            &format!("cargo clippy -p ph-cli --all-targets {clippy}"),
        ),
        Step::run("ring 1 alone", &format!("cargo build {ring_1} --locked")),
        Step::run("clippy of ring 1", &format!("cargo clippy {ring_1} {clippy}")),
        docs,
        // Tests of one package start the programs of another.
        Step::run("build", "cargo build --workspace --all-targets --locked"),
        Step::run("tests", "cargo test --workspace --locked"),
        Step { name: "simulation", work: Work::Simulate },
    ];
    let mut skipped = Vec::new();
    let mut optional = |tool, probe, step, how| {
        if Invocation::new(probe).succeeds() {
            steps.push(step);
        } else {
            skipped.push((tool, how));
        }
    };
    let deny = Step::run("dependencies", "cargo deny --locked check");
    optional("cargo-deny", "cargo deny --version", deny, "cargo install --locked cargo-deny");
    let typos = Step::run("spelling", "typos");
    optional("typos", "typos --version", typos, "cargo install --locked typos-cli");
    (steps, skipped)
}
