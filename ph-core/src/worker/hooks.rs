//! Hooks: code of the program that runs at fixed points of a service's life, some in the master, some in the
//! forked worker. The list and the names are gunicorn's.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Which worker a hook is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookWorker {
    /// Its place.
    pub slot: u32,
    /// Its configuration.
    pub generation: u32,
    /// Its identity, never used again by this master.
    pub id: u64,
    /// Its process; before the fork there is none.
    pub pid: Option<i32>,
}

/// What a program wants to do at fixed points of a service's life. Every method does nothing unless it is
/// written.
///
/// Those that run in the master must return at once: it serves nobody meanwhile. They must not wait for
/// children, which the master reaps, nor start a thread, after which it could not fork any more. A panic is
/// logged and goes no further.
///
/// ```
/// use ph_core::{HookWorker, Hooks};
///
/// struct Counted;
///
/// impl Hooks for Counted {
///     fn child_exit(&self, worker: HookWorker) {
///         eprintln!("worker {} is gone", worker.slot);
///     }
/// }
/// ```
pub trait Hooks {
    /// Master, once, before anything else: no lock, no listener, no signal handler is there yet.
    fn on_starting(&self) {}

    /// Master, once: lock, listeners and pidfile are there, and the first worker is about to be forked.
    fn when_ready(&self) {}

    /// Master, before each fork of a worker, forked or command.
    fn pre_fork(&self, worker: HookWorker) {
        let _ = worker;
    }

    /// Forked worker, first of all: its log is there, and it is still who the master is.
    fn post_fork(&self, worker: HookWorker) {
        let _ = worker;
    }

    /// Forked worker, after `setup` and `init_process`, before it counts as ready.
    fn post_worker_init(&self, worker: HookWorker) {
        let _ = worker;
    }

    /// Master, when a worker is told by SIGABRT that it is stuck or did not boot in time, before the signal.
    fn worker_abort(&self, worker: HookWorker) {
        let _ = worker;
    }

    /// Forked worker, after `stop`, or after whatever made it give up; not if a signal or a call of `exit` ends
    /// it.
    fn worker_exit(&self, worker: HookWorker) {
        let _ = worker;
    }

    /// Master, after a worker was reaped, before another one is forked in its place.
    fn child_exit(&self, worker: HookWorker) {
        let _ = worker;
    }

    /// Master, when the number of workers to keep alive has changed.
    fn nworkers_changed(&self, from: u32, to: u32) {
        let _ = (from, to);
    }

    /// Master, when a reload begins, before the configuration is read.
    fn on_reload(&self) {}

    /// Master, in an upgrade, before the successor is started.
    fn pre_exec(&self) {}

    /// Master, once, when nothing is left to do but to exit. Also after an upgrade, in the master that
    /// goes.
    fn on_exit(&self) {}
}

/// A program without hooks.
pub(crate) struct NoHooks;

impl Hooks for NoHooks {}

/// Calls a hook: what it panics with is its own.
pub(crate) fn call(name: &str, hook: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(hook)) {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        tracing::error!("the hook {name} panicked: {}", text.unwrap_or("(no message)"));
        // Its destructor is the program's code as well, and may panic in its turn.
        #[expect(clippy::mem_forget, reason = "there is one for each panic of a hook")]
        std::mem::forget(payload);
    }
}
