//! A line as one JSON object, for programs.
//!
//! ```text
//! {"time":"2026-11-23T08:00:00.123Z","level":"INFO","name":"jobexecute","pid":4121,
//!  "role":"worker","slot":3,"generation":2,"message":"job done","fields":{"id":17,"took":"12 ms"}}
//! ```
//!
//! (on one line). The names and their order are stable; `slot` and `generation` stand only in the
//! lines of workers, `fields` only if there are any, and `"cut":true` only in a line that lost
//! something.
//!
//! Invariants:
//!
//! * A line is valid JSON, whatever an event carries, and at most [`LINE_LIMIT`] bytes long with
//!   its newline. What is too long loses what stands last: fields, then the end of the message. A
//!   string is cut between two characters, never within an escape.
//! * What a terminal could take for more than a glyph is escaped as `\uXXXX`: the same characters
//!   as in a line of text.
//! * A field has its name once. Of several with one name the last is kept, as most parsers would,
//!   and some refuse the others.
//! * Integers of up to 64 bits, finite floating-point numbers and truth values stand as such.
//!   Everything else is a string; of what `Debug` made a string literal it is what the literal
//!   means.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};
use std::ops::Range;
use std::time::SystemTime;

use super::{Head, LINE_LIMIT, is_string_literal, is_unsafe};
use crate::identity::Role;

/// The most bytes of a name in the head; the rest of the line must have room too.
const NAME_LIMIT: usize = 1024;

const CUT: &str = ",\"cut\":true";

/// The fields of one line, as the inside of a JSON object.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    text: String,
    entries: Vec<Entry>,
    /// Whether something was left out or cut for its length.
    is_cut: bool,
}

/// One `"name":value` in the text.
#[derive(Debug)]
struct Entry {
    range: Range<usize>,
    /// Where the inside of the value begins, if it is a string.
    string_at: Option<usize>,
}

impl Fields {
    pub(crate) const fn new() -> Fields {
        Fields { text: String::new(), entries: Vec::new(), is_cut: false }
    }

    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.entries.clear();
        self.is_cut = false;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.is_cut
    }

    /// Appends a number or a truth value, which need no quotes.
    pub(crate) fn plain(&mut self, name: &str, value: impl Display) {
        let Some(start) = self.begin(name) else { return };
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
        self.entries.push(Entry { range: start..self.text.len(), string_at: None });
    }

    /// Appends a string, as much of it as a line can ever show.
    pub(crate) fn string(&mut self, name: &str, value: &str) {
        let Some(start) = self.begin(name) else { return };
        self.text.push('"');
        let inside = self.text.len();
        self.is_cut |= !escape(&mut self.text, value, inside + LINE_LIMIT);
        self.text.push('"');
        self.entries.push(Entry { range: start..self.text.len(), string_at: Some(inside) });
    }

    /// Appends what `Debug` made of a value.
    pub(crate) fn debug(&mut self, name: &str, made: &str) {
        self.string(name, &meaning(made));
    }

    /// Appends `"name":` and says where that begins; nothing if there is no room in any line.
    fn begin(&mut self, name: &str) -> Option<usize> {
        let start = self.text.len();
        if start >= LINE_LIMIT {
            self.is_cut = true;
            return None;
        }
        self.text.push('"');
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.is_cut |= !escape(&mut self.text, name, start + NAME_LIMIT);
        self.text.push_str("\":");
        Some(self.forget_other(start))
    }

    /// Takes out the entry with the key that has just been written at `start`, and says where the
    /// key is now.
    fn forget_other(&mut self, start: usize) -> usize {
        let (before, key) = self.text.split_at(start);
        let is_same = |entry: &Entry| before[entry.range.clone()].starts_with(key);
        let Some(place) = self.entries.iter().position(is_same) else { return start };
        let gone = self.entries.remove(place).range;
        self.text.replace_range(gone.clone(), "");
        for entry in &mut self.entries[place..] {
            entry.range = entry.range.start - gone.len()..entry.range.end - gone.len();
            entry.string_at = entry.string_at.map(|at| at - gone.len());
        }
        start - gone.len()
    }

    fn len(&self) -> usize {
        // The commas between them.
        self.text.len() + self.entries.len().saturating_sub(1)
    }

    fn write(&self, into: &mut String) {
        for (place, entry) in self.entries.iter().enumerate() {
            into.push_str(if place == 0 { "" } else { "," });
            into.push_str(&self.text[entry.range.clone()]);
        }
    }

    /// Writes as many as fit before `end`, the last of them perhaps cut; says whether that was any.
    fn write_until(&self, into: &mut String, end: usize) -> bool {
        for (place, entry) in self.entries.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let room = end.saturating_sub(into.len() + comma.len());
            if entry.range.len() <= room {
                into.push_str(comma);
                into.push_str(&self.text[entry.range.clone()]);
                continue;
            }
            if let Some(inside) = entry.string_at
                && inside - entry.range.start < room
            {
                let key = &self.text[entry.range.start..inside];
                let value = &self.text[inside..entry.range.end - 1];
                into.push_str(comma);
                into.push_str(key);
                into.push_str(beginning(value, room - key.len() - 1));
                into.push('"');
                return true;
            }
            return place > 0;
        }
        !self.entries.is_empty()
    }
}

/// Appends one whole line to `into`. `message` is escaped already, as far as a line can show it.
pub(crate) fn line(into: &mut String, head: Head<'_>, message: &str, fields: &Fields) {
    line_behind(into, &super::text_of(head, super::Format::Json), message, fields);
}

