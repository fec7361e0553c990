//! `reopen`: the masters of a service are told to open their logs again.

use std::process::ExitCode;

use ph_core::Signal;
use serde_json::json;

use super::config::Opened;
use super::logs::one_file;
use crate::args::Reopen;
use crate::client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, SCHEMA};
use crate::wire;

/// Sends USR1 to each master of the section that runs.
pub(crate) fn reopen(args: &Reopen) -> Result<ExitCode, Failure> {
    let opened = Opened::new(&args.source)?;
    let section = opened.section(args.section.name())?;
    let settings = opened.load_one(section, &args.source)?;
    let log = one_file(&settings)?;
    let attempt = |failure: Failure| failure.attempt(format!("cannot reopen the log of {section}"));
    let pidfile = wire::pidfile(&settings);
    let failed = |error: std::io::Error| {
        let code = match error.kind() == std::io::ErrorKind::PermissionDenied {
            true => Exit::NotPermitted,
            false => Exit::Failed,
        };
        attempt(Failure::new(code, error.to_string()))
    };
    let mut told = Vec::new();
    for master in pidfile.running().map_err(failed)? {
        if pidfile.signal(master, Signal::SIGUSR1).map_err(failed)? {
            told.extend(master.pid);
        }
    }
    if told.is_empty() {
        let why = format!("no master holds {}", pidfile.lock().display());
        let failure = Failure::new(Exit::NotRunning, why);
        return Err(attempt(failure.remedy(client::to_start(opened.file(), section))));
    }
    let log = log.display().to_string();
    if args.json {
        let answer = json!({"schema": SCHEMA, "service": section, "log": log, "masters": told});
        output::print_json(&answer)?;
        return Ok(Exit::Ok.into());
    }
    for pid in told {
        output::print_escaped(&format!("{section}: master {pid} was told to open {log} again"))?;
    }
    Ok(Exit::Ok.into())
}
