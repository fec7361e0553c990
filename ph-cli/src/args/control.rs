//! The arguments of the verbs that talk to running masters.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::SourceArgs;
use crate::output::Color;

#[derive(Debug, Args)]
#[command(after_help = STATUS_HELP)]
pub(crate) struct Status {
    /// NAME, NAME@INSTANCE or NAME#SLOT [default: all sections]
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,

    #[command(flatten)]
    pub(crate) reach: ReachArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    /// Show it anew whenever something happens
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) watch: bool,

    /// Print JSON alone
    #[arg(long)]
    pub(crate) json: bool,

    /// When to use colour: auto, always or never
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub(crate) color: Color,
}

#[derive(Debug, Args)]
#[command(after_help = SCALE_HELP)]
pub(crate) struct Scale {
    /// The service (NAME or NAME@INSTANCE; not needed if there is only one), and N, +N or -N workers
    #[arg(value_names = ["TARGET", "N"], num_args = 1..=2, required = true, allow_negative_numbers = true)]
    pub(crate) words: Vec<String>,

    #[command(flatten)]
    pub(crate) reach: ReachArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    /// Return as soon as the master knows
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// Print JSON alone
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = STOP_HELP)]
pub(crate) struct Stop {
    /// Kill the workers at once
    #[arg(long)]
    pub(crate) now: bool,

    #[command(flatten)]
    pub(crate) call: CallArgs,
}

#[derive(Debug, Args)]
#[command(after_help = RELOAD_HELP)]
pub(crate) struct Reload {
    /// Only if something has changed that takes new workers
    #[arg(long)]
    pub(crate) if_changed: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) call: CallArgs,
}

#[derive(Debug, Args)]
#[command(after_help = UPGRADE_HELP)]
pub(crate) struct Upgrade {
    #[command(flatten)]
    pub(crate) call: CallArgs,
}

#[derive(Debug, Args)]
#[command(after_help = REOPEN_HELP)]
pub(crate) struct Reopen {
    #[command(flatten)]
    pub(crate) call: CallArgs,
}

/// Which masters are told something, and whether it is waited for.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// NAME or NAME@INSTANCE [default: all sections]
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,

    #[command(flatten)]
    pub(crate) reach: ReachArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    /// Return as soon as the master knows
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// Print JSON alone
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a master is reached, and how long that may take.
#[derive(Debug, Args)]
pub(crate) struct ReachArgs {
    /// The same as TARGET; repeatable
    #[arg(short = 's', long = "section", value_name = "NAME")]
    pub(crate) sections: Vec<String>,

    /// The control socket of the master; no configuration file is read
    #[arg(long, value_name = "PATH", conflicts_with_all = ["pidfile", "config", "sections"])]
    pub(crate) socket: Option<PathBuf>,

    /// The pidfile of the masters; no configuration file is read
    #[arg(long, value_name = "PATH", conflicts_with_all = ["config", "sections"])]
    pub(crate) pidfile: Option<PathBuf>,

    /// How long to wait, such as 30s
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub(crate) timeout: Option<Duration>,
}

/// Another number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    To(u32),
    By(i32),
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let change = match is_number {
            false => None,
            true if digits.len() < text.len() => text.parse().ok().map(Self::By),
            true => text.parse().ok().filter(|number| *number > 0).map(Self::To),
        };
        change.ok_or_else(|| format!("{text:?} is not a number of workers: N above 0, +N or -N"))
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    ph_config::parse_duration(text).map_err(|error| error.to_string())
}

const STATUS_HELP: &str = "\
Exit codes: 0 all workers are ready, 1 dead but the pidfile is there, 2 dead but the lock is held
(and usage), 3 not running, 4 unknown or not permitted, 5 no such section, 6 configuration missing
or bad, 150 running, but not as it should. Of several services the worst.";

const SCALE_HELP: &str = "\
Waits until so many workers are ready and those beyond have ended, 60s if --timeout does not say
otherwise. The number holds until the master ends; it is not written into the configuration.

Exit codes: 0 done, 1 not possible, 2 usage, 4 not permitted, 5 no such section, 6 configuration
missing or bad, 7 no master runs, 152 timed out: the master goes on with it.";

const STOP_HELP: &str = "\
Waits until the master and all its workers have ended, and names those that had to be killed.

Exit codes: 0 stopped, 1 something could not be ended, 2 usage, 4 not permitted, 5 no such section,
6 configuration missing or bad, 7 no master runs, 152 timed out: the master goes on with it.";

const RELOAD_HELP: &str = "\
One new worker goes first; once it has lived min_uptime the others follow, and old ones stop only when
new ones are ready (with reload_surge = 0 they stop first). If a new one fails, everything goes back to what it was.

Exit codes: 0 all workers are of the new configuration, 1 not possible, 2 usage, 4 not permitted,
5 no such section, 6 configuration missing or bad, 7 no master runs, 151 rolled back, 152 timed out:
the master goes on with it; 153 done but for what needs a restart.";

const UPGRADE_HELP: &str = "\
A master of the program that is on disk now starts beside the one that runs, boots its workers, and
takes over once they are ready. Whatever goes wrong before that leaves the old one as it was.

Exit codes: 0 the new master has taken over, 1 not possible, 2 usage, 4 not permitted, 5 no such
section, 6 configuration missing or bad, 7 no master runs, 151 the old one stayed, 152 timed out: the
master goes on with it.";

const REOPEN_HELP: &str = "\
For logs that are renamed by others, such as logrotate. Those that ph rotates need no reopening.
A master whose control socket is off, or gone, is sent USR1.

Exit codes: 0 opened again, 1 not possible, 2 usage, 4 not permitted, 5 no such section,
6 configuration missing or bad, 7 no master runs, 152 timed out: the master goes on with it.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_workers_is_absolute_or_a_difference() {
        for (text, wanted) in [
            ("4", Change::To(4)),
            ("+2", Change::By(2)),
            ("-1", Change::By(-1)),
            ("+0", Change::By(0)),
        ] {
            assert_eq!(text.parse(), Ok(wanted));
        }
        for bad in ["", "0", "+", "-", "++1", "4x", "1.5", "99999999999", "-99999999999"] {
            assert!(bad.parse::<Change>().is_err(), "{bad}");
        }
    }
}
