//! Upgrades that go wrong: whatever happens to whom, there is one whole service afterwards, or none.
//! Numbers are those of docs/faults.md.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::place::{Place, facts, is_whole};
use crate::support::{Process, eventually, require, tell};

fn executable(path: &Path, content: &[u8]) {
    std::fs::write(path, content).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// What makes a program.
type Maker<'a> = &'a dyn Fn(&Path);

/// The head of a program for another processor.
fn foreign() -> Vec<u8> {
    let mut head = vec![0_u8; 64];
    head[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    // An executable for a SPARC, of version 1, whose head has 64 bytes.
    (head[16], head[18], head[20], head[52], head[54]) = (2, 43, 1, 64, 56);
    head
}

#[test]
fn fault_48_a_program_that_cannot_be_executed_changes_nothing() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("number_workers = 2\nmin_uptime = 0.1\nunix_socket = web.sock");
    let first = place.run(&["sleep", "1000"]);
    let before = facts(&place, 2);
    stage.expect_error("the upgrade fails: ");
    let good = std::fs::read(env!("CARGO_BIN_EXE_ph")).expect("the program");
    let broken: [(&str, Maker<'_>); 7] = [
        ("missing", &|_| {}),
        ("not executable", &|path| std::fs::write(path, &good).expect("a file")),
        ("empty", &|path| executable(path, b"")),
        ("truncated", &|path| executable(path, &good[..good.len() / 20])),
        ("garbage", &|path| executable(path, b"\x01\x02garbage\xff\n")),
        ("of another architecture", &|path| executable(path, &foreign())),
        ("without its interpreter", &|path| executable(path, b"#!/no/such/shell\n")),
    ];
    stage.expect_error("upgrade failed: ");
    for (round, (what, make)) in broken.iter().enumerate() {
        if *what == "missing" {
            std::fs::remove_file(&place.program).expect("removed");
        } else {
            place.put(make);
        }
        first.send(Signal::SIGUSR2);
        let told = stage.log().wait_for_count("upgrade failed", round + 1);
        tell(&format!("{what}: {}", told[round].message));
        assert!(!told[round].message.contains("127"), "it never was the program: {told:?}");
        place.put_good();
        is_whole(&place, &before);
    }
    place.upgrade();
    place.wait_one_tree(2);
    assert_eq!(first.wait(), 0);
    place.stop();
}

#[test]
fn fault_50_a_program_that_ends_at_once_or_crashes_changes_nothing() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("number_workers = 2\nmin_uptime = 0.1");
    let first = place.run(&["sleep", "1000"]);
    let before = facts(&place, 2);
    stage.expect_error("upgrade failed");
    for (round, script) in ["exit 0", "exit 7", "kill -SEGV $$"].iter().enumerate() {
        place.put(|path| executable(path, format!("#!/bin/sh\n{script}\n").as_bytes()));
        first.send(Signal::SIGUSR2);
        let told = stage.log().wait_for_count("upgrade failed", round + 1);
        tell(&format!("{script}: {}", told[round].message));
        place.put_good();
        is_whole(&place, &before);
    }
    place.upgrade();
    assert_eq!(first.wait(), 0);
    place.stop();
}

#[test]
fn fault_50_a_bad_configuration_is_told_by_the_master_that_runs() {
    let place = Place::new();
    let stage = &place.stage;
    let good = "number_workers = 2\nmin_uptime = 0.1";
    stage.configure(good);
    let first = place.run(&["sleep", "1000"]);
    let before = facts(&place, 2);
    stage.configure("number_workers = many");
    stage.expect_error("the upgrade fails: ");
    stage.expect_error("upgrade failed");
    first.send(Signal::SIGUSR2);
    let said = stage.log().wait_for("many");
    assert_eq!((said.pid, said.level.as_str()), (first.process.0, "ERROR"), "{said:?}");
    stage.log().wait_for("upgrade failed");
    stage.configure(good);
    is_whole(&place, &before);
    place.upgrade();
    assert_eq!(first.wait(), 0);
    place.stop();
}

#[test]
fn fault_50_workers_that_cannot_boot_leave_the_old_ones_at_work() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("number_workers = 2\nmin_uptime = 0.2");
    let script = "[ -e broken ] && { echo no database; exit 9; }; exec sleep 1000";
    let first = place.run(&["sh", "-c", script]);
    let before = facts(&place, 2);
    std::fs::write(stage.path("broken"), "").expect("a file");
    for expected in ["the worker of every slot has died", "the upgrade fails: ", "upgrade failed"] {
        stage.expect_error(expected);
    }
    stage.allow_error("keeps dying");
    stage.expect_error("reload failed");
    for (verb, told) in [
        ("upgrade", "upgrade failed: the successor exited with code 1; everything is as it was"),
        ("reload", "reload rolled back: worker 0 exited with code 9 before it had proved itself"),
    ] {
        let asked = stage.launch(&[], &[verb, "-c", "config.ini"]);
        let (code, stderr) = asked.wait_with_stderr();
        assert_eq!(code, 151, "{stderr}");
        assert!(stderr.contains(told), "{stderr}");
        assert!(stderr.ends_with("\n    the last it said:\n    | no database\n"), "{stderr}");
        is_whole(&place, &before);
    }
    let status = stage.launch(&[], &["status", "-c", "config.ini", "--json"]);
    let told = format!("stdout.{}", stage.starts() - 1);
    assert_eq!(status.wait(), 0);
    assert!(stage.read(&told).contains("reload rolled back: worker 0 exited with code 9"));
    std::fs::remove_file(stage.path("broken")).expect("removed");
    place.upgrade();
    assert_eq!(first.wait(), 0);
    place.stop();
}

