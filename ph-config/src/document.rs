//! A parsed file, whatever language it is written in: sections, keys, values, lines.
//!
//! Values are as they were written: nothing is interpolated or typed yet. INI knows only text;
//! TOML also writes lists and tables, and those stay lists and tables until every part of them
//! was interpolated, so that an inserted comma or quote cannot change their number.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

use crate::settings;
use crate::value::{Shape, command_line, variables};

/// The section every other one inherits from.
pub const DEFAULT: &str = "DEFAULT";

/// How long the name of a section may be, in bytes: what is said of each of its keys repeats it, and
/// a megabyte a key is more than a machine has.
pub(crate) const MAX_NAME: usize = 256;

/// A parsed file.
#[derive(Debug)]
pub(crate) struct Document {
    /// What all sections inherit.
    pub(crate) defaults: Section,
    /// The other sections in file order.
    pub(crate) sections: Vec<Section>,
    /// Their places by name, once somebody asks.
    places: OnceCell<HashMap<String, usize>>,
}

/// One section and its keys in file order.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) entries: Vec<Entry>,
    pub(crate) line: usize,
    index: BTreeMap<String, usize>,
}

/// One key with its raw value.
#[derive(Debug)]
pub(crate) struct Entry {
    /// In lower case.
    pub(crate) key: String,
    pub(crate) value: Written,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// A value as a file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// In INI: lines joined by `\n`, each without white space around it.
    Text(String),
    /// The items of a TOML list.
    Items(Vec<String>),
    /// The names and values of a TOML table.
    Pairs(Vec<(String, String)>),
}

/// A line that is not understood.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Counted from 1; 0 if it is the file as a whole.
    pub(crate) line: usize,
    pub(crate) section: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) message: String,
    pub(crate) mend: String,
}

impl Document {
    pub(crate) fn new() -> Document {
        Document {
            defaults: Section::new(DEFAULT, 0),
            sections: Vec::new(),
            places: OnceCell::new(),
        }
    }

    /// The section of this name; the only way to `[DEFAULT]` is its field.
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        let places = self.places.get_or_init(|| {
            let names = self.sections.iter().map(|section| section.name.clone());
            names.zip(0..).collect()
        });
        places.get(name).map(|place| &self.sections[*place])
    }
}

impl Section {
    pub(crate) fn new(name: &str, line: usize) -> Section {
        Section { name: name.to_owned(), entries: Vec::new(), line, index: BTreeMap::new() }
    }

    /// The entry of this key, which is in lower case.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).map(|index| &self.entries[*index])
    }

    /// Adds an entry, and answers its place; a key that is there already is answered with its line.
    pub(crate) fn add(&mut self, entry: Entry) -> Result<usize, usize> {
        if let Some(first) = self.entry(&entry.key) {
            return Err(first.line);
        }
        let place = self.entries.len();
        self.index.insert(entry.key.clone(), place);
        self.entries.push(entry);
        Ok(place)
    }
}

impl Written {
    /// The text, if that is what it is.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Items(_) | Self::Pairs(_) => None,
        }
    }

    /// The value as one text, the value of `key`, as an INI file would have it.
    pub(crate) fn text(&self, key: &str) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Items(items) => {
                let is_command = settings::find(key).is_some_and(|row| row.shape == Shape::Words);
                Cow::Owned(if is_command {
                    command_line(items.iter().map(String::as_str))
                } else {
                    items.join(", ")
                })
            }
            Self::Pairs(pairs) => Cow::Owned(variables(pairs)),
        }
    }

    /// All texts in it that can refer to other values.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let (text, items, pairs) = match self {
            Self::Text(text) => (Some(text), &[][..], &[][..]),
            Self::Items(items) => (None, items.as_slice(), &[][..]),
            Self::Pairs(pairs) => (None, &[][..], pairs.as_slice()),
        };
        let texts = text.into_iter().chain(items).chain(pairs.iter().map(|(_, value)| value));
        texts.map(String::as_str)
    }
}
