//! An upgrade that goes well: another master of the program on disk takes over, and nobody notices.
//!
//! Numbers are those of docs/faults.md.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::place::{Place, read_pid, workers_of};
use crate::support::{Process, eventually, let_pass, require, tell};

/// The exit code of a start that finds another master.
const ALREADY_RUNNING: i32 = 154;

/// Answers each connection with a line, and finishes what it does when it is told to stop.
const SERVER: &str = "
import os, select, signal, socket
stop = False
def told(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, told)
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
listeners = [socket.socket(fileno=fd) for fd in range(3, 3 + int(os.environ['LISTEN_FDS']))]
for listener in listeners:
    listener.setblocking(False)
while not stop:
    for ready in select.select([reader] + listeners, [], [])[0]:
        if ready is reader or stop:
            continue
        try:
            connection, _ = ready.accept()
        except BlockingIOError:
            continue
        connection.setblocking(True)
        connection.recv(16)
        connection.sendall(b'%d\\n' % os.getpid())
        connection.close()
";

/// Clients of each listener.
const CLIENTS: u32 = 4;

/// Asks for as long as it may, and gives how many answers came and what went wrong.
fn ask<S: std::io::Read + std::io::Write>(
    is_over: &AtomicBool,
    connect: impl Fn() -> std::io::Result<S>,
) -> (u32, Vec<String>) {
    let (mut answers, mut failures) = (0, Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        let answer = connect().and_then(|mut stream| {
            stream.write_all(b"?\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        match answer {
            Ok(answer) if answer.ends_with('\n') => answers += 1,
            other => failures.push(format!("{other:?}")),
        }
        let_pass(Duration::from_millis(2));
    }
    (answers, failures)
}

/// Looks at the pidfile for as long as it may; gives how often it named a living master, and what else
/// it found.
fn watch_pidfile(is_over: &AtomicBool, path: &Path) -> (u32, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        let text = std::fs::read_to_string(path);
        let pid = text.as_ref().ok().and_then(|text| text.trim().parse().ok()).map(Process);
        match pid {
            // One that has gone since it was read is another's to name.
            Some(pid) if pid.is_alive() || read_pid(path) != Some(pid) => good += 1,
            _ => bad.push(format!("{text:?}")),
        }
    }
    (good, bad)
}

#[test]
fn fault_52_no_request_fails_and_there_is_always_one_master() {
    require(&["python3"]);
    let place = Place::new();
    let stage = &place.stage;
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    stage.configure(&format!(
        "number_workers = 3\nmin_uptime = 0.3\nbind = {port}\nunix_socket = web.sock"
    ));
    let first = place.run(&["python3", "-c", SERVER]);
    stage.log().wait_ready(3);
    let is_over = AtomicBool::new(false);
    let (socket, pidfile) = (stage.path("web.sock"), stage.path("ph.pid"));
    let old = place.master();
    thread::scope(|scope| {
        let tcp: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| ask(&is_over, || TcpStream::connect(port))))
            .collect();
        let unix: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| ask(&is_over, || UnixStream::connect(&socket))))
            .collect();
        let watcher = scope.spawn(|| watch_pidfile(&is_over, &pidfile));
        let mut before = old;
        let mut refused = 0;
        for _ in 0..4 {
            before.send(Signal::SIGUSR2);
            for _ in 0..3 {
                let (code, stderr) = place.run(&["sleep", "1"]).wait_with_stderr();
                assert_eq!(code, ALREADY_RUNNING, "{stderr}");
                refused += 1;
                let_pass(Duration::from_millis(700));
            }
            before = place.wait_upgraded(before);
            assert!(socket.exists(), "the socket stays");
        }
        is_over.store(true, Ordering::Relaxed);
        let [answers_tcp, answers_unix] = [tcp, unix].map(|clients| {
            let all = clients.into_iter().map(|client| client.join().expect("a client"));
            let (answers, failures): (Vec<_>, Vec<_>) = all.unzip();
            let failures = failures.concat();
            assert!(failures.is_empty(), "{answers:?} and {failures:?}");
            answers.iter().sum::<u32>()
        });
        let (looks, bad) = watcher.join().expect("a reader");
        assert!(bad.is_empty(), "{looks} and {bad:?}");
        tell(&format!(
            "{answers_tcp} and {answers_unix} answers, {looks} looks, {refused} refused starts"
        ));
        assert!(answers_tcp > 100 && answers_unix > 100 && looks > 100);
    });
    assert_eq!(first.wait(), 0);
    place.stop();
    assert!(!socket.exists(), "its last owner takes it along");
}

