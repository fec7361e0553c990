//! The classes of forked workers: how a worker is made, and how it lives.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::boot::live;
use super::serve::serve;
use super::{Context, Listener, Result, ThreadWorker, Worker, threads};

/// Makes workers of its class and lives their lives, in the child.
pub(crate) trait Class {
    /// In the master, before the first fork.
    fn preload(&self, app: &BTreeMap<String, String>) -> Result;

    /// From the making of the worker to its end; `on_booted` is called when it is ready. Gives the exit code.
    fn live(&self, ctx: &Context, listeners: &[&Listener], on_booted: &mut dyn FnMut()) -> u8;
}

/// What makes the workers of a master.
pub(crate) type Factory = Rc<dyn Class>;

/// The class `sync`: one request at a time.
pub(crate) struct SyncClass<F>(pub(crate) F);

impl<W: Worker, F: Fn(&Context) -> W> Class for SyncClass<F> {
    fn preload(&self, app: &BTreeMap<String, String>) -> Result {
        W::preload(app)
    }

    fn live(&self, ctx: &Context, listeners: &[&Listener], on_booted: &mut dyn FnMut()) -> u8 {
        let boot = || {
            let mut worker = (self.0)(ctx);
            worker.setup(ctx).and_then(|()| worker.init_process(ctx)).map(|()| worker)
        };
        live(ctx, boot, on_booted, |mut worker| {
            let done =
                serve(ctx, listeners, &mut |ctx, request| worker.handle_request(ctx, request));
            worker.stop(ctx);
            done
        })
    }
}

/// The class `thread`: several requests at a time, each on a thread.
pub(crate) struct ThreadClass<F>(pub(crate) F);

impl<W: ThreadWorker, F: Fn(&Context) -> W> Class for ThreadClass<F> {
    fn preload(&self, app: &BTreeMap<String, String>) -> Result {
        W::preload(app)
    }

    fn live(&self, ctx: &Context, listeners: &[&Listener], on_booted: &mut dyn FnMut()) -> u8 {
        let boot = || {
            let mut worker = (self.0)(ctx);
            worker.setup(ctx).and_then(|()| worker.init_process(ctx)).map(|()| worker)
        };
        live(ctx, boot, on_booted, |mut worker| {
            let done = threads::serve(&worker, ctx, listeners);
            worker.stop(ctx);
            done
        })
    }
}
