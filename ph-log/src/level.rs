//! The levels an operator may ask for, by name.
//!
//! The names are those of the setting `log_level`; what they admit is [`tracing`]'s matter. The
//! order is of verbosity: `trace` admits everything.

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Only what went wrong.
    Error,
    /// Also what is about to go wrong.
    Warn,
    /// Also what an operator wants to see of a healthy service. The usual choice.
    Info,
    /// Also what helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    const ALL: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];

    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }

    pub(crate) fn filter(self) -> LevelFilter {
        match self {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        }
    }

    /// The place in `ALL`, for a level that is kept in an atomic.
    pub(crate) fn to_index(self) -> u8 {
        self as u8
    }

    /// The level at a place in `ALL`; beyond its end, the most verbose one.
    pub(crate) fn from_index(index: u8) -> Level {
        Level::ALL.get(usize::from(index)).copied().unwrap_or(Level::Trace)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Level {
    type Err = ParseLevelError;

    /// Reads a name; upper and lower case are alike.
    ///
    /// ```
    /// assert_eq!("INFO".parse(), Ok(ph_log::Level::Info));
    /// assert!("loud".parse::<ph_log::Level>().is_err());
    /// ```
    fn from_str(text: &str) -> Result<Level, ParseLevelError> {
        Level::ALL
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| ParseLevelError { text: text.to_owned() })
    }
}

/// A word that names no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no log level: error, warn, info, debug or trace")]
pub struct ParseLevelError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_survives_its_name_and_its_index() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
            assert_eq!(Level::from_index(level.to_index()), level);
        }
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let error = "loud".parse::<Level>().expect_err("no level");
        assert_eq!(
            error.to_string(),
            r#""loud" is no log level: error, warn, info, debug or trace"#
        );
    }
}
