//! Reloads of commands that go well: a canary, then the others; what follows the file, and what stays.
//!
//! What they share with those that go wrong is at the end.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::control::client;
use crate::ph;
use crate::support::{Master, Stage, Worker, eventually, let_pass, require, timed};

/// Starts a service of so many workers.
pub(crate) fn start(stage: &Stage, lines: &str, workers: usize) -> (Master, Vec<Worker>) {
    stage.configure(lines);
    let master = stage.start(&[]);
    stage.log().wait_ready(workers);
    let workers = master.wait_workers(workers);
    (master, workers)
}

/// Writes another configuration, and has the master read it.
pub(crate) fn reload(stage: &Stage, master: &Master, lines: &str) {
    stage.configure(lines);
    master.send(Signal::SIGHUP);
}

/// Waits until so many reloads went well.
pub(crate) fn wait_reloaded(stage: &Stage, count: usize) {
    stage.log().wait_for_count("all workers are of generation", count);
}

/// The workers of which nobody is one of `old`, once there are so many.
fn wait_all_new(master: &Master, old: &[Worker], count: usize) -> Vec<Worker> {
    eventually(&format!("{count} new workers"), || {
        let workers = master.workers();
        let is_new = |worker: &Worker| !old.contains(worker);
        (workers.len() == count && workers.iter().all(is_new)).then_some(workers)
    })
}

fn variable(worker: &Worker, name: &str) -> String {
    worker.process.environment().remove(name).unwrap_or_default()
}

#[test]
fn a_reload_replaces_every_worker_behind_a_canary_and_says_what_changed() {
    let stage = ph();
    let base = "command = sleep 1000\nmin_uptime = 0.2\nnumber_workers = 3\n";
    let (master, old) = start(&stage, base, 3);
    reload(&stage, &master, &format!("{base}environment = A=1\ngraceful_timeout = 9"));
    wait_reloaded(&stage, 1);
    let new = wait_all_new(&master, &old, 3);
    assert!(new.iter().map(|worker| worker.slot).eq(0..3));
    for worker in &new {
        assert_eq!(variable(worker, "PH_GENERATION"), "2");
        assert_eq!(variable(worker, "A"), "1");
    }
    let log = stage.log().lines();
    let place = |text: &str| {
        let found = log.iter().position(|line| line.message.contains(text));
        found.unwrap_or_else(|| panic!("no line with {text:?}"))
    };
    let places = [
        "reloading: generation 2",
        "configuration: environment (roll), graceful_timeout (live) changed",
        "is the canary of generation 2",
        "has proved itself: the others follow",
        "(reload: its successor takes over)",
        "all workers are of generation 2",
    ]
    .map(place);
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(master.stop(), 0);
}

#[test]
fn what_needs_a_restart_is_named_and_stays() {
    let stage = ph();
    let base = "command = sleep 1000\nmin_uptime = 0.1\nnumber_workers = 2\n";
    let (master, old) = start(&stage, base, 2);
    std::fs::create_dir(stage.path("other")).expect("a folder");
    let changed = "base_path = other\nmax_workers = 2\npidfile = other.pid\nlog_line_max = 1KB\n";
    reload(&stage, &master, &format!("{base}{changed}"));
    wait_reloaded(&stage, 1);
    wait_all_new(&master, &old, 2);
    stage.log().wait_for(
        "configuration: log_line_max (live) changed; base_path, log_path, pidfile, max_workers \
         need a restart and keep their old values",
    );
    assert_eq!(stage.read("ph.pid").trim(), master.process.0.to_string());
    let folder = stage.folder().canonicalize().expect("the folder");
    let directory = std::fs::read_link(format!("/proc/{}/cwd", master.workers()[0].process.0));
    assert_eq!(directory.expect("its folder"), folder);
    master.send(Signal::SIGTTIN);
    stage.log().wait_for("workers wanted: 3 (was 2)");
    master.wait_workers(3);
    assert_eq!(master.stop(), 0);
    assert!(!stage.path("other/ph.log").exists() && !stage.path("other.pid").exists());
}

