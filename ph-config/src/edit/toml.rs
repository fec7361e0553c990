//! Edits of a TOML file.
//!
//! `toml_edit` says where every key and value stands; the text is cut there and the new value put
//! in, so that even what its own printer would unify (line ends, a missing last one) stays.
//!
//! What a key means here: `[DEFAULT]` and `[default]` are one section, `environment.NAME` is a
//! variable in the table `environment`, `app.NAME` and `app_NAME` are a key of the application,
//! which stands in the table `app` unless the file has it as `app_NAME`. Keys are found whatever
//! their case, variables only by their exact name. A table is never replaced by a text.

use toml_edit::{Document, Item, Key, Table, TableLike, Value};

use crate::document::{self, DEFAULT};
use crate::error::{Escaped, shown};
use crate::toml::is_defaults;

use super::block::{Block, add_inline, hand, remove_inline};
use super::cut::{insert, key_text, line_start, line_stop, span, splice};
use super::key::{APP, ENVIRONMENT, normalise_key, sub_key};
use super::literal::{Form, Written, comments, list};
use super::rows::{line_end, without_end};
use super::tree::Branch;
use super::{Edit, Refusal, verify};

/// What must have changed.
pub(super) struct Revision {
    pub(super) path: Vec<String>,
    /// The canonical text of the new value.
    pub(super) value: Option<String>,
}

/// Makes the edit and checks it.
pub(super) fn edit(text: &str, edit: &Edit<'_>) -> Result<String, Refusal> {
    let document = parsed(text)?;
    let target = Target::find(document.as_table(), edit)?;
    let (after, value) = match (edit.value, &target.old) {
        (Some(value), _) => {
            let (after, written) = target.write(text, value, edit)?;
            (after, Some(written.canonical))
        }
        (None, Some((key, old))) => (target.remove(text, key, old)?, None),
        (None, None) => return Err(Refusal::absent()),
    };
    let revision = Revision { path: target.names, value };
    let read =
        Document::parse(after.as_str()).map_err(|_| Refusal::bug("the file into no TOML"))?;
    verify::toml(&Branch::of(document.as_table()), &Branch::of(read.as_table()), &revision)?;
    Ok(after)
}

/// The line of a key in a text that is TOML.
pub(super) fn line(text: &str, section: &str, key: &str) -> Option<usize> {
    let document = parsed(text).ok()?;
    let edit = Edit { section, key, value: None, keep_comment: false };
    let (key, _) = Target::find(document.as_table(), &edit).ok()?.old?;
    let start = key.span()?.start;
    Some(1 + text[..start].bytes().filter(|byte| *byte == b'\n').count())
}

fn parsed(text: &str) -> Result<Document<&str>, Refusal> {
    Document::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let message = Escaped(error.message()).to_string().replace("\\n", "; ");
        Refusal::faulty(line, &message, "mend this line first")
    })
}

/// The new value in the type of the old one, as far as the text allows.
fn replacement(
    text: &str,
    old: &Value,
    value: &str,
    edit: &Edit<'_>,
    form: Form,
) -> Result<Written, Refusal> {
    match old {
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(Written::guess(value, form)),
        Value::String(_) | Value::Datetime(_) => Ok(Written::string(value)),
        Value::Array(array) => {
            let is_command = edit.key.eq_ignore_ascii_case("command");
            let old = &text[span(array.span())?];
            list(array, old, value, is_command, line_end(text), form)
        }
        Value::InlineTable(_) => Err(whole_table(edit)),
    }
}

/// The place of the edit in the document.
struct Target<'d> {
    /// The path of the value: section, perhaps `app` or `environment`, name.
    names: Vec<String>,
    /// The table that holds it, or is to hold it, if it is there.
    table: Option<Place<'d>>,
    /// The section's own table, if it is there.
    section: Option<Place<'d>>,
    old: Option<(&'d Key, &'d Value)>,
}

