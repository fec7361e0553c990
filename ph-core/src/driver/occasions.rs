//! Occasions: what people want to be told of at once. For each the program of `on_event` is run, in a
//! process of its own that nobody waits for.
//!
//! All of it has a bound: so many run at once, so many wait, and what comes beyond that is dropped and
//! counted; each has a time, after which its group is killed. At the end of the master those that still
//! run are part of what is waited for beside strays, for a moment only. The program is looked up when the
//! configuration is read, so nothing here waits for a disk.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{error, warn};

use super::helpers::HELPERS_MARK;
use super::{Driver, environment, report};
use crate::arbiter::{Event, Notice, Time, WorkerId};
use crate::sys::environ::Environment;
use crate::sys::process;
use crate::sys::setup::Setup;
use crate::sys::spawn::{Instance, Program, SpawnOutcome, outcome};
use crate::worker::LogOrigin;

/// How many run at once, and how many wait for that.
const RUNNING_MAX: usize = 4;
const WAITING_MAX: usize = 32;

/// How long each may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How long those that are left may take when the workers have ended. It is part of the time of strays.
const CLOSING_LIMIT: Duration = Duration::from_millis(250);

/// Its name in the log.
const ROLE: &str = "on_event";

/// What has happened.
pub(super) struct Occasion {
    name: &'static str,
    reason: String,
    slot: Option<u32>,
    generation: Option<u32>,
    worker_pid: Option<Pid>,
}

impl Occasion {
    pub(super) fn new(name: &'static str, reason: impl Into<String>) -> Self {
        let (slot, generation, worker_pid) = (None, None, None);
        Self { name, reason: reason.into(), slot, generation, worker_pid }
    }

    fn variables(&self) -> Vec<(OsString, OsString)> {
        let numbers = [
            ("PH_SLOT", self.slot.map(|it| it.to_string())),
            ("PH_GENERATION", self.generation.map(|it| it.to_string())),
            ("PH_WORKER_PID", self.worker_pid.map(|it| it.to_string())),
        ];
        let numbers = numbers.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let texts = [("PH_EVENT", self.name.to_owned()), ("PH_REASON", self.reason.clone())];
        let all = texts.into_iter().chain(numbers);
        all.map(|(name, value)| (name.into(), value.into())).collect()
    }
}

/// A process that was not reaped yet.
struct Running {
    pid: Pid,
    name: &'static str,
    /// What says why the program was not executed.
    report: OwnedFd,
    /// `None`: it was killed.
    kill_at: Option<Time>,
}

/// Those that run and those that wait.
#[derive(Default)]
pub(super) struct Occasions {
    running: Vec<Running>,
    waiting: VecDeque<Occasion>,
    dropped: u64,
    /// A successor has taken over, and tells the rest.
    is_upgraded: bool,
    /// While the master closes: strays that were left at the last count, and when nobody waits any more.
    closing: Option<(u32, Time)>,
    /// The last sum of strays and those that are waited for which the arbiter was told.
    told: Option<u32>,
}

impl Occasions {
    /// When there is something to do although nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.running.iter().filter_map(|it| it.kill_at).min()
    }

    pub(super) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        self.running.iter().map(|it| it.report.as_raw_fd())
    }

    pub(super) fn has(&self, pid: Pid) -> bool {
        self.running.iter().any(|it| it.pid == pid)
    }

    /// Kills whoever still runs; their ends are told by reaping.
    pub(super) fn kill_all(&mut self) {
        for running in &mut self.running {
            running.kill();
        }
    }

    /// Those that are waited for at the end.
    fn left(&self) -> u32 {
        let running = self.running.iter().filter(|it| it.kill_at.is_some()).count();
        u32::try_from(running + self.waiting.len()).unwrap_or(u32::MAX)
    }
}

impl Running {
    /// It is reaped here only, so its number is still its own; one so young that it leads no group yet
    /// is killed by itself.
    fn kill(&mut self) {
        self.kill_at = None;
        let _ = process::signal_group(self.pid, Signal::SIGKILL);
        let _ = process::signal(self.pid, Signal::SIGKILL);
    }
}

