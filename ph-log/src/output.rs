//! Where the lines of a process end: its log file, stderr, or both; and the moves to a new file.
//!
//! The file is a [`RotatingFile`] of the process's own, which rotates it and follows the rotations
//! of others. Somebody else's renaming it cannot know of: the file gets another name, then the
//! reopen counter is raised. Every write first compares the counter with the value its file was
//! opened under, so a writer needs no signal handler of its own, and an idle one costs nothing
//! until it writes. The counter is read *before* the file is opened: a raise in between leads to
//! one reopen too many, never to one too few.
//!
//! If the new file cannot be opened, the old one stays in use, the log says so at most once a
//! minute, and the open is tried again at most once a second, so that a repaired folder needs no
//! second signal. A worker whose own file cannot be opened goes on with its master's in that way.
//!
//! What the file has to tell is written behind the lines it came with, and a report of lost lines
//! that is lost itself is tried again with the next lines.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use crate::file::LogError;
use crate::format::{Format, Head};
use crate::identity::{Identity, Role};
use crate::rotate::{Compression, RotateLimits};
use crate::rotating::{CompressionJob, Notice, RotateOptions, RotatingFile};
use crate::stream::Stream;
use crate::{LogOptions, Target, WorkerPath};

const RETRY_EVERY: Duration = Duration::from_secs(1);
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What every output of a process shares.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) identity: Identity,
    pub(crate) dropped: AtomicU64,
    /// Whether the format is that of JSON: looked at for every line.
    is_json: AtomicBool,
    /// Written only by a process of one thread.
    places: RwLock<Places>,
    reopen: &'static AtomicU32,
}

/// Where lines go, and what is kept of them: what may change while the process lives.
#[derive(Debug)]
struct Places {
    target: Target,
    worker_path: Option<WorkerPath>,
    limits: RotateLimits,
    also_stderr: bool,
}

impl Places {
    fn of(options: LogOptions) -> Places {
        Places {
            also_stderr: options.also_stderr && options.target != Target::Stderr,
            target: options.target,
            worker_path: options.worker_path,
            limits: options.limits,
        }
    }
}

impl Writer {
    pub(crate) fn new(options: LogOptions) -> Writer {
        Writer {
            identity: Identity::master(&options.name, options.pid),
            is_json: AtomicBool::new(options.format == Format::Json),
            reopen: options.reopen,
            dropped: AtomicU64::new(0),
            places: RwLock::new(Places::of(options)),
        }
    }

    /// Takes other options; name, reopen counter and pid stay what they were.
    pub(crate) fn configure(&self, options: LogOptions) {
        self.is_json.store(options.format == Format::Json, Ordering::Relaxed);
        *self.places.write().unwrap_or_else(PoisonError::into_inner) = Places::of(options);
    }

    pub(crate) fn format(&self) -> Format {
        if self.is_json.load(Ordering::Relaxed) { Format::Json } else { Format::Text }
    }

    fn places(&self) -> RwLockReadGuard<'_, Places> {
        self.places.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> RotateLimits {
        self.places().limits.clone()
    }

    fn copy(&self) -> Option<Stream> {
        self.places().also_stderr.then(Stream::default)
    }

    /// Where the lines of this process are to go.
    fn place(&self) -> Target {
        let places = self.places();
        match (self.identity.role(), &places.worker_path) {
            (Role::Worker { slot, generation }, Some(path)) => {
                Target::File(path.of(slot, generation))
            }
            (Role::Worker { .. } | Role::Master | Role::Helper(_) | Role::Unnamed, _) => {
                places.target.clone()
            }
        }
    }

    /// The beginning of a line this process writes now.
    pub(crate) fn head(&self, level: tracing::Level, pid: u32) -> Head<'_> {
        let role = self.identity.role();
        Head { at: SystemTime::now(), level, name: self.identity.name(), pid, role }
    }

    /// Appends a warning of the log about itself. It cannot be an event: that would come back
    /// here.
    pub(crate) fn notice(&self, into: &mut String, message: &str, fields: &[(&str, &str)]) {
        let head = self.head(tracing::Level::WARN, self.identity.pid());
        self.format().notice(into, head, message, fields);
    }

    /// Appends the report that lines were lost, and why the last of them was.
    pub(crate) fn notice_of_loss(&self, into: &mut String, lines: u64, error: &str) {
        let lines = lines.to_string();
        self.notice(into, "log lines were lost", &[("lines", &lines), ("error", error)]);
    }
}

