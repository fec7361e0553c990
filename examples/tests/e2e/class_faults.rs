//! Faults whose way through a worker differs by its class. Numbers are those of docs/faults.md.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::classes::{CLASSES, Sent, ask, stage_of};
use crate::deaths::address;
use crate::support::{Process, Stage, Worker, eventually, let_pass, require, tell};
use crate::upgrade::{self, wait_upgraded, workers_of};

/// One of two workers falls silent by `fault`, and is ended as stuck by this signal; nobody else notices.
fn silence<T>(
    stage: &Stage,
    settings: &[&str],
    fault: impl FnOnce(&str, &[Worker]) -> T,
    signal: &str,
) -> T {
    stage.expect_error("is stuck: aborting it");
    let common = ["bind=127.0.0.1:0", "number_workers=2", "threads=2", "graceful_timeout=1"];
    let master = stage.start(&[&common, settings].concat());
    stage.log().wait_ready(2);
    let address = address(&stage.log());
    let before = master.wait_workers(2);
    let met = fault(&address, &before);
    let stuck = stage.log().wait_for("is stuck: aborting it").message;
    let is_it = |it: &&Worker| stuck.contains(&format!("(pid {})", it.process.0));
    let victim = *before.iter().find(is_it).unwrap_or_else(|| panic!("{stuck}"));
    let end = stage.log().wait_ends(victim.slot, &format!("was ended by {signal}"), 1);
    assert!(end[0].message.contains("(stuck)"), "{end:?}");
    master.wait_replaced(victim);
    stage.log().wait_ready(3);
    assert_eq!(stage.log().with("is stuck: aborting it").len(), 1, "{end:?}");
    assert!(before.iter().filter(|it| **it != victim).all(|it| it.process.is_alive()), "{end:?}");
    assert!(ask(&address, "pid").is_some(), "{end:?}");
    assert_eq!(master.stop(), 0, "{end:?}");
    met
}

/// A request that blocks its thread for good; no answer comes.
fn hang(address: &str, _: &[Worker]) -> Sent {
    Sent::to(address, "hang")
}

#[test]
fn fault_07_a_worker_that_hangs_in_a_request_leaves_where_that_was() {
    for class in CLASSES {
        let stage = stage_of(class);
        assert_eq!(silence(&stage, &["timeout=1"], hang, "SIGABRT").answer(), None, "{class}");
        expect_hang_told(&stage, class);
    }
}

fn expect_hang_told(stage: &Stage, class: &str) {
    let line = stage.log().wait_for("was aborted at: addr2line -Cfpie ");
    let (_, command) = line.message.split_once(" was aborted at: ").expect("both parts");
    let words: Vec<_> = command.split(' ').collect();
    // Where the tool is not installed, that there is a line has to do.
    if let Ok(named) = Command::new(words[0]).args(&words[1..]).output() {
        let named = String::from_utf8_lossy(&named.stdout).into_owned();
        assert!(named.contains("classes::hang"), "{class}: no such function in\n{named}");
    }
}

/// Whichever thread it is that hangs, and whichever the signal comes to.
#[test]
fn fault_07_it_is_the_thread_that_hangs_which_tells_where() {
    let stage = stage_of("thread");
    stage.expect_error("is stuck: aborting it");
    let master = stage.start(&["bind=127.0.0.1:0", "threads=3", "timeout=3", "graceful_timeout=1"]);
    stage.log().wait_ready(1);
    let address = address(&stage.log());
    let worker = master.wait_workers(1)[0];
    let main = || worker.process.status_number("voluntary_ctxt_switches");
    // While the process's first thread has something to do, another one gets the request.
    let mut waiting = Vec::new();
    let before = main();
    while main() == before {
        waiting.push(Sent::to(&address, "sleep 1000"));
        let_pass(Duration::from_millis(50));
    }
    let hanging = Sent::to(&address, "hang");
    assert_eq!(hanging.answer(), None);
    master.wait_replaced(worker);
    assert_eq!(master.stop(), 0);
    expect_hang_told(&stage, "thread");
}

