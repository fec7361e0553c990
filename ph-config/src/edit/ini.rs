//! Edits of an INI file.
//!
//! The lines of the file are found, one group of them is written anew, the rest is copied. A value
//! keeps the indentation, the alignment and the delimiter of its key; a new key goes below the last
//! one of its section, set as that one is; a new section goes to the end. A comment is never lost:
//! one between the lines of the old value moves below the new one, and one after the old value
//! gets a line of its own if it cannot stay where it is.

use crate::document::Document;
use crate::error::shown;
use crate::ini::{self, is_space, strip};

use super::rows::{Kind, Row, extent, line_end, rows, without_end};
use super::style::{Gap, Style};
use super::{Edit, Refusal, verify};

/// How far the lines of a new list are indented below their key.
const INDENT: &str = "    ";

/// A text with the edit made, and what the parser must find under the key.
pub(super) struct Draft {
    pub(super) text: String,
    pub(super) value: Option<String>,
}

/// Makes the edit and checks it.
pub(super) fn edit(text: &str, edit: &Edit<'_>) -> Result<String, Refusal> {
    check_key(edit.key)?;
    if let Some(value) = edit.value {
        check_value(value, edit.keep_comment)?;
    }
    let before = parsed(text)?;
    let sheet = Sheet::new(text, edit);
    let draft = match (sheet.key, edit.value) {
        (Some(at), Some(value)) => sheet.replace(at, value),
        (Some(at), None) => Draft { text: sheet.remove(at), value: None },
        (None, Some(value)) => Draft { text: sheet.add(value), value: Some(value.to_owned()) },
        (None, None) => return Err(Refusal::absent()),
    };
    verify::ini(&before, &draft, edit)?;
    Ok(draft.text)
}

fn parsed(text: &str) -> Result<Document, Refusal> {
    let (document, faults) = ini::parse(text);
    match faults.into_iter().next() {
        Some(fault) => Err(Refusal::faulty(fault.line, &fault.message, fault.mend)),
        None => Ok(document),
    }
}

fn check_key(key: &str) -> Result<(), Refusal> {
    let why = if strip(key) != key {
        "has white space at its ends"
    } else if key.contains(['=', ':']) {
        "holds `=` or `:`, which ends a key"
    } else if key.starts_with('[') {
        "begins like a section header"
    } else if key.starts_with(['#', ';']) {
        "begins like a comment"
    } else {
        return Ok(());
    };
    let message = format!("expected a key that an INI file can hold, got {}: it {why}", shown(key));
    Err(Refusal::new(message, "give the key another name"))
}

/// Refuses what ConfigParser would read back as something else.
fn check_value(value: &str, keep_comment: bool) -> Result<(), Refusal> {
    let lines = || value.split('\n');
    let (why, mend) = if value.contains('\r') {
        ("it holds a carriage return", "divide lines by a line feed alone")
    } else if lines().any(|line| strip(line) != line) {
        let mend = "take it out; where a setting allows quotes, put it inside them";
        ("white space at the ends of a line is not kept", mend)
    } else if value.ends_with('\n') {
        ("blank lines at the end are not kept", "take them out")
    } else if lines().skip(1).any(|line| line.starts_with(['#', ';'])) {
        ("a line that begins with `#` or `;` is a comment", "begin the line with something else")
    } else if keep_comment && lines().any(|line| comment(line).is_some()) {
        ("what follows a `;` after white space is a comment", "take the comment out")
    } else {
        return Ok(());
    };
    let message =
        format!("expected a value that an INI file can hold, got {}: {why}", shown(value));
    Err(Refusal::new(message, mend))
}

/// Where in a line a comment as Python 2 knew it starts, if there is one.
fn comment(line: &str) -> Option<usize> {
    let mut before = ' ';
    line.char_indices().find_map(|(at, c)| {
        let found = c == ';' && is_space(before);
        before = c;
        found.then_some(at)
    })
}

/// The lines of a file, and where the edit has to happen.
struct Sheet<'t> {
    text: &'t str,
    edit: &'t Edit<'t>,
    rows: Vec<Row<'t>>,
    /// The header of the section's first block.
    header: Option<usize>,
    /// The keys of that block.
    keys: Vec<usize>,
    /// The header that ends it.
    next: Option<usize>,
    /// The key, in whichever block.
    key: Option<usize>,
    end: &'static str,
}