#[test]
fn fault_49_a_successor_that_hangs_is_given_up_and_a_stop_meanwhile_ends_both() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("min_uptime = 0.1\nupgrade_timeout = 2\ngraceful_timeout = 2");
    let first = place.run(&["sleep", "1000"]);
    let before = facts(&place, 1);
    stage.expect_error("upgrade failed");
    let hangs = "#!/bin/sh\ntrap '' TERM HUP USR2\nwhile :; do sleep 0.1; done\n";
    place.put(|path| executable(path, hangs.as_bytes()));
    first.send(Signal::SIGUSR2);
    stage.log().wait_for("the successor was not ready within 2.0s (upgrade_timeout)");
    eventually("its end", || (stage.processes().len() == 4).then_some(()));
    place.put_good();
    is_whole(&place, &before);
    place.put(|path| executable(path, hangs.as_bytes()));
    first.send(Signal::SIGUSR2);
    stage.log().wait_for_count("upgrading: starting a successor", 2);
    assert_eq!(first.stop(), 0);
}

#[test]
fn an_upgrade_is_refused_with_a_terminal_and_as_pid_1() {
    require(&["python3", "unshare"]);
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("min_uptime = 0.1");
    stage.expect_error("the upgrade fails: this master has a controlling terminal");
    stage.expect_error("the upgrade fails: this master is pid 1");
    stage.expect_error("upgrade failed");
    let words = ["run", "-c", "config.ini", "--", "sleep", "1000"];
    let on_terminal = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let outer = stage.launch(&["python3", "-c", on_terminal], &words);
    stage.log().wait_ready(1);
    let master = place.master();
    master.send(Signal::SIGUSR2);
    stage.log().wait_for("upgrade failed");
    assert_eq!(place.master(), master);
    assert!(master.is_alive());
    master.send(Signal::SIGTERM);
    assert_eq!(outer.wait(), 0);
    let outer = stage.launch(&["unshare", "--pid", "--fork", "--mount-proc"], &words);
    stage.log().wait_ready(2);
    let master = eventually("the master", || outer.process.children().first().copied());
    master.send(Signal::SIGUSR2);
    stage.log().wait_for_count("upgrade failed", 2);
    assert!(master.is_alive());
    master.send(Signal::SIGTERM);
    assert_eq!(outer.wait(), 0);
}

#[test]
fn a_successor_that_has_not_taken_over_starts_none_of_its_own() {
    let place = Place::new();
    place.stage.configure("min_uptime = 1");
    place.stage.expect_error("the upgrade fails: this master has yet to take over from pid");
    place.stage.expect_error("upgrade failed");
    let first = place.run(&["sleep", "1000"]);
    place.wait_one_tree(1);
    first.send(Signal::SIGUSR2);
    let successor = place.wait_successor(first.process);
    place.stage.log().wait_for_count("master started with pid", 2);
    successor.send(Signal::SIGUSR2);
    place.stage.log().wait_for("yet to take over");
    assert_eq!(place.wait_upgraded(first.process), successor);
    assert_eq!(first.wait(), 0);
    place.wait_one_tree(1);
    place.stop();
}

