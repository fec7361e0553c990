//! What the files of a configuration say about one key, for somebody who edits it.
//!
//! A load answers which value holds and why; an edit asks less and more: what one file says, what
//! would hold if only files spoke, and what of a text is a comment. The answers are texts as they
//! are written, neither interpolated nor typed, and there are some also where a load is refused.

use std::borrow::Cow;
use std::path::Path;

use crate::document::{DEFAULT, Entry, Section, Written};
use crate::error::Origin;
use crate::format::Format;
use crate::interpolate::References;
use crate::keys::{self, app_name, without_comments};
use crate::layers::{Layer, Merged, merge_own};
use crate::settings;
use crate::source::{Configuration, Part};

use super::key::{normalise_key, variable, whole_key};

impl Configuration {
    /// What the file of this name, as messages spell it, says about a key in a section or in
    /// `DEFAULT`, and where. A comment after the value is left out.
    pub fn written_in(&self, file: &Path, section: &str, key: &str) -> Option<(String, Origin)> {
        let key = normalise_key(key);
        let part = self.files.iter().find(|part| part.file.shown == file)?;
        let (text, entry) = entry_text(part.section(section)?, &key)?;
        Some(self.value(part, section, &key, &text, entry))
    }

    /// What would hold for a key in a section, or in `DEFAULT`, if there were neither variables nor
    /// a command line, and where it is said. `None` if nothing is said, not even by the table.
    pub fn prevailing(&self, section: &str, key: &str) -> Option<(String, Origin)> {
        let key = normalise_key(key);
        for section in [section, DEFAULT] {
            for part in self.files.iter().rev() {
                let Some(found) = part.section(section) else { continue };
                if let Some((text, entry)) = entry_text(found, &key) {
                    return Some(self.value(part, section, &key, &text, entry));
                }
                if found.entry(whole_key(&key)).is_some() {
                    // The variables that hold are those of this value, and no weaker one's.
                    return None;
                }
            }
        }
        let row = settings::find(&key)?;
        Some((row.default.to_owned(), Origin::Default))
    }

    /// Whether a `;` after white space begins a comment in the value of this key where an INI file
    /// has it in this section, or in `DEFAULT`: that of a setting which takes comments, and that of
    /// a key which only such settings use.
    pub fn takes_comment(&self, section: &str, key: &str) -> bool {
        let key = normalise_key(key);
        if settings::find(&key).is_some() || app_name(&key).is_some() || variable(&key).is_some() {
            return keys::takes_comment(&key);
        }
        if section != DEFAULT || self.sections().is_empty() {
            return self.helps_typed_alone(section, &key);
        }
        // What is a comment to one of them must not get lost, nor become one unnoticed.
        self.sections().iter().any(|section| self.helps_typed_alone(section, &key))
    }

    /// The rule of the loader for keys that are no settings.
    fn helps_typed_alone(&self, section: &str, key: &str) -> bool {
        let layers = self.parts(section).map(|(file, section)| Layer::section(file, section));
        let layers: Vec<Layer<'_>> = layers.collect();
        let merged = Merged::new(self.inherited(), merge_own(section, &layers));
        let mut references = References::default();
        for (key, raw) in merged.iter() {
            references.add(key, raw.written.texts());
        }
        references.reached(keys::takes_comment).contains(key)
            && !references.reached(keys::is_free).contains(key)
    }

    fn value(
        &self,
        part: &Part,
        section: &str,
        key: &str,
        text: &str,
        entry: &Entry,
    ) -> (String, Origin) {
        let may_comment = part.file.format == Format::Ini && text.contains(';');
        let short = (may_comment && self.takes_comment(section, key))
            .then(|| without_comments(text))
            .flatten();
        let origin = Origin::File { path: part.file.shown.clone(), line: entry.line };
        (short.unwrap_or_else(|| text.to_owned()), origin)
    }
}

/// The text of a normalised key, or of one variable among those of a table, and where it stands.
pub(crate) fn entry_text<'s>(section: &'s Section, key: &str) -> Option<(Cow<'s, str>, &'s Entry)> {
    let entry = section.entry(whole_key(key))?;
    let Some(name) = variable(key) else { return Some((entry.value.text(key), entry)) };
    match &entry.value {
        Written::Pairs(pairs) => {
            let (_, value) = pairs.iter().find(|(pair, _)| pair == name)?;
            Some((Cow::Borrowed(value), entry))
        }
        Written::Text(_) | Written::Items(_) => None,
    }
}
