//! Masters that are killed or stopped during an upgrade: there is one whole service afterwards, or none.
//! Numbers are those of docs/faults.md.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::place::{Place, facts, is_whole, read_pid, workers_of};
use crate::support::{Process, Random, eventually, let_pass, tell};

const KILLED: i32 = -(Signal::SIGKILL as i32);

/// Kills the old master at a moment, and gives who is there then, if anybody.
fn survivor(place: &Place, workers: usize) -> Option<Process> {
    let mut last = None;
    let mut same = 0;
    eventually("one tree, or nobody", || {
        let all = place.stage.processes();
        let named = read_pid(&place.stage.path("ph.pid")).filter(|master| all.contains(master));
        let is_whole = named.is_some_and(|master| {
            let children = master.children();
            let mut others = all.iter().filter(|process| **process != master);
            all.len() == workers + 3 && others.all(|process| children.contains(process))
        });
        let state = if all.is_empty() { Some(None) } else { is_whole.then_some(named) };
        same = if state.is_some() && state == last { same + 1 } else { 0 };
        last = state;
        state.filter(|_| same > 20)
    })
}

#[test]
fn fault_51_the_old_master_is_killed_at_random_moments_of_an_upgrade() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("number_workers = 2\nmin_uptime = 0.3\nunix_socket = web.sock");
    stage.allow_error("is gone: taking over");
    let mut random = Random::new();
    let (mut completed, mut ended) = (0, 0);
    for round in 0..10 {
        let first = place.run(&["sleep", "1000"]);
        place.wait_one_tree(2);
        first.send(Signal::SIGUSR2);
        let_pass(Duration::from_millis(random.below(900)));
        let process = first.process;
        if process.is_alive() {
            process.send(Signal::SIGKILL);
        }
        let code = first.wait();
        assert!(code == KILLED || code == 0, "round {round}, {random}: {code}");
        match survivor(&place, 2) {
            Some(master) => {
                completed += 1;
                assert!(master != process, "round {round}, {random}");
                assert!(std::os::unix::net::UnixStream::connect(stage.path("web.sock")).is_ok());
                assert_eq!(stage.read("ph.lock").trim(), master.0.to_string());
                place.upgrade();
                place.wait_one_tree(2);
                place.stop();
            }
            None => ended += 1,
        }
    }
    tell(&format!("{random}: {completed} completed, {ended} ended"));
    // A killed master leaves its files to the next.
    let last = place.run(&["sleep", "1000"]);
    place.wait_one_tree(2);
    assert_eq!(last.stop(), 0);
}

/// Brings an upgrade of a master to a moment, and gives the successor.
type Moment = fn(&Place, Process) -> Process;

fn booting(place: &Place, old: Process) -> Process {
    old.send(Signal::SIGUSR2);
    place.wait_successor(old)
}

/// The old master is halted, so that it does not answer; the successor has said that it is ready.
fn halted_before_the_commit(place: &Place, old: Process) -> Process {
    let boots = place.stage.log().with("all workers are ready").len();
    old.send(Signal::SIGUSR2);
    let successor = place.wait_successor(old);
    old.send(Signal::SIGSTOP);
    place.stage.log().wait_for_count("all workers are ready", boots + 1);
    successor
}

/// The same, and the successor is halted with the order to take over before it.
fn halted_before_the_takeover(place: &Place, old: Process) -> Process {
    let successor = halted_before_the_commit(place, old);
    successor.send(Signal::SIGSTOP);
    eventually("it is halted", || (successor.stat(3).as_deref() == Some("T")).then_some(()));
    old.send(Signal::SIGCONT);
    // Nobody tells that it has said so.
    let_pass(Duration::from_millis(1500));
    successor
}

#[test]
fn fault_51_the_old_master_is_killed_around_the_commit() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("number_workers = 2\nmin_uptime = 0.5\nunix_socket = web.sock");
    stage.allow_error("is gone: taking over");
    let moments: [Moment; 2] = [halted_before_the_commit, halted_before_the_takeover];
    for moment in moments {
        let first = place.run(&["sleep", "1000"]);
        place.wait_one_tree(2);
        let successor = moment(&place, first.process);
        let workers = workers_of(successor);
        first.send(Signal::SIGKILL);
        assert_eq!(first.wait(), KILLED);
        successor.send(Signal::SIGCONT);
        assert_eq!(place.wait_one_tree(2), successor);
        assert_eq!(workers_of(successor), workers, "its workers did not notice");
        place.stop();
        assert!(!stage.path("web.sock").exists() && !stage.path("ph.lock").exists());
    }
}

#[test]
fn fault_51_a_successor_whose_predecessor_died_serves_on_with_what_it_has() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("number_workers = 2\nmin_uptime = 1");
    let script = "[ -e broken ] && exit 9; exec sleep 1000";
    let first = place.run(&["sh", "-c", script]);
    place.wait_one_tree(2);
    first.send(Signal::SIGUSR2);
    let successor = place.wait_successor(first.process);
    eventually("its workers", || (workers_of(successor).len() == 2).then_some(()));
    stage.expect_error("is gone: taking over");
    stage.allow_error("keeps dying");
    first.send(Signal::SIGKILL);
    assert_eq!(first.wait(), KILLED);
    stage.log().wait_for("is gone: taking over");
    // Without the verdict this is a crash loop, and no end.
    std::fs::write(stage.path("broken"), "").expect("a file");
    for worker in workers_of(successor) {
        worker.send(Signal::SIGKILL);
    }
    stage.log().wait_for("exited with code 9");
    std::fs::remove_file(stage.path("broken")).expect("removed");
    assert_eq!(place.wait_one_tree(2), successor);
    place.stop();
}