impl Driver<'_> {
    /// What of the arbiter's notices is such an occasion.
    pub(super) fn note_occasion(&mut self, notice: &Notice) {
        if let Some(occasion) = self.occasion_of(notice) {
            self.tell_people(occasion);
        }
    }

    fn occasion_of(&mut self, notice: &Notice) -> Option<Occasion> {
        let of_slot = |slot: u32, occasion| Occasion { slot: Some(slot), ..occasion };
        let of = |generation: u32, occasion| Occasion { generation: Some(generation), ..occasion };
        if let Notice::Upgraded { .. } = notice {
            self.occasions.is_upgraded = true;
        }
        self.eras.current().spec.on_event.as_ref()?;
        if self.predecessor.is_some() {
            // What becomes of this successor is for the master that runs to tell.
            return None;
        }
        Some(match *notice {
            Notice::CrashLoop { slot, deaths, within } => {
                let reason = report::describe_deaths(deaths, within);
                of_slot(slot.0, Occasion::new("crash_loop", reason))
            }
            Notice::Recovered { slot } => {
                of_slot(slot.0, Occasion::new("recovered", "its worker lives"))
            }
            Notice::LoadRefused { generation, is_timeout } => {
                let reason = match is_timeout {
                    true => "the configuration was not read in time",
                    false => "the configuration was refused; the log says why",
                };
                of(generation.0, Occasion::new("reload_refused", reason))
            }
            Notice::RolledBack { generation, back_to } => {
                let reason = format!("generation {back_to} serves again; the log says why");
                of(generation.0, Occasion::new("rolled_back", reason))
            }
            Notice::Reloaded { generation, took } => {
                let reason = format!("in {}", report::span(took));
                of(generation.0, Occasion::new("reloaded", reason))
            }
            Notice::UpgradeFailed { fault } => {
                Occasion::new("upgrade_failed", report::describe_upgrade_fault(fault))
            }
            Notice::WorkerKilled { worker, reason } => {
                self.of_worker(worker, "worker_killed", report::describe_reason(reason))
            }
            Notice::Stopping { workers, .. } | Notice::Quitting { workers } => {
                if self.occasions.is_upgraded {
                    return None;
                }
                Occasion::new("stopping", format!("workers to end: {workers}"))
            }
            // An upgrade is told of by the successor, and the rest has a line in the log.
            Notice::WorkerReady { .. }
            | Notice::WorkerStopping { .. }
            | Notice::WorkerUnreaped { .. }
            | Notice::WorkerExited { .. }
            | Notice::SpawnFailed { .. }
            | Notice::Recycling { .. }
            | Notice::Loading { .. }
            | Notice::LoadUnneeded { .. }
            | Notice::Rolling { .. }
            | Notice::CanaryProven { .. }
            | Notice::RollFailed { .. }
            | Notice::Draining
            | Notice::Upgrading
            | Notice::Upgraded { .. }
            | Notice::Booted { .. }
            | Notice::NotBooted { .. }
            | Notice::Scaled { .. }
            | Notice::ScaleLimited { .. }
            | Notice::LateWake { .. }
            | Notice::HelperEnded { .. }
            | Notice::EndsWithWorkers { .. }
            | Notice::StraysLeft { .. }
            | Notice::DelayOver { .. }
            | Notice::Leaving { .. }
            | Notice::Bug(_) => return None,
        })
    }

    fn of_worker(&self, worker: WorkerId, name: &'static str, reason: &str) -> Occasion {
        let occasion = Occasion::new(name, reason);
        let Some(child) = self.children.get(worker) else { return occasion };
        let (slot, generation) = (Some(child.slot.0), Some(child.generation.0));
        Occasion { slot, generation, worker_pid: Some(child.pid), ..occasion }
    }

    /// Has the program run for an occasion, now or when others have ended.
    pub(super) fn tell_people(&mut self, occasion: Occasion) {
        if self.eras.current().spec.on_event.is_none() {
            return;
        }
        let occasions = &mut self.occasions;
        if occasions.waiting.len() >= WAITING_MAX {
            if occasions.dropped == 0 {
                let name = occasion.name;
                warn!(
                    "{ROLE}: {WAITING_MAX} events wait already; dropping {name} and what follows"
                );
            }
            occasions.dropped += 1;
            return;
        }
        occasions.waiting.push_back(occasion);
        self.start_waiting();
    }

    fn start_waiting(&mut self) {
        while self.occasions.running.len() < RUNNING_MAX {
            let Some(occasion) = self.occasions.waiting.pop_front() else { break };
            let started = self.with_signals_blocked(|driver| driver.exec_occasion(&occasion));
            match started {
                Ok((pid, report)) => {
                    // It is none of what workers leave behind, nor is anything below it.
                    self.callers_children.push(pid);
                    let kill_at = match self.occasions.closing {
                        Some((_, until)) => until,
                        None => super::now().after(LIMIT),
                    };
                    let (name, kill_at) = (occasion.name, Some(kill_at));
                    self.occasions.running.push(Running { pid, name, report, kill_at });
                }
                Err(why) => error!("{ROLE}: cannot tell of {}: {why}", occasion.name),
            }
        }
        let occasions = &mut self.occasions;
        if occasions.waiting.len() < WAITING_MAX && occasions.dropped > 0 {
            let dropped = std::mem::take(&mut occasions.dropped);
            warn!("{ROLE}: events dropped: {dropped}");
        }
    }

    fn exec_occasion(&mut self, occasion: &Occasion) -> std::io::Result<(Pid, OwnedFd)> {
        let era = Rc::clone(self.eras.current());
        let found = era.spec.on_event.as_ref().zip(era.spec.on_event_path.as_ref());
        let (command, path) = found.ok_or_else(|| std::io::Error::other("there is no command"))?;
        let common = environment::common(&era.name, self.instance, &era.app);
        let variables = environment::inherited().chain(common).chain(occasion.variables());
        let environment = Environment::new(environment::merged(variables))?;
        let setup = Setup::plain(self.nofile);
        let ignored = self.signals.ignored();
        let program = Program::new(path.as_os_str(), environment, setup, &[], ignored)?;
        let outputs = self.open_outputs(&era.spec)?;
        let inherited = (std::io::stdout(), std::io::stderr());
        let (pid, report) = program.spawn(&Instance {
            listeners: None,
            slot: 0,
            words: &command.words_of(0, 1),
            own: &[],
            outputs: outputs.or(&inherited),
            cgroup: None,
            mark: Some(self.trees.mark.of(HELPERS_MARK)),
        })?;
        let number = pid.as_raw().unsigned_abs();
        self.keep_outputs(outputs, |stream| LogOrigin::Helper {
            name: ROLE.to_owned(),
            pid: number,
            stream,
        });
        Ok((pid, report))
    }

    /// One has ended, and is still a zombie: what it has left in its group goes with it.
    pub(super) fn occasion_ended(&mut self, pid: Pid) {
        let _ = process::signal_group(pid, Signal::SIGKILL);
        let Some(ended) = process::reap(pid) else { return };
        self.callers_children.retain(|child| *child != pid);
        let Some(index) = self.occasions.running.iter().position(|it| it.pid == pid) else {
            return;
        };
        let running = self.occasions.running.swap_remove(index);
        let status = super::reap::status_of(ended);
        if let SpawnOutcome::Failed(failure) = outcome(&running.report) {
            let why = std::io::Error::from_raw_os_error(failure.errno);
            error!("{ROLE}: cannot {} for {}: {why}", failure.tried(), running.name);
        } else if running.kill_at.is_some() && status.shell_code() != 0 {
            let what = report::describe_status(status);
            warn!("{ROLE}: the command for {} (pid {pid}) {what}", running.name);
        }
        self.start_waiting();
    }

    /// Kills those whose time is over, and says how many are still waited for.
    pub(super) fn see_occasions(&mut self, now: Time) {
        for running in &mut self.occasions.running {
            if running.kill_at.is_some_and(|at| at <= now) {
                let (name, pid) = (running.name, running.pid);
                warn!("{ROLE}: killing the command for {name} (pid {pid}): its time is over");
                running.kill();
            }
        }
        let Some((strays, until)) = self.occasions.closing else { return };
        if until <= now && !self.occasions.waiting.is_empty() {
            self.occasions.dropped += self.occasions.waiting.len() as u64;
            self.occasions.waiting.clear();
            self.start_waiting();
        }
        let left = strays.saturating_add(self.occasions.left());
        if self.occasions.told.replace(left) != Some(left) {
            self.step(now, Event::StraysCounted { left });
        }
    }

    /// So many strays are left: at the end of the master it waits for both.
    pub(super) fn count_strays(&mut self, strays: u32) -> Event {
        let fresh = super::now().after(CLOSING_LIMIT);
        let until = self.occasions.closing.map_or(fresh, |(_, until)| until);
        self.occasions.closing = Some((strays, until));
        for running in &mut self.occasions.running {
            running.kill_at = running.kill_at.map(|at| at.min(until));
        }
        let left = strays.saturating_add(self.occasions.left());
        self.occasions.told = Some(left);
        Event::StraysCounted { left }
    }
}