#[test]
fn the_number_of_workers_follows_the_file_and_an_operators_stays_until_it_does() {
    let stage = ph();
    let base = "command = sleep 1000\nmin_uptime = 0.1\nnumber_workers = ";
    let (master, _) = start(&stage, &format!("{base}2"), 2);
    let mut reloads = 0;
    let mut reload_to = |number: &str, workers: usize| {
        let old = master.workers();
        reload(&stage, &master, &format!("{base}{number}"));
        reloads += 1;
        wait_reloaded(&stage, reloads);
        wait_all_new(&master, &old, workers);
    };
    reload_to("4", 4);
    reload_to("1", 1);
    reload_to("2", 2);
    master.send(Signal::SIGTTIN);
    master.wait_workers(3);
    reload_to("2", 3);
    reload_to("5", 5);
    assert_eq!(master.stop(), 0);
}

/// The file is read when a reload begins, so whoever wrote last wins, and all that came in a roll are one.
#[test]
fn fault_47_hups_in_a_roll_wait_for_its_verdict_and_the_newest_configuration_wins() {
    let stage = ph();
    let config = |version: u32| {
        format!(
            "command = sleep 1000\nmin_uptime = 0.1\nnumber_workers = 3\ncanary_hold = 1\n\
             environment = VERSION={version}"
        )
    };
    let (master, _) = start(&stage, &config(1), 3);
    reload(&stage, &master, &config(2));
    stage.log().wait_for("is the canary of generation 2");
    reload(&stage, &master, &config(3));
    stage.log().wait_for_count("SIGHUP", 2);
    master.send(Signal::SIGTTIN);
    reload(&stage, &master, &config(4));
    wait_reloaded(&stage, 2);
    let versions = eventually("four workers of one version", || {
        let versions: BTreeSet<_> =
            master.workers().iter().map(|worker| variable(worker, "VERSION")).collect();
        (master.workers().len() == 4 && versions.len() == 1).then_some(versions)
    });
    assert_eq!(versions, BTreeSet::from(["4".to_owned()]));
    assert_eq!(stage.log().with("reloading: generation").len(), 2);
    assert_eq!(master.stop(), 0);
}

