//! A master from its lock to its last breath: everything between what a program has said and the loop, in
//! the one order that leaves nothing behind when a step fails.

use super::children::Children;
use super::command::{Command, CommandError};
use super::conditions::KillMode;
use super::control::{self};
use super::era::{Era, Eras, Makings, Paths};
use super::error::{RunError, system};
use super::helpers::{Helper, HelperPlace};
use super::history::History;
use super::listeners::{Listeners, tell_unused};
use super::load::PendingLoad;
use super::log_process::LogPipes;
use super::manager::Manager;
use super::master::Settings;
use super::occasions::Occasions;
use super::pidfile::Pidfile;
use super::probes::Probes;
use super::recorder::Recorder;
use super::successor::Predecessor;
use super::tree::Trees;
use super::{Driver, caught_signals, new_epoll, now};
use crate::arbiter::{Arbiter, Outcome};
use crate::sys::fds::NofileLimit;
use crate::sys::oom::OomCounter;
use crate::sys::seats::Seats;
use crate::sys::signals::{self, SignalQueue};
use crate::sys::successor::Origin;
use crate::sys::{fds, passed, process, title};
use crate::worker;
use nix::sys::signal::SigSet;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use tracing::{error, info};

impl Settings {
    /// What would fail in every worker fails here, once.
    pub(super) fn bad_app_keys(&self) -> impl Iterator<Item = RunError> {
        let has_nul = |text: &str| text.contains('\0');
        let is_bad = move |key: &str, value: &str| {
            key.is_empty() || key.contains('=') || has_nul(key) || has_nul(value)
        };
        let bad = self.spec.app.iter().filter(move |(key, value)| is_bad(key, value));
        bad.map(|(key, _)| RunError::AppKey { key: key.clone() })
    }

    /// Finds the program of a command where its workers will look for it.
    pub(super) fn find(&self, command: &Command) -> Result<PathBuf, CommandError> {
        let search = self.spec.conditions.search_path();
        command.resolve(self.spec.conditions.directory.as_deref(), search.as_deref())
    }

    /// Where the programs of workers and probes are.
    pub(super) fn paths(&self) -> Result<Paths, RunError> {
        let command = self.spec.command.as_ref().map(|command| self.find(command)).transpose()?;
        Ok(Paths { command, probe: self.find_probe()? })
    }

    /// Finds the program of the probe, if there is one.
    pub(super) fn find_probe(&self) -> Result<Option<PathBuf>, RunError> {
        let found = self.spec.probe.as_ref().map(|probe| self.find(probe)).transpose();
        found.map_err(|error| RunError::Conditions {
            condition: "probe",
            why: format!("the probe of readiness: {error}"),
        })
    }

    /// Everything between taking the lock and giving it up. What keeps a successor from its loop, the
    /// master that runs learns.
    pub(super) fn run(&self, signals: &mut Option<SignalQueue>) -> Result<Ran, RunError> {
        let mut predecessor = None;
        let ran = self.run_after(&mut predecessor, signals);
        if let (Err(error), Some(predecessor)) = (&ran, &predecessor) {
            predecessor.tell_failure(error);
        }
        ran
    }