#[test]
fn fault_08_a_worker_that_hangs_and_is_deaf_to_sigabrt_is_killed() {
    for class in CLASSES {
        let stage = stage_of(class);
        let settings = ["timeout=1", "app_boot=deaf"];
        assert_eq!(silence(&stage, &settings, hang, "SIGKILL").answer(), None, "{class}");
        let killed = stage.log().with("killing worker");
        assert!(killed.len() == 1 && killed[0].message.ends_with("(stuck)"), "{killed:?}");
    }
}

#[test]
fn fault_09_a_stopped_worker_is_stuck_and_aborted() {
    for class in CLASSES {
        let stage = stage_of(class);
        let stop = |_: &str, workers: &[Worker]| workers[1].process.send(Signal::SIGSTOP);
        silence(&stage, &["timeout=2"], stop, "SIGABRT");
    }
}

/// Clients that come one after the other as long as `act` takes; none of them fails. Says how many.
fn under_load(address: &str, act: impl FnOnce()) -> u32 {
    let (is_over, served) = (AtomicBool::new(false), AtomicU32::new(0));
    let client = || {
        while !is_over.load(Ordering::Relaxed) {
            assert!(ask(address, "sleep 1").is_some(), "a client was not answered");
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        act();
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().expect("every client is answered"));
    });
    served.into_inner()
}

#[test]
fn fault_46_no_client_fails_over_reloads_nor_over_generations_that_do_not_boot() {
    for class in CLASSES {
        let stage = stage_of(class);
        let base = "bind = 127.0.0.1:0\nnumber_workers = 2\nthreads = 2\nmin_uptime = 0.1\n\
                    graceful_timeout = 5\nboot_timeout = 2\n";
        stage.configure(base);
        let master = stage.start(&[]);
        stage.log().wait_ready(2);
        let address = address(&stage.log());
        let first = master.wait_workers(2);
        for expected in ["reload failed: worker 0 gen", "as it was asked for", "did not boot"] {
            stage.expect_error(expected);
        }
        let served = under_load(&address, || {
            for _ in 0..3 {
                master.send(Signal::SIGHUP);
                let_pass(Duration::from_secs(1));
            }
            stage.log().wait_for("all workers are of generation");
            eventually("only new workers", || {
                let now = master.workers();
                (now.len() == 2 && now.iter().all(|it| !first.contains(it))).then_some(())
            });
        });
        for (round, fault) in (1..).zip(["fail", "panic", "hang"]) {
            let before = master.wait_workers(2);
            stage.configure(&format!("{base}app_boot = {fault}"));
            under_load(&address, || {
                master.send(Signal::SIGHUP);
                stage.log().wait_for_count("was rolled back", round);
                eventually("the old workers alone", || (master.workers() == before).then_some(()));
            });
        }
        tell(&format!("{class}: {served} clients over three reloads, none failed"));
        assert_eq!(master.stop(), 0);
    }
}

fn port() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    port.expect("a port").to_string()
}

/// Sends the order to upgrade to a master that is halted then, and gives its successor, all of whose
/// workers are ready.
fn successor_of(stage: &Stage, old: Process) -> Process {
    let boots = stage.log().with("all workers are ready").len();
    old.send(Signal::SIGUSR2);
    let successor = eventually("a successor", || {
        let has_begun = |child: &Process| {
            let said = format!("master started with pid {},", child.0);
            !stage.log().with(&said).is_empty()
        };
        old.children().into_iter().find(has_begun)
    });
    old.send(Signal::SIGSTOP);
    stage.log().wait_for_count("all workers are ready", boots + 1);
    successor
}

