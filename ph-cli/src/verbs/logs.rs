//! `logs`: the lines of services, merged by time, over rotations and compressed backups.
//!
//! What is shown is safe on a terminal: whatever could be more than a glyph is escaped, because a
//! worker may have written it. The end is as with `tail`: whoever reads may stop reading, which is
//! no failure, and an interrupt ends it as it ends any program.

mod filter;
mod last;
mod parts;
mod paths;
mod show;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use ph_config::{LogTarget, Settings};
use ph_log::{Found, LogReader, MergedReader, Wake};

use super::config::{Complaint, Opened};
use crate::args::{Lines, Logs};
use crate::exit::Exit;
use crate::failure::Failure;
use filter::Filter;
pub(crate) use last::{of_pid as last_lines_of, print as print_last_lines};
use show::{Ended, Show};

/// What has to be known of a service to find its logs.
const TO_FIND: [&str; 4] = ["base_path", "log_path", "log_file", "worker_log_file"];

/// How many lines are shown unless something else is asked for.
const LINES: usize = 50;

/// How many lines younger than the command are read before the last ones are shown: a log may grow
/// faster than it can be read.
const YOUNGER_LIMIT: u32 = 100_000;

/// So long the kernel is waited for before the wait begins anew.
const WAIT: Duration = Duration::from_secs(3600);

/// One log that is read.
struct Log {
    section: String,
    reader: LogReader,
}

/// A line, and the number of the log it is from.
type Line = (usize, Vec<u8>);

/// Shows the lines the arguments ask for.
pub(crate) fn logs(args: &Logs) -> Result<ExitCode, Failure> {
    let filter = Filter::new(args)?;
    let wanted = match args.lines {
        Some(Lines::All) => None,
        Some(Lines::Last(lines)) => Some(lines),
        None if args.since.is_some() => None,
        None => Some(LINES),
    };
    let mut logs = open(args)?;
    place(&mut logs, &filter, wanted)?;
    let names = logs.iter().map(|log| log.section.clone()).collect();
    let paths = logs.iter().map(|log| log.reader.path().to_owned()).collect();
    let mut show = Show::new(args, names, paths);
    let reader = MergedReader::new(logs.into_iter().map(|log| log.reader));
    let done = Session { reader, filter, show: &mut show }.run(wanted, args.follow);
    match done {
        Ok(()) | Err(Ended::Closed) if show.has_trouble() => Ok(Exit::Failed.into()),
        Ok(()) | Err(Ended::Closed) => Ok(Exit::Ok.into()),
        Err(Ended::Failed(failure)) => Err(failure),
    }
}

/// The log file of a service, for verbs that do something with it.
pub(crate) fn one_file(settings: &Settings) -> Result<&Path, Failure> {
    match &settings.log_file {
        LogTarget::File(path) => Ok(path),
        LogTarget::Stderr => {
            let why = format!("the log of {} goes to stderr and is in no file", settings.name());
            let failure = Failure::new(Exit::Config, why);
            let failure = failure.value(settings.origin("log_file"), "log_file");
            Err(failure.remedy("name a file: log_file = %(log_path)s/%(section)s.log"))
        }
    }
}

/// All log files of a service, of which there is at least one.
pub(crate) fn files(settings: &Settings) -> Result<Vec<PathBuf>, Failure> {
    let mut files = paths::of_workers(settings);
    match one_file(settings) {
        Ok(path) => files.insert(0, path.to_owned()),
        Err(failure) if files.is_empty() => return Err(failure),
        Err(_) => {}
    }
    Ok(files)
}

