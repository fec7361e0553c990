//! What the keys of a section are, before anybody reads their values.
//!
//! A key is a setting, a key of the application (`app_NAME`), or a helper that exists only to be
//! interpolated; any other is a mistake worth naming. The comment rule of Python 2 depends on the
//! same question, so it is here too: a `;` after white space ends a value that will become a
//! number, a path or the like, but a command or an application may well mean it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Escaped, Origin, Place, Problem, Report, nearest, shown};
use crate::ini::{self, Document, Section, is_space};
use crate::interpolate::References;
use crate::layers::Raw;
use crate::settings::{self, SETTINGS};
use crate::value::Shape;

type Merged = BTreeMap<String, Raw>;

/// The name of an application's own key, without `app_`.
pub(crate) fn app_name(key: &str) -> Option<&str> {
    key.strip_prefix("app_").filter(|name| !name.is_empty())
}

/// Whether any character may mean itself in the value of this setting.
fn is_free(key: &str) -> bool {
    app_name(key).is_some() || settings::find(key).is_some_and(|row| row.shape == Shape::Free)
}

/// Whether a value of this key becomes something typed.
fn is_typed(key: &str) -> bool {
    settings::find(key).is_some_and(|row| row.shape != Shape::Free)
}

/// Cuts comments off values from files: of typed settings, and of helpers that only those use.
pub(crate) fn cut_comments(merged: &mut Merged, report: &mut Report) {
    let mut references = References::default();
    for (key, raw) in merged.iter() {
        references.add(key, &raw.text);
    }
    let of_free = references.reached(is_free);
    let of_typed = references.reached(is_typed);
    for (key, raw) in merged.iter_mut() {
        let helper = of_typed.contains(key.as_str()) && !of_free.contains(key.as_str());
        let from_file = matches!(raw.origin, Origin::File { .. });
        if !from_file || is_free(key) || !(is_typed(key) || helper) {
            continue;
        }
        let Some(text) = without_comments(&raw.text) else { continue };
        let message = format!(
            "expected a value only, got {}; what follows the `;` counts as a comment",
            shown(&raw.text)
        );
        let mend = "move the comment to a line of its own";
        let place = Place::Value(raw.origin.clone());
        report.warn(Problem::new(place, message, mend).about(&raw.section, key));
        raw.text = text;
    }
}

/// The value without what follows a `;` at its start or after white space; `None` if it has none.
fn without_comments(text: &str) -> Option<String> {
    let cut = |line: &str| {
        let mut before = ' ';
        for (at, c) in line.char_indices() {
            if c == ';' && is_space(before) {
                return line[..at].trim_end_matches(is_space).len();
            }
            before = c;
        }
        line.len()
    };
    let lines: Vec<&str> = text.split('\n').map(|line| &line[..cut(line)]).collect();
    let short = lines.join("\n");
    (short.len() < text.len()).then_some(short)
}

/// Reports every key that is neither a setting, nor the application's, nor a helper.
pub(crate) fn refuse_unknown(
    merged: &Merged,
    file: Option<(&Document, &Section)>,
    tolerant: bool,
    report: &mut Report,
) {
    let is_known = |key: &str| settings::find(key).is_some() || app_name(key).is_some();
    if merged.keys().all(|key| is_known(key)) {
        return;
    }
    // What the file says counts even where an override hides it: giving `pidfile` by a flag must
    // not turn the helper of the file's own pidfile into a mistake.
    let mut here = References::default();
    merged.iter().for_each(|(key, raw)| here.add(key, &raw.text));
    // [DEFAULT] also holds helpers of the other sections.
    let mut anywhere = References::default();
    if let Some((document, section)) = file {
        add_entries(&mut here, [&document.defaults, section]);
        add_entries(&mut anywhere, document.sections.iter().chain([&document.defaults]));
    }
    let (here, anywhere) = (here.reached(is_known), anywhere.reached(is_known));
    let is_used = |key: &str, raw: &Raw| {
        here.contains(key) || (raw.section == ini::DEFAULT && anywhere.contains(key))
    };
    for (key, raw) in merged {
        if is_known(key) || is_used(key, raw) {
            continue;
        }
        if tolerant {
            report.warn_by(|| unknown(key, raw));
        } else {
            report.error_by(|| unknown(key, raw));
        }
    }
}

fn add_entries<'a>(references: &mut References, sections: impl IntoIterator<Item = &'a Section>) {
    for entry in sections.into_iter().flat_map(|section| &section.entries) {
        references.add(&entry.key, &entry.value);
    }
}

fn unknown(key: &str, raw: &Raw) -> Problem {
    let mend = match nearest(key, SETTINGS.iter().map(|row| row.name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "take it out; a key for the application itself is called `app_{}`",
            Escaped(&key.chars().take(64).collect::<String>())
        ),
    };
    let message = format!("expected a known key, got one with the value {}", shown(&raw.text));
    Problem::new(Place::Value(raw.origin.clone()), message, mend).about(&raw.section, key)
}

/// Warns of a section that looks like the inherited one but is not.
pub(crate) fn warn_of_default(document: &Document, file: &Path, report: &mut Report) {
    for section in &document.sections {
        if section.name.trim().eq_ignore_ascii_case(ini::DEFAULT) {
            let origin = Origin::File { path: file.to_owned(), line: section.line };
            let message = format!(
                "expected [DEFAULT], got [{}], which no section inherits",
                Escaped(&section.name)
            );
            let mend = "write [DEFAULT] exactly so, or give the section another name";
            report.warn(Problem::new(Place::Value(origin), message, mend));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_need_white_space_before_them() {
        assert_eq!(without_comments("3 ; three").as_deref(), Some("3"));
        assert_eq!(without_comments("; nothing").as_deref(), Some(""));
        assert_eq!(without_comments(":80\t;a\n:81 ;b").as_deref(), Some(":80\n:81"));
        assert_eq!(without_comments("a;b ;c ;d").as_deref(), Some("a;b"));
        assert_eq!(without_comments("a;b"), None);
    }
}
