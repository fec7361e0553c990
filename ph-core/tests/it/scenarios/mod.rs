//! What a master does, told as stories: one for each behaviour that people rely on.
//!
//! A story is also the shortest documentation of its rule; `story` says how to read one.

mod ends;
mod helpers;
mod judgement;
mod lives;
mod orders;
mod probing;
mod recycling;
mod reloading;
mod upgrading;

use std::time::Duration;

use ph_core::arbiter::{HelperEnd, HelperRole, Policy, Readiness, WorkerKind};

/// A helper that outlives the workers.
pub(crate) const WARDEN: HelperRole =
    HelperRole { respawn: true, ends: HelperEnd::AfterWorkers, backoff_cap: None };

/// One that outlives all others.
pub(crate) const LOG: HelperRole =
    HelperRole { respawn: true, ends: HelperEnd::Last, backoff_cap: Some(Duration::from_secs(1)) };

/// One that leaves with the workers.
pub(crate) const PROBE: HelperRole =
    HelperRole { respawn: true, ends: HelperEnd::WithWorkers, backoff_cap: None };

fn two() -> Policy {
    Policy { target: 2, ..Policy::default() }
}

fn one() -> Policy {
    Policy::default()
}

fn command() -> Policy {
    Policy { kind: WorkerKind::Command, readiness: Readiness::Spawned, ..two() }
}

fn judged() -> Policy {
    Policy { timeout: Some(Duration::from_secs(8)), ..one() }
}
