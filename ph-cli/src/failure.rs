//! An error as people read it: what was tried and why it failed, where that was set, what to do.

use std::fmt;
use std::io::Write as _;

use ph_config::ConfigErrors;

use crate::exit::Exit;

/// Why a verb failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Exit,
    what: String,
    set_by: Option<String>,
    remedy: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Exit, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), set_by: None, remedy: None }
    }

    /// Names the line, flag or variable that asked for what failed.
    pub(crate) fn set_by(mut self, origin: impl Into<String>) -> Self {
        self.set_by = Some(origin.into());
        self
    }

    /// Says what to do about it.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Writes it to stderr. If that is closed, there is nobody to tell.
    pub(crate) fn print(&self, program: &str) {
        let _ = writeln!(std::io::stderr(), "{program}: {self}");
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what.trim_end())?;
        if let Some(origin) = &self.set_by {
            write!(f, "\n    set by {origin}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n    try: {remedy}")?;
        }
        Ok(())
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(Exit::Config, errors.to_string())
    }
}
