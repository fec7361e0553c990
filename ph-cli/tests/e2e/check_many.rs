//! `ph check` of files with many sections, and what a section must not do to its own files.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use crate::ph;
use crate::snapshot::assert_snapshot;
use crate::support::{Stage, timed};

/// What a verb said: its code, stdout and stderr.
fn said(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let start = stage.starts();
    let ((code, stderr), took) = timed(|| stage.launch(&[], arguments).wait_with_stderr());
    assert!(took < Duration::from_secs(60), "{arguments:?} took {took:?}");
    (code, stage.read(&format!("stdout.{start}")), stderr)
}

fn write(stage: &Stage, name: &str, text: &str) {
    std::fs::write(stage.path(name), text).expect("a file");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(stage.path(name), mode).expect("a mode");
}

/// The one object on stdout.
fn json(stdout: &str) -> serde_json::Value {
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let object: serde_json::Value = serde_json::from_str(stdout).expect("JSON");
    assert!(object.is_object(), "{stdout}");
    object
}

/// Every section that is not ok has a problem that names it, and every other one has none.
fn assert_named(object: &serde_json::Value) {
    let problems = object["problems"].as_array().expect("problems");
    for service in object["services"].as_array().expect("services") {
        let is_named = problems.iter().any(|problem| {
            problem["sections"].as_array().expect("sections").contains(&service["name"])
        });
        assert_eq!(service["ok"] == false, is_named, "{service} {object}");
    }
    for problem in problems {
        assert_eq!(problem["section"], problem["sections"][0], "{problem}");
    }
    assert_eq!(object["ok"] == true, problems.is_empty());
}

const SERVER: &str = "#!/bin/sh\nexec sleep 1000\n";

/// `run` would append to it, replace it, or delete it when it stops.
#[test]
fn no_file_that_is_needed_is_given_to_a_service_to_write() {
    let stage = ph();
    write(&stage, "server", SERVER);
    symlink(".", stage.path("link")).expect("a link");
    for line in [
        "log_file = w.lock",
        "log_file = .w.pid.new",
        "unix_socket = w.lock",
        "single_instance = no\nlog_file = w.2.lock",
        "log_file = config.ini",
        "log_file = link/config.ini",
        "log_file = server",
        "log_file = link/server",
        "pidfile = server",
        "pidfile = config.ini",
        "pidfile = a.pid\nlog_file = a.lock",
    ] {
        let base = if line.starts_with("pidfile") { "" } else { "pidfile = w.pid\n" };
        let config = format!("[web]\ncommand = ./server\n{base}{line}\n");
        write(&stage, "config.ini", &config);
        let (code, stdout, checked) = said(&stage, &["check"]);
        assert_eq!((code, stdout.as_str()), (6, ""), "{line}: {checked}");
        let (code, _, ran) = said(&stage, &["run"]);
        assert_eq!(code, 6, "{line}: {ran}");
        let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        assert!(checked.contains(&first(&ran)), "{line}: {checked}{ran}");
        assert_eq!(stage.read("config.ini"), config, "{line}");
        assert_eq!(stage.read("server"), SERVER, "{line}");
    }
    assert_snapshot("check-own-files.txt", &stage, &{
        let sections = "[DEFAULT]\ncommand = ./server\n[a]\nlog_file = server\n\
                        [b]\npidfile = ./link/server\n[c]\nlog_file = c.lock\n";
        write(&stage, "config.ini", sections);
        said(&stage, &["check"]).2
    });
}

