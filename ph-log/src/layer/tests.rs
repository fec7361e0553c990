//! Events through a subscriber of the test's own, into a file.

use std::path::PathBuf;
use std::sync::atomic::AtomicU32;

use tracing_subscriber::layer::SubscriberExt;

use crate::{Format, Level, Log, LogOptions, RotateLimits, Target, build};

static REOPEN: AtomicU32 = AtomicU32::new(0);

/// What `run` logs, without the head of the lines.
fn logged(level: Level, run: impl FnOnce(&Log)) -> Vec<String> {
    let head = format!(" test[{}] master: ", std::process::id());
    let without_head = |line: &str| {
        let (before, after) = line.split_once(&head).expect("a head");
        let level = before.split_once(' ').expect("a level").1;
        format!("{level} {after}")
    };
    whole_text(Format::Text, level, run).lines().map(without_head).collect()
}

fn whole_text(format: Format, level: Level, run: impl FnOnce(&Log)) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("log");
    let (log, layer) = build(options(&path, format, level)).expect("a log");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || run(&log));
    std::fs::read_to_string(&path).expect("the log")
}

fn options(path: &std::path::Path, format: Format, level: Level) -> LogOptions {
    LogOptions {
        name: "test".to_owned(),
        target: Target::File(path.to_owned()),
        limits: RotateLimits::default(),
        worker_path: None,
        also_stderr: false,
        level,
        format,
        reopen: &REOPEN,
        pid: None,
    }
}

#[test]
fn other_options_hold_from_the_next_line_on_and_a_file_that_cannot_be_opened_leaves_the_former() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (log, layer) = build(options(&path("one"), Format::Text, Level::Info)).expect("a log");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!("first");
        log.configure(options(&path("two"), Format::Json, Level::Debug));
        assert!(!path("two").exists(), "nothing is opened before there is a line");
        tracing::debug!("second");
        log.configure(options(&path("nowhere/three"), Format::Text, Level::Warn));
        tracing::info!("nobody asked for");
        tracing::warn!("third");
    });
    let text = |name: &str| std::fs::read_to_string(path(name)).expect("a log");
    assert!(text("one").ends_with("master: first\n") && text("one").lines().count() == 1);
    let two = text("two");
    let lines: Vec<_> = two.lines().collect();
    assert!(lines[0].contains("\"message\":\"second\""), "{two}");
    assert!(lines[1].contains("the old one stays in use") && lines[1].contains("three"), "{two}");
    assert!(lines[2].ends_with("master: third") && lines.len() == 3, "{two}");
}

#[test]
fn fields_follow_the_message_in_their_order() {
    let path = PathBuf::from("/var/log/my app");
    let lines = logged(Level::Info, |_| {
        tracing::info!(slot = 3, took_ms = -1.5, ok = true, name = "a b", "job {} done", 17);
        tracing::warn!(path = ?path, shown = %path.display(), r#type = "t", "odd");
        tracing::error!(key = "value");
        tracing::info!("");
    });
    assert_eq!(
        lines[..3],
        [
            r#"INFO job 17 done slot=3 took_ms=-1.5 ok=true name="a b""#,
            r#"WARN odd path="/var/log/my app" shown="/var/log/my app" type=t"#,
            "ERROR key=value",
        ]
    );
    assert!(lines[3].starts_with("INFO event "), "{}", lines[3]);
}

#[test]
fn nobody_forges_a_line() {
    let forged = "x\n2026-11-23T08:00:00.123Z INFO test[1] master: forged";
    let lines = logged(Level::Info, |_| {
        tracing::info!("{forged}");
        tracing::info!(message = forged);
        tracing::info!(user = forged, "login");
        tracing::info!(user = %forged, other = ?forged, "login");
        tracing::info!(user = %"\"a\" admin=\"true\"", "login\r\u{85}\u{1b}[1A");
    });
    assert_eq!(lines.len(), 5, "{lines:#?}");
    assert_eq!(lines[4], r#"INFO login\r\u{85}\u{1b}[1A user="\"a\" admin=\"true\"""#);
}

#[test]
fn a_value_without_end_is_cut() {
    struct Endless;
    impl std::fmt::Debug for Endless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            (0..100_000).try_for_each(|n| write!(f, "{n} "))
        }
    }
    let lines = logged(Level::Info, |_| {
        tracing::info!("{:?}", Endless);
        tracing::info!(value = ?Endless, last = 1, "cut");
    });
    assert!(lines.iter().all(|line| line.ends_with("…[cut]") && line.len() < 16 * 1024));
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_debug_that_panics_leaves_the_log_usable() {
    struct Broken;
    impl std::fmt::Debug for Broken {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("a broken Debug, as the test wants it");
        }
    }
    let lines = logged(Level::Info, |_| {
        let result = std::panic::catch_unwind(|| tracing::info!(value = ?Broken, "lost"));
        assert!(result.is_err());
        tracing::info!("after");
    });
    assert_eq!(lines, ["INFO after"]);
}

