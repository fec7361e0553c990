//! TOML: the same sections and keys, with the line of each.
//!
//! `[DEFAULT]` (or `[default]`) and one table a section. A value is a string, a number, a boolean,
//! or where a setting wants several a list of them; `environment` is a table, and so is `app`,
//! whose keys become `app_NAME`. Keys ignore case, as in INI. Numbers become the text that an INI
//! file would have, so that both languages share every rule that follows: a float keeps its digits,
//! which may be those of a version, and an octal number keeps its form (`0o022`) for `umask`.
//!
//! The parser stops at its first mistake, which would make an operator run it once a mistake. So a
//! line at fault is blanked out and the rest parsed again, a bounded number of times. A mistake below
//! a bracket or a quote that is not closed ends that: all lines that follow would look like one.

use toml_edit::{Document as Toml, Item, Key, TableLike, TomlError, Value};

use crate::document::{DEFAULT, Document, Entry, Fault, MAX_NAME, Section, Written};
use crate::error::{Escaped, shown};
use crate::settings;
use crate::value::Schema;

/// How many mistakes of syntax are looked for.
const MAX_MISTAKES: usize = 20;
/// How many bytes are parsed in looking for them, beyond which a large file has fewer.
const MAX_PARSED: usize = 2 * 1024 * 1024;
/// How many other faults are kept; a report names fewer.
const MAX_FAULTS: usize = 200;
/// The table whose keys are the application's own.
const APP: &str = "app";
/// The setting that is a table of variables.
const ENVIRONMENT: &str = "environment";

/// Parses a whole file; `text` carries no byte order mark.
pub(crate) fn parse(text: &str) -> (Document, Vec<Fault>) {
    let (toml, mistakes) = parse_all(text);
    let mut reader = Reader {
        text,
        document: Document::new(),
        faults: mistakes,
        lines: line_starts(text),
        has_defaults: false,
    };
    if let Some(toml) = toml {
        reader.root(toml.as_table());
    }
    (reader.document, reader.faults)
}

/// The document without the lines at fault, if there is one, and what is wrong with those.
fn parse_all(text: &str) -> (Option<Toml<String>>, Vec<Fault>) {
    let mut rest = text.to_owned();
    let mut faults: Vec<Fault> = Vec::new();
    loop {
        let error = match Toml::parse(rest.clone()) {
            Ok(toml) => return (Some(toml), faults),
            Err(error) => error,
        };
        let Some(at) = error.span().map(|span| span.start.min(rest.len())) else {
            faults.push(mistake(&error, 0));
            return (None, faults);
        };
        let (start, line) = line_of(&rest, at);
        faults.push(mistake(&error, line));
        let parsed = rest.len().saturating_mul(faults.len());
        if faults.len() == MAX_MISTAKES || parsed > MAX_PARSED || is_open(&rest[..start]) {
            return (None, faults);
        }
        let end = rest[start..].find('\n').map_or(rest.len(), |length| start + length);
        rest.replace_range(start..end, &" ".repeat(end - start));
    }
}

/// Whether a bracket or a long quote is not closed by the end of the text.
fn is_open(text: &str) -> bool {
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some(at) = rest.find(['[', ']', '{', '}', '"', '\'', '#']) {
        let found = &rest[at..];
        let mark = ["\"\"\"", "'''"].into_iter().find(|mark| found.starts_with(mark));
        rest = match (mark, found.as_bytes()[0]) {
            (Some(mark), _) => match closed(&found[3..], mark) {
                Some(rest) => rest,
                None => return true,
            },
            // A text of one line ends there, closed or not, and so does a comment.
            (None, quote @ (b'"' | b'\'')) => {
                let line = &found[1..found.find('\n').unwrap_or(found.len())];
                let end = closed(line, if quote == b'"' { "\"" } else { "'" }).unwrap_or("");
                &found[1 + line.len() - end.len()..]
            }
            (None, b'#') => &found[found.find('\n').unwrap_or(found.len())..],
            (None, b'[' | b'{') => {
                depth += 1;
                &found[1..]
            }
            (None, _) => {
                depth = depth.saturating_sub(1);
                &found[1..]
            }
        };
    }
    depth > 0
}

/// What follows the end of a text that `mark` closes.
fn closed<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    let mut rest = text;
    loop {
        let at = rest.find([mark.chars().next()?, '\\'])?;
        let found = &rest[at..];
        if let Some(after) = found.strip_prefix(mark) {
            return Some(after);
        }
        // Within double quotes a backslash takes the next character with it.
        let skip = if found.starts_with('\\') && mark.starts_with('"') { 2 } else { 1 };
        rest = found.get(found.char_indices().nth(skip).map_or(found.len(), |(at, _)| at)..)?;
    }
}

/// The start of the line that holds the byte at `at`, and its number.
fn line_of(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at];
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    (start, before.iter().filter(|byte| **byte == b'\n').count() + 1)
}

