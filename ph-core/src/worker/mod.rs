//! Ring 2', the worker's side: what runs in the forked child.
//!
//! A worker is made in the child, never in the master, and lives through four calls: `setup`,
//! `init_process`, `handle_request` again and again, `stop`. These are the original's. It is of one of
//! three classes, which differ in how many requests it has at a time: [`Worker`] (`sync`) has one,
//! [`ThreadWorker`] (`thread`) one on each of its threads, `AsyncWorker` (`async`, with the feature `tokio`) as
//! many as there are.

#[cfg(feature = "tokio")]
mod acceptor;
#[cfg(feature = "tokio")]
mod asynchronous;
mod boot;
mod class;
mod connection;
mod context;
mod hooks;
mod lanes;
mod listener;
mod logging;
mod panics;
mod queue;
mod serve;
mod threads;

use std::collections::BTreeMap;

#[cfg(feature = "tokio")]
pub(crate) use asynchronous::AsyncClass;
#[cfg(feature = "tokio")]
pub use asynchronous::{AsyncConnection, AsyncWorker};
pub(crate) use boot::{Boot, enter, never_return};
pub(crate) use class::{Class, Factory, SyncClass, ThreadClass};
pub use connection::{Connection, Peer};
pub use context::Context;
pub(crate) use context::Identity;
pub use hooks::{HookWorker, Hooks};
pub(crate) use hooks::{NoHooks, call};
pub(crate) use listener::Listener;
pub use logging::{LogEnd, LogOrigin, LogProcess, LogSource, Logging, OutputStream};
pub(crate) use panics::caught;

/// Whatever a worker's code may fail with.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a worker's code comes back with.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// The life of a worker process of the class `sync`, in the order of its calls.
///
/// An error of `setup` or `init_process` ends the process with exit code 3, "cannot boot" (as in
/// gunicorn); before any worker was ready, that ends the master with the same code. A panic is
/// logged with its backtrace and never passes into the master's code. In a request that came over a
/// connection it costs that connection, is counted, and the worker lives on; elsewhere it ends the
/// process: with 3 while it boots, with 101 later.
pub trait Worker {
    /// With [`Master::preload`](crate::Master::preload): called once, in the master, before anything is forked.
    /// What it leaves in memory, in a `static` say, all workers find there and share until they write to it. A
    /// reload does not call it again; an upgrade does. It must leave no thread behind, and nothing that several
    /// processes cannot use, such as a connection. `app` is the application's own settings.
    ///
    /// # Errors
    ///
    /// Whatever keeps the service from starting: that ends the master with exit code 3.
    fn preload(app: &BTreeMap<String, String>) -> Result
    where
        Self: Sized,
    {
        let _ = app;
        Ok(())
    }

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

/// The life of a worker process of the class `thread`: as of a [`Worker`], but several threads call
/// `handle_request`, each for a request of its own. `threads` says how many
/// ([`Master::threads`](crate::Master::threads)); each takes one connection at a time, or is a job loop.
///
/// What all of them need is made in `setup` and `init_process`, which are called once, by one thread, before
/// the others start; `stop` is called by it when they have ended. The process has a heartbeat when every
/// thread that is at work has one. A job turn that fails ends all threads, each after its own turn.
pub trait ThreadWorker: Send + Sync {
    /// With [`Master::preload`](crate::Master::preload): called once, in the master, before anything is forked.
    /// What it leaves in memory, in a `static` say, all workers find there and share until they write to it. A
    /// reload does not call it again; an upgrade does. It must leave no thread behind, and nothing that several
    /// processes cannot use, such as a connection. `app` is the application's own settings.
    ///
    /// # Errors
    ///
    /// Whatever keeps the service from starting: that ends the master with exit code 3.
    fn preload(app: &BTreeMap<String, String>) -> Result
    where
        Self: Sized,
    {
        let _ = app;
        Ok(())
    }

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

    /// One request of one thread, as [`Worker::handle_request`].
    ///
    /// # Errors
    ///
    /// As there.
    fn handle_request(&self, ctx: &Context, connection: Option<Connection>) -> Result;

    /// Last call, after all threads have ended.
    fn stop(&mut self, ctx: &Context) {
        let _ = ctx;
    }
}
