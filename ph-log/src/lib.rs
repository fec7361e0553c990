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
//! or, with [`Format::Json`], one JSON object a line.
//!
//! [`init`] installs one global subscriber for the life of the process **and of everything forked
//! from it**; a fork does not exchange the subscriber, it switches where the subscriber writes:
//!
//! | process | way of a line |
//! |---|---|
//! | master, before [`Log::attach`] and after [`Log::detach`] | formatted, then one `write(2)` on the shared `O_APPEND` file |
//! | master, in between | formatted, then a non-blocking write into the pipe of its log process |
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
//! * A rotation by the writers themselves loses, doubles and tears nothing, even if the process that
//!   does it dies on the way: each of them writes through a [`RotatingFile`].
//! * No line waits for a compression: workers and helpers do it in a thread (`shared`).
//! * What workers print, and what workers of another user log, comes into the log exactly once, even
//!   if the process that brings it there is killed: [`Capture`].
//!
//! A log is read, while all of that goes on, by [`LogReader`]: every line once, over rotations and
//! compressed backups; several logs as one by [`MergedReader`].
//!
//! The crate knows no settings and no process tree: its caller says when a worker begins and when
//! it ends. It contains no `unsafe` code.

mod capture;
mod clock;
mod file;
mod follow;
mod format;
mod identity;
mod layer;
mod level;
mod output;
mod queue;
mod record;
mod relay;
mod rotate;
mod rotating;
mod shared;
mod sink;
mod stream;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tracing_subscriber::layer::SubscriberExt;

#[doc(hidden)]
pub use capture::CaptureStep;
pub use capture::{
    Capture, CaptureJournal, CaptureOptions, CaptureTarget, Drained, Overflow, Source, SourceKind,
    StandardStream, Totals, Turn,
};
pub use clock::{Clock, ClockError};
pub use file::{LogError, Unrotatable, probe};
pub use follow::{Found, LogReader, MergedReader, Wake, stamp};
pub use format::Format;
pub use level::{Level, ParseLevelError};
#[doc(hidden)]
pub use rotate::Step;
pub use rotate::{Compression, Period, RotateLimits};
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
    /// When the file is rotated, and what is kept of it; a worker's own file as well.
    pub limits: RotateLimits,
    /// The file of each worker, if it is not the target.
    pub worker_path: Option<WorkerPath>,
    /// Whether every line also goes to stderr, for a master in the foreground of a terminal.
    /// Means nothing with [`Target::Stderr`].
    pub also_stderr: bool,
    /// The least severe level that is logged at first; see [`Log::set_level`].
    pub level: Level,
    /// How an event becomes a line.
    pub format: Format,
    /// The reopen counter: whoever wants the file opened anew, after a rotation by renaming,
    /// raises it by one. That may happen in a signal handler. Where one rotation is to reach all
    /// processes, either the signal reaches all of them or the counter is in shared memory.
    pub reopen: &'static AtomicU32,
    /// Where the pid is kept, so that the kernel need not be asked for every line. It must be 0 at
    /// first and 0 again in every forked process, whoever forked it: memory that the kernel wipes at
    /// a fork (`MADV_WIPEONFORK`). Without it the kernel is asked.
    pub pid: Option<&'static AtomicU32>,
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

/// Which file a worker logs to, by its slot and its generation. Several workers may have the same.
///
/// ```
/// let path = ph_log::WorkerPath::new(|slot, _| format!("/var/log/app.{slot}.log").into());
/// ```
#[derive(Clone)]
pub struct WorkerPath(Arc<dyn Fn(u32, u32) -> PathBuf + Send + Sync>);

impl WorkerPath {
    /// The answer of a function, which is asked in the worker, after the fork.
    pub fn new(path: impl Fn(u32, u32) -> PathBuf + Send + Sync + 'static) -> WorkerPath {
        WorkerPath(Arc::new(path))
    }

    /// The file of a worker.
    pub fn of(&self, slot: u32, generation: u32) -> PathBuf {
        (self.0)(slot, generation)
    }
}

impl fmt::Debug for WorkerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerPath")
    }
}

/// Opens the log and makes it the global subscriber of the process.
///
/// # Errors
///
/// [`LogError::File`] if the file cannot be opened, is no regular file or has several names,
/// [`LogError::AlreadySet`] if the process has a global subscriber already.
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
///     limits: ph_log::RotateLimits::default(),
///     worker_path: None,
///     also_stderr: false,
///     level: ph_log::Level::Info,
///     format: ph_log::Format::Text,
///     reopen: &REOPEN,
///     pid: None,
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
    /// first line does that, with all signals blocked in the new thread. If its file cannot be
    /// opened, the one of the parent stays in use and the log says so.
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
        self.sink.enter_worker(slot, generation, None);
    }

    /// As [`enter_worker`](Log::enter_worker), for a process of another user, who may not be able to
    /// open the log: its lines go into this pipe as *records*, `LEVEL TEXT` with the letter of the
    /// level, and whoever reads them puts a head of its own before each, because this process is not
    /// trusted to say who it is. Records in JSON are objects of `message` and `fields`.
    pub fn enter_worker_with(&self, slot: u32, generation: u32, records: OwnedFd) {
        self.sink.enter_worker(slot, generation, Some(records));
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

    /// Sends the lines of this process, a master, into a pipe from now on: its log process reads the
    /// other end. The pipe must be non-blocking, and the master must keep a copy of the other end. No
    /// call that logs waits any more: what the pipe does not take is queued (256 KiB), and what the
    /// queue does not take is lost, counted and reported in a line.
    ///
    /// In a process forked from the master, [`enter_worker`](Log::enter_worker) and
    /// [`enter_helper`](Log::enter_helper) end it.
    pub fn attach(&self, pipe: OwnedFd) {
        self.sink.attach(pipe);
    }

    /// Sends the lines that wait for room in the pipe, as far as there is room now.
    pub fn resume(&self) {
        self.sink.resume();
    }

    /// Whether lines wait for room in the pipe; to be asked after every turn of the master's loop.
    pub fn is_waiting(&self) -> bool {
        self.sink.is_waiting()
    }

    /// The log process is told to end, and may not look into the pipe again: lines wait in the queue
    /// until [`detach`](Log::detach) writes them.
    pub fn hold(&self) {
        self.sink.hold();
    }

    /// Ends [`attach`](Log::attach): lines are written where they are logged, `unread` first, which was in
    /// the pipe, then those that waited. With `is_file_avoided` they go to stderr alone: to be said if
    /// the log process could not write.
    pub fn detach(&self, unread: &[u8], is_file_avoided: bool) {
        self.sink.detach(unread, is_file_avoided);
    }

    /// Starts compressing the backups that wait for it, in a thread with all signals blocked; what a
    /// master has rotated, or a process that died left behind. Does nothing in a master, which may
    /// have one thread only, and nothing where the limits do not ask for compression.
    ///
    /// After a rotation that this process does itself, it happens by itself.
    pub fn compress_pending(&self) {
        self.sink.compress_pending();
    }

    /// Takes other options, for this process and those forked from it later; `name`, `reopen` and `pid`
    /// stay what they were. Nothing is opened: the next line that this process writes itself does that,
    /// and if it fails, the old log stays in use, which is told there. To be called in a process of one
    /// thread.
    pub fn configure(&self, options: LogOptions) {
        self.set_level(options.level);
        self.sink.configure(options);
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
    /// Such a program knows of no rotation: what it writes after one goes to a backup, and is lost
    /// with it.
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
        self.sink.append_fd()
    }
}
