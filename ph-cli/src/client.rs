//! The client's side: which masters are meant, where they can be asked, and why they cannot.
//!
//! A master is known by its lock, never by a number in a file. A user who may not look at the lock may
//! still be one who may ask; then the socket decides.

mod follow;
mod former;
mod signal;
mod status;
mod target;
mod tell;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ph_config::Settings;
use ph_core::control::{Client, Request};
use ph_core::{ControlSocket, Pidfile, Running};

use crate::args::{ReachArgs, SourceArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::verbs::config::{Complaint, Opened};
use crate::verbs::logs;
use crate::wire;

use follow::refusal;
pub(crate) use follow::{Answer, Follow, follow};
pub(crate) use target::Target;
pub(crate) use tell::{Order, Told, stop_waves};

/// A service that somebody asks about.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// Its section; of a master that is reached by its socket alone, not known before it answers.
    pub(crate) name: String,
    /// The configuration file, as it was named.
    pub(crate) config: Option<PathBuf>,
    /// How long its stop may take as it is configured, if that is known.
    pub(crate) stop_limit: Option<Duration>,
    /// The services that it needs while it runs.
    pub(crate) depends_on: Vec<String>,
    /// All of its settings, if its section was read whole.
    settings: Option<Box<Settings>>,
    pidfile: Option<Pidfile>,
    socket: Option<ControlSocket>,
    /// What of it is meant.
    pub(crate) target: Target,
}

/// A master that runs, or may.
#[derive(Clone, Debug)]
pub(crate) struct Master {
    pub(crate) instance: u32,
    pub(crate) pid: Option<i32>,
    /// Where it can be asked; nowhere if its socket is off.
    pub(crate) socket: Option<PathBuf>,
}

/// What has to be known of a service to find its masters.
const TO_FIND: [&str; 4] = ["base_path", "pidfile", "control_socket", "single_instance"];

/// Finds the services that the arguments mean, also with a configuration that would not start.
pub(crate) fn services(
    targets: &[String],
    reach: &ReachArgs,
    source: &SourceArgs,
    complaint: Complaint,
) -> Result<Vec<Service>, Failure> {
    let targets = Target::all(targets.iter().chain(&reach.sections))?;
    if reach.socket.is_some() || reach.pidfile.is_some() {
        return Ok(vec![Service::by_path(reach, targets.into_iter().next())]);
    }
    of_file(targets, source, complaint).map_err(|failure| {
        let way = "name its files, which needs no configuration: --pidfile PATH or --socket PATH";
        if failure.code == Exit::Config { failure.or_else(way) } else { failure }
    })
}

fn of_file(
    targets: Vec<Target>,
    source: &SourceArgs,
    complaint: Complaint,
) -> Result<Vec<Service>, Failure> {
    let opened = Opened::new(source)?;
    let targets: Vec<Target> = match targets {
        targets if !targets.is_empty() => targets,
        _ => opened.configuration.sections().iter().map(|name| Target::of(name)).collect(),
    };
    let targets = match targets {
        targets if !targets.is_empty() => targets,
        _ => vec![Target::of(opened.section(None)?)],
    };
    let names = targets.iter().map(|target| opened.section(Some(&target.name)));
    let names: Vec<_> = names.collect::<Result<_, _>>()?;
    let all = opened.salvage(&names, source, &TO_FIND, complaint)?;
    let file = opened.file();
    let found = all.iter().zip(targets).map(|(it, target)| {
        let service = Service::of(it, target, file);
        match opened.made_from(it) {
            Some(made_from) => service.where_it_runs(it, &made_from),
            None => service,
        }
    });
    Ok(found.collect())
}

impl Service {
    pub(crate) fn of(settings: &Settings, target: Target, config: Option<&Path>) -> Self {
        // Several may run from a time when that was allowed.
        let pidfile = Pidfile { single_instance: false, ..wire::pidfile(settings) };
        Self {
            name: settings.name().to_owned(),
            config: config.map(Path::to_owned),
            stop_limit: Some(settings.drain_delay.saturating_add(settings.graceful_timeout)),
            depends_on: settings.depends_on.clone(),
            settings: Some(Box::new(settings.clone())),
            pidfile: Some(pidfile),
            socket: wire::control::place(settings),
            target,
        }
    }

    fn by_path(reach: &ReachArgs, target: Option<Target>) -> Self {
        let path = reach.socket.as_ref().or(reach.pidfile.as_ref());
        let stem = path.and_then(|path| path.file_stem()).unwrap_or_default();
        let name = stem.to_string_lossy().into_owned();
        let pidfile = reach.pidfile.clone();
        Self {
            target: target.unwrap_or_else(|| Target::of(&name)),
            name,
            config: None,
            stop_limit: None,
            depends_on: Vec::new(),
            settings: None,
            pidfile: pidfile.map(|path| Pidfile { path, single_instance: false }),
            socket: Some(ControlSocket { path: reach.socket.clone(), allow: Vec::new() }),
        }
    }

    /// One of its instances.
    pub(crate) fn only(&self, instance: u32) -> Self {
        let target = Target { instance: Some(instance), ..self.target.clone() };
        Self { target, ..self.clone() }
    }

