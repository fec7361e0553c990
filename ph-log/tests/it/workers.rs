//! Many processes, one file: nothing missing, nothing torn, nothing doubled.

use std::collections::BTreeMap;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use ph_log::{Log, LogOptions};
use tracing::info;

use crate::stage::{
    self, Left, Scenario, exit_now, expect_exit, fork, fork_worker, threads, wait_until,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("eight_workers", eight_workers),
    ("parents_lines", parents_lines),
    ("idle_worker", idle_worker),
    ("after_flush", after_flush),
    ("flush_among_threads", flush_among_threads),
    ("no_thread", no_thread),
    ("strangers", strangers),
    ("strangers_who_ask", strangers_who_ask),
    ("threads_in_order", threads_in_order),
    ("debug_that_logs", debug_that_logs),
];

const WORKERS: u32 = 8;
const LINES: u32 = 5000;
const MASTER_LINES: u32 = 300;

fn eight_workers(folder: &Path) {
    let log = stage::log(folder);
    info!(n = 0, "m");
    let workers: Vec<_> = (0..WORKERS)
        .map(|slot| {
            let panics = slot % 2 == 1;
            fork_worker(&log, slot, || {
                if panics {
                    let log = log.clone();
                    std::panic::set_hook(Box::new(move |_| {
                        info!(n = LINES, "w");
                        log.flush();
                        log.flush();
                        exit_now(3);
                    }));
                }
                for n in 0..LINES {
                    // Every length, so that lines end everywhere in a batch.
                    let pad = "x".repeat(n as usize % 400);
                    info!(n, pad, "w");
                }
                if panics {
                    panic!("the way out of this worker");
                }
                info!(n = LINES, "w");
                log.flush();
                exit_now(3);
            })
        })
        .collect();
    for n in 1..MASTER_LINES {
        info!(n, "m");
    }
    for worker in workers {
        expect_exit(worker, 3);
    }
    info!(n = MASTER_LINES, "m");
    assert_eq!((log.queued(), log.dropped()), (0, 0));
}

