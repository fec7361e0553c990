//! Notices become log lines. Here the arbiter's numbers meet pids.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tracing::{debug, error, info, warn};

use super::children::Children;
use super::command::describe;
use super::conditions::Conditions;
use super::log_process::LOG_NAME;
use crate::arbiter::{
    ExitStatus, Notice, RecycleReason, RollFault, SpawnFault, StopReason, TAKEOVER_TIMEOUT,
    UpgradeFault, WorkerId,
};
use crate::sys::setup::{Failure, Step};

/// Writes the line of a notice. Of ends that were ordered, only the unusual ones are worth one.
pub(super) fn report(notice: Notice, people: &People<'_>, stop_signal: Signal) {
    let children = people.children;
    let who = |worker| who(worker, children);
    match notice {
        Notice::WorkerReady { worker, after } => {
            info!("{} is ready after {}", who(worker), span(after));
        }
        Notice::WorkerStopping { worker, reason: StopReason::Stuck, grace } => {
            let grace = span(grace);
            error!("{} is stuck: aborting it, SIGKILL follows in {grace}", who(worker));
        }
        Notice::WorkerStopping { worker, reason: StopReason::BootTimeout, grace } => {
            let grace = span(grace);
            error!("{} did not boot in time: aborting it, SIGKILL in {grace}", who(worker));
        }
        Notice::WorkerStopping { worker, reason: StopReason::Shutdown, .. } => {
            debug!("stopping {}", who(worker));
        }
        Notice::WorkerStopping { worker, reason, grace } => {
            info!("stopping {} ({}), grace {}", who(worker), describe_reason(reason), span(grace));
        }
        Notice::WorkerKilled { worker, reason } => {
            warn!("killing {} ({})", who(worker), describe_reason(reason));
        }
        Notice::WorkerUnreaped { worker, reason } => {
            let reason = describe_reason(reason);
            error!("{} ({reason}) was killed and does not end: the kernel holds it", who(worker));
        }
        Notice::WorkerExited { worker, slot, status, reason, life, respawn_in } => {
            let what = describe_status(status);
            let process = children.get(worker).map_or_else(String::new, |child| {
                format!(", pid {} gen {}", child.pid, child.generation)
            });
            let end = format!("worker {slot} {what} after {}{process}", span(life));
            match (reason, respawn_in) {
                (Some(StopReason::Shutdown), _) if is_as_told(status, stop_signal) => {
                    debug!("{end}");
                }
                (Some(reason), None) => info!("{end} ({})", describe_reason(reason)),
                (Some(reason), Some(wait)) => {
                    warn!("{end} ({}), next one {}", describe_reason(reason), due(wait));
                }
                (None, Some(wait)) => warn!("{end}, next one {}", due(wait)),
                (None, None) => warn!("{end}"),
            }
        }
        Notice::SpawnFailed { slot, fault, retry_in, .. } => {
            let why = match fault {
                SpawnFault::NotFound => "its command does not exist",
                SpawnFault::NotExecutable => "its command cannot be executed",
                SpawnFault::Passing => "see above",
            };
            let next =
                retry_in.map_or_else(String::new, |wait| format!(", next try {}", due(wait)));
            error!("worker {slot} was not started ({why}){next}");
        }
        Notice::CrashLoop { slot, deaths, within } => {
            let deaths = describe_deaths(deaths, within);
            error!("worker {slot} is in a crash loop: {deaths}, backing off");
        }
        Notice::Recovered { slot } => info!("worker {slot} has recovered from its crash loop"),
        Notice::Recycling { worker, reason } => {
            info!("{} {}: replacing it", who(worker), describe_recycling(reason));
        }
        Notice::Loading { .. }
        | Notice::LoadRefused { .. }
        | Notice::LoadUnneeded { .. }
        | Notice::Rolling { .. }
        | Notice::CanaryProven { .. }
        | Notice::Reloaded { .. }
        | Notice::RollFailed { .. }
        | Notice::RolledBack { .. }
        | Notice::Draining => report_reload(notice, children),
        Notice::Upgrading => info!("upgrading: starting a successor"),
        Notice::Upgraded { took } => {
            info!("upgraded in {}: the successor has taken over", span(took));
        }
        Notice::UpgradeFailed { fault } => {
            error!("upgrade failed: {}; this master serves on", describe_upgrade_fault(fault));
        }
        Notice::Booted { took } => info!("all workers are ready after {}", span(took)),
        Notice::NotBooted { is_timeout: true } => {
            error!("not all workers were ready in time: giving up");
        }
        Notice::NotBooted { .. } => error!("the worker of every slot has died: giving up"),
        Notice::Scaled { from, to } => info!("workers wanted: {to} (was {from})"),
        Notice::ScaleLimited { wanted, limit } => {
            warn!("{wanted} workers were asked for, the limit is {limit}");
        }
        Notice::LateWake { by } => {
            let by = span(by);
            warn!("woke {by} late: silent workers get a fresh period before they count as stuck");
        }
        Notice::HelperEnded { helper, status, respawn_in } => {
            let name = match people.helpers.get(helper.0 as usize).copied() {
                Some(LOG_NAME) => "log process",
                name => name.unwrap_or("helper"),
            };
            let what = status.map_or_else(|| "was not started".to_owned(), describe_status);
            let next =
                respawn_in.map_or_else(String::new, |wait| format!(", next one {}", due(wait)));
            warn!("the {name} {what}{next}");
        }
        Notice::EndsWithWorkers { code } => {
            info!("the service ends with its workers, exit code {code}");
        }
        Notice::StraysLeft { left } => {
            error!("processes that workers left behind do not end: {left}");
        }
        Notice::Stopping { workers, delay } if delay.is_zero() => {
            info!("stopping, workers to end: {workers}");
        }
        Notice::Stopping { workers, delay } => {
            let delay = span(delay);
            info!("stopping after {delay} (drain_delay), workers that serve until then: {workers}");
        }
        Notice::DelayOver { workers } => info!("the delay is over, workers to end: {workers}"),
        Notice::Quitting { workers } => warn!("stopping at once, workers to kill: {workers}"),
        Notice::Leaving { outcome } => {
            for child in children.iter().filter(|child| child.reaped.is_none()) {
                error!("pid {} was killed and could not be reaped", child.pid);
            }
            info!("master stopped, exit code {}", outcome.code());
        }
        Notice::Bug(what) => error!("bug in ph: {what}; please report it. Serving on"),
    }
}

