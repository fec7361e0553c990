//! A configuration that would not start hides nobody who runs.

use crate::control::{client, master_of};
use crate::ph;
use crate::support::Stage;

const BROKEN: &str = "the configuration is broken, and nothing could be started with it";

fn write(stage: &Stage, from: &str, to: &str) {
    let text = stage.read("config.ini");
    assert!(text.contains(from), "{text}");
    std::fs::write(stage.path("config.ini"), text.replace(from, to)).expect("a configuration");
}

#[test]
fn whoever_runs_is_found_and_told() {
    let stage = ph();
    stage.allow_error("reload");
    stage.allow_error("config.ini:");
    stage.allow_error("    ");
    let master = master_of(&stage, 1, "max_workers = 4");
    write(&stage, "max_workers = 4", "max_workers = many\nbananas\ndepends_on = nobody");
    for (words, wanted, what) in [
        (&["status"][..], 0, "running"),
        (&["scale", "2"], 0, "2 of 2 workers"),
        (&["reopen"], 0, "opened again"),
        (&["logs", "-n", "1"], 0, "reopen"),
    ] {
        let said = client(&stage, &[], &[words, &["-c", "config.ini"]].concat());
        assert_eq!(said.code, wanted, "{words:?}: {}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(BROKEN), "{words:?}: {}", said.stderr);
        assert!(said.stderr.contains("max_workers: expected"), "{words:?}: {}", said.stderr);
        assert!(said.stdout.contains(what), "{words:?}: {}", said.stdout);
    }
    // It is the master that refuses it, and says why, once.
    let said = client(&stage, &[], &["reload", "-c", "config.ini"]);
    assert_eq!(said.code, 6, "{}", said.stderr);
    assert_eq!(said.stderr.matches("max_workers: expected").count(), 1, "{}", said.stderr);
    for verb in ["start", "restart", "rotate"] {
        let said = client(&stage, &[], &[verb, "-c", "config.ini"]);
        assert_eq!(said.code, 6, "{verb}: {}", said.stderr);
    }
    let said = client(&stage, &[], &["stop", "-c", "config.ini"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "web: stopped, exit code 0\n"));
    assert_eq!(master.wait(), 0);
}

/// Where it is not known who is meant, nobody is told, and there is a way without the file.
#[test]
fn what_has_to_be_known_is_not_guessed() {
    let stage = ph();
    let master = master_of(&stage, 1, "");
    let good = stage.read("config.ini");
    for (from, to) in [
        ("pidfile = ph.pid", "pidfile = %(nowhere)s"),
        ("pidfile = ph.pid", "pidfile = ph.pid\npidfile = b.pid"),
        ("[web]", "[web"),
        ("[web]", "control_socket = x\0y\n[web]"),
    ] {
        write(&stage, from, to);
        for verb in ["stop", "status"] {
            let said = client(&stage, &[], &[verb, "-c", "config.ini"]);
            assert_eq!(said.code, 6, "{to}: {}", said.stderr);
            assert!(said.stderr.contains("config.ini:"), "{to}: {}", said.stderr);
            assert!(said.stderr.contains("--pidfile PATH or --socket PATH"), "{}", said.stderr);
        }
        std::fs::write(stage.path("config.ini"), &good).expect("a configuration");
    }
    assert_eq!(master.stop(), 0);
}
