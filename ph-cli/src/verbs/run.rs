//! `run`: a master in the foreground.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ph_config::{Configuration, Loaded, Override, Settings, Source};
use ph_core::{BootReporter, Command, ExitWith, Hooks, LoadRequest, Master, Outcome};

use crate::args::Run;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::source::Place;
use crate::wire::{self, LogOfService, Note, Service};
use crate::{App, Forked};
use crate::{adhoc, source};

/// Runs the service the arguments describe until it is told to stop.
pub(crate) fn run(app: &App, args: &Run) -> Result<ExitCode, Failure> {
    let start = Start::new(app, args)?;
    let (service, warnings) = start.service()?;
    Ok(start.serve(&service, warnings, None)?.into())
}

/// What a start was told, and each reload is told again.
#[derive(Clone)]
pub(super) struct Start {
    program: &'static str,
    forked: Option<Forked>,
    hooks: Option<Rc<dyn Hooks>>,
    args: Run,
    place: Place,
    /// That of the start, even if it was the only one and is not now.
    section: Option<String>,
    /// Which of several masters it is to be, if that is not its own choice.
    instance: Option<u32>,
}

/// Who waits for the start, and how long the workers may take.
pub(super) type Wait = (BootReporter, Option<Duration>);

impl Start {
    pub(super) fn new(app: &App, args: &Run) -> Result<Self, Failure> {
        let (source, section) = (&args.source, args.section.name());
        let is_adhoc = !args.command.is_empty() && source.config.is_none() && section.is_none();
        let place = if is_adhoc { Place::without_file(source)? } else { Place::find(source)? };
        Ok(Self {
            program: app.name,
            forked: app.forked.clone(),
            hooks: app.hooks.clone(),
            args: args.clone(),
            place,
            section: None,
            instance: None,
        })
    }

    /// The same of the master that is to have this number.
    pub(super) fn with_instance(self, instance: Option<u32>) -> Self {
        Self { instance, ..self }
    }

    /// Whether there is no file.
    pub(super) fn is_adhoc(&self) -> bool {
        self.place.file.is_none()
    }

    /// The main file, as it was named.
    pub(super) fn file(&self) -> Option<&Path> {
        self.place.file.as_deref()
    }

    /// By which its master can be told from that of another service that has its name.
    pub(super) fn made_from(&self, settings: &Settings) -> String {
        let of_file = self.place.made_from(settings);
        of_file.unwrap_or_else(|| adhoc::made_from(&self.args.command, &self.place.folder))
    }

    /// Runs the master until it is told to stop.
    pub(super) fn serve(
        mut self,
        service: &Service,
        warnings: Vec<String>,
        boot: Option<Wait>,
    ) -> Result<Exit, Failure> {
        self.section = (!self.is_adhoc()).then(|| service.settings.name().to_owned());
        let is_terminal = boot.is_none() && std::io::stderr().is_terminal();
        let (log, of_log) = LogOfService::open(&service.settings, is_terminal)
            .map_err(|error| service.log_failure(&error))?;
        for warning in warnings.into_iter().chain(of_log) {
            tracing::warn!("{warning}");
        }
        let exit_with = self.args.exit_with.map(ExitWith::from);
        let master = service.master(log, exit_with)?;
        let master = master.made_from(self.made_from(&service.settings));
        let master = self.instance.into_iter().fold(master, Master::instance);
        self.see_trust(service, &master)?;
        // With several sections in one command line a successor has to know which it is to run.
        let master = match self.is_adhoc() {
            true => master,
            false => master.note_for_successor(service.settings.name()),
        };
        let master = match &self.hooks {
            Some(hooks) => master.hooks(Rc::clone(hooks)),
            None => master,
        };
        let master = match boot {
            Some((reporter, limit)) => master.report_boot(reporter, limit),
            None => master,
        };
        let master = master
            .on_reload(move |request| self.reload(request).map_err(|failure| failure.to_string()));
        let mut finished = master.run().map_err(|error| service.run_failure(&error))?;
        let (outcome, why) = (finished.outcome, finished.spawn_failure.take());
        #[expect(
            clippy::mem_forget,
            reason = "a signal on the way out must not change the exit code"
        )]
        std::mem::forget(finished);
        match (outcome, why) {
            (Outcome::NotFound | Outcome::NotExecutable, Some(why)) => {
                Err(service.command_failure(outcome.code(), &why))
            }
            (outcome, _) => Ok(Exit::Code(outcome.code())),
        }
    }

    /// The service as the configuration has it now, and what is to be said about that.
    pub(super) fn service(&self) -> Result<(Service, Vec<String>), Failure> {
        self.service_of(load(&self.args, &self.place)?)
    }

    fn service_of(&self, loaded: Loaded) -> Result<(Service, Vec<String>), Failure> {
        let Loaded { settings, warnings } = loaded;
        let command = wire::command(&settings, &self.args.command);
        let service = Service { settings, command, forked: self.forked.clone() };
        if let Some(failure) = service.without_workers(self.program) {
            return Err(failure);
        }
        if let Some(overwritten) = service.overwritten_programs().into_iter().next() {
            return Err(overwritten);
        }
        let warnings = warnings.iter().map(ToString::to_string).chain(service.warnings());
        let warnings = warnings.collect();
        Ok((service, warnings))
    }

    /// Root executes nothing that others can write, unless it was told to.
    fn see_trust(&self, service: &Service, master: &Master) -> Result<(), Failure> {
        let of_workers = service.untrusted(master).map(|it| (it, service.runs_as_root()));
        let of_events = service.untrusted_event(master).map(|it| (it, true));
        for (untrusted, is_root) in of_workers.into_iter().chain(of_events) {
            if is_root && !self.args.source.allow_writable {
                return Err(untrusted);
            }
            tracing::warn!("{}", untrusted.why());
        }
        Ok(())
    }

    /// The same for a master that runs, in its loader. What needs a restart stays as that master has
    /// it, in all that is derived from it too.
    fn reload(&self, request: &LoadRequest) -> Result<Master, Failure> {
        let (configuration, mut overrides) = read(&self.args, &self.place)?;
        let section = self.section.as_deref();
        let mut loaded = configuration.load(section, &overrides)?;
        let former = Note::parse(request.note());
        let kept = former.as_ref().map_or(Vec::new(), |former| former.kept(&loaded.settings));
        if !kept.is_empty() {
            let flag = "the master as it was started".to_owned();
            overrides.extend(kept.iter().map(|(key, value)| Override {
                key: (*key).to_owned(),
                value: escape(value),
                flag: flag.clone(),
            }));
            loaded = configuration.load(section, &overrides)?;
        }
        let (service, mut warnings) = self.service_of(loaded)?;
        wire::limits(&service.settings, &mut warnings);
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let changes = former
            .as_ref()
            .map_or(String::new(), |former| former.changes(&Note::of(&service.settings), &kept));
        let master = service.next_generation()?.changes(changes).unapplied(wire::unapplied(&kept));
        self.see_trust(&service, &master)?;
        Ok(master.explain(move |error| service.run_failure(error).to_string()))
    }
}

