//! Edits of a TOML file.
//!
//! `toml_edit` says where every key and value stands; the text is cut there and the new value put
//! in, so that even what its own printer would unify (line ends, a missing last one) stays.
//!
//! What a key means here: `[DEFAULT]` and `[default]` are one section, `environment.NAME` is a
//! variable in the table `environment`, `app.NAME` and `app_NAME` are a key of the application,
//! which stands in the table `app` unless the file has it as `app_NAME`. Keys are found whatever
//! their case, variables only by their exact name. A table is never replaced by a text.

use std::ops::Range;

use toml_edit::{Document, Item, Key, Table, TableLike, Value};

use crate::document::DEFAULT;
use crate::error::{Escaped, shown};

use super::literal::{Written, canonical, list, quoted};
use super::rows::{line_end, without_end};
use super::style::{Gap, Style};
use super::{Edit, Refusal, verify};

/// A table, or a value with its canonical text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) path: Vec<String>,
    /// `None` for a table.
    pub(super) value: Option<String>,
}

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
        (Some(value), Some((_, old))) => {
            let value = replacement(text, old, value, edit)?;
            (splice(text, span(old.span())?, &value.text), Some(value.canonical))
        }
        (Some(value), None) => {
            // Variables and keys of the application are texts.
            let is_text = target.names.len() > 2;
            let value = if is_text { Written::string(value) } else { Written::guess(value) };
            (target.add(text, &value.text)?, Some(value.canonical))
        }
        (None, Some((key, old))) => (target.remove(text, key, old)?, None),
        (None, None) => return Err(Refusal::absent()),
    };
    let revision = Revision { path: target.names, value };
    let read =
        Document::parse(after.as_str()).map_err(|_| Refusal::bug("the file into no TOML"))?;
    verify::toml(&leaves(document.as_table()), &leaves(read.as_table()), &revision)?;
    Ok(after)
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
fn replacement(text: &str, old: &Value, value: &str, edit: &Edit<'_>) -> Result<Written, Refusal> {
    match old {
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(Written::guess(value)),
        Value::String(_) | Value::Datetime(_) => Ok(Written::string(value)),
        Value::Array(array) => {
            let is_command = edit.key.eq_ignore_ascii_case("command");
            let old = &text[span(array.span())?];
            list(array, old, value, is_command, line_end(text))
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
        let is_default = edit.section == DEFAULT || edit.section == "default";
        let names = if is_default { vec![DEFAULT, "default"] } else { vec![edit.section] };
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
            Some(("app", name)) => Some(format!("app_{name}")),
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
                    (Some(place), child(place.keys(), variable, table != "app")?)
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
        let start = line_start(text, span(key.span())?.start);
        let stop = line_stop(text, span(old.span())?.end);
        let whole = text[..stop].ends_with('\n');
        let head = if whole { &text[..start] } else { without_end(&text[..start]) };
        Ok(format!("{head}{}", &text[stop..]))
    }
}

/// The table and the name in it that a key with a point, or with `app_`, stands for.
fn sub_key(key: &str) -> Option<(&'static str, &str)> {
    let heads = [("environment.", "environment"), ("app.", "app"), ("app_", "app")];
    heads.into_iter().find_map(|(head, table)| {
        let (start, name) = key.split_at_checked(head.len())?;
        (start.eq_ignore_ascii_case(head) && !name.is_empty()).then_some((table, name))
    })
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

fn hand(what: &str) -> Refusal {
    let message = format!("expected a section with a header of its own, got {what}");
    Refusal::new(message, "add the key to the file by hand")
}

/// The keys of a table that stand in lines of their own, to put one more below them.
struct Block<'t> {
    gaps: Vec<Gap<'t>>,
    indent: &'t str,
    /// What stands before a name: nothing, or `table.` where keys are dotted.
    prefix: &'t str,
    /// Where the line after the last one starts.
    end: usize,
}

impl<'t> Block<'t> {
    fn of(text: &'t str, table: &Table) -> Result<Block<'t>, Refusal> {
        let header = if table.is_dotted() { 0 } else { span(table.span())?.end };
        let mut block = Block { gaps: Vec::new(), indent: "", prefix: "", end: header };
        let mut pending = vec![table];
        while let Some(current) = pending.pop() {
            for (name, item) in current {
                match item {
                    Item::Table(inner) if inner.is_dotted() => pending.push(inner),
                    Item::Value(value) => {
                        let value = span(value.span())?;
                        block.end = block.end.max(value.end);
                        if let Some(key) =
                            current.key(name).filter(|_| std::ptr::eq(current, table))
                        {
                            block.push(text, span(key.span())?, value);
                        }
                    }
                    Item::Table(_) | Item::ArrayOfTables(_) | Item::None => {}
                }
            }
        }
        block.end = line_stop(text, block.end);
        if table.is_dotted() && block.gaps.is_empty() {
            return Err(hand("dotted keys"));
        }
        Ok(block)
    }

    fn push(&mut self, text: &'t str, key: Range<usize>, value: Range<usize>) {
        let line = &text[line_start(text, key.start)..];
        self.indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
        let head = line_start(text, key.start) + self.indent.len();
        self.prefix = &text[head..key.start];
        let gap = &text[key.end..value.start];
        let (before, after) = gap.split_once('=').unwrap_or((" ", " "));
        let width = text[head..key.end].chars().count();
        self.gaps.push(Gap { width, before, delimiter: "=", after, filled: true });
    }

    fn style(&self) -> Style {
        Style::of(&self.gaps)
    }
}

fn add_inline(text: &str, table: &toml_edit::InlineTable, entry: &str) -> Result<String, Refusal> {
    let outer = span(table.span())?;
    let mut last = None;
    for (_, value) in table {
        last = last.max(Some(span(value.span())?.end));
    }
    match last {
        Some(last) => Ok(splice(text, last..last, &format!(", {entry}"))),
        None => Ok(splice(text, outer, &format!("{{ {entry} }}"))),
    }
}

fn remove_inline(text: &str, table: &toml_edit::InlineTable, key: &Key) -> Result<String, Refusal> {
    let mut entries = Vec::new();
    for (name, value) in table {
        let (Some(key), Some(value)) = (table.key(name).and_then(Key::span), value.span()) else {
            return Err(hand("dotted keys"));
        };
        entries.push(key.start..value.end);
    }
    let start = span(key.span())?.start;
    let at = entries.iter().position(|entry| entry.start == start);
    let cut = match at {
        Some(0) if entries.len() == 1 => entries[0].clone(),
        Some(0) => entries[0].start..entries[1].start,
        Some(at) => entries[at - 1].end..entries[at].end,
        None => return Err(Refusal::bug("another key")),
    };
    Ok(splice(text, cut, ""))
}

/// Every table and value below this one, in the order of the file.
fn leaves(root: &Table) -> Vec<Leaf> {
    let mut all = Vec::new();
    collect(root, &mut Vec::new(), &mut all);
    all
}

/// As deep as the parser allows, which has a limit of its own.
fn collect(table: &dyn TableLike, path: &mut Vec<String>, all: &mut Vec<Leaf>) {
    for (name, item) in table.iter() {
        path.push(name.to_owned());
        let inner = item.as_table_like();
        let value = match (item, inner) {
            (Item::ArrayOfTables(tables), _) => Some(tables.len().to_string()),
            (Item::Value(value), None) => Some(canonical(value)),
            (Item::Value(_) | Item::Table(_) | Item::None, _) => None,
        };
        // A table that only dotted keys speak of comes and goes with them.
        if value.is_some() || inner.is_some_and(|table| !table.is_dotted()) {
            all.push(Leaf { path: path.clone(), value });
        }
        if let Some(inner) = inner {
            collect(inner, path, all);
        }
        for (index, table) in item.as_array_of_tables().into_iter().flatten().enumerate() {
            path.push(index.to_string());
            collect(table, path, all);
            path.pop();
        }
        path.pop();
    }
}

/// A key as it is written: bare if it can be.
fn key_text(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

fn span(span: Option<Range<usize>>) -> Result<Range<usize>, Refusal> {
    span.ok_or_else(|| Refusal::bug("a value without a place"))
}

fn splice(text: &str, at: Range<usize>, new: &str) -> String {
    format!("{}{new}{}", &text[..at.start], &text[at.end..])
}

/// Puts whole lines where a line starts, or behind a last line without an end.
fn insert(text: &str, at: usize, lines: &[String]) -> String {
    let end = line_end(text);
    let mut new = lines.join(end) + end;
    if at > 0 && !text[..at].ends_with('\n') {
        new.insert_str(0, end);
    }
    splice(text, at..at, &new)
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |before| before + 1)
}

fn line_stop(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |length| at + length + 1)
}
