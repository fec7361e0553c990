//! Whole lines for fixed facts, and that any text at all gives one line of valid JSON.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;

fn head(role: Role) -> Head<'static> {
    Head {
        at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_420_800_123),
        level: tracing::Level::INFO,
        name: "jobexecute",
        pid: 4121,
        role,
    }
}

fn fields(write: impl Fn(&mut Fields)) -> Fields {
    let mut fields = Fields::new();
    write(&mut fields);
    fields
}

/// The line, after the checks every line has to pass, and what it means.
fn whole(head: Head<'_>, message: &str, fields: &Fields) -> (String, Value) {
    let (mut escaped, mut text) = (String::new(), "before".to_owned());
    escape(&mut escaped, message, LINE_LIMIT);
    line(&mut text, head, &escaped, fields);
    let text = text.strip_prefix("before").expect("what was there").to_owned();
    assert!(text.len() <= LINE_LIMIT, "{}", text.len());
    let inside = text.strip_suffix('\n').expect("a newline");
    assert!(!inside.contains(is_unsafe), "{inside:?}");
    let value = serde_json::from_str(inside).expect("valid JSON");
    (text, value)
}

#[test]
fn a_workers_line() {
    let fields = fields(|fields| {
        fields.plain("id", 17);
        fields.string("took", "12 ms");
        fields.plain("r#type", true);
    });
    let (text, _) = whole(head(Role::Worker { slot: 3, generation: 2 }), "job done", &fields);
    assert_eq!(
        text,
        concat!(
            r#"{"time":"2026-11-23T08:00:00.123Z","level":"INFO","name":"jobexecute","pid":4121,"#,
            r#""role":"worker","slot":3,"generation":2,"message":"job done","#,
            r#""fields":{"id":17,"took":"12 ms","type":true}}"#,
            "\n"
        )
    );
}

#[test]
fn a_masters_and_a_helpers_line() {
    let (text, _) = whole(head(Role::Master), "up", &Fields::new());
    assert_eq!(
        text,
        concat!(
            r#"{"time":"2026-11-23T08:00:00.123Z","level":"INFO","name":"jobexecute","pid":4121,"#,
            r#""role":"master","message":"up"}"#,
            "\n"
        )
    );
    let (_, value) = whole(head(Role::Helper("log")), "up", &Fields::new());
    assert_eq!(value["role"], "log");
}

#[test]
fn the_last_of_several_fields_with_one_name_is_kept() {
    let fields = fields(|fields| {
        fields.plain("a", 1);
        fields.string("b", "first, and longer");
        fields.plain("ab", 2);
        fields.string("b", "second");
        fields.plain("a", 3);
    });
    let (text, _) = whole(head(Role::Master), "m", &fields);
    assert!(text.ends_with("\"fields\":{\"ab\":2,\"b\":\"second\",\"a\":3}}\n"), "{text}");
}

#[test]
fn a_string_literal_is_shown_as_what_it_means() {
    for (made, meant) in [
        (r#""two words""#, "two words"),
        (r#""a\"b\\c\n\t\r\0\u{1b}\'""#, "a\"b\\c\n\t\r\0\u{1b}'"),
        (r#""bad \xff path""#, r#""bad \xff path""#),
        (r#""no \u{110000}""#, r#""no \u{110000}""#),
        (r#""no \u{""#, r#""no \u{""#),
        (r#""open\""#, r#""open\""#),
        ("Some(3)", "Some(3)"),
    ] {
        let fields = fields(|fields| fields.debug("value", made));
        let (_, value) = whole(head(Role::Master), "m", &fields);
        assert_eq!(value["fields"]["value"], meant, "{made}");
    }
}

#[test]
fn the_longest_line_is_not_cut_and_one_byte_more_is() {
    let bare = whole(head(Role::Master), "", &Fields::new()).0.len();
    for (extra, is_cut) in [(0, false), (1, true)] {
        let message = "x".repeat(LINE_LIMIT - bare + extra);
        let (text, value) = whole(head(Role::Master), &message, &Fields::new());
        assert_eq!((text.len(), value.get("cut").is_some()), (LINE_LIMIT, is_cut), "{extra}");
    }
}

#[test]
fn what_stands_last_is_lost_first() {
    let fields = fields(|fields| {
        fields.plain("first", 1);
        fields.string("second", &"\u{7f}".repeat(9000));
        fields.plain("third", 3);
    });
    let (text, value) = whole(head(Role::Master), "kept", &fields);
    assert!(text.len() > LINE_LIMIT - 6, "{}", text.len());
    assert_eq!((&value["message"], &value["cut"]), (&"kept".into(), &true.into()));
    let names: Vec<_> = value["fields"].as_object().expect("fields").keys().collect();
    assert_eq!(names, ["first", "second"]);
    let (_, value) = whole(head(Role::Master), &"ä".repeat(9000), &fields);
    assert!(value.get("fields").is_none() && value["cut"] == true);
}

#[test]
fn many_fields_and_endless_names_are_bounded() {
    let long = "\u{202e}".repeat(5000);
    let fields = fields(|fields| {
        for n in 0..10_000 {
            fields.plain(&format!("{n}{long}"), n);
        }
    });
    assert!(fields.text.len() < 3 * LINE_LIMIT);
    for role in [Role::Master, Role::Helper(Box::leak(long.clone().into_boxed_str()))] {
        let (_, value) = whole(Head { name: &long, ..head(role) }, "m", &fields);
        assert_eq!(value["cut"], true);
    }
}

/// Texts that are short or too long, of any characters and of those that are escaped.
fn texts() -> impl Strategy<Value = String> {
    let odd =
        prop::sample::select(vec!['"', '\\', '\n', '\u{1b}', '\u{2028}', 'ä', '日', '🦀', 'u']);
    let odd = prop::collection::vec(odd, 0..200).prop_map(String::from_iter);
    let piece = prop_oneof![any::<String>(), odd];
    (piece, prop_oneof![8 => 1..2usize, 2 => 1..2000usize]).prop_map(|(piece, n)| piece.repeat(n))
}

proptest! {
    #[test]
    fn any_event_is_a_line_of_valid_json_that_means_the_same(
        message in texts(),
        given in prop::collection::vec((texts(), texts(), any::<bool>()), 0..6),
        number in any::<i64>(),
        slot in any::<u32>(),
    ) {
        let mut expected = Map::new();
        let mut fields = Fields::new();
        for (name, value, is_debug) in &given {
            // Names too long to be told from each other are another test's.
            let name: String = name.chars().filter(|c| *c != 'r').take(100).collect();
            if *is_debug {
                fields.debug(&name, &format!("{value:?}"));
            } else {
                fields.string(&name, value);
            }
            expected.insert(name, value.clone().into());
        }
        fields.plain("number", number);
        expected.insert("number".to_owned(), number.into());
        let (text, value) =
            whole(head(Role::Worker { slot, generation: 1 }), &message, &fields);
        let shown = value["message"].as_str().expect("a message");
        prop_assert!(message.starts_with(shown));
        if value.get("cut").is_none() {
            prop_assert_eq!(shown, message);
            prop_assert_eq!(&value["fields"], &Value::Object(expected));
        } else {
            prop_assert!(text.len() > LINE_LIMIT / 2, "cut too early: {}", text.len());
        }
    }
}
