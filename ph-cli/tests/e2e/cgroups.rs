//! Cgroups: what workers do to theirs, what becomes of those of a master nobody is left of, and
//! that each master has its own.

use std::path::Path;

use nix::sys::signal::Signal;

use crate::hostile::named;
use crate::ph;
use crate::support::{Master, Process, Stage, cgroups_of, eventually, require};

/// `ph run` of a command, with the settings of the stage.
fn run(stage: &Stage, wrapper: &[&str], command: &[&str]) -> Master {
    stage.launch(wrapper, &[&["run", "-c", "config.ini", "--"], command].concat())
}

/// The leader of the only tree.
fn leader(master: &Master) -> Process {
    eventually("the leader", || {
        let mut workers = master.workers().into_iter().map(|worker| worker.process);
        workers.find(|process| process.title() == "sleep 999")
    })
}

/// Who is in a cgroup, itself only.
fn members(folder: &Path) -> Vec<Process> {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(|pid| Process(pid.parse().expect("a pid"))).collect()
}

/// Its cgroups are empty for a moment, and are its own all the same.
#[test]
fn a_start_leaves_the_cgroups_of_another_master_alone() {
    let stage = ph();
    stage.configure("min_uptime = 0.1");
    let master = run(&stage, &[], &["sleep", "1000"]);
    stage.log().wait_ready(1);
    let worker = master.wait_workers(1)[0];
    let seat = cgroups_of(master.process)[0].join("seat.0");
    master.send(Signal::SIGSTOP);
    worker.process.send(Signal::SIGKILL);
    eventually("its end", || {
        (!worker.process.is_alive() && members(&seat).is_empty()).then_some(())
    });
    let other = ph();
    let next = run(&other, &[], &["sleep", "1000"]);
    next.wait_workers(1);
    assert_eq!(next.stop(), 0);
    assert!(seat.exists());
    master.send(Signal::SIGCONT);
    let next = master.wait_replaced(worker);
    stage.log().wait_ready(2);
    assert_eq!(members(&seat), [next.process]);
    assert_eq!(master.stop(), 0);
}

/// Where cgroups of version 2 are mounted, which the scripts below get as their first argument.
fn mount_point() -> String {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup2");
    line.split(' ').nth(4).expect("a mount point").to_owned()
}

/// A worker that is root may make cgroups in its own; they go with it all the same.
#[test]
fn cgroups_that_a_worker_made_in_its_own_end_with_it() {
    require(&["setsid"]);
    let stage = ph();
    stage.configure("min_uptime = 0\ngraceful_timeout = 1");
    let script = "
        own=$1$(sed -n 's/^0:://p' /proc/self/cgroup); mkdir -p $own/a/b
        setsid -f sh -c 'trap \"\" TERM; echo $$ > $0/a/b/cgroup.procs; echo below $$
                         exec sleep 1000' $own
        exec sleep 999";
    let master = run(&stage, &[], &["sh", "-c", script, "sh", &mount_point()]);
    for round in 1..=3 {
        let below = named(&stage.log(), "below", round)[round - 1];
        let cgroup = below.read("cgroup").expect("its cgroups");
        let is_below = |line: &str| line.contains("/seat.") && line.ends_with("/a/b");
        assert!(cgroup.lines().any(is_below), "{cgroup}");
        leader(&master).send(Signal::SIGKILL);
        eventually("its end", || (!below.is_alive()).then_some(()));
    }
    let below = named(&stage.log(), "below", 4)[3];
    let process = master.process;
    assert_eq!(master.stop(), 0);
    assert!(!below.is_alive() && cgroups_of(process).is_empty());
    let master = run(&stage, &[], &["sh", "-c", script, "sh", &mount_point()]);
    let below = named(&stage.log(), "below", 5)[4];
    let process = master.process;
    master.send(Signal::SIGKILL);
    assert_eq!(master.wait(), -(Signal::SIGKILL as i32));
    stage.wait_empty();
    assert!(!below.is_alive() && cgroups_of(process).is_empty());
    let next = run(&stage, &[], &["sleep", "1000"]);
    next.wait_workers(1);
    assert_eq!(next.stop(), 0);
}

/// A worker that is root may also leave its cgroup, as container engines do with what they start.
#[test]
fn who_leaves_the_cgroup_ends_at_the_stop_at_the_latest() {
    require(&["setsid"]);
    let stage = ph();
    stage.configure("min_uptime = 0\ngraceful_timeout = 1");
    let script = "
        setsid -f sh -c 'trap \"\" TERM; echo $$ > $0/cgroup.procs; echo left $$
                         exec sleep 1000' $1
        exec sleep 999";
    let master = run(&stage, &[], &["sh", "-c", script, "sh", &mount_point()]);
    let left = named(&stage.log(), "left", 1)[0];
    leader(&master).send(Signal::SIGKILL);
    named(&stage.log(), "left", 2);
    assert_eq!(master.stop(), 0);
    assert!(!left.is_alive());
}
