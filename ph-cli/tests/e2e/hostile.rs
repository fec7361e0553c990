//! Workers that mean harm, or do it without meaning to: they fork without end, signal whom they can
//! reach, leave their group, call themselves by other names, and never quite live.
//!
//! Each test is one fault, and has its number in the catalogue of faults. What a worker does
//! against its master is tried where there are cgroups and where there are none. Fork bombs are
//! bounded by a limit of processes and by a clock of their own.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ph;
use crate::support::{
    Limited, Log, Master, Process, Stage, WITHOUT_CGROUPS, eventually, let_pass, require, timed,
};

/// No stop takes longer than its grace and this, on any machine.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Where there are cgroups, and where there are none.
const BOTH: [&[&str]; 2] = [&[], &WITHOUT_CGROUPS];

/// `ph run` of a command, with the settings of the stage.
fn run(stage: &Stage, wrapper: &[&str], command: &[&str]) -> Master {
    stage.launch(wrapper, &[&["run", "-c", "config.ini", "--"], command].concat())
}

/// Stops a master that has no reason to take long.
fn stop_in_time(master: Master) {
    let (code, took) = timed(|| master.stop());
    assert_eq!(code, 0);
    assert!(took < STOP_LIMIT, "{took:?}");
}

/// The processes that said "WORD PID" in the log.
pub(crate) fn named(log: &Log, word: &str, count: usize) -> Vec<Process> {
    let pid = |line: &str| line.strip_prefix(word)?.trim().parse().ok().map(Process);
    let lines = log.wait_for_count(&format!("{word} "), count);
    lines.iter().filter_map(|line| pid(&line.message)).collect()
}

/// The wait a line about a death promises: "…, next one in 1.2s".
fn promised(message: &str) -> Duration {
    let Some((_, wait)) = message.rsplit_once("next one in ") else { return Duration::ZERO };
    let (number, unit) = wait.split_at(wait.trim_end_matches(char::is_alphabetic).len());
    let number: f64 = number.parse().expect("a number");
    Duration::from_secs_f64(if unit == "ms" { number / 1000.0 } else { number })
}

/// No life is too short, but there are too many deaths in the window.
#[test]
fn fault_03_lives_just_above_min_uptime_still_back_off() {
    let stage = ph();
    stage.configure(
        "number_workers = 1\nmin_uptime = 0.2\nbackoff_min = 0.1\n\
         max_restarts = 3\nrestart_window = 10m",
    );
    stage.expect_error("worker 0 is in a crash loop");
    let master = run(&stage, &[], &["sh", "-c", "sleep 0.3; exit 1"]);
    let deaths = stage.log().wait_ends(0, "exited with code 1", 8);
    let waits: Vec<_> = deaths.iter().map(|line| promised(&line.message)).collect();
    assert!(waits[..3].iter().all(Duration::is_zero), "{waits:?}");
    assert!(waits[3] >= Duration::from_millis(100), "{waits:?}");
    let doubles = |pair: &[Duration]| pair[1] > pair[0] * 3 / 2;
    assert!(waits[3..8].windows(2).all(doubles), "{waits:?}");
    for (pair, wait) in deaths.windows(2).zip(waits) {
        assert!(pair[0].until(&pair[1]) >= wait, "{pair:?}");
    }
    stop_in_time(master);
}

/// Lets time pass, in which nothing happens to the master, once it has done what there was to do.
fn sees_nothing(master: &Master) {
    let before = eventually("it rests", || {
        let before = master.process.context_switches();
        let_pass(Duration::from_millis(300));
        Some(before).filter(|before| *before == master.process.context_switches())
    });
    let_pass(Duration::from_secs(2));
    assert_eq!(master.process.context_switches(), before, "the master woke");
}

#[test]
fn fault_18_a_worker_that_closes_its_output_lives_on() {
    let stage = ph();
    stage.configure("number_workers = 2\nmin_uptime = 0.1");
    let master = run(&stage, &[], &["sh", "-c", "exec >&- 2>&- <&-; exec sleep 1000"]);
    stage.log().wait_ready(2);
    let before = master.wait_workers(2);
    eventually("they are closed", || {
        let is_closed = |it: &crate::support::Worker| !it.process.descriptors().contains_key(&1);
        before.iter().all(is_closed).then_some(())
    });
    let_pass(Duration::from_millis(500));
    sees_nothing(&master);
    assert_eq!(master.workers(), before);
    assert!(stage.log().with("worker 0 was").is_empty());
    stop_in_time(master);
}

