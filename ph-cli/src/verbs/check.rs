//! `check`: everything that would keep services from starting, known without starting them.
//!
//! Each section is loaded and rehearsed by itself; then what sections have in common is looked at. No
//! failure ends the pass, so that a file is edited once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ph_config::{ConfigErrors, Configuration, Loaded};
use ph_core::Running;

use crate::App;
use crate::args::Check;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::source::{self, Place};
use crate::wire::{self, Service};

mod findings;
mod output;
mod shared;

use findings::{Finding, Findings};

/// A section that was asked for.
struct Checked {
    name: String,
    /// There is none if the section could not be loaded.
    service: Option<Service>,
    /// Its masters that run now.
    running: Vec<Running>,
    /// Whether it would start.
    is_ok: bool,
}

/// Checks the sections the arguments name, or all.
pub(crate) fn check(app: &App, args: &Check) -> Result<ExitCode, Failure> {
    let place = match Place::find(&args.source) {
        Ok(place) => place,
        Err(failure) if args.json => {
            let code = failure.code;
            let mut findings = Findings::default();
            findings.failure(None, failure, false);
            output::print_json(None, &[], &findings.into_sorted(&[]))?;
            return Ok(code.into());
        }
        Err(failure) => return Err(failure),
    };
    let mut pass = Pass { app, args, checked: Vec::new(), findings: Findings::default() };
    match place.source().read() {
        Ok(configuration) => pass.check_all(&configuration),
        Err(errors) => pass.refuse(None, errors),
    }
    let (checked, findings) = pass.finish();
    match args.json {
        true => output::print_json(place.file.as_deref(), &checked, &findings)?,
        false => output::print(app.name, &place.folder, &checked, &findings)?,
    }
    Ok(verdict(&findings).into())
}

/// A section that is not there has a code of its own, if nothing else is wrong.
fn verdict(findings: &[Finding]) -> Exit {
    let codes = findings.iter().filter(|it| !it.is_warning).map(|it| it.failure.code);
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
    checked: Vec<Checked>,
    findings: Findings,
}

impl Pass<'_> {
    fn check_all(&mut self, configuration: &Configuration) {
        let mut names = self.args.sections.names();
        if names.is_empty() {
            names = configuration.sections().iter().map(String::as_str).collect();
        }
        for name in &names {
            self.check_section(configuration, name);
        }
        if let ([], Err(errors)) = (names.as_slice(), configuration.load(None, &[])) {
            self.refuse(None, errors);
        }
        self.check_order();
        shared::compare(&self.checked, &mut self.findings);
    }

    fn check_section(&mut self, configuration: &Configuration, name: &str) {
        let number = self.checked.len();
        let (name, service, running) = (name.to_owned(), None, Vec::new());
        self.checked.push(Checked { name, service, running, is_ok: false });
        let name = self.checked[number].name.as_str();
        if let Err(errors) = configuration.section(Some(name)) {
            return self.miss(number, errors);
        }
        let overrides = source::overrides(&self.args.source);
        let Loaded { settings, warnings } = match configuration.load(Some(name), &overrides) {
            Ok(loaded) => loaded,
            Err(errors) => return self.refuse(Some(number), errors),
        };
        let command = wire::command(&settings, &[]);
        let service = Service { settings, command, forked: self.app.forked.clone() };
        let outlook = service.rehearse(self.app.name, self.args.source.allow_writable, &[]);
        for problem in outlook.problems {
            self.findings.failure(Some(number), problem, false);
        }
        for warning in warnings {
            self.findings.remark(Some(number), warning);
        }
        for warning in outlook.warnings {
            self.findings.failure(Some(number), warning, true);
        }
        let checked = &mut self.checked[number];
        (checked.service, checked.running) = (Some(service), outlook.running);
    }

    /// Sections that depend on each other in a circle, of those that can be loaded.
    fn check_order(&mut self) {
        let services = self.checked.iter().filter_map(|it| it.service.as_ref());
        let settings: Vec<_> = services.map(|it| &it.settings).collect();
        if let Err(errors) = ph_config::start_order(&settings) {
            self.refuse(None, errors);
        }
    }

    /// A section, or with no number a file, that cannot be loaded.
    fn refuse(&mut self, section: Option<usize>, ConfigErrors(problems): ConfigErrors) {
        for problem in problems {
            self.findings.problem(section, problem);
        }
    }

    /// A section that is not there. What is wrong with the files is in the same report.
    fn miss(&mut self, section: usize, errors: ConfigErrors) {
        for problem in errors.0 {
            match matches!(problem.origin, ph_config::Place::Section(_)) {
                true => self.findings.missing(section, problem),
                false => self.findings.problem(Some(section), problem),
            }
        }
    }

    fn finish(self) -> (Vec<Checked>, Vec<Finding>) {
        let mut checked = self.checked;
        let troubled: HashSet<usize> =
            self.findings.problems().flat_map(|it| it.sections.iter().copied()).collect();
        for (number, it) in checked.iter_mut().enumerate() {
            it.is_ok = it.service.is_some() && !troubled.contains(&number);
        }
        let names: Vec<_> = checked.iter().map(|it| it.name.as_str()).collect();
        let findings = self.findings.into_sorted(&names);
        (checked, findings)
    }
}

/// A path as people in this folder would write it.
fn shown(path: &Path, folder: &Path) -> String {
    let near = path.strip_prefix(folder).map_or_else(|_| path.to_owned(), PathBuf::from);
    near.display().to_string()
}
