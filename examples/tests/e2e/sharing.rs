//! How connections are shared among workers: whom one wakes, and who gets how many.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::sys::signal::Signal;

use crate::classes::{CLASSES, Sent, ask, connect, stage_of};
use crate::deaths::address;
use crate::support::{Over, Process, Worker, eventually, tell};

/// How often each thread of these workers has fallen asleep.
fn sleeps_of(workers: &[Worker]) -> BTreeMap<Process, u64> {
    let threads = workers.iter().flat_map(|worker| worker.process.threads());
    threads.map(|thread| (thread, thread.context_switches().0)).collect()
}

/// How many of the answers are each worker's.
fn shares(answers: impl IntoIterator<Item = String>) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for answer in answers {
        *shares.entry(answer).or_default() += 1;
    }
    shares
}

/// Of connections one after the other, to idle workers with eight threads in all: how many wake a thread,
/// on average. It counts as woken once it sleeps again, however often it has slept for that connection.
fn wakes_per_connection(class: &str, reuse_port: bool) -> f64 {
    const CONNECTIONS: u32 = 400;
    const THREADS: usize = 8;
    let stage = stage_of(class);
    let threads = if class == "thread" { 2 } else { 1 };
    let workers = THREADS / threads;
    let master = stage.start(&[
        &format!("number_workers={workers}"),
        &format!("threads={threads}"),
        "bind=127.0.0.1:0",
        &format!("reuse_port={reuse_port}"),
        "timeout=0",
    ]);
    stage.log().wait_ready(workers);
    let address = address(&stage.log());
    let workers = master.wait_workers(workers);
    let at_rest = || {
        let is_asleep = |thread: &Process| thread.stat(3).as_deref() == Some("S");
        let before = sleeps_of(&workers);
        let is_so = before.len() == THREADS && before.keys().all(is_asleep);
        Some(before).filter(|before| is_so && *before == sleeps_of(&workers))
    };
    let mut before = eventually("all are idle", at_rest);
    let mut woken = 0;
    for _ in 0..CONNECTIONS {
        assert!(ask(&address, "pid").is_some(), "{class}");
        let after = eventually("who served is idle", || at_rest().filter(|after| *after != before));
        woken += after.iter().filter(|(thread, sleeps)| before[thread] != **sleeps).count();
        before = after;
    }
    assert_eq!(master.stop(), 0);
    let woken = u32::try_from(woken).expect("a few thousand");
    let average = f64::from(woken) / f64::from(CONNECTIONS);
    tell(&format!("{class}: a connection wakes {average:.3} of {THREADS} threads"));
    average
}

#[test]
fn a_connection_wakes_one_of_the_workers_that_are_idle() {
    for class in CLASSES {
        let average = wakes_per_connection(class, false);
        assert!(average <= 1.05, "{class}: {average}");
    }
}

#[test]
fn with_a_socket_of_its_own_an_idle_worker_of_any_class_wakes_alone() {
    for class in CLASSES {
        let average = wakes_per_connection(class, true);
        assert!(average <= 1.05, "{class}: {average}");
    }
}

/// Whoever has no place for one more is not woken in vain, while the other waits.
#[test]
fn connections_pass_by_a_worker_that_is_full() {
    let stage = stage_of("async");
    let settings = ["bind=127.0.0.1:0", "number_workers=2", "worker_connections=1", "timeout=0"];
    let master = stage.start(&settings);
    stage.log().wait_ready(2);
    let address = address(&stage.log());
    for _ in 0..50 {
        let silent = connect(&address);
        for _ in 0..20 {
            assert!(ask(&address, "pid").is_some(), "the other worker is not woken");
        }
        assert!(Sent::over(silent, "pid").answer().is_some());
    }
    assert_eq!(master.stop(), 0);
}

/// Their clients may stay, so one must not get all of them.
#[test]
fn idle_workers_of_the_class_async_take_turns() {
    let stage = stage_of("async");
    let master = stage.start(&["bind=127.0.0.1:0", "number_workers=4", "timeout=0"]);
    stage.log().wait_ready(4);
    let address = address(&stage.log());
    let shares = shares((0..256).map(|_| ask(&address, "pid").expect("an answer")));
    assert_eq!(master.stop(), 0);
    assert!(shares.len() == 4 && shares.values().all(|share| *share >= 32), "{shares:?}");
}

/// Under saturation; idle workers of the other classes are not asked in turn.
#[test]
fn workers_that_all_have_enough_to_do_get_about_as_much_each() {
    const CLIENTS: usize = 32;
    const REQUESTS: u32 = 2000;
    const WORKERS: u32 = 4;
    for class in CLASSES {
        let stage = stage_of(class);
        let settings = ["bind=127.0.0.1:0", "threads=2", "worker_connections=2"];
        let master =
            stage.start(&[&settings[..], &[&format!("number_workers={WORKERS}")]].concat());
        stage.log().wait_ready(4);
        let (address, asked) = (address(&stage.log()), AtomicU32::new(0));
        let client = || {
            let mut answers = Vec::new();
            while asked.fetch_add(1, Ordering::Relaxed) < REQUESTS {
                answers.push(ask(&address, "sleep 5").expect("an answer"));
            }
            answers
        };
        let answers: Vec<_> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
        });
        assert_eq!(master.stop(), 0);
        let shares = shares(answers);
        tell(&format!("{class}: {:?}", shares.values()));
        let fair = REQUESTS / WORKERS;
        assert_eq!(shares.len(), 4, "{class}: {shares:?}");
        assert!(
            shares.values().all(|share| (fair / 2..=fair * 2).contains(share)),
            "{class}: {shares:?}"
        );
    }
}

/// A connection wakes one worker. If that one is being stopped, for others to go on, it wakes nobody else. The
/// last worker of a roll is the one that is woken, and nobody comes after it: without the look it owes, a client
/// was not answered after about one roll in ten.
#[test]
fn a_connection_that_wakes_who_is_being_stopped_is_answered() {
    const ROLLS: usize = 60;
    for class in CLASSES {
        let stage = stage_of(class);
        stage.configure("bind = 127.0.0.1:0\ntimeout = 0\nmin_uptime = 0\nnumber_workers = 2");
        let master = stage.start(&[]);
        stage.log().wait_ready(2);
        let (address, answered) = (address(&stage.log()), AtomicU32::new(0));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let over = Over(&is_over);
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) && ask(&address, "pid").is_some() {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
            for roll in 1..=ROLLS {
                master.send(Signal::SIGHUP);
                stage.log().wait_for_count("all workers are of generation", roll);
                let before = answered.load(Ordering::Relaxed);
                eventually(&format!("{class}: an answer after roll {roll}"), || {
                    (answered.load(Ordering::Relaxed) > before + 1).then_some(())
                });
            }
            drop(over);
        });
        assert_eq!(master.stop(), 0);
    }
}
