//! Settings become a master and a log: the only place that sees all three crates.

use std::ffi::OsString;
use std::str::FromStr as _;
use std::time::Duration;

use ph_config::{Amount, LogTarget, Origin, Ready, Settings, WorkerClass};
use ph_core::{
    Account, Command, ExitWith, KillMode, Master, OnCrashLoop, Pidfile, Readiness, RunError, Share,
    Signal,
};

use crate::Forked;
use crate::exit::Exit;
use crate::failure::Failure;
pub(crate) use log_process::{LogOfService, limits};
use log_settings::LogSettings;
pub(crate) use note::{Note, unapplied};

mod conditions;
pub(crate) mod control;
mod listening;
mod log_process;
mod log_settings;
mod note;
mod own_files;
mod rehearsal;
mod remedies;

/// How long a forked worker with listeners may be silent, unless `timeout` says otherwise
/// (gunicorn's default).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// A service as it will run.
pub(crate) struct Service {
    pub(crate) settings: Settings,
    /// What its workers execute.
    pub(crate) command: Option<Command>,
    /// What they are if there is no command.
    pub(crate) forked: Option<Forked>,
}

impl Service {
    /// The master.
    ///
    /// # Errors
    ///
    /// Users, groups and variables that cannot be had.
    pub(crate) fn master(
        &self,
        log: LogOfService,
        exit_with: Option<ExitWith>,
    ) -> Result<Master, Failure> {
        let account = conditions::account(self)?;
        let owner = self.socket_owner()?;
        let control = control::socket(self)?;
        let master = self.silent_master(account, owner).logging(log);
        let master = control.into_iter().fold(master, Master::control);
        Ok(master.policy(|policy| policy.exit_with = exit_with))
    }

    /// A master of which only the workers and the settings of the log count: what a reload makes of
    /// this configuration.
    ///
    /// # Errors
    ///
    /// Users, groups and variables that cannot be had, and a log that cannot be opened.
    pub(crate) fn next_generation(&self) -> Result<Master, Failure> {
        if let LogTarget::File(path) = &self.settings.log_file {
            ph_log::probe(path).map_err(|error| self.log_failure(&error))?;
        }
        Ok(self.silent_master(conditions::account(self)?, self.socket_owner()?))
    }

    /// The master without its log.
    fn silent_master(&self, account: Option<Account>, owner: Option<Account>) -> Master {
        let master = conditions::apply(self, self.plain_master(), account)
            .sockets(self.socket_options(owner))
            .note(Note::of(&self.settings).text())
            .log_settings(LogSettings::of(&self.settings).text());
        match self.settings.on_event.as_slice() {
            [] => master,
            words => master.on_event(Command::new(words)),
        }
    }

    /// Where its pid goes.
    pub(crate) fn pidfile(&self) -> Pidfile {
        pidfile(&self.settings)
    }

    fn plain_master(&self) -> Master {
        let settings = &self.settings;
        let name = settings.proc_name.as_str();
        let addresses = self.addresses();
        let has_listeners = !addresses.is_empty();
        let (master, is_forked) = match (&self.command, &self.forked) {
            (None, Some(forked)) => ((forked.make_master)(name), true),
            (command, _) => (Master::command(name, command.clone().unwrap_or_default()), false),
        };
        let timeout = match settings.timeout {
            None if is_forked && has_listeners => Some(DEFAULT_TIMEOUT),
            None => None,
            Some(timeout) => above_zero(timeout),
        };
        let probe = self.command.as_ref().and_then(|_| self.probe());
        let master = probe.into_iter().fold(master, Master::probe);
        addresses
            .into_iter()
            .fold(master, Master::bind)
            .policy(|policy| {
                policy.target = settings.workers();
                policy.max_workers = settings.max_workers;
                policy.drain_delay = settings.drain_delay;
                policy.graceful_timeout = settings.graceful_timeout;
                policy.timeout = timeout;
                policy.boot_timeout = Some(settings.boot_timeout);
                policy.min_uptime = settings.min_uptime;
                policy.backoff_min = settings.backoff_min;
                policy.backoff_max = settings.backoff_max;
                policy.max_restarts = settings.max_restarts;
                policy.restart_window = settings.restart_window;
                policy.reload_surge = share(settings.reload_surge);
                policy.max_unavailable = share(settings.max_unavailable);
                policy.canary_hold = settings.canary_hold;
                policy.max_age = above_zero(settings.kill_interval);
                policy.max_age_jitter = settings.kill_interval_jitter;
                policy.max_memory = Some(settings.max_memory).filter(|bytes| *bytes > 0);
                policy.memory_check_interval = settings.memory_check_interval;
                policy.upgrade_timeout = settings.upgrade_timeout;
                policy.ready_interval = settings.ready_interval;
                policy.on_crash_loop = match settings.on_crash_loop {
                    ph_config::OnCrashLoop::Retry => OnCrashLoop::Retry,
                    ph_config::OnCrashLoop::Exit => OnCrashLoop::Exit,
                };
            })
            .readiness(match settings.ready {
                Ready::Notify => Readiness::Reported,
                Ready::Probe(_) | Ready::Exec(_) => Readiness::Probed,
                Ready::Spawned => Readiness::Spawned,
            })
            .pidfile(self.pidfile())
            .directory(settings.directory.as_ref().unwrap_or(&settings.base_path))
            .kill_mode(match settings.kill_mode {
                ph_config::KillMode::Tree => KillMode::Tree,
                ph_config::KillMode::Group => KillMode::Group,
                ph_config::KillMode::Process => KillMode::Process,
            })
            .stop_signal(signal(settings.stop_signal.as_str(), Signal::SIGTERM))
            .abort_signal(signal(settings.abort_signal.as_str(), Signal::SIGABRT))
            .preload(settings.preload)
            .threads(self.threads())
            .worker_connections(settings.connections())
            .max_requests(settings.max_requests)
            .max_requests_jitter(settings.max_requests_jitter)
            .capture_output(settings.capture_output.unwrap_or(!is_forked))
            .app(settings.app.clone())
    }

