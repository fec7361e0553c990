//! Helpers: children of the master that are not workers. The first is the warden, the second the log
//! process, if the log has one.
//!
//! The arbiter says when one is started, told to end, or killed, and backs off those that keep dying;
//! what each *is* is known only here.

use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{error, warn};

use super::command::Command;
use super::log_process::LOG_NAME;
use super::perform::jitter;
use super::warden::{self, Charge};
use super::{Driver, environment};
use crate::arbiter::{Event, ExitStatus, HelperEnd, HelperId, HelperRole};
use crate::sys::environ::Environment;
use crate::sys::process::{self, Fork};
use crate::sys::signals::{self, WorkerSignals};
use crate::sys::spawn::{Instance, Program, SpawnOutcome, outcome};
use crate::sys::{fds, mark, procfs, title};
use crate::worker::{self, LogOrigin};

/// The longest there is no log process while it keeps dying: workers wait whose pipes are full.
const LOG_BACKOFF_CAP: Duration = Duration::from_secs(1);

/// A child of the master that is not a worker: it is kept alive, and never counted.
///
/// It leads a session of its own, dies with the master, and is told to stop by SIGTERM.
#[derive(Clone)]
pub struct Helper {
    name: String,
    pub(super) work: Work,
    role: HelperRole,
}

#[derive(Clone)]
pub(super) enum Work {
    Warden,
    Log,
    Forked(Rc<dyn Fn(&HelperContext) -> worker::Result>),
    Command(Command),
}

impl Helper {
    /// Code of this program, in a process of its own. An error ends that with exit code 1, a panic
    /// with 101.
    pub fn forked(
        name: impl Into<String>,
        work: impl Fn(&HelperContext) -> worker::Result + 'static,
    ) -> Self {
        Self::new(name.into(), Work::Forked(Rc::new(work)))
    }

    /// Another program. Its output goes where that of command workers goes.
    pub fn command(name: impl Into<String>, command: Command) -> Self {
        Self::new(name.into(), Work::Command(command))
    }

    pub(super) fn warden() -> Self {
        Self::new("warden".to_owned(), Work::Warden).ends_last(true)
    }

    /// The process that writes the log.
    pub(super) fn log() -> Self {
        let helper = Self::new(LOG_NAME.to_owned(), Work::Log);
        let role =
            HelperRole { ends: HelperEnd::Last, backoff_cap: Some(LOG_BACKOFF_CAP), ..helper.role };
        Self { role, ..helper }
    }

    fn new(name: String, work: Work) -> Self {
        let role = HelperRole { respawn: true, ends: HelperEnd::WithWorkers, backoff_cap: None };
        Self { name, work, role }
    }

    /// Whether it is started again when it ends. The default is yes.
    #[must_use]
    pub fn respawn(mut self, respawn: bool) -> Self {
        self.role.respawn = respawn;
        self
    }

    /// Whether it ends after the last worker. The default is no: it is told to stop when they are.
    #[must_use]
    pub fn ends_last(mut self, ends_last: bool) -> Self {
        self.role.ends = if ends_last { HelperEnd::AfterWorkers } else { HelperEnd::WithWorkers };
        self
    }

    pub(super) fn role(&self) -> HelperRole {
        self.role
    }
}

/// A forked helper's view of itself.
#[derive(Debug)]
pub struct HelperContext {
    signals: WorkerSignals,
}

impl HelperContext {
    /// Whether the helper is to go on.
    #[must_use]
    pub fn running(&self) -> bool {
        !self.signals.stop_asked()
    }

    /// Waits; ends early when the helper is to stop. Says whether to go on.
    pub fn sleep(&self, duration: Duration) -> bool {
        self.signals.wait(duration)
    }
}

/// The mark of helpers, and of what they start: no worker has this number.
pub(super) const HELPERS_MARK: u64 = 0;

/// A helper and the process it has.
pub(super) struct HelperPlace {
    helper: Helper,
    pub(super) process: Option<Pid>,
    /// The master's end of the warden's pipe: when it is closed, the warden sets to work.
    lifeline: Option<OwnedFd>,
    /// What says why its program was not executed.
    report: Option<OwnedFd>,
}

