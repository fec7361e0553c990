//! The last word on an edit: what was written is parsed again and compared with what was there.

use crate::document::{Document, Entry, Section, Written};
use crate::ini;

use super::ini::Draft;
use super::toml::Revision;
use super::tree::{Branch, Comparison};
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

/// The same for a TOML text; `before` and `after` are all that it says.
pub(super) fn toml(
    before: &Branch<'_>,
    after: &Branch<'_>,
    revision: &Revision,
) -> Result<(), Refusal> {
    let path = &revision.path;
    if after.value(path).map(|leaf| leaf.text.as_str()) != revision.value.as_deref() {
        return Err(Refusal::bug("the value into another one"));
    }
    let mut comparison = Comparison::default();
    if !comparison.is_same_but(before, after, path) {
        return Err(Refusal::bug("other values"));
    }
    if !comparison.keeps_order() {
        return Err(Refusal::bug("the order of the keys"));
    }
    Ok(())
}