/// The open descriptors of a process, and what is known about them.
#[derive(Debug)]
pub(crate) struct Output {
    writer: Arc<Writer>,
    main: Main,
    copy: Option<Stream>,
    /// The reopen counter under which the file was opened.
    seen: u32,
    /// Set while the file in use is not the one that was asked for: when to try again.
    retry_at: Option<Duration>,
    say_at: Duration,
    say_uncompressed_at: Duration,
    /// Lines that are in no file, and no report of them either.
    unreported: u64,
    /// It was opened by options that hold no more.
    is_outdated: bool,
    /// The file may make its writer wait for ever, and is not opened again.
    is_file_left: bool,
    /// Whether a write has rotated the file since that was asked.
    is_rotated: bool,
}

/// What has to take the lines.
#[derive(Debug)]
enum Main {
    Stderr(Stream),
    /// The pipe of a worker whose lines are records; its reader is waited for.
    Records(File),
    File {
        file: Box<RotatingFile>,
        path: PathBuf,
    },
}

impl Main {
    fn open(place: Target, limits: &RotateLimits) -> Result<Main, LogError> {
        match place {
            Target::Stderr => Ok(Main::Stderr(Stream::default())),
            Target::File(path) => {
                let file = RotatingFile::open(RotateOptions::new(&path, limits.clone()))?;
                Ok(Main::File { file: Box::new(file), path })
            }
        }
    }
}

impl Output {
    pub(crate) fn open(writer: &Arc<Writer>) -> Result<Output, LogError> {
        let seen = writer.reopen.load(Ordering::Acquire);
        Ok(Output {
            main: Main::open(writer.place(), &writer.limits())?,
            writer: Arc::clone(writer),
            copy: writer.copy(),
            seen,
            retry_at: None,
            say_at: Duration::ZERO,
            say_uncompressed_at: Duration::ZERO,
            unreported: 0,
            is_outdated: false,
            is_file_left: false,
            is_rotated: false,
        })
    }

    /// Makes the output of the process this one was forked from its own: the file of its role, on
    /// file descriptions of its own, and an account that begins at nothing. Closing the inherited
    /// descriptors takes nothing from the parent.
    pub(crate) fn make_own(&mut self) {
        if let Main::Stderr(stream) = &mut self.main {
            stream.forget();
        }
        if let Some(copy) = &mut self.copy {
            copy.forget();
        }
        self.unreported = 0;
        self.is_rotated = false;
        self.say_at = Duration::ZERO;
        self.say_uncompressed_at = Duration::ZERO;
        // Due at once: without a success here, the next line tries again and says why.
        self.retry_at = Some(Duration::ZERO);
        let seen = self.writer.reopen.load(Ordering::Acquire);
        if self.reopen().is_ok() {
            self.seen = seen;
            self.retry_at = None;
        }
    }

    /// Makes the output of the process this one was forked from one of records, which go into a pipe.
    pub(crate) fn send_records(&mut self, pipe: OwnedFd) {
        self.copy = None;
        self.main = Main::Records(File::from(pipe));
        self.unreported = 0;
        self.retry_at = None;
    }

    /// Whoever writes next opens what the options of today name.
    pub(crate) fn note_options_changed(&mut self) {
        self.is_outdated = true;
        self.retry_at = Some(Duration::ZERO);
    }

    /// Leaves a file that may make its writer wait for ever: lines go to stderr alone.
    pub(crate) fn leave_file(&mut self) {
        self.copy = None;
        self.main = Main::Stderr(Stream::default());
        self.is_file_left = true;
    }

    /// Writes whole lines, to the new file if one was asked for. Returns whether that rotated it.
    pub(crate) fn write(&mut self, lines: &[u8]) -> bool {
        self.follow();
        self.write_here(lines);
        std::mem::take(&mut self.is_rotated)
    }

    /// Whether this process is to compress backups.
    pub(crate) fn is_compressor(&self) -> bool {
        let is_master = self.writer.identity.role() == Role::Master;
        !is_master && self.writer.places().limits.compress != Compression::None
    }

    /// The next backup to compress.
    pub(crate) fn pending_compression(&self) -> io::Result<Option<CompressionJob>> {
        match &self.main {
            Main::Stderr(_) | Main::Records(_) => Ok(None),
            Main::File { file, .. } => file.pending_compression(),
        }
    }

    /// Tells, at most once a minute, that a backup stays as it is.
    pub(crate) fn say_uncompressed(&mut self, error: &io::Error) {
        let now = monotonic();
        if now < self.say_uncompressed_at {
            return;
        }
        self.say_uncompressed_at = now + SAY_EVERY;
        let notice = self.say("cannot compress a backup, it stays as it is", &error.to_string());
        self.tell_all(notice);
    }

    /// A descriptor for a program that writes to the log by itself.
    pub(crate) fn append_fd(&mut self) -> io::Result<OwnedFd> {
        self.follow();
        match &mut self.main {
            Main::Stderr(_) => io::stderr().as_fd().try_clone_to_owned(),
            Main::Records(pipe) => pipe.as_fd().try_clone_to_owned(),
            Main::File { file, .. } => Ok(file.append_fd()?),
        }
    }