impl HelperPlace {
    pub(super) fn new(helper: Helper) -> Self {
        Self { helper, process: None, lifeline: None, report: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.helper.name
    }

    pub(super) fn is_warden(&self) -> bool {
        matches!(self.helper.work, Work::Warden)
    }

    pub(super) fn is_log(&self) -> bool {
        matches!(self.helper.work, Work::Log)
    }

    /// The master's ends of pipes to it.
    pub(super) fn fds(&self) -> impl Iterator<Item = &OwnedFd> {
        [&self.lifeline, &self.report].into_iter().flatten()
    }
}

impl Driver<'_> {
    pub(super) fn spawn_helper(&mut self, helper: HelperId) -> Option<Event> {
        let place = self.helpers.get(helper.0 as usize)?;
        let (name, work) = (place.helper.name.clone(), place.helper.work.clone());
        let spawned = self.with_signals_blocked(|driver| match &work {
            Work::Warden => driver.fork_warden(),
            Work::Log => driver.fork_log_process().map(|pid| (pid, None)),
            Work::Forked(work) => driver.fork_helper(&name, &**work).map(|pid| (pid, None)),
            Work::Command(command) => {
                driver.exec_helper(&name, command).map(|(pid, report)| (pid, Some(report)))
            }
        });
        match spawned {
            Ok((pid, end)) => {
                let place = self.helpers.get_mut(helper.0 as usize)?;
                place.process = Some(pid);
                if place.is_warden() {
                    place.lifeline = end;
                } else {
                    place.report = end;
                }
                None
            }
            Err(error) => {
                error!("cannot start the helper {name}: {error}");
                Some(Event::HelperEnded { helper, status: None, jitter: jitter() })
            }
        }
    }

    fn fork_warden(&mut self) -> std::io::Result<(Pid, Option<OwnedFd>)> {
        let (lifeline, own_end) = fds::pipe()?;
        let master = nix::unistd::getpid();
        // Whoever is older than the master is none of its workers' leavings.
        let started = procfs::facts(master).map_or(0, |facts| facts.started);
        match self.trees.inherited(process::fork)?? {
            Fork::Master(pid) => Ok((pid, Some(own_end))),
            Fork::Child => worker::never_return(|| {
                drop(own_end);
                self.settle_helper("warden", &self.fds_of_log());
                // Where this master is itself a worker, its warden is not what that left behind: it
                // sees to its own end.
                mark::wear(None);
                let charge = Charge { trees: &self.trees, lifeline: &lifeline, started };
                let ended = charge.watch();
                if ended > 0 {
                    warn!("the master, pid {master}, is gone: killed what it left, {ended} in all");
                }
                0
            }),
        }
    }

    fn fork_helper(
        &mut self,
        name: &str,
        work: &dyn Fn(&HelperContext) -> worker::Result,
    ) -> std::io::Result<Pid> {
        let master = nix::unistd::getpid();
        match process::fork()? {
            Fork::Master(pid) => Ok(pid),
            Fork::Child => worker::never_return(|| {
                let prepared = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
                process::leave_if_orphaned(master);
                let signals = self.signals.become_worker();
                self.settle_helper(name, &self.fds_of_log());
                mark::wear(Some(self.trees.mark.of(HELPERS_MARK)));
                fds::close_in_child(self.trees.hold_fds());
                let done = prepared
                    .map_err(worker::Error::from)
                    .and_then(|()| Ok(self.nofile.restore()?))
                    .and_then(|()| Ok(HelperContext { signals: signals? }))
                    .and_then(|context| {
                        signals::set_mask(&nix::sys::signal::SigSet::empty())?;
                        work(&context)
                    });
                match done {
                    Ok(()) => 0,
                    Err(why) => {
                        error!("the helper {name} failed: {why}");
                        1
                    }
                }
            }),
        }
    }

    /// A helper's first steps, in the child: nothing that is the master's or the workers' stays open,
    /// but what holds the trees. No terminal and no group of the master's reaches it.
    pub(super) fn settle_helper(&self, name: &str, not_its: &[RawFd]) {
        // A fresh child leads no group, so this cannot fail.
        let _ = nix::unistd::setsid();
        if let Ok(dev_null) = fds::dev_null() {
            // Where there is no descriptor left, it keeps the master's, of which it reads nothing.
            let _ = process::replace_standard_input(&dev_null);
        }
        fds::close_in_child(self.own_fds());
        fds::close_in_child(not_its.iter().copied());
        fds::close_in_child(self.callers_fds.iter().copied());
        fds::close_in_child(self.fds_of_workers());
        title::set(&format!("ph: {name} [{}]", self.eras.current().name));
        self.settings.logging.enter_helper(name);
    }

