//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{
    ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
};
use ph_config::{ProbeTarget, parse_duration};
use ph_core::ExitWith;

use crate::output::Color;

pub(crate) mod control;
mod logs;
mod start;

pub(crate) use control::{Change, ReachArgs, Reload, Reopen, Scale, Status, Stop, Upgrade};
pub(crate) use logs::{Lines, Logs, Rotate};
pub(crate) use start::{Bare, Start, WaitArgs};

/// Keeps N workers of a program alive.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,

    #[command(flatten, next_help_heading = "Without a command")]
    pub(crate) bare: Bare,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a service in the foreground, whatever `daemonize` says
    Run(Run),
    /// Show services and their workers
    Status(Status),
    /// Change the number of workers of a running service
    Scale(Scale),
    /// Replace all workers by those of the configuration as it is now; roll back if they fail (HUP)
    Reload(Reload),
    /// Let a master of the program that is on disk now take over (USR2)
    Upgrade(Upgrade),
    /// Stop services, and wait until they have ended
    Stop(Stop),
    /// Start services in the background, and wait until their workers are ready
    Start(Start),
    /// Stop services, and start them again
    #[command(after_help = start::RESTART_HELP)]
    Restart(Start),
    /// Say all that would keep services from starting, without starting them
    Check(Check),
    /// Show, get and set what the configuration says
    Config(Config),
    /// Print a commented template of every setting
    Init(Init),
    /// Show the lines of logs, merged by time, over rotations and compressed backups
    Logs(Logs),
    /// Rotate a log now, whatever its limits say
    Rotate(Rotate),
    /// Tell the masters of a service to open their logs again (USR1)
    Reopen(Reopen),
    /// Ask once whether something answers at an address
    Probe(Probe),
}

