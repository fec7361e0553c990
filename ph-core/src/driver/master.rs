//! The front door: what a program says about its service, and `run`.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use tracing::{error, info};

use super::children::Children;
use super::command::{Command, CommandError};
use super::conditions::KillMode;
use super::control::{self, ControlSocket};
use super::era::{Era, Eras, Makings, Paths};
use super::error::{Finished, RunError, system};
use super::helpers::{Helper, HelperPlace};
use super::history::History;
use super::launch::BootReporter;
use super::listeners::{Address, Listeners};
use super::load::{LoadRequest, Loader, PendingLoad};
use super::log_process::LogPipes;
use super::manager::Manager;
use super::pidfile::Pidfile;
use super::probes::Probes;
use super::recorder::Recorder;
use super::spec::Spec;
use super::successor::Predecessor;
use super::tree::Trees;
use super::{Driver, caught_signals, new_epoll, now};
use crate::arbiter::{Arbiter, Outcome, Policy, Readiness, WorkerKind};
use crate::sys::fds::NofileLimit;
use crate::sys::oom::OomCounter;
use crate::sys::seats::Seats;
use crate::sys::signals::{self, SignalQueue};
use crate::sys::successor::Origin;
use crate::sys::{fds, process, title};
use crate::worker::{self, Context, Factory, Hooks, Logging, NoHooks, Worker};

struct NoLogging;

impl Logging for NoLogging {}

/// Says an error in the words of the program.
type Explain = Rc<dyn Fn(&RunError) -> String>;

/// All that was said about a master before it ran: what a reload may bring another of, and what stays.
pub(super) struct Settings {
    pub(super) spec: Spec,
    /// What makes forked workers; commands have none.
    pub(super) factory: Option<Factory>,
    pub(super) pidfile: Option<Pidfile>,
    pub(super) control: Option<ControlSocket>,
    pub(super) helpers: Vec<Helper>,
    pub(super) logging: Arc<dyn Logging>,
    pub(super) loader: Option<Loader>,
    /// What a reload to this changes, in words.
    pub(super) changes: String,
    pub(super) explain: Option<Explain>,
    pub(super) hooks: Rc<dyn Hooks>,
    /// Who waits for the start, and how long at most.
    pub(super) boot: Option<(BootReporter, Option<Duration>)>,
    /// What a successor is told beside the command line.
    pub(super) successors_note: Option<String>,
}

/// A master that has not started yet: a service's name, its workers, and the policy.
///
/// A process has one master at a time.
#[must_use = "a master does nothing until `run`"]
pub struct Master(pub(super) Settings);