#[test]
fn eight_workers_and_their_master_lose_tear_and_double_nothing() {
    let left = stage::run("eight_workers");
    // By pid and role, the numbers of the lines in the order of the file.
    let mut seen: BTreeMap<(u32, String), Vec<u32>> = BTreeMap::new();
    for line in left.lines("log") {
        let (pid, text) = stage::parse(&line);
        let (role, rest) = text.split_once(": ").expect("a role");
        let mut fields = rest.split(' ').skip(1);
        let n: u32 =
            fields.next().and_then(|n| n.strip_prefix("n=")).expect(&line).parse().expect(&line);
        match fields.next() {
            Some(r#"pad="""#) => assert_eq!(n % 400, 0, "{line}"),
            Some(pad) => assert_eq!(pad, format!("pad={}", "x".repeat(n as usize % 400))),
            None => assert!(role == "master" || n == LINES, "{line}"),
        }
        seen.entry((pid, role.to_owned())).or_default().push(n);
    }
    assert_eq!(seen.len(), WORKERS as usize + 1, "{:?}", seen.keys());
    for ((_, role), numbers) in seen {
        let last = if role == "master" { MASTER_LINES } else { LINES };
        assert!(numbers.into_iter().eq(0..=last), "{role}");
    }
}

fn parents_lines(folder: &Path) {
    let log = stage::log(folder);
    info!("before");
    expect_exit(
        fork_worker(&log, 1, || {
            info!("first");
            log.flush();
        }),
        0,
    );
    expect_exit(fork_worker(&log, 2, || ()), 0);
    info!("after");
}

#[test]
fn a_worker_does_not_repeat_its_parents_lines() {
    let left = stage::run("parents_lines");
    assert_eq!(left.texts("log"), ["master: before", "worker 1 gen 1: first", "master: after"]);
    let pids: Vec<_> = left.lines("log").iter().map(|line| stage::parse(line).0).collect();
    assert!(pids[0] == pids[2] && pids[0] != pids[1], "{pids:?}");
}

fn idle_worker(folder: &Path) {
    let log = stage::log(folder);
    let worker = fork_worker(&log, 1, || {
        assert_eq!(threads(), 1, "an idle worker has no thread");
        tracing::debug!("below the level");
        assert_eq!(threads(), 1);
        info!("first");
        // The thread that was tried first may still be on its way out.
        wait_until(|| threads() == 2);
        let mut blocked: Vec<u64> = std::fs::read_dir("/proc/self/task")
            .expect("proc")
            .map(|task| {
                let path = task.expect("a task").path().join("status");
                let status = std::fs::read_to_string(path).expect("a status");
                let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t"));
                u64::from_str_radix(mask.expect("a mask"), 16).expect("hex")
            })
            .collect();
        blocked.sort_unstable();
        assert_eq!(blocked[0], 0, "the worker's own mask is as before");
        // All but KILL and STOP; glibc keeps two to itself, which it blocks at times.
        let of_glibc = (1 << 31) | (1 << 32);
        assert_eq!(blocked[1] | of_glibc, !((1 << 8) | (1 << 18)));
        log.flush();
        wait_until(|| threads() == 1);
    });
    expect_exit(worker, 0);
}

#[test]
fn a_worker_has_a_log_thread_only_once_it_logs() {
    assert_eq!(stage::run("idle_worker").texts("log"), ["worker 1 gen 1: first"]);
}

fn after_flush(folder: &Path) {
    let log = stage::log(folder);
    let worker = fork_worker(&log, 1, || {
        info!("queued");
        log.flush();
        assert_eq!(log.queued(), 0);
        info!("direct");
        log.flush();
        info!("direct again");
    });
    expect_exit(worker, 0);
    // A worker that flushes before its first line starts no thread afterwards.
    let worker = fork_worker(&log, 2, || {
        log.flush();
        info!("never queued");
        assert_eq!(threads(), 1);
    });
    expect_exit(worker, 0);
}

#[test]
fn a_line_after_the_flush_is_written_at_once() {
    assert_eq!(
        stage::run("after_flush").texts("log"),
        [
            "worker 1 gen 1: queued",
            "worker 1 gen 1: direct",
            "worker 1 gen 1: direct again",
            "worker 2 gen 1: never queued",
        ]
    );
}

const FLUSHED_WORKERS: u32 = 40;

fn flush_among_threads(folder: &Path) {
    let log = stage::log(folder);
    for slot in 0..FLUSHED_WORKERS {
        let worker = fork_worker(&log, slot, || {
            let size = || std::fs::metadata(folder.join("log")).map_or(0, |log| log.len());
            // For every second worker just when the log's thread starts, else somewhere in the
            // middle. No flush follows: one is enough.
            let middle = size() + u64::from(slot % 2 * slot) * 2000;
            std::thread::scope(|scope| {
                for t in 0..4 {
                    scope.spawn(move || (0..1000).for_each(|n| info!("{}", t * 1000 + n)));
                    if t == 0 {
                        scope.spawn(|| {
                            wait_until(|| size() >= middle);
                            log.flush();
                        });
                    }
                }
            });
        });
        expect_exit(worker, 0);
    }
}

#[test]
fn a_flush_among_logging_threads_loses_nothing() {
    let left = stage::run("flush_among_threads");
    let mut seen: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for text in left.texts("log") {
        let (role, n) = text.split_once(": ").expect("a role");
        seen.entry(role.to_owned()).or_default().push(n.parse().expect("a number"));
    }
    assert_eq!(seen.len(), FLUSHED_WORKERS as usize);
    for (role, mut numbers) in seen {
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..4000), "{role}");
    }
}

fn no_thread(folder: &Path) {
    let log = stage::log(folder);
    let worker = fork_worker(&log, 1, || {
        let pages = std::fs::read_to_string("/proc/self/statm").expect("proc");
        let pages: u64 = pages.split(' ').next().and_then(|n| n.parse().ok()).expect("a size");
        // Too little for a thread's stack of 2 MiB.
        let (_, hard) = getrlimit(Resource::RLIMIT_AS).expect("a limit");
        setrlimit(Resource::RLIMIT_AS, pages * 4096 + (1 << 20), hard).expect("a limit");
        std::panic::set_hook(Box::new(|_| exit_now(9)));
        info!("first");
        info!("second");
        assert_eq!(threads(), 1);
        assert_eq!(log.queued(), 0);
        exit_now(0);
    });
    expect_exit(worker, 0);
}

