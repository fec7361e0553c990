//! `status`: how services are. What the master knows comes from it, CPU and memory from the system, asked
//! here for the pids of the workers only.

mod gather;
mod json;
mod table;

use std::io::{ErrorKind, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use ph_core::control::{Client, EventKind, Reply, Request};

use super::config::Complaint;
use crate::args::Status;
use crate::client::{self, Service};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use gather::{Condition, Report, gather};

/// How long a master has for its answer, unless `--timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// With `-w`: the shortest time between two looks, and the longest.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Shows the services that are meant.
pub(crate) fn status(args: &Status) -> Result<ExitCode, Failure> {
    let services = client::services(&args.targets, &args.reach, &args.source, Complaint::Here)?;
    if args.watch {
        return watch(args, &services);
    }
    let reports = look(args, &services)?;
    match args.json {
        true => output::print_json(&json::services(&reports))?,
        false => show(args, &reports)?,
    }
    Ok(worst(&reports).into())
}

fn look(args: &Status, services: &[Service]) -> Result<Vec<Report>, Failure> {
    let limit = args.reach.timeout.unwrap_or(TIMEOUT);
    let mut reports = Vec::new();
    for service in services {
        reports.extend(gather(service, limit)?);
    }
    Ok(reports)
}

fn show(args: &Status, reports: &[Report]) -> Result<(), Failure> {
    let has_notes = std::io::stdout().is_terminal();
    output::print(&table::tables(reports, args.color.on_stdout(), has_notes))?;
    for why in reports.iter().filter_map(|report| report.why.as_ref()) {
        output::note(&format!("ph: {why}"));
    }
    Ok(())
}

/// The worst of all counts.
fn worst(reports: &[Report]) -> Exit {
    let worst = reports.iter().map(|report| report.condition).max();
    worst.unwrap_or(Condition::NotRunning).exit()
}

/// Shows them anew whenever one of their masters tells of something. Between two looks the masters are
/// not asked, and what happens quickly one after the other is one look.
fn watch(args: &Status, services: &[Service]) -> Result<ExitCode, Failure> {
    loop {
        let mut watched = Vec::new();
        for service in services {
            for master in service.masters()? {
                // Of one that leaves meanwhile the table says so.
                watched.extend(service.ask(&master, &Request::Watch, "watch"));
            }
        }
        let reports = look(args, services)?;
        let is_terminal = std::io::stdout().is_terminal();
        output::print(if is_terminal { "\x1b[H\x1b[2J" } else { "" })?;
        show(args, &reports)?;
        if watched.is_empty() {
            return Ok(worst(&reports).into());
        }
        wait_for_news(watched);
    }
}

/// Waits until one of the masters tells of something, and lets the shortest time pass then.
fn wait_for_news(clients: Vec<Client>) {
    let mut clients: Vec<_> = clients.into_iter().map(|it| it.within(Some(LOOK_AGAIN))).collect();
    for index in (0..clients.len()).cycle() {
        let wait = if clients.len() == 1 { LOOK_AGAIN } else { LOOK_PAUSE };
        match clients[index].next(Some(wait)) {
            // That it was heard is no news.
            Ok(Some(Reply::Event(event))) if event.kind == EventKind::Accepted => {}
            Ok(Some(_)) => {
                let mut talker = clients.swap_remove(index).within(Some(LOOK_PAUSE));
                while matches!(talker.next(None), Ok(Some(_))) {}
                return;
            }
            Err(error) if error.kind() == ErrorKind::TimedOut && !clients[index].is_late() => {}
            Ok(None) | Err(_) => return,
        }
    }
}