impl Master {
    /// A master of forked workers, each made by `factory` in its own process.
    pub fn forked<W: Worker + 'static>(
        name: impl Into<String>,
        factory: impl Fn(&Context) -> W + 'static,
    ) -> Self {
        let factory: Factory = Rc::new(move |ctx| Box::new(factory(ctx)));
        Self::new(Some(factory), Spec::new(name.into(), None, Policy::default()))
    }

    /// A master of command workers: N processes of any program.
    pub fn command(name: impl Into<String>, command: Command) -> Self {
        let policy = Policy {
            kind: WorkerKind::Command,
            readiness: Readiness::Spawned,
            ..Policy::default()
        };
        Self::new(None, Spec::new(name.into(), Some(command), policy))
    }

    fn new(factory: Option<Factory>, spec: Spec) -> Self {
        Self(Settings {
            spec,
            factory,
            pidfile: None,
            control: None,
            helpers: Vec::new(),
            logging: Arc::new(NoLogging),
            loader: None,
            changes: String::new(),
            explain: None,
            hooks: Rc::new(NoHooks),
            boot: None,
            successors_note: None,
        })
    }

    /// How many workers to keep alive, 1..=`max_workers`. The default is 1.
    pub fn workers(mut self, target: u32) -> Self {
        self.0.spec.policy.target = target;
        self
    }

    /// What makes a command ready: that it was executed, which is the default, or that it says so
    /// (`READY=1` at its `NOTIFY_SOCKET`, as systemd's sd_notify(3) has it). A forked worker is ready
    /// when `init_process` has returned, whatever is said here.
    pub fn readiness(mut self, readiness: Readiness) -> Self {
        if self.0.spec.policy.kind == WorkerKind::Command {
            self.0.spec.policy.readiness = readiness;
        }
        self
    }

    /// Changes the numbers the arbiter decides by. The kind of the workers is given by how the master
    /// was made, what makes them ready by [`readiness`](Self::readiness); both stay as they are.
    pub fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        let (kind, readiness) = (self.0.spec.policy.kind, self.0.spec.policy.readiness);
        change(&mut self.0.spec.policy);
        self.0.spec.policy.kind = kind;
        self.0.spec.policy.readiness = readiness;
        self
    }

    /// What asks whether a command worker is ready, with [`Readiness::Probed`]: a program that exits with 0
    /// if it is. It finds the worker's `PH_SLOT` and `PH_WORKER_PID` in its environment, and its words are
    /// expanded as the command's are.
    pub fn probe(mut self, probe: Command) -> Self {
        self.0.spec.probe = Some(probe);
        self
    }

    /// Adds a listener, shared by all workers. Commands find them from descriptor 3 on, with
    /// `LISTEN_FDS` and `LISTEN_PID` set, as systemd does it.
    pub fn bind(mut self, address: Address) -> Self {
        self.0.spec.addresses.push(address);
        self
    }

    /// Writes the master's pid to a file and locks the file beside it.
    pub fn pidfile(mut self, pidfile: Pidfile) -> Self {
        self.0.pidfile = Some(pidfile);
        self
    }

    /// Opens a socket where the master can be asked how it is and told what to do; see
    /// [`control`](crate::control). Without this there is none.
    pub fn control(mut self, control: ControlSocket) -> Self {
        self.0.control = Some(control);
        self
    }

    /// Adds a child that is not a worker. Helpers are started before the workers, in this order.
    pub fn helper(mut self, helper: Helper) -> Self {
        self.0.helpers.push(helper);
        self
    }

    /// The signal that asks a worker to stop. The default is SIGTERM.
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.0.spec.stop_signal = signal;
        self
    }

    /// Replaces a worker after so many requests; 0, the default: never. Of a forked worker the calls
    /// of `handle_request` are counted; a command says it itself, by `REQUESTS=N` at its
    /// `NOTIFY_SOCKET`.
    pub fn max_requests(mut self, requests: u64) -> Self {
        self.0.spec.max_requests = requests;
        self
    }

    /// Adds up to so many requests to `max_requests`, another number for each worker (as gunicorn does).
    pub fn max_requests_jitter(mut self, requests: u64) -> Self {
        self.0.spec.max_requests_jitter = requests;
        self
    }

    /// The application's own settings: [`Context::app`] in forked workers, `PH_APP_<KEY>` in the
    /// environment of all.
    pub fn app(mut self, app: BTreeMap<String, String>) -> Self {
        self.0.spec.app = app;
        self
    }

    /// Who writes the log. The default leaves it to the program's tracing subscriber and lets workers
    /// print where the master does.
    pub fn logging(mut self, logging: impl Logging + 'static) -> Self {
        self.0.logging = Arc::new(logging);
        self
    }

    /// Whether what workers print goes to the log, if that has a process of its own (see
    /// [`Logging::process`]). The default is yes for commands, and no for forked workers.
    pub fn capture_output(mut self, is_captured: bool) -> Self {
        self.0.spec.capture_output = Some(is_captured);
        self
    }

    /// How a reload (SIGHUP) gets the configuration: `load` is called in a process of its own and makes a
    /// master, of which the workers of the next generation are made: their number, policy, command,
    /// conditions, listeners. What else it says is the business of the next start: the pidfile, helpers,
    /// the log, `max_workers`, and whether workers are forked. An error refuses the reload.
    ///
    /// Without this a reload replaces all workers by others of the same configuration.
    pub fn on_reload(
        mut self,
        load: impl Fn(&LoadRequest) -> Result<Self, String> + 'static,
    ) -> Self {
        self.0.loader = Some(Rc::new(load));
        self
    }

    /// Code of the program that runs at fixed points of the service's life.
    pub fn hooks(mut self, hooks: impl Hooks + 'static) -> Self {
        self.0.hooks = Rc::new(hooks);
        self
    }

    /// What the program wants to be reminded of at the next reload, by [`LoadRequest::note`]; two
    /// configurations of equal notes are taken for the same. A reload that fails leaves the former note.
    pub fn note(mut self, note: String) -> Self {
        self.0.spec.note = note;
        self
    }

    /// What a reload to this configuration changes, in words for the log.
    pub fn changes(mut self, changes: String) -> Self {
        self.0.changes = changes;
        self
    }

    /// What [`Logging::configure`] is told while workers of this configuration are wanted.
    pub fn log_settings(mut self, settings: String) -> Self {
        self.0.spec.log_settings = settings;
        self
    }

    /// What the successor of an upgrade is told beside the command line that it is started with again, such as
    /// which of several services it is to run ([`note_of_predecessor`](crate::note_of_predecessor)).
    pub fn note_for_successor(mut self, note: impl Into<String>) -> Self {
        self.0.successors_note = Some(note.into());
        self
    }

    /// How people are told what keeps a configuration from being run; the default is the error itself.
    /// Called in the loader, for the master that it has made.
    pub fn explain(mut self, explain: impl Fn(&RunError) -> String + 'static) -> Self {
        self.0.explain = Some(Rc::new(explain));
        self
    }

    /// Runs the master until it is told to stop. Workers never return from here: each ends its own
    /// process.
    ///
    /// While it runs, the process belongs to the master: every child of it is reaped, also one the
    /// program had started before; its signals are caught; its title is overwritten, argv with it;
    /// it is the subreaper of all below it, and stays that. Signal mask and descriptor limit are
    /// given back at the end, signals when the [`Finished`] is dropped. A service manager that has set
    /// `NOTIFY_SOCKET` is told when all workers are ready, how they are, and that the master stops.
    ///
    /// # Errors
    ///
    /// Whatever keeps the master from starting, and then nothing is left behind; or a panic in it,
    /// after every worker was killed. [`RunError::code`] is the exit code.
    pub fn run(self) -> Result<Finished, RunError> {
        let threads = process::thread_count()
            .map_err(|source| RunError::System { call: "stat /proc/self/task", source })?;
        if threads != 1 {
            return Err(RunError::Threads { threads });
        }
        fds::fill_standard_streams()
            .map_err(|source| RunError::System { call: "open /dev/null", source })?;
        let settings = self.0;
        settings.bad_app_keys().next().map_or(Ok(()), Err)?;
        let mut signals = None;
        let (outcome, spawn_failure) = settings.run(&mut signals)?;
        Ok(Finished { outcome, spawn_failure, signals })
    }
}

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
    pub(super) fn paths(&self) -> Result<Paths, CommandError> {
        let find = |command: &Option<Command>| command.as_ref().map(|it| self.find(it)).transpose();
        Ok(Paths { command: find(&self.spec.command)?, probe: find(&self.spec.probe)? })
    }

    /// Everything between taking the lock and giving it up. The pidfile is written once signals are
    /// caught, because whoever reads it may send one at once; and they stay caught until the files
    /// are gone, because one that came in between must not leave them behind.
    fn run(&self, signals: &mut Option<SignalQueue>) -> Result<Ran, RunError> {
        let is_forked = self.factory.is_some();
        worker::call("on_starting", || self.hooks.on_starting());
        let origin = Origin::of_process()
            .map_err(|source| RunError::System { call: "read /proc/self/cmdline", source })?;
        // Before the lock, so that its clients are let go after that: what they asked for is true then.
        let mut control = control::Server::default();
        let mut predecessor = Predecessor::find()?;
        let claim = |pidfile: &Pidfile| match &mut predecessor {
            Some(predecessor) => predecessor.claim(pidfile),
            None => pidfile.claim(),
        };
        let pidfile = self.pidfile.as_ref().map(claim).transpose()?.map(RefCell::new);
        let existing = predecessor.as_ref().map(Predecessor::listeners).unwrap_or_default();
        let listeners = Listeners::open(&self.spec.addresses, is_forked, &existing)?;
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
        let makings = Makings {
            factory: self.factory.as_ref(),
            instance,
            nofile,
            ignored: signals.ignored(),
        };
        let shown = listeners.clone();
        let era = Era::new(self.spec.clone(), listeners, setup, paths, &makings)?;
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
        let verdict = match (&predecessor, &self.boot) {
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
            seats: seats.map(Rc::new),
            dev_null: fds::dev_null().map_err(system("open /dev/null"))?,
            loading: None,
            load_flags: PendingLoad::default(),
            loaders: Vec::new(),
            pidfile: pidfile.as_ref(),
            origin: &origin,
            predecessor,
            succession: None,
            signals,
            epoll,
            nofile,
            log,
            manager: Manager::of_environment(),
            arbiter,
            recorder,
            control: &mut control,
            history: History::default(),
            started: now(),
            children: Children::with_seats(seats_of_all),
            helpers,
            probes: Probes::default(),
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
        };
        driver.run_to_the_end()
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
