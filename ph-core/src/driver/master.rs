//! The front door: what a program says about its service, and `run`.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::command::Command;
use super::control::ControlSocket;
use super::error::{Finished, RunError};
use super::helpers::Helper;
use super::launch::BootReporter;
use super::listeners::{Address, SocketOptions};
use super::load::{LoadRequest, Loader};
use super::pidfile::Pidfile;
use super::spec::Spec;
use crate::arbiter::{Policy, Readiness, WorkerKind};
use crate::sys::{fds, process};
#[cfg(feature = "tokio")]
use crate::worker::{AsyncClass, AsyncWorker};
use crate::worker::{
    Class, Context, Factory, Hooks, Logging, NoHooks, SyncClass, ThreadClass, ThreadWorker, Worker,
};

struct NoLogging;

impl Logging for NoLogging {}

/// Says an error in the words of the program.
type Explain = Rc<dyn Fn(&RunError) -> String>;

/// All that was said about a master before it ran: what a reload may bring another of, and what stays.
pub(super) struct Settings {
    pub(super) spec: Spec,
    /// What makes forked workers; commands have none.
    pub(super) factory: Option<Factory>,
    pub(super) is_preloaded: bool,
    pub(super) pidfile: Option<Pidfile>,
    /// Which of several masters of the service it has to be.
    pub(super) instance: Option<u32>,
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
    /// What the service was made from.
    pub(super) made_from: Option<String>,
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
        Self::of_class(name.into(), SyncClass(factory))
    }

    /// A master of forked workers in each of which several threads serve
    /// ([`threads`](Self::threads)).
    pub fn threaded<W: ThreadWorker + 'static>(
        name: impl Into<String>,
        factory: impl Fn(&Context) -> W + 'static,
    ) -> Self {
        Self::of_class(name.into(), ThreadClass(factory))
    }

    /// A master of forked workers on whose tokio runtimes requests are tasks
    /// ([`worker_connections`](Self::worker_connections)).
    #[cfg(feature = "tokio")]
    pub fn asynchronous<W: AsyncWorker + 'static>(
        name: impl Into<String>,
        factory: impl Fn(&Context) -> W + 'static,
    ) -> Self {
        Self::of_class(name.into(), AsyncClass(factory))
    }

    fn of_class(name: String, class: impl Class + 'static) -> Self {
        Self::new(Some(Rc::new(class)), Spec::new(name, None, Policy::default()))
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
            is_preloaded: false,
            pidfile: None,
            instance: None,
            control: None,
            helpers: Vec::new(),
            logging: Arc::new(NoLogging),
            loader: None,
            changes: String::new(),
            explain: None,
            hooks: Rc::new(NoHooks),
            boot: None,
            successors_note: None,
            made_from: None,
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

    /// How its listening sockets are made. A reload that brings other options changes the sockets that
    /// stay, once its first worker has proven itself.
    pub fn sockets(mut self, options: SocketOptions) -> Self {
        self.0.spec.policy.own_queues = options.reuse_port;
        self.0.spec.sockets = options;
        self
    }

    /// Writes the master's pid to a file and locks the file beside it.
    pub fn pidfile(mut self, pidfile: Pidfile) -> Self {
        self.0.pidfile = Some(pidfile);
        self
    }

    /// Which of several masters of the service this is, from 1: the place of one that has ended, say. Without
    /// this it takes the lowest place that is free. If that place is taken, it does not run.
    pub fn instance(mut self, instance: u32) -> Self {
        self.0.instance = Some(instance);
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

    /// The signal that tells a worker that it is stuck, or did not boot in time. The default is SIGABRT,
    /// at which a forked worker leaves word of where it is, and dumps core where that is allowed.
    pub fn abort_signal(mut self, signal: Signal) -> Self {
        self.0.spec.abort_signal = signal;
        self
    }

    /// Replaces a worker after so many requests; 0, the default: never. Of a forked worker the calls
    /// of `handle_request` are counted; a command says it itself, by `REQUESTS=N` at its
    /// `NOTIFY_SOCKET`.
    pub fn max_requests(mut self, requests: u64) -> Self {
        self.0.spec.max_requests = requests;
        self
    }

    /// Whether the `preload` of the workers' code is called once, in the master, before anything is forked:
    /// after the lock was taken, before listeners are opened and signals are caught. The default is no.
    pub fn preload(mut self, is_wanted: bool) -> Self {
        self.0.is_preloaded = is_wanted;
        self
    }

    /// How many threads serve in each worker of the class `thread`
    /// ([`threaded`](Self::threaded)), at least 1, which is the default.
    pub fn threads(mut self, threads: u32) -> Self {
        self.0.spec.threads = threads.max(1);
        self
    }

    /// How many connections each worker of the class `async` has at most at a time; what comes beyond
    /// waits in the queue of the listener. The default is 1000.
    pub fn worker_connections(mut self, connections: u32) -> Self {
        self.0.spec.connections = connections.max(1);
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
    pub fn hooks(mut self, hooks: Rc<dyn Hooks>) -> Self {
        self.0.hooks = hooks;
        self
    }

    /// A command that is run, as the master and beside everything else, when something happens that people
    /// want to know; `PH_EVENT` says what. It has 30 seconds each time.
    pub fn on_event(mut self, command: Command) -> Self {
        self.0.spec.on_event = Some(command);
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

    /// What of the configuration only a restart could apply, in words; empty if that is nothing. A reload to
    /// it is partly done: its clients are told so, with exit code 153.
    pub fn unapplied(mut self, unapplied: String) -> Self {
        self.0.spec.unapplied = unapplied;
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

    /// What the service was made from, such as a file and a section of it: part of its status, so that whoever
    /// finds a master can tell whose it is. No more than some thousand bytes.
    pub fn made_from(mut self, source: impl Into<String>) -> Self {
        self.0.made_from = Some(source.into());
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
