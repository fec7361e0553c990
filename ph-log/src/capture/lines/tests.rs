//! Lines of harmless, long, broken and hostile text.

use proptest::prelude::*;

use super::*;

const OUTPUT: SourceKind =
    SourceKind::Output { slot: 3, generation: 2, pid: 9, stream: StandardStream::Stdout };
const RECORDS: SourceKind = SourceKind::Records { slot: 3, generation: 2, pid: 9 };

/// The stamp of 2026-11-23T08:00:00.123Z.
const MILLIS: u64 = 1_795_420_800_123;

fn manner(format: Format, line_max: usize) -> Manner {
    Manner::new("job", format, line_max)
}

/// Forms all of a stream as a log process would that sees it in such pieces, each with what was
/// left of the one before.
fn form(manner: &Manner, kind: SourceKind, pieces: &[&[u8]]) -> String {
    let (before, after) = (manner.before(MILLIS), manner.after(kind));
    let former = Former { manner, kind, before: &before, after: &after };
    let (mut lines, mut carry, mut left) = (Vec::new(), Carry::default(), Vec::new());
    for (at, piece) in pieces.iter().enumerate() {
        left.extend_from_slice(piece);
        let tail = if at + 1 == pieces.len() { Tail::End } else { Tail::Keep };
        let formed = former.form(&left, carry, tail, usize::MAX, &mut lines);
        left.drain(..formed.taken);
        carry = formed.carry;
    }
    assert!(left.is_empty());
    String::from_utf8(lines).expect("text")
}

fn text(kind: SourceKind, input: &[u8]) -> String {
    form(&manner(Format::Text, 64), kind, &[input])
}

#[test]
fn a_worker_cannot_forge_a_head_or_reach_the_terminal() {
    let input = b"\x1b]0;pwn\x07\r\n2026 INFO job[1] master: fake\x00\t\xff\n\xe2\x80\xaeabc \\x41 \xc3\xa9\n";
    let head = "2026-11-23T08:00:00.123Z INFO job[9] worker 3 gen 2 stdout: ";
    let expected = [
        "\\u{1b}]0;pwn\\u{7}",
        "2026 INFO job[1] master: fake\\u{0}\\t\\xff",
        "\\u{202e}abc \\x41 \u{e9}",
    ];
    let expected: String = expected.iter().map(|text| format!("{head}{text}\n")).collect();
    assert_eq!(text(OUTPUT, input), expected);
    let json = form(&manner(Format::Json, 64), OUTPUT, &[input]);
    let first = r#"{"time":"2026-11-23T08:00:00.123Z","level":"INFO","name":"job","pid":9,"role":"worker","slot":3,"generation":2,"stream":"stdout","message":"\u001b]0;pwn\u0007"}"#;
    assert_eq!(json.lines().next(), Some(first));
    let record = text(RECORDS, b"W a\x1b[2J\nE\nINFO x\n");
    let head = "2026-11-23T08:00:00.123Z";
    let expected = format!(
        "{head} WARN job[9] worker 3 gen 2: a\\u{{1b}}[2J\n{head} INFO job[9] worker 3 gen 2: E\n\
         {head} INFO job[9] worker 3 gen 2: INFO x\n"
    );
    assert_eq!(record, expected);
}

