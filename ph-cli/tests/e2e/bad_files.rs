//! Fifteen kinds of bad file, each refused by `run` and by `check` with the place and the reason.

use std::time::Duration;

use crate::ph;
use crate::support::{Stage, timed};

/// Runs `ph` to its end, which must be near, whatever the file is.
fn refusal(stage: &Stage, arguments: &[&str]) -> (i32, String) {
    let ((code, stderr), took) = timed(|| stage.launch(&[], arguments).wait_with_stderr());
    assert!(took < Duration::from_secs(10), "{arguments:?} took {took:?}");
    (code, stderr)
}

#[test]
fn every_kind_is_named_with_its_place_and_its_cure() {
    let large = format!("[web]\ncommand = sleep 1\n#{}", "x".repeat(20 << 20));
    let kinds: [(&str, &[u8], &str, &str); 15] = [
        ("syntax", b"[web]\ncommand = sleep 1\nnonsense\n", ":3:", "expected `key = value`"),
        ("type", b"[web]\ncommand = sleep 1\nnumber_workers = two\n", ":3:", "a whole number"),
        ("negative", b"[web]\ngraceful_timeout = -1\n", ":2:", "expected a duration"),
        ("twice", b"[web]\nbind = :1\nBind = :2\n", ":3:", "twice, first in line 2"),
        ("section", b"[web]\n[a]\n[web]\n", ":3:", "there twice, first in line 1"),
        ("unknown", b"[web]\nnumber_worker = 2\n", ":2:", "did you mean `number_workers`?"),
        ("missing", b"[job]\ncommand = sleep 1\n", ":", "expected a section \"web\""),
        ("empty", b"", ":", "expected a section"),
        ("loop", b"[web]\nlog_file = %(a)s\na = %(log_file)s\n", ":2:", "expected no circle"),
        ("name", b"[web]\nlog_file = %(gone)s\n", ":2:", "`%(gone)s` is not"),
        ("nul", b"[web]\n\ncommand = a\0b\n", ":3:", "got a NUL byte"),
        ("utf-8", b"[web]\ncommand = \xff\n", ":2:", "expected UTF-8"),
        ("user", b"[web]\ncommand = sleep 1\nuser = no-such-user\n", ":3 user", "there is no user"),
        ("command", b"[web]\nnumber_workers = 2\n", ":1 [web]", "it has no command"),
        ("20 MB", large.as_bytes(), ":", "expected at most 1048576 bytes"),
    ];
    for (name, text, place, reason) in kinds {
        let stage = ph();
        std::fs::write(stage.path("config.ini"), text).expect("a file");
        // Of sections that are missing only who names one can speak; `check` takes all there are.
        for verb in if name == "missing" { &["run"][..] } else { &["run", "check"] } {
            let (code, stderr) = refusal(&stage, &[verb, "-c", "config.ini", "-s", "web"]);
            let wanted = if ["missing", "empty"].contains(&name) { 5 } else { 6 };
            assert_eq!(code, wanted, "{name} {verb}: {stderr}");
            assert!(stderr.contains(reason), "{name} {verb}: {stderr}");
            let place = format!("config.ini{place}");
            assert!(stderr.contains(&place), "{name} {verb}: {stderr}");
            assert!(stderr.lines().count() >= 2, "{name} {verb} has no cure: {stderr}");
        }
        assert_eq!(stage.files(), [""; 0], "{name}");
    }
}
