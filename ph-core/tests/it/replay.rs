//! What a real master was told, told again: the arbiter must want the same.
//!
//! A trace is what a master writes with `PH_TRACE=FILE` in its environment (`driver/recorder.rs`): what the arbiter was made of,
//! then each step. Those in `traces/` are of runs worth keeping; `PH_SIM_REPLAY=FILE` names another, which is
//! shown step by step.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ph_core::arbiter::{Action, Arbiter, Event, HelperRole, Policy, Time};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Made {
    policy: Policy,
    helpers: Vec<HelperRole>,
    boot_verdict: bool,
    #[serde(default)]
    boot_limit: Option<Duration>,
}

#[derive(Deserialize)]
struct Stepped {
    now: Time,
    event: Event,
    actions: Value,
}

/// Tells a trace to an arbiter, and says how many steps it had.
fn replay(trace: &Path, is_shown: bool) -> usize {
    let text = std::fs::read_to_string(trace)
        .unwrap_or_else(|error| panic!("{}: {error}", trace.display()));
    let mut lines = text.lines();
    let made = lines.next().unwrap_or_else(|| panic!("{}: it is empty", trace.display()));
    let made: Made = serde_json::from_str(made).expect("the first line says what the arbiter was");
    let mut arbiter = Arbiter::new(made.policy).with_helpers(&made.helpers);
    if made.boot_verdict {
        arbiter = arbiter.with_boot_verdict(made.boot_limit);
    }
    let mut steps = 0;
    for (number, line) in (2..).zip(lines) {
        let step: Stepped = match serde_json::from_str(line) {
            Ok(step) => step,
            // A master that was killed leaves half a line.
            Err(error) if error.is_eof() => break,
            Err(error) => panic!("{}:{number}: {error}", trace.display()),
        };
        let mut actions = Vec::new();
        arbiter.step(step.now, step.event, &mut actions);
        if is_shown {
            show(&step, &actions);
        }
        let wanted = serde_json::to_value(&actions).expect("actions can be written down");
        assert_eq!(wanted, step.actions, "{}:{number}: {:?}", trace.display(), step.event);
        arbiter.check().unwrap_or_else(|error| panic!("{}:{number}: {error}", trace.display()));
        steps += 1;
    }
    steps
}

#[expect(clippy::print_stdout, reason = "it is shown to whoever asked for it")]
fn show(step: &Stepped, actions: &[Action]) {
    println!("{:>14} {:?}", format!("{:?}", step.now), step.event);
    for action in actions {
        println!("{:>16} {action:?}", "->");
    }
}

#[test]
fn kept_traces_go_as_they_went() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/traces");
    let entries = std::fs::read_dir(&folder).expect("there is a folder of traces");
    let traces: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    assert!(!traces.is_empty(), "no trace, nothing proven");
    for trace in traces {
        assert!(replay(&trace, false) > 20, "{} is too short to say anything", trace.display());
    }
}

#[test]
fn the_trace_that_was_asked_for() {
    let Some(trace) = std::env::var_os("PH_SIM_REPLAY") else { return };
    let steps = replay(Path::new(&trace), true);
    println!("{steps} steps went as they had gone");
}
