//! File logs that are safe with several processes.
//!
//! A prefork server is one program in many processes, and all of them write one log file. This
//! crate owns that file: it turns [`tracing`] events into lines and sees to it that no line is
//! lost, torn, doubled or forged, whichever process wrote it and however that process ended.
//!
//! ```text
//! 2026-11-23T08:00:00.123Z INFO jobexecute[4120] master: worker booted slot=3 pid=4121
//! 2026-11-23T08:00:00.127Z INFO jobexecute[4121] worker 3 gen 2: job done id=17 took="12 ms"
//! ```
//!
//! [`init`] installs one global subscriber for the life of the process **and of everything forked
//! from it**; a fork does not exchange the subscriber, it switches where the subscriber writes:
//!
//! | process | way of a line |
//! |---|---|
//! | master | formatted, then one `write(2)` on the shared `O_APPEND` file |
//! | worker, after [`Log::enter_worker`] | formatted, queued (1,000 lines, a full queue makes the caller wait), written in batches of whole lines by a background thread that starts with the first line |
//! | worker, after [`Log::flush`] | as in the master |
//! | any other forked process | as in the master, on the descriptor it inherited |
//!
//! What always holds, and where:
//!
//! * A line is whole: one `write(2)` carries whole lines only (`queue`, `output`).
//! * A line is one line: nothing an event carries can end it early or start another (`format`).
//! * Nothing that was accepted is dropped silently: what could not be written is counted, and
//!   reported in a line as soon as writing works again (`stream`).
//! * A rename of the file loses nothing: every writer compares the reopen counter before it
//!   writes and moves to the new file by itself (`output`).
//!
//! * A rotation by the writers themselves loses, doubles and tears nothing, even if the process that
//!   does it dies on the way: [`RotatingFile`]. [`init`] does not use it yet.
//!
//! The crate knows no settings and no process tree: its caller says when a worker begins and when
//! it ends. It contains no `unsafe` code.

mod file;
mod format;
mod identity;
mod layer;
mod level;
mod output;
mod queue;
mod record;
mod rotate;
mod rotating;
mod sink;
mod stream;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tracing_subscriber::layer::SubscriberExt;

pub use file::{LogError, probe};
pub use level::{Level, ParseLevelError};
#[doc(hidden)]
pub use rotate::Step;
pub use rotate::{Compression, Period, RotateLimits, utc};
pub use rotating::{BATCH_MAX, CompressionJob, Notice, RotateOptions, RotatingFile, Written};

use layer::LineLayer;
use sink::Sink;

/// What [`init`] needs to know.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The name in every line, before the pid. Control characters in it are escaped.
    pub name: String,
    /// Where lines go.
    pub target: Target,
    /// Whether every line also goes to stderr, for a master in the foreground of a terminal.
    /// Means nothing with [`Target::Stderr`].
    pub also_stderr: bool,
    /// The least severe level that is logged at first; see [`Log::set_level`].
    pub level: Level,
    /// The reopen counter: whoever wants the file opened anew, after a rotation by renaming,
    /// raises it by one. That may happen in a signal handler. Where one rotation is to reach all
    /// processes, either the signal reaches all of them or the counter is in shared memory.
    pub reopen: &'static AtomicU32,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Descriptor 2, whatever it is at the moment of writing. The setting's value `-`.
    Stderr,
    /// A regular file, made with mode 0640 less the umask if it does not exist. A symbolic link,
    /// a FIFO, a device or a directory is refused.
    File(PathBuf),
}

/// Opens the log and makes it the global subscriber of the process.
///
/// # Errors
///
/// [`LogError::File`] if the file cannot be opened or is no regular file, [`LogError::AlreadySet`]
/// if the process has a global subscriber already.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::AtomicU32;
/// static REOPEN: AtomicU32 = AtomicU32::new(0);
///
/// let log = ph_log::init(ph_log::LogOptions {
///     name: "jobexecute".to_owned(),
///     target: ph_log::Target::Stderr,
///     also_stderr: false,
///     level: ph_log::Level::Info,
///     reopen: &REOPEN,
/// })?;
/// tracing::info!(workers = 4, "ready");
/// log.set_level(ph_log::Level::Debug);
/// log.flush();
/// # Ok::<(), ph_log::LogError>(())
/// ```
pub fn init(options: LogOptions) -> Result<Log, LogError> {
    let (log, layer) = build(options)?;
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    Ok(log)
}