/// The same for what is said in the course of a reload.
fn report_reload(notice: Notice, children: &Children) {
    match notice {
        Notice::Loading { generation } => info!("reloading: generation {generation}"),
        Notice::LoadRefused { is_timeout: true, .. } => {
            error!("reload refused: the configuration was not read in time; nothing has changed");
        }
        Notice::LoadRefused { .. } => error!("reload refused; nothing has changed"),
        Notice::LoadUnneeded { .. } => info!("nothing is reloaded"),
        Notice::Rolling { generation, canary } => {
            info!("worker {canary} is the canary of generation {generation}");
        }
        Notice::CanaryProven { worker } => {
            info!("the canary, {}, has proved itself: the others follow", who(worker, children));
        }
        Notice::Reloaded { generation, took } => {
            info!("reloaded in {}: all workers are of generation {generation}", span(took));
        }
        Notice::RollFailed { generation, back_to, worker, slot, cause } => {
            let cause = describe_fault(cause);
            let pid =
                children.get(worker).map_or_else(String::new, |it| format!(" (pid {})", it.pid));
            error!(
                "reload failed: worker {slot} gen {generation}{pid} {cause}; \
                 back to generation {back_to}"
            );
        }
        Notice::RolledBack { generation, back_to } => {
            warn!("generation {generation} was rolled back: generation {back_to} serves again");
        }
        Notice::Draining => info!("draining: workers stop until the next reload"),
        // These are not of a reload.
        Notice::WorkerReady { .. }
        | Notice::WorkerStopping { .. }
        | Notice::WorkerKilled { .. }
        | Notice::WorkerUnreaped { .. }
        | Notice::WorkerExited { .. }
        | Notice::SpawnFailed { .. }
        | Notice::CrashLoop { .. }
        | Notice::Recovered { .. }
        | Notice::Recycling { .. }
        | Notice::Scaled { .. }
        | Notice::ScaleLimited { .. }
        | Notice::LateWake { .. }
        | Notice::HelperEnded { .. }
        | Notice::EndsWithWorkers { .. }
        | Notice::StraysLeft { .. }
        | Notice::Stopping { .. }
        | Notice::DelayOver { .. }
        | Notice::Quitting { .. }
        | Notice::Leaving { .. }
        | Notice::Upgrading
        | Notice::Upgraded { .. }
        | Notice::UpgradeFailed { .. }
        | Notice::Booted { .. }
        | Notice::NotBooted { .. }
        | Notice::Bug(_) => {}
    }
}

