//! Whatever the text and whatever the value: an edit is refused, or it is that edit and no other.
//!
//! The parser is the judge here, by a comparison of its own, so that a mistake in `verify` shows.

use proptest::prelude::*;
use toml_edit::{DocumentMut, TableLike};

use super::{Edit, EditError, edit};
use crate::document::{Entry, Section};
use crate::format::Format;
use crate::ini;

/// All values of an INI text as the parser sees them, in order; nothing if it finds a fault.
fn values(text: &str) -> Option<Vec<(String, String, String)>> {
    let (document, faults) = ini::parse(text);
    let sections = std::iter::once(&document.defaults).chain(&document.sections);
    let entry = |section: &Section, entry: &Entry| {
        let value = entry.value.as_text().expect("INI has only text");
        (section.name.clone(), entry.key.clone(), value.to_owned())
    };
    let all = sections.flat_map(|s| s.entries.iter().map(move |e| entry(s, e)));
    faults.is_empty().then(|| all.collect())
}

/// INI made of lines that mean something, most of it without faults.
fn ini_text() -> impl Strategy<Value = String> {
    let end = prop_oneof![6 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\r")];
    let line = prop_oneof![
        3 => Just("{key} = 1".to_owned()),
        3 => "\\{key\\}( {0,8}|\t)(=|:)( {0,2}|\t)[ab#;=\\[ ]{0,5}",
        3 => " {1,4}[ab=:\\[\\]#;]{1,4} {0,2}",
        2 => "(#|;)[a-c ]{0,4}",
        2 => " {0,3}",
        1 => " {0,2}\\[s[0-3]\\][a ]{0,2}",
        1 => Just("[DEFAULT]".to_owned()),
        1 => " {1,3}\\{key\\} = x ; y",
    ];
    let line = (line, end);
    let last = prop_oneof![Just(String::new()), Just("{key} = last".to_owned())];
    (prop::collection::vec(line, 0..14), last).prop_map(|(lines, last)| {
        let mut text = "[s]\n".to_owned();
        for (number, (line, end)) in lines.into_iter().enumerate() {
            // Every key has a name of its own, as a file without faults has it.
            text += &line.replace("{key}", &format!("Key{number}"));
            text += end;
        }
        text + &last.replace("{key}", "last")
    })
}

fn section() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("s"), 1 => Just("s1"), 1 => Just("DEFAULT"), 1 => Just("new ]one")]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![5 => "key[0-9]", 2 => Just("last".to_owned()), 1 => Just("other".to_owned())]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]{1,6}",
        "[a-z=:\\[\\]%,]{0,6}(\n[a-z=:\\[]{0,3}){0,3}",
        "[ab;# \n\r\u{85}]{0,6}",
        any::<String>()
    ]
}

/// Whether ConfigParser can hold this value.
fn fits(value: &str) -> bool {
    let lines: Vec<&str> = value.split('\n').collect();
    !value.contains(['\r', '\0'])
        && lines.iter().all(|line| line.trim_matches(ini::is_space) == *line)
        && !value.ends_with('\n')
        && lines.iter().skip(1).all(|line| !line.starts_with(['#', ';']))
}

/// The comment lines of a text, sorted.
fn comments(text: &str) -> Vec<&str> {
    let lines = text.split(['\n', '\r']).map(|line| line.trim_matches(ini::is_space));
    let mut all: Vec<&str> = lines.filter(|line| line.starts_with(['#', ';'])).collect();
    all.sort_unstable();
    all
}