    /// Its masters that run, as far as that can be told.
    pub(crate) fn masters(&self) -> Result<Vec<Master>, Failure> {
        let wanted = self.target.instance;
        let running = match self.pidfile.as_ref().map(Pidfile::running) {
            Some(Ok(running)) => running,
            Some(Err(error)) if error.kind() != io::ErrorKind::PermissionDenied => {
                let lock = self.lock().unwrap_or_default();
                let why = format!("{}: {error}", lock.display());
                return Err(Failure::new(Exit::Failed, why).attempt(self.attempt("look for")));
            }
            Some(Err(_)) | None => vec![Running { instance: wanted.unwrap_or(1), pid: None }],
        };
        let meant = running.into_iter().filter(|it| wanted.is_none_or(|it2| it2 == it.instance));
        let master = |Running { instance, pid }| Master {
            instance,
            pid,
            socket: self.socket.as_ref().and_then(|it| it.path_of(self.pidfile.as_ref(), instance)),
        };
        Ok(meant.map(master).collect())
    }

    /// The only master that is meant.
    pub(crate) fn only_master(&self, verb: &str) -> Result<Master, Failure> {
        let mut masters = self.masters()?;
        match (masters.len(), masters.pop()) {
            (0, _) | (_, None) => Err(self.not_running(verb)),
            (1, Some(master)) => Ok(master),
            (count, Some(last)) => {
                let failure = Failure::new(Exit::Usage, format!("{count} masters of it run"));
                let remedy = format!("name one, as {}@{}", self.name, last.instance);
                Err(failure.attempt(self.attempt(verb)).remedy(remedy))
            }
        }
    }

    /// The last that one of its workers printed, if there is one.
    fn last_lines_of(&self, worker: Option<u32>) -> Vec<String> {
        let found = self.settings.as_ref().zip(worker);
        found.map(|(settings, pid)| logs::last_lines_of(settings, pid)).unwrap_or_default()
    }

    /// Its lock file.
    pub(crate) fn lock(&self) -> Option<PathBuf> {
        self.pidfile.as_ref().map(Pidfile::lock)
    }

    /// Its pidfile.
    pub(crate) fn pidfile(&self) -> Option<&Path> {
        self.pidfile.as_ref().map(|pidfile| pidfile.path.as_path())
    }

    /// Whether this very master still runs.
    pub(crate) fn still_runs(&self, master: &Master) -> bool {
        let running = self.pidfile.as_ref().map(Pidfile::running);
        let Some(Ok(running)) = running else { return false };
        running.iter().any(|it| it.instance == master.instance && it.pid == master.pid)
    }

    /// How an instance is called.
    pub(crate) fn name_of(&self, instance: u32) -> String {
        if instance > 1 { format!("{}@{instance}", self.name) } else { self.name.clone() }
    }

    fn attempt(&self, verb: &str) -> String {
        format!("cannot {verb} {}", self.name)
    }

    /// Nobody is there.
    pub(crate) fn not_running(&self, verb: &str) -> Failure {
        // Each instance has a lock of its own.
        let lock = self.lock().map(|lock| match self.target.instance {
            Some(instance) if instance > 1 => lock.with_extension(format!("{instance}.lock")),
            _ => lock,
        });
        let why = match (lock, self.socket.as_ref().and_then(|it| it.path.as_ref())) {
            (Some(lock), _) => format!("no master holds {}", lock.display()),
            (None, Some(socket)) => format!("no master listens on {}", socket.display()),
            (None, None) => "no master runs".to_owned(),
        };
        let name = self.name_of(self.target.instance.unwrap_or(1));
        let failure = Failure::new(Exit::NotRunning, why).attempt(format!("cannot {verb} {name}"));
        match &self.config {
            Some(file) if verb == "stop" => {
                failure.remedy(format!("ph status -c {}", file.display()))
            }
            Some(file) => failure.remedy(to_start(Some(file), &self.name)),
            None => failure,
        }
    }

    /// Asks a master.
    pub(crate) fn ask(
        &self,
        master: &Master,
        request: &Request,
        verb: &str,
    ) -> Result<Client, Failure> {
        let failed = |code, why: String| Failure::new(code, why).attempt(self.attempt(verb));
        let without_socket = |why: String| {
            let failure = failed(Exit::Failed, why);
            match master.pid {
                Some(pid) => failure.remedy(signal::instead_of(request, pid)),
                None => failure,
            }
        };
        let Some(path) = &master.socket else {
            return Err(without_socket("its control socket is off".to_owned()));
        };
        Client::ask(path, request).map_err(|error| {
            let why = format!("{}: {error}", path.display());
            if GONE.contains(&error.kind()) && master.pid.is_none() {
                return self.not_running(verb);
            }
            if GONE.contains(&error.kind()) {
                return without_socket(why);
            }
            if error.kind() == io::ErrorKind::PermissionDenied {
                return failed(Exit::NotPermitted, why)
                    .remedy("be its user or root, or be named in control_allow");
            }
            failed(Exit::Failed, why).remedy(match master.pid {
                Some(pid) => format!("ps -fp {pid}"),
                None => format!("ls -l {}", path.display()),
            })
        })
    }
}

/// How a service is started.
pub(crate) fn to_start(file: Option<&Path>, name: &str) -> String {
    match file {
        Some(file) => format!("ph start -c {} {name}", file.display()),
        None => format!("ph start {name}"),
    }
}

/// What connecting comes to where nobody listens.
const GONE: [io::ErrorKind; 2] = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