    /// The pidfile is written once signals are caught, because whoever reads it may send one at once; and
    /// they stay caught until the files are gone, because one that came in between must not leave them
    /// behind. A predecessor belongs to the loop once there is one.
    fn run_after(
        &self,
        predecessor: &mut Option<Predecessor>,
        signals: &mut Option<SignalQueue>,
    ) -> Result<Ran, RunError> {
        let is_forked = self.factory.is_some();
        worker::call("on_starting", || self.hooks.on_starting());
        let origin = Origin::of_process()
            .map_err(|source| RunError::System { call: "read /proc/self/cmdline", source })?;
        // Before the lock, so that its clients are let go after that: what they asked for is true then.
        let mut control = control::Server::default();
        passed::take();
        *predecessor = Predecessor::find()?;
        let claim = |pidfile: &Pidfile| match (predecessor.as_mut(), self.instance) {
            (Some(predecessor), _) => predecessor.claim(pidfile),
            (None, Some(instance)) => pidfile.claim_instance(instance),
            (None, None) => pidfile.claim(),
        };
        let pidfile = self.pidfile.as_ref().map(claim).transpose()?.map(RefCell::new);
        self.preload()?;
        let existing = predecessor.as_ref().map(Predecessor::listeners).unwrap_or_default();
        let options = self.spec.socket_options();
        let listeners = Listeners::open(&self.spec.addresses, &options, is_forked, &existing)?;
        drop(existing);
        let nofile = fds::raise_limit().map_err(system("setrlimit"))?;
        let mask = signals::mask().map_err(system("sigprocmask"))?;
        let _restored = Restored { nofile, mask };
        process::become_subreaper().map_err(system("prctl(PR_SET_CHILD_SUBREAPER)"))?;
        let handed = predecessor.as_ref().map_or(1, |predecessor| predecessor.instance);
        let instance = pidfile.as_ref().map_or(handed, |held| held.borrow().instance);
        let callers_children = process::children().map_err(|source| RunError::System {
            call: "read /proc/thread-self/children",
            source,
        })?;
        let callers_fds = fds::inherited();
        let stop_signal = is_forked.then_some(self.spec.stop_signal);
        let signals = SignalQueue::install(&caught_signals(), stop_signal)
            .map_err(|source| RunError::System { call: "catch the signals", source })
            .map(|queue| &*signals.insert(queue))?;
        let setup = self.spec.conditions.setup(nofile, self.spec.name.as_ref())?;
        let seats_of_all = self.seats();
        let kill_mode = self.spec.conditions.kill_mode;
        let trees = Trees::new(kill_mode, seats_of_all, !is_forked).map_err(system("mmap"))?;
        let paths = self.paths()?;
        let mut spec = self.spec.clone();
        spec.find_on_event()?;
        let makings = Makings {
            factory: self.factory.as_ref(),
            instance,
            nofile,
            ignored: signals.ignored(),
        };
        let shown = listeners.clone();
        let era = Era::new(spec, listeners, setup, paths, &makings)?;
        let seats =
            is_forked.then(|| Seats::map(seats_of_all)).transpose().map_err(system("mmap"))?;
        // What the caller had blocked must reach the master all the same.
        signals::set_mask(&SigSet::empty()).map_err(system("sigprocmask"))?;
        let epoll = new_epoll().map_err(system("epoll_create"))?;
        // A successor gets it when it takes over.
        if let Some(rules) = self.control.as_ref().filter(|_| predecessor.is_none()) {
            let listening = rules.open_for(self.pidfile.as_ref(), instance)?;
            control.listen(listening, rules, &epoll).map_err(system("epoll_ctl"))?;
        }
        if let Some(pidfile) = &pidfile {
            pidfile.borrow_mut().write_first()?;
        }
        title::prepare();
        title::set(&format!("ph: master [{}]", self.spec.name));
        self.announce(&shown, instance);
        // A reload may be the end of one of them.
        drop(shown);
        worker::call("when_ready", || self.hooks.when_ready());
        let has_log_process = self.logging.process().is_some();
        let log = LogPipes::new(has_log_process, sources(seats_of_all, nofile))
            .map_err(system("pipe"))?;
        let helpers: Vec<_> = self.all_helpers().map(HelperPlace::new).collect();
        let roles: Vec<_> = self.all_helpers().map(|helper| helper.role()).collect();
        let policy = self.spec.policy;
        let arbiter = Arbiter::new(policy).with_helpers(&roles);
        let verdict = match (&*predecessor, &self.boot) {
            (Some(_), _) => (true, None),
            (None, Some((_, limit))) => (true, *limit),
            (None, None) => (false, None),
        };
        let arbiter = if verdict.0 { arbiter.with_boot_verdict(verdict.1) } else { arbiter };
        let recorder = Recorder::begin(policy, &roles, verdict, predecessor.is_some());
        let mut driver = Driver {
            settings: self,
            instance,
            eras: Eras::new(era),
            seats: seats.map(Arc::new),
            dev_null: fds::dev_null().map_err(system("open /dev/null"))?,
            loading: None,
            load_flags: PendingLoad::default(),
            loaders: Vec::new(),
            pidfile: pidfile.as_ref(),
            origin: &origin,
            manager: Manager::of_environment(predecessor.is_some()),
            predecessor: predecessor.take(),
            departing: None,
            succession: None,
            signals,
            epoll,
            nofile,
            log,
            arbiter,
            recorder,
            control: &mut control,
            history: History::default(),
            started: now(),
            children: Children::with_seats(seats_of_all),
            helpers,
            probes: Probes::default(),
            occasions: Occasions::default(),
            trees,
            oom: OomCounter::find(),
            callers_children,
            callers_fds,
            reap_pending: false,
            lingering: Vec::new(),
            to_weigh: VecDeque::new(),
            heard: Vec::new(),
            outcome: None,
            spawn_failure: None,
            is_spreading_due: false,
        };
        driver.run_to_the_end()
    }

