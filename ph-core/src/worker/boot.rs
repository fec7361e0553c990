//! From fork to exit: the child's branch, which never returns into the master's code.
//!
//! It runs with all signals blocked until the worker has its own handlers and its own log, then
//! makes the [`Worker`] and lives its life. Every way out ends in [`leave`], which flushes the log
//! and calls `_exit`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use super::class::Factory;
use super::context::{Identity, Own};
use super::hooks::{self, Hooks};
use super::panics::{self, caught};
use super::{Context, Listener, Logging, Result};
use crate::driver::Outputs;
use crate::sys::environ::Table;
use crate::sys::fds;
use crate::sys::seats::Seats;
use crate::sys::setup::{Failure, Setup, Step};
use crate::sys::signals::{self, SignalQueue};
use crate::sys::{last_words, process, title};

/// "Cannot boot", as gunicorn's `WORKER_BOOT_ERROR`.
const EXIT_BOOT_FAILED: u8 = 3;
/// A job turn came back with an error.
const EXIT_FAILED: u8 = 1;
/// A panic, as Rust's runtime has it.
const EXIT_PANICKED: u8 = 101;

/// How long a worker that ends waits for whoever reads its standard output.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// All a child takes over from its master.
pub(crate) struct Boot<'a> {
    pub(crate) identity: Identity,
    pub(crate) master: Pid,
    pub(crate) factory: &'a Factory,
    pub(crate) listeners: &'a [&'a Listener],
    pub(crate) seats: &'a Arc<Seats>,
    pub(crate) seat_index: usize,
    pub(crate) signals: &'a SignalQueue,
    /// The master's own descriptors.
    pub(crate) not_mine: Vec<RawFd>,
    pub(crate) setup: &'a Setup,
    pub(crate) mark: u64,
    pub(crate) environment: &'a Table,
    pub(crate) dev_null: &'a OwnedFd,
    pub(crate) logging: &'a Arc<dyn Logging>,
    pub(crate) outputs: Outputs,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_requests: u64,
    pub(crate) threads: usize,
    pub(crate) connections: usize,
    pub(crate) app: &'a Arc<BTreeMap<String, String>>,
    pub(crate) hooks: &'a Rc<dyn Hooks>,
    /// Those of the worker's generation, which need not be the master's now.
    pub(crate) log_settings: &'a str,
}

/// The worker's log, for the ways out that pass no value: `exit` and the panic hook.
static LOGGING: OnceLock<Arc<dyn Logging>> = OnceLock::new();

/// Becomes the worker. Called in the child with all signals blocked.
pub(crate) fn enter(boot: Boot<'_>) -> ! {
    let _bar = NoWayBack;
    leave(caught(|| become_worker(boot)).unwrap_or(EXIT_BOOT_FAILED))
}

/// Runs something in a forked child that is no worker, and ends it with the code that comes of it.
pub(crate) fn never_return(run: impl FnOnce() -> u8) -> ! {
    let _bar = NoWayBack;
    process::exit_now(caught(run).unwrap_or(EXIT_PANICKED))
}

/// Whatever unwinds past here would go on in the master's code, in a copy of the master: this ends
/// the process instead.
struct NoWayBack;

impl Drop for NoWayBack {
    fn drop(&mut self) {
        process::exit_now(EXIT_PANICKED);
    }
}