#[test]
fn what_sections_may_share_is_a_warning() {
    let stage = ph();
    write(
        &stage,
        "config.ini",
        "[DEFAULT]\ncommand = sleep 1000\n[a]\nlog_file = one.log\npidfile = run.pid\n\
         single_instance = no\n[b]\nlog_file = ./one.log\npidfile = run.pid\nsingle_instance = no\n\
         [c]\nlog_file = run.3.lock\n",
    );
    let (code, stdout, stderr) = said(&stage, &["check"]);
    assert_eq!(code, 0, "{stderr}");
    assert_snapshot("check-may-share.txt", &stage, &format!("{stdout}--\n{stderr}"));
    // One that wants to be alone cannot.
    for one in ["a", "b"] {
        let flags = |name: &str| if name == one { "yes" } else { "no" };
        let section =
            |name: &str| format!("[{name}]\npidfile = r.pid\nsingle_instance = {}\n", flags(name));
        let config = format!("[DEFAULT]\ncommand = sleep 1\n{}{}", section("a"), section("b"));
        write(&stage, "config.ini", &config);
        let (code, _, stderr) = said(&stage, &["check"]);
        assert_eq!(code, 6, "{stderr}");
        assert!(stderr.contains("cannot start b beside a: both have the pidfile"), "{stderr}");
    }
}

#[test]
fn files_of_sections_are_the_same_whichever_way_leads_there() {
    let stage = ph();
    std::fs::create_dir(stage.path("real")).expect("a folder");
    symlink("real", stage.path("link")).expect("a link");
    write(
        &stage,
        "config.ini",
        "[DEFAULT]\ncommand = sleep 1000\n[a]\npidfile = real/x.pid\nbind = unix:real/s\n\
         [b]\npidfile = link/x.pid\nbind = unix:link/../real/s\n",
    );
    let (code, _, stderr) = said(&stage, &["check"]);
    assert_eq!(code, 6);
    for what in ["pidfile", "socket"] {
        let wanted = format!("cannot start b beside a: both have the {what} ");
        assert_eq!(stderr.matches(&wanted).count(), 1, "{stderr}");
    }
    assert_eq!(stderr.matches("beside").count(), 2, "{stderr}");
}

#[test]
fn one_line_that_concerns_many_sections_is_told_once() {
    let stage = ph();
    let names: Vec<_> = (0..300).map(|number| format!("s{number}")).collect();
    let sections: String = names.iter().map(|name| format!("[{name}]\n")).collect();
    let config = |lines: &str| format!("[DEFAULT]\ncommand = sleep 1000\n{lines}{sections}");
    write(&stage, "config.ini", &config("ready_interval = 5\nlog_file = all.log\n"));
    let (code, stdout, stderr) = said(&stage, &["check"]);
    assert_eq!((code, stdout.lines().count()), (0, 300), "{stderr}");
    assert_snapshot("check-many-warnings.txt", &stage, &stderr);
    let object = json(&said(&stage, &["check", "--json"]).1);
    assert_named(&object);
    let warning = &object["warnings"][0];
    assert_eq!((&warning["section"], &warning["line"]), (&"s0".into(), &3.into()));
    assert_eq!(warning["sections"].as_array().map(Vec::len), Some(300));
    // So is a problem, whether the configuration finds it or the host.
    for (lines, wanted) in [
        ("number_workers = many\n", "ph: config.ini:3: [DEFAULT] number_workers: expected"),
        ("user = nosuch\n", "ph: cannot start s0 and 299 more sections: there is no user"),
        ("pidfile = one.pid\n", "ph: cannot start s1 and 298 more sections beside s0: both have"),
        ("nonsense\n", "ph: config.ini:3: expected `key = value`"),
    ] {
        write(&stage, "config.ini", &config(lines));
        let (code, _, stderr) = said(&stage, &["check"]);
        assert_eq!(code, 6, "{lines}");
        assert_eq!(stderr.matches("ph: ").count(), 1, "{lines}: {stderr}");
        assert!(stderr.starts_with(wanted), "{lines}: {stderr}");
        let object = json(&said(&stage, &["check", "--json"]).1);
        assert_named(&object);
    }
}

