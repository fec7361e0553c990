//! Reloads that must not take the service down: refused, and nothing has changed; or rolled back to what
//! was there.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::ph;
use crate::reload::{reload, start, wait_reloaded};
use crate::support::{Master, Stage, Worker, eventually, let_pass};

const BASE: &str = "command = sleep 1000\nmin_uptime = 0.2\nnumber_workers = 2\n";

/// Waits until so many reloads were refused; nothing has changed.
fn check_refused(stage: &Stage, master: &Master, workers: &[Worker], count: usize) {
    stage.log().wait_for_count("reload refused; nothing has changed", count);
    assert_eq!(master.workers(), workers);
    assert!(stage.log().with("is the canary").is_empty());
}

fn descriptors(master: &Master) -> Vec<(i32, String)> {
    master.process.descriptors().into_iter().collect()
}

/// The kinds of a start, each with what the log says of it.
#[test]
fn fault_44_a_bad_configuration_changes_nothing() {
    let long = format!("{BASE}environment = A={}", "x".repeat(1 << 20));
    let kinds: [(&str, &str); 14] = [
        ("number_workers\n", "config.ini:7"),
        ("number_workers = many", "config.ini:7: [web] number_workers: expected"),
        ("number_workers = -1", "config.ini:7: [web] number_workers: expected"),
        ("timeout = 1\ntimeout = 2", "config.ini:8"),
        ("number_worker = 1", "config.ini:7: [web] number_worker: expected a known key"),
        ("a = %(b)s\nb = %(a)s\nlog_path = %(a)s", "config.ini:"),
        ("directory = %(nowhere)s", "config.ini:7"),
        ("directory = a\0b", "config.ini"),
        ("user = nobody-of-this-name\ncommand = true", "nobody-of-this-name"),
        ("command = ", "it has no command"),
        ("command = ./no-such-program", "no-such-program"),
        ("directory = no-such-folder\ncommand = true", "no-such-folder"),
        ("log_file = no-such-folder/ph.log\ncommand = true", "no-such-folder"),
        (&long, "config.ini"),
    ];
    let stage = ph();
    let (master, workers) = start(&stage, BASE, 2);
    let before = descriptors(&master);
    let mut refused = 0;
    for (lines, reason) in kinds {
        let known = stage.log().lines().len();
        stage.expect_error(reason);
        reload(&stage, &master, lines);
        refused += 1;
        check_refused(&stage, &master, &workers, refused);
        let lines_now = stage.log().lines();
        let has_reason = |line: &crate::support::Line| line.message.contains(reason);
        assert!(lines_now[known..].iter().any(has_reason), "{lines:?}: {:?}", &lines_now[known..]);
    }
    let whole: [(&[u8], &str); 3] = [
        (b"", "web"),
        // The section is that of the start, whichever is the only one now.
        (b"[other]\ncommand = true\n", "[web]"),
        (b"[web]\ncommand = \xff\n", "config.ini"),
    ];
    for (text, reason) in whole {
        stage.expect_error(reason);
        std::fs::write(stage.path("config.ini"), text).expect("a configuration");
        master.send(Signal::SIGHUP);
        refused += 1;
        check_refused(&stage, &master, &workers, refused);
    }
    stage.allow_error("");
    eventually("the descriptors of before", || (descriptors(&master) == before).then_some(()));
    reload(&stage, &master, BASE);
    wait_reloaded(&stage, 1);
    assert_eq!(master.stop(), 0);
}

