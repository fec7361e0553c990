//! The log of a service: what its master, its workers and its log process have to do with it.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ph_config::Settings;
use ph_core::{LogEnd, LogFeed, LogOrder, LogOrigin, LogProcess, LogSource, Logging, OutputStream};
use ph_log::{
    Capture, CaptureJournal, Clock, LogError, RotateLimits, Source, SourceKind, StandardStream,
    WorkerPath,
};

use super::conditions::bind_late;
use super::log_settings::LogSettings;

/// How long a log process goes on whose master was killed: workers end with their master, and what they
/// left behind is the warden's, who takes no longer.
const ORPHANED_LIMIT: Duration = Duration::from_secs(15);

/// How long a log is tried for that takes nothing, when everything has ended.
const FINISH_PATIENCE: Duration = Duration::from_secs(3);

/// The log, in every process of a service.
pub(crate) struct LogOfService {
    log: ph_log::Log,
    /// What holds now; changed only by processes of one thread.
    state: Mutex<State>,
    journal: Arc<CaptureJournal>,
    also_stderr: bool,
    /// The zone of the start: to look for another would be to wait for a disk.
    local: Clock,
}

struct State {
    text: String,
    settings: LogSettings,
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
        let settings = LogSettings::of(settings);
        let mut warnings = Vec::new();
        let local = local_time(settings.is_local_time_asked(), &mut warnings);
        let log = ph_log::init(settings.log_options(&local, is_stderr_terminal))?;
        let journal = Arc::new(CaptureJournal::new().map_err(LogError::Journal)?);
        let state = Mutex::new(State { text: settings.text(), settings });
        let also_stderr = is_stderr_terminal;
        Ok((LogOfService { log, state, journal, also_stderr, local }, warnings))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When files are rotated, and what is kept of them.
pub(crate) fn limits(settings: &Settings, warnings: &mut Vec<String>) -> RotateLimits {
    let settings = LogSettings::of(settings);
    let is_asked = settings.is_local_time_asked();
    settings.limits(&local_time(is_asked, warnings))
}

/// The local time; that it is not known matters only where it is asked for.
fn local_time(is_asked: bool, warnings: &mut Vec<String>) -> Clock {
    Clock::local().unwrap_or_else(|error| {
        if is_asked {
            warnings.push(format!("{error}; the log is rotated by UTC"));
        }
        Clock::utc()
    })
}

/// The log of one worker, whose names are bound late.
pub(super) fn of_worker(path: &Path, slot: u32, generation: u32) -> PathBuf {
    bind_late(path.as_os_str(), slot, generation).into()
}

impl Logging for LogOfService {
    fn configure(&self, text: &str) -> bool {
        let mut state = self.state();
        if state.text == text {
            return false;
        }
        let Some(settings) = LogSettings::parse(text) else { return false };
        self.log.configure(settings.log_options(&self.local, self.also_stderr));
        *state = State { text: text.to_owned(), settings };
        true
    }

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
        let (options, paths) = {
            let settings = &self.state().settings;
            let options = settings.capture_options(&self.local, self.also_stderr);
            (options, settings.worker_path())
        };
        let paths = paths.as_ref();
        let mut capture = Capture::open(options, Arc::clone(&self.journal))?;
        for source in feed.sources() {
            capture.add(source_of(source, paths))?;
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
                    LogOrder::Source(source) => capture.add(source_of(source, paths))?,
                    LogOrder::Reopen => {
                        capture.reopen();
                        tracing::info!("log files reopened");
                    }
                    // What is in the pipes, and the beginning of a batch, is the next one's.
                    LogOrder::Renew => return Ok(LogEnd::Complete),
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

    fn hold(&self) {
        self.log.hold();
    }

    fn detach(&self, unread: &[u8], is_killed: bool) {
        self.log.detach(unread, is_killed);
    }
}

/// What the log process has to know of a source; `paths` says which file a worker has.
fn source_of(LogSource { id, pipe, origin }: LogSource, paths: Option<&WorkerPath>) -> Source {
    let mut path = None;
    let kind = match origin {
        LogOrigin::Master => SourceKind::Ready,
        LogOrigin::Worker { slot, generation, pid, stream } => {
            path = paths.map(|paths| paths.of(slot, generation));
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
    use ph_log::{Compression, Period};

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
