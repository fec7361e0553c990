//! Variables as a layer: what they win over, and what wins over them.

use ph_config::{NotUtf8, Origin};

use crate::Site;

const TEXT: &str = "[DEFAULT]\ngraceful_timeout = 1\nroot = a\n[web]\nnumber_workers = 2\n\
                    log_file = %(root)s.log\n[job-1.x]\n";

#[test]
fn each_layer_wins_over_the_one_below_it() {
    let site = Site::new(TEXT).section("web");
    let all = [
        ("WEB_CONCURRENCY", "9"),
        ("PH_NUMBER_WORKERS", "3"),
        ("PH_WEB__NUMBER_WORKERS", "4"),
        ("PH_GRACEFUL_TIMEOUT", "7"),
        ("PH_JOB_1_X__GRACEFUL_TIMEOUT", "8"),
    ];
    let site = site.environment(&all);
    let settings = site.good().settings;
    assert_eq!((settings.workers(), settings.graceful_timeout.as_secs()), (4, 7));
    let origin = Origin::Variable("PH_WEB__NUMBER_WORKERS".into());
    assert_eq!(settings.origin("number_workers"), origin);
    let lost = settings.overridden("number_workers").iter();
    let lost: Vec<String> = lost.map(|it| format!("{} by {}", it.text, it.origin)).collect();
    let expected =
        ["3 by $PH_NUMBER_WORKERS", "2 by app.ini:5", "9 by $WEB_CONCURRENCY", "1 by default"];
    assert_eq!(lost, expected);
    let settings = site.set("number_workers", "5").good().settings;
    assert_eq!(settings.workers(), 5);
    assert_eq!(settings.overridden("number_workers").len(), 5);
    let other = Site::new(TEXT).section("job-1.x").environment(&all).good().settings;
    assert_eq!((other.workers(), other.graceful_timeout.as_secs()), (3, 8));
}

#[test]
fn web_concurrency_is_for_who_says_nothing_else() {
    let site = |text: &str, value| Site::new(text).environment(&[("WEB_CONCURRENCY", value)]);
    assert_eq!(site("[web]\n", "6").good().settings.workers(), 6);
    assert_eq!(site("[DEFAULT]\nnumber_workers = 2\n[web]\n", "6").good().settings.workers(), 2);
    assert_eq!(site("[web]\n", "").good().settings.workers(), 1);
    let bad = site("[web]\n", "many").bad();
    assert!(bad.starts_with("$WEB_CONCURRENCY: [web] number_workers: expected"), "{bad}");
}

#[test]
fn values_are_as_in_a_file() {
    let site = Site::new(TEXT).section("web").environment(&[
        ("PH_ROOT", "%(section)s"),
        ("PH_WEB__APP_COLOUR", "light; blue"),
        ("PH_LOG_LEVEL", "loud"),
    ]);
    let bad = site.bad();
    let expected = "$PH_LOG_LEVEL: [web] log_level: expected one of error, warn, info, debug, trace, \
                    got \"loud\"\n    write one of these words";
    assert_eq!(bad, expected);
    let site = site.environment(&[("PH_ROOT", "%(section)s"), ("PH_WEB__APP_COLOUR", "a ; b")]);
    let settings = site.good().settings;
    assert_eq!(settings.app["colour"], "a ; b");
    assert_eq!(settings.log_file, ph_config::LogTarget::File(site.path("web.log")));
    assert_eq!(site.warnings(), "");
}

