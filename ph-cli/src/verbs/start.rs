//! `start`, `restart`, and no verb at all: masters in the background, one for each section.
//!
//! Each is started by a process of its own and waited for by this one, which tells what came of it. What is
//! wrong with any section is said before the first is started. A successor of such a master is started with the
//! same command line; it is in the background already, and runs the one section it was told.

mod restart;
mod tell;
mod watch;

use std::os::unix::fs::MetadataExt as _;
use std::process::ExitCode;
use std::time::Duration;

use ph_config::{LogTarget, start_order};
use ph_core::{BootReporter, Detached};

use super::config::Opened;
use super::run;
use crate::App;
use crate::args::{Bare, Start, WaitArgs};
use crate::client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::wire::Service;
pub(crate) use restart::restart;
use tell::{Started, Tell};
use watch::Watch;

/// Starts the sections the arguments name, or all that are to start by themselves.
pub(crate) fn start(app: &App, args: &Start) -> Result<ExitCode, Failure> {
    if ph_core::is_successor() {
        return succeed(app, args);
    }
    let services = Prepared::all(app, args, &args.sections.names(), |it| it.settings.autostart)?;
    match refuse(app, args, &services, &[])? {
        Some(code) => Ok(code),
        None => start_all(app, &services, &args.wait),
    }
}

/// What the original's `run.py` did: in the background if the section has `daemonize`, else here.
pub(crate) fn bare(app: &App, args: Bare) -> Result<ExitCode, Failure> {
    if ph_core::is_successor() {
        return run::run(app, &args.run());
    }
    let settings = run::Start::new(app, &args.run())?.service()?.0.settings;
    match settings.daemonize {
        // It is named, whether it was or is the only one.
        true => start(app, &args.into_start(settings.name())),
        false => run::run(app, &args.run()),
    }
}

/// Takes over from a master that was started by the same command line.
fn succeed(app: &App, args: &Start) -> Result<ExitCode, Failure> {
    let note = ph_core::note_of_predecessor();
    let only = args.sections.names().into_iter().next();
    run::run(app, &args.of_section(note.as_deref().or(only)))
}

/// A section that can be started, as far as is known.
struct Prepared {
    start: run::Start,
    service: Service,
    warnings: Vec<String>,
    /// The masters that it is to have, by their numbers; one of any number if it is not said.
    instances: Vec<Option<u32>>,
}

impl Prepared {
    /// Those that are named, or else those of which `is_meant` is true, in the order in which they are started.
    fn all(
        app: &App,
        args: &Start,
        names: &[&str],
        is_meant: impl Fn(&Service) -> bool,
    ) -> Result<Vec<Self>, Failure> {
        let is_named = !names.is_empty();
        let is_adhoc = !args.command.is_empty() && args.source.config.is_none() && !is_named;
        if is_adhoc {
            return Ok(vec![Self::new(app, args, None)?]);
        }
        let opened = Opened::new(&args.source)?;
        let names = if is_named { names.to_vec() } else { opened.sections(&args.sections)? };
        let mut all = Vec::new();
        for name in names {
            opened.section(Some(name))?;
            let prepared = Self::new(app, args, Some(name))?;
            if is_named || is_meant(&prepared.service) {
                all.push(prepared);
            }
        }
        if all.is_empty() {
            let why = "no section has autostart, and none is named";
            return Err(Failure::new(Exit::Config, why).remedy(format!("{} start NAME", app.name)));
        }
        let settings: Vec<_> = all.iter().map(|it| &it.service.settings).collect();
        let order = start_order(&settings)?;
        let mut all: Vec<_> = all.into_iter().map(Some).collect();
        Ok(order.into_iter().filter_map(|place| all[place].take()).collect())
    }

    fn new(app: &App, args: &Start, section: Option<&str>) -> Result<Self, Failure> {
        let start = run::Start::new(app, &args.of_section(section))?;
        let (service, warnings) = start.service()?;
        Ok(Self { start, service, warnings, instances: vec![None] })
    }

    /// The service as clients see it: all of it, or one instance.
    fn asked(&self, instance: Option<u32>) -> client::Service {
        let target = client::Target { instance, ..client::Target::of(self.name()) };
        client::Service::of(&self.service.settings, target, self.start.file())
    }

    /// By which its masters can be told from others that have its name.
    fn made_from(&self) -> String {
        self.start.made_from(&self.service.settings)
    }

    /// A master that runs although none may run beside it, and has another pidfile.
    fn former(&self) -> Option<Failure> {
        let settings = &self.service.settings;
        if !settings.single_instance {
            return None;
        }
        let (there, master) = self.asked(None).former(settings, &self.made_from())?;
        let (pid, path) = (master.pid.unwrap_or_default(), there.pidfile()?.display());
        let why = format!("it is running already (pid {pid}), with another pidfile: {path}");
        let failure = self.service.failure(Exit::Code(tell::ALREADY_RUNNING), &why, "pidfile");
        Some(failure.remedy("ph restart, which stops that one first"))
    }

    fn name(&self) -> &str {
        self.service.settings.name()
    }
}