#[test]
fn spans_break_nothing_and_the_level_changes_at_run_time() {
    let lines = logged(Level::Info, |log| {
        // One callsite, so that its cached interest is what changes.
        let both = |n| {
            tracing::debug!(n, "fine");
            tracing::info!(n, "plain");
        };
        let outer = tracing::info_span!("outer", id = 1, later = tracing::field::Empty);
        outer.record("later", 2);
        let _in_outer = outer.enter();
        both(1);
        log.set_level(Level::Debug);
        let inner = tracing::debug_span!(parent: &outer, "inner");
        inner.in_scope(|| both(2));
        log.set_level(Level::Error);
        both(3);
        tracing::error!("end");
    });
    assert_eq!(lines, ["INFO plain n=1", "DEBUG fine n=2", "INFO plain n=2", "ERROR end"]);
}

#[test]
fn json_keeps_the_kinds_of_values() {
    let text = whole_text(Format::Json, Level::Info, |_| {
        let path = PathBuf::from("/var/log/my \"app\"");
        tracing::info!(
            small = -3,
            large = u64::MAX,
            ok = true,
            took_ms = 1e300,
            "job {} \"done\"",
            17
        );
        tracing::warn!(odd = f64::NAN, odder = f64::NEG_INFINITY, path = ?path, shown = %path.display());
        tracing::info!(huge = u128::MAX, r#type = ?Some(3), twice = 1, twice = 2, "");
        tracing::info!(message = "a\u{1b}b\n");
        tracing::info!("");
    });
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("valid JSON")).collect();
    assert_eq!(lines[0]["message"], "job 17 \"done\"");
    assert_eq!(
        lines[0]["fields"].to_string(),
        r#"{"large":18446744073709551615,"ok":true,"small":-3,"took_ms":1e+300}"#
    );
    assert_eq!((&lines[1]["message"], &lines[1]["level"]), (&"".into(), &"WARN".into()));
    assert_eq!(
        lines[1]["fields"].to_string(),
        r#"{"odd":"NaN","odder":"-inf","path":"/var/log/my \"app\"","shown":"/var/log/my \"app\""}"#
    );
    assert_eq!(
        lines[2]["fields"].to_string(),
        r#"{"huge":"340282366920938463463374607431768211455","twice":2,"type":"Some(3)"}"#
    );
    assert_eq!(lines[3]["message"], "a\u{1b}b\n");
    assert!(lines[4]["message"].as_str().expect("a text").starts_with("event "));
    assert_eq!(lines[4]["pid"], std::process::id());
    assert!(text.contains(r#""message":"a\u001bb\n"}"#), "{text}");
}

#[test]
fn json_without_end_is_cut_and_stays_valid() {
    struct Endless;
    impl std::fmt::Debug for Endless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            (0..100_000).try_for_each(|n| write!(f, "{n}\n\u{85} "))
        }
    }
    let text = whole_text(Format::Json, Level::Info, |_| {
        tracing::info!("{:?}", Endless);
        tracing::info!(value = ?Endless, last = 1, "cut");
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        let value: serde_json::Value = serde_json::from_str(line).expect("valid JSON");
        assert!(value["cut"] == true && line.len() < 16 * 1024, "{line}");
    }
}