#[test]
fn a_killed_or_stopped_successor_leaves_the_old_master_whole() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("number_workers = 2\nmin_uptime = 0.5\nunix_socket = web.sock");
    stage.allow_error("the upgrade fails: it cannot be told to take over");
    stage.expect_error("upgrade failed");
    let first = place.run(&["sleep", "1000"]);
    let before = facts(&place, 2);
    let old = first.process;
    let moments: [Moment; 3] = [booting, halted_before_the_commit, halted_before_the_takeover];
    let mut round = 0;
    for moment in moments {
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            let successor = moment(&place, old);
            successor.send(signal);
            for halted in [successor, old] {
                if halted.is_alive() {
                    halted.send(Signal::SIGCONT);
                }
            }
            round += 1;
            stage.log().wait_for_count("upgrade failed", round);
            is_whole(&place, &before);
            assert!(std::os::unix::net::UnixStream::connect(stage.path("web.sock")).is_ok());
        }
    }
    place.upgrade();
    assert_eq!(first.wait(), 0);
    place.stop();
}

#[test]
fn a_stop_while_the_successor_takes_over_leaves_no_file() {
    let place = Place::new();
    place.stage.configure("number_workers = 2\nmin_uptime = 0.5\nunix_socket = web.sock");
    place.stage.allow_error("upgrade failed");
    let first = place.run(&["sleep", "1000"]);
    place.wait_one_tree(2);
    let successor = halted_before_the_takeover(&place, first.process);
    first.send(Signal::SIGSTOP);
    successor.send(Signal::SIGCONT);
    eventually("it has taken over", || (place.master() == successor).then_some(()));
    // Both are there when it wakes: that it is to stop, and that its successor has taken over.
    first.send(Signal::SIGTERM);
    first.send(Signal::SIGCONT);
    assert_eq!(first.wait(), 0);
    place.stage.wait_empty();
}

#[test]
fn a_successor_killed_before_anybody_heard_that_it_has_taken_over_leaves_the_old_master_whole() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("number_workers = 2\nmin_uptime = 0.5\nunix_socket = web.sock");
    stage.expect_error("upgrade failed");
    let first = place.run(&["sleep", "1000"]);
    let before = facts(&place, 2);
    let successor = halted_before_the_takeover(&place, first.process);
    first.send(Signal::SIGSTOP);
    successor.send(Signal::SIGCONT);
    stage.log().wait_for("took over from pid");
    successor.send(Signal::SIGKILL);
    successor.wait_gone();
    first.send(Signal::SIGCONT);
    stage.log().wait_for("upgrade failed");
    is_whole(&place, &before);
    for socket in ["web.sock", "ph.sock"] {
        assert!(std::os::unix::net::UnixStream::connect(stage.path(socket)).is_ok(), "{socket}");
    }
    place.upgrade();
    assert_eq!(first.wait(), 0);
    place.stop();
}

/// A worker that takes its time to stop, so that its master is there for long.
const SLOW: [&str; 3] = ["sh", "-c", "trap 'sleep 3; exit 0' TERM; while :; do sleep 0.1; done"];

#[test]
fn fault_51_an_old_master_that_is_killed_while_its_workers_finish_is_missed_by_nobody() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("min_uptime = 0.1\nunix_socket = web.sock");
    let first = place.run(&SLOW);
    let old = first.process;
    stage.log().wait_ready(1);
    old.send(Signal::SIGUSR2);
    stage.log().wait_for("took over from pid");
    let new = place.master();
    assert!(new != old && old.is_alive());
    old.send(Signal::SIGKILL);
    assert_eq!(first.wait(), KILLED);
    eventually("nobody of the old tree", || {
        let mut all = stage.processes();
        let children = new.children();
        all.retain(|process| {
            let of_worker = children.iter().any(|child| child.children().contains(process));
            *process != new && !children.contains(process) && !of_worker
        });
        all.is_empty().then_some(())
    });
    assert!(new.is_alive() && place.master() == new);
    assert!(std::os::unix::net::UnixStream::connect(stage.path("web.sock")).is_ok());
    place.stop();
    assert!(!stage.path("web.sock").exists());
}

#[test]
fn a_successor_killed_after_it_has_taken_over_is_a_killed_master() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("min_uptime = 0.1\nunix_socket = web.sock");
    let first = place.run(&SLOW);
    stage.log().wait_ready(1);
    first.send(Signal::SIGUSR2);
    stage.log().wait_for("the successor has taken over");
    let new = place.master();
    assert!(new != first.process);
    new.send(Signal::SIGKILL);
    assert_eq!(first.wait(), 0);
    stage.wait_empty();
    let next = place.run(&["sleep", "1000"]);
    assert_eq!(place.wait_one_tree(1), next.process);
    assert_eq!(next.stop(), 0);
}
