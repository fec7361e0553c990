//! `config`: what the settings are and where they come from, and writing them.

mod json;
mod set;
mod show;

use std::path::Path;
use std::process::ExitCode;

use ph_config::{ConfigErrors, Configuration, Problem, Settings};

use crate::args::{Config, ConfigVerb, SectionsArgs, SourceArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::source::{self, Place};

/// Does what the arguments say.
pub(crate) fn config(args: &Config) -> Result<ExitCode, Failure> {
    match &args.verb {
        ConfigVerb::Show(args) => show::show(args),
        ConfigVerb::Get(args) => show::get(args),
        ConfigVerb::Set(args) => set::set(args),
        ConfigVerb::Unset(args) => set::unset(args),
    }
}

/// Said of a configuration that does not hold and is looked at all the same.
const IS_BROKEN: &str = "the configuration is broken, and nothing could be started with it; what runs is found all the same";

/// Who says what is wrong with a configuration that is looked at all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// This process.
    Here,
    /// The master, which is asked to read it.
    ByMaster,
}

/// A configuration as the arguments mean it.
pub(crate) struct Opened {
    place: Place,
    pub(crate) configuration: Configuration,
}

impl Opened {
    pub(crate) fn new(args: &SourceArgs) -> Result<Self, Failure> {
        let place = Place::find(args)?;
        let configuration = place.source().read()?;
        Ok(Self { place, configuration })
    }

    /// The main file, as it was named.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.place.file.as_deref()
    }

    /// By which the master of a section can be told from others.
    pub(crate) fn made_from(&self, settings: &Settings) -> Option<String> {
        self.place.made_from(settings)
    }

    /// The section asked for, or the only one.
    pub(crate) fn section<'s>(&'s self, wanted: Option<&'s str>) -> Result<&'s str, Failure> {
        self.configuration.section(wanted).map_err(|errors| Failure::no_section(&errors, wanted))
    }

    /// The sections asked for, or all.
    pub(super) fn sections<'s>(
        &'s self,
        wanted: &'s SectionsArgs,
    ) -> Result<Vec<&'s str>, Failure> {
        let mut names = wanted.names();
        for name in &names {
            self.section(Some(name))?;
        }
        if names.is_empty() {
            names = self.configuration.sections().iter().map(String::as_str).collect();
        }
        if names.is_empty() {
            names.push(self.section(None)?);
        }
        Ok(names)
    }

    /// The settings of these sections, or all that is wrong with any of them. Warnings go to
    /// stderr, each once.
    pub(crate) fn load(
        &self,
        sections: &[&str],
        args: &SourceArgs,
    ) -> Result<Vec<Settings>, Failure> {
        let overrides = source::overrides(args);
        let (mut all, mut warnings) = (Vec::new(), Vec::new());
        let mut problems: Vec<Problem> = Vec::new();
        let keep = |new: Vec<Problem>, kept: &mut Vec<Problem>| {
            for problem in new {
                if !kept.contains(&problem) {
                    kept.push(problem);
                }
            }
        };
        for section in sections {
            match self.configuration.load(Some(section), &overrides) {
                Ok(loaded) => {
                    keep(loaded.warnings, &mut warnings);
                    all.push(loaded.settings);
                }
                Err(ConfigErrors(errors)) => keep(errors, &mut problems),
            }
        }
        if !problems.is_empty() {
            return Err(ConfigErrors(problems).into());
        }
        for warning in &warnings {
            output::note(&format!("warning: {warning}"));
        }
        Ok(all)
    }

    /// The same for whoever looks for something that is there: what is wrong with the configuration is
    /// told, and hides it only if one of the `needed` keys is concerned.
    pub(crate) fn salvage(
        &self,
        sections: &[&str],
        args: &SourceArgs,
        needed: &[&str],
        complaint: Complaint,
    ) -> Result<Vec<Settings>, Failure> {
        let failure = match self.load(sections, args) {
            Err(failure) if failure.code == Exit::Config => failure,
            loaded => return loaded,
        };
        let overrides = source::overrides(args);
        let one = |section: &&str| self.configuration.salvage(Some(section), &overrides, needed);
        let salvaged = sections.iter().map(one).collect::<Result<Vec<_>, _>>();
        // What keeps one of them from being found is part of what is wrong with all.
        let Ok(salvaged) = salvaged else { return Err(failure) };
        if complaint == Complaint::Here {
            output::note(&format!("warning: {IS_BROKEN}:\n{failure}"));
        }
        Ok(salvaged.into_iter().map(|it| it.settings).collect())
    }

    /// The settings of one section.
    pub(crate) fn load_one(&self, section: &str, args: &SourceArgs) -> Result<Settings, Failure> {
        let mut all = self.load(&[section], args)?;
        // One section, one answer.
        all.pop().ok_or_else(|| Failure::new(Exit::NoSection, section))
    }
}