fn become_worker(mut boot: Boot<'_>) -> u8 {
    let outputs = std::mem::take(&mut boot.outputs).take_over();
    let identity = &boot.identity;
    let (slot, generation) = (identity.slot, identity.generation);
    let prepared = process::become_worker(boot.master).map_err(Failure::of(Step::Session));
    let replaced = process::replace_standard_input(boot.dev_null);
    let (replaced, records) = match outputs {
        Ok(records) => (replaced, records),
        Err(errno) => (Err(errno), None),
    };
    fds::close_in_child(boot.not_mine.iter().copied());
    let worker_signals = boot.signals.become_worker();
    last_words::leave_in(boot.seats.last_words(boot.seat_index));
    title::set(&format!("ph: worker {slot} gen {generation} [{}]", identity.name));
    boot.environment.take_over();
    boot.logging.configure(boot.log_settings);
    boot.logging.enter_worker(slot, generation, records);
    let _ = LOGGING.set(Arc::clone(boot.logging));
    process::at_exit(flush_at_exit);
    panics::log_them(|| {
        if let Some(logging) = LOGGING.get() {
            logging.flush();
        }
    });
    let hook_worker = boot.identity.of_hook(Some(nix::unistd::getpid().as_raw()));
    hooks::call("post_fork", || boot.hooks.post_fork(hook_worker));

    let settled = prepared
        .and(replaced.map_err(Failure::of(Step::Descriptors)))
        .and_then(|()| boot.setup.apply(slot, boot.master, Some(boot.mark)));
    if let Err(failure) = settled {
        let (errno, tried) = (Errno::from_raw(failure.errno), failure.tried());
        tracing::error!("cannot {tried} this worker: {} ({errno:?})", errno.desc());
        return EXIT_FAILED;
    }
    let worker_signals = match worker_signals {
        Ok(worker_signals) => worker_signals,
        Err(error) => {
            tracing::error!("cannot set up the signals of this worker: {error}");
            return EXIT_FAILED;
        }
    };
    let ctx = Context::new(Own {
        seat: boot.seats.seat(boot.seat_index),
        seats: Arc::clone(boot.seats),
        seat_index: boot.seat_index,
        signals: worker_signals,
        beat_every: boot.timeout.map(|timeout| timeout / 4),
        max_requests: boot.max_requests,
        threads: boot.threads,
        connections: boot.connections,
        app: Arc::clone(boot.app),
        identity: boot.identity,
        #[cfg(feature = "tokio")]
        stop_watch: super::asynchronous::StopWatch::default(),
    });
    // An empty mask cannot fail to be set. A stop that came meanwhile is delivered here.
    let _ = signals::set_mask(&SigSet::empty());
    let code = boot.factory.live(&ctx, boot.listeners, &mut || {
        hooks::call("post_worker_init", || boot.hooks.post_worker_init(hook_worker));
    });
    hooks::call("worker_exit", || boot.hooks.worker_exit(hook_worker));
    code
}

/// A life of whatever class: the boot, then what serves until the worker is to stop.
pub(super) fn live<W>(
    ctx: &Context,
    boot: impl FnOnce() -> Result<W>,
    on_booted: &mut dyn FnMut(),
    serve: impl FnOnce(W) -> Result,
) -> u8 {
    let worker = match caught(boot) {
        Some(Ok(worker)) => worker,
        Some(Err(error)) => {
            tracing::error!("this worker cannot boot: {error}");
            return EXIT_BOOT_FAILED;
        }
        None => return EXIT_BOOT_FAILED,
    };
    on_booted();
    ctx.report_ready();
    match caught(move || serve(worker)) {
        Some(Ok(())) => 0,
        Some(Err(error)) => {
            tracing::error!("this worker failed: {error}");
            EXIT_FAILED
        }
        None => EXIT_PANICKED,
    }
}

/// The only way out of a worker: everything written is handed over, nothing of the master's runs.
fn leave(code: u8) -> ! {
    flush_at_exit();
    process::exit_now(code)
}

extern "C" fn flush_at_exit() {
    // Unwinding must not cross the C library's `exit`, and there is nobody left to tell.
    let _ = caught(|| {
        if let Some(logging) = LOGGING.get() {
            logging.flush();
        }
        flush_stdout();
    });
}

/// Hands over what was printed, if that can be done: another thread may hold the lock of stdout for
/// ever, and a pipe may be full for ever. Where neither can be ruled out, a thread tries it.
fn flush_stdout() {
    let flush = || drop(std::io::stdout().flush());
    let is_simple = process::thread_count().is_ok_and(|threads| threads == 1);
    if is_simple && fds::has_room(std::io::stdout()) {
        return flush();
    }
    let (done, wait) = std::sync::mpsc::channel();
    let flusher = std::thread::Builder::new().spawn(move || {
        flush();
        // The receiver may have given up.
        let _ = done.send(());
    });
    if flusher.is_ok() {
        let _ = wait.recv_timeout(FLUSH_LIMIT);
    }
}