/// Only the process itself is ended here, so who it started keeps the output it had.
#[test]
fn fault_18_an_output_kept_open_by_a_grandchild_holds_nobody_up() {
    let stage = ph();
    stage.configure("kill_mode = process\nmin_uptime = 0.1");
    let script = "[ -e kept ] || { : > kept; sleep 1000 & echo grandchild $!; }; exec sleep 999";
    let master = run(&stage, &[], &["sh", "-c", script]);
    stage.log().wait_ready(1);
    let grandchild = named(&stage.log(), "grandchild", 1)[0];
    let worker = master.wait_workers(1)[0];
    let output = &worker.process.descriptors()[&1];
    worker.process.send(Signal::SIGKILL);
    stage.log().wait_ends(0, "was ended by SIGKILL", 1);
    stage.log().wait_ready(2);
    assert_eq!(grandchild.descriptors().get(&1), Some(output), "it has the same output");
    let_pass(Duration::from_millis(500));
    sees_nothing(&master);
    assert_eq!(master.stop(), 0);
    assert!(grandchild.is_alive(), "nobody had to end it");
    grandchild.send(Signal::SIGKILL);
}

/// Forks in each of its processes, deaf to SIGTERM; with a word it leaves the session in each of
/// them too. It would end by itself, but later than any test waits.
const BOMB: &str = "
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('bombing', flush=True)
until = time.monotonic() + 50
while time.monotonic() < until:
    try:
        if os.fork() == 0 and sys.argv[1:]:
            os.setsid()
    except OSError:
        time.sleep(0.1)
";

/// The bomb goes off, its first process is killed, the next worker bombs again, and the master
/// stops.
fn bomb(wrapper: &[&str], words: &[&str]) {
    const LIMIT: u32 = 200;
    require(&["python3", "unshare"]);
    let group = Limited::processes(LIMIT);
    let stage = ph();
    stage.configure("graceful_timeout = 1\nmin_uptime = 0.1\nbackoff_max = 1");
    // The next worker may come before the last of the old are gone.
    stage.allow_error("cannot start worker 0: Resource temporarily unavailable");
    stage.allow_error("worker 0 was not started");
    stage.allow_error("worker 0 is in a crash loop");
    let wrapper = [&group.wrapper()[..], wrapper].concat();
    let master = run(&stage, &wrapper, &[&["python3", "-c", BOMB], words].concat());
    let full = || (group.number("pids.current") >= u64::from(LIMIT)).then_some(());
    stage.log().wait_for_count("bombing", 1);
    eventually("the bomb has filled its room", full);
    let worker = master.wait_workers(1)[0];
    let fixed = [&[master.process], &master.process.children()[..]].concat();
    let mut bombs = stage.processes();
    bombs.retain(|it| *it == worker.process || !fixed.contains(it));
    assert!(bombs.len() > 100, "{}", bombs.len());
    worker.process.send(Signal::SIGKILL);
    let are_gone = || bombs.iter().all(|it| !it.is_alive()).then_some(());
    let ((), took) = timed(|| eventually("the end of the first bomb", are_gone));
    assert!(took < STOP_LIMIT, "{took:?}");
    stage.log().wait_ends(0, "was ended by SIGKILL", 1);
    stage.log().wait_for_count("bombing", 2);
    eventually("the second bomb has filled its room", full);
    stop_in_time(master);
    stage.wait_empty();
}

#[test]
fn fault_19_a_fork_bomb_in_a_cgroup_is_ended_whole() {
    bomb(&[], &[]);
    bomb(&[], &["leave"]);
}

#[test]
fn fault_19_a_fork_bomb_without_cgroups_is_ended_whole() {
    bomb(&WITHOUT_CGROUPS, &[]);
}

#[test]
fn fault_19_a_fork_bomb_that_leaves_its_session_each_time_is_ended_whole() {
    bomb(&WITHOUT_CGROUPS, &["leave"]);
}

#[test]
fn fault_20_a_stop_does_not_wait_for_a_slow_boot() {
    for (script, grace) in [("exec sleep 1000", "10m"), ("trap '' TERM; sleep 1000", "1")] {
        let stage = ph();
        stage.configure(&format!(
            "number_workers = 3\nmin_uptime = 10m\nboot_timeout = 20m\ngraceful_timeout = {grace}"
        ));
        let master = run(&stage, &[], &["sh", "-c", script]);
        for worker in master.wait_workers(3) {
            eventually("its command", || worker.process.title().contains("sleep").then_some(()));
        }
        stop_in_time(master);
        assert!(stage.log().with("is ready").is_empty());
    }
}

#[test]
fn fault_22_a_signal_to_its_whole_group_hits_the_worker_only() {
    for (name, signal) in [("TERM", "SIGTERM"), ("KILL", "SIGKILL"), ("HUP", "SIGHUP")] {
        let stage = ph();
        stage.configure("number_workers = 2\nmin_uptime = 0.1");
        let script = format!(
            "[ $PH_SLOT = 1 ] && exec sleep 1000; sleep 1000 &
             until [ -e go ]; do sleep 0.1; done; rm go; kill -{name} 0; echo survived"
        );
        let master = run(&stage, &[], &["sh", "-c", &script]);
        stage.log().wait_ready(2);
        let before = master.wait_workers(2);
        std::fs::write(stage.path("go"), "").expect("the word to go");
        stage.log().wait_ends(0, &format!("was ended by {signal}"), 1);
        master.wait_replaced(before[0]);
        assert_eq!(master.wait_workers(2)[1], before[1]);
        assert!(stage.log().with("survived").is_empty());
        stop_in_time(master);
    }
}

