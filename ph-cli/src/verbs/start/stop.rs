//! The stop of a service before it is started again.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use ph_core::Signal;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::wire::Service;

/// What a stop may take beyond the time its workers have.
const MARGIN: Duration = Duration::from_secs(10);

/// Looks for masters after one has ended: another may have taken over from it meanwhile.
const LOOKS: u32 = 1024;

/// Stops all masters of a service, and waits until they have ended. None may run.
pub(super) fn stop(service: &Service, limit: Option<Duration>) -> Result<(), Failure> {
    let settings = &service.settings;
    let attempt = |failure: Failure| failure.attempt(format!("cannot stop {}", settings.name()));
    let failed = |error: io::Error| {
        let code = match error.kind() == io::ErrorKind::PermissionDenied {
            true => Exit::NotPermitted,
            false => Exit::Failed,
        };
        attempt(Failure::new(code, error.to_string()))
    };
    let pidfile = service.pidfile();
    // The master that runs may have been given more time by the configuration of its own.
    let limit = limit.unwrap_or_default().max(settings.graceful_timeout).saturating_add(MARGIN);
    let mut told = BTreeSet::new();
    for _ in 0..LOOKS {
        let running = pidfile.running().map_err(failed)?;
        // All are told before the first is waited for.
        for master in &running {
            let Some(pid) = master.pid else {
                let why = format!("{} is held, nobody knows by whom", pidfile.lock().display());
                return Err(attempt(Failure::new(Exit::Failed, why)));
            };
            if told.insert(pid) {
                pidfile.signal(*master, Signal::SIGTERM).map_err(failed)?;
            }
        }
        let Some(first) = running.into_iter().next() else { return Ok(()) };
        if !pidfile.wait_ended(first, limit).map_err(failed)? {
            let pid = first.pid.map_or_else(String::new, |pid| format!("pid {pid} "));
            let why = format!("{pid}has not ended after {}", super::tell::span(limit));
            return Err(attempt(Failure::new(Exit::TimedOut, why)));
        }
    }
    Err(attempt(Failure::new(Exit::Failed, "ever new masters take its lock")))
}