#[test]
fn fault_30_fifty_hups_are_two_reloads_at_most_and_a_stop_comes_first() {
    let stage = ph();
    let base = "command = sleep 1000\nmin_uptime = 0.3\nnumber_workers = 2\n";
    let (master, _) = start(&stage, base, 2);
    for _ in 0..50 {
        master.send(Signal::SIGHUP);
    }
    wait_reloaded(&stage, 1);
    let_pass(Duration::from_secs(3));
    let reloads = stage.log().with("reloading: generation").len();
    assert!((1..=2).contains(&reloads), "{reloads}");
    wait_reloaded(&stage, reloads);
    for _ in 0..50 {
        master.send(Signal::SIGHUP);
    }
    let (code, took) = timed(|| master.stop());
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// All at once, in any order: the stop is the answer.
#[test]
fn fault_31_a_stop_comes_before_a_reload_and_a_scale_order_of_the_same_moment() {
    for orders in [
        [Signal::SIGHUP, Signal::SIGTTIN, Signal::SIGTERM],
        [Signal::SIGTERM, Signal::SIGTTIN, Signal::SIGHUP],
        [Signal::SIGTTIN, Signal::SIGTERM, Signal::SIGHUP],
    ] {
        let stage = ph();
        let base = "command = sleep 1000\nmin_uptime = 0.2\nnumber_workers = 2\n";
        let (master, _) = start(&stage, base, 2);
        orders.into_iter().for_each(|signal| master.send(signal));
        let (code, took) = timed(|| master.wait());
        assert_eq!(code, 0);
        assert!(took < Duration::from_secs(15), "{took:?}");
        assert!(stage.log().with("is the canary").is_empty());
    }
}

#[test]
fn a_stop_in_a_roll_ends_both_generations_and_a_hup_in_a_stop_is_nothing() {
    let stage = ph();
    let deaf = "trap '' TERM; while :; do sleep 0.1; done";
    let base = format!(
        "command = sh -c \"{deaf}\"\nmin_uptime = 0.2\nnumber_workers = 2\ngraceful_timeout = 2\n\
         canary_hold = 60"
    );
    let (master, _) = start(&stage, &base, 2);
    master.send(Signal::SIGHUP);
    stage.log().wait_for("worker 0 gen 2");
    master.wait_workers(3);
    master.send(Signal::SIGTERM);
    stage.log().wait_for("stopping, workers to end: 3");
    master.send(Signal::SIGHUP);
    let (code, took) = timed(|| master.wait());
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(stage.log().with("reloading: generation").len(), 1);
}

/// A program that holds what no two can hold: the old worker goes first, in a rollback too.
#[test]
fn programs_that_cannot_overlap_stop_before_their_successors_start() {
    require(&["python3"]);
    let stage = ph();
    let server = "import socket,time; s=socket.socket(socket.AF_UNIX); s.bind('\\0'+'NAME'); \
                  time.sleep(1000)";
    let name = format!("e2e-{}-{}", std::process::id(), stage.starts());
    let script = server.replace("NAME", &name);
    let lines = |extra: &str| {
        format!(
            "command = python3 -c \"{script}\" {extra}\nmin_uptime = 1\nreload_surge = 0\n\
             max_unavailable = 1"
        )
    };
    let (master, old) = start(&stage, &lines(""), 1);
    reload(&stage, &master, &lines("second"));
    wait_reloaded(&stage, 1);
    let second = wait_all_new(&master, &old, 1);
    assert!(second[0].process.title().ends_with(" second"));
    stage.expect_error("reload failed: worker 0 gen 3");
    reload(
        &stage,
        &master,
        "command = false\nmin_uptime = 1\nreload_surge = 0\nmax_unavailable = 1",
    );
    stage.log().wait_for("generation 3 was rolled back");
    let third = wait_all_new(&master, &second, 1);
    eventually("the old program", || third[0].process.title().ends_with(" second").then_some(()));
    assert_eq!(master.stop(), 0);
}

#[test]
fn listeners_are_opened_before_and_closed_after_the_workers_that_have_them() {
    let stage = ph();
    let script = "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.1; done";
    let base = format!("command = sh -c \"{script}\"\nmin_uptime = 0.2\nnumber_workers = 2\n");
    let (master, old) = start(&stage, &format!("{base}bind = unix:a.sock, unix:b.sock"), 2);
    reload(&stage, &master, &format!("{base}bind = unix:b.sock, unix:c.sock"));
    stage.log().wait_for("is the canary of generation 2");
    let connects = |name: &str| UnixStream::connect(stage.path(name)).is_ok();
    assert!(connects("c.sock") && connects("b.sock"));
    let were_alive = old.iter().any(|worker| worker.process.is_alive());
    assert!(connects("a.sock") || !were_alive, "it is closed last");
    wait_reloaded(&stage, 1);
    let new = wait_all_new(&master, &old, 2);
    eventually("a.sock is gone", || (!stage.path("a.sock").exists()).then_some(()));
    assert!(connects("c.sock") && connects("b.sock"));
    let sockets = |worker: &Worker| {
        let all = worker.process.descriptors();
        let count = all.values().filter(|name| name.starts_with("socket:")).count();
        (all.keys().copied().filter(|number| *number <= 4).count(), count)
    };
    assert_eq!(sockets(&new[1]), (5, 2), "its streams and its listeners");
    assert_eq!(master.stop(), 0);
    assert!(!stage.path("b.sock").exists() && !stage.path("c.sock").exists());
}

#[test]
fn a_drain_stops_all_workers_and_a_reload_brings_them_back() {
    require(&["setsid"]);
    let stage = ph();
    stage.configure(
        "command = sleep 1000\nmin_uptime = 0.1\nnumber_workers = 3\nbind = unix:a.sock",
    );
    let master = stage.start_through(&["setsid"], &[]);
    stage.log().wait_ready(3);
    let old = master.wait_workers(3);
    master.send(Signal::SIGWINCH);
    stage.log().wait_for("draining: workers stop until the next reload");
    master.wait_workers(0);
    assert!(UnixStream::connect(stage.path("a.sock")).is_ok(), "the kernel queues");
    let_pass(Duration::from_secs(1));
    master.wait_workers(0);
    let said = client(&stage, &[], &["status", "-c", "config.ini"]);
    assert_eq!((said.code, said.stdout.lines().count()), (150, 1), "{}", said.stdout);
    assert!(said.stdout.contains("drained until the next reload   0/3 ready"), "{}", said.stdout);
    master.send(Signal::SIGHUP);
    wait_reloaded(&stage, 1);
    wait_all_new(&master, &old, 3);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_window_that_changes_its_size_drains_nobody() {
    require(&["script"]);
    let stage = ph();
    stage.configure("command = sleep 1000\nmin_uptime = 0.1\nnumber_workers = 2");
    let program = format!("{} run -c config.ini", env!("CARGO_BIN_EXE_ph"));
    let terminal = stage.launch_program(&["script", "-qefc", &program, "/dev/null"]);
    let master = stage.wait_titled("ph: master [web]", 1)[0];
    stage.log().wait_ready(2);
    master.send(Signal::SIGWINCH);
    let_pass(Duration::from_secs(1));
    assert!(stage.log().with("drain").is_empty());
    assert_eq!(stage.titled("sleep 1000").len(), 2);
    master.send(Signal::SIGTERM);
    assert_eq!(terminal.wait(), 0);
}

/// A server that takes connections from a listener it was given, as any program might.
#[test]
fn a_program_behind_a_shared_listener_is_reloaded_and_no_client_notices() {
    require(&["python3"]);
    let stage = ph();
    let server = "import signal,socket,sys,select\n\
                  signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n\
                  listener = socket.socket(fileno=3)\n\
                  listener.setblocking(False)\n\
                  while True:\n    \
                      select.select([listener], [], [])\n    \
                      signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n    \
                      try:\n        \
                          client, _ = listener.accept()\n        \
                          client.setblocking(True)\n        \
                          client.recv(10)\n        \
                          client.sendall(b'done')\n        \
                          client.close()\n    \
                      except BlockingIOError: pass\n    \
                      signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])\n";
    std::fs::write(stage.path("server.py"), server).expect("a program");
    let lines = "command = python3 server.py\nmin_uptime = 100ms\nnumber_workers = 2\n\
                 bind = unix:a.sock";
    let (master, old) = start(&stage, lines, 2);
    let path = stage.path("a.sock");
    let ask = || -> std::io::Result<()> {
        let mut stream = UnixStream::connect(&path)?;
        stream.write_all(b"hello")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        (answer == "done").then_some(()).ok_or(std::io::ErrorKind::UnexpectedEof.into())
    };
    let is_over = AtomicBool::new(false);
    let served = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut served = 0;
            while !is_over.load(Ordering::Relaxed) {
                ask().unwrap_or_else(|error| panic!("after {served}: {error}"));
                served += 1;
            }
            served
        });
        for _ in 0..8 {
            master.send(Signal::SIGHUP);
            let_pass(Duration::from_secs(1));
        }
        is_over.store(true, Ordering::Relaxed);
        client.join().expect("a client that was always served")
    });
    wait_reloaded(&stage, 2);
    wait_all_new(&master, &old, 2);
    assert!(served > 50, "{served}");
    assert_eq!(master.stop(), 0);
}

/// What the master holds is of two generations at most, however many there were.
#[test]
fn fifty_reloads_leave_no_descriptor_no_zombie_and_no_process() {
    let stage = ph();
    let base = "command = sleep 1000\nmin_uptime = 0.02\nnumber_workers = 2\nbind = unix:a.sock";
    let (master, _) = start(&stage, base, 2);
    let count = || (master.process.descriptors().len(), master.process.children().len());
    let settled = |wanted: usize| {
        eventually("as many descriptors as before", || {
            let (descriptors, children) = count();
            (descriptors <= wanted && children == 4).then_some(descriptors)
        })
    };
    reload(&stage, &master, base);
    wait_reloaded(&stage, 1);
    let before = settled(usize::MAX);
    for number in 2..=51 {
        let more = if number % 2 == 0 { ", unix:b.sock" } else { "" };
        reload(&stage, &master, &format!("{base}{more}"));
        wait_reloaded(&stage, number);
    }
    settled(before);
    assert_eq!(stage.processes().len(), 5, "master, warden, log process, workers");
    assert!(Path::new(&stage.path("a.sock")).exists() && !stage.path("b.sock").exists());
    assert_eq!(master.stop(), 0);
}