fn printable(error: &EditError) -> bool {
    let shown = error.to_string();
    shown.lines().count() == 2 && shown.chars().all(|c| c == '\n' || !c.is_control())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_ini_edit_changes_one_value(
        text in ini_text(),
        section in section(),
        key in key(),
        value in prop::option::weighted(0.8, value()),
    ) {
        let request = Edit { section, key: &key, value: value.as_deref(), keep_comment: false };
        let before = values(&text);
        let old = before.as_ref().and_then(|all| {
            all.iter().find(|(s, k, _)| s == section && *k == key).map(|it| it.2.clone())
        });
        let possible = before.is_some()
            && value.as_deref().map_or(old.is_some(), fits);
        let after = match edit(&text, Format::Ini, &request) {
            Ok(after) => after,
            Err(error) => {
                prop_assert!(printable(&error), "{error:?}");
                prop_assert!(!possible, "{error}");
                return Ok(());
            }
        };
        prop_assert!(possible, "{after:?}");
        let mut wanted = before.unwrap_or_default();
        let mut found = values(&after).expect("the edit makes no fault");
        let is_target = |s: &str, k: &str| s == section && k == key;
        match (&value, old) {
            (Some(value), Some(_)) => {
                for (s, k, v) in &mut wanted {
                    if is_target(s, k) {
                        v.clone_from(value);
                    }
                }
            }
            (Some(value), None) => {
                let new = found.iter().find(|(s, k, _)| is_target(s, k)).map(|it| it.2.as_str());
                prop_assert_eq!(new, Some(value.as_str()));
                found.retain(|(s, k, _)| !is_target(s, k));
            }
            (None, _) => wanted.retain(|(s, k, _)| !is_target(s, k)),
        }
        prop_assert_eq!(found, wanted);
        let here = comments(&after);
        prop_assert!(comments(&text).iter().all(|comment| here.contains(comment)), "{after:?}");
    }

    #[test]
    fn an_ini_edit_can_be_taken_back(
        text in ini_text(),
        row in "(  )?key2( {1,5}(=|:) |=|: )",
        old in "[a-z]([a-z;# ]{0,3}[a-z])?",
        comment in prop_oneof![Just(""), Just(" ;"), Just("  ; why")],
        new in value(),
    ) {
        let keep_comment = !comment.is_empty();
        let old = if keep_comment { old.replace(';', "#") } else { old };
        let text = text.replace("[s]\n", &format!("[s]\n{row}{old}{comment}\n\n[s9]\n"));
        let with = |value| Edit { section: "s", key: "KEY2", value, keep_comment };
        let Ok(after) = edit(&text, Format::Ini, &with(Some(&new))) else { return Ok(()) };
        prop_assert!(after.contains(comment.trim()), "{after:?}");
        let back = edit(&after, Format::Ini, &with(Some(&old)));
        let without = edit(&after, Format::Ini, &with(None)).expect("the key is there");
        prop_assert!(without.contains(comment.trim()), "{without:?}");
        if keep_comment && (new.is_empty() || new.contains('\n')) {
            // The comment had to move.
            prop_assert!(back.is_ok_and(|back| back.contains(comment.trim())), "{after:?}");
        } else {
            prop_assert_eq!(back, Ok(text));
        }
    }

    #[test]
    fn no_text_and_no_name_panics(
        text in any::<String>(),
        lines in ini_text(),
        section in any::<String>(),
        key in any::<String>(),
        value in prop::option::of(any::<String>()),
        keep_comment: bool,
    ) {
        let wanted = Edit { section: &section, key: &key, value: value.as_deref(), keep_comment };
        for text in [&text, &lines, &format!("[s]\n{text}"), &format!("a = '{text}'")] {
            for format in [Format::Ini, Format::Toml] {
                if let Err(error) = edit(text, format, &wanted) {
                    prop_assert!(printable(&error), "{error:?}");
                    prop_assert!(!error.mend.contains("bug in ph"), "{error} {text:?}");
                }
            }
        }
    }

    #[test]
    fn a_toml_edit_changes_one_value(
        text in toml_text(),
        section in prop_oneof![3 => Just("s"), 1 => Just("t"), 1 => Just("new one")],
        key in toml_key(),
        value in prop::option::weighted(0.8, value()),
    ) {
        let request = Edit { section, key, value: value.as_deref(), keep_comment: false };
        let wanted = key.rsplit(['.', '_']).next().unwrap_or(key).to_lowercase();
        let is_target = |path: &str| {
            let Some(path) = path.strip_prefix(&format!("{section}/")) else { return false };
            match path.split_once('/') {
                Some(("environment", name)) => key == format!("environment.{name}"),
                Some((_, name)) => key.starts_with("app") && name == wanted,
                None => [&wanted, &format!("app_{wanted}")].contains(&&path.to_lowercase()),
            }
        };
        match edit(&text, Format::Toml, &request) {
            Err(error) => {
                prop_assert!(printable(&error), "{error:?}");
                prop_assert!(!error.mend.contains("bug in ph"), "{error} {text:?}");
                let is_there = toml_values(&text).iter().any(|(path, _)| is_target(path));
                prop_assert!(!is_there || key == "command", "{error} {text}");
            }
            Ok(after) => {
                let (mut old, mut new) = (toml_values(&text), toml_values(&after));
                let found: Vec<_> = new.extract_if(.., |(path, _)| is_target(path)).collect();
                old.retain(|(path, _)| !is_target(path));
                // The order of tables is that of their first headers, of which one may be new.
                old.sort();
                new.sort();
                prop_assert_eq!(old, new);
                prop_assert_eq!(found.len(), usize::from(value.is_some()), "{:?}", after);
                if let (Some(value), false) = (&value, matches!(key, "bind" | "command")) {
                    prop_assert_eq!(&found[0].1, value);
                }
                prop_assert!(!text.contains("\r\n") || !after.replace("\r\n", "").contains('\n'));
                let again = edit(&after, Format::Toml, &request);
                match value {
                    Some(_) => prop_assert_eq!(again.as_deref(), Ok(after.as_str())),
                    None => prop_assert!(again.is_err()),
                }
                let here = comments(&after);
                let kept = comments(&text).iter().all(|comment| here.contains(comment));
                prop_assert!(kept, "{after:?}");
            }
        }
    }
}

