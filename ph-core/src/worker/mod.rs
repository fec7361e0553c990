//! Ring 2', the worker's side: what runs in the forked child.
//!
//! A [`Worker`] is made in the child, never in the master, and lives through four calls: `setup`,
//! `init_process`, `handle_request` again and again, `stop`. These are the original's.

mod boot;
mod connection;
mod context;
mod hooks;
mod logging;
mod sync;

pub(crate) use boot::{Boot, Factory, enter, never_return};
pub use connection::{Connection, Peer};
pub use context::Context;
pub(crate) use context::Identity;
pub use hooks::{HookWorker, Hooks};
pub(crate) use hooks::{NoHooks, call};
pub use logging::{LogEnd, LogOrigin, LogProcess, LogSource, Logging, OutputStream};
pub(crate) use sync::Listener;

/// Whatever a worker's code may fail with.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a worker's code comes back with.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// The life of a worker process, in the order of its calls.
///
/// An error of `setup` or `init_process` ends the process with exit code 3, "cannot boot" (as in
/// gunicorn); before any worker was ready, that ends the master with the same code. A panic is
/// logged, never passes into the master's code, and ends the process: with 3 while it boots, with
/// 101 later.
pub trait Worker {
    /// First call: make what the process needs for itself.
    ///
    /// # Errors
    ///
    /// Whatever keeps this worker from booting.
    fn setup(&mut self, ctx: &Context) -> Result {
        let _ = ctx;
        Ok(())
    }

    /// Second call: open what the requests need. The worker is ready when it returns.
    ///
    /// # Errors
    ///
    /// Whatever keeps this worker from booting.
    fn init_process(&mut self, ctx: &Context) -> Result {
        let _ = ctx;
        Ok(())
    }

    /// One request: a connection where the master has listeners, else one turn of the job loop
    /// (`None`). It is called again at once; a job that has nothing to do waits in
    /// [`Context::sleep`], which ends early when the worker is to stop.
    ///
    /// # Errors
    ///
    /// With a connection the error is logged, the connection closed, and the worker lives on. A job
    /// turn that fails ends the worker with exit code 1, and the master starts another one.
    fn handle_request(&mut self, ctx: &Context, connection: Option<Connection>) -> Result;

    /// Last call, after the last `handle_request` returned; never from a signal handler.
    fn stop(&mut self, ctx: &Context) {
        let _ = ctx;
    }
}