fn load(args: &Run, place: &Place) -> Result<Loaded, Failure> {
    let (configuration, overrides) = read(args, place)?;
    if let Some(name) = args.section.name() {
        let found = configuration.section(Some(name));
        found.map_err(|errors| Failure::no_section(&errors, Some(name)))?;
    }
    Ok(configuration.load(args.section.name(), &overrides)?)
}

/// Reads the files, and says what the command line sets.
fn read(args: &Run, place: &Place) -> Result<(Configuration, Vec<Override>), Failure> {
    let mut overrides = Vec::new();
    let mut add = |key: &str, value: String, flag: &str| {
        overrides.push(Override { key: key.to_owned(), value, flag: flag.to_owned() });
    };
    let program = Command::new(&args.command).base_name().unwrap_or_default();
    let default_name = adhoc::service_name(&program);
    if place.file.is_none() {
        const FLAG: &str = "run without a file";
        add("single_instance", "false".to_owned(), FLAG);
        if !args.source.set.iter().any(|(key, _)| ["base_path", "pidfile"].contains(&key.as_str()))
        {
            let pidfile = runtime_folder()?.join(format!("{default_name}.pid"));
            add("pidfile", escape(&pidfile.to_string_lossy()), FLAG);
        }
    }
    overrides.extend(source::overrides(&args.source));
    let mut add = |key: &str, value: String, flag: &str| {
        overrides.push(Override { key: key.to_owned(), value, flag: flag.to_owned() });
    };
    if let Some(number) = &args.number_workers {
        add("number_workers", number.clone(), "-n");
    }
    if !args.bind.is_empty() {
        add("bind", args.bind.join(","), "-b");
    }
    match args.verbose {
        0 if args.quiet => add("log_level", "warn".to_owned(), "-q"),
        0 => {}
        1 => add("log_level", "debug".to_owned(), "-v"),
        2.. => add("log_level", "trace".to_owned(), "-vv"),
    }
    if !args.command.is_empty() {
        let words: Vec<_> = args.command.iter().map(|word| word.to_string_lossy()).collect();
        overrides.push(Override::command(words.iter().map(AsRef::as_ref), "--"));
    }
    let configuration = Source { default_name: &default_name, ..place.source() }.read()?;
    Ok((configuration, overrides))
}

fn runtime_folder() -> Result<PathBuf, Failure> {
    adhoc::runtime_folder().map_err(|error| {
        Failure::new(Exit::Failed, format!("no place for the pidfile: {error}"))
            .remedy("choose one with --set base_path=FOLDER")
    })
}

/// A path is text, not a pattern: its percent signs mean themselves.
fn escape(text: &str) -> String {
    text.replace('%', "%%")
}
