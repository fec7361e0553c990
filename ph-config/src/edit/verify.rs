//! The last word on an edit: what was written is parsed again and compared with what was there.

use crate::document::{Document, Entry, Section, Written};
use crate::ini;

use super::ini::Draft;
use super::toml::{Leaf, Revision};
use super::{Edit, Refusal};

/// Requires that an INI text differs from what it was by the edit alone.
pub(super) fn ini(before: &Document, draft: &Draft, edit: &Edit<'_>) -> Result<(), Refusal> {
    let (after, faults) = ini::parse(&draft.text);
    if let Some(fault) = faults.first() {
        return Err(Refusal::bug(&format!("line {} into a mistake", fault.line)));
    }
    let key = edit.key.to_lowercase();
    let found = |section: &Section| section.name == edit.section;
    let is_there = all(before).any(found);
    let names_before = all(before).map(|section| section.name.as_str());
    let new = (!is_there).then_some(edit.section);
    if !names_before.chain(new).eq(all(&after).map(|section| section.name.as_str())) {
        return Err(Refusal::bug("the sections"));
    }
    let mut olds = all(before);
    for new in all(&after) {
        let skip = found(new).then_some(key.as_str());
        // A section that was added had no values.
        let old = olds.next().into_iter().flat_map(|old| others(old, skip));
        if !old.eq(others(new, skip)) {
            return Err(Refusal::bug("other values"));
        }
    }
    let mut entries = all(&after).filter(|section| found(section)).flat_map(|it| &it.entries);
    let value = entries.find(|entry| entry.key == key).and_then(|entry| entry.value.as_text());
    if value != draft.value.as_deref() {
        return Err(Refusal::bug("the value into another one"));
    }
    let (old, new) = (place(before, edit, &key), place(&after, edit, &key));
    if old.is_some() && new.is_some() && old != new {
        return Err(Refusal::bug("the order of the keys"));
    }
    Ok(())
}

/// All sections, the inherited one first.
fn all(document: &Document) -> impl Iterator<Item = &Section> {
    std::iter::once(&document.defaults).chain(&document.sections)
}

fn others<'d>(
    section: &'d Section,
    skip: Option<&'d str>,
) -> impl Iterator<Item = (&'d str, &'d Written)> {
    let kept = move |entry: &&Entry| skip != Some(entry.key.as_str());
    section.entries.iter().filter(kept).map(|entry| (entry.key.as_str(), &entry.value))
}

/// Which of its section's keys the edited one is.
fn place(document: &Document, edit: &Edit<'_>, key: &str) -> Option<usize> {
    let section = all(document).find(|section| section.name == edit.section)?;
    section.entries.iter().position(|entry| entry.key == key)
}

/// The same for a TOML text; `before` and `after` are all its tables and values in order.
pub(super) fn toml(before: &[Leaf], after: &[Leaf], revision: &Revision) -> Result<(), Refusal> {
    let path = &revision.path;
    let at = |leaves: &[Leaf]| leaves.iter().position(|leaf| leaf.path == *path);
    let (old, new) = (at(before), at(after));
    let value = new.and_then(|at| after[at].value.as_deref());
    if value != revision.value.as_deref() {
        return Err(Refusal::bug("the value into another one"));
    }
    if old.is_some() && new.is_some() && old != new {
        return Err(Refusal::bug("the order of the keys"));
    }
    // Tables around a new value may be new; none may vanish.
    let is_around = |leaf: &Leaf| leaf.value.is_none() && path.starts_with(&leaf.path);
    let others = |leaves: &'_ [Leaf]| -> Vec<Leaf> {
        let others = leaves.iter().filter(|leaf| leaf.path != *path && !is_around(leaf));
        others.cloned().collect()
    };
    if others(before) != others(after) {
        return Err(Refusal::bug("other values"));
    }
    let around = |leaves: &[Leaf]| leaves.iter().filter(|leaf| is_around(leaf)).count();
    if around(before) > around(after) {
        return Err(Refusal::bug("the tables"));
    }
    Ok(())
}