    fn exec_helper(&mut self, name: &str, command: &Command) -> std::io::Result<(Pid, OwnedFd)> {
        let path = command
            .resolve(None, std::env::var_os("PATH").as_deref())
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        let era = self.eras.current();
        let common = environment::common(&era.name, self.instance, &era.app);
        let variables = environment::merged(environment::inherited().chain(common));
        let setup = crate::sys::setup::Setup::plain(self.nofile);
        let environment = Environment::new(variables)?;
        let ignored = self.signals.ignored();
        let program = Program::new(path.as_os_str(), environment, setup, &[], ignored)?;
        let words = command.words_of(0, 1);
        let era = Rc::clone(self.eras.current());
        let outputs = self.open_outputs(&era.spec)?;
        let inherited = (std::io::stdout(), std::io::stderr());
        let instance = Instance {
            listeners: None,
            slot: 0,
            words: &words,
            own: &[],
            outputs: outputs.or(&inherited),
            cgroup: None,
            mark: Some(self.trees.mark.of(HELPERS_MARK)),
        };
        let (pid, report) = program.spawn(&instance)?;
        let number = pid.as_raw().unsigned_abs();
        self.keep_outputs(outputs, |stream| LogOrigin::Helper {
            name: name.to_owned(),
            pid: number,
            stream,
        });
        Ok((pid, report))
    }

    /// The warden is told by the end of its pipe, and that it need not look where nobody is left.
    pub(super) fn stop_helper(&mut self, helper: HelperId) {
        let is_empty = self.trees.are_ended();
        if self.helpers.get(helper.0 as usize).is_some_and(HelperPlace::is_log) {
            return self.finish_log();
        }
        let Some(place) = self.helpers.get_mut(helper.0 as usize) else { return };
        if let Some(lifeline) = place.lifeline.take() {
            if is_empty {
                // Should this be lost, it looks and finds nobody.
                let _ = fds::write(&lifeline, warden::DISMISSED);
            }
            return;
        }
        if let Some(pid) = place.process {
            // It is reaped here only, so it is still there, at least as a zombie.
            let _ = process::signal(pid, Signal::SIGTERM);
            let _ = process::signal(pid, Signal::SIGCONT);
        }
    }

    pub(super) fn kill_helper(&mut self, helper: HelperId) {
        let Some(place) = self.helpers.get(helper.0 as usize) else { return };
        if place.is_log() {
            self.log.forget_renewal();
        }
        if let Some(pid) = place.process {
            warn!("killing the helper {} (pid {pid}): it did not end in time", place.name());
            let _ = process::signal(pid, Signal::SIGKILL);
            let _ = process::signal_group(pid, Signal::SIGKILL);
        }
    }

    pub(super) fn helper_of(&self, pid: Pid) -> Option<HelperId> {
        let index = self.helpers.iter().position(|place| place.process == Some(pid))?;
        u32::try_from(index).ok().map(HelperId)
    }

    /// A helper's process was reaped. A log process that made room for another has not ended, as far
    /// as the arbiter is concerned: the place is not empty for a moment.
    pub(super) fn helper_ended(&mut self, helper: HelperId, status: ExitStatus) -> Option<Event> {
        let is_log = self.helpers.get(helper.0 as usize).is_some_and(HelperPlace::is_log);
        let is_renewed = is_log && self.on_log_ended(status);
        if let Some(place) = self.helpers.get_mut(helper.0 as usize) {
            (place.process, place.lifeline) = (None, None);
            if let Some(SpawnOutcome::Failed(failure)) = place.report.take().as_ref().map(outcome) {
                let error = std::io::Error::from_raw_os_error(failure.errno);
                error!("the helper {}: cannot {} it: {error}", place.name(), failure.tried());
            }
        }
        if is_renewed {
            let event = self.spawn_helper(helper);
            self.on_log_renewed();
            return event;
        }
        Some(Event::HelperEnded { helper, status: Some(status), jitter: jitter() })
    }
}
