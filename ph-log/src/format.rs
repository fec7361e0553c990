//! The text of a line. Pure: time, pid and role come in as data. The other format is in `json`.
//!
//! ```text
//! 2026-11-23T08:00:00.123Z INFO jobexecute[4121] worker 3 gen 2: message key=value
//! ```
//!
//! Invariants:
//!
//! * A line has exactly one newline, at its end, and is at most [`LINE_LIMIT`] bytes long with it.
//!   A longer one is cut at a character and ends in [`CUT`].
//! * Whatever would end a line, move the cursor or turn the reading direction is escaped: the C0
//!   and C1 controls, DEL, the Unicode line and paragraph separators and the marks of
//!   bidirectional text. A tab is a control too: it becomes `\t`, so that no value can imitate the
//!   columns of a table.
//! * A value that is not one plain word is in double quotes, with `"` and `\` escaped inside. What
//!   `Debug` made a string literal already is not quoted a second time.
//! * In a message a backslash stays as it is: a message is for eyes, fields are for programs.

use std::fmt::{self, Write};
use std::time::SystemTime;

use crate::identity::Role;

pub(crate) mod json;

/// The longest line, its newline included, in bytes.
pub(crate) const LINE_LIMIT: usize = 16 * 1024;

/// The end of a line that was cut.
const CUT: &str = "…[cut]";

/// How an event becomes a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// For eyes: `2026-11-23T08:00:00.123Z INFO jobexecute[4121] worker 3 gen 2: job done id=17`.
    #[default]
    Text,
    /// For programs, one JSON object a line. The names and their order are stable:
    ///
    /// ```json
    /// {"time":"2026-11-23T08:00:00.123Z","level":"INFO","name":"jobexecute","pid":4121,"role":"worker","slot":3,"generation":2,"message":"job done","fields":{"id":17,"took":"12 ms"}}
    /// ```
    ///
    /// `role` is `master`, `worker` (only then with `slot` and `generation`) or a helper's name.
    /// `fields` is left out if there are none. Numbers and truth values stand as such, everything
    /// else is a string. Of fields with the same name the last is kept. A line that would be longer
    /// than 16 KiB loses its last fields or the end of its message and has `"cut":true` at its end.
    Json,
}

impl Format {
    /// Appends a whole line the log writes about itself.
    pub(crate) fn notice(
        self,
        into: &mut String,
        head: Head<'_>,
        message: &str,
        fields: &[(&str, &str)],
    ) {
        let mut text = String::new();
        match self {
            Format::Text => {
                for (name, shown) in fields {
                    key(&mut text, name);
                    value(&mut text, shown);
                }
                line(into, head, message, &text);
            }
            Format::Json => {
                let mut shown = json::Fields::new();
                for (name, value) in fields {
                    shown.string(name, value);
                }
                json::escape(&mut text, message, LINE_LIMIT);
                json::line(into, head, &text, &shown);
            }
        }
    }
}

/// What stands before the message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) at: SystemTime,
    pub(crate) level: tracing::Level,
    pub(crate) name: &'a str,
    pub(crate) pid: u32,
    pub(crate) role: Role,
}

/// Appends one whole line to `into`. `message` and `fields` are escaped already; every field
/// brings the blank before it.
pub(crate) fn line(into: &mut String, head: Head<'_>, message: &str, fields: &str) {
    line_behind(into, &text_of(head, Format::Text), message, fields);
}

/// The head of a line. The same one serves all lines of a millisecond that differ in nothing else.
pub(crate) fn text_of(head: Head<'_>, format: Format) -> String {
    let mut text = String::new();
    // Writing to a String fails only if a Display does, and these fail only for years over 9999.
    let _ = match format {
        Format::Text => write_head(&mut text, head),
        Format::Json => json::write_head(&mut text, head),
    };
    text
}

/// Appends one whole line whose head is made already.
pub(crate) fn line_behind(into: &mut String, head: &str, message: &str, fields: &str) {
    let start = into.len();
    into.push_str(head);
    into.push_str(message);
    into.push_str(if message.is_empty() { fields.trim_start_matches(' ') } else { fields });
    if into.len() - start >= LINE_LIMIT {
        let keep = into.floor_char_boundary(start + LINE_LIMIT - CUT.len() - 1);
        into.truncate(keep);
        into.push_str(CUT);
    }
    into.push('\n');
}