#[test]
fn a_successor_that_cannot_take_over_leaves_its_files_to_the_master_that_runs() {
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("number_workers = 2\nmin_uptime = 0.1");
    let first = place.run(&["sleep", "1000"]);
    let before = facts(&place, 2);
    let in_the_way = stage.path("ph.sock.new");
    std::fs::create_dir(&in_the_way).expect("a folder");
    stage.expect_error("cannot take over: ");
    stage.expect_error("the upgrade fails: ");
    stage.expect_error("upgrade failed");
    first.send(Signal::SIGUSR2);
    stage.log().wait_for("upgrade failed");
    is_whole(&place, &before);
    assert!(std::os::unix::net::UnixStream::connect(stage.path("ph.sock")).is_ok());
    std::fs::remove_dir(&in_the_way).expect("removed");
    // Nor is anybody waited for who holds the folder, or what a killed successor left.
    drop(std::os::unix::net::UnixListener::bind(&in_the_way).expect("a stale socket"));
    let folder = std::fs::File::open(stage.path("")).expect("the folder");
    folder.lock().expect("its lock");
    let new = place.upgrade();
    assert_eq!(first.wait(), 0);
    assert_eq!(stage.read("ph.lock").trim(), new.0.to_string());
    assert!(std::os::unix::net::UnixStream::connect(stage.path("ph.sock")).is_ok());
    drop(folder);
    place.stop();
}

#[test]
fn fault_50_an_address_that_is_taken_is_told_by_the_master_that_runs() {
    let place = Place::new();
    let stage = &place.stage;
    let good = "min_uptime = 0.1";
    stage.configure(good);
    let first = place.run(&["sleep", "1000"]);
    let before = facts(&place, 1);
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let taken = other.local_addr().expect("its address");
    stage.configure(&format!("{good}\nbind = {taken}"));
    stage.expect_error("the upgrade fails: ");
    stage.expect_error("upgrade failed");
    let asked = stage.launch(&[], &["upgrade", "-c", "config.ini"]);
    let (code, stderr) = asked.wait_with_stderr();
    assert_eq!(code, 151, "{stderr}");
    assert!(
        stderr.contains(&format!("cannot listen on tcp://{taken}: Address already in use")),
        "{stderr}"
    );
    stage.configure(good);
    is_whole(&place, &before);
    first.send(Signal::SIGTERM);
    let (code, stderr) = first.wait_with_stderr();
    // With the place of the setting and the remedy, which only the successor knows.
    assert!(code == 0 && stderr.contains("set by config.ini:"), "{code} {stderr}");
}

/// A successor that has taken over and ends before the other master looks: by its order to stop, or dead.
#[test]
fn a_stop_in_the_moment_of_taking_over_is_for_both_and_a_death_for_none() {
    require(&["python3"]);
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("number_workers = 2\nmin_uptime = 0.1");
    let first = place.run(&["sleep", "1000"]);
    let before = facts(&place, 2);
    let ends_with = |last_words: &str| {
        format!(
            "#!/usr/bin/env python3\n\
             import json, os, signal, socket\n\
             channel = socket.socket(fileno=int(os.environ['PH_SUCCESSOR']))\n\
             channel.setblocking(True)\n\
             say = lambda message: channel.send(json.dumps(message).encode())\n\
             say({{'Hello': {{'version': 2}}}})\n\
             while b'Handover' not in channel.recv(65536): pass\n\
             say({{'Ready': {{'listeners': [], 'has_pidfile': False}}}})\n\
             assert b'Commit' in channel.recv(65536)\n\
             os.kill(os.getppid(), signal.SIGSTOP)\n\
             say('TakenOver')\n\
             {last_words}\n"
        )
    };
    let upgrade = |program: String| {
        place.put(|path| executable(path, program.as_bytes()));
        first.send(Signal::SIGUSR2);
        let is_over = |child: &Process| child.stat(3).as_deref() == Some("Z");
        eventually("its end", || first.process.children().into_iter().find(is_over));
        place.put_good();
        first.send(Signal::SIGCONT);
    };
    stage.expect_error("upgrade failed: the successor was ended by SIGKILL");
    upgrade(ends_with("os.kill(os.getpid(), signal.SIGKILL)"));
    stage.log().wait_for("upgrade failed");
    is_whole(&place, &before);
    upgrade(ends_with("say('Stopped')"));
    assert_eq!(first.wait(), 0);
    stage.log().wait_for("told to stop when it had just taken over");
    stage.wait_empty();
}