/// A variable is at fault in every section, and no line names one.
#[test]
fn a_variable_that_concerns_all_sections_is_told_once() {
    let mut stage = ph();
    stage.variable("PH_NUMBER_WORKERS", "many");
    write(&stage, "config.ini", "[DEFAULT]\ncommand = sleep 1000\n[a]\n[b]\n");
    let (code, _, stderr) = said(&stage, &["check"]);
    assert_eq!(code, 6);
    assert_eq!(stderr.matches("ph: ").count(), 1, "{stderr}");
    assert!(stderr.starts_with("ph: $PH_NUMBER_WORKERS: number_workers: expected"), "{stderr}");
    assert_named(&json(&said(&stage, &["check", "--json"]).1));
}

#[test]
fn whatever_is_wrong_json_is_one_object() {
    let stage = ph();
    let good = "[web]\ncommand = sleep 1000\n";
    for (text, arguments, code) in [
        (good, &[][..], 0),
        (good, &["wbe"], 5),
        (good, &["web", "wbe"], 5),
        ("[web]\nnonsense\n", &["wbe"], 6),
        ("[web]\nnonsense\n", &[], 6),
        ("", &[], 6),
        ("[DEFAULT]\ninclude = missing.ini\n[web]\ncommand = sleep 1\n", &[], 6),
        (good, &["-c", "missing.ini"], 6),
        (good, &["-c", "folder"], 6),
        (good, &["--set", "number_workers=many"], 6),
        ("\0", &[], 6),
    ] {
        std::fs::create_dir_all(stage.path("folder")).expect("a folder");
        write(&stage, "config.ini", text);
        let arguments: Vec<_> = ["check", "--json"].iter().chain(arguments).copied().collect();
        let (found, stdout, stderr) = said(&stage, &arguments);
        assert_eq!((found, stderr.as_str()), (code, ""), "{text:?} {arguments:?}: {stdout}");
        let object = json(&stdout);
        assert_eq!(object["ok"] == true, code == 0, "{stdout}");
        assert_named(&object);
    }
}

#[test]
fn user_and_group_of_one_line_are_both_told() {
    let stage = ph();
    write(&stage, "config.ini", "[a]\ncommand = sleep 1000\nuser = nosuch:nosuchgroup\n");
    let (code, _, stderr) = said(&stage, &["check"]);
    assert_eq!(code, 6);
    for wanted in ["there is no group \"nosuchgroup\"", "there is no user \"nosuch\""] {
        assert_eq!(stderr.matches(wanted).count(), 1, "{stderr}");
    }
    write(&stage, "config.ini", "[a]\ncommand = sleep 1000\nuser = nosuch\n");
    assert_eq!(said(&stage, &["check"]).2.matches("ph: ").count(), 1);
}

#[test]
fn a_remedy_is_for_the_cause() {
    let stage = ph();
    let long = "s".repeat(120);
    write(
        &stage,
        "config.ini",
        &format!(
            "[DEFAULT]\ncommand = sleep 1000\n[a]\nrlimit_nofile = 100000000000\n\
             [b]\nunix_socket = {long}\n[c]\ncommand = ./plain\n[d]\ncommand = ./config.ini/x\n"
        ),
    );
    std::fs::write(stage.path("plain"), SERVER).expect("a file");
    let (code, _, stderr) = said(&stage, &["check"]);
    assert_eq!(code, 6);
    let remedies: Vec<_> = stderr.lines().filter(|line| line.contains("try: ")).collect();
    for (remedy, wanted) in remedies.iter().zip([
        "sysctl fs.nr_open",
        "107 bytes",
        "chmod 0755 ./plain",
        "file ./config.ini/x",
    ]) {
        assert!(remedy.contains(wanted), "{wanted}: {stderr}");
    }
    assert_eq!(remedies.len(), 4, "{stderr}");
}

#[test]
fn many_sections_take_a_moment() {
    let stage = ph();
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = held.local_addr().expect("an address").port();
    drop(held);
    // Each by another address, all to be compared.
    let sections = (0..100).map(|number| {
        format!("[s{number}]\ncommand = sleep 1000\nbind = 127.0.1.{number}:{port}, localhost:0\n")
    });
    write(&stage, "config.ini", &sections.collect::<String>());
    let (code, stdout, stderr) = said(&stage, &["check"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout.lines().count(), 100);
}