/// A table of the document.
#[derive(Clone, Copy)]
enum Place<'d> {
    /// With a header, or spelled by dotted keys, or only known by the tables inside it.
    Table(&'d Table),
    Inline(&'d toml_edit::InlineTable),
}

impl<'d> Place<'d> {
    fn of(item: &'d Item, name: &str) -> Result<Place<'d>, Refusal> {
        match item {
            Item::Table(table) => Ok(Place::Table(table)),
            Item::Value(Value::InlineTable(table)) => Ok(Place::Inline(table)),
            Item::Value(_) | Item::ArrayOfTables(_) | Item::None => {
                let message =
                    format!("expected {} to be a table, got {}", shown(name), item.type_name());
                Err(Refusal::new(message, "set the whole value, or edit the file by hand"))
            }
        }
    }

    fn keys(self) -> &'d dyn TableLike {
        match self {
            Place::Table(table) => table,
            Place::Inline(table) => table,
        }
    }
}

impl<'d> Target<'d> {
    fn find(root: &'d Table, edit: &Edit<'_>) -> Result<Target<'d>, Refusal> {
        let names = match is_defaults(edit.section) {
            true => vec![DEFAULT, "default"],
            false => vec![edit.section],
        };
        let mut best: Option<Target<'d>> = None;
        for name in names {
            let Some(item) = root.get(name) else { continue };
            let target = Target::inside(Place::of(item, name)?, name, edit)?;
            let better = target.old.is_some() && best.as_ref().is_some_and(|it| it.old.is_none());
            if best.is_none() || better {
                best = Some(target);
            }
        }
        Ok(best.unwrap_or_else(|| {
            let mut names = vec![edit.section.to_owned()];
            match sub_key(edit.key) {
                Some((table, name)) => names.extend([table.to_owned(), name.to_owned()]),
                None => names.push(edit.key.to_owned()),
            }
            Target { names, table: None, section: None, old: None }
        }))
    }

    fn inside(section: Place<'d>, name: &str, edit: &Edit<'_>) -> Result<Target<'d>, Refusal> {
        let split = sub_key(edit.key);
        let flat = match split {
            Some((APP, name)) => Some(format!("app_{name}")),
            Some(_) => None,
            None => Some(edit.key.to_owned()),
        };
        let found = match &flat {
            Some(flat) => child(section.keys(), flat, false)?,
            None => None,
        };
        let mut names = vec![name.to_owned()];
        let (table, found) = match (split, found) {
            (Some((table, variable)), None) => match child(section.keys(), table, false)? {
                Some((key, item)) => {
                    names.push(key.get().to_owned());
                    let place = Place::of(item, key.get())?;
                    (Some(place), child(place.keys(), variable, table != APP)?)
                }
                None => {
                    names.push(table.to_owned());
                    (None, None)
                }
            },
            (_, found) => (Some(section), found),
        };
        let new = split.map_or(edit.key, |(_, name)| name);
        names.push(found.map_or(new, |(key, _)| key.get()).to_owned());
        let old = match found {
            Some((key, Item::Value(value))) if !matches!(value, Value::InlineTable(_)) => {
                Some((key, value))
            }
            Some(_) => return Err(whole_table(edit)),
            None => None,
        };
        Ok(Target { names, table, section: Some(section), old })
    }

    /// The text with the value in it: a number or a boolean only if the loader reads exactly the
    /// given text from it, as it does not from every way to write one.
    fn write(
        &self,
        text: &str,
        value: &str,
        edit: &Edit<'_>,
    ) -> Result<(String, Written), Refusal> {
        let mut last = None;
        for form in [Form::Typed, Form::Text] {
            let (after, written) = self.draft(text, value, edit, form)?;
            if written.is_text || self.reads_back(&after, edit, &written.meant) {
                return Ok((after, written));
            }
            last = Some((after, written));
        }
        last.ok_or_else(|| Refusal::bug("nothing"))
    }

    fn draft(
        &self,
        text: &str,
        value: &str,
        edit: &Edit<'_>,
        form: Form,
    ) -> Result<(String, Written), Refusal> {
        if let Some((_, old)) = self.old {
            let written = replacement(text, old, value, edit, form)?;
            return Ok((splice(text, span(old.span())?, &written.text), written));
        }
        // Variables and keys of the application are texts.
        let is_text = self.names.len() > 2;
        let written = if is_text { Written::string(value) } else { Written::guess(value, form) };
        Ok((self.add(text, &written.text)?, written))
    }

    /// Whether the loader finds this at the key.
    fn reads_back(&self, text: &str, edit: &Edit<'_>, meant: &document::Written) -> bool {
        let (document, _) = crate::toml::parse(text);
        let section = match is_defaults(edit.section) {
            true => Some(&document.defaults),
            false => document.section(edit.section),
        };
        let Some(section) = section else { return false };
        match (sub_key(edit.key), meant) {
            (Some((ENVIRONMENT, name)), document::Written::Text(meant)) => {
                let entry = section.entry(ENVIRONMENT).map(|entry| &entry.value);
                match entry {
                    Some(document::Written::Pairs(pairs)) => {
                        pairs.iter().any(|(pair, value)| pair == name && value == meant)
                    }
                    Some(document::Written::Text(_) | document::Written::Items(_)) | None => false,
                }
            }
            (_, meant) => {
                let entry = section.entry(&normalise_key(edit.key));
                entry.is_some_and(|entry| entry.value == *meant)
            }
        }
    }

    /// The text with the new key and its value.
    fn add(&self, text: &str, value: &str) -> Result<String, Refusal> {
        let (path, name) = self.names.split_at(self.names.len() - 1);
        let name = key_text(&name[0]);
        match self.table {
            Some(Place::Table(table)) if table.is_dotted() || !table.is_implicit() => {
                let block = Block::of(text, table)?;
                let line =
                    format!("{}{value}", block.style().apply(&format!("{}{name}", block.prefix)));
                Ok(insert(text, block.end, &[format!("{}{line}", block.indent)]))
            }
            Some(Place::Inline(table)) => add_inline(text, table, &format!("{name} = {value}")),
            Some(Place::Table(_)) | None => {
                let header: Vec<String> = path.iter().map(|name| key_text(name)).collect();
                let lines = [format!("[{}]", header.join(".")), format!("{name} = {value}")];
                let at = self.room(text)?;
                let before = without_end(&text[..at]);
                let mut all = Vec::new();
                if !before.is_empty() && !before.ends_with(['\n', '\r']) {
                    all.push(String::new());
                }
                all.extend(lines);
                Ok(insert(text, at, &all))
            }
        }
    }

    /// Where a new table goes: below the section that it belongs to, else to the end.
    fn room(&self, text: &str) -> Result<usize, Refusal> {
        match self.section {
            Some(Place::Table(table)) if table.is_dotted() => Err(hand("dotted keys")),
            Some(Place::Table(table)) if !table.is_implicit() => Ok(Block::of(text, table)?.end),
            Some(Place::Table(_)) | None => Ok(text.len()),
            Some(Place::Inline(_)) => Err(hand("a table in one line")),
        }
    }

    /// The text without the key.
    fn remove(&self, text: &str, key: &Key, old: &Value) -> Result<String, Refusal> {
        if let Some(Place::Inline(table)) = self.table {
            return remove_inline(text, table, key);
        }
        let (key, end) = (span(key.span())?.start, line_end(text));
        let start = line_start(text, key);
        let stop = line_stop(text, span(old.span())?.end);
        let cut = &text[key..stop];
        let indent: String =
            text[start..key].chars().take_while(|c| matches!(c, ' ' | '\t')).collect();
        let kept = comments(cut).into_iter().map(|comment| format!("{indent}{comment}"));
        let kept: Vec<String> = kept.collect();
        let whole = cut.ends_with('\n');
        // A file whose last line has no end keeps it so.
        let last = if whole && !kept.is_empty() { end } else { "" };
        let is_last = !whole && kept.is_empty();
        let head = if is_last { without_end(&text[..start]) } else { &text[..start] };
        Ok(format!("{head}{}{last}{}", kept.join(end), &text[stop..]))
    }
}

/// The key of this name. Two that differ in case alone leave open which one is meant.
fn child<'d>(
    table: &'d dyn TableLike,
    name: &str,
    exact: bool,
) -> Result<Option<(&'d Key, &'d Item)>, Refusal> {
    if exact {
        return Ok(table.get_key_value(name));
    }
    let wanted = name.to_lowercase();
    let mut found = table.iter().filter(|(key, _)| key.to_lowercase() == wanted);
    let first = found.next();
    if let (Some((first, _)), Some((second, _))) = (first, found.next()) {
        let message = format!("expected the key once, got {} and {}", shown(first), shown(second));
        return Err(Refusal::new(message, "keep one of the two"));
    }
    Ok(first.and_then(|(key, _)| table.get_key_value(key)))
}

fn whole_table(edit: &Edit<'_>) -> Refusal {
    let message = "expected a key with one value, got a table";
    if edit.key.eq_ignore_ascii_case("environment") {
        let mend = "edit the file, or name the variable: `environment.NAME`";
        return Refusal::new(message, mend);
    }
    Refusal::new(message, "edit the file by hand")
}
