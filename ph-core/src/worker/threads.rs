//! The class `thread`: several threads of one process, each of which takes one request at a time.

use std::thread::{Builder, ScopedJoinHandle};

use super::serve::serve as serve_alone;
use super::{Context, Error, Listener, Result, ThreadWorker};

/// Lets all threads serve until the worker is to stop; the caller's is one of them. What runs is finished.
pub(super) fn serve(worker: &impl ThreadWorker, ctx: &Context, listeners: &[&Listener]) -> Result {
    let contexts = ctx.of_threads(ctx.threads().max(1));
    let serve_one = |ctx: &Context| {
        let _others = EndsAll(ctx);
        ctx.enter_thread();
        let done =
            serve_alone(ctx, listeners, &mut |ctx, request| worker.handle_request(ctx, request));
        ctx.rest();
        done
    };
    let serve_one = &serve_one;
    std::thread::scope(|scope| {
        let mut others = Vec::new();
        let mut started = Ok(());
        for (number, ctx) in contexts.iter().enumerate().skip(1) {
            let name = format!("{}:{number}", ctx.slot());
            match Builder::new().name(name).spawn_scoped(scope, move || serve_one(ctx)) {
                Ok(thread) => others.push(thread),
                Err(error) => {
                    started = Err(Error::from(format!("cannot start thread {number}: {error}")));
                    ctx.end();
                    break;
                }
            }
        }
        let done = serve_one(&contexts[0]);
        others.into_iter().map(join).fold(started.and(done), Result::and)
    })
}

/// What a thread came back with; a panic of its goes on in the caller's.
fn join(thread: ScopedJoinHandle<'_, Result>) -> Result {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A thread that leaves takes the others with it: by itself it only does so if a job has failed.
struct EndsAll<'a>(&'a Context);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