/// All values of a TOML text with their paths, a string as what it means.
fn toml_values(text: &str) -> Vec<(String, String)> {
    fn collect(table: &dyn TableLike, path: &str, all: &mut Vec<(String, String)>) {
        for (key, item) in table.iter() {
            let path = format!("{path}{key}");
            match (item.as_table_like(), item.as_value()) {
                (Some(table), _) => collect(table, &format!("{path}/"), all),
                (None, Some(value)) => {
                    let plain = value.clone().decorated("", "").to_string();
                    all.push((path, value.as_str().map_or(plain, str::to_owned)));
                }
                (None, None) => panic!("no other items are made here"),
            }
        }
    }
    let document: DocumentMut = text.parse().expect("this is TOML");
    let mut all = Vec::new();
    collect(document.as_table(), "", &mut all);
    all
}

fn toml_key() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "N",
        "text",
        "bind",
        "command",
        "environment.A",
        "app.b",
        "app_c",
        "new",
        "a b",
    ])
}

/// TOML made of lines that fit together, with either line end.
fn toml_text() -> impl Strategy<Value = String> {
    let section = [
        "n = 1 # one",
        "  text   = 'x'",
        "bind = [\n  'a', # first\n  # second\n  'b',\n]",
        "command = ['a', \"b\"]",
        "# why\napp_C = 'old'",
        "ratio = 0.5",
        "",
    ];
    let tables = ["", "environment = { A = '1', B = '2' }", "environment.A = '1'"];
    let below = ["", "[s.app]\nb = 'x'", "\n[s.app] # own\n\n# end", "[t]\n", "[u.app]\nb = 'y'"];
    (
        prop::sample::subsequence(section.to_vec(), 0..=section.len()),
        prop::sample::select(tables.to_vec()),
        prop::sample::select(below.to_vec()),
        prop::sample::select(vec![
            "[s]",
            "[s] # the service",
            "[DEFAULT]\nn = 3\n\n[s]",
            "[t.environment]\nA = '0'\n[s]",
        ]),
        prop::sample::select(vec!["\n", "\r\n"]),
        any::<bool>(),
    )
        .prop_map(|(mut lines, table, below, head, end, closed)| {
            lines.insert(0, head);
            lines.extend([table, below]);
            let text = lines.join("\n") + if closed { "\n" } else { "" };
            text.replace('\n', end)
        })
}

#[test]
fn a_large_file_is_edited_in_linear_time() {
    let started = std::time::SystemTime::now();
    for format in [Format::Ini, Format::Toml] {
        let mut text = "[s]\n".to_owned();
        for number in 0..50_000 {
            text += &format!("key{number:06} = 12345\n");
        }
        text += "[t]\n";
        assert!(text.len() > 900_000, "{}", text.len());
        for (key, value) in [("key049999", Some("2")), ("new", Some("3")), ("key000000", None)] {
            let wanted = Edit { section: "s", key, value, keep_comment: true };
            let after = edit(&text, format, &wanted).expect("a plain edit");
            assert_ne!(after, text);
        }
    }
    // Square, it would take minutes.
    let taken = started.elapsed().unwrap_or_default();
    assert!(taken.as_secs() < 60, "{taken:?}");
}