impl<'t> Sheet<'t> {
    fn new(text: &'t str, edit: &'t Edit<'t>) -> Sheet<'t> {
        let wanted = edit.key.to_lowercase();
        let (rows, end) = (rows(text), line_end(text));
        let (mut header, mut keys, mut next, mut key) = (None, Vec::new(), None, None);
        let mut inside = false;
        for (at, row) in rows.iter().enumerate() {
            match row.kind {
                Kind::Header => {
                    inside = row.name() == Some(edit.section);
                    if header.is_none() {
                        header = inside.then_some(at);
                    } else if next.is_none() {
                        next = Some(at);
                    }
                }
                Kind::Key if inside => {
                    if next.is_none() {
                        keys.push(at);
                    }
                    if row.entry().name.to_lowercase() == wanted {
                        key = Some(at);
                    }
                }
                Kind::Key | Kind::Blank | Kind::Comment | Kind::Continuation => {}
            }
        }
        Sheet { text, edit, rows, header, keys, next, key, end }
    }

    /// The file with the rows from `first` to before `last` written as `lines`.
    fn splice(&self, first: usize, last: usize, lines: &[String]) -> String {
        let (head, tail) = (self.start(first), self.start(last));
        let end = self.rows[first..last].last().map_or(self.end, |row| row.end);
        let inner = self.rows[first..].first().map_or(self.end, |row| row.end);
        let inner = if inner.is_empty() { self.end } else { inner };
        let mut text = self.text[..head].to_owned();
        if lines.is_empty() {
            // A file whose last line has no end keeps it so.
            if end.is_empty() {
                text.truncate(without_end(&text).len());
            }
        } else {
            if !text.is_empty() && !text.ends_with(['\n', '\r']) {
                text.push_str(self.end);
            }
            text.push_str(&lines.join(inner));
            text.push_str(end);
        }
        text.push_str(&self.text[tail..]);
        text
    }

    fn start(&self, at: usize) -> usize {
        self.rows.get(at).map_or(self.text.len(), |row| row.start)
    }

    fn replace(&self, at: usize, value: &str) -> Draft {
        let rows = extent(&self.rows, at);
        let old = self.rows[at].entry();
        let first = value.split('\n').next().unwrap_or_default();
        let one_line = rows.len() == 1 && first.len() == value.len();
        let in_line = comment(old.value).filter(|_| self.edit.keep_comment && one_line);
        let suffix = match in_line.map(|at| old.value.split_at(at)) {
            Some(("", comment)) => format!(" {comment}"),
            Some((before, comment)) => {
                let blank = &before[before.trim_end_matches(is_space).len()..];
                format!("{blank}{comment}")
            }
            None => String::new(),
        };
        let first = format!("{first}{suffix}");
        let first = first.trim_start_matches(is_space);
        let value = format!("{value}{suffix}");
        let gap = gap(&self.rows[at]);
        let head = format!("{}{}{}{}", old.indent, old.name, old.before, old.delimiter);
        let after = if first.is_empty() { "" } else { gap.after() };
        let mut lines = vec![format!("{head}{after}{first}")];
        if one_line {
            // White space at the end of the line is somebody's layout too.
            let body = self.rows[at].body;
            lines[0].push_str(&body[body.trim_end_matches(is_space).len()..]);
        }
        let mut further = self.rows[rows.clone()].iter();
        let further = further.find(|row| row.kind == Kind::Continuation);
        let deeper = format!("{}{INDENT}", old.indent);
        let deeper = further.map_or(deeper.as_str(), Row::indent);
        lines.extend(value.split('\n').skip(1).map(|line| match line {
            "" => String::new(),
            line => format!("{deeper}{line}"),
        }));
        lines.extend(self.comments(rows.start, rows.end, in_line.is_some()));
        let text = self.splice(rows.start, rows.end, &lines);
        Draft { text, value: Some(strip_end(&value)) }
    }

    /// The comments in the lines of a value, each as a line of its own.
    fn comments(&self, first: usize, last: usize, kept: bool) -> Vec<String> {
        let indent = self.rows[first].indent();
        let rows = self.rows[first..last].iter();
        let line = |row: &Row<'_>| match row.kind {
            Kind::Comment => Some(row.body.to_owned()),
            Kind::Key | Kind::Continuation if self.edit.keep_comment && !kept => {
                let text = if row.kind == Kind::Key { row.entry().value } else { strip(row.body) };
                comment(text).map(|at| format!("{indent}{}", &text[at..]))
            }
            Kind::Key | Kind::Continuation | Kind::Blank | Kind::Header => None,
        };
        rows.filter_map(line).collect()
    }

    fn remove(&self, at: usize) -> String {
        let rows = extent(&self.rows, at);
        let comments = self.comments(rows.start, rows.end, false);
        self.splice(rows.start, rows.end, &comments)
    }

    fn add(&self, value: &str) -> String {
        let gaps: Vec<Gap<'_>> = self.keys.iter().map(|at| gap(&self.rows[*at])).collect();
        let style = Style::of(&gaps);
        let Some(header) = self.header else { return self.add_section(&style, value) };
        // Not deeper than the key above, or it would continue that one's value; not less deep than
        // the header below, or that would continue this one's.
        let (at, indent) = match (self.keys.last(), self.next) {
            (Some(last), _) => (extent(&self.rows, *last).end, self.rows[*last].indent()),
            (None, Some(next)) => (header + 1, self.rows[next].indent()),
            (None, None) => (header + 1, ""),
        };
        self.splice(at, at, &new_lines(&style, self.edit.key, value, indent))
    }

    fn add_section(&self, style: &Style, value: &str) -> String {
        let mut lines = Vec::new();
        if self.rows.last().is_some_and(|row| row.kind != Kind::Blank) {
            lines.push(String::new());
        }
        lines.push(format!("[{}]", self.edit.section));
        lines.extend(new_lines(style, self.edit.key, value, ""));
        self.splice(self.rows.len(), self.rows.len(), &lines)
    }
}

fn new_lines(style: &Style, key: &str, value: &str, indent: &str) -> Vec<String> {
    let line = |(number, line): (usize, &str)| match (number, line) {
        (0, "") => format!("{indent}{}", style.apply(key).trim_end()),
        (0, line) => format!("{indent}{}{line}", style.apply(key)),
        (_, "") => String::new(),
        (_, line) => format!("{indent}{INDENT}{line}"),
    };
    value.split('\n').enumerate().map(line).collect()
}

fn gap<'t>(row: &Row<'t>) -> Gap<'t> {
    let line = row.entry();
    Gap {
        width: line.name.chars().count(),
        before: line.before,
        delimiter: line.delimiter,
        after: line.after,
        filled: !line.value.is_empty(),
    }
}

/// What the parser makes of the ends of a value: the first line is stripped, and so is the end.
fn strip_end(value: &str) -> String {
    let first = value.split('\n').next().unwrap_or_default();
    let cut = first.len() - first.trim_start_matches(is_space).len();
    value[cut..].trim_end_matches(is_space).to_owned()
}