#[test]
fn other_names_are_warned_of_and_those_of_masters_are_passed_over() {
    let site = Site::new("[web]\n").environment(&[
        ("PH_SLOT", "1"),
        ("PH_APP_X", "1"),
        ("PH_TRACE", "1"),
        ("PH_SUCCESSOR", "1"),
        ("PH_SUCCESSOR_NOTE", "1"),
        ("PH_NUMBER_WORKERZ", "1"),
        ("PH_WEB__BNID", "1"),
        ("PH_FRONT__BIND", "1"),
        ("OTHER", "1"),
    ]);
    let expected = "\
$PH_FRONT__BIND: expected the name of a setting, got one of no section (FRONT)
    did you mean PH_BIND?
$PH_NUMBER_WORKERZ: expected the name of a setting, got another one
    did you mean PH_NUMBER_WORKERS?
$PH_WEB__BNID: expected the name of a setting, got another one
    did you mean PH_WEB__BIND?";
    let mut warnings: Vec<String> = site.good().warnings.iter().map(ToString::to_string).collect();
    warnings.sort();
    assert_eq!(warnings.join("\n"), expected);
}

#[test]
fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut site = Site::new("[web]\napp_x = %(ENV_X)s\n");
    let bytes = std::ffi::OsStr::from_bytes(b"\xff");
    site.environment = [("PH_LOG_LEVEL", bytes), ("X", bytes)].into_iter().collect();
    assert_eq!(site.environment.value("X"), Some(Err(NotUtf8)));
    let bad = site.bad();
    assert!(bad.contains("$PH_LOG_LEVEL: log_level: expected UTF-8, got other bytes"), "{bad}");
    assert!(bad.contains("expected `%(ENV_X)s` to be UTF-8"), "{bad}");
}

#[test]
fn include_comes_too_late_in_a_variable() {
    let site = Site::new("[web]\n").environment(&[("PH_INCLUDE", "x.ini")]);
    assert!(site.bad().starts_with("$PH_INCLUDE: [web] include: expected files to be included"));
    assert!(Site::new("[web]\n").set("include", "x").bad().starts_with("--set include: [web]"));
}

#[test]
fn sections_of_odd_names_have_their_variables() {
    let text = "[app]\n[web-1]\n[web_1]\n[a]\nroot = /srv\nlog_path = %(root)s\n[b]\n";
    let site = Site::new(text).environment(&[
        ("PH_APP__NUMBER_WORKERS", "2"),
        ("PH_APP_NUMBER_WORKERS", "3"),
        ("PH_WEB_1__NUMBER_WORKERS", "4"),
        ("PH_A__ROOT", "/x"),
        ("PH_B__ROOT", "/y"),
    ]);
    let loaded = |name| {
        let loaded = site.read().and_then(|read| read.load(Some(name), &[]));
        let loaded = loaded.unwrap_or_else(|errors| panic!("refused: {errors}"));
        assert_eq!(loaded.warnings, [], "{name}");
        loaded.settings
    };
    let workers = ["app", "web-1", "web_1", "a"].map(|name| loaded(name).workers());
    assert_eq!(workers, [2, 4, 4, 1]);
    assert_eq!(loaded("a").log_path.to_str(), Some("/x"));
    // Nothing in [b] refers to it, so it would be an unknown key there.
    assert_eq!(loaded("b").log_path, site.path(""));
}

#[test]
fn what_is_not_needed_is_not_judged() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut site = Site::new("[web]\nnumber_workers = 2\n");
    let bytes = std::ffi::OsStr::from_bytes(b"\xff");
    site.environment = [("WEB_CONCURRENCY", bytes)].into_iter().collect();
    assert_eq!(site.good().settings.workers(), 2);
    let bad = site.file("app.ini", "[web]\n").bad();
    assert!(bad.starts_with("$WEB_CONCURRENCY: "), "{bad}");
}

#[test]
fn many_variables_and_many_sections_take_no_square_time() {
    let sections = (0..20_000).map(|n| format!("[s{n}]\nk{n} = 1\n")).collect::<String>();
    let site = Site::new(sections + "[DEFAULT]\nextra_keys = allow\n").section("s7");
    let variables: Vec<(String, String)> =
        (0..2_000).map(|n| (format!("PH_S{n}__K{n}__X"), "1".to_owned())).collect();
    let pairs: Vec<(&str, &str)> =
        variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert!(site.environment(&pairs).good().warnings.len() <= 101);
}
