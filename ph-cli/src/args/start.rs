//! The arguments of those who start services in the background: `start`, `restart`, and no verb at all.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Arg, ArgAction, Args, Command};

use super::{Run, SectionArgs, SectionsArgs, SourceArgs};

#[derive(Debug, Args)]
#[command(after_help = START_HELP)]
pub(crate) struct Start {
    #[command(flatten)]
    pub(crate) sections: SectionsArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    #[command(flatten)]
    pub(crate) service: ServiceArgs,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,

    /// Program each worker executes, and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// What there is without a verb.
#[derive(Debug, Args)]
pub(crate) struct Bare {
    /// Section to start, in the background if it has `daemonize`; not needed if there is only one. A
    /// command for it may follow, after `--`
    #[arg(short, long, value_name = "NAME")]
    section: Option<String>,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    #[command(flatten)]
    service: ServiceArgs,

    /// What follows `--`.
    #[arg(skip)]
    pub(super) command: Vec<OsString>,
}

/// What flags say of a service beside `--set`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServiceArgs {
    /// Number of workers, or `auto` for one a CPU
    #[arg(short = 'n', long, value_name = "N")]
    number_workers: Option<String>,

    /// Listen on HOST:PORT, [V6]:PORT, :PORT, unix:PATH, fd:N or sd:NAME; repeatable
    #[arg(short, long, value_name = "ADDR")]
    bind: Vec<String>,

    /// Log warnings and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Log more; twice: everything
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

/// How long a verb waits, and how it tells.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct WaitArgs {
    /// Do not wait for the workers: return once the master has its lock and its pidfile
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// How long the workers of each section may take to be ready [default: its `boot_timeout`]
    #[arg(long, value_name = "TIME", value_parser = parse_limit)]
    pub(crate) timeout: Option<Duration>,

    /// Print JSON alone
    #[arg(long)]
    pub(crate) json: bool,
}

impl Start {
    /// What `run` would be told to run the same section in the foreground.
    pub(crate) fn of_section(&self, section: Option<&str>) -> Run {
        run(section, &self.source, &self.service, &self.command)
    }
}

impl Bare {
    /// The same as `run`.
    pub(crate) fn run(&self) -> Run {
        run(self.section.as_deref(), &self.source, &self.service, &self.command)
    }

    /// The same as `start`, of the section that it is about.
    pub(crate) fn into_start(self, section: &str) -> Start {
        let section_flags = vec![section.to_owned()];
        Start {
            sections: SectionsArgs { sections: Vec::new(), section_flags },
            source: self.source,
            service: self.service,
            wait: WaitArgs::default(),
            command: self.command,
        }
    }
}

/// Says of both verbs whom they mean, which is not the same.
pub(super) fn described(command: Command) -> Command {
    let of_start = |arg: Arg| match arg.get_id() == "sections" {
        true => arg.help("Sections of the configuration file [default: all with `autostart`]"),
        false => arg,
    };
    let of_restart = |arg: Arg| match arg.get_id().as_str() {
        "sections" => arg
            .value_name("TARGET")
            .help("NAME or NAME@INSTANCE [default: all with `autostart`, and all that run]"),
        "section_flags" => arg.help("The same as TARGET; repeatable"),
        _ => arg,
    };
    // Of one argument alone it would change its place among them.
    let command = command.mut_subcommand("start", |it| it.mut_args(of_start));
    command.mut_subcommand("restart", |it| it.mut_args(of_restart))
}

fn run(
    section: Option<&str>,
    source: &SourceArgs,
    service: &ServiceArgs,
    command: &[OsString],
) -> Run {
    let ServiceArgs { number_workers, bind, quiet, verbose } = service.clone();
    Run {
        section: SectionArgs { section: section.map(str::to_owned), section_flag: None },
        source: source.clone(),
        number_workers,
        bind,
        exit_with: None,
        quiet,
        verbose,
        command: command.to_vec(),
    }
}

fn parse_limit(text: &str) -> Result<Duration, String> {
    match ph_config::parse_duration(text) {
        Ok(limit) if limit.is_zero() => Err("expected more than 0".to_owned()),
        limit => limit.map_err(|error| error.to_string()),
    }
}

const START_HELP: &str = "\
Returns when every worker is ready. If one section is not ready in time, or the worker of each of
its slots has died, it is stopped again and the last lines of the worker that failed are shown.
Several sections are started one after the other, in the order of `depends_on`; without SECTION
all with `autostart`. An interrupt ends the waiting; the start goes on.

Exit codes: 0 ready, 1 failed, 2 usage, 3 or 4 the first worker cannot boot, 5 no such section,
6 configuration missing or bad, 70 bug in ph, 126 or 127 the command cannot be executed or found,
152 not in time, 154 already running; of several sections the highest.";

pub(super) const RESTART_HELP: &str = "\
All is looked at first, as `check` does: what would keep any section from starting stops nobody.
Then the masters that are meant are stopped, those that depend on others first, and waited for;
then as many are started as by `start`, each with its number. Sections of which none ran are
started too. A command after `--` restarts the masters that run this very command in this folder,
and no others of its name.

Exit codes: 0 ready, 1 failed, 2 usage, 3 or 4 the first worker cannot boot (4 also: the master
that runs may not be stopped), 5 no such section, 6 configuration missing or bad, 7 the instance
that was named does not run, 70 bug in ph, 126 or 127 the command cannot be executed or found,
152 not in time; of several sections the highest.";
