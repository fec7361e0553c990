//! What workers print, made harmless for eyes and for programs.
//!
//! The one rule for bytes that are no text: what is not UTF-8 becomes `\xNN`, byte by byte, and
//! control characters are escaped as they are in messages (`format`). A backslash stays as it is,
//! so an escape is for eyes: a worker can print the four characters `\xff` as well. In JSON the
//! same text stands in the string.

use std::fmt::Write as _;

use serde_json::Value;

use crate::format::{is_unsafe, push_escaped};

/// What stands before the text of a line in JSON.
pub(super) const MESSAGE: &str = ",\"message\":\"";

/// Appends text for eyes: control characters and bytes that are no text are escaped.
pub(super) fn push_text(into: &mut Vec<u8>, text: &[u8]) {
    push_safe(
        into,
        text,
        |byte| byte.wrapping_sub(0x20) < 0x5f,
        |into, c| {
            let mut escaped = String::new();
            match is_unsafe(c) {
                true => push_escaped(&mut escaped, c),
                false => escaped.push(c),
            }
            into.extend_from_slice(escaped.as_bytes());
        },
        "\\x",
    );
}

/// As [`push_text`], within the quotes of a JSON string.
pub(super) fn push_json(into: &mut Vec<u8>, text: &[u8]) {
    let is_plain = |byte: u8| byte.wrapping_sub(0x20) < 0x5f && byte != b'"' && byte != b'\\';
    push_safe(
        into,
        text,
        is_plain,
        |into, c| {
            let mut escaped = String::new();
            match c {
                '"' => escaped.push_str("\\\""),
                '\\' => escaped.push_str("\\\\"),
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\t' => escaped.push_str("\\t"),
                // All of these are of the basic plane.
                c if is_unsafe(c) => drop(write!(escaped, "\\u{:04x}", u32::from(c))),
                c => escaped.push(c),
            }
            into.extend_from_slice(escaped.as_bytes());
        },
        "\\\\x",
    );
}

/// Copies runs of plain bytes as they are, and has the rest escaped.
fn push_safe(
    into: &mut Vec<u8>,
    text: &[u8],
    is_plain: impl Fn(u8) -> bool,
    escape: impl Fn(&mut Vec<u8>, char),
    invalid: &str,
) {
    // The usual line is plain; this loop has no exit, so that the compiler makes wide steps of it.
    if text.iter().fold(true, |all, &byte| all & is_plain(byte)) {
        into.extend_from_slice(text);
        return;
    }
    for chunk in text.utf8_chunks() {
        let mut rest = chunk.valid();
        loop {
            let plain = rest.bytes().position(|byte| !is_plain(byte)).unwrap_or(rest.len());
            into.extend_from_slice(&rest.as_bytes()[..plain]);
            rest = &rest[plain..];
            let Some(c) = rest.chars().next() else { break };
            escape(into, c);
            rest = &rest[c.len_utf8()..];
        }
        for byte in chunk.invalid() {
            into.extend_from_slice(format!("{invalid}{byte:02x}").as_bytes());
        }
    }
}

/// Appends `,"message":…,"fields":…` if the text is a record: an object with these, its level, which was
/// read already, and whether it was cut.
pub(super) fn push_fragment(into: &mut Vec<u8>, text: &[u8]) -> bool {
    let Ok(Value::Object(mut parts)) = serde_json::from_slice(text) else { return false };
    let (message, fields) = (parts.remove("message"), parts.remove("fields"));
    let is_cut = parts.remove("cut") == Some(Value::Bool(true));
    parts.remove("level");
    let (Some(Value::String(message)), true) = (message, parts.is_empty()) else { return false };
    let fields = match fields {
        None => None,
        Some(Value::Object(fields)) => Some(fields),
        Some(
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_),
        ) => {
            return false;
        }
    };
    into.extend_from_slice(MESSAGE.as_bytes());
    push_json(into, message.as_bytes());
    into.push(b'"');
    if let Some(fields) = fields.filter(|fields| !fields.is_empty()) {
        into.extend_from_slice(b",\"fields\":");
        push_value(into, &Value::Object(fields));
    }
    if is_cut {
        into.extend_from_slice(b",\"cut\":true");
    }
    true
}

/// Appends a value with every string escaped for eyes. The parser bounds how deep it is.
fn push_value(into: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            into.extend_from_slice(value.to_string().as_bytes());
        }
        Value::String(text) => {
            into.push(b'"');
            push_json(into, text.as_bytes());
            into.push(b'"');
        }
        Value::Array(values) => {
            into.push(b'[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    into.push(b',');
                }
                push_value(into, value);
            }
            into.push(b']');
        }
        Value::Object(fields) => {
            into.push(b'{');
            for (at, (name, value)) in fields.iter().enumerate() {
                into.extend_from_slice(if at > 0 { b",\"" } else { b"\"" });
                push_json(into, name.as_bytes());
                into.extend_from_slice(b"\":");
                push_value(into, value);
            }
            into.push(b'}');
        }
    }
}
