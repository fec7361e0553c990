//! Probes: processes that ask a worker whether it is ready, and say so by their exit code.
//!
//! A probe is a helper's sort of process: its own session, the master's account, the descriptors of nobody
//! else, what it prints to the log. The arbiter says when one is started and when it has had its time; here
//! is only who it is. What a probe leaves in its group ends with it, so many probes leave nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::warn;

use super::command::Command;
use super::era::Era;
use super::helpers::HELPERS_MARK;
use super::{Driver, environment};
use crate::arbiter::{Event, ExitStatus, Time, WorkerId};
use crate::sys::environ::Environment;
use crate::sys::process::{self, Ended};
use crate::sys::setup::Setup;
use crate::sys::spawn::{Instance, Program, SpawnOutcome, outcome};
use crate::worker::LogOrigin;

/// Its name in the log.
const PROBE_NAME: &str = "probe";

/// The probes that run, by process.
#[derive(Debug, Default)]
pub(super) struct Probes {
    running: BTreeMap<Pid, Probe>,
    /// Workers of which it was told why their probe is not executed: each has one such line.
    told: BTreeSet<WorkerId>,
}

#[derive(Debug)]
struct Probe {
    /// `None`: nobody waits for it any more.
    worker: Option<WorkerId>,
    /// What says why its program was not executed.
    report: OwnedFd,
}

impl Probes {
    fn of(&mut self, worker: WorkerId) -> Option<(Pid, &mut Probe)> {
        let mut all = self.running.iter_mut();
        all.find(|(_, probe)| probe.worker == Some(worker)).map(|(pid, probe)| (*pid, probe))
    }

    /// Whether this is one of them.
    pub(super) fn knows(&self, pid: Pid) -> bool {
        self.running.contains_key(&pid)
    }

    pub(super) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        self.running.values().map(|probe| probe.report.as_raw_fd())
    }
}

/// Reaps a probe that has ended. As long as it is a zombie its group is its own.
pub(super) fn reap(probe: Pid) -> Option<Ended> {
    let _ = process::signal_group(probe, Signal::SIGKILL);
    process::reap(probe)
}

/// What the probes of a generation execute.
pub(super) struct ProbeSource {
    program: Program,
    command: Command,
}

impl ProbeSource {
    /// Prepares it; the program was found before.
    pub(super) fn new(
        path: &Path,
        command: Command,
        common: Vec<(OsString, OsString)>,
        setup: Setup,
        ignored: &[i32],
    ) -> std::io::Result<Self> {
        let variables = environment::merged(environment::inherited().chain(common));
        let environment = Environment::new(variables)?;
        let program = Program::new(path.as_os_str(), environment, setup, &[], ignored)?;
        Ok(Self { program, command })
    }

    /// What the master keeps open for it.
    pub(super) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        self.program.raw_fds()
    }
}

impl Driver<'_> {
    /// Starts the probe of a worker; one that cannot be started has found nothing ready.
    pub(super) fn start_probe(&mut self, worker: WorkerId) -> Option<Event> {
        let child = self.children.get(worker)?;
        let (slot, generation, pid) = (child.slot.0, child.generation, child.pid);
        let era = Rc::clone(self.eras.of(generation));
        let spawned = self.with_signals_blocked(|driver| {
            driver.spawn_probe(&era, (slot, generation.0, worker.0, pid))
        });
        match spawned {
            Ok((probe, report)) => {
                self.probes.running.insert(probe, Probe { worker: Some(worker), report });
                None
            }
            Err(why) => {
                warn!("cannot probe worker {slot}: {why}");
                Some(Event::Probed { worker, is_ready: false })
            }
        }
    }

    fn spawn_probe(
        &mut self,
        era: &Era,
        (slot, generation, id, pid): (u32, u32, u64, Pid),
    ) -> std::io::Result<(Pid, OwnedFd)> {
        let Some(source) = &era.probe else {
            return Err(std::io::Error::other("the service has no probe"));
        };
        let own: Vec<(OsString, OsString)> = [
            ("PH_SLOT", slot.to_string()),
            ("PH_GENERATION", generation.to_string()),
            ("PH_WORKER_ID", id.to_string()),
            ("PH_WORKER_PID", pid.to_string()),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
        let words = source.command.words_of(slot, generation);
        let outputs = self.open_outputs(&era.spec)?;
        let inherited = (std::io::stdout(), std::io::stderr());
        let (probe, report) = source.program.spawn(&Instance {
            listeners: None,
            slot,
            words: &words,
            own: &own,
            outputs: outputs.or(&inherited),
            cgroup: None,
            mark: Some(self.trees.mark.of(HELPERS_MARK)),
        })?;
        let number = probe.as_raw().unsigned_abs();
        self.keep_outputs(outputs, |stream| LogOrigin::Helper {
            name: PROBE_NAME.to_owned(),
            pid: number,
            stream,
        });
        Ok((probe, report))
    }

    /// Nobody waits for the probe of a worker any more.
    pub(super) fn end_probe(&mut self, worker: WorkerId) {
        let Some((probe, running)) = self.probes.of(worker) else { return };
        running.worker = None;
        // It is reaped here only, so it is still there, at least as a zombie.
        let _ = process::signal(probe, Signal::SIGKILL);
        let _ = process::signal_group(probe, Signal::SIGKILL);
    }

    /// A probe was reaped.
    pub(super) fn probe_ended(&mut self, probe: Pid, status: ExitStatus, now: Time) {
        let Some(Probe { worker: Some(worker), report }) = self.probes.running.remove(&probe)
        else {
            return;
        };
        if let SpawnOutcome::Failed(failure) = outcome(&report) {
            let children = &self.children;
            self.probes.told.retain(|it| children.get(*it).is_some());
            if let Some(child) = children.get(worker)
                && self.probes.told.insert(worker)
            {
                let why = std::io::Error::from_raw_os_error(failure.errno);
                warn!("cannot probe worker {}: cannot {}: {why}", child.slot.0, failure.tried());
            }
        }
        let is_ready = status == ExitStatus::Code(0);
        self.step(now, Event::Probed { worker, is_ready });
    }
}
