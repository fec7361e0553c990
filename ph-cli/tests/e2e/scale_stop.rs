//! `ph scale` and `ph stop`: they wait until it is true, and say so.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::control::{begin, client, master_of};
use crate::ph;
use crate::support::{Stage, eventually, timed};

fn scale(stage: &Stage, words: &[&str]) -> (i32, String, String) {
    let said = client(stage, &[], &[&["scale", "-c", "config.ini"][..], words].concat());
    (said.code, said.stdout, said.stderr)
}

#[test]
fn workers_come_and_go_as_they_are_asked_for() {
    let stage = ph();
    let master = master_of(&stage, 2, "max_workers = 5");
    for (words, wanted) in [(["web", "4"], 4), (["web", "-3"], 1), (["web@1", "+2"], 3)] {
        let (code, stdout, stderr) = scale(&stage, &words);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(stdout, format!("web: {wanted} of {wanted} workers are ready\n"));
        assert_eq!(master.workers().len(), wanted, "{words:?}");
    }
    for (number, wanted) in [("6", "6 workers"), ("-3", "0 workers"), ("+2147483647", "2147483650")]
    {
        let (code, _, stderr) = scale(&stage, &[number]);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(wanted) && stderr.contains("there may be 1 to 5"), "{stderr}");
        assert_eq!(master.workers().len(), 3);
    }
    for (words, wanted) in [(&["web", "0"][..], 2), (&["web#1", "1"], 2), (&["job", "1"], 5)] {
        assert_eq!(scale(&stage, words).0, wanted, "{words:?}");
    }
    let (code, stdout, _) = scale(&stage, &["1", "--json"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("\"text\":\"1 of 1 workers are ready\""), "{stdout}");
    assert!(stage.log().with("control socket: scale to 4, from pid ").len() == 1);
    assert_eq!(master.stop(), 0);
    assert_eq!(scale(&stage, &["1"]).0, 7);
}

#[test]
fn a_scale_that_does_not_come_true_is_given_up_by_who_asked() {
    let stage = ph();
    stage.configure("min_uptime = 0.1\nbackoff_min = 0.2");
    stage.allow_error("is in a crash loop");
    let script = "[ $PH_SLOT = 0 ] || exit 3; exec sleep 1000";
    let master = stage.launch(&[], &["run", "-c", "config.ini", "--", "sh", "-c", script]);
    stage.log().wait_ready(1);
    let (code, _, stderr) = scale(&stage, &["2", "--timeout", "1500ms"]);
    assert_eq!(code, 152, "{stderr}");
    assert!(stderr.contains("web: worker 1 (pid "), "{stderr}");
    assert!(stderr.contains("exited with code 3"), "{stderr}");
    assert!(stderr.contains("the master goes on with it\n    try: ph status web\n"), "{stderr}");
    let (code, stdout, _) = scale(&stage, &["3", "--no-wait"]);
    assert_eq!((code, stdout.as_str()), (0, "web: told; not waited for\n"));
    // Another order, and the end of the master, are answers too.
    let waiting = begin(&stage, &[], &["scale", "-c", "config.ini", "4"]);
    stage.log().wait_for("control socket: scale to 4");
    assert_eq!(scale(&stage, &["1"]).0, 0);
    let said = waiting.end();
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("another order came: 1 workers"), "{}", said.stderr);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_stop_waits_for_the_end_and_names_who_was_killed() {
    let stage = ph();
    stage.configure("number_workers = 2\nmin_uptime = 0.1\ngraceful_timeout = 1");
    let script =
        "[ $PH_SLOT = 0 ] && exec sleep 1000; trap '' TERM; echo deaf; while :; do sleep 1; done";
    let master = stage.launch(&[], &["run", "-c", "config.ini", "--", "sh", "-c", script]);
    stage.log().wait_ready(2);
    stage.log().wait_for("deaf");
    let worker = master.wait_workers(2)[1].process.0;
    let (said, took) = timed(|| client(&stage, &[], &["stop", "-c", "config.ini"]));
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(took >= Duration::from_secs(1), "{took:?}");
    let killed = format!("web: worker 1 (pid {worker}) was killed (the master stops)\n");
    assert_eq!(said.stdout, format!("{killed}web: stopped, exit code 0\n"));
    assert!(
        said.stderr.contains("web: ") && !said.stderr.to_lowercase().contains("kill"),
        "{}",
        said.stderr
    );
    // The lock is free by now.
    assert!(!stage.path("ph.lock").exists() && !stage.path("ph.sock").exists());
    assert_eq!(master.wait_with_stderr(), (0, String::new()));
    assert_eq!(client(&stage, &[], &["stop", "-c", "config.ini"]).code, 7);
}

