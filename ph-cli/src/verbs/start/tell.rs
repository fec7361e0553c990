//! What came of a start: a line for each section, or one object for programs.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, SCHEMA};
use crate::verbs::logs;

/// What came of the start of one section.
pub(super) enum Started {
    /// All its workers are ready.
    Ready { master: u32, instance: u32, workers: u32, took: Duration },
    /// The master runs, and nobody waits for its workers.
    Running { master: u32, instance: u32 },
    /// It does not run; the last lines of the worker that failed.
    Failed(Box<Failure>, Vec<String>),
}

/// Tells of all of them.
pub(super) struct Tell {
    program: &'static str,
    is_json: bool,
    services: Vec<Value>,
    failed: BTreeSet<String>,
    worst: u8,
}

impl Tell {
    pub(super) fn new(program: &'static str, is_json: bool) -> Self {
        Self { program, is_json, services: Vec::new(), failed: BTreeSet::new(), worst: 0 }
    }

    /// Whether this section was to be started and was not.
    pub(super) fn has_failed(&self, section: &str) -> bool {
        self.failed.contains(section)
    }

    pub(super) fn tell(&mut self, name: &str, started: &Started) -> Result<(), Failure> {
        if let Started::Failed(failure, _) = started {
            self.failed.insert(name.to_owned());
            // One that runs already is there for those that depend on it.
            if failure.code.code() == ALREADY_RUNNING {
                self.failed.remove(name);
            }
            self.worst = self.worst.max(failure.code.code());
        }
        match self.is_json {
            true => self.services.push(object(name, started)),
            false => self.print(name, started)?,
        }
        Ok(())
    }

    fn print(&self, name: &str, started: &Started) -> Result<(), Failure> {
        let numbered = |instance: u32| match instance {
            0 | 1 => String::new(),
            _ => format!(", instance {instance}"),
        };
        match started {
            Started::Ready { master, instance, workers, took } => {
                let noun = if *workers == 1 { "worker" } else { "workers" };
                let (took, instance) = (span(*took), numbered(*instance));
                output::print_escaped(&format!(
                    "{name}: ready, {workers} {noun} after {took}, pid {master}{instance}"
                ))
            }
            Started::Running { master, instance } => {
                let instance = numbered(*instance);
                output::print_escaped(&format!("{name}: running, pid {master}{instance}"))
            }
            Started::Failed(failure, lines) => {
                failure.print(self.program);
                logs::print_last_lines(lines);
                Ok(())
            }
        }
    }

    /// The exit code is the highest of all.
    pub(super) fn finish(self) -> Result<ExitCode, Failure> {
        if self.is_json {
            output::print_json(&json!({"schema": SCHEMA, "services": self.services}))?;
        }
        Ok(Exit::Code(self.worst).into())
    }
}

/// What a start that finds a master ends with.
pub(super) const ALREADY_RUNNING: u8 = 154;

fn object(name: &str, started: &Started) -> Value {
    match started {
        Started::Ready { master, instance, workers, took } => json!({
            "name": name, "state": "ready", "master_pid": master, "instance": instance,
            "workers": workers, "took_s": took.as_secs_f64(),
        }),
        Started::Running { master, instance } => json!({
            "name": name, "state": "running", "master_pid": master, "instance": instance,
        }),
        Started::Failed(failure, lines) => json!({
            "name": name, "state": "failed", "error": failure.to_json()["error"],
            "last_lines": lines,
        }),
    }
}

/// A span for people.
pub(super) fn span(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}
