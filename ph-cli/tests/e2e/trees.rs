//! Trees: what a command has started ends with it, wherever it went. Numbers are those of
//! docs/faults.md. Each test plays twice: with a cgroup for each seat, and where there is none.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ph;
use crate::support::{Master, Stage, WITHOUT_CGROUPS, cgroups_of, eventually, require, timed};

/// The two ways to hold a tree together: what to start `ph` through, and whether it finds cgroups.
const WAYS: [(&[&str], bool); 2] = [(&[], true), (&WITHOUT_CGROUPS, false)];

/// Plays a test both ways, each on a stage of its own.
fn both_ways(play: impl Fn(&Stage, &[&str], bool)) {
    require(&["unshare", "setsid"]);
    for (wrapper, has_cgroups) in WAYS {
        play(&ph(), wrapper, has_cgroups);
    }
}

/// A service of this script, in its first worker.
fn start(stage: &Stage, wrapper: &[&str], has_cgroups: bool, lines: &str, script: &str) -> Master {
    stage.configure(&format!("min_uptime = 0.1\n{lines}"));
    let words = ["run", "-c", "config.ini", "--", "sh", "-c", script];
    let master = stage.launch(wrapper, &words);
    stage.log().wait_ready(1);
    assert_eq!(!cgroups_of(master.process).is_empty(), has_cgroups, "cgroups as they should be");
    master
}

const DEAF_CHILD: &str = "(trap '' TERM; exec sleep 2001) & exec sleep 2000";
/// Its parent ends at once, so it has none but the master.
const ESCAPED: &str = "setsid sh -c '(exec sleep 2002) &'; exec sleep 2000";

#[test]
fn fault_11_a_grandchild_that_ignores_term_ends_with_its_worker_and_at_a_stop() {
    both_ways(|stage, wrapper, has_cgroups| {
        let master = start(stage, wrapper, has_cgroups, "graceful_timeout = 1", DEAF_CHILD);
        let grandchild = stage.wait_titled("sleep 2001", 1)[0];
        master.wait_workers(1)[0].process.send(Signal::SIGKILL);
        grandchild.wait_gone();
        let grandchild = stage.wait_titled("sleep 2001", 1)[0];
        let (code, took) = timed(|| master.stop());
        assert_eq!(code, 0);
        assert!(!grandchild.is_alive());
        assert!(took >= Duration::from_secs(1), "it had the grace: {took:?}");
        assert_eq!(stage.log().with("killing worker 0").len(), 1);
    });
}

#[test]
fn fault_12_a_process_that_left_group_session_and_parent_ends_with_its_worker() {
    both_ways(|stage, wrapper, has_cgroups| {
        let master = start(stage, wrapper, has_cgroups, "", ESCAPED);
        let escaped = stage.wait_titled("sleep 2002", 1)[0];
        let worker = master.wait_workers(1)[0];
        assert_ne!(escaped.stat(6), worker.process.stat(6), "a session of its own");
        eventually("no parent but the master", || {
            (escaped.status("PPid") == master.process.0.to_string()).then_some(())
        });
        worker.process.send(Signal::SIGKILL);
        escaped.wait_gone();
        let escaped = stage.wait_titled("sleep 2002", 1)[0];
        assert_eq!(master.stop(), 0);
        assert!(!escaped.is_alive());
        assert!(stage.log().with("escaped").is_empty(), "it was known whose it was");
    });
}

/// Not even an empty environment takes the mark off.
#[test]
fn fault_12_a_process_with_an_empty_environment_ends_with_its_worker_too() {
    both_ways(|stage, wrapper, has_cgroups| {
        let script = "env -i setsid sh -c '(exec sleep 2003) &'; exec sleep 2000";
        let master = start(stage, wrapper, has_cgroups, "", script);
        let find = || {
            let children = master.process.children();
            children.into_iter().find(|child| child.title() == "sleep 2003")
        };
        let escaped = eventually("it", find);
        let worker = master.wait_workers(1)[0];
        worker.process.send(Signal::SIGKILL);
        escaped.wait_gone();
        master.wait_replaced(worker);
        assert_eq!(master.stop(), 0);
        assert!(stage.log().with("escaped").is_empty());
    });
}

/// Who takes the mark off is nobody's where there is no cgroup: named, and ended with the master.
#[test]
fn fault_12_a_process_without_a_mark_is_named_and_ends_with_the_master() {
    require(&["prlimit"]);
    both_ways(|stage, wrapper, has_cgroups| {
        let script = "prlimit --locks=unlimited setsid sh -c '(exec sleep 2009) &'; \
                      exec sleep 2000";
        let master = start(stage, wrapper, has_cgroups, "", script);
        let escaped = stage.wait_titled("sleep 2009", 1)[0];
        let worker = master.wait_workers(1)[0];
        worker.process.send(Signal::SIGKILL);
        master.wait_replaced(worker);
        if has_cgroups {
            escaped.wait_gone();
        } else {
            let named = stage.log().wait_for("escaped: pid");
            assert!(named.message.contains(&format!("pid {} (sleep)", escaped.0)), "{named:?}");
            assert!(escaped.is_alive());
        }
        assert_eq!(master.stop(), 0);
        assert!(!escaped.is_alive());
    });
}