#[test]
fn fault_45_a_configuration_that_cannot_be_read_changes_nothing() {
    let stage = ph();
    let (master, workers) = start(&stage, BASE, 2);
    stage.expect_error("config.ini");
    stage.allow_error("");
    let path = stage.path("config.ini");
    let clear = || {
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_dir(&path);
    };
    let put: [&dyn Fn(); 4] = [
        &|| {},
        &|| nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a FIFO"),
        &|| std::fs::create_dir(&path).expect("a folder"),
        &|| std::os::unix::fs::symlink("config.ini", &path).expect("a link"),
    ];
    for (index, put) in put.iter().enumerate() {
        clear();
        put();
        master.send(Signal::SIGHUP);
        check_refused(&stage, &master, &workers, index + 1);
    }
    clear();
    stage.configure(BASE);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("a mode");
    if nix::unistd::geteuid().is_root() {
        master.send(Signal::SIGHUP);
        check_refused(&stage, &master, &workers, 5);
    }
    clear();
    reload(&stage, &master, BASE);
    wait_reloaded(&stage, 1);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_port_that_is_taken_refuses_the_reload() {
    let stage = ph();
    let (master, workers) = start(&stage, &format!("{BASE}bind = unix:a.sock"), 2);
    let before = descriptors(&master);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    stage.expect_error("Address already in use");
    stage.allow_error("");
    reload(&stage, &master, &format!("{BASE}bind = unix:a.sock, unix:b.sock, {address}"));
    check_refused(&stage, &master, &workers, 1);
    eventually("the descriptors of before", || (descriptors(&master) == before).then_some(()));
    assert!(stage.path("a.sock").exists() && !stage.path("b.sock").exists());
    drop(taken);
    master.send(Signal::SIGHUP);
    wait_reloaded(&stage, 1);
    assert!(stage.path("b.sock").exists());
    assert_eq!(master.stop(), 0);
}

/// Who still has it is a worker of two generations ago, which takes its time.
#[test]
fn an_address_that_a_stopping_worker_has_can_be_taken_again() {
    let stage = ph();
    let deaf = "trap '' TERM; while :; do sleep 0.1; done";
    let lines = |bind: &str, command: &str| {
        format!("command = {command}\nmin_uptime = 0.1\ngraceful_timeout = 5\nbind = {bind}")
    };
    let (master, old) = start(&stage, &lines("unix:a.sock", &format!("sh -c \"{deaf}\"")), 1);
    let inode = || std::fs::metadata(stage.path("a.sock")).expect("the socket").ino();
    let before = inode();
    reload(&stage, &master, &lines("unix:b.sock", "sleep 1000"));
    wait_reloaded(&stage, 1);
    assert!(old[0].process.is_alive());
    reload(&stage, &master, &lines("unix:a.sock", "sleep 1000"));
    wait_reloaded(&stage, 2);
    old[0].process.wait_gone();
    eventually("b.sock is gone", || (!stage.path("b.sock").exists()).then_some(()));
    assert_eq!(inode(), before, "it was never closed");
    assert_eq!(master.stop(), 0);
}

/// Of the canary, and only in slot 2, when two others serve already.
#[test]
fn fault_46_workers_that_fail_at_their_start_are_rolled_back() {
    let ends = "exited with code 1 before it had proved itself";
    for (script, slot, fault) in [
        ("exit 1", 0, ends),
        ("sleep 0.3; exit 1", 0, ends),
        ("[ $PH_SLOT = 2 ] && sleep 0.3 && exit 1; exec sleep 1001", 2, ends),
        ("kill -SEGV $$", 0, "was ended by SIGSEGV"),
    ] {
        let stage = ph();
        let base = "min_uptime = 1\nnumber_workers = 4\ngraceful_timeout = 5\n";
        let old = format!("{base}command = sleep 1000");
        let (master, workers) = start(&stage, &old, 4);
        stage.expect_error("reload failed: worker ");
        reload(&stage, &master, &format!("{base}command = sh -c \"{script}\""));
        let failed = stage.log().wait_for("reload failed: worker ");
        let worker = format!("worker {slot} gen 2");
        assert!(failed.message.contains(&worker) && failed.message.contains(fault), "{failed:?}");
        stage.log().wait_for("generation 2 was rolled back: generation 1 serves again");
        let now = eventually("four workers of old", || {
            let now = master.workers();
            let is_old = |it: &Worker| it.process.title() == "sleep 1000";
            (now.len() == 4 && now.iter().all(is_old)).then_some(now)
        });
        if slot == 0 {
            assert_eq!(now, workers, "nobody was touched");
        }
        let_pass(Duration::from_secs(1));
        assert_eq!(master.workers(), now);
        reload(&stage, &master, &format!("{base}command = sleep 1002"));
        wait_reloaded(&stage, 1);
        assert_eq!(master.stop(), 0);
    }
}

#[test]
fn a_crash_loop_may_end_the_service() {
    let stage = ph();
    stage.configure(
        "command = sh -c \"[ $PH_SLOT = 1 ] && exit 1; exec sleep 1000\"\nnumber_workers = 2\n\
         min_uptime = 0.2\nbackoff_min = 0.01\nbackoff_max = 0.02\non_crash_loop = exit",
    );
    stage.expect_error("worker 1 is in a crash loop");
    stage.allow_error("");
    let master = stage.start(&[]);
    assert_eq!(master.wait(), 155);
}
