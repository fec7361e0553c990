//! `job_queue` on a real Redis that each test starts for itself.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use redis::TypedCommands as _;
use tempfile::TempDir;

use crate::support::{Master, Process, Stage, eventually, let_pass};

/// The configuration as people read it.
const CONFIGURATION: &str = include_str!("../../conf/job_queue.ini");

/// A server of its own, on a Unix socket in a folder of its own, that writes down every step.
struct Redis {
    child: Option<Child>,
    folder: TempDir,
}

impl Redis {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("e2e-redis-").tempdir().expect("a folder");
        let mut redis = Self { child: None, folder };
        redis.run();
        redis
    }

    fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--unixsocket", "redis.sock", "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir", "."]);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn();
        self.child = Some(child.expect("redis-server is needed: apt-get install redis-server"));
        eventually("an answer of redis-server", || {
            let mut connection = self.client().get_connection().ok()?;
            connection.ping().ok()
        });
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("its end");
        }
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.path().join("redis.sock").display())
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("an URL")
    }

    fn connection(&self) -> redis::Connection {
        self.client().get_connection().expect("redis-server")
    }

    /// What whoever wants a job done does: first the job, then its number into the queue.
    fn push(&self, id: u32, payload: &str) {
        let mut connection = self.connection();
        connection.hset(format!("jobs:job:{id}"), "payload", payload).expect("a job");
        connection.rpush("jobs:queue", id).expect("the queue");
    }

    fn job(&self, id: u32) -> BTreeMap<String, String> {
        let all = self.connection().hgetall(format!("jobs:job:{id}")).expect("a job");
        all.into_iter().collect()
    }

    fn field(&self, id: u32, field: &str) -> Option<String> {
        self.job(id).remove(field)
    }

    fn wait_outcomes(&self, ids: std::ops::Range<u32>) {
        eventually("an outcome of every job", || {
            ids.clone().all(|id| self.field(id, "outcome").is_some()).then_some(())
        });
    }

    fn count(&self, key: &str) -> u64 {
        let count = self.connection().hget("jobs:counts", key).expect("the counts");
        count.map_or(0, |count| count.parse().expect("a number"))
    }

    /// Nothing waits, nothing is anybody's, nobody is signed on.
    fn check_empty(&self) {
        let keys = self.connection().keys("jobs:*").expect("keys");
        let is_fine = |key: &String| {
            key.starts_with("jobs:job:")
                || ["jobs:counts", "jobs:last_worker", "jobs:failed"].contains(&key.as_str())
        };
        assert!(keys.iter().all(is_fine), "{keys:?}");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(redis: &Redis, workers: usize) -> (Stage, Master) {
    let stage = Stage::of(env!("CARGO_BIN_EXE_job_queue"), "job_queue");
    std::fs::write(stage.path("config.ini"), CONFIGURATION).expect("the configuration");
    let (url, number) = (format!("app_redis={}", redis.url()), format!("number_workers={workers}"));
    let common = ["log_file=ph.log", "pidfile=ph.pid", "min_uptime=100ms", "app_lease=2"];
    let master = stage.start(&[&common[..], &[&url, &number]].concat());
    stage.log().wait_ready(workers);
    (stage, master)
}

/// The process that has begun a job.
fn worker_of(stage: &Stage, id: u32) -> Process {
    Process(stage.log().wait_for(&format!("job {id} is begun")).pid)
}

#[test]
fn a_worker_killed_in_the_middle_of_a_job_loses_none_and_the_repetition_is_counted() {
    let redis = Redis::start();
    let (stage, master) = start(&redis, 3);
    for id in 0..3 {
        redis.push(id, "wait 4000");
    }
    for id in 3..60 {
        redis.push(id, if id % 2 == 0 { "primes 1000" } else { "wait 20" });
    }
    // Two are killed in the middle of their first jobs.
    for id in 0..2 {
        let worker = worker_of(&stage, id);
        assert_eq!(redis.field(id, "outcome"), None);
        worker.send(Signal::SIGKILL);
    }
    redis.wait_outcomes(0..60);
    for id in 0..60 {
        let job = redis.job(id);
        let wanted = if id >= 3 && id % 2 == 0 { "168" } else { "waited" };
        assert_eq!((job["outcome"].as_str(), job["result"].as_str()), ("done", wanted), "{job:?}");
        assert_eq!(job["attempts"], if id < 2 { "2" } else { "1" }, "{id}: {job:?}");
        let again = stage.log().with(&format!("job {id} is begun again"));
        assert_eq!(again.len(), usize::from(id < 2));
    }
    let counts = ["begun", "repeated", "returned", "done", "finished_again"];
    assert_eq!(counts.map(|key| redis.count(key)), [62, 2, 2, 60, 0]);
    assert_eq!(master.stop(), 0);
    redis.check_empty();
}

#[test]
fn a_stop_finishes_the_job_at_hand_and_leaves_the_rest_in_the_queue() {
    let redis = Redis::start();
    let (stage, master) = start(&redis, 2);
    for id in 0..6 {
        redis.push(id, "wait 5000");
    }
    stage.log().wait_for_count("is begun", 2);
    assert_eq!(master.stop(), 0);
    assert!(stage.log().with("killing").is_empty());
    let outcomes: Vec<_> = (0..6).filter(|id| redis.field(*id, "outcome").is_some()).collect();
    assert_eq!(outcomes, [0, 1]);
    assert_eq!(redis.connection().lrange("jobs:queue", 0, -1).expect("it"), ["2", "3", "4", "5"]);
    assert_eq!(["begun", "done", "returned"].map(|key| redis.count(key)), [2, 2, 0]);
    // And the next start goes on with them.
    let (_stage, master) = start(&redis, 4);
    redis.wait_outcomes(0..6);
    assert_eq!(["begun", "repeated", "done"].map(|key| redis.count(key)), [6, 0, 6]);
    assert_eq!(master.stop(), 0);
    redis.check_empty();
}

/// It was only slow, and finishes a job that another has begun meanwhile.
#[test]
fn who_was_taken_for_dead_and_was_not_changes_no_outcome_and_is_counted() {
    let redis = Redis::start();
    let (stage, master) = start(&redis, 2);
    redis.push(1, "wait 1000");
    let slow = worker_of(&stage, 1);
    slow.send(Signal::SIGSTOP);
    stage.log().wait_for("job 1 is begun again, attempt 2");
    redis.wait_outcomes(1..2);
    let first = redis.job(1);
    slow.send(Signal::SIGCONT);
    stage.log().wait_for("job 1 has run twice");
    assert_eq!(redis.job(1), first);
    let counts = ["begun", "repeated", "done", "finished_again"];
    assert_eq!(counts.map(|key| redis.count(key)), [2, 1, 1, 1]);
    assert_eq!(master.stop(), 0);
    redis.check_empty();
}

#[test]
fn a_job_that_is_no_job_fails_and_one_that_kills_its_workers_is_given_up() {
    let redis = Redis::start();
    let (stage, master) = start(&redis, 2);
    redis.push(1, "dance 3");
    redis.wait_outcomes(1..2);
    assert_eq!(redis.field(1, "result").as_deref(), Some("\"dance 3\": expected primes or wait"));
    redis.push(2, "wait 50000");
    for attempt in 1..=5 {
        let begun = eventually("an attempt", || {
            let begun = stage.log().with("job 2 is begun");
            (begun.len() == attempt).then(|| begun[attempt - 1].pid)
        });
        Process(begun).send(Signal::SIGKILL);
    }
    redis.wait_outcomes(2..3);
    assert_eq!(redis.field(2, "outcome").as_deref(), Some("failed"));
    let failed = redis.connection().lrange("jobs:failed", 0, -1).expect("the list");
    assert_eq!(failed, ["1", "2"]);
    assert_eq!(["failed", "given_up"].map(|key| redis.count(key)), [1, 1]);
    assert_eq!(master.stop(), 0);
    redis.check_empty();
}

/// Redis is killed in the middle of jobs, and comes back with what it had written down; workers are reloaded
/// all the while.
#[test]
fn nothing_is_lost_when_redis_dies_or_workers_are_reloaded() {
    let mut redis = Redis::start();
    let (stage, master) = start(&redis, 2);
    stage.allow_error("");
    for id in 0..40 {
        redis.push(id, "wait 100");
    }
    stage.log().wait_for_count("is done", 3);
    master.send(Signal::SIGHUP);
    stage.log().wait_for("all workers are of generation 2");
    assert_eq!(redis.count("repeated"), 0, "a reload repeats nothing");
    stage.log().wait_for_count("is done", 8);
    redis.kill();
    stage.log().wait_for("exited with code 1");
    let_pass(Duration::from_millis(500));
    redis.run();
    redis.wait_outcomes(0..40);
    assert_eq!(redis.count("done"), 40);
    assert_eq!(redis.count("begun"), 40 + redis.count("repeated"));
    assert_eq!(master.stop(), 0);
    redis.check_empty();
}

#[test]
fn without_redis_the_start_fails_with_the_address() {
    let stage = Stage::of(env!("CARGO_BIN_EXE_job_queue"), "job_queue");
    std::fs::write(stage.path("config.ini"), CONFIGURATION).expect("the configuration");
    stage.allow_error("");
    let nobody = "app_redis=redis+unix:///nobody/redis.sock";
    let master = stage.start(&[nobody, "log_file=ph.log", "pidfile=ph.pid"]);
    assert_eq!(master.wait(), 3);
    stage.log().wait_for("app_redis redis+unix:///nobody/redis.sock: ");
}
