//! Events through a subscriber of the test's own, into a file.

use std::path::PathBuf;
use std::sync::atomic::AtomicU32;

use tracing_subscriber::layer::SubscriberExt;

use crate::{Level, Log, LogOptions, Target, build};

static REOPEN: AtomicU32 = AtomicU32::new(0);

/// What `run` logs, without the head of the lines.
fn logged(level: Level, run: impl FnOnce(&Log)) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("log");
    let (log, layer) = build(LogOptions {
        name: "test".to_owned(),
        target: Target::File(path.clone()),
        also_stderr: false,
        level,
        reopen: &REOPEN,
    })
    .expect("a log");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || run(&log));
    let head = format!(" test[{}] master: ", std::process::id());
    let text = std::fs::read_to_string(&path).expect("the log");
    text.lines()
        .map(|line| {
            let (before, after) = line.split_once(&head).expect("a head");
            let level = before.split_once(' ').expect("a level").1;
            format!("{level} {after}")
        })
        .collect()
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
