//! Jobs in Redis, taken so that none is lost and none runs twice unnoticed.
//!
//! All keys begin with a name, here `jobs`:
//!
//! | key | what it is |
//! |---|---|
//! | `jobs:queue` | numbers of the jobs that wait, a list |
//! | `jobs:job:ID` | a job: `payload`, `attempts`, `worker`, `outcome` (`done` or `failed`), `result` |
//! | `jobs:taken:WORKER` | what a worker has taken and not finished, a list |
//! | `jobs:lease:WORKER` | is there while the worker says that it lives |
//! | `jobs:workers` | all that have said so and have not been signed off, a set |
//! | `jobs:failed` | numbers of the jobs that came to nothing, a list |
//! | `jobs:counts` | `begun`, `repeated`, `returned`, `done`, `failed`, `given_up`, `finished_again` |
//!
//! A job goes from the queue into the worker's own list in one step (BLMOVE), so at every moment it is in one
//! of them. What must happen at once or not at all is a script, which Redis runs as one step; so a worker may
//! be killed between any two of them. A worker that has no lease any more is taken for dead, and its jobs go
//! back to the head of the queue. If it was only slow, two may finish the job: the first outcome stays, and
//! the second is counted.

use std::time::Duration;

use redis::{Client, Connection, RedisResult, Script, SetExpiry, SetOptions, TypedCommands as _};

/// How long a worker waits for a job in one step, and so how late it may hear of a stop. Whole seconds.
const TAKE_WAIT: u64 = 1;

/// How long it may take to connect. Answers have no limit of their own: a wait with a limit would be ended by
/// the signal that asks for a stop, in the middle of a job, and who waits for ever is stuck for the master.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a queue is to be.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// The beginning of its keys.
    pub(crate) name: String,
    /// How long a worker counts as alive after it has said so.
    pub(crate) lease: Duration,
    /// How often a job is begun before it is given up.
    pub(crate) attempts: u64,
}

/// A job that is this worker's.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) payload: String,
    /// The how many-eth time it is begun.
    pub(crate) attempt: u64,
}

/// The queue as one worker sees it.
pub(crate) struct Queue {
    connection: Connection,
    terms: Terms,
    /// A number that no other worker of this queue ever had.
    worker: String,
    begin: Script,
    finish: Script,
    reap: Script,
}

impl Queue {
    /// Connects, and signs the worker on.
    pub(crate) fn join(url: &str, terms: Terms) -> RedisResult<Self> {
        let mut connection = Client::open(url)?.get_connection_with_timeout(PATIENCE)?;
        let worker = connection.incr(format!("{}:last_worker", terms.name), 1)?.to_string();
        let mut queue = Self {
            connection,
            terms,
            worker,
            begin: Script::new(include_str!("scripts/begin.lua")),
            finish: Script::new(include_str!("scripts/finish.lua")),
            reap: Script::new(include_str!("scripts/reap.lua")),
        };
        queue.renew()?;
        Ok(queue)
    }

    pub(crate) fn worker(&self) -> &str {
        &self.worker
    }

    /// Says that this worker lives.
    pub(crate) fn renew(&mut self) -> RedisResult<()> {
        let millis = u64::try_from(self.terms.lease.as_millis()).unwrap_or(u64::MAX);
        let (workers, lease) = (self.key("workers"), self.lease_of(&self.worker));
        let expires = SetOptions::default().with_expiration(SetExpiry::PX(millis));
        // The lease first: who is in the set without one is taken for dead.
        redis::pipe()
            .atomic()
            .set_options(lease, "alive", expires)
            .sadd(workers, &self.worker)
            .exec(&mut self.connection)
    }

    /// Waits a moment for a job, and begins it.
    pub(crate) fn take(&mut self) -> RedisResult<Option<Job>> {
        let (queue, taken) = (self.key("queue"), self.taken_by(&self.worker));
        let mut take = redis::cmd("BLMOVE");
        take.arg(queue).arg(&taken).arg("LEFT").arg("RIGHT").arg(TAKE_WAIT);
        let Some(id) = take.query::<Option<String>>(&mut self.connection)? else {
            return Ok(None);
        };
        let (job, counts, failed) = (self.job(&id), self.key("counts"), self.key("failed"));
        let mut begin = self.begin.key(taken);
        begin.key(job).key(counts).key(failed);
        begin.arg(&id).arg(&self.worker).arg(self.terms.attempts);
        let (attempt, payload): (u64, String) = begin.invoke(&mut self.connection)?;
        if attempt == 0 {
            tracing::warn!("job {id} is not begun: {payload}");
            return Ok(None);
        }
        Ok(Some(Job { id, payload, attempt }))
    }

    /// Sets what has become of a job; `false` if somebody else was first.
    pub(crate) fn finish(
        &mut self,
        job: &Job,
        result: &Result<String, String>,
    ) -> RedisResult<bool> {
        let (outcome, text) = match result {
            Ok(text) => ("done", text),
            Err(text) => ("failed", text),
        };
        let mut finish = self.finish.key(self.taken_by(&self.worker));
        finish.key(self.job(&job.id)).key(self.key("counts")).key(self.key("failed"));
        finish.key(self.key("queue"));
        finish.arg(&job.id).arg(&self.worker).arg(outcome).arg(text);
        finish.invoke(&mut self.connection)
    }

    /// Gives back the jobs of all workers that are dead; says whose they were, and their numbers.
    pub(crate) fn reap(&mut self) -> RedisResult<Vec<(String, Vec<String>)>> {
        let workers = self.connection.smembers(self.key("workers"))?;
        let mut returned = Vec::new();
        for worker in workers.into_iter().filter(|worker| *worker != self.worker) {
            let mut reap = self.reap.key(self.lease_of(&worker));
            reap.key(self.taken_by(&worker)).key(self.key("queue"));
            reap.key(self.key("workers")).key(self.key("counts")).arg(&worker);
            let jobs: Vec<String> = reap.invoke(&mut self.connection)?;
            if !jobs.is_empty() {
                returned.push((worker, jobs));
            }
        }
        Ok(returned)
    }

    /// Signs the worker off. What it may still have goes back at once.
    pub(crate) fn leave(&mut self) -> RedisResult<()> {
        self.connection.del(self.lease_of(&self.worker))?;
        let mut reap = self.reap.key(self.lease_of(&self.worker));
        reap.key(self.taken_by(&self.worker)).key(self.key("queue"));
        reap.key(self.key("workers")).key(self.key("counts")).arg(&self.worker);
        reap.invoke(&mut self.connection)
    }

    fn key(&self, key: &str) -> String {
        format!("{}:{key}", self.terms.name)
    }

    fn job(&self, id: &str) -> String {
        format!("{}:job:{id}", self.terms.name)
    }

    fn taken_by(&self, worker: &str) -> String {
        format!("{}:taken:{worker}", self.terms.name)
    }

    fn lease_of(&self, worker: &str) -> String {
        format!("{}:lease:{worker}", self.terms.name)
    }
}