/// Appends one whole line whose head is made already.
pub(crate) fn line_behind(into: &mut String, head: &str, message: &str, fields: &Fields) {
    let end = into.len() + LINE_LIMIT;
    into.push_str(head);
    into.push_str(",\"message\":\"");
    let fields_length = if fields.is_empty() { 0 } else { OPEN.len() + fields.len() + 1 };
    if !fields.is_cut && into.len() + message.len() + fields_length + "\"}\n".len() <= end {
        into.push_str(message);
        into.push('"');
        if !fields.is_empty() {
            into.push_str(OPEN);
            fields.write(into);
            into.push('}');
        }
    } else {
        let end = end - CUT.len() - "}\n".len();
        let shown = beginning(message, end.saturating_sub(into.len() + 1));
        into.push_str(shown);
        into.push('"');
        if shown.len() == message.len() && into.len() + OPEN.len() < end {
            let before = into.len();
            into.push_str(OPEN);
            match fields.write_until(into, end - 1) {
                true => into.push('}'),
                false => into.truncate(before),
            }
        }
        into.push_str(CUT);
    }
    into.push_str("}\n");
}

const OPEN: &str = ",\"fields\":{";

/// Appends the beginning of a line, up to where the message or anything else can follow after a
/// comma.
pub(super) fn write_head(into: &mut String, head: Head<'_>) -> fmt::Result {
    // A clock before 1970 would make humantime panic.
    let at = humantime::format_rfc3339_millis(head.at.max(SystemTime::UNIX_EPOCH));
    match head.role {
        Role::Unnamed => {
            return write!(into, "{} {{\"level\":\"{}\"", super::letter(head.level), head.level);
        }
        Role::Master | Role::Helper(_) | Role::Worker { .. } => {}
    }
    write!(into, "{{\"time\":\"{at}\",\"level\":\"{}\",\"name\":\"", head.level)?;
    let name_end = into.len() + NAME_LIMIT;
    escape(into, head.name, name_end);
    write!(into, "\",\"pid\":{},\"role\":\"", head.pid)?;
    match head.role {
        Role::Unnamed => Ok(()),
        Role::Master => into.write_str("master\""),
        Role::Helper(name) => {
            let name_end = into.len() + NAME_LIMIT;
            escape(into, name, name_end);
            into.write_str("\"")
        }
        Role::Worker { slot, generation } => {
            write!(into, "worker\",\"slot\":{slot},\"generation\":{generation}")
        }
    }
}

/// Appends `text` as the inside of a JSON string, as much of it as fits into `limit` bytes of
/// `into`; says whether that was all.
pub(crate) fn escape(into: &mut String, text: &str, limit: usize) -> bool {
    let mut rest = text;
    while let Some((at, found)) = rest.char_indices().find(|&(_, c)| is_escaped(c)) {
        if !push(into, &rest[..at], limit) || limit.saturating_sub(into.len()) < length(found) {
            return false;
        }
        push_escaped(into, found);
        rest = &rest[at + found.len_utf8()..];
    }
    push(into, rest, limit)
}

fn push(into: &mut String, text: &str, limit: usize) -> bool {
    let end = text.floor_char_boundary(limit.saturating_sub(into.len()));
    into.push_str(&text[..end]);
    end == text.len()
}

fn is_escaped(c: char) -> bool {
    is_unsafe(c) || matches!(c, '"' | '\\')
}

/// The bytes of an escape.
fn length(c: char) -> usize {
    if matches!(c, '\n' | '\r' | '\t' | '"' | '\\') { 2 } else { 6 }
}

fn push_escaped(into: &mut String, c: char) {
    match c {
        '\n' => into.push_str("\\n"),
        '\r' => into.push_str("\\r"),
        '\t' => into.push_str("\\t"),
        '"' => into.push_str("\\\""),
        '\\' => into.push_str("\\\\"),
        other => {
            // All of them are in the basic plane; writing to a String cannot fail.
            let _ = write!(into, "\\u{:04x}", u32::from(other));
        }
    }
}

/// As much of the inside of a string as fits, whole characters and whole escapes.
fn beginning(escaped: &str, room: usize) -> &str {
    if escaped.len() <= room {
        return escaped;
    }
    let mut end = 0;
    while let Some(first) = escaped[end..].chars().next() {
        let step = match first {
            '\\' if escaped[end + 1..].starts_with('u') => 6,
            '\\' => 2,
            other => other.len_utf8(),
        };
        if end + step > room {
            break;
        }
        end += step;
    }
    &escaped[..end]
}

/// What a string literal means, if `Debug` made one; else the text itself.
fn meaning(made: &str) -> Cow<'_, str> {
    if !is_string_literal(made) {
        return Cow::Borrowed(made);
    }
    let inside = &made[1..made.len() - 1];
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    unescape(inside).map_or(Cow::Borrowed(made), Cow::Owned)
}

/// Undoes the escapes of Rust's literals; nothing if there is another one, such as the `\xff` of a
/// path that is no Unicode.
fn unescape(inside: &str) -> Option<String> {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some((before, escape)) = rest.split_once('\\') {
        text.push_str(before);
        let mut after = escape.chars();
        text.push(match after.next()? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => '\0',
            plain @ ('"' | '\'' | '\\') => plain,
            'u' => {
                let (digits, behind) = after.as_str().strip_prefix('{')?.split_once('}')?;
                after = behind.chars();
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            _ => return None,
        });
        rest = after.as_str();
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
#[path = "json/tests.rs"]
mod tests;