#[test]
fn a_stop_at_once_kills_and_a_second_graceful_one_shortens_nothing() {
    let stage = ph();
    stage.configure("min_uptime = 0.1\ngraceful_timeout = 10m");
    let script = "trap '' TERM; echo deaf; while :; do sleep 1; done";
    let master = stage.launch(&[], &["run", "-c", "config.ini", "--", "sh", "-c", script]);
    stage.log().wait_ready(1);
    stage.log().wait_for("deaf");
    for _ in 0..2 {
        let said = client(&stage, &[], &["stop", "--no-wait", "--pidfile", "ph.pid"]);
        assert_eq!((said.code, said.stdout.as_str()), (0, "ph: told; not waited for\n"));
    }
    let said = client(&stage, &[], &["stop", "-c", "config.ini", "--timeout", "1"]);
    assert_eq!(said.code, 152, "{}", said.stderr);
    assert_eq!(master.workers().len(), 1);
    let said = client(&stage, &[], &["status", "-c", "config.ini"]);
    assert!(said.code == 150 && said.stdout.contains(" stopping "), "{}", said.stdout);
    let said = client(&stage, &[], &["stop", "-c", "config.ini", "--now", "--json"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("\"killed\":[{\"generation\":1,\"pid\":"), "{}", said.stdout);
    assert_eq!(master.wait_with_stderr(), (0, String::new()));
}

/// What is said instead can be pasted: it stops nobody. The stop itself needs no socket.
#[test]
fn a_master_that_cannot_be_asked_is_told_by_signals() {
    for (settings, why) in
        [("control_socket = off", "its control socket is off"), ("", "ph.sock: ")]
    {
        let stage = ph();
        let master = master_of(&stage, 1, settings);
        if settings.is_empty() {
            std::fs::remove_file(stage.path("ph.sock")).expect("the socket");
        }
        let pid = master.process.0;
        for (words, signal) in [
            (&["reload", "-c", "config.ini"][..], "-HUP"),
            (&["upgrade", "-c", "config.ini"], "-USR2"),
            (&["scale", "-c", "config.ini", "+1"], "-TTIN"),
            (&["scale", "-c", "config.ini", "-1"], "-TTOU"),
            (&["status", "-c", "config.ini"], ""),
        ] {
            let said = client(&stage, &[], words);
            assert!(said.stderr.contains(why), "{words:?}: {}", said.stderr);
            let remedy = match signal {
                "" => format!("\n    try: ps -fp {pid}\n"),
                signal => format!("\n    try: kill {signal} {pid}"),
            };
            assert!(said.stderr.contains(&remedy), "{words:?}: {}", said.stderr);
            assert!(said.code == 1 || signal.is_empty(), "{words:?}: {}", said.code);
        }
        let words = ["stop", "-c", "config.ini", "web", "-s", "web"];
        let said = client(&stage, &[], &words);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""));
        assert!(said.stdout.starts_with("web: stopped by a signal: "), "{}", said.stdout);
        assert!(said.stdout.contains(why) && said.stdout.lines().count() == 1, "{}", said.stdout);
        assert!(!stage.path("ph.lock").exists());
        assert_eq!(master.wait_with_stderr(), (0, String::new()));
    }
}

#[test]
fn at_once_by_signals_too() {
    let stage = ph();
    stage.configure("min_uptime = 0.1\ngraceful_timeout = 10m\ncontrol_socket = off");
    let script = "trap '' TERM; echo deaf; while :; do sleep 1; done";
    let master = stage.launch(&[], &["run", "-c", "config.ini", "--", "sh", "-c", script]);
    stage.log().wait_ready(1);
    stage.log().wait_for("deaf");
    let said = client(&stage, &[], &["stop", "-c", "config.ini", "--timeout", "1"]);
    assert_eq!(said.code, 152, "{}", said.stderr);
    let said = client(&stage, &[], &["stop", "-c", "config.ini", "--now"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(master.wait_with_stderr(), (0, String::new()));
}

/// Masters side by side: all of them are stopped, one of them is scaled.
#[test]
fn several_masters_are_told_apart() {
    let stage = ph();
    let first = master_of(&stage, 1, "single_instance = false");
    let second = stage.launch(&[], &["run", "-c", "config.ini", "--", "sleep", "1000"]);
    stage.log().wait_ready(2);
    eventually("the second socket", || stage.path("ph.2.sock").exists().then_some(()));
    let (code, _, stderr) = scale(&stage, &["2"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("2 masters of it run\n    try: name one, as web@2\n"), "{stderr}");
    assert_eq!(scale(&stage, &["web@2", "2"]).1, "web@2: 2 of 2 workers are ready\n");
    assert_eq!((first.workers().len(), second.workers().len()), (1, 2));
    let said = client(&stage, &[], &["status", "-c", "config.ini"]);
    assert!(said.stdout.contains("web   running   1/1"), "{}", said.stdout);
    assert!(said.stdout.contains("web@2   running   2/2"), "{}", said.stdout);
    let said = client(&stage, &[], &["stop", "-c", "config.ini", "web@2"]);
    assert_eq!(said.stdout, "web@2: stopped, exit code 0\n");
    let said = client(&stage, &[], &["stop", "-c", "config.ini", "web@2"]);
    assert!(said.stderr.starts_with("ph: cannot stop web@2: no master holds "), "{}", said.stderr);
    assert!(said.stderr.ends_with("ph.2.lock\n    try: ph status -c config.ini\n"));
    assert_eq!(second.wait(), 0);
    first.send(Signal::SIGCONT);
    assert_eq!(client(&stage, &[], &["stop", "-c", "config.ini"]).code, 0);
    assert_eq!(first.wait(), 0);
}
