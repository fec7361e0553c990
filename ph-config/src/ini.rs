//! Python's ConfigParser dialect of INI, with the line of every key.
//!
//! The original's files must mean here what they meant there, so this parser copies the decisions
//! of `configparser.ConfigParser` with its default arguments, odd ones included: a header ends at
//! the *last* `]` of its line, text after it is ignored, the first `=` or `:` divides key and
//! value, an indented line continues the value above it even if it looks like a key or a header,
//! comment lines inside a value vanish while blank ones stay, white space is what Python's
//! `str.strip` removes, and a lone carriage return ends a line. `[DEFAULT]` may appear more than
//! once; any other repeated section, and any repeated key, is a fault that names both lines. A
//! section name of more than [`MAX_NAME`] bytes is one too, though not to Python.
//! `tests/it/differential.rs` holds the two parsers against each other.
//!
//! Nothing is interpolated or typed here, and parsing goes on after a fault, so that all faults of
//! a file are known at once. What is known to be broken is left out of the [`Document`].

use std::collections::BTreeMap;

use crate::document::{DEFAULT, Document, Entry, Fault, MAX_NAME, Section, Written};
use crate::error::{named, shown};

/// How many faults are kept; a report names fewer, and a file can hold half a million.
const MAX_FAULTS: usize = 200;

/// Parses a whole file; `text` carries no byte order mark.
pub(crate) fn parse(text: &str) -> (Document, Vec<Fault>) {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut parser = Parser::new();
    for (index, line) in text.lines().enumerate() {
        parser.line(index + 1, line);
    }
    parser.finish()
}

/// Where the keys that follow belong.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    /// No header was seen yet.
    Nowhere,
    Defaults,
    Section(usize),
    /// After a header that cannot be used: read, but not kept.
    Discard,
}

struct Parser {
    document: Document,
    names: BTreeMap<String, usize>,
    discard: Section,
    faults: Vec<Fault>,
    target: Target,
    /// The entry that an indented line continues: where it is kept, and its place there.
    open: Option<(Target, usize)>,
    /// Columns of white space before the last key or header.
    indent: usize,
}

impl Parser {
    fn new() -> Parser {
        Parser {
            document: Document::new(),
            names: BTreeMap::new(),
            discard: Section::new("", 0),
            faults: Vec::new(),
            target: Target::Nowhere,
            open: None,
            indent: 0,
        }
    }

    fn line(&mut self, number: usize, line: &str) {
        let text = strip(line);
        if text.starts_with(['#', ';']) {
            return;
        }
        if text.is_empty() {
            self.continue_value("");
            return;
        }
        let indent = line.chars().take_while(|c| is_space(*c)).count();
        if indent > self.indent && self.continue_value(text) {
            return;
        }
        self.indent = indent;
        if let Some(name) = header(text) {
            self.enter(number, name);
        } else if let Some(at) = text.find(['=', ':']) {
            // Both delimiters are one byte.
            self.key(number, strip(&text[..at]), strip(&text[at + 1..]));
        } else {
            self.strange(number, text);
        }
    }

    fn section(&mut self, target: Target) -> &mut Section {
        match target {
            Target::Defaults => &mut self.document.defaults,
            Target::Section(index) => &mut self.document.sections[index],
            Target::Nowhere | Target::Discard => &mut self.discard,
        }
    }

    /// Adds a line to the open value; false if there is none.
    fn continue_value(&mut self, text: &str) -> bool {
        let Some((target, index)) = self.open else { return false };
        if let Written::Text(value) = &mut self.section(target).entries[index].value {
            value.push('\n');
            value.push_str(text);
        }
        true
    }

    fn enter(&mut self, number: usize, name: &str) {
        self.open = None;
        self.discard = Section::new("", number);
        if name.len() > MAX_NAME {
            let message =
                format!("expected a section name of at most {MAX_NAME} bytes, got {}", shown(name));
            self.target = Target::Discard;
            self.fault(number, None, message, "shorten it");
        } else if name == DEFAULT {
            self.target = Target::Defaults;
        } else if let Some(first) = self.names.get(name) {
            let first = self.document.sections[*first].line;
            let message =
                format!("section [{}] is there twice, first in line {first}", named(name));
            self.fault(number, None, message, "join the two, or rename one");
            self.discard = Section::new(name, number);
            self.target = Target::Discard;
        } else {
            let index = self.document.sections.len();
            self.names.insert(name.to_owned(), index);
            self.document.sections.push(Section::new(name, number));
            self.target = Target::Section(index);
        }
    }

    fn key(&mut self, number: usize, key: &str, value: &str) {
        if self.target == Target::Nowhere {
            self.homeless(number, key);
            return;
        }
        if key.is_empty() {
            let message = format!("expected a key before the value {}", shown(value));
            self.fault(number, None, message, "write `key = value`");
            self.open = None;
            return;
        }
        let key = key.to_lowercase();
        let written = |text: &str| Written::Text(text.to_owned());
        let entry = Entry { key: key.clone(), value: written(value), line: number };
        let target = self.target;
        self.open = match self.section(target).add(entry) {
            Ok(place) => Some((target, place)),
            Err(first) => {
                let message = format!("this key is there twice, first in line {first}");
                self.fault(number, Some(&key), message, "keep one of the two lines");
                // Its continuation lines still need a place, out of the way.
                self.discard.entries.push(Entry { key, value: written(""), line: number });
                Some((Target::Discard, self.discard.entries.len() - 1))
            }
        };
    }

    fn homeless(&mut self, number: usize, text: &str) {
        // Once is enough: every line up to the first header has the same cure.
        if self.faults.is_empty() {
            let message = format!("expected a section header, got {}", shown(text));
            self.fault(number, None, message, "put `[name]` on a line of its own before the keys");
        }
    }

    fn strange(&mut self, number: usize, text: &str) {
        if text.starts_with('[') {
            let message = format!("expected a section header, got {}", shown(text));
            self.fault(number, None, message, "write `[name]`");
            // Whatever follows belongs to a section that has no name.
            self.open = None;
            self.target = Target::Discard;
            self.discard = Section::new("", number);
        } else if self.target == Target::Nowhere {
            self.homeless(number, text);
        } else {
            let message = format!("expected `key = value`, got {}", shown(text));
            let mend = "add `=` and a value; to continue the value above, indent the line";
            self.fault(number, None, message, mend);
        }
    }

    fn fault(&mut self, line: usize, key: Option<&str>, message: String, mend: &str) {
        if self.faults.len() >= MAX_FAULTS {
            return;
        }
        let name = self.section(self.target).name.clone();
        let section = (key.is_some() && !name.is_empty()).then_some(name);
        let key = key.map(str::to_owned);
        self.faults.push(Fault { line, section, key, message, mend: mend.to_owned() });
    }

    fn finish(mut self) -> (Document, Vec<Fault>) {
        let Document { defaults, sections, .. } = &mut self.document;
        for section in sections.iter_mut().chain([defaults]) {
            for entry in &mut section.entries {
                if let Written::Text(value) = &mut entry.value {
                    value.truncate(value.trim_end_matches(is_space).len());
                }
            }
        }
        (self.document, self.faults)
    }
}

/// The name in a header line: from the first character to the last `]`, as Python's pattern.
pub(crate) fn header(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('[')?;
    rest.rfind(']').map(|end| &rest[..end]).filter(|name| !name.is_empty())
}

/// What Python calls white space: Unicode's, and the four separators U+001C to U+001F.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}
