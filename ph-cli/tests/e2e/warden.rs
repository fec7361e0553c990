//! The warden: what becomes of everything when the master is killed. Numbers are those of
//! docs/faults.md.

use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ph;
use crate::support::{
    Master, Process, Stage, WITHOUT_CGROUPS, cgroups_of, eventually, let_pass, require, tell, timed,
};

/// Workers with everything that is hard to find: deaf, in a session of its own, without a parent.
const SCRIPT: &str = "(trap '' TERM; exec sleep 3001) & \
                      setsid sh -c '(trap \"\" TERM HUP; exec sleep 3002) &'; exec sleep 3000";

const KILLED: i32 = -(Signal::SIGKILL as i32);

fn launch(stage: &Stage, wrapper: &[&str]) -> Master {
    stage.launch(wrapper, &["run", "-c", "config.ini", "--", "sh", "-c", SCRIPT])
}

fn warden(master: &Master) -> Process {
    eventually("a warden", || {
        let children = master.process.children();
        children.into_iter().find(|child| child.title() == "ph: warden [web]")
    })
}

/// Waits until everything is as the script makes it.
fn wait_grown(stage: &Stage, count: usize) {
    eventually("all of the trees", || {
        let processes = stage.processes();
        let titled = |title: &str| processes.iter().filter(|it| it.title() == title).count();
        ["sleep 3000", "sleep 3001", "sleep 3002"]
            .iter()
            .all(|it| titled(it) == count)
            .then_some(())
    });
}

/// Starts, grows, kills the master, and sees that nothing is left and that the next one starts.
fn a_killed_master_leaves_nothing(wrapper: &[&str], has_cgroups: bool) {
    require(&["unshare", "setsid"]);
    let stage = ph();
    stage.configure("number_workers = 3\nmin_uptime = 0.1\nbind = 127.0.0.1:0");
    let master = launch(&stage, wrapper);
    wait_grown(&stage, 3);
    let line = stage.log().wait_for("listening on tcp://");
    let address = line.message.rsplit_once("//").expect("an address").1.to_owned();
    assert_eq!(!cgroups_of(master.process).is_empty(), has_cgroups);
    let process = master.process;
    process.send(Signal::SIGKILL);
    assert_eq!(master.wait(), KILLED);
    let ((), took) = timed(|| stage.wait_empty());
    assert!(took < Duration::from_secs(5), "{took:?}");
    let said = stage.log().wait_for(&format!("the master, pid {}, is gone: killed", process.0));
    assert!(said.level == "WARN", "{said:?}");
    assert!(cgroups_of(process).is_empty(), "its cgroups are removed");
    drop(TcpListener::bind(address).expect("the port is free"));
    let next = launch(&stage, wrapper);
    wait_grown(&stage, 3);
    assert_eq!(next.stop(), 0);
}

#[test]
fn fault_23_a_killed_master_leaves_nothing_where_there_are_cgroups() {
    a_killed_master_leaves_nothing(&[], true);
}

#[test]
fn fault_23_a_killed_master_leaves_nothing_where_there_are_none() {
    a_killed_master_leaves_nothing(&WITHOUT_CGROUPS, false);
}

/// So many masters, each killed at a random moment: of its start, or of the replacement of its workers.
fn killed_at_random_moments(wrapper: &[&str], rounds: u32) {
    require(&["unshare", "setsid"]);
    let stage = ph();
    stage.configure("number_workers = 3\nmin_uptime = 0\nmax_restarts = 100000\nlog_level = error");
    let mut random = crate::support::Random::new();
    let mut slowest = Duration::ZERO;
    let mut killed = Vec::new();
    for round in 0..rounds {
        let master = launch(&stage, wrapper);
        if round % 2 == 1 {
            for worker in master.wait_workers(3) {
                // It may have been replaced meanwhile.
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(worker.process.0),
                    Signal::SIGKILL,
                );
            }
            let_pass(Duration::from_micros(random.below(10_000)));
        } else {
            let_pass(Duration::from_micros(random.below(60_000)));
        }
        let process = master.process;
        process.send(Signal::SIGKILL);
        assert_eq!(master.wait(), KILLED);
        let ((), took) = timed(|| stage.wait_empty());
        assert!(took < Duration::from_secs(5), "round {round}, {random}: {took:?}");
        slowest = slowest.max(took);
        killed.push(process);
    }
    tell(&format!("{rounds} rounds, {random}: all gone after {slowest:?} at most"));
    let next = launch(&stage, wrapper);
    wait_grown(&stage, 3);
    assert_eq!(next.stop(), 0);
    // Those that were killed before they had a warden left a folder to the next.
    assert!(killed.into_iter().all(|process| cgroups_of(process).is_empty()), "{random}");
}

