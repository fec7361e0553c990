//! Where the lines of a process end: a file, stderr, or both; and the moves to a new file.
//!
//! Rotation here is somebody else's renaming: the file gets another name, then the reopen counter
//! is raised. Every write first compares the counter with the value its file was opened under, so
//! a writer needs no signal handler of its own, and an idle one costs nothing until it writes. The
//! counter is read *before* the file is opened: a raise in between leads to one reopen too many,
//! never to one too few.
//!
//! If the new file cannot be opened, the old one stays in use, the log says so at most once a
//! minute, and the open is tried again at most once a second, so that a repaired folder needs no
//! second signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use crate::file::{self, LogError};
use crate::format::{self, Head};
use crate::identity::Identity;
use crate::stream::{Place, Stream};
use crate::{LogOptions, Target};

const RETRY_EVERY: Duration = Duration::from_secs(1);
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What every output of a process shares.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) identity: Identity,
    pub(crate) target: Target,
    pub(crate) dropped: AtomicU64,
    also_stderr: bool,
    reopen: &'static AtomicU32,
}

impl Writer {
    pub(crate) fn new(options: LogOptions) -> Writer {
        Writer {
            identity: Identity::master(&options.name),
            also_stderr: options.also_stderr && options.target != Target::Stderr,
            target: options.target,
            reopen: options.reopen,
            dropped: AtomicU64::new(0),
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
        let mut shown = String::new();
        for (name, value) in fields {
            format::key(&mut shown, name);
            format::value(&mut shown, value);
        }
        let head = self.head(tracing::Level::WARN, std::process::id());
        format::line(into, head, message, &shown);
    }
}

/// The open descriptors of a process, and what is known about them.
#[derive(Debug)]
pub(crate) struct Output {
    writer: Arc<Writer>,
    main: Stream,
    copy: Option<Stream>,
    /// The reopen counter under which the file was opened.
    seen: u32,
    /// Set while the file in use is not the one that was asked for: when to try again.
    retry_at: Option<Duration>,
    say_at: Duration,
}

impl Output {
    pub(crate) fn open(writer: &Arc<Writer>) -> Result<Output, LogError> {
        let seen = writer.reopen.load(Ordering::Acquire);
        let main = match &writer.target {
            Target::Stderr => Place::Stderr,
            Target::File(path) => Place::File(file::open(path)?),
        };
        Ok(Output {
            writer: Arc::clone(writer),
            main: Stream::new(main),
            copy: writer.also_stderr.then(|| Stream::new(Place::Stderr)),
            seen,
            retry_at: None,
            say_at: Duration::ZERO,
        })
    }

    /// Makes the output of the process this one was forked from its own: a file description of
    /// its own, and an account that begins at nothing. Closing the inherited descriptor takes
    /// nothing from the parent.
    pub(crate) fn make_own(&mut self) {
        self.main.forget();
        if let Some(copy) = &mut self.copy {
            copy.forget();
        }
        self.say_at = Duration::ZERO;
        // Due at once: without a success here, the next line tries again and says why.
        self.retry_at = Some(Duration::ZERO);
        if let Target::File(path) = &self.writer.target {
            let seen = self.writer.reopen.load(Ordering::Acquire);
            if let Ok(file) = file::open(path) {
                self.main.replace(file);
                self.seen = seen;
                self.retry_at = None;
            }
        }
    }

    /// Writes whole lines, to the new file if one was asked for.
    pub(crate) fn write(&mut self, lines: &[u8]) {
        self.follow();
        self.write_here(lines);
    }

    fn write_here(&mut self, lines: &[u8]) {
        let lost = self.main.write(lines, &self.writer);
        self.writer.dropped.fetch_add(lost, Ordering::Relaxed);
        if let Some(copy) = &mut self.copy {
            copy.write(lines, &self.writer);
        }
    }

    /// Moves to the file that now has the name, if a reopen was asked for.
    fn follow(&mut self) {
        let wanted = self.writer.reopen.load(Ordering::Acquire);
        if wanted == self.seen && self.retry_at.is_none() {
            return;
        }
        let Target::File(path) = &self.writer.target else {
            self.seen = wanted;
            self.retry_at = None;
            return;
        };
        let now = monotonic();
        if wanted == self.seen && self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.seen = wanted;
        match file::open(path) {
            Ok(file) => {
                self.main.replace(file);
                self.retry_at = None;
            }
            Err(error) => {
                self.retry_at = Some(now + RETRY_EVERY);
                self.say_still_on_old_file(now, &error);
            }
        }
    }

    fn say_still_on_old_file(&mut self, now: Duration, error: &LogError) {
        if now < self.say_at {
            return;
        }
        self.say_at = now + SAY_EVERY;
        let mut notice = String::new();
        let text = "log file not opened again, the old one stays in use";
        self.writer.notice(&mut notice, text, &[("error", &error.to_string())]);
        self.write_here(notice.as_bytes());
    }
}

pub(crate) fn monotonic() -> Duration {
    // The clock exists on every system; without it every wait here would be over.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::MAX, Duration::from)
}