fn mistake(error: &TomlError, line: usize) -> Fault {
    let message = format!("expected TOML, got a mistake: {}", Escaped(error.message()));
    let mend = "write `key = value` with quotes around text; https://toml.io has the rules";
    Fault { line, section: None, key: None, message, mend: mend.to_owned() }
}

/// The offset at which each line begins.
fn line_starts(text: &str) -> Vec<usize> {
    let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect()
}

struct Reader<'t> {
    text: &'t str,
    document: Document,
    faults: Vec<Fault>,
    lines: Vec<usize>,
    has_defaults: bool,
}

impl Reader<'_> {
    fn root(&mut self, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            let line = self.line(table.key(name), item);
            match item.as_table_like() {
                Some(section) => self.section(name, section, line),
                None if item.is_array_of_tables() => {
                    let message = format!("expected one table {}, got a list", shown(name));
                    self.fault(line, None, None, message, "write [name] and not [[name]]");
                }
                None => {
                    let message = format!("expected a table, got the key {}", shown(name));
                    let mend = "put it below [DEFAULT], or below the [name] of a service";
                    self.fault(line, None, None, message, mend);
                }
            }
        }
    }

    fn section(&mut self, name: &str, table: &dyn TableLike, line: usize) {
        if name.len() > MAX_NAME {
            let message =
                format!("expected a section name of at most {MAX_NAME} bytes, got {}", shown(name));
            self.fault(line, None, None, message, "give the section a shorter name");
            return;
        }
        let is_default = is_defaults(name);
        if is_default && self.has_defaults {
            let message = "[DEFAULT] is there twice, in two spellings".to_owned();
            self.fault(line, None, None, message, "join the two");
            return;
        }
        let mut section = Section::new(if is_default { DEFAULT } else { name }, line);
        for (key, item) in table.iter() {
            let line = self.line(table.key(key), item);
            match (key.to_lowercase().as_str(), item.as_table_like()) {
                (APP, Some(app)) => {
                    for (key, item) in app.iter() {
                        let line = self.line(app.key(key), item);
                        self.entry(
                            &mut section,
                            &format!("app_{}", key.to_lowercase()),
                            item,
                            line,
                        );
                    }
                }
                (key, _) => self.entry(&mut section, key, item, line),
            }
        }
        if is_default {
            self.has_defaults = true;
            self.document.defaults = section;
        } else {
            self.document.sections.push(section);
        }
    }

    fn entry(&mut self, section: &mut Section, key: &str, item: &Item, line: usize) {
        let value = match written(self.text, key, item) {
            Ok(value) => value,
            Err((message, mend)) => {
                return self.fault(line, Some(&section.name), Some(key), message, mend);
            }
        };
        if let Err(first) = section.add(Entry { key: key.to_owned(), value, line }) {
            let message = format!("this key is there twice, first in line {first}");
            let mend = "keep one of the two lines; upper and lower case are the same here";
            self.fault(line, Some(&section.name), Some(key), message, mend);
        }
    }

    /// The line of a key; of a table that only its own keys show, the line of the table.
    fn line(&self, key: Option<&Key>, item: &Item) -> usize {
        let span = key.and_then(Key::span).or_else(|| item.span());
        span.map_or(0, |span| self.lines.partition_point(|start| *start <= span.start))
    }

    fn fault(
        &mut self,
        line: usize,
        section: Option<&str>,
        key: Option<&str>,
        message: String,
        mend: &str,
    ) {
        if self.faults.len() < MAX_FAULTS {
            let [section, key] = [section, key].map(|it| it.map(str::to_owned));
            self.faults.push(Fault { line, section, key, message, mend: mend.to_owned() });
        }
    }
}

/// Whether a table of this name is what all sections inherit.
pub(crate) fn is_defaults(name: &str) -> bool {
    name == DEFAULT || name == "default"
}

