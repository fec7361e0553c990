//! Workers that take jobs from Redis, without a socket of their own: one turn of the job loop is one job.
//!
//! Nothing is lost when a worker is killed in the middle of a job, and a job that was begun twice is counted
//! ([`queue`]); a worker that is told to stop finishes the job at hand and takes no other. Redis out of reach
//! is no special case: the turn fails, the worker ends with code 1, and its slot waits longer and longer
//! before the master starts another one.
//!
//! Settings: `app_redis` (an URL), `app_queue` (the beginning of the keys), `app_lease` (seconds for which a
//! worker counts as alive after it has said so), `app_attempts` (how often a job is begun at most).

mod queue;
mod work;

use std::process::ExitCode;
use std::time::Duration;

use ph_cli::App;
use ph_core::{Connection, Context, Result, Worker};

use queue::{Job, Queue, Terms};
use work::Work;

#[derive(Default)]
struct JobQueue {
    queue: Option<Queue>,
}

impl JobQueue {
    fn queue(&mut self) -> Result<&mut Queue> {
        self.queue.as_mut().ok_or_else(|| "init_process was not called".into())
    }

    /// Does a job, and says that the worker lives meanwhile, to its master and to the other workers.
    fn perform(&mut self, ctx: &Context, job: &Job) -> Result<std::result::Result<String, String>> {
        let mut work = match Work::parse(&job.payload) {
            Ok(work) => work,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            if let Some(result) = work.step() {
                return Ok(Ok(result));
            }
            ctx.beat();
            self.queue()?.renew()?;
        }
    }
}

impl Worker for JobQueue {
    fn init_process(&mut self, ctx: &Context) -> Result {
        let url = ctx.app("redis").unwrap_or("redis://127.0.0.1:6379/");
        let terms = Terms {
            name: ctx.app("queue").unwrap_or("jobs").to_owned(),
            lease: Duration::from_secs(ctx.app("lease").unwrap_or("10").parse()?),
            attempts: ctx.app("attempts").unwrap_or("5").parse()?,
        };
        let queue = Queue::join(url, terms).map_err(|error| format!("app_redis {url}: {error}"))?;
        tracing::info!("takes jobs as worker {} of the queue", queue.worker());
        self.queue = Some(queue);
        Ok(())
    }

    fn handle_request(&mut self, ctx: &Context, _: Option<Connection>) -> Result {
        let queue = self.queue()?;
        queue.renew()?;
        for (worker, jobs) in queue.reap()? {
            tracing::warn!("worker {worker} is dead: {} back in the queue", jobs.join(", "));
        }
        let Some(job) = queue.take()? else { return Ok(()) };
        let Job { id, attempt, payload } = &job;
        if *attempt > 1 {
            tracing::warn!("job {id} is begun again, attempt {attempt}: {payload}");
        } else {
            tracing::info!("job {id} is begun: {payload}");
        }
        let result = self.perform(ctx, &job)?;
        if !self.queue()?.finish(&job, &result)? {
            tracing::warn!("job {id} has run twice: the first outcome stays");
        } else if let Err(error) = &result {
            tracing::warn!("job {id} failed: {error}");
        } else {
            tracing::info!("job {id} is done");
        }
        Ok(())
    }

    fn stop(&mut self, _: &Context) {
        if let Some(Err(error)) = self.queue.as_mut().map(Queue::leave) {
            tracing::warn!("not signed off, so the lease has to run out: {error}");
        }
    }
}

fn main() -> ExitCode {
    App::new("job_queue").worker(|_| JobQueue::default()).main()
}
