//! `config`: what the settings are and where they come from, and writing them.

mod json;
mod set;
mod show;

use std::process::ExitCode;

use ph_config::{Configuration, Loaded};

use crate::args::{Config, ConfigVerb, SourceArgs};
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

/// A configuration as the arguments mean it.
struct Opened {
    place: Place,
    configuration: Configuration,
}

impl Opened {
    fn new(args: &SourceArgs) -> Result<Self, Failure> {
        let place = Place::find(args)?;
        let configuration = place.source().read()?;
        Ok(Self { place, configuration })
    }

    /// The section asked for, or the only one.
    fn section<'s>(&'s self, wanted: Option<&'s str>) -> Result<&'s str, Failure> {
        self.configuration.section(wanted).map_err(|errors| Failure::no_section(&errors, wanted))
    }

    /// The settings of a section; warnings go to stderr.
    fn load(&self, section: &str, args: &SourceArgs) -> Result<Loaded, Failure> {
        let loaded = self.configuration.load(Some(section), &source::overrides(args))?;
        for warning in &loaded.warnings {
            output::note(&format!("warning: {warning}"));
        }
        Ok(loaded)
    }
}