#[test]
fn fault_53_fifty_upgrades_in_a_row_leave_nothing_behind() {
    let place = Place::new();
    place.stage.configure(
        "number_workers = 2\nmin_uptime = 0\nbind = 127.0.0.1:0\nunix_socket = web.sock",
    );
    let first = place.run(&["sleep", "1000"]);
    let mut master = place.wait_one_tree(2);
    // The first of them is the only one that was not started by a master.
    let mut figures = Vec::new();
    let mut workers = workers_of(master);
    for round in 0..50 {
        master = place.upgrade();
        assert_eq!(place.wait_one_tree(2), master);
        let new = workers_of(master);
        assert!(new.is_disjoint(&workers), "round {round}");
        workers = new;
        let mut names: Vec<_> = master.environment().into_keys().collect();
        names.sort();
        figures.push((master.descriptors().len(), names));
    }
    assert_eq!(first.wait(), 0);
    assert_eq!(figures.first(), figures.last());
    tell(&format!("descriptors and variables after each: {:?}", figures[0]));
    place.stop();
}

#[test]
fn fault_53_two_orders_are_two_upgrades() {
    let place = Place::new();
    place.stage.configure("min_uptime = 0.3");
    let first = place.run(&["sleep", "1000"]);
    place.wait_one_tree(1);
    let log = place.stage.log();
    first.send(Signal::SIGUSR2);
    log.wait_for("upgrading: starting a successor");
    first.send(Signal::SIGUSR2);
    first.send(Signal::SIGUSR2);
    assert_eq!(first.wait(), 0);
    log.wait_for_count("took over from pid", 2);
    place.wait_one_tree(1);
    assert_eq!(log.with("upgrading: starting a successor").len(), 2);
    place.stop();
}

#[test]
fn a_reload_that_waits_for_an_upgrade_is_the_successors() {
    let place = Place::new();
    place.stage.configure("min_uptime = 0.5");
    let first = place.run(&["sleep", "1000"]);
    place.wait_one_tree(1);
    let log = place.stage.log();
    first.send(Signal::SIGUSR2);
    log.wait_for("upgrading: starting a successor");
    first.send(Signal::SIGHUP);
    assert_eq!(first.wait(), 0);
    let master = place.master();
    log.wait_for("generation 2");
    eventually("workers of the second generation", || {
        let workers = workers_of(master);
        let mut generations = workers.iter().map(|it| it.environment().remove("PH_GENERATION"));
        (workers.len() == 1 && generations.all(|it| it.as_deref() == Some("2"))).then_some(())
    });
    place.stop();
}

#[test]
fn a_scale_order_survives_and_a_number_in_the_file_that_has_changed_wins() {
    let place = Place::new();
    place.stage.configure("number_workers = 2\nmin_uptime = 0.1");
    let first = place.run(&["sleep", "1000"]);
    place.wait_one_tree(2);
    first.send(Signal::SIGTTIN);
    place.wait_one_tree(3);
    place.upgrade();
    place.wait_one_tree(3);
    assert_eq!(first.wait(), 0);
    place.upgrade();
    place.wait_one_tree(3);
    place.stage.configure("number_workers = 1\nmin_uptime = 0.1");
    place.upgrade();
    place.wait_one_tree(1);
    place.stop();
}

#[test]
fn what_the_file_says_otherwise_holds_for_the_successor() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("min_uptime = 0.1\nunix_socket = a.sock");
    let first = place.run(&["sleep", "1000"]);
    place.wait_one_tree(1);
    stage.configure("min_uptime = 0.1\nunix_socket = b.sock\npidfile = other.pid");
    first.send(Signal::SIGUSR2);
    assert_eq!(first.wait(), 0);
    let run_files = || -> Vec<_> {
        let mut files = stage.files();
        files.retain(|name| !name.contains("log"));
        files
    };
    assert_eq!(run_files(), ["b.sock", "other.lock", "other.pid", "other.sock"]);
    let second = read_pid(&stage.path("other.pid")).expect("a pid");
    // Nobody has the listener or the lock that are gone: neither its warden nor its log process.
    for process in stage.processes() {
        let held = process.descriptors().into_values().filter(|it| it.contains("ph.lock"));
        assert_eq!(held.count(), 0, "{process:?}");
        assert!(UnixStream::connect(stage.path("b.sock")).is_ok());
    }
    // Back under the old name, and several may run now.
    stage.configure("min_uptime = 0.1\nsingle_instance = false");
    second.send(Signal::SIGUSR2);
    place.wait_upgraded(second);
    assert_eq!(run_files(), ["ph.lock", "ph.pid", "ph.sock"]);
    place.stop();
}

