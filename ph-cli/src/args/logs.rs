//! The arguments of the verbs that are about logs.

use std::str::FromStr;

use clap::Args;

use super::{SectionArgs, SectionsArgs, SourceArgs};
use crate::output::Color;

/// The most lines that are kept in memory for `-n`.
const LINES_LIMIT: usize = 1_000_000;

#[derive(Debug, Args)]
#[command(after_help = LOGS_HELP)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) sections: SectionsArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    /// Go on with what is written from now on
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// So many of the last lines, or `all` [default: 50, or all with --since]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<Lines>,

    /// Only what was written since: 2026-11-23T08:00:00Z, or so long ago: 10m
    #[arg(long, value_name = "T")]
    pub(crate) since: Option<String>,

    /// Only lines that match this regular expression
    #[arg(long, value_name = "RE")]
    pub(crate) grep: Option<String>,

    /// Only lines of the worker in this slot
    #[arg(long, value_name = "N")]
    pub(crate) slot: Option<u32>,

    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,

    /// When to use colour: auto, always or never
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub(crate) color: Color,
}

#[derive(Debug, Args)]
#[command(after_help = ROTATE_HELP)]
pub(crate) struct Rotate {
    #[command(flatten)]
    pub(crate) section: SectionArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    /// Print JSON alone
    #[arg(long)]
    pub(crate) json: bool,
}

/// How many lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lines {
    All,
    Last(usize),
}

impl FromStr for Lines {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let number = text.parse().ok().filter(|number| *number <= LINES_LIMIT);
        number.map(Self::Last).ok_or_else(|| format!("expected 0 to {LINES_LIMIT}, or `all`"))
    }
}

const LOGS_HELP: &str = "\
Reads the log files themselves, so no master has to run; those who write do not notice. Whatever
a terminal could take for a command is shown as \\u{…}.

Exit codes: 0 shown, also if whoever reads stops reading; 1 a file cannot be read, 2 usage,
5 no such section, 6 configuration missing or bad, or no log is a file.";

const ROTATE_HELP: &str = "\
Those who write to the log follow by themselves. Old backups are deleted as at any rotation
(`log_backups`, `log_max_age`).

Exit codes: 0 rotated, or empty; 1 failed, 2 usage, 4 not permitted, 5 no such section,
6 configuration missing or bad, or the log is no file.";
