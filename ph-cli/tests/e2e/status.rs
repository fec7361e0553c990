//! `ph status`: what it shows of services that run, crash, stop, or are not there.

use nix::sys::signal::Signal;

use crate::control::{Said, client, master_of};
use crate::ph;
use crate::snapshot::assert_snapshot;
use crate::support::{Stage, eventually};

fn status(stage: &Stage, words: &[&str]) -> Said {
    client(stage, &[], &[&["status", "-c", "config.ini"][..], words].concat())
}

/// The value of the first key of this name.
fn value<'a>(json: &'a str, key: &str) -> &'a str {
    let start = json.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key}: {json}"));
    let rest = &json[start + key.len() + 3..];
    rest.split([',', '}']).next().expect("a value")
}

#[test]
fn a_healthy_service_is_shown_with_its_workers() {
    let stage = ph();
    let master = master_of(&stage, 2, "bind = 127.0.0.1:0");
    let workers = master.wait_workers(2);
    let said = status(&stage, &[]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    let lines: Vec<_> = said.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{}", said.stdout);
    let pid = master.process.0;
    assert!(
        lines[0].starts_with(&format!("web   running   2/2 ready   gen 1   master {pid}   up "))
    );
    assert!(lines[0].ends_with("   config.ini"));
    for (line, worker) in lines[2..].iter().zip(&workers) {
        let fields: Vec<_> = line.split_whitespace().collect();
        assert_eq!(fields[..3], [&worker.slot.to_string(), "ready", &worker.process.0.to_string()]);
        assert!(fields[7].ends_with(['K', 'M']), "{line}");
    }
    let said = status(&stage, &["web#1", "--json"]);
    let json = said.stdout.as_str();
    assert_eq!(value(json, "schema"), "1");
    assert_eq!(value(json, "master_pid"), pid.to_string());
    assert_eq!(value(json, "pid"), workers[1].process.0.to_string());
    assert_eq!(json.matches("\"slot\"").count(), 1);
    assert!(json.contains("\"listeners\":[\"tcp://127.0.0.1:"), "{json}");
    assert!(value(json, "rss_bytes").parse::<u64>().expect("bytes") > 0);
    workers[0].process.send(Signal::SIGSEGV);
    master.wait_replaced(workers[0]);
    stage.log().wait_ready(3);
    let said = status(&stage, &["web#0"]);
    assert!(said.stdout.contains("1  SIGSEGV, "), "{}", said.stdout);
    let colour = status(&stage, &["--color", "always"]).stdout;
    assert!(colour.contains("\x1b[32mready\x1b[0m"), "{colour}");
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_crash_loop_is_seen_and_why() {
    let stage = ph();
    stage.configure("number_workers = 2\nmin_uptime = 0.1\nbackoff_min = 5\nmax_restarts = 1");
    stage.expect_error("worker 1 is in a crash loop");
    let script = "[ $PH_SLOT = 1 ] && exit 3; exec sleep 1000";
    let master = stage.launch(&[], &["run", "-c", "config.ini", "--", "sh", "-c", script]);
    stage.log().wait_ready(1);
    stage.log().wait_for("worker 1 is in a crash loop");
    let said = eventually("a slot in backoff", || {
        Some(status(&stage, &["web"])).filter(|said| said.stdout.contains(" backoff "))
    });
    assert_eq!(said.code, 150);
    assert!(said.stdout.contains("exit 3, next in "), "{}", said.stdout);
    assert!(!said.stdout.contains('!'), "notes are for terminals: {}", said.stdout);
    let json = status(&stage, &["--json"]).stdout;
    assert_eq!(value(&json, "crash_loop"), "true");
    assert!(json.contains("the last one exited with code 3\""), "{json}");
    assert!(json.contains("\"state\":\"backoff\""), "{json}");
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_service_that_does_not_run_has_its_code() {
    let stage = ph();
    stage.configure(
        "command = sleep 1000\nmin_uptime = 0.1\n[other]\ncommand = sleep 1000\npidfile = o.pid",
    );
    let said = status(&stage, &[]);
    assert_eq!((said.code, said.stderr.as_str()), (3, ""));
    assert_snapshot("status-none.txt", &stage, &said.stdout);
    assert_snapshot("status-none.json", &stage, &status(&stage, &["--json", "web"]).stdout);
    let master = stage.launch(&[], &["run", "-c", "config.ini", "web"]);
    stage.log().wait_ready(1);
    assert_eq!(status(&stage, &["web"]).code, 0);
    assert_eq!(status(&stage, &[]).code, 3, "the worst counts");
    master.send(Signal::SIGKILL);
    master.wait();
    stage.wait_empty();
    let said = status(&stage, &["web"]);
    assert_eq!(said.code, 1);
    assert_eq!(said.stdout, "web   dead   config.ini\n");
    assert!(said.stderr.contains("web: its master is dead, "), "{}", said.stderr);
    assert_eq!(status(&stage, &["nobody"]).code, 5);
    assert_eq!(status(&stage, &["@"]).code, 2);
    for name in ["ph.pid", "ph.lock", "ph.sock"] {
        std::fs::remove_file(stage.path(name)).expect(name);
    }
}

/// Shown anew when something happens, and only then; over when the service is.
#[test]
fn a_watch_follows_what_happens() {
    let stage = ph();
    let master = master_of(&stage, 1, "");
    let stdout = format!("stdout.{}", stage.starts());
    let watching = stage.launch(&[], &["status", "-c", "config.ini", "-w"]);
    let wait_shown = |text| {
        eventually(text, || stage.read(&stdout).contains(text).then_some(()));
    };
    wait_shown("1/1 ready");
    assert_eq!(client(&stage, &[], &["scale", "-c", "config.ini", "2"]).code, 0);
    wait_shown("2/2 ready");
    assert_eq!(client(&stage, &[], &["stop", "-c", "config.ini"]).code, 0);
    assert_eq!(watching.wait_with_stderr(), (3, String::new()));
    assert_eq!(master.wait(), 0);
}
