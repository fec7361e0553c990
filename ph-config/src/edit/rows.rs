//! The lines of an INI file and what each is, for somebody who wants to change one.
//!
//! The parser in `crate::ini` keeps values; this keeps places. Both must call every line the same,
//! so the rules here are that parser's, and the caller checks afterwards that they agreed. It asks
//! only about texts in which the parser found no fault, so a line that is neither blank, comment,
//! continuation nor header is a key.

use std::ops::Range;

use crate::ini::{header, is_space, strip};

/// What a line is to ConfigParser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Blank,
    Comment,
    /// A further line of the value above it.
    Continuation,
    Header,
    Key,
}

/// One line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'t> {
    pub(super) kind: Kind,
    /// Where it starts in the text.
    pub(super) start: usize,
    /// The line without its end.
    pub(super) body: &'t str,
    /// `\n`, `\r\n`, `\r`, or nothing in the last line.
    pub(super) end: &'t str,
}

impl<'t> Row<'t> {
    /// Where the next line starts.
    pub(super) fn stop(&self) -> usize {
        self.start + self.body.len() + self.end.len()
    }

    /// The white space before the text.
    pub(super) fn indent(&self) -> &'t str {
        indent(self.body)
    }

    /// The name, if this is a header.
    pub(super) fn name(&self) -> Option<&'t str> {
        header(strip(self.body)).filter(|_| self.kind == Kind::Header)
    }

    /// The parts of a key's line; of any other, whatever comes of it.
    pub(super) fn entry(&self) -> KeyLine<'t> {
        let indent = self.indent();
        let rest = &self.body[indent.len()..];
        let (key, rest) = rest.split_at(rest.find(['=', ':']).unwrap_or(rest.len()));
        let (delimiter, rest) = rest.split_at(rest.len().min(1));
        let name = key.trim_end_matches(is_space);
        let value = strip(rest);
        let after = if value.is_empty() { "" } else { self::indent(rest) };
        KeyLine { indent, name, before: &key[name.len()..], delimiter, after, value }
    }
}

/// `    key   =  value`, cut into its parts; white space after the value is in none of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyLine<'t> {
    pub(super) indent: &'t str,
    pub(super) name: &'t str,
    pub(super) before: &'t str,
    pub(super) delimiter: &'t str,
    pub(super) after: &'t str,
    pub(super) value: &'t str,
}

/// Divides a text into its lines.
pub(super) fn rows(text: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut start = 0;
    let (mut open, mut depth) = (false, 0);
    while start < text.len() {
        let rest = &text[start..];
        let (body, end) = match rest.find(['\n', '\r']) {
            Some(at) => {
                let length = if rest[at..].starts_with("\r\n") { 2 } else { 1 };
                (&rest[..at], &rest[at..at + length])
            }
            None => (rest, ""),
        };
        let kind = kind(body, &mut open, &mut depth);
        let row = Row { kind, start, body, end };
        start = row.stop();
        rows.push(row);
    }
    rows
}

/// What the next line is. `open` says whether there is a value that it may continue, `depth` how
/// far the last key or header was indented.
fn kind(body: &str, open: &mut bool, depth: &mut usize) -> Kind {
    let text = strip(body);
    if text.is_empty() {
        return Kind::Blank;
    }
    if text.starts_with(['#', ';']) {
        return Kind::Comment;
    }
    let indent = indent(body).chars().count();
    if indent > *depth && *open {
        return Kind::Continuation;
    }
    *depth = indent;
    *open = header(text).is_none();
    if *open { Kind::Key } else { Kind::Header }
}

/// The lines of the value of the key at `at`, from that line to its last continuation. Blank lines
/// and comments below belong to the layout.
pub(super) fn extent(rows: &[Row<'_>], at: usize) -> Range<usize> {
    let below =
        rows[at + 1..].iter().take_while(|row| !matches!(row.kind, Kind::Key | Kind::Header));
    let last = below.enumerate().filter(|(_, row)| row.kind == Kind::Continuation).last();
    at..at + 1 + last.map_or(0, |(index, _)| index + 1)
}

/// How the lines of a text end: as its first does.
pub(super) fn line_end(text: &str) -> &'static str {
    match text.find(['\n', '\r']) {
        Some(at) if text[at..].starts_with("\r\n") => "\r\n",
        Some(at) if text[at..].starts_with('\r') => "\r",
        _ => "\n",
    }
}

/// A text without the end of its last line.
pub(super) fn without_end(text: &str) -> &str {
    match text.strip_suffix('\n') {
        Some(rest) => rest.strip_suffix('\r').unwrap_or(rest),
        None => text.strip_suffix('\r').unwrap_or(text),
    }
}

fn indent(text: &str) -> &str {
    &text[..text.len() - text.trim_start_matches(is_space).len()]
}
