//! Whole lines for fixed facts, and that nothing inside a line can leave it.

use std::time::Duration;

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

fn written(write: impl Fn(&mut String)) -> String {
    let mut text = String::new();
    write(&mut text);
    text
}

#[test]
fn a_workers_line() {
    let text = written(|into| {
        line(into, head(Role::Worker { slot: 3, generation: 2 }), "message", " key=value");
    });
    assert_eq!(
        text,
        "2026-11-23T08:00:00.123Z INFO jobexecute[4121] worker 3 gen 2: message key=value\n"
    );
}

#[test]
fn a_masters_line() {
    let text = written(|into| line(into, head(Role::Master), "message", " key=value"));
    assert_eq!(text, "2026-11-23T08:00:00.123Z INFO jobexecute[4121] master: message key=value\n");
}

#[test]
fn a_line_of_fields_alone_has_one_blank() {
    let text = written(|into| line(into, head(Role::Master), "", " key=value"));
    assert!(text.ends_with("master: key=value\n"), "{text}");
}

#[test]
fn a_clock_before_1970_is_1970() {
    let at = SystemTime::UNIX_EPOCH - Duration::from_secs(9);
    let text = written(|into| line(into, Head { at, ..head(Role::Master) }, "m", ""));
    assert!(text.starts_with("1970-01-01T00:00:00.000Z INFO "), "{text}");
}

#[test]
fn a_long_line_is_cut_at_a_character_within_the_limit() {
    for extra in 0..4 {
        let message = "ä".repeat(LINE_LIMIT);
        let name = &"nnnn"[..extra];
        let text =
            written(|into| line(into, Head { name, ..head(Role::Master) }, &message, " k=v"));
        assert!(text.ends_with("ä…[cut]\n"));
        assert!((LINE_LIMIT - 1..=LINE_LIMIT).contains(&text.len()), "{}", text.len());
    }
}

#[test]
fn the_longest_line_is_not_cut() {
    let bare = written(|into| line(into, head(Role::Master), "", "")).len();
    let longest = "x".repeat(LINE_LIMIT - bare);
    let text = written(|into| line(into, head(Role::Master), &longest, ""));
    assert!(text.len() == LINE_LIMIT && text.ends_with("xx\n"));
    let text = written(|into| line(into, head(Role::Master), &(longest.clone() + "x"), ""));
    assert!(text.len() == LINE_LIMIT && text.ends_with("x…[cut]\n"));
}

#[test]
fn controls_are_escaped_and_letters_are_not() {
    let text =
        written(|into| escape(into, "a\nb\rc\td\u{1b}[2Je\u{7f}f\u{85}g\u{2028}h\u{202e}i ü 日"));
    assert_eq!(text, r"a\nb\rc\td\u{1b}[2Je\u{7f}f\u{85}g\u{2028}h\u{202e}i ü 日");
}

#[test]
fn no_character_leaves_the_line() {
    for c in (0..=0x1_0000).filter_map(char::from_u32) {
        let text = written(|into| {
            escape(into, &c.to_string());
            value(into, &c.to_string());
            debug_value(into, &format!("\"{c}\""));
            key(into, &c.to_string());
        });
        assert!(!text.chars().any(char::is_control), "{:x}", u32::from(c));
    }
}

#[test]
fn values_that_are_not_a_word_are_quoted() {
    for (plain, shown) in [
        ("word", "word"),
        ("/tmp/x-1:2,3", "/tmp/x-1:2,3"),
        ("日本", "日本"),
        ("", r#""""#),
        ("two words", r#""two words""#),
        ("tab\tnewline\n", r#""tab\tnewline\n""#),
        ("a=b", r#""a=b""#),
        (r#"say "hi""#, r#""say \"hi\"""#),
        (r"C:\new", r#""C:\\new""#),
        (r#""a b""#, r#""\"a b\"""#),
    ] {
        assert_eq!(written(|into| value(into, plain)), shown, "{plain:?}");
    }
}

#[test]
fn a_string_literal_is_not_quoted_again() {
    for (made, shown) in [
        (r#""two words""#, r#""two words""#),
        (r#""say \"hi\"""#, r#""say \"hi\"""#),
        (r#""one" admin="true""#, r#""\"one\" admin=\"true\"""#),
        (r#""open\""#, r#""\"open\\\"""#),
        (r#"""#, r#""\"""#),
        (r#"[1, 2]"#, r#""[1, 2]""#),
        ("Some(3)", "Some(3)"),
    ] {
        assert_eq!(written(|into| debug_value(into, made)), shown, "{made:?}");
    }
}