#[test]
fn fault_22_a_worker_of_another_user_cannot_signal_its_master() {
    require(&[]);
    let stage = ph();
    stage.configure("user = nobody\nnumber_workers = 2\nmin_uptime = 0.1");
    let readable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(stage.folder(), readable).expect("a mode");
    let script = "
        for signal in TERM INT QUIT HUP USR1 USR2 STOP SEGV KILL; do
            kill -$signal $PPID && echo it was possible
            kill -$signal $PH_MASTER_PID && echo it was possible
        done
        echo tried; exec sleep 1000";
    let master = run(&stage, &[], &["sh", "-c", script]);
    stage.log().wait_ready(2);
    stage.log().wait_for_count("tried", 2);
    let before = master.wait_workers(2);
    assert!(before.iter().all(|worker| !worker.process.status("Uid").contains("0\t")));
    assert!(stage.log().with("it was possible").is_empty());
    assert!(!stage.log().with("ermitted").is_empty(), "it says why");
    sees_nothing(&master);
    assert_eq!(master.workers(), before);
    stop_in_time(master);
}

/// Tries to join others' groups, and starts two that leave its own.
const LEAVER: &str = "
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for group in (os.getppid(), int(open('neighbour').read())):
    try:
        os.setpgid(0, group)
        print('joined', flush=True)
    except PermissionError:
        pass
for leave in (os.setsid, os.setpgrp):
    if os.fork() == 0:
        if os.fork() == 0:
            leave()
            print('left', os.getpid(), flush=True)
            time.sleep(1000)
        os._exit(0)
    os.wait()
time.sleep(1000)
";

#[test]
fn fault_22_who_leaves_the_group_of_a_worker_ends_with_it() {
    require(&["python3", "unshare"]);
    for wrapper in BOTH {
        let stage = ph();
        stage.configure("number_workers = 2\nmin_uptime = 0.1\ngraceful_timeout = 1");
        let script = format!(
            "[ $PH_SLOT = 1 ] && echo $$ > n && mv n neighbour && exec sleep 1000
             until [ -e neighbour ]; do sleep 0.1; done; exec python3 -c \"{LEAVER}\""
        );
        let master = run(&stage, wrapper, &["sh", "-c", &script]);
        stage.log().wait_ready(2);
        let left = named(&stage.log(), "left", 2);
        let before = master.workers();
        let [worker, neighbour] =
            before.into_iter().filter(|worker| !left.contains(&worker.process)).collect::<Vec<_>>()
                [..]
        else {
            panic!("two workers")
        };
        worker.process.send(Signal::SIGKILL);
        eventually("their end", || left.iter().all(|it| !it.is_alive()).then_some(()));
        stage.log().wait_ends(0, "was ended by SIGKILL", 1);
        let next = named(&stage.log(), "left", 4);
        assert!(next[2..].iter().all(|it| it.is_alive()), "those of the next worker live");
        assert!(neighbour.process.is_alive());
        assert!(stage.log().with("joined").is_empty());
        stop_in_time(master);
    }
}

/// Names that look like the master's, like fields of /proc/PID/stat, and like lines of the log.
const NAMES: [&str; 4] = ["x) Z 1 1 1 (y", "ph: master [web]", "ph: warden [web]", "a\nERROR b"];

/// The second is nobody's: it has left the session, its parent and its environment.
#[test]
fn fault_22_a_worker_by_another_name_is_ended_like_any_other() {
    require(&["python3", "unshare"]);
    for (wrapper, name) in BOTH.iter().flat_map(|wrapper| NAMES.map(|name| (wrapper, name))) {
        let stage = ph();
        stage.configure("min_uptime = 0.1\ngraceful_timeout = 1");
        symlink("/bin/sleep", stage.path(name)).expect("a name");
        let script = "
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print('left', os.getpid(), flush=True)
        mark = {'E2E_MARK': os.environ['E2E_MARK']}
        os.execve(sys.argv[1], [sys.argv[1], '1000'], mark)
    os._exit(0)
os.wait()
os.execv(sys.argv[1], [sys.argv[1], '1000'])
";
        let master = run(&stage, wrapper, &["python3", "-c", script, name]);
        stage.log().wait_ready(1);
        let left = named(&stage.log(), "left", 1)[0];
        eventually("its new name", || left.title().ends_with(" 1000").then_some(()));
        let is_worker = |process: &Process| process.title().ends_with(" 1000") && *process != left;
        let worker = eventually("the worker's", || stage.processes().into_iter().find(is_worker));
        worker.send(Signal::SIGKILL);
        stage.log().wait_ends(0, "was ended by SIGKILL", 1);
        stage.log().wait_ready(2);
        named(&stage.log(), "left", 2);
        stop_in_time(master);
        assert!(stage.log().lines().iter().all(|line| !line.message.starts_with("ERROR b")));
    }
}