#[test]
fn fault_13_a_thousand_zombies_of_a_killed_worker_are_reaped_without_a_word() {
    both_ways(|stage, wrapper, has_cgroups| {
        let script = "import os, time\nfor _ in range(1000):\n    if os.fork() == 0: os._exit(7)\n\
                      print('all dead', flush=True)\ntime.sleep(1000)";
        stage.configure("min_uptime = 0.1");
        let words = ["run", "-c", "config.ini", "--", "python3", "-c", script];
        let master = stage.launch(wrapper, &words);
        stage.log().wait_for("all dead");
        assert_eq!(!cgroups_of(master.process).is_empty(), has_cgroups);
        let worker = master.wait_workers(1)[0];
        eventually("zombies", || (worker.process.children().len() == 1000).then_some(()));
        worker.process.send(Signal::SIGKILL);
        // Those of its successor are its own.
        eventually("no zombie", || (master.process.children().len() == 3).then_some(()));
        master.wait_replaced(worker);
        assert_eq!(stage.log().with("was ended by").len(), 1);
        assert!(stage.log().with("exited with").is_empty());
        assert_eq!(master.stop(), 0);
    });
}

/// Whoever leads a session of its own was not told with the group, and is told when the leader has
/// ended; it has what is left of the grace.
#[test]
fn what_left_the_group_of_a_command_is_told_to_stop_too_where_there_are_cgroups() {
    require(&["setsid"]);
    let stage = ph();
    let script = "setsid sh -c 'trap \"echo told; exit 0\" TERM; echo set; \
                  while :; do sleep 0.1; done' & exec sleep 2000";
    let master = start(&stage, &[], true, "graceful_timeout = 20", script);
    stage.log().wait_for("set");
    let (code, took) = timed(|| master.stop());
    assert_eq!(code, 0);
    assert_eq!(stage.log().with("told").len(), 1);
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(stage.log().with("killing").is_empty());
}

#[test]
fn a_seat_whose_tree_was_killed_serves_the_next_worker() {
    both_ways(|stage, wrapper, has_cgroups| {
        let lines = "min_uptime = 0\nmax_restarts = 1000";
        let script = "setsid sleep 2004 & exec sleep 2000";
        stage.configure(lines);
        let words = ["run", "-c", "config.ini", "--", "sh", "-c", script];
        let master = stage.launch(wrapper, &words);
        stage.log().wait_ready(1);
        assert_eq!(!cgroups_of(master.process).is_empty(), has_cgroups);
        for _ in 0..10 {
            let worker = master.wait_workers(1)[0];
            let grandchild = stage.wait_titled("sleep 2004", 1)[0];
            worker.process.send(Signal::SIGKILL);
            grandchild.wait_gone();
            master.wait_replaced(worker);
        }
        assert_eq!(stage.log().with("was ended by SIGKILL").len(), 10);
        assert_eq!(master.stop(), 0);
    });
}

#[test]
fn with_kill_mode_group_what_left_the_group_lives_on() {
    both_ways(|stage, wrapper, _| {
        let script = "sleep 2005 & setsid sleep 2006 & exec sleep 2000";
        let master = start(stage, wrapper, false, "kill_mode = group", script);
        let [inside, outside] = ["sleep 2005", "sleep 2006"].map(|it| stage.wait_titled(it, 1)[0]);
        let worker = master.wait_workers(1)[0];
        worker.process.send(Signal::SIGKILL);
        inside.wait_gone();
        master.wait_replaced(worker);
        assert_eq!(master.stop(), 0);
        assert!(outside.is_alive());
        stage.titled("sleep 2006").iter().for_each(|it| it.send(Signal::SIGKILL));
    });
}

#[test]
fn with_kill_mode_process_only_the_leader_is_told_and_killed() {
    both_ways(|stage, wrapper, _| {
        let script = "sleep 2007 & exec sleep 2000";
        let master = start(stage, wrapper, false, "kill_mode = process", script);
        let inside = stage.wait_titled("sleep 2007", 1)[0];
        assert!(stage.titled("ph: warden [web]").is_empty());
        let worker = master.wait_workers(1)[0];
        worker.process.send(Signal::SIGKILL);
        master.wait_replaced(worker);
        stage.wait_titled("sleep 2007", 2);
        assert_eq!(master.stop(), 0);
        assert!(inside.is_alive());
        stage.titled("sleep 2007").iter().for_each(|it| it.send(Signal::SIGKILL));
    });
}

/// Commands that are started and end, 5,000 of them: nothing of them stays with the master.
#[test]
fn five_thousand_commands_started_and_ended_leave_no_trace_in_the_master() {
    const ENDS: usize = 5000;
    let stage = ph();
    stage.configure(
        "number_workers = 50\nmin_uptime = 0\nmax_restarts = 1000000\nlog_level = error",
    );
    // Each lives a moment; some leave somebody behind.
    let script = "[ $((PH_WORKER_ID % 20)) = 0 ] && setsid sleep 2008 & \
                  exec sleep 0.0$((PH_WORKER_ID % 9 + 1))";
    let master = stage.launch(&[], &["run", "-c", "config.ini", "--", "sh", "-c", script]);
    let newest = || {
        let ids = master.workers().into_iter().filter_map(|worker| {
            worker.process.environment().get("PH_WORKER_ID")?.parse::<usize>().ok()
        });
        ids.max().unwrap_or(0)
    };
    let size = || (master.process.descriptors().len(), master.process.status_number("VmRSS"));
    eventually("some have ended", || (newest() > 1000).then_some(()));
    let before = size();
    eventually("all have ended", || (newest() > ENDS).then_some(()));
    let after = size();
    // Those of starts that are being watched come and go.
    assert!(after.0 <= before.0 + 100, "descriptors: {} and {}", before.0, after.0);
    assert!(after.1 < before.1 + 4096, "it grew from {} kB to {} kB", before.1, after.1);
    assert_eq!(master.stop(), 0);
}