/// Everything `init` does but for the global part, so that a test can have a subscriber of its own.
fn build(options: LogOptions) -> Result<(Log, LineLayer), LogError> {
    let level = options.level;
    let sink = Arc::new(Sink::open(options)?);
    let layer = LineLayer::new(Arc::clone(&sink), level);
    let log = Log { sink, level: layer.level() };
    Ok((log, layer))
}

/// The handle of the process's log. Clones speak of the same log.
#[derive(Debug, Clone)]
pub struct Log {
    sink: Arc<Sink>,
    level: Arc<layer::LevelCell>,
}

impl Log {
    /// Makes this freshly forked process a worker: lines name its pid, slot and generation, and
    /// go through a queue of its own to a file description of its own.
    ///
    /// To be called once, before anything is logged in the child, with all signals blocked. The
    /// fork must have happened in a process with one thread, outside any tracing span. What the
    /// parent had is forgotten, neither flushed nor waited for. No thread is started here: the
    /// first line does that, with all signals blocked in the new thread. If the file cannot be
    /// opened again, the inherited descriptor stays in use and the log says so.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn in_the_child(log: &ph_log::Log) {
    /// log.enter_worker(3, 2);
    /// tracing::info!("booted"); // … worker 3 gen 2: booted
    /// log.flush();
    /// # }
    /// ```
    pub fn enter_worker(&self, slot: u32, generation: u32) {
        self.sink.enter_worker(slot, generation);
    }

    /// Makes this freshly forked process a helper of this name: lines name it, and go directly to a
    /// file description of its own. To be called once, in the circumstances of
    /// [`enter_worker`](Log::enter_worker).
    pub fn enter_helper(&self, name: &str) {
        self.sink.enter_helper(name);
    }

    /// Writes what is queued, and makes every later line of this process be written where it is
    /// logged. To be called on every way out of a worker; the master has nothing to flush.
    ///
    /// Waits at most 1.1 s for the queue; what a hanging disk still holds then stays counted in
    /// [`Log::queued`]. Lines that other threads log meanwhile may overtake queued ones. Calling
    /// it again, at the same time or from a panic hook, does no harm: every caller returns when
    /// the queue is empty.
    pub fn flush(&self) {
        self.sink.flush();
    }

    /// Changes the least severe level that is logged, at once and for this process only.
    pub fn set_level(&self, level: Level) {
        self.level.set(level);
    }

    /// Lines queued in this worker and not yet written. Always zero in the master.
    pub fn queued(&self) -> u64 {
        self.sink.queued()
    }

    /// Lines this process lost because writing failed. With a file *and* stderr, only the file
    /// counts: a closed terminal loses nothing.
    pub fn dropped(&self) -> u64 {
        self.sink.dropped()
    }

    /// A fresh descriptor for programs that write to the log by themselves, such as the output of
    /// a command worker: close-on-exec, and of its own open file description in append mode. With
    /// [`Target::Stderr`] it is a duplicate of descriptor 2. Never one of 0, 1 and 2.
    ///
    /// # Errors
    ///
    /// As for [`init`]: the file cannot be opened or is no regular file any more; or no descriptor
    /// is left. The text names the path.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn start(log: &ph_log::Log) -> std::io::Result<()> {
    /// use std::process::{Command, Stdio};
    /// Command::new("./server").stderr(Stdio::from(log.append_fd()?)).spawn()?;
    /// # Ok(()) }
    /// ```
    pub fn append_fd(&self) -> io::Result<OwnedFd> {
        match self.sink.target() {
            Target::Stderr => io::stderr().as_fd().try_clone_to_owned(),
            Target::File(path) => match file::open(path) {
                Ok(file) => Ok(file.into()),
                Err(error) => Err(error.into()),
            },
        }
    }
}
