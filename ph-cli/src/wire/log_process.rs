//! The log of a service: what its master, its workers and its log process have to do with it.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ph_config::{LogCompress, LogFormat, LogLevel, LogOverflow, LogRotate, LogTarget, Settings};
use ph_core::{LogEnd, LogFeed, LogOrder, LogOrigin, LogProcess, LogSource, Logging, OutputStream};
use ph_log::{
    Capture, CaptureJournal, CaptureOptions, CaptureTarget, Clock, Compression, Format, Level,
    LogError, LogOptions, Overflow, Period, RotateLimits, Source, SourceKind, StandardStream,
    Target, WorkerPath,
};

use super::conditions::bind_late;

/// How long a log process goes on whose master was killed: workers end with their master, and what they
/// left behind is the warden's, who takes no longer.
const ORPHANED_LIMIT: Duration = Duration::from_secs(15);

/// How long a log is tried for that takes nothing, when everything has ended.
const FINISH_PATIENCE: Duration = Duration::from_secs(3);

/// The log, in every process of a service.
pub(crate) struct LogOfService {
    log: ph_log::Log,
    capture: CaptureOptions,
    journal: Arc<CaptureJournal>,
    worker_path: Option<WorkerPath>,
}

impl LogOfService {
    /// Opens the log. In the foreground of a terminal every line goes there too. Says besides what is
    /// not as it was asked for.
    ///
    /// # Errors
    ///
    /// The log cannot be written.
    pub(crate) fn open(
        settings: &Settings,
        is_stderr_terminal: bool,
    ) -> Result<(LogOfService, Vec<String>), LogError> {
        let mut warnings = Vec::new();
        let limits = limits(settings, &mut warnings);
        let (target, captured) = match &settings.log_file {
            LogTarget::Stderr => (Target::Stderr, CaptureTarget::Stderr),
            LogTarget::File(path) => {
                (Target::File(path.clone()), CaptureTarget::File(path.clone()))
            }
        };
        let format = match settings.log_format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        let worker_path = settings.worker_log_file.clone().map(|path| {
            WorkerPath::new(move |slot, generation| of_worker(&path, slot, generation))
        });
        let log = ph_log::init(LogOptions {
            name: settings.proc_name.clone(),
            target,
            limits: limits.clone(),
            worker_path: worker_path.clone(),
            also_stderr: is_stderr_terminal,
            level: level(settings.log_level),
            format,
            reopen: ph_core::reopen_count(),
            pid: ph_core::wiped_by_fork(),
        })?;
        let capture = CaptureOptions {
            name: settings.proc_name.clone(),
            target: captured,
            limits,
            also_stderr: is_stderr_terminal,
            format,
            line_max: usize::try_from(settings.log_line_max).unwrap_or(usize::MAX),
            overflow: match settings.log_overflow {
                LogOverflow::Block => Overflow::Block,
                LogOverflow::Drop => Overflow::Drop,
            },
        };
        let journal = Arc::new(CaptureJournal::new().map_err(LogError::Journal)?);
        Ok((LogOfService { log, capture, journal, worker_path }, warnings))
    }
}

/// When files are rotated, and what is kept of them.
pub(crate) fn limits(settings: &Settings, warnings: &mut Vec<String>) -> RotateLimits {
    let period = match settings.log_rotate {
        LogRotate::Never => Period::Never,
        LogRotate::Hourly => Period::Hourly,
        LogRotate::Daily => Period::Daily,
    };
    // A zone that nobody asks for need not be known.
    let is_local = period != Period::Never && !settings.log_utc;
    let clock = match is_local.then(Clock::local) {
        None => Clock::utc(),
        Some(Ok(clock)) => clock,
        Some(Err(error)) => {
            warnings.push(format!("{error}; the log is rotated by UTC"));
            Clock::utc()
        }
    };
    RotateLimits {
        max_size: (settings.log_max_size > 0).then_some(settings.log_max_size),
        period,
        clock,
        backups: settings.log_backups,
        max_age: (!settings.log_max_age.is_zero()).then_some(settings.log_max_age),
        compress: match settings.log_compress {
            LogCompress::None => Compression::None,
            LogCompress::Gzip => Compression::Gzip,
            LogCompress::Zstd => Compression::Zstd,
        },
    }
}

/// The log of one worker, whose names are bound late.
pub(super) fn of_worker(path: &Path, slot: u32, generation: u32) -> PathBuf {
    bind_late(path.as_os_str(), slot, generation).into()
}

fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::Error,
        LogLevel::Warn => Level::Warn,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
        LogLevel::Trace => Level::Trace,
    }
}

impl Logging for LogOfService {
    fn enter_worker(&self, slot: u32, generation: u32, records: Option<OwnedFd>) {
        match records {
            Some(pipe) => self.log.enter_worker_with(slot, generation, pipe),
            None => self.log.enter_worker(slot, generation),
        }
    }

    fn enter_helper(&self, name: &str) {
        self.log.enter_helper(name);
    }

    fn flush(&self) {
        self.log.flush();
    }

