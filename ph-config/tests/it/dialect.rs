//! ConfigParser's dialect. Each expected value is what Python 3.11 answers for the same text
//! (default arguments), except where a test says that it breaks with Python.

use std::collections::BTreeMap;

use crate::Site;

/// The application's keys of a section named `s`, which show values as they were read.
fn app(text: &str) -> BTreeMap<String, String> {
    Site::new(text).section("s").set("extra_keys", "allow").good().settings.app
}

fn value(text: &str) -> String {
    app(&format!("[s]\n{text}")).remove("x").expect("the text sets app_x")
}

#[test]
fn values() {
    for (text, expected) in [
        ("app_x=1", "1"),
        ("app_x :1 ", "1"),
        ("APP_X = a = b : c", "a = b : c"),
        ("app_x : a = b", "a = b"),
        ("app_x =", ""),
        ("app_x = a ; b", "a ; b"),
        ("app_x = a # b", "a # b"),
        ("app_x = \"q\"", "\"q\""),
        ("app_x = 100%%", "100%"),
        ("app_x = %%(app_y)s", "%(app_y)s"),
        ("\x1capp_x\u{a0}=\u{3000}1\u{2028}\x1f", "1"),
        ("  app_x = 1", "1"),
    ] {
        assert_eq!(value(text), expected, "{text:?}");
    }
}

#[test]
fn continuation_lines() {
    for (text, expected) in [
        ("app_x = a\n  b\n\tc", "a\nb\nc"),
        ("app_x =\n  b", "\nb"),
        ("app_x = a\n\n  b\n\n\n", "a\n\nb"),
        ("app_x = a\n# gone\n  ; gone\n  b", "a\nb"),
        ("app_x = a\n  [t]\n  app_y = 1", "a\n[t]\napp_y = 1"),
        ("  app_x = a\n   b\n  app_y = c", "a\nb"),
        // Columns are characters: one ideographic space is less than two blanks.
        ("\u{3000}app_x = a\n  b", "a\nb"),
        ("app_x = a\n# c\n\n#c\n", "a"),
    ] {
        assert_eq!(value(text), expected, "{text:?}");
    }
    assert_eq!(app("[s]\n  app_x = a\n  app_y = b\n").len(), 2);
    // A header closes the value above it.
    assert_eq!(app("[t]\napp_x = a\n[s]\n  app_x = b\n")["x"], "b");
}

#[test]
fn headers() {
    for (text, name) in [
        ("[s] ; comment", "s"),
        ("[s]x", "s"),
        ("[s] = 1", "s"),
        ("[a]b]", "a]b"),
        ("[]]", "]"),
        ("[ s ]", " s "),
        ("  [s]", "s"),
    ] {
        assert_eq!(Site::new(format!("{text}\n")).sections(), [name], "{text:?}");
    }
    assert!(Site::new("[s]\n[]\n").bad().contains("app.ini:2: expected a section header"));
    assert!(Site::new("[s]\n[t\nnumber_worker = 3\n").bad().lines().count() == 2);
}

#[test]
fn default_may_come_late_and_more_than_once() {
    let text = "[s]\napp_x = %(app_y)s\n[DEFAULT]\napp_y = 1\n[DEFAULT]\napp_z = 2\n";
    assert_eq!(app(text).into_values().collect::<Vec<_>>(), ["1", "1", "2"]);
}

#[test]
fn the_section_wins_over_default() {
    let text = "[DEFAULT]\napp_x = %(app_y)s\napp_y = 1\n[s]\napp_y = 2\n";
    assert_eq!(app(text)["x"], "2");
}

#[test]
fn repeated_sections_and_keys_name_both_lines() {
    let text = "[s]\na = 1\n[t]\n[s]\nb = 1\n[DEFAULT]\nc = 1\nC = 2\n  d = 3\n";
    let report = Site::new(text).section("t").set("extra_keys", "allow").bad();
    assert_eq!(
        report,
        "app.ini:4: section [s] is there twice, first in line 1\n    join the two, or rename one\n\
         app.ini:8: [DEFAULT] c: this key is there twice, first in line 7\n    \
         keep one of the two lines"
    );
}

#[test]
fn lines_that_are_none() {
    let text = "number_workers = 1\nx\n[s]\nnumber_workers\n= 3\n: 3\n[t]\n";
    let report = Site::new(text).section("s").bad();
    let places: Vec<&str> = report.lines().filter(|line| line.starts_with("app.ini")).collect();
    assert_eq!(
        places,
        [
            "app.ini:1: expected a section header, got \"number_workers\"",
            "app.ini:4: expected `key = value`, got \"number_workers\"",
            "app.ini:5: expected a key before the value \"3\"",
            "app.ini:6: expected a key before the value \"3\"",
        ]
    );
}

/// A deliberate break with Python 3: what Python 2 cut off is cut off with a warning.
#[test]
fn comments_after_typed_values() {
    let text = "[s]\nnumber_workers = 3 ; three\nbind = :80 ; a\n  :81 ;b\nlog_file = a;b\n\
                root = /srv ; disk\npidfile = %(root)s/x.pid\ncommand = a ; b\napp_x = a ; b\n";
    let site = Site::new(text);
    let settings = site.good().settings;
    assert_eq!(settings.workers(), 3);
    assert_eq!(settings.bind.len(), 2);
    assert_eq!(settings.pidfile.to_str(), Some("/srv/x.pid"));
    assert_eq!(settings.command, ["a", ";", "b"]);
    assert_eq!(settings.app["x"], "a ; b");
    assert_eq!(site.warnings().matches("counts as a comment").count(), 3);
    assert!(site.warnings().starts_with("app.ini:2: [s] number_workers: expected a value only"));
    // Nobody comments a flag.
    assert!(
        Site::new("[s]").set("number_workers", "3 ; x").bad().contains("--set number_workers:")
    );
}