#[derive(Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) sections: SectionsArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    /// Write the findings to stdout as one JSON object, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = RUN_HELP)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) section: SectionArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    /// Number of workers, or `auto` for one a CPU
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) number_workers: Option<String>,

    /// Listen on HOST:PORT, [V6]:PORT, :PORT, unix:PATH, fd:N or sd:NAME; repeatable
    #[arg(short, long, value_name = "ADDR")]
    pub(crate) bind: Vec<String>,

    /// End the service when a worker ends: the first to end, all of them, or that of slot 0; with the
    /// exit code of that one (of `all`: the first that is not 0)
    #[arg(long, value_name = "WHICH")]
    pub(crate) exit_with: Option<ExitWhen>,

    /// Log warnings and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Log more; twice: everything
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Program each worker executes, and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Print every value that holds, with where it comes from
    Show(ConfigShow),
    /// Print one value
    Get(ConfigGet),
    /// Write one value into the file, keeping comments and layout
    Set(ConfigSet),
    /// Take one key out of the file
    Unset(ConfigUnset),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShow {
    #[command(flatten)]
    pub(crate) sections: SectionsArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    /// Leave out what is only a default
    #[arg(long)]
    pub(crate) set_only: bool,

    /// Show also the values that were overridden
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Print JSON alone
    #[arg(long)]
    pub(crate) json: bool,

    /// When to use colour
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigGet {
    /// Name of the setting
    #[arg(value_name = "KEY")]
    pub(crate) key: String,

    #[command(flatten)]
    pub(crate) section: SectionArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    /// Print JSON alone, with the origin
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigSet {
    /// Name of the setting
    #[arg(value_name = "KEY")]
    pub(crate) key: String,

    /// Its new value, as it would stand in an INI file
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) value: String,

    #[command(flatten)]
    pub(crate) edit: EditArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigUnset {
    /// Name of the setting
    #[arg(value_name = "KEY")]
    pub(crate) key: String,

    #[command(flatten)]
    pub(crate) edit: EditArgs,
}

/// Where to write.
#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    pub(crate) section: SectionArgs,

    /// Configuration file [default: $PH_CONFIG, else ph.toml, ph.ini, config.ini or conf/config.ini]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// As root: accept a file that other users can write, with a warning
    #[arg(long)]
    pub(crate) allow_writable: bool,

    /// Print JSON alone
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// In TOML; otherwise the name of FILE decides, and without FILE it is INI
    #[arg(long)]
    pub(crate) toml: bool,

    /// File to write, which must not be there yet [default: stdout]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Print JSON alone: the text, and the file if it was written
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 it answers, 1 it does not, 2 usage.")]
pub(crate) struct Probe {
    /// `tcp:HOST:PORT` wants a connection, `http://HOST:PORT/PATH` an answer from 200 to 399
    #[arg(value_name = "TARGET")]
    pub(crate) target: ProbeTarget,

    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,

    /// Print JSON alone
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whose end is the service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExitWhen {
    /// Any worker
    Any,
    /// All workers: nobody is replaced
    All,
    /// The worker of slot 0
    First,
}

impl From<ExitWhen> for ExitWith {
    fn from(when: ExitWhen) -> Self {
        match when {
            ExitWhen::Any => Self::Any,
            ExitWhen::All => Self::All,
            ExitWhen::First => Self::First,
        }
    }
}

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
pub(crate) struct SourceArgs {
    /// Configuration file [default: $PH_CONFIG, else ph.toml, ph.ini, config.ini or conf/config.ini]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Set any key of the configuration; repeatable, the last one wins
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    pub(crate) set: Vec<(String, String)>,

    /// As root: accept files and programs that other users can write, with a warning
    #[arg(long)]
    pub(crate) allow_writable: bool,
}

/// Which of its sections is meant.
#[derive(Clone, Debug, Args)]
pub(crate) struct SectionArgs {
    /// Section of the configuration file; not needed if it has only one
    #[arg(value_name = "SECTION", conflicts_with = "section_flag")]
    section: Option<String>,

    /// The same as SECTION
    #[arg(short = 's', long = "section", value_name = "NAME")]
    section_flag: Option<String>,
}

/// Which of its sections are meant; none named means all.
#[derive(Debug, Args)]
pub(crate) struct SectionsArgs {
    /// Sections of the configuration file [default: all]
    #[arg(value_name = "SECTION")]
    sections: Vec<String>,

    /// The same as SECTION; repeatable
    #[arg(short = 's', long = "section", value_name = "NAME")]
    section_flags: Vec<String>,
}

impl SectionsArgs {
    /// The sections asked for, however they were given, each once.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.sections.iter().chain(&self.section_flags) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}

impl SectionArgs {
    /// The section asked for, however it was given.
    pub(crate) fn name(&self) -> Option<&str> {
        self.section.as_deref().or(self.section_flag.as_deref())
    }
}
const CHECK_HELP: &str = "\
Looks at the configuration, users, paths, programs, addresses and limits, and at what sections
have in common. Nothing is made or changed, and services that run do not notice.

Exit codes: 0 all would start, 2 usage, 5 no such section, 6 something has to be mended first.";

const RUN_HELP: &str = "\
A command after `--`, without -c and SECTION, needs no configuration file.

Signals: TERM, INT and QUIT stop (twice: at once), HUP reloads, USR2 upgrades, TTIN and TTOU add and
remove a worker, USR1 reopens the log, WINCH drains (without a terminal).

Exit codes: 0 after an ordered stop, 1 failed, 2 usage, 3 or 4 the first worker cannot boot,
5 no such section, 6 configuration missing or bad, 70 bug in ph, 126 or 127 the command cannot be
executed or found, 154 already running, 155 a crash loop with on_crash_loop = exit; with --exit-with
that of a worker, 128+N if signal N ended it.";

impl Cli {
    /// Reads the arguments of this process; `name` is what the program calls itself in its help.
    pub(crate) fn read(name: &'static str) -> Result<Self, clap::Error> {
        Self::of_words(name, &std::env::args_os().collect::<Vec<_>>())
    }

    /// Without a verb, what follows the dashes is the command too; to clap it would be a reason to take a
    /// misspelt verb for a misplaced argument.
    fn of_words(name: &'static str, words: &[OsString]) -> Result<Self, clap::Error> {
        let parse = |words: &[OsString]| {
            let command = start::described(Self::command()).name(name).bin_name(name);
            let usage = format!("{name} <COMMAND>\n       {name} [OPTIONS] [-- <CMD>...]");
            let command = command.override_usage(usage);
            Self::from_arg_matches(&command.try_get_matches_from(words)?)
        };
        let dashes = words.iter().position(|word| word == "--");
        if let Some((before, [_, command @ ..])) = dashes.map(|place| words.split_at(place))
            && let Ok(mut cli) = parse(before)
            && cli.verb.is_none()
        {
            cli.bare.command = command.to_vec();
            return Ok(cli);
        }
        parse(words)
    }
}

impl Verb {
    /// Whether stdout is to be JSON alone.
    pub(crate) fn is_json(&self) -> bool {
        match self {
            Self::Run(_) => false,
            Self::Status(status) => status.json,
            Self::Scale(scale) => scale.json,
            Self::Reload(reload) => reload.call.json,
            Self::Upgrade(upgrade) => upgrade.call.json,
            Self::Stop(stop) => stop.call.json,
            Self::Start(start) | Self::Restart(start) => start.wait.json,
            Self::Check(check) => check.json,
            Self::Config(config) => match &config.verb {
                ConfigVerb::Show(show) => show.json,
                ConfigVerb::Get(get) => get.json,
                ConfigVerb::Set(set) => set.edit.json,
                ConfigVerb::Unset(unset) => unset.edit.json,
            },
            Self::Init(init) => init.json,
            Self::Logs(logs) => logs.json,
            Self::Rotate(rotate) => rotate.json,
            Self::Reopen(reopen) => reopen.call.json,
            Self::Probe(probe) => probe.json,
        }
    }
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_dashes_is_the_command() {
        let cli = Cli::try_parse_from(["ph", "run", "web", "--", "sleep", "-n"]).unwrap();
        let Some(Verb::Run(run)) = cli.verb else { panic!("it is a run") };
        assert_eq!(run.section.name(), Some("web"));
        assert_eq!(run.command, ["sleep", "-n"]);
    }

    #[test]
    fn without_a_verb_too() {
        let read = |line: &str| {
            Cli::of_words("ph", &line.split(' ').map(OsString::from).collect::<Vec<_>>())
        };
        let cli = read("ph -c F -s web -- sleep -n").unwrap();
        assert!(cli.verb.is_none());
        assert_eq!(cli.bare.run().section.name(), Some("web"));
        assert_eq!(cli.bare.run().command, ["sleep", "-n"]);
        assert!(matches!(read("ph start -- sleep"), Ok(Cli { verb: Some(Verb::Start(_)), .. })));
        let error = read("ph strat -- sleep").unwrap_err().to_string();
        assert!(error.contains("'start'"), "{error}");
        assert!(read("ph -s web run").is_err());
    }

    #[test]
    fn set_wants_a_key_and_a_value() {
        assert_eq!(parse_set("a = b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parse_set("a").is_err());
        assert!(parse_set(" =b").is_err());
    }
}
