//! From fork to exit: the child's branch, which never returns into the master's code.
//!
//! It runs with all signals blocked until the worker has its own handlers and its own log, then
//! makes the [`Worker`] and lives its life. Every way out ends in [`leave`], which flushes the log
//! and calls `_exit`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use super::context::Identity;
use super::sync::{self, Listener};
use super::{Context, Worker};
use crate::driver::Logging;
use crate::sys::fds::{self, NofileLimit};
use crate::sys::seats::Seats;
use crate::sys::signals::{self, SignalQueue};
use crate::sys::{process, title};

/// "Cannot boot", as gunicorn's `WORKER_BOOT_ERROR`.
const EXIT_BOOT_FAILED: u8 = 3;
/// A job turn came back with an error.
const EXIT_FAILED: u8 = 1;
/// A panic, as Rust's runtime has it.
const EXIT_PANICKED: u8 = 101;

/// Makes the worker, in the child.
pub(crate) type Factory = Rc<dyn Fn(&Context) -> Box<dyn Worker>>;

/// All a child takes over from its master.
pub(crate) struct Boot<'a> {
    pub(crate) identity: Identity,
    pub(crate) master: Pid,
    pub(crate) factory: &'a Factory,
    pub(crate) listeners: &'a [Listener],
    pub(crate) seats: &'a Rc<Seats>,
    pub(crate) seat_index: usize,
    /// The master's own descriptors.
    pub(crate) not_mine: Vec<RawFd>,
    pub(crate) nofile: NofileLimit,
    pub(crate) directory: Option<&'a Path>,
    /// Variables to remove (`None`) and to set.
    pub(crate) environment: Vec<(std::ffi::OsString, Option<std::ffi::OsString>)>,
    pub(crate) logging: &'a Arc<dyn Logging>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_requests: u64,
    pub(crate) app: &'a Rc<BTreeMap<String, String>>,
}

/// The worker's log, for the ways out that pass no value: `exit` and the panic hook.
static LOGGING: OnceLock<Arc<dyn Logging>> = OnceLock::new();

/// Becomes the worker. Called in the child with all signals blocked.
pub(crate) fn enter(boot: Boot<'_>) -> ! {
    let code = catch_unwind(AssertUnwindSafe(|| live(boot))).unwrap_or(EXIT_BOOT_FAILED);
    leave(code)
}

fn live(boot: Boot<'_>) -> u8 {
    let identity = &boot.identity;
    let (slot, generation) = (identity.slot, identity.generation);
    let prepared = process::become_worker(boot.master);
    fds::close_in_child(boot.not_mine.iter().copied());
    let worker_signals = SignalQueue::become_worker();
    title::set(&format!("ph: worker {slot} gen {generation} [{}]", identity.name));
    process::change_environment(&boot.environment);
    boot.logging.enter_worker(slot, generation);
    let _ = LOGGING.set(Arc::clone(boot.logging));
    process::at_exit(flush_at_exit);
    log_panics();

    let settled = prepared
        .and_then(|()| boot.nofile.restore())
        .and_then(|()| process::close_standard_input())
        .and_then(|()| boot.directory.map_or(Ok(()), nix::unistd::chdir))
        .map_err(std::io::Error::from)
        .and(worker_signals);
    let worker_signals = match settled {
        Ok(worker_signals) => worker_signals,
        Err(error) => {
            tracing::error!("this worker cannot set itself up: {error}");
            return EXIT_FAILED;
        }
    };
    let ctx = Context {
        seat: boot.seats.seat(boot.seat_index),
        seats: Rc::clone(boot.seats),
        seat_index: boot.seat_index,
        signals: worker_signals,
        beat_every: boot.timeout.map(|timeout| timeout / 4),
        max_requests: boot.max_requests,
        app: Rc::clone(boot.app),
        identity: boot.identity,
    };
    // An empty mask cannot fail to be set. A stop that came meanwhile is delivered here.
    let _ = signals::set_mask(&SigSet::empty());
    work(&ctx, boot.factory, boot.listeners)
}

/// The four calls of a worker's life.
fn work(ctx: &Context, factory: &Factory, listeners: &[Listener]) -> u8 {
    let mut worker = factory(ctx);
    let booted = worker.setup(ctx).and_then(|()| worker.init_process(ctx));
    if let Err(error) = booted {
        tracing::error!("this worker cannot boot: {error}");
        return EXIT_BOOT_FAILED;
    }
    ctx.report_ready();
    let run = || {
        let done = sync::run(&mut *worker, ctx, listeners);
        worker.stop(ctx);
        done
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            tracing::error!("this worker failed: {error}");
            EXIT_FAILED
        }
        // The hook has logged it.
        Err(_) => EXIT_PANICKED,
    }
}

/// The only way out of a worker: everything written is handed over, nothing of the master's runs.
fn leave(code: u8) -> ! {
    flush_at_exit();
    process::exit_now(code)
}

extern "C" fn flush_at_exit() {
    // Unwinding must not cross the C library's `exit`, and there is nobody left to tell.
    let _ = catch_unwind(|| {
        let _ = std::io::stdout().flush();
        if let Some(logging) = LOGGING.get() {
            logging.flush();
        }
    });
}

/// A worker's panic goes to the log, with the place and, if `RUST_BACKTRACE` asks, the backtrace.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        let payload = panic.payload_as_str().unwrap_or("(no message)");
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!("panicked at {place}: {payload}\n{backtrace}");
        } else {
            tracing::error!("panicked at {place}: {payload}");
        }
        if let Some(logging) = LOGGING.get() {
            logging.flush();
        }
    }));
}