#[test]
fn fault_51_either_master_is_killed_in_an_upgrade_and_the_other_serves_on() {
    for class in CLASSES {
        let stage = stage_of(class);
        let port = port();
        // Slow, so that the old master is halted before the workers are ready.
        let settings = "number_workers = 2\nthreads = 2\napp_boot = slow";
        let first = upgrade::start(&stage, &format!("{settings}\nbind = {port}"));
        stage.log().wait_ready(2);
        stage.allow_error("the upgrade fails: it cannot be told to take over");
        stage.expect_error("upgrade failed");
        stage.expect_error("is gone: taking over");
        let old = first.process;
        let before = workers_of(old);
        let successor = successor_of(&stage, old);
        let its_workers = workers_of(successor);
        successor.send(Signal::SIGKILL);
        old.send(Signal::SIGCONT);
        stage.log().wait_for("upgrade failed");
        eventually("the old tree alone", || {
            (workers_of(old) == before && its_workers.iter().all(|it| !it.is_alive())).then_some(())
        });
        assert!(ask(&port, "pid").is_some(), "{class}");

        let successor = successor_of(&stage, old);
        old.send(Signal::SIGKILL);
        assert!(first.wait() < 0, "{class}");
        assert_eq!(wait_upgraded(&stage, old), successor, "{class}");
        eventually("the new tree alone", || before.iter().all(|it| !it.is_alive()).then_some(()));
        let pid = ask(&port, "pid").expect("an answer");
        let serves = |it: &Process| pid.starts_with(&format!("{} ", it.0));
        assert!(workers_of(successor).iter().any(serves), "{class}");
        upgrade::stop(&stage);
    }
}

/// Opens a socket at descriptor 3 and a file at 4, says who is meant, and becomes the program.
const PASS: &str = "
import os, socket, sys
held = socket.create_server(('127.0.0.1', 0))
held = os.dup2(held.fileno(), 20)
file = os.dup2(os.open('/dev/null', os.O_RDONLY), 21)
os.dup2(held, 3, inheritable=True)
os.dup2(file, 4, inheritable=True)
os.close(held), os.close(file)
pid = os.environ.pop('PASS_PID', str(os.getpid()))
os.environ.update(LISTEN_PID=pid, LISTEN_FDS='2', LISTEN_FDNAMES='web:file')
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn fault_77_sockets_that_are_passed_are_served_and_those_meant_for_others_are_not() {
    require(&["python3"]);
    let wrapper = ["python3", "-c", PASS];
    for class in CLASSES {
        let mut stage = stage_of(class);
        let master = stage.start_through(&wrapper, &["bind=sd:web", "threads=2"]);
        stage.log().wait_ready(1);
        let passed = address(&stage.log());
        assert!(ask(&passed, "pid").is_some(), "{class}");
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            let value = ask(&passed, &format!("variable {name}"));
            assert_eq!(value.as_deref(), Some("none"), "{class}: {name}");
        }
        assert_eq!(master.stop(), 0, "{class}");

        let refused = stage.start_through(&wrapper, &["bind=sd:file"]);
        let (code, stderr) = refused.wait_with_stderr();
        assert_eq!(code, 1, "{class}: {stderr}");
        assert!(stderr.contains("cannot listen on sd:file"), "{class}: {stderr}");

        stage.variable("PASS_PID", "1");
        let refused = stage.start_through(&wrapper, &["bind=sd:web"]);
        let (code, stderr) = refused.wait_with_stderr();
        assert_eq!(code, 1, "{class}: {stderr}");
        assert!(stderr.contains("LISTEN_PID is 1"), "{class}: {stderr}");
    }
}

/// There is nothing to speak to: they share memory with their master.
#[test]
fn fault_78_nobody_can_speak_for_a_forked_worker() {
    for class in CLASSES {
        let mut stage = stage_of(class);
        let path = stage.path("manager");
        let manager = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
        stage.variable("NOTIFY_SOCKET", path.to_str().expect("a path in UTF-8"));
        let master = stage.start(&["bind=127.0.0.1:0", "threads=2", "timeout=5"]);
        stage.log().wait_ready(1);
        let address = address(&stage.log());
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC"] {
            let value = ask(&address, &format!("variable {name}"));
            assert_eq!(value.as_deref(), Some("none"), "{class}: {name}");
        }
        // Of type 2 is a socket for datagrams, and the master's own has no name.
        let sockets: Vec<_> = master.process.descriptors().into_values().collect();
        let table = master.process.read("net/unix").expect("the sockets");
        let names: Vec<_> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words.get(4) == Some(&"0002") && words.len() > 7)
            .filter(|words| sockets.contains(&format!("socket:[{}]", words[6])))
            .map(|words| words[7].to_owned())
            .collect();
        assert!(names.is_empty(), "{class}: {names:?}");
        assert_eq!(master.stop(), 0, "{class}");
        drop(manager);
        std::fs::remove_file(path).expect("the manager's file");
    }
}
