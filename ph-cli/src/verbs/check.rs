//! `check`: everything that would keep services from starting, known without starting them.
//!
//! Each section is loaded and rehearsed by itself; then what sections have in common is looked at. No
//! failure ends the pass, so that a file is edited once.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ph_config::{ConfigErrors, Configuration, Loaded, Problem};

use crate::App;
use crate::args::Check;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::source::{self, Place};
use crate::wire::{self, Outlook, Service};

mod output;
mod shared;

/// What was found out about one section, or, without a name, about the file.
#[derive(Default)]
struct Checked {
    name: Option<String>,
    /// There is none if the section could not be loaded.
    service: Option<Service>,
    outlook: Outlook,
}

impl Checked {
    fn refused(name: Option<&str>, problems: Vec<Failure>) -> Self {
        let outlook = Outlook { problems, ..Outlook::default() };
        Self { name: name.map(str::to_owned), service: None, outlook }
    }

    fn is_ok(&self) -> bool {
        self.service.is_some() && self.outlook.problems.is_empty()
    }
}

/// Checks the sections the arguments name, or all.
pub(crate) fn check(app: &App, args: &Check) -> Result<ExitCode, Failure> {
    let place = match Place::find(&args.source) {
        Ok(place) => place,
        Err(failure) if args.json => {
            output::print_json(None, &[Checked::refused(None, vec![failure])])?;
            return Ok(Exit::Config.into());
        }
        Err(failure) => return Err(failure),
    };
    let mut pass = Pass { app, args, told: Vec::new() };
    let checked = match place.source().read() {
        Ok(configuration) => pass.check_all(&configuration),
        Err(errors) => vec![pass.refuse(None, errors)],
    };
    match args.json {
        true => output::print_json(place.file.as_deref(), &checked)?,
        false => output::print(app.name, &place.folder, &checked)?,
    }
    Ok(verdict(&checked).into())
}

/// A section that is not there has a code of its own, if nothing else is wrong.
fn verdict(checked: &[Checked]) -> Exit {
    let codes = checked.iter().flat_map(|it| &it.outlook.problems).map(|it| it.code);
    match codes.map(|code| code == Exit::NoSection).reduce(|all, is_missing| all && is_missing) {
        None => Exit::Ok,
        Some(true) => Exit::NoSection,
        Some(false) => Exit::Config,
    }
}

/// One pass over a configuration.
struct Pass<'a> {
    app: &'a App,
    args: &'a Check,
    /// Problems that were told already: one in [DEFAULT] comes with every section.
    told: Vec<Problem>,
}

impl Pass<'_> {
    fn check_all(&mut self, configuration: &Configuration) -> Vec<Checked> {
        let mut names = self.args.sections.names();
        if names.is_empty() {
            names = configuration.sections().iter().map(String::as_str).collect();
        }
        let mut checked = Vec::new();
        for name in &names {
            checked.push(self.check_section(configuration, name));
        }
        if let ([], Err(errors)) = (names.as_slice(), configuration.load(None, &[])) {
            checked.push(self.refuse(None, errors));
        }
        shared::compare(&mut checked);
        checked
    }

    fn check_section(&mut self, configuration: &Configuration, name: &str) -> Checked {
        if let Err(ConfigErrors(problems)) = configuration.section(Some(name)) {
            let missing = problems.iter().map(|it| Failure::of_problem(it).code(Exit::NoSection));
            return Checked::refused(Some(name), missing.collect());
        }
        let overrides = source::overrides(&self.args.source);
        let Loaded { settings, warnings } = match configuration.load(Some(name), &overrides) {
            Ok(loaded) => loaded,
            Err(errors) => return self.refuse(Some(name), errors),
        };
        let command = wire::command(&settings, &[]);
        let service = Service { settings, command, forked: self.app.forked.clone() };
        let mut outlook = service.rehearse(self.app.name, self.args.source.allow_writable);
        let warnings = self.untold(warnings);
        let warnings =
            warnings.iter().map(|problem| Failure::of_problem(problem).attempt("warning"));
        outlook.warnings.splice(0..0, warnings);
        Checked { name: Some(name.to_owned()), service: Some(service), outlook }
    }

    /// A section that cannot be loaded.
    fn refuse(&mut self, name: Option<&str>, errors: ConfigErrors) -> Checked {
        let problems = self.untold(errors.0);
        Checked::refused(name, problems.iter().map(Failure::of_problem).collect())
    }

    fn untold(&mut self, problems: Vec<Problem>) -> Vec<Problem> {
        let is_new = |problem: &Problem| !self.told.contains(problem);
        let new: Vec<_> = problems.into_iter().filter(is_new).collect();
        self.told.extend(new.iter().cloned());
        new
    }
}

/// A path as people in this folder would write it.
fn shown(path: &Path, folder: &Path) -> String {
    let near = path.strip_prefix(folder).map_or_else(|_| path.to_owned(), PathBuf::from);
    near.display().to_string()
}
