//! Probes: processes that ask a worker whether it is ready, and say so by their exit code.
//!
//! A probe is a helper's sort of process: its own session, the master's account, the descriptors of nobody
//! else, what it prints to the log. The arbiter says when one is started and when it has had its time; here
//! is only who it is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::RawFd;
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
use crate::sys::process;
use crate::sys::setup::Setup;
use crate::sys::spawn::{Instance, Program};
use crate::worker::LogOrigin;

/// Its name in the log.
const PROBE_NAME: &str = "probe";

/// The probes that run, by process; of whom each is, unless nobody waits for it any more.
#[derive(Debug, Default)]
pub(super) struct Probes(BTreeMap<Pid, Option<WorkerId>>);

impl Probes {
    fn of(&self, worker: WorkerId) -> Option<Pid> {
        self.0.iter().find(|(_, of)| **of == Some(worker)).map(|(pid, _)| *pid)
    }

    /// Whether this is one of them.
    pub(super) fn knows(&self, pid: Pid) -> bool {
        self.0.contains_key(&pid)
    }
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
            Ok(probe) => {
                self.probes.0.insert(probe, Some(worker));
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
    ) -> std::io::Result<Pid> {
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
        let (probe, _report) = source.program.spawn(&Instance {
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
        Ok(probe)
    }

    /// Nobody waits for the probe of a worker any more.
    pub(super) fn end_probe(&mut self, worker: WorkerId) {
        let Some(probe) = self.probes.of(worker) else { return };
        self.probes.0.insert(probe, None);
        // It is reaped here only, so it is still there, at least as a zombie.
        let _ = process::signal(probe, Signal::SIGKILL);
        let _ = process::signal_group(probe, Signal::SIGKILL);
    }

    /// A probe was reaped.
    pub(super) fn probe_ended(&mut self, probe: Pid, status: ExitStatus, now: Time) {
        if let Some(Some(worker)) = self.probes.0.remove(&probe) {
            let is_ready = status == ExitStatus::Code(0);
            self.step(now, Event::Probed { worker, is_ready });
        }
    }
}