/// Every file of the sections the arguments name, or of all; each once.
fn open(args: &Logs) -> Result<Vec<Log>, Failure> {
    let opened = Opened::new(&args.source)?;
    let names = opened.sections(&args.sections)?;
    let mut logs: Vec<Log> = Vec::new();
    let mut without = None;
    for settings in opened.salvage(&names, &args.source, &TO_FIND, Complaint::Here)? {
        let found = files(&settings).unwrap_or_else(|failure| {
            without.get_or_insert(failure);
            Vec::new()
        });
        for path in found {
            if logs.iter().any(|log| log.reader.path() == path) {
                continue;
            }
            let section = settings.name().to_owned();
            let reader = LogReader::open(path.clone()).map_err(|error| failed(&path, &error))?;
            logs.push(Log { section, reader });
        }
    }
    match without {
        Some(failure) if logs.is_empty() => Err(failure),
        Some(_) | None => Ok(logs),
    }
}

/// Has each reader begin where the first line can be that is wanted.
fn place(logs: &mut [Log], filter: &Filter, wanted: Option<usize>) -> Result<(), Failure> {
    for log in logs {
        let path = log.reader.path().to_owned();
        let placed = match (wanted, filter.since()) {
            (Some(lines), _) if filter.takes_all() => log.reader.skip_to_last(lines),
            (_, Some(since)) => log.reader.skip_older(since),
            (_, None) => Ok(()),
        };
        placed.map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() == io::ErrorKind::PermissionDenied {
        true => Exit::NotPermitted,
        false => Exit::Failed,
    };
    Failure::new(code, error.to_string()).attempt(format!("cannot read {}", path.display()))
}

/// The reading itself.
struct Session<'a> {
    reader: MergedReader,
    filter: Filter,
    show: &'a mut Show,
}

impl Session<'_> {
    fn run(&mut self, wanted: Option<usize>, is_following: bool) -> Result<(), Ended> {
        let mut last = VecDeque::new();
        let mut keep = |show: &mut Show, line: Line| {
            let Some(wanted) = wanted else { return show.line(&line) };
            last.push_back(line);
            if last.len() > wanted {
                last.pop_front();
            }
            Ok(())
        };
        let started = SystemTime::now();
        let mut younger = 0;
        while let Some((number, found)) = self.reader.next() {
            let Some(line) = self.take(number, found)? else { continue };
            if ph_log::stamp(&line.1).is_some_and(|at| at > started) {
                younger += 1;
            }
            keep(self.show, line)?;
            if younger > YOUNGER_LIMIT {
                break;
            }
        }
        if !is_following {
            for (number, found) in self.reader.take_open_ends() {
                if let Some(line) = self.take(number, found)? {
                    keep(self.show, line)?;
                }
            }
        }
        for line in &last {
            self.show.line(line)?;
        }
        self.show.flush()?;
        if is_following { self.follow() } else { Ok(()) }
    }

    fn follow(&mut self) -> Result<(), Ended> {
        let stdout = io::stdout();
        loop {
            let wake = self.reader.wait(WAIT, Some(stdout.as_fd())).map_err(|error| {
                Ended::Failed(Failure::new(Exit::Failed, format!("cannot wait: {error}")))
            })?;
            if wake == Wake::Closed {
                return Ok(());
            }
            while let Some((number, found)) = self.reader.next() {
                if let Some(line) = self.take(number, found)? {
                    self.show.line(&line)?;
                }
            }
            self.show.flush()?;
        }
    }

    /// A line that is to be shown; whatever else was found is told.
    fn take(&mut self, number: usize, found: Found) -> Result<Option<Line>, Ended> {
        let text = match found {
            Found::Line(text) => text,
            Found::CutLine(mut text) => {
                text.extend("…[cut]".bytes());
                text
            }
            Found::Truncated => {
                self.show.tell(number, "was emptied in its place; some lines may be missing")?;
                return Ok(None);
            }
            Found::Gap => {
                self.show.tell(
                    number,
                    "was deleted before it was followed; some lines may be missing",
                )?;
                return Ok(None);
            }
            Found::Trouble(trouble) => {
                self.show.trouble(&trouble)?;
                return Ok(None);
            }
        };
        Ok(self.filter.takes(number, &text).then_some((number, text)))
    }
}
