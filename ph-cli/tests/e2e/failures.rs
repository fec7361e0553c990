//! What cannot be started: each in one moment, with the right code and the three-part error.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::ph;
use crate::snapshot::assert_snapshot;
use crate::support::{Stage, timed};

/// Runs `ph` to its end, which must be near.
fn fails(stage: &Stage, arguments: &[&str]) -> (i32, String) {
    let (failed, took) = timed(|| stage.launch(&[], arguments).wait_with_stderr());
    assert!(took < Duration::from_secs(10), "{arguments:?} took {took:?}");
    failed
}

/// A script of the stage's folder, with this mode.
fn script(stage: &Stage, name: &str, text: &str, mode: u32) {
    let path = stage.path(name);
    std::fs::write(&path, text).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

#[test]
fn what_people_ask_for_is_printed() {
    let stage = ph();
    for (start, (name, arguments)) in [
        ("help", &["--help"][..]),
        ("help-run", &["run", "--help"]),
        ("help-start", &["start", "--help"]),
        ("help-check", &["check", "--help"]),
    ]
    .into_iter()
    .enumerate()
    {
        let (code, stderr) = fails(&stage, arguments);
        assert_eq!((code, stderr.as_str()), (0, ""));
        let help = stage.read(&format!("stdout.{start}"));
        assert_snapshot(&format!("{name}.txt"), &stage, &help);
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_named_with_the_reason_and_the_remedy() {
    let stage = ph();
    script(&stage, "not-executable", "#!/bin/sh\n", 0o644);
    script(&stage, "no-interpreter", "#!/no/such/interpreter\n", 0o755);
    script(&stage, "no-program", "\u{1}\u{2}\u{3}", 0o755);
    std::fs::create_dir(stage.path("folder")).expect("a folder");
    for (command, wanted) in [
        ("./missing", 127),
        ("no-such-program-in-the-path", 127),
        ("./not-executable", 126),
        ("./folder", 126),
        ("./no-interpreter", 126),
        ("./no-program", 126),
        ("./not-executable/below", 126),
    ] {
        let name = command.trim_start_matches("./").replace('/', "-");
        let arguments = ["run", "--set", "base_path=.", "--set", "log_file=ph.log", "--", command];
        let (code, stderr) = fails(&stage, &arguments);
        assert_eq!(code, wanted, "{stderr}");
        assert_snapshot(&format!("error-{name}.txt"), &stage, &stderr);
        let (code, by_file) = {
            stage.configure(&format!("command = {command} with arguments"));
            fails(&stage, &["run", "-c", "config.ini"])
        };
        assert_eq!(code, wanted, "{by_file}");
        assert!(by_file.contains("set by config.ini:7 command"), "{by_file}");
    }
    stage.expect_error("exec ");
    stage.expect_error("its command cannot be executed");
    // Two of them are found out by the kernel only, and each is tried just once a start.
    assert_eq!(stage.log().with("was not started").len(), 4);
    assert_eq!(stage.log().with("master started").len(), 4);
}

#[test]
fn a_bad_configuration_is_refused_naming_each_line() {
    let stage = ph();
    for (name, lines) in [
        ("config-types", "number_workers = many\ntimeout = soon\nsingle_instance = perhaps"),
        ("config-unknown", "number_worker = 2"),
        ("config-duplicate", "number_workers = 2\nnumber_workers = 3"),
        ("config-loop", "log_file = %(a)s\na = %(b)s\nb = %(a)s"),
        ("config-syntax", "command = sleep 60\nnonsense"),
        ("config-no-command", "number_workers = 2"),
    ] {
        stage.configure(lines);
        let (code, stderr) = fails(&stage, &["run", "-c", "config.ini"]);
        assert_eq!(code, 6, "{stderr}");
        assert_snapshot(&format!("{name}.txt"), &stage, &stderr);
    }
    for (name, arguments) in [
        ("config-missing", &["run", "-c", "nowhere.ini"][..]),
        ("config-section", &["run", "-c", "config.ini", "wbe"]),
        ("config-none", &["run"]),
    ] {
        std::fs::write(stage.path("config.ini"), "[web]\n").expect("a configuration");
        if name == "config-none" {
            std::fs::remove_file(stage.path("config.ini")).expect("the configuration");
        }
        let (code, stderr) = fails(&stage, arguments);
        assert_eq!(code, if name == "config-section" { 5 } else { 6 }, "{stderr}");
        assert_snapshot(&format!("{name}.txt"), &stage, &stderr);
    }
}

/// Whatever the file is, reading it takes a moment, and nothing of it is executed.
#[test]
fn a_configuration_that_is_no_text_is_refused() {
    let stage = ph();
    let config = stage.path("config.ini");
    let remove = || std::fs::remove_file(&config).expect("the configuration");
    std::fs::write(&config, b"[web]\ncommand = sleep\0 60\n").expect("a NUL");
    assert_eq!(fails(&stage, &["run", "-c", "config.ini"]).0, 6);
    std::fs::write(&config, b"[web]\ncommand = \xff\xfe\n").expect("no UTF-8");
    assert_eq!(fails(&stage, &["run", "-c", "config.ini"]).0, 6);
    let large = format!("[web]\n{}", "# a line that says nothing\n".repeat(100_000));
    std::fs::write(&config, large).expect("a large file");
    assert_eq!(fails(&stage, &["run", "-c", "config.ini"]).0, 6);
    remove();
    std::fs::create_dir(&config).expect("a folder");
    assert_eq!(fails(&stage, &["run", "-c", "config.ini"]).0, 6);
    std::fs::remove_dir(&config).expect("the folder");
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    let (code, stderr) = fails(&stage, &["run", "-c", "config.ini"]);
    assert_eq!(code, 6, "{stderr}");
    remove();
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused_with_2() {
    let stage = ph();
    for (name, arguments) in [
        ("usage-flag", &["run", "--no-such-flag"][..]),
        ("usage-set", &["run", "--set", "number_workers"]),
        ("usage-verb", &["rnu"]),
        ("usage-section", &["run", "web", "-s", "web"]),
    ] {
        let (code, stderr) = fails(&stage, arguments);
        assert_eq!(code, 2, "{stderr}");
        assert_snapshot(&format!("{name}.txt"), &stage, &stderr);
    }
    assert_eq!(fails(&stage, &[]).0, 2, "no verb at all");
}

#[test]
fn a_value_on_the_command_line_is_judged_like_one_in_the_file() {
    let stage = ph();
    for (name, flag, value) in [
        ("flag-workers", "-n", "0"),
        ("flag-bind", "-b", "localhost:99999"),
        ("flag-set", "--set", "graceful_timeout=-1"),
    ] {
        let (code, stderr) = fails(&stage, &["run", flag, value, "--", "sleep", "60"]);
        assert_eq!(code, 6, "{stderr}");
        assert_snapshot(&format!("{name}.txt"), &stage, &stderr);
    }
}
