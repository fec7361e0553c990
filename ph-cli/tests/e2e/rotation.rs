//! The settings of a log as `ph run` and `ph check` take them.

use std::fs;

use crate::ph;
use crate::support::eventually;

const SLEEPER: &str = "min_uptime = 0.1\ncommand = sh -c 'sleep 0.2'\nmax_restarts = 10000\n";

#[test]
fn a_masters_log_is_rotated_by_its_size_and_as_much_is_kept_as_was_asked_for() {
    let stage = ph();
    stage.allow_error("is in a crash loop");
    stage.configure(&format!("{SLEEPER}log_max_size = 1KB\nlog_backups = 2"));
    let master = stage.start(&[]);
    let backup = |n: u32| stage.path(&format!("ph.log.{n}"));
    let inode = |n: u32| {
        fs::metadata(backup(n)).ok().map(|found| std::os::unix::fs::MetadataExt::ino(&found))
    };
    let first = eventually("two backups", || inode(2));
    eventually("the oldest is replaced", || (inode(2)? != first).then_some(()));
    assert_eq!(master.stop(), 0);
    assert!(!backup(3).exists());
    let size = |n| fs::metadata(backup(n)).expect("a backup").len();
    assert!(size(1) <= 1024 && size(2) <= 1024, "{} {}", size(1), size(2));
}

#[test]
fn without_a_limit_it_is_not() {
    let stage = ph();
    stage.allow_error("is in a crash loop");
    stage.configure(&format!("{SLEEPER}log_max_size = 0"));
    let master = stage.start(&[]);
    stage.log().wait_for_count("exited with code 0", 10);
    assert_eq!(master.stop(), 0);
    assert!(!stage.path("ph.log.1").exists());
}

#[test]
fn a_zone_that_nobody_knows_is_told_of_and_utc_taken() {
    let mut stage = ph();
    stage.variable("TZ", "Nowhere/Atlantis");
    stage.configure("command = sleep 1000\nlog_rotate = daily");
    let master = stage.start(&[]);
    let warning = stage.log().wait_for("cannot find out the local time from TZ=");
    assert_eq!(warning.level, "WARN");
    assert!(warning.message.ends_with("the log is rotated by UTC"), "{}", warning.message);
    // Before that line a signal to stop is the end, as of any program.
    stage.log().wait_for("master started");
    assert_eq!(master.stop(), 0);
    // Whoever does not ask for local time is not told of it.
    let master = stage.start(&["log_utc=yes"]);
    stage.log().wait_for_count("master started", 2);
    assert_eq!(master.stop(), 0);
    assert_eq!(stage.log().with("local time").len(), 1);
}

#[test]
fn a_check_warns_of_a_log_that_will_not_be_rotated() {
    let stage = ph();
    stage.configure("command = sleep 1000\nworker_log_file = w%(slot)s.log");
    fs::create_dir(stage.path(".ph.log.lock")).expect("a folder in the way");
    fs::create_dir(stage.path("w0.log")).expect("another");
    let (code, stderr) = stage.launch(&[], &["check", "-c", "config.ini"]).wait_with_stderr();
    let all = stderr + &stage.read("stdout.0");
    assert_eq!(code, 0, "{all}");
    for text in ["will not be rotated", ".ph.log.lock", "set by config.ini:3", "w0.log"] {
        assert!(all.contains(text), "{text}: {all}");
    }
    fs::remove_dir(stage.path(".ph.log.lock")).expect("the folder");
}

#[test]
fn what_is_no_value_of_a_log_setting_is_refused_with_its_line() {
    let stage = ph();
    for (line, expected) in [
        ("log_max_size = big", "a size"),
        ("log_rotate = weekly", "one of never, hourly, daily"),
        ("log_compress = bzip2", "one of none, gzip, zstd"),
        ("log_format = xml", "one of text, json"),
        ("log_line_max = 1MB", "a size from 256B to 64KB"),
        ("log_overflow = wait", "one of block, drop"),
        ("log_backups = -1", "a whole number"),
    ] {
        stage.configure(&format!("command = sleep 1000\n{line}"));
        let (code, stderr) = stage.start(&[]).wait_with_stderr();
        assert_eq!(code, 6, "{line}");
        let key = line.split(' ').next().expect("a key");
        let place = format!("config.ini:8: [web] {key}: expected {expected}");
        assert!(stderr.contains(&place), "{line}: {stderr}");
    }
}