    fn preload(&self) -> Result<(), RunError> {
        let Some(class) = self.factory.as_ref().filter(|_| self.is_preloaded) else {
            return Ok(());
        };
        let loaded = worker::caught(|| class.preload(&self.spec.app));
        let loaded =
            loaded.ok_or("it panicked, see the log").map_err(Into::into).and_then(|loaded| loaded);
        loaded.map_err(|why| RunError::Preload { why: why.to_string() })?;
        match process::thread_count() {
            Ok(1) => Ok(()),
            Ok(threads) => {
                let why =
                    format!("it has started threads, and a fork copies only one of {threads}");
                Err(RunError::Preload { why })
            }
            Err(source) => Err(RunError::System { call: "read /proc/self/task", source }),
        }
    }

    /// Twice `max_workers` processes at most, and some the kernel does not let go.
    fn seats(&self) -> usize {
        (self.spec.policy.max_workers.max(1) as usize).saturating_mul(3)
    }

    /// The warden first, so that nobody ever lives without one, where there is anything for it to do;
    /// then whoever writes the log.
    pub(super) fn all_helpers(&self) -> impl Iterator<Item = Helper> {
        let is_needed = self.spec.conditions.kill_mode != KillMode::Process;
        let warden = is_needed.then(Helper::warden);
        let log = self.logging.process().map(|_| Helper::log());
        warden.into_iter().chain(log).chain(self.helpers.iter().cloned())
    }

    fn announce(&self, listeners: &Listeners, instance: u32) {
        let pid = std::process::id();
        let side_by_side =
            if instance > 1 { format!(", instance {instance}") } else { String::new() };
        let workers = self.spec.policy.target;
        info!("master started with pid {pid}{side_by_side}, workers wanted: {workers}");
        for address in listeners.shown() {
            info!("listening on {address}");
        }
        tell_unused(&self.spec.addresses);
        if let Some((reporter, _)) = &self.boot {
            reporter.running(instance, workers);
        }
    }
}

/// The sources of the log process that may be kept at once: a worker has three at most, and twice as
/// many may be waiting to be read; but most descriptors are for other things.
fn sources(seats: usize, nofile: NofileLimit) -> usize {
    let most = seats.saturating_mul(6);
    most.min(usize::try_from(nofile.hard() / 4).unwrap_or(usize::MAX)).max(LEAST_SOURCES)
}

const LEAST_SOURCES: usize = 16;

/// The outcome, and why the last command that could not be executed was not.
type Ran = (Outcome, Option<String>);

/// Gives the process's own limit and mask back when the master is done.
struct Restored {
    nofile: NofileLimit,
    mask: SigSet,
}

impl Drop for Restored {
    fn drop(&mut self) {
        // Both were in force when the master began, so they can be again.
        let _ = self.nofile.restore();
        let _ = signals::set_mask(&self.mask);
    }
}

impl Driver<'_> {
    /// Runs the loop, and makes sure that a master which cannot go on leaves nobody behind.
    fn run_to_the_end(&mut self) -> Result<Ran, RunError> {
        let ran = catch_unwind(AssertUnwindSafe(|| self.run()));
        // Where it was not done by the end of the loop.
        self.control.close(&self.epoll);
        let outcome = match ran {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(errno)) => {
                self.kill_everyone();
                return Err(system("epoll_wait")(errno));
            }
            Err(_) => {
                self.kill_everyone();
                error!("bug in ph: the master panicked; every worker was killed");
                return Err(RunError::Panicked);
            }
        };
        Ok((outcome, self.spawn_failure.take().map(|(_, why)| why)))
    }
}