    fn process(&self) -> Option<&dyn LogProcess> {
        Some(self)
    }
}

impl LogProcess for LogOfService {
    fn run(&self, mut feed: LogFeed) -> ph_core::Result<LogEnd> {
        let mut capture = Capture::open(self.capture.clone(), Arc::clone(&self.journal))?;
        for source in feed.sources() {
            capture.add(self.source(source))?;
        }
        capture.recover()?;
        loop {
            let turn = capture.turn(feed.fd())?;
            feed.ended(&turn.ended);
            if !turn.is_control_ready {
                continue;
            }
            for order in feed.orders()? {
                match order {
                    LogOrder::Source(source) => capture.add(self.source(source))?,
                    LogOrder::Reopen => {
                        capture.reopen();
                        tracing::info!("log files reopened");
                    }
                    LogOrder::Finish => return finish(&mut capture),
                    LogOrder::Orphaned => {
                        let drained = capture.drain_to_the_end(ORPHANED_LIMIT)?;
                        capture.tell_loss();
                        return Ok(end_of(drained.is_done));
                    }
                }
            }
        }
    }

    fn fds(&self) -> Vec<RawFd> {
        self.journal.fds().map(|fd| fd.as_raw_fd()).collect()
    }

    fn attach(&self, pipe: OwnedFd) {
        self.log.attach(pipe);
    }

    fn resume(&self) {
        self.log.resume();
    }

    fn is_waiting(&self) -> bool {
        self.log.is_waiting()
    }

    fn detach(&self, is_killed: bool) {
        self.log.detach(is_killed);
    }
}

impl LogOfService {
    fn source(&self, LogSource { id, pipe, origin }: LogSource) -> Source {
        let mut path = None;
        let kind = match origin {
            LogOrigin::Master => SourceKind::Ready,
            LogOrigin::Worker { slot, generation, pid, stream } => {
                path = self.worker_path.as_ref().map(|path| path.of(slot, generation));
                match stream_of(stream) {
                    Some(stream) => SourceKind::Output { slot, generation, pid, stream },
                    None => SourceKind::Records { slot, generation, pid },
                }
            }
            LogOrigin::Helper { name, pid, stream } => {
                let stream = stream_of(stream).unwrap_or(StandardStream::Stdout);
                SourceKind::Helper { name: kept(name), pid, stream }
            }
        };
        Source { id, pipe, kind, path }
    }
}

/// Brings to the log what is there, as long as that takes anything.
fn finish(capture: &mut Capture) -> ph_core::Result<LogEnd> {
    loop {
        let before = capture.totals();
        let is_done = capture.drain(FINISH_PATIENCE)?.is_done;
        if is_done || capture.totals() == before {
            capture.tell_loss();
            return Ok(end_of(is_done));
        }
    }
}

fn end_of(is_done: bool) -> LogEnd {
    if is_done { LogEnd::Complete } else { LogEnd::Incomplete }
}

fn stream_of(stream: OutputStream) -> Option<StandardStream> {
    match stream {
        OutputStream::Stdout => Some(StandardStream::Stdout),
        OutputStream::Stderr => Some(StandardStream::Stderr),
        OutputStream::Records => None,
    }
}

/// A helper's name for as long as the process lives. There are as many as helpers in the program.
fn kept(name: String) -> &'static str {
    static NAMES: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(&*name) {
        return known;
    }
    let name = name.leak();
    names.insert(name);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use ph_config::{Override, Source};

    fn settings(values: &[(&str, &str)]) -> Settings {
        let set = values.iter().map(|(key, value)| Override {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            flag: "--set".to_owned(),
        });
        let configuration = Source::new(Path::new("/srv")).read().expect("no file");
        configuration.load(None, &set.collect::<Vec<_>>()).expect("settings").settings
    }

    #[test]
    fn the_defaults_of_both_crates_are_the_same() {
        let mut warnings = Vec::new();
        let from_settings = format!("{:?}", limits(&settings(&[]), &mut warnings));
        assert_eq!(from_settings, format!("{:?}", RotateLimits::default()));
        assert!(warnings.is_empty());
    }

    #[test]
    fn zero_is_no_limit_and_each_worker_has_its_path() {
        let settings = settings(&[
            ("log_max_size", "0"),
            ("log_max_age", "30d"),
            ("log_rotate", "daily"),
            ("log_utc", "yes"),
            ("log_compress", "zstd"),
            ("worker_log_file", "w.%(slot)s.%(generation)s.log"),
        ]);
        let mut warnings = Vec::new();
        let limits = limits(&settings, &mut warnings);
        assert_eq!((limits.max_size, limits.period), (None, Period::Daily));
        assert_eq!(limits.max_age, Some(Duration::from_secs(30 * 86_400)));
        assert_eq!(limits.compress, Compression::Zstd);
        assert!(warnings.is_empty());
        let path = settings.worker_log_file.expect("a path");
        assert_eq!(of_worker(&path, 3, 2), Path::new("/srv/w.3.2.log"));
    }
}
