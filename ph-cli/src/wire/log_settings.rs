//! The settings of a log as text: what a reload hands to a master, which makes options of them without
//! asking a disk for anything.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use ph_config::{LogCompress, LogFormat, LogLevel, LogOverflow, LogRotate, LogTarget, Settings};
use ph_log::{
    CaptureOptions, CaptureTarget, Clock, Compression, Format, Level, LogOptions, Overflow, Period,
    RotateLimits, Target, WorkerPath,
};
use serde::{Deserialize, Serialize};

use super::log_process::of_worker;

/// All that a log is told by settings. Choices are the words of the table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogSettings {
    name: String,
    /// None for stderr.
    file: Option<OsString>,
    worker_file: Option<OsString>,
    level: String,
    format: String,
    max_size: u64,
    rotate: String,
    utc: bool,
    backups: u32,
    max_age: Duration,
    compress: String,
    line_max: u64,
    overflow: String,
}

impl LogSettings {
    pub(crate) fn of(settings: &Settings) -> LogSettings {
        LogSettings {
            name: settings.proc_name.clone(),
            file: match &settings.log_file {
                LogTarget::Stderr => None,
                LogTarget::File(path) => Some(path.clone().into_os_string()),
            },
            worker_file: settings.worker_log_file.clone().map(PathBuf::into_os_string),
            level: settings.log_level.as_str().to_owned(),
            format: settings.log_format.as_str().to_owned(),
            max_size: settings.log_max_size,
            rotate: settings.log_rotate.as_str().to_owned(),
            utc: settings.log_utc,
            backups: settings.log_backups,
            max_age: settings.log_max_age,
            compress: settings.log_compress.as_str().to_owned(),
            line_max: settings.log_line_max,
            overflow: settings.log_overflow.as_str().to_owned(),
        }
    }

    /// `None` for what no loader of this program says.
    pub(crate) fn parse(text: &str) -> Option<LogSettings> {
        serde_json::from_str(text).ok()
    }

    /// Equal texts are equal settings.
    pub(crate) fn text(&self) -> String {
        // There is no map in it and no key that is not text, so it can be written down.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether hours and days of the log begin by local time.
    pub(crate) fn is_local_time_asked(&self) -> bool {
        self.period() != Period::Never && !self.utc
    }

    /// When files are rotated, and what is kept of them.
    pub(crate) fn limits(&self, local: &Clock) -> RotateLimits {
        RotateLimits {
            max_size: (self.max_size > 0).then_some(self.max_size),
            period: self.period(),
            clock: if self.is_local_time_asked() { local.clone() } else { Clock::utc() },
            backups: self.backups,
            max_age: (!self.max_age.is_zero()).then_some(self.max_age),
            compress: match word(LogCompress::ALL, LogCompress::as_str, &self.compress) {
                None | Some(LogCompress::None) => Compression::None,
                Some(LogCompress::Gzip) => Compression::Gzip,
                Some(LogCompress::Zstd) => Compression::Zstd,
            },
        }
    }

    /// What the log of master and workers is told.
    pub(crate) fn log_options(&self, local: &Clock, also_stderr: bool) -> LogOptions {
        LogOptions {
            name: self.name.clone(),
            target: self.path().map_or(Target::Stderr, Target::File),
            limits: self.limits(local),
            worker_path: self.worker_path(),
            also_stderr,
            level: self.level(),
            format: self.format(),
            reopen: ph_core::reopen_count(),
            pid: ph_core::wiped_by_fork(),
        }
    }

    /// What the log process is told.
    pub(crate) fn capture_options(&self, local: &Clock, also_stderr: bool) -> CaptureOptions {
        CaptureOptions {
            name: self.name.clone(),
            target: self.path().map_or(CaptureTarget::Stderr, CaptureTarget::File),
            limits: self.limits(local),
            also_stderr,
            format: self.format(),
            line_max: usize::try_from(self.line_max).unwrap_or(usize::MAX),
            overflow: match word(LogOverflow::ALL, LogOverflow::as_str, &self.overflow) {
                None | Some(LogOverflow::Block) => Overflow::Block,
                Some(LogOverflow::Drop) => Overflow::Drop,
            },
        }
    }

    /// Which file a worker has, if that is not the log.
    pub(crate) fn worker_path(&self) -> Option<WorkerPath> {
        let path = PathBuf::from(self.worker_file.clone()?);
        Some(WorkerPath::new(move |slot, generation| of_worker(&path, slot, generation)))
    }

    fn path(&self) -> Option<PathBuf> {
        self.file.clone().map(PathBuf::from)
    }

    fn period(&self) -> Period {
        match word(LogRotate::ALL, LogRotate::as_str, &self.rotate) {
            None | Some(LogRotate::Never) => Period::Never,
            Some(LogRotate::Hourly) => Period::Hourly,
            Some(LogRotate::Daily) => Period::Daily,
        }
    }

    fn format(&self) -> Format {
        match word(LogFormat::ALL, LogFormat::as_str, &self.format) {
            None | Some(LogFormat::Text) => Format::Text,
            Some(LogFormat::Json) => Format::Json,
        }
    }

    fn level(&self) -> Level {
        match word(LogLevel::ALL, LogLevel::as_str, &self.level) {
            Some(LogLevel::Error) => Level::Error,
            Some(LogLevel::Warn) => Level::Warn,
            None | Some(LogLevel::Info) => Level::Info,
            Some(LogLevel::Debug) => Level::Debug,
            Some(LogLevel::Trace) => Level::Trace,
        }
    }
}

/// The choice of this word.
fn word<T: Copy>(all: &[T], name: fn(T) -> &'static str, text: &str) -> Option<T> {
    all.iter().copied().find(|choice| name(*choice) == text)
}