type Refusal = (String, &'static str);

/// The value as text, list or pairs.
fn written(source: &str, key: &str, item: &Item) -> Result<Written, Refusal> {
    let refusal = |what: &str, mend| (format!("expected a value, got {what}"), mend);
    let is_octal =
        settings::find(key).is_some_and(|row| matches!(row.schema, Schema::Octal { .. }));
    let scalar = |value: &Value| scalar(source, is_octal, value);
    if let Some(table) = item.as_table_like() {
        if key != ENVIRONMENT {
            let mend = "only `environment` and `app` are tables; a name with a dot needs quotes";
            return Err(refusal("a table", mend));
        }
        let pair = |(name, item): (&str, &Item)| match item.as_value().map(scalar) {
            Some(Ok(text)) => Ok((name.to_owned(), text)),
            Some(Err(refusal)) => Err(refusal),
            None => Err(refusal("a table in a table", "write NAME = \"value\"")),
        };
        return table.iter().map(pair).collect::<Result<_, _>>().map(Written::Pairs);
    }
    match item.as_value() {
        Some(Value::Array(array)) => {
            array.iter().map(scalar).collect::<Result<_, _>>().map(Written::Items)
        }
        Some(value) => scalar(value).map(Written::Text),
        None => Err(refusal("a list of tables", "write a list of texts: [\"a\", \"b\"]")),
    }
}

/// One value as the text that an INI file would have.
fn scalar(source: &str, is_octal: bool, value: &Value) -> Result<String, Refusal> {
    match value {
        Value::String(text) if text.value().contains('\0') => {
            Err(("expected text, got a NUL character".to_owned(), "take the \\u0000 out"))
        }
        Value::String(text) => Ok(text.value().clone()),
        Value::Integer(number) => match number.span().and_then(|span| source.get(span)) {
            Some(text) if is_octal && text.starts_with("0o") => Ok(text.replace('_', "")),
            Some(text) if is_octal && text.starts_with(['0', '+']) && text.len() > 1 => {
                let message = format!("expected an octal number, got {}", shown(text));
                Err((message, "write it as 0o022, or in quotes as \"022\""))
            }
            _ => Ok(number.value().to_string()),
        },
        // As it stands: `1.10` may be a version.
        Value::Float(number) => Ok(match number.span().and_then(|span| source.get(span)) {
            Some(text) => text.replace('_', ""),
            None => number.value().to_string(),
        }),
        Value::Boolean(truth) => Ok(truth.value().to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::InlineTable(_) => {
            let message =
                format!("expected text, a number or a boolean, got {}", value.type_name());
            Err((message, "write the value in quotes"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> String {
        let (document, faults) = parse(text);
        let mut out = String::new();
        for section in std::iter::once(&document.defaults).chain(&document.sections) {
            for entry in &section.entries {
                let Entry { key, value, line } = entry;
                out += &format!("{}:{line} {key}={value:?}\n", section.name);
            }
        }
        for Fault { line, section, key, message, .. } in faults {
            out += &format!("{line} {section:?} {key:?} {message}\n");
        }
        out
    }

    #[test]
    fn every_kind_of_value() {
        let text = r#"
[default]
Number_Workers = 1_0
graceful_timeout = 0.5
[web]
umask = 0o0_22
single_instance = false
command = ["./a", "b c", 3]
bind = """
:80
:81"""
environment = { A = "a, b", B = 1 }
[web.app]
Name = "x"
[job.environment]
A = 'a'
"#;
        let expected = r#"DEFAULT:3 number_workers=Text("10")
DEFAULT:4 graceful_timeout=Text("0.5")
web:6 umask=Text("0o022")
web:7 single_instance=Text("false")
web:8 command=Items(["./a", "b c", "3"])
web:9 bind=Text(":80\n:81")
web:12 environment=Pairs([("A", "a, b"), ("B", "1")])
web:14 app_name=Text("x")
job:15 environment=Pairs([("A", "a")])
"#;
        assert_eq!(shape(text), expected);
    }

    #[test]
    fn what_has_no_place_is_named() {
        let text = "a = 1\n[[web]]\n[b]\nc = 2020-01-01\nd = [[1]]\ne.f = 1\nG = 1\ng = 2\n\
                    h = \"\\u0000\"\n[DEFAULT]\n[default]\n";
        let found = shape(text);
        for expected in [
            "1 None None expected a table, got the key \"a\"",
            "2 None None expected one table \"web\", got a list",
            "4 Some(\"b\") Some(\"c\") expected text, a number or a boolean, got datetime",
            "5 Some(\"b\") Some(\"d\") expected text, a number or a boolean, got array",
            "6 Some(\"b\") Some(\"e\") expected a value, got a table",
            "8 Some(\"b\") Some(\"g\") this key is there twice, first in line 7",
            "9 Some(\"b\") Some(\"h\") expected text, got a NUL character",
            "11 None None [DEFAULT] is there twice",
        ] {
            assert!(found.contains(expected), "{expected}\n{found}");
        }
    }

    #[test]
    fn all_mistakes_are_found_and_the_rest_is_read() {
        let found = shape("[web]\na = x\nb = 1\nb = 2\nc 3\nd = 4\n");
        let lines: Vec<&str> = found.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(lines, ["web:3", "web:6", "5", "2", "4"], "{found}");
        for text in ["a = [1,", "a = \"\"\" \\\"\"\"", "a = '''\nb", "a = { b = '}'", "[a\n"] {
            assert!(is_open(text), "{text}");
        }
        for text in
            ["a = \"[\"", "a = '{' # [", "a = \"\"\"[\"\"\"", "[[a]]\nb = \"x", "a = \"\\\"[\" "]
        {
            assert!(!is_open(text), "{text}");
        }
        // One mistake, not one for each line that follows.
        let open = shape("[web]\na = [1,\nb = 2\nc = 3\nd = 4\n");
        assert_eq!(open.lines().count(), 1, "{open}");
    }
}