    /// What the settings ask for and this service cannot give.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        let useless = self.useless().into_iter();
        useless.map(|(key, why)| format!("{}: {why}", self.settings.origin(key)))
    }

    /// How many threads serve in each worker.
    fn threads(&self) -> u32 {
        match self.settings.worker_class {
            Some(WorkerClass::Sync) => 1,
            Some(WorkerClass::Command | WorkerClass::Thread | WorkerClass::Async) | None => {
                self.settings.threads
            }
        }
    }

    /// What is legal and has no effect, by its key.
    fn useless(&self) -> Vec<(&'static str, String)> {
        let Settings { ready, ready_interval, .. } = &self.settings;
        let is_probe = matches!(ready, Ready::Probe(_) | Ready::Exec(_));
        let is_set = |key| self.settings.origin(key) != Origin::Default;
        let mut useless = Vec::new();
        if self.command.is_none() && *ready != Ready::Spawned {
            let why = "a worker of the program's own is ready when init_process has returned";
            useless.push(("ready", format!("ready = {ready} has no effect: {why}")));
        }
        let class = match (&self.command, &self.forked, self.settings.worker_class) {
            (None, Some(_), Some(WorkerClass::Sync)) => WorkerClass::Sync,
            (None, Some(forked), _) => forked.class,
            (Some(_), _, _) | (None, None, _) => WorkerClass::Command,
        };
        let of_classes = [
            ("threads", WorkerClass::Thread),
            ("worker_connections", WorkerClass::Async),
            ("max_greenlets", WorkerClass::Async),
        ];
        for (key, of) in of_classes {
            if class != of && is_set(key) {
                let why = format!("the workers are of the class {class}, and it is for {of}");
                useless.push((key, format!("{key} has no effect: {why}")));
            }
        }
        if self.settings.preload && class == WorkerClass::Command {
            useless.push(("preload", "preload has no effect: the workers are commands".to_owned()));
        }
        if !is_probe && is_set("ready_interval") {
            let why = "nothing is probed";
            let text = format!("ready_interval = {ready_interval:?} has no effect: {why}");
            useless.push(("ready_interval", text));
        }
        useless.extend(self.useless_of_sockets());
        useless
    }

    /// What asks whether a worker is ready: the program itself, where an address is to be tried.
    fn probe(&self) -> Option<Command> {
        let words: Vec<OsString> = match &self.settings.ready {
            Ready::Spawned | Ready::Notify => return None,
            Ready::Exec(words) => words.iter().map(OsString::from).collect(),
            Ready::Probe(target) => {
                // It is there, because it runs; what it is called by now does not matter.
                let own = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
                vec![own.into_os_string(), "probe".into(), target.into()]
            }
        };
        Some(Command::new(words).expand_with(conditions::bind_late))
    }

    /// Why this program has no workers for the service, if it has none.
    pub(crate) fn without_workers(&self, program: &str) -> Option<Failure> {
        let own = self.forked.as_ref().map(|forked| forked.class);
        let Some(is) = self.command.as_ref().map_or(own, |_| Some(WorkerClass::Command)) else {
            return Some(self.nothing_to_run(program));
        };
        let wanted = self.settings.worker_class?;
        // One thread is as good as none.
        let is_it = wanted == is || (wanted, is) == (WorkerClass::Sync, WorkerClass::Thread);
        let failure = |why: String| self.failure(Exit::Config, &why, "worker_class");
        let remedy = format!("worker_class = {is}, or take the line out");
        (!is_it).then(|| failure(format!("the workers are of the class {is}")).remedy(remedy))
    }

    /// Neither a command nor a worker of the program's own.
    fn nothing_to_run(&self, program: &str) -> Failure {
        let attempt = format!("cannot run {}", self.settings.name());
        let failure = Failure::new(Exit::Config, "it has no command").attempt(attempt);
        let failure = match self.settings.header() {
            Some(line) => failure.set_by(format!("{line} [{}]", self.settings.name())),
            None => failure,
        };
        failure.remedy(format!(
            "set `command` in its section, or name it here: {program} run … -- CMD ARGS…"
        ))
    }

    /// A failure that the value of `key` led to.
    pub(crate) fn failure(&self, code: Exit, why: &str, key: &str) -> Failure {
        self.plain_failure(code, why).value(self.settings.origin(key), key)
    }

    /// A failure that no key led to.
    fn plain_failure(&self, code: Exit, why: &str) -> Failure {
        Failure::new(code, why).attempt(format!("cannot start {}", self.settings.name()))
    }

    /// The command does not run, as seen before any worker was ready.
    pub(crate) fn command_failure(&self, code: u8, why: &str) -> Failure {
        let failure = self.failure(Exit::Code(code), why, "command");
        failure.remedy(remedies::of_command(self, code, why))
    }

    /// Why the master did not run.
    pub(crate) fn run_failure(&self, error: &RunError) -> Failure {
        let (code, why) = (error.code(), error.to_string());
        let failure = |key: &str| self.failure(Exit::Code(code), &why, key);
        match error {
            RunError::Command(_) => self.command_failure(code, &why),
            RunError::AlreadyRunning { .. } => failure("single_instance")
                .remedy("stop the one that runs, or set single_instance = false"),
            RunError::File { path, what, .. } => {
                let folder = path.parent().unwrap_or(path).display();
                let is_control = *what == "control socket";
                failure(if is_control { "control_socket" } else { "pidfile" })
                    .remedy(format!("ls -ld {folder}"))
            }
            RunError::Listen { address, .. } => {
                failure(self.listen_key(address)).remedy(remedies::of_address(address, &why))
            }
            RunError::OnEvent(_) => failure("on_event")
                .remedy("name a program that the master can execute, with its folder"),
            RunError::AppKey { key } => failure(&format!("app_{key}")),
            RunError::Preload { .. } => failure("preload"),
            RunError::Conditions { condition, .. } => {
                conditions::failure(self, condition, Exit::Code(code), &why)
            }
            RunError::Threads { .. } | RunError::System { .. } => {
                self.plain_failure(Exit::Code(code), &why)
            }
            RunError::Panicked => Failure::new(Exit::Code(code), why)
                .remedy("report it, with the log; start it again"),
        }
    }
}

/// What the workers execute: the words after `--` as they stand, else the setting.
pub(crate) fn command(settings: &Settings, words: &[OsString]) -> Option<Command> {
    let words: Vec<OsString> = match words {
        [] => settings.command.iter().map(OsString::from).collect(),
        words => words.to_vec(),
    };
    (!words.is_empty()).then(|| Command::new(words).expand_with(conditions::bind_late))
}

/// Where the pids of a service's masters go.
pub(crate) fn pidfile(settings: &Settings) -> Pidfile {
    Pidfile { path: settings.pidfile.clone(), single_instance: settings.single_instance }
}

/// A span of which zero means that there is none.
fn above_zero(span: Duration) -> Option<Duration> {
    Some(span).filter(|span| !span.is_zero())
}

fn share(amount: Amount) -> Share {
    match amount {
        Amount::Count(count) => Share::Count(count),
        Amount::Percent(percent) => Share::Percent(percent.into()),
    }
}

/// The signal of this name; both lists have the same names.
fn signal(name: &str, otherwise: Signal) -> Signal {
    Signal::from_str(&format!("SIG{name}")).unwrap_or(otherwise)
}