/// Whatever can be looked up is, before anything is stopped or started: what would keep any of the services
/// from starting keeps all. `leaving` are the masters that will be stopped first. None if nothing was found.
fn refuse(
    app: &App,
    args: &Start,
    services: &[Prepared],
    leaving: &[i32],
) -> Result<Option<ExitCode>, Failure> {
    let mut tell = Tell::new(app.name, args.wait.json);
    let mut is_refused = false;
    for prepared in services {
        let service = &prepared.service;
        let rehearse = || service.rehearse(app.name, args.source.allow_writable, leaving);
        let mut outlook = rehearse();
        let running = service.pidfile().running().unwrap_or_default();
        if !outlook.problems.is_empty() && running != outlook.running {
            // A master that has come or gone meanwhile, and what it listens on, is no problem.
            outlook = rehearse();
        }
        // It is left alone: that it runs already is what the start says of it.
        if service.settings.single_instance && !running.is_empty() && leaving.is_empty() {
            continue;
        }
        // Programs are told one reason for each service.
        let most = if args.wait.json { 1 } else { usize::MAX };
        for problem in outlook.problems.into_iter().take(most) {
            is_refused = true;
            tell.tell(prepared.name(), &Started::Failed(Box::new(problem), Vec::new()))?;
        }
    }
    is_refused.then(|| tell.finish()).transpose()
}

fn start_all(app: &App, services: &[Prepared], wait: &WaitArgs) -> Result<ExitCode, Failure> {
    let mut tell = Tell::new(app.name, wait.json);
    for prepared in services {
        let wanted = &prepared.service.settings.depends_on;
        let missing = wanted.iter().find(|it| tell.has_failed(it)).map(|missing| {
            let why = format!("{missing}, which it depends on, is not ready");
            prepared.service.failure(Exit::Failed, &why, "depends_on")
        });
        if let Some(failure) = missing.or_else(|| prepared.former()) {
            tell.tell(prepared.name(), &Started::Failed(Box::new(failure), Vec::new()))?;
            continue;
        }
        for warning in &prepared.warnings {
            output::note(&format!("warning: {}", ph_config::Escaped(warning)));
        }
        for instance in &prepared.instances {
            match launch(prepared, *instance, wait)? {
                Launched::Here(started) => tell.tell(prepared.name(), &started)?,
                // This is the master, and it has ended.
                Launched::InBackground(exit) => return Ok(exit.into()),
            }
        }
    }
    tell.finish()
}

/// Which process comes back from a launch.
enum Launched {
    /// The one that has waited.
    Here(Started),
    /// The one that was the master.
    InBackground(Exit),
}

fn launch(
    prepared: &Prepared,
    instance: Option<u32>,
    wait: &WaitArgs,
) -> Result<Launched, Failure> {
    let Prepared { start, service, warnings, .. } = prepared;
    let keeps_stderr = keeps_stderr(service);
    let detached = ph_core::detach().map_err(|error| service.run_failure(&error))?;
    match detached {
        Detached::Caller(watch) => {
            let watch = Watch::new(watch, service, wait);
            Ok(Launched::Here(watch.watch()))
        }
        Detached::Background(reporter) => {
            let limit = wait.timeout;
            let start = start.clone().with_instance(instance);
            let warnings = warnings.clone();
            let exit = in_background(start, service, warnings, (reporter, limit), keeps_stderr);
            Ok(Launched::InBackground(exit))
        }
    }
}

/// Runs the master; what keeps it from that, and how it ended, is told to whoever waits.
fn in_background(
    start: run::Start,
    service: &Service,
    warnings: Vec<String>,
    (reporter, limit): (BootReporter, Option<Duration>),
    keeps_stderr: bool,
) -> Exit {
    let left = reporter.leave_outputs(keeps_stderr).map_err(|error| service.run_failure(&error));
    let ended = left.and_then(|()| start.serve(service, warnings, Some((reporter.clone(), limit))));
    match ended {
        Ok(exit) => {
            reporter.tell(&watch::Ending::of_exit(exit).to_text());
            exit
        }
        Err(failure) => {
            reporter.tell(&watch::Ending::of_failure(&failure).to_text());
            failure.code
        }
    }
}

/// Whether a log on stderr goes on there: into a file, or the journal of the system. A terminal, or a pipe that
/// somebody reads until its end, is given back; then the log goes nowhere.
fn keeps_stderr(service: &Service) -> bool {
    if service.settings.log_file != LogTarget::Stderr {
        return false;
    }
    let stderr = std::fs::metadata("/proc/self/fd/2").ok();
    let is_journal = |it: &std::fs::Metadata| {
        let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        named == format!("{}:{}", it.dev(), it.ino())
    };
    let is_kept = stderr.as_ref().is_some_and(|it| it.is_file() || is_journal(it));
    if !is_kept {
        let name = service.settings.name();
        let text = format!(
            "warning: the log of {name} goes nowhere: in the background it has no stderr; set log_file"
        );
        output::note(&ph_config::Escaped(&text).to_string());
    }
    is_kept
}