fn write_head(into: &mut String, head: Head<'_>) -> fmt::Result {
    // A clock before 1970 would make humantime panic.
    let at = humantime::format_rfc3339_millis(head.at.max(SystemTime::UNIX_EPOCH));
    match head.role {
        Role::Unnamed => return write!(into, "{} ", letter(head.level)),
        Role::Master | Role::Helper(_) | Role::Worker { .. } => {}
    }
    write!(into, "{at} {} {}[{}] ", head.level, head.name, head.pid)?;
    match head.role {
        Role::Unnamed => Ok(()),
        Role::Master => into.write_str("master: "),
        Role::Helper(name) => write!(into, "{name}: "),
        Role::Worker { slot, generation } => write!(into, "worker {slot} gen {generation}: "),
    }
}

/// How the head of a record names its level: it is all there is of the head.
pub(crate) fn letter(level: tracing::Level) -> char {
    match level {
        tracing::Level::ERROR => 'E',
        tracing::Level::WARN => 'W',
        tracing::Level::INFO => 'I',
        tracing::Level::DEBUG => 'D',
        tracing::Level::TRACE => 'T',
    }
}

/// Appends `text` with its control characters escaped.
pub(crate) fn escape(into: &mut String, text: &str) {
    // Most texts are of nothing else, and to see that takes a fraction of the time.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        push(into, text);
    } else {
        escape_with(into, text, is_unsafe);
    }
}

/// Appends ` key=`.
pub(crate) fn key(into: &mut String, name: &str) {
    push(into, " ");
    // `info!(r#type = 1)` names its field with the prefix.
    escape(into, name.strip_prefix("r#").unwrap_or(name));
    push(into, "=");
}

/// Appends a string as the value of a field: bare if it is one plain word, else quoted.
pub(crate) fn value(into: &mut String, text: &str) {
    if !text.is_empty() && text.chars().all(is_plain) {
        push(into, text);
    } else {
        push(into, "\"");
        escape_with(into, text, |c| is_unsafe(c) || matches!(c, '"' | '\\'));
        push(into, "\"");
    }
}

/// Appends what `Debug` or `Display` made of a value; a string literal is quoted already.
pub(crate) fn debug_value(into: &mut String, text: &str) {
    if is_string_literal(text) { escape(into, text) } else { value(into, text) }
}

/// Appends as much of `text` as a line can ever show. A field may be larger than any memory;
/// what is beyond the limit would be cut anyway.
pub(crate) fn push(into: &mut String, text: &str) {
    let room = LINE_LIMIT.saturating_sub(into.len());
    into.push_str(&text[..text.floor_char_boundary(room)]);
}

fn escape_with(into: &mut String, text: &str, is_escaped: impl Fn(char) -> bool) {
    let mut rest = text;
    while let Some((at, found)) = rest.char_indices().find(|&(_, c)| is_escaped(c)) {
        push(into, &rest[..at]);
        if into.len() >= LINE_LIMIT {
            return;
        }
        push_escaped(into, found);
        rest = &rest[at + found.len_utf8()..];
    }
    push(into, rest);
}

pub(crate) fn push_escaped(into: &mut String, c: char) {
    match c {
        '\n' => into.push_str("\\n"),
        '\r' => into.push_str("\\r"),
        '\t' => into.push_str("\\t"),
        '"' => into.push_str("\\\""),
        '\\' => into.push_str("\\\\"),
        other => {
            // Writing to a String cannot fail.
            let _ = write!(into, "\\u{{{:x}}}", u32::from(other));
        }
    }
}

/// Whether a terminal or an editor could take the character for more than a glyph.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether the character may stand in a value without quotes.
fn is_plain(c: char) -> bool {
    !c.is_whitespace() && !is_unsafe(c) && !matches!(c, '"' | '\\' | '=')
}

/// Whether the text is one string in double quotes, all quotes inside being escaped.
fn is_string_literal(text: &str) -> bool {
    let Some(inside) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return false;
    };
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return false,
            '\\' if chars.next().is_none() => return false,
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests;
