//! Where keys stand in a TOML table: each in a line of its own, or all between braces.

use std::ops::Range;

use toml_edit::{InlineTable, Item, Key, Table};

use super::Refusal;
use super::cut::{line_start, line_stop, span, splice};
use super::literal::comments;
use super::style::{Gap, Style};

/// The keys of a table that stand in lines of their own, to put one more below them.
pub(super) struct Block<'t> {
    gaps: Vec<Gap<'t>>,
    pub(super) indent: &'t str,
    /// What stands before a name: nothing, or `table.` where keys are dotted.
    pub(super) prefix: &'t str,
    /// Where the line after the last one starts.
    pub(super) end: usize,
}

impl<'t> Block<'t> {
    pub(super) fn of(text: &'t str, table: &Table) -> Result<Block<'t>, Refusal> {
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

    pub(super) fn style(&self) -> Style {
        Style::of(&self.gaps)
    }
}

pub(super) fn hand(what: &str) -> Refusal {
    let message = format!("expected a section with a header of its own, got {what}");
    Refusal::new(message, "change the key in the file by hand")
}

/// Puts an entry behind the last one between the braces.
pub(super) fn add_inline(text: &str, table: &InlineTable, entry: &str) -> Result<String, Refusal> {
    let outer = span(table.span())?;
    let mut last = None;
    for (_, value) in table {
        let Some(value) = value.span() else { return Err(hand("dotted keys")) };
        last = last.max(Some(value.end));
    }
    match last {
        Some(last) => Ok(splice(text, last..last, &format!(", {entry}"))),
        None if !comments(&text[outer.clone()]).is_empty() => Err(hand("a table with comments")),
        None => Ok(splice(text, outer, &format!("{{ {entry} }}"))),
    }
}

/// Takes an entry out from between the braces, with one comma.
pub(super) fn remove_inline(text: &str, table: &InlineTable, key: &Key) -> Result<String, Refusal> {
    let outer = span(table.span())?;
    if !comments(&text[outer]).is_empty() {
        // Nobody can know which of them still belongs to what.
        return Err(hand("a table with comments"));
    }
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
        Some(0) if entries.len() == 1 => {
            let Range { start, end } = entries[0].clone();
            let gap = &text[end..];
            let comma = gap.len() - gap.trim_start().len();
            // A comma may stand behind the last one, too.
            start..if gap[comma..].starts_with(',') { end + comma + 1 } else { end }
        }
        Some(0) => entries[0].start..entries[1].start,
        Some(at) => entries[at - 1].end..entries[at].end,
        None => return Err(Refusal::bug("another key")),
    };
    Ok(splice(text, cut, ""))
}