pub(super) fn describe_recycling(reason: RecycleReason) -> String {
    match reason {
        RecycleReason::Requests => "served its share".to_owned(),
        RecycleReason::Age => "has reached its greatest age".to_owned(),
        RecycleReason::Memory { bytes } => {
            format!("holds {} MiB, more than it may", bytes / (1024 * 1024))
        }
    }
}

pub(super) fn describe_upgrade_fault(fault: UpgradeFault) -> String {
    match fault {
        UpgradeFault::NotStarted => "there is no successor".to_owned(),
        UpgradeFault::Ended(status) => format!("the successor {}", describe_status(status)),
        UpgradeFault::NotReady { within } => {
            format!("the successor was not ready within {} (upgrade_timeout)", span(within))
        }
        UpgradeFault::NotTakenOver => {
            let within = span(TAKEOVER_TIMEOUT);
            format!("the successor was ready, and has not taken over within {within}")
        }
    }
}

/// The deaths that make a crash loop.
pub(super) fn describe_deaths(deaths: u32, within: Option<Duration>) -> String {
    match within {
        Some(window) => format!("{deaths} deaths within {} (restart_window)", span(window)),
        None => format!("{deaths} deaths in a row"),
    }
}

pub(super) fn describe_fault(fault: RollFault) -> String {
    match fault {
        RollFault::Exited(status) => {
            format!("{} before it had proved itself", describe_status(status))
        }
        RollFault::NotSpawned(_) => "could not be started".to_owned(),
        RollFault::BootTimeout => "did not boot in time".to_owned(),
        RollFault::Stuck => "was stuck".to_owned(),
    }
}

/// Why a worker was not started, as the user sees it at first boot.
pub(super) fn describe_failure(failure: Failure, what: &Path, conditions: &Conditions) -> String {
    let error = std::io::Error::from_raw_os_error(failure.errno);
    let object = match (failure.step, conditions.directory.as_deref()) {
        (Step::Directory, Some(directory)) => directory,
        _ => what,
    };
    describe(&failure.tried(), object, &error)
}

/// Whom notices are about.
pub(super) struct People<'a> {
    pub(super) children: &'a Children,
    pub(super) helpers: Vec<&'a str>,
}

/// A worker's name in a line.
pub(super) fn who(worker: WorkerId, children: &Children) -> Who<'_> {
    Who { worker, children }
}

pub(super) struct Who<'a> {
    worker: WorkerId,
    children: &'a Children,
}

impl std::fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.children.get(self.worker) {
            Some(child) => {
                write!(f, "worker {} gen {} (pid {})", child.slot, child.generation, child.pid)
            }
            None => write!(f, "worker id {}", self.worker),
        }
    }
}

/// Whether a worker that was told to stop ended as one that did.
fn is_as_told(status: ExitStatus, stop_signal: Signal) -> bool {
    match status {
        ExitStatus::Code(code) => code == 0,
        ExitStatus::Signal { number, .. } => {
            [stop_signal as i32, Signal::SIGKILL as i32].contains(&number)
        }
    }
}

pub(super) fn describe_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Shutdown => "the master stops",
        StopReason::ScaleDown => "fewer workers wanted",
        StopReason::Recycle => "its successor is ready",
        StopReason::Stuck => "stuck",
        StopReason::BootTimeout => "did not boot in time",
        StopReason::Reload => "reload: its successor takes over",
        StopReason::Rollback => "its generation is taken back",
        StopReason::Drain => "drained",
    }
}

pub(super) fn describe_status(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exited with code {code}"),
        ExitStatus::Signal { number, core } => {
            let core = if core { ", core dumped" } else { "" };
            match Signal::try_from(number) {
                Ok(signal) => format!("was ended by {signal}{core}"),
                Err(_) => format!("was ended by signal {number}{core}"),
            }
        }
    }
}

pub(super) fn due(wait: Duration) -> String {
    if wait.is_zero() { "at once".to_owned() } else { format!("in {}", span(wait)) }
}

/// A span for people: three digits are enough.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 100.0 {
        format!("{seconds:.0}s")
    } else if seconds >= 1.0 {
        format!("{seconds:.1}s")
    } else {
        format!("{:.0}ms", seconds * 1000.0)
    }
}