#[test]
fn fault_21_a_hundred_masters_killed_at_random_moments_leave_nothing() {
    killed_at_random_moments(&[], 100);
}

#[test]
fn fault_21_fifty_more_where_there_are_no_cgroups() {
    killed_at_random_moments(&WITHOUT_CGROUPS, 50);
}

#[test]
fn a_killed_warden_is_replaced_and_its_successor_does_its_work() {
    for wrapper in [&[][..], &WITHOUT_CGROUPS] {
        require(&["unshare"]);
        let stage = ph();
        stage.configure("number_workers = 2\nmin_uptime = 0.1");
        let master = launch(&stage, wrapper);
        wait_grown(&stage, 2);
        let first = warden(&master);
        first.send(Signal::SIGKILL);
        stage.log().wait_for("the warden was ended by SIGKILL, next one at once");
        let second =
            eventually("its successor", || Some(warden(&master)).filter(|second| *second != first));
        assert_eq!(second.stat(6), Some(second.0.to_string()), "a session of its own");
        assert_eq!(master.workers().len(), 2, "no worker noticed");
        let process = master.process;
        process.send(Signal::SIGKILL);
        assert_eq!(master.wait(), KILLED);
        stage.wait_empty();
        assert!(cgroups_of(process).is_empty());
        let next = launch(&stage, wrapper);
        wait_grown(&stage, 2);
        assert_eq!(next.stop(), 0);
    }
}

#[test]
fn a_warden_hears_no_signal_but_sigkill_and_ends_with_an_ordered_stop() {
    let stage = ph();
    stage.configure("min_uptime = 0.1");
    let master = launch(&stage, &[]);
    wait_grown(&stage, 1);
    let warden = warden(&master);
    for signal in
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1]
    {
        warden.send(signal);
    }
    let pending = || u64::from_str_radix(&warden.status("ShdPnd"), 16);
    assert_eq!(pending().map(u64::count_ones), Ok(5), "they wait, blocked, for ever");
    let process = master.process;
    assert_eq!(master.stop(), 0);
    assert!(!warden.is_alive() && cgroups_of(process).is_empty());
    assert!(stage.log().with("warden").is_empty(), "nothing to say about it");
}

/// Nobody is left then who could end the others at once; the next start does.
#[test]
fn a_master_and_its_warden_killed_together_are_cleared_up_after_by_the_next_start() {
    require(&["setsid"]);
    let stage = ph();
    stage.configure("min_uptime = 0.1");
    let master = launch(&stage, &[]);
    wait_grown(&stage, 1);
    stage.log().wait_ready(1);
    let (process, warden) = (master.process, warden(&master));
    for both in [process, warden] {
        both.send(Signal::SIGSTOP);
    }
    for both in [process, warden] {
        both.send(Signal::SIGKILL);
    }
    assert_eq!(master.wait(), KILLED);
    assert!(!cgroups_of(process).is_empty());
    let old = stage.processes();
    assert!(!old.is_empty(), "grandchildren");
    let next = launch(&stage, &[]);
    stage.log().wait_ready(2);
    assert!(old.iter().all(|process| !process.is_alive()), "{old:?}");
    assert!(cgroups_of(process).is_empty());
    assert_eq!(next.stop(), 0);
}