    fn write_here(&mut self, lines: &[u8]) {
        let notice = self.put(lines);
        self.tell_all(notice);
    }

    fn tell_all(&mut self, mut notice: Option<Notice>) {
        // Of each kind there is one at most: what a notice leads to is told once more and no more.
        for _ in 0..2 {
            let Some(told) = notice.take() else { return };
            notice = self.tell(&told);
        }
    }

    fn put(&mut self, lines: &[u8]) -> Option<Notice> {
        let (lost, notice) = match &mut self.main {
            Main::Stderr(stream) => (stream.write(lines, &self.writer), None),
            Main::Records(pipe) => {
                let is_written = pipe.write_all(lines).is_ok();
                (if is_written { 0 } else { lines_in(lines) }, None)
            }
            Main::File { file, .. } => {
                let written = file.write_batch(lines);
                self.unreported += written.lost;
                self.is_rotated |= written.is_rotated;
                (written.lost, written.notice)
            }
        };
        self.writer.dropped.fetch_add(lost, Ordering::Relaxed);
        if let Some(copy) = &mut self.copy {
            copy.write(lines, &self.writer);
        }
        notice
    }

    /// Writes down what the file has to tell.
    fn tell(&mut self, notice: &Notice) -> Option<Notice> {
        match notice {
            Notice::Lost { source, .. } => self.report(source),
            // That the file in use is an old one was told, with the reason of all that follows.
            Notice::Kept { .. } if self.retry_at.is_some() => None,
            Notice::Kept { tried, source } => {
                let text = format!("cannot {tried}, the log in use stays");
                self.say(&text, &source.to_string())
            }
        }
    }

    fn say(&mut self, text: &str, error: &str) -> Option<Notice> {
        let mut line = String::new();
        self.writer.notice(&mut line, text, &[("error", error)]);
        self.put(line.as_bytes())
    }

    /// Reports what was lost. The count is this output's own: the file's includes reports.
    fn report(&mut self, error: &io::Error) -> Option<Notice> {
        let Main::File { file, .. } = &mut self.main else { return None };
        let mut line = String::new();
        self.writer.notice_of_loss(&mut line, self.unreported, &error.to_string());
        let written = file.write_batch(line.as_bytes());
        self.is_rotated |= written.is_rotated;
        if written.lost == 0 {
            self.unreported = 0;
        }
        if let Some(copy) = &mut self.copy {
            copy.write(line.as_bytes(), &self.writer);
        }
        written.notice
    }

    /// Moves to the file that now has the name, if a reopen was asked for.
    fn follow(&mut self) {
        let wanted = self.writer.reopen.load(Ordering::Acquire);
        if self.is_file_left || (wanted == self.seen && self.retry_at.is_none()) {
            return;
        }
        let now = monotonic();
        if wanted == self.seen && self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.seen = wanted;
        match self.reopen() {
            Ok(()) => self.retry_at = None,
            Err(error) => {
                self.retry_at = Some(now + RETRY_EVERY);
                self.say_still_on_old_file(now, &error);
            }
        }
    }

    /// Opens what the lines of this process are to go to.
    fn reopen(&mut self) -> Result<(), LogError> {
        match (self.writer.place(), &mut self.main) {
            (_, Main::Records(_)) => return Ok(()),
            (Target::Stderr, Main::Stderr(_)) => {}
            (Target::File(wanted), Main::File { file, path })
                if wanted == *path && !self.is_outdated =>
            {
                file.reopen()?;
            }
            (place, Main::Stderr(_) | Main::File { .. }) => self.replace(place)?,
        }
        if std::mem::take(&mut self.is_outdated) {
            self.copy = self.writer.copy();
        }
        Ok(())
    }

    /// Goes on in another place. What the old one was never told of is told there.
    fn replace(&mut self, place: Target) -> Result<(), LogError> {
        let new = Main::open(place, &self.writer.limits())?;
        if let Main::Stderr(stream) = &self.main {
            self.unreported += stream.unreported();
        }
        self.main = new;
        if self.unreported > 0 {
            drop(self.report(&io::Error::other("they were to go to another file")));
        }
        Ok(())
    }

    fn say_still_on_old_file(&mut self, now: Duration, error: &LogError) {
        if now < self.say_at {
            return;
        }
        self.say_at = now + SAY_EVERY;
        let text = "log file not opened again, the old one stays in use";
        let notice = self.say(text, &error.to_string());
        self.tell_all(notice);
    }
}

/// How many lines end in these bytes.
pub(crate) fn lines_in(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

pub(crate) fn monotonic() -> Duration {
    // The clock exists on every system; without it every wait here would be over.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::MAX, Duration::from)
}