#[test]
fn the_second_instance_keeps_its_number() {
    let place = Place::new();
    place.stage.configure("min_uptime = 0.1\nsingle_instance = false");
    let first = place.run(&["sleep", "1000"]);
    let one = place.wait_one_tree(1);
    let second = place.run(&["sleep", "1000"]);
    let path = place.stage.path("ph.2.pid");
    let two = eventually("the second", || read_pid(&path));
    place.stage.log().wait_ready(2);
    two.send(Signal::SIGUSR2);
    assert_eq!(second.wait(), 0);
    let successor = read_pid(&path).expect("a pid");
    assert!(successor != two && successor.is_alive());
    eventually("its worker", || (workers_of(successor).len() == 1).then_some(()));
    let worker = workers_of(successor).into_iter().next().expect("one");
    assert_eq!(worker.environment().get("PH_INSTANCE").map(String::as_str), Some("2"));
    for name in ["PH_SUCCESSOR", "PH_SUCCESSOR_NOTE"] {
        assert_eq!(worker.environment().get(name), None);
    }
    let lines = place.stage.log().lines();
    let warnings: Vec<_> = lines.iter().filter(|line| line.level == "WARN").collect();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(place.master(), one, "the first is another's");
    successor.send(Signal::SIGTERM);
    eventually("its end", || (!path.exists()).then_some(()));
    assert_eq!(first.stop(), 0);
}

#[test]
fn no_line_is_lost_over_ten_upgrades() {
    static LINES: AtomicU32 = AtomicU32::new(0);
    let place = Place::new();
    place.stage.configure("number_workers = 2\nmin_uptime = 0.1");
    let script = "n=0; trap 'echo \"last $$ $n\"; exit 0' TERM; \
                  while :; do n=$((n+1)); echo \"line $$ $n\"; [ $((n % 200)) = 0 ] && sleep 0.05; done";
    let first = place.run(&["sh", "-c", script]);
    place.stage.log().wait_ready(2);
    for _ in 0..10 {
        place.upgrade();
    }
    assert_eq!(first.wait(), 0);
    place.stop();
    let lines = place.stage.log().lines();
    let mut written = std::collections::BTreeMap::<String, u32>::new();
    let mut last = BTreeSet::new();
    for line in &lines {
        let words: Vec<_> = line.message.rsplitn(4, ' ').collect();
        let (Some(number), Some(pid), Some(kind)) = (words.first(), words.get(1), words.get(2))
        else {
            continue;
        };
        let Ok(number) = number.parse::<u32>() else { continue };
        match *kind {
            "line" => {
                let before = written.entry((*pid).to_owned()).or_default();
                assert_eq!(number, *before + 1, "of {pid}");
                *before = number;
                LINES.fetch_add(1, Ordering::Relaxed);
            }
            "last" => {
                let there = written.get(*pid).copied().unwrap_or_default();
                assert!(there == number || there + 1 == number, "{pid}: {there} of {number}");
                last.insert((*pid).to_owned());
            }
            _ => {}
        }
    }
    assert_eq!(last.len(), 22, "each worker had its last word");
    assert_eq!(place.stage.log().with("took over from pid").len(), 10);
    assert_eq!(place.stage.log().with("the successor has taken over").len(), 10);
    tell(&format!("{} lines of {} workers", LINES.load(Ordering::Relaxed), written.len()));
}

#[test]
fn a_hundred_listeners_are_handed_over_each_as_itself() {
    let place = Place::new();
    let stage = &place.stage;
    let bind: Vec<_> = (1..=100).map(|host| format!("127.0.0.{host}:0")).collect();
    let bind = bind.join(", ");
    stage.configure(&format!("min_uptime = 0.1\nbind = {bind}"));
    let first = place.run(&["sleep", "1000"]);
    place.wait_one_tree(1);
    place.upgrade();
    assert_eq!(first.wait(), 0);
    let lines = stage.log().with("listening on tcp://");
    let addresses: Vec<_> = lines.iter().map(|line| line.message.as_str()).collect();
    let (before, after) = addresses.split_at(100);
    assert_eq!(before, after);
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 100);
    place.stop();
}

/// The kernel's list of locks names who has taken a lock, and that one is gone.
#[test]
fn a_master_is_found_by_its_lock_after_upgrades_too() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("min_uptime = 0.1");
    let first = place.run(&["sleep", "1000"]);
    place.wait_one_tree(1);
    place.upgrade();
    let master = place.upgrade();
    assert_eq!(first.wait(), 0);
    // Only then it is a signal, and a signal needs to know whom.
    std::fs::remove_file(stage.path("ph.sock")).expect("the socket");
    let reopen = stage.launch(&[], &["reopen", "-c", "config.ini"]);
    let its = reopen.process.0;
    assert_eq!(reopen.wait(), 0);
    let told = stage.log().wait_for(&format!("SIGUSR1 from pid {its}"));
    assert_eq!(told.pid, master.0);
    place.stop();
}
