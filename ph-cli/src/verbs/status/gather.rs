//! What is known of a service: from its master, from its files where there is none, and from the system.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ph_core::control::{self, ServiceState};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::client::{Master, Service};
use crate::exit::Exit;
use crate::failure::Failure;

/// How a service is, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    /// All workers are ready.
    Ready,
    /// It runs, but not as it should.
    Degraded,
    NotRunning,
    /// Its pidfile is there, its master is not.
    Dead,
    /// The same, and somebody still holds its lock.
    DeadLocked,
    /// It cannot be asked.
    Unknown,
}

impl Condition {
    /// The exit codes of LSB's init scripts, and one of its range for applications.
    pub(super) fn exit(self) -> Exit {
        match self {
            Self::Ready => Exit::Ok,
            Self::Degraded => Exit::Degraded,
            Self::NotRunning => Exit::Code(3),
            Self::Dead => Exit::Code(1),
            Self::DeadLocked => Exit::Code(2),
            Self::Unknown => Exit::Code(4),
        }
    }
}

/// One master, or a service without one.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) name: String,
    pub(super) instance: u32,
    pub(super) config: Option<PathBuf>,
    pub(super) condition: Condition,
    /// Why it is not known, or dead.
    pub(super) why: Option<Failure>,
    pub(super) service: Option<control::Service>,
    pub(super) workers: Vec<Row>,
}

/// A worker, and what the system says of it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) worker: control::Worker,
    pub(super) cpu_percent: Option<f64>,
    pub(super) rss_bytes: Option<u64>,
}

/// All masters of a service, or that it has none.
pub(super) fn gather(service: &Service, limit: Duration) -> Result<Vec<Report>, Failure> {
    let masters = service.masters()?;
    if masters.is_empty() {
        return Ok(vec![absent(service)]);
    }
    Ok(masters.iter().map(|master| of_master(service, master, limit)).collect())
}

/// Nobody holds the lock.
fn absent(service: &Service) -> Report {
    let instance = service.target.instance.unwrap_or(1);
    let pidfile = service.pidfile().filter(|path| instance == 1 && path.exists());
    let (condition, why) = match pidfile {
        Some(path) => {
            let why = format!("{}: its master is dead, {} is left", service.name, path.display());
            (Condition::Dead, Some(Failure::new(Exit::Failed, why)))
        }
        None => (Condition::NotRunning, None),
    };
    report(service, instance, condition, why)
}

fn report(service: &Service, instance: u32, condition: Condition, why: Option<Failure>) -> Report {
    Report {
        name: service.name.clone(),
        instance,
        config: service.config.clone(),
        condition,
        why,
        service: None,
        workers: Vec::new(),
    }
}

fn of_master(service: &Service, master: &Master, limit: Duration) -> Report {
    match ask(service, master, limit) {
        Ok((status, workers)) => {
            let is_as_wanted = status.state == ServiceState::Running
                && status.ready == status.target
                && !status.crash_loop;
            let condition = if is_as_wanted { Condition::Ready } else { Condition::Degraded };
            Report {
                service: Some(status),
                workers,
                ..report(service, master.instance, condition, None)
            }
        }
        Err(failure) if failure.code == Exit::NotRunning => absent(service),
        Err(failure) => {
            // A lock without a living holder is held by somebody who inherited it.
            let is_orphaned =
                master.pid.is_none() && service.still_runs(master) && failure.code == Exit::Failed;
            let condition = if is_orphaned { Condition::DeadLocked } else { Condition::Unknown };
            report(service, master.instance, condition, Some(failure))
        }
    }
}

fn ask(
    service: &Service,
    master: &Master,
    limit: Duration,
) -> Result<(control::Service, Vec<Row>), Failure> {
    let (status, mut workers) = service.status_of(master, limit)?;
    workers.retain(|it| service.target.slot.is_none_or(|slot| slot == it.slot));
    workers.sort_by_key(|it| it.slot);
    Ok((status, measured(workers)))
}

/// Asks the system for these processes and no others.
fn measured(workers: Vec<control::Worker>) -> Vec<Row> {
    let pids: Vec<_> = workers.iter().filter_map(|it| it.pid).map(Pid::from_u32).collect();
    let kind = ProcessRefreshKind::nothing().with_cpu().with_memory();
    let mut found: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    // Where the system does not tell, the columns stay empty.
    if let Ok(mut system) = System::new()
        && !pids.is_empty()
    {
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&pids), true, kind);
        let processes = pids.iter().filter_map(|pid| system.process(*pid));
        found = processes
            .map(|it| (it.pid().as_u32(), (it.accumulated_cpu_time(), it.memory())))
            .collect();
    }
    let row = |worker: control::Worker| {
        let measured = worker.pid.and_then(|pid| found.get(&pid));
        let uptime = worker.uptime_s.filter(|uptime| *uptime > 0.0);
        // Of its whole life: milliseconds of seconds are tenths of a percent.
        let cpu_percent =
            measured.zip(uptime).map(|((cpu, _), uptime)| (*cpu as f64 / uptime).round() / 10.0);
        let rss_bytes = measured.map(|(_, memory)| *memory);
        Row { cpu_percent, rss_bytes, worker }
    };
    workers.into_iter().map(row).collect()
}