/// Whatever the warden held would be held after the master's end.
#[test]
fn a_warden_holds_nothing_but_its_pipe_the_log_and_the_cgroup() {
    let stage = ph();
    stage.configure("number_workers = 2\nmin_uptime = 0.1\nbind = 127.0.0.1:0, unix:web.sock");
    let master = launch(&stage, &[]);
    wait_grown(&stage, 2);
    let first = warden(&master);
    first.send(Signal::SIGKILL);
    // One that was forked when the master held everything it ever holds.
    let second = eventually("another", || Some(warden(&master)).filter(|second| *second != first));
    let descriptors = eventually("it has settled", || {
        let descriptors = second.descriptors();
        (descriptors.get(&0).map(String::as_str) == Some("/dev/null")
            && second.title().starts_with("ph: warden"))
        .then_some(descriptors)
    });
    let cgroup = cgroups_of(master.process).pop().expect("a cgroup");
    let parent = cgroup.parent().expect("its parent").to_owned();
    // What the caller of the tests let slip into them is nobody's here.
    let callers: Vec<_> = Process::own().descriptors().into_values().collect();
    let descriptors: Vec<_> =
        descriptors.into_iter().filter(|(fd, name)| *fd > 2 && !callers.contains(name)).collect();
    for (fd, name) in &descriptors {
        let is_own = name.starts_with("pipe:")
            || name.ends_with("ph.log")
            || name.ends_with(".ph.log.lock")
            || name.as_str() == stage.folder().to_string_lossy()
            || [&cgroup, &parent].iter().any(|it| name.as_str() == it.to_string_lossy());
        assert!(is_own, "{fd}: {name} of {descriptors:?}");
    }
    let pipes = descriptors.iter().filter(|(_, name)| name.starts_with("pipe:")).count();
    assert_eq!(pipes, 1, "{descriptors:?}");
    assert_eq!(master.stop(), 0);
}

/// However late the warden comes: whoever follows its master is not disturbed by it.
#[test]
fn port_lock_and_socket_are_free_while_the_warden_has_yet_to_begin() {
    require(&["unshare"]);
    for wrapper in [&[][..], &WITHOUT_CGROUPS] {
        let stage = ph();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let port = port.expect("a free port").port();
        stage.configure(&format!(
            "min_uptime = 0.1\nbind = 127.0.0.1:{port}\nunix_socket = web.sock"
        ));
        // Nobody but the worker itself has the listeners.
        let words = ["run", "-c", "config.ini", "--", "sleep", "1000"];
        let first = stage.launch(wrapper, &words);
        stage.log().wait_ready(1);
        let (process, old) = (first.process, first.wait_workers(1)[0].process);
        let warden = warden(&first);
        warden.send(Signal::SIGSTOP);
        eventually("it is halted", || (warden.stat(3).as_deref() == Some("T")).then_some(()));
        process.send(Signal::SIGKILL);
        assert_eq!(first.wait(), KILLED);
        eventually("the worker's end", || (!old.is_alive()).then_some(()));
        let next = stage.launch(wrapper, &words);
        stage.log().wait_ready(2);
        let workers = next.wait_workers(1);
        warden.send(Signal::SIGCONT);
        eventually("its end", || (!warden.is_alive()).then_some(()));
        assert!(cgroups_of(process).is_empty());
        assert_eq!(next.workers(), workers, "its successor's are left alone");
        assert!(stage.log().with("worker 0 was").is_empty());
        assert_eq!(next.stop(), 0);
    }
}

/// It is dismissed and does not go, so it is killed; the stop is as good as any.
#[test]
fn a_halted_warden_does_not_hold_up_a_stop() {
    require(&["unshare"]);
    for wrapper in [&[][..], &WITHOUT_CGROUPS] {
        let stage = ph();
        stage.configure("min_uptime = 0.1\ngraceful_timeout = 2");
        let master = stage.launch(wrapper, &["run", "-c", "config.ini", "--", "sleep", "1000"]);
        stage.log().wait_ready(1);
        warden(&master).send(Signal::SIGSTOP);
        let process = master.process;
        let (code, took) = timed(|| master.stop());
        assert_eq!(code, 0);
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert!(cgroups_of(process).is_empty());
        stage.wait_empty();
        stage.log().wait_for("killing the helper warden");
    }
}

#[test]
fn with_kill_mode_group_the_groups_of_a_killed_master_end_and_no_more() {
    require(&["setsid"]);
    let stage = ph();
    stage.configure("kill_mode = group\nmin_uptime = 0.1");
    let master = launch(&stage, &[]);
    wait_grown(&stage, 1);
    let process = master.process;
    process.send(Signal::SIGKILL);
    assert_eq!(master.wait(), KILLED);
    let left = eventually("one is left", || {
        let left = stage.processes();
        (left.len() == 1).then(|| left[0])
    });
    assert_eq!(left.title(), "sleep 3002", "who left the group");
    left.send(Signal::SIGKILL);
    stage.wait_empty();
    let next = stage.launch(&[], &["run", "-c", "config.ini", "--", "sleep", "1000"]);
    next.wait_workers(1);
    assert_eq!(next.stop(), 0);
}