#[test]
fn without_a_thread_lines_are_written_directly() {
    assert_eq!(
        stage::run("no_thread").texts("log"),
        ["worker 1 gen 1: first", "worker 1 gen 1: second"]
    );
}

fn strangers(folder: &Path) {
    among_strangers(&stage::log(folder));
}

fn strangers_who_ask(folder: &Path) {
    let options = LogOptions { pid: None, ..stage::options(folder) };
    among_strangers(&ph_log::init(options).expect("a log"));
}

fn among_strangers(log: &Log) {
    expect_exit(
        fork(|| {
            info!("a helper");
            log.flush();
        }),
        0,
    );
    let worker = fork_worker(log, 1, || {
        info!("the worker");
        wait_until(|| log.queued() == 0);
        for _ in 0..20 {
            // More lines than the queue takes: a stranger must not wait for its thread.
            let stranger = fork(|| {
                (0..1100).for_each(|_| info!("a stranger"));
                log.flush();
            });
            info!("beside it");
            expect_exit(stranger, 0);
        }
        log.flush();
    });
    expect_exit(worker, 0);
}

#[test]
fn a_fork_without_enter_worker_writes_directly_under_its_own_pid() {
    // With memory that a fork wipes, and where there is none.
    for scenario in ["strangers", "strangers_who_ask"] {
        judge_strangers(&stage::run(scenario));
    }
}

fn judge_strangers(left: &Left) {
    let lines = left.lines("log");
    let mut pids: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (pid, text) in lines.iter().map(|line| stage::parse(line)) {
        pids.entry(text).or_default().push(pid);
    }
    let worker = pids["worker 1 gen 1: the worker"][0];
    assert_ne!(pids["master: a helper"][0], worker);
    assert_eq!(pids["worker 1 gen 1: beside it"], [worker; 20]);
    let strangers = &pids["worker 1 gen 1: a stranger"];
    assert_eq!(strangers.len(), 20 * 1100);
    assert!(!strangers.contains(&worker));
}

const LINES_OF_A_THREAD: usize = 4000;

fn threads_in_order(folder: &Path) {
    let log = stage::log(folder);
    let worker = fork_worker(&log, 1, || {
        std::thread::scope(|scope| {
            for t in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for n in 0..LINES_OF_A_THREAD {
                        let pad = "x".repeat(n * 7 % 300);
                        info!(t, n, pad, "w");
                        // Sometimes the queue runs dry, and its thread falls asleep.
                        if n % (500 + t) == 0 {
                            wait_until(|| log.queued() < 4);
                        }
                    }
                });
            }
        });
        // No flush: whatever was logged comes to the file by itself.
        wait_until(|| log.queued() == 0);
        raise(Signal::SIGKILL).expect("an end");
    });
    let end = WaitStatus::Signaled(worker, Signal::SIGKILL, false);
    assert_eq!(waitpid(worker, None), Ok(end));
}

#[test]
fn the_lines_of_a_thread_stay_in_order_and_wait_for_no_flush() {
    let left = stage::run("threads_in_order");
    let mut seen = [0; 4];
    for text in left.texts("log") {
        let number = |name: &str| -> usize {
            let (_, rest) = text.split_once(name).expect(name);
            rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
        };
        let next = &mut seen[number(" t=")];
        assert_eq!(number(" n="), *next, "{text}");
        *next += 1;
    }
    assert_eq!(seen, [LINES_OF_A_THREAD; 4]);
}

fn debug_that_logs(folder: &Path) {
    struct Talkative;
    impl std::fmt::Debug for Talkative {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            info!(inner = 1, "from within");
            f.write_str("outer")
        }
    }
    let log = stage::log(folder);
    info!(value = ?Talkative, "around");
    let worker = fork_worker(&log, 1, || {
        info!(value = ?Talkative, "around");
        log.flush();
    });
    expect_exit(worker, 0);
}

#[test]
fn a_debug_that_logs_makes_a_line_of_its_own() {
    assert_eq!(
        stage::run("debug_that_logs").texts("log"),
        [
            "master: from within inner=1",
            "master: around value=outer",
            "worker 1 gen 1: from within inner=1",
            "worker 1 gen 1: around value=outer",
        ]
    );
}