#[test]
fn a_fragment_of_json_is_written_anew_and_anything_else_is_a_message() {
    let json = manner(Format::Json, 16 << 10);
    let one = |text: &str| form(&json, RECORDS, &[format!("E {text}\n").as_bytes()]);
    let head = r#"{"time":"2026-11-23T08:00:00.123Z","level":"ERROR","name":"job","pid":9,"role":"worker","slot":3,"generation":2,"message":"#;
    for (text, rest) in [
        (r#"{ "message" : "a\u001b\"b" }"#, r#""a\u001b\"b"}"#),
        (
            r#"{"message":"m","fields":{"id":17,"took":"12 ms","deep":[null,{"a":true}]}}"#,
            r#""m","fields":{"deep":[null,{"a":true}],"id":17,"took":"12 ms"}}"#,
        ),
        (r#"{"message":"m","fields":{}}"#, r#""m"}"#),
        (r#"{"message":"m","role":"master"}"#, r#""{\"message\":\"m\",\"role\":\"master\"}"}"#),
        (r#"{"message":7}"#, r#""{\"message\":7}"}"#),
        (r#"{"message":"m","fields":[]}"#, r#""{\"message\":\"m\",\"fields\":[]}"}"#),
        (r#""},{"#, r#""\"},{"}"#),
    ] {
        assert_eq!(one(text), format!("{head}{rest}\n"), "{text}");
    }
}

#[test]
fn a_long_line_is_cut_between_characters_and_goes_on() {
    let head = "2026-11-23T08:00:00.123Z INFO job[9] worker 3 gen 2 stdout: ";
    let long = "x".repeat(63) + "\u{e9}" + &"y".repeat(62);
    let cut = format!("{head}{}…[cut]\n{head}\u{e9}{}\n", "x".repeat(63), "y".repeat(62));
    assert_eq!(text(OUTPUT, format!("{long}\n").as_bytes()), cut);
    assert_eq!(text(OUTPUT, long.as_bytes()), cut);
    // A line of just the limit is whole, however its end comes.
    let whole = format!("{head}{}\n", "x".repeat(64));
    assert_eq!(text(OUTPUT, ("x".repeat(64) + "\n").as_bytes()), whole);
    let pieces: [&[u8]; 2] = [&[b'x'; 64], b"\n"];
    assert_eq!(form(&manner(Format::Text, 64), OUTPUT, &pieces), whole);
    // The rest of a record is of the same level, and no record of its own.
    let record = "E ".to_owned() + &"z".repeat(62) + "W rest\n";
    let lines = text(RECORDS, record.as_bytes());
    let levels: Vec<_> = lines.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(levels, ["ERROR", "ERROR"], "{lines}");
    assert!(lines.ends_with(": W rest\n"), "{lines}");
}

#[test]
fn the_end_of_a_line_that_was_ended_here_is_no_line() {
    let manner = manner(Format::Text, 64);
    let (before, after) = (manner.before(MILLIS), manner.after(OUTPUT));
    let former = Former { manner: &manner, kind: OUTPUT, before: &before, after: &after };
    for end in [&b"\n"[..], b"\r\n"] {
        let mut lines = Vec::new();
        let formed = former.form(b"prompt", Carry::default(), Tail::End, usize::MAX, &mut lines);
        assert_eq!((formed.taken, formed.lines, formed.is_cut), (6, 1, false));
        let formed = former.form(end, formed.carry, Tail::Keep, usize::MAX, &mut lines);
        assert_eq!((formed.taken, formed.lines, formed.carry), (end.len(), 0, Carry::default()));
    }
}

#[test]
fn a_level_and_a_carry_are_kept_as_numbers() {
    for grade in Grade::ALL {
        let carry = Carry(Some(grade));
        assert_eq!(Carry::from_word(carry.to_word()), carry);
    }
    assert_eq!(Carry::from_word(0), Carry::default());
    assert_eq!(Carry::from_word(77), Carry::default());
}

#[test]
fn the_beginning_of_a_character_at_the_end_is_seen() {
    for (bytes, open) in [
        (&b""[..], 0),
        (b"abc", 0),
        ("\u{e9}".as_bytes(), 0),
        (b"ab\xc3", 1),
        (b"ab\xe2\x80", 2),
        (b"ab\xf0\x9f\x98", 3),
        (b"ab\xff", 0),
        ("\u{1f600}".as_bytes(), 0),
        (b"\x80\x80", 0),
    ] {
        assert_eq!(open_character(bytes), open, "{bytes:?}");
    }
}

proptest! {
    /// What is text is escaped as a message is; no piece of a stream changes its lines; and JSON
    /// gives back what was printed.
    #[test]
    fn any_text_is_escaped_as_in_a_message(lines in prop::collection::vec("\\PC{0,40}|[\\x00-\\u{2100}]{0,40}", 0..6), cut in 0..200_usize) {
        let lines: Vec<String> =
            lines.iter().map(|line| line.replace('\n', " ").trim_end_matches('\r').to_owned()).collect();
        let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let cut = cut.min(input.len());
        let pieces = [&input.as_bytes()[..cut], &input.as_bytes()[cut..]];
        let plain = form(&manner(Format::Text, 16 << 10), OUTPUT, &pieces);
        let head = "2026-11-23T08:00:00.123Z INFO job[9] worker 3 gen 2 stdout: ";
        let mut expected = String::new();
        for line in &lines {
            expected.push_str(head);
            let mut text = String::new();
            crate::format::escape(&mut text, line);
            expected.push_str(&text);
            expected.push('\n');
        }
        prop_assert_eq!(plain, expected);
        let json = form(&manner(Format::Json, 16 << 10), OUTPUT, &pieces);
        prop_assert_eq!(json.lines().count(), lines.len());
        for (json, line) in json.lines().zip(&lines) {
            prop_assert!(!json.contains(crate::format::is_unsafe), "{}", json);
            let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
            prop_assert_eq!(value["message"].as_str(), Some(line.as_str()));
        }
    }

    /// Whatever the bytes are, a line is a line, valid and harmless, and none is lost.
    #[test]
    fn any_bytes_become_lines(input in prop::collection::vec(any::<u8>(), 0..2000), json in any::<bool>(), record in any::<bool>()) {
        let format = if json { Format::Json } else { Format::Text };
        let kind = if record { RECORDS } else { OUTPUT };
        let lines = form(&manner(format, 64), kind, &[&input]);
        for line in lines.lines() {
            prop_assert!(!line.contains(crate::format::is_unsafe), "{}", line);
            if json {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                prop_assert_eq!(value["role"].as_str(), Some("worker"));
            } else {
                prop_assert!(line.contains("Z ") && line.contains(" job[9] worker 3 gen 2"), "{}", line);
            }
        }
    }

    /// As many bytes as were taken, and the same room, give the same lines again: that is what a
    /// batch that was cut off is told by.
    #[test]
    fn what_was_formed_can_be_formed_again(input in prop::collection::vec(prop_oneof![5 => any::<u8>(), 1 => Just(b'\n')], 1..2000), room in 0..4000_usize, limit in 64..300_usize) {
        let manner = manner(Format::Text, limit);
        let (before, after) = (manner.before(MILLIS), manner.after(OUTPUT));
        let former = Former { manner: &manner, kind: OUTPUT, before: &before, after: &after };
        let mut first = Vec::new();
        let formed = former.form(&input, Carry(Some(Grade::Info)), Tail::End, room, &mut first);
        let tail = if formed.is_cut { Tail::Cut } else { Tail::End };
        let mut again = Vec::new();
        let same = former.form(&input[..formed.taken], Carry(Some(Grade::Info)), tail, usize::MAX, &mut again);
        prop_assert_eq!(first, again);
        prop_assert_eq!(formed, same);
    }
}
