//! `ready = exec:`: what a probe leaves behind.

use crate::ph;
use crate::support::{Stage, eventually};

/// A program of the stage's folder.
fn script(stage: &Stage, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = stage.path(name);
    std::fs::write(&path, text).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn configure(stage: &Stage, probe: &str) {
    let lines = "command = sleep 1000\nready_interval = 0.1\nlog_level = debug";
    stage.configure(&format!("{lines}\nready = exec:{probe}"));
}

#[test]
fn what_a_probe_leaves_in_its_group_ends_with_it() {
    let stage = ph();
    let probe = script(&stage, "probe", "#!/bin/sh\nsleep 7777 &\necho >> asked\nexit 1\n");
    configure(&stage, &probe);
    let master = stage.launch(&[], &["run", "-c", "config.ini"]);
    let asked = || std::fs::read_to_string(stage.path("asked")).unwrap_or_default().len();
    eventually("twenty probes", || (asked() >= 20).then_some(()));
    // One probe runs, another may have ended a moment ago.
    let left = stage.titled("sleep 7777").len();
    assert!(left <= 2, "{left} processes of {} probes are left", asked());
    assert_eq!(master.stop(), 0);
    stage.wait_empty();
}
