//! What the keys of a section are, before anybody reads their values.
//!
//! A key is a setting, a key of the application (`app_NAME`), or a helper that exists only to be
//! interpolated; any other is a mistake worth naming. The comment rule of Python 2 depends on the
//! same question, so it is here too: a `;` after white space ends a value that will become a
//! number, a path or the like, but a command or an application may well mean it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::document::{DEFAULT, Document, Section, Written};
use crate::error::{Origin, Place, Problem, Report, named, nearest, shown};
use crate::ini::is_space;
use crate::interpolate::References;
use crate::layers::{Merged, Raw};
use crate::settings::{self, SETTINGS};
use crate::value::Shape;

/// The name of an application's own key, without `app_`.
pub(crate) fn app_name(key: &str) -> Option<&str> {
    key.strip_prefix("app_").filter(|name| !name.is_empty())
}

/// Whether any character may mean itself in the value of this setting.
pub(crate) fn is_free(key: &str) -> bool {
    app_name(key).is_some() || settings::find(key).is_some_and(|row| !is_typed_shape(row.shape))
}

/// Whether a `;` after white space ends the value of this setting in an INI file, and begins a
/// comment.
pub fn takes_comment(key: &str) -> bool {
    is_typed(&key.to_lowercase())
}

/// Whether a value of this key becomes something typed.
fn is_typed(key: &str) -> bool {
    settings::find(key).is_some_and(|row| is_typed_shape(row.shape))
}

fn is_typed_shape(shape: Shape) -> bool {
    match shape {
        Shape::Line | Shape::Share | Shape::Lines => true,
        Shape::Words | Shape::Pairs | Shape::Text => false,
    }
}

/// Cuts comments off values from files: of typed settings, and of helpers that only those use.
pub(crate) fn cut_comments(merged: &mut Merged<'_>, report: &mut Report) {
    let may_comment = |(_, raw): &(&str, &Raw)| {
        raw.has_comments && matches!(&raw.written, Written::Text(text) if text.contains(';'))
    };
    if !merged.iter().any(|value| may_comment(&value)) {
        return;
    }
    let mut references = References::default();
    for (key, raw) in merged.iter() {
        references.add(key, raw.written.texts());
    }
    let of_free = references.reached(is_free);
    let of_typed = references.reached(is_typed);
    let mut cut = Vec::new();
    for (key, raw) in merged.iter().filter(may_comment) {
        let helper = of_typed.contains(key) && !of_free.contains(key);
        if is_free(key) || !(is_typed(key) || helper) {
            continue;
        }
        let written = raw.written.text(key);
        let Some(text) = without_comments(&written) else { continue };
        let message = format!(
            "expected a value only, got {}; what follows the `;` counts as a comment",
            shown(&written)
        );
        let mend = "move the comment to a line of its own";
        let place = Place::Value(raw.origin.clone());
        report.warn(Problem::new(place, message, mend).about(&raw.section, key));
        cut.push((key.to_owned(), text));
    }
    for (key, text) in cut {
        merged.rewrite(&key, Written::Text(text));
    }
}

/// The value without what follows a `;` at its start or after white space; `None` if it has none.
pub(crate) fn without_comments(text: &str) -> Option<String> {
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
///
/// `sections` are what a file says for the section that is loaded; `used` answers which keys any
/// section of any file needs.
pub(crate) fn refuse_unknown<'d, 'u>(
    merged: &Merged<'_>,
    sections: impl Iterator<Item = &'d Section>,
    used: impl FnOnce() -> &'u BTreeSet<String>,
    tolerant: bool,
    report: &mut Report,
) {
    let set = || merged.iter().filter(|(_, raw)| raw.origin != Origin::Default);
    if set().all(|(key, _)| is_known(key)) {
        return;
    }
    // What the file says counts even where an override hides it: giving `pidfile` by a flag must
    // not turn the helper of the file's own pidfile into a mistake.
    let mut here = References::default();
    for (key, raw) in merged.iter() {
        here.add(key, raw.written.texts());
    }
    add_entries(&mut here, sections);
    let here = here.reached(is_known);
    // [DEFAULT] also holds helpers of the other sections.
    let used = used();
    let is_used =
        |key: &str, raw: &Raw| here.contains(key) || (raw.section == DEFAULT && used.contains(key));
    for (key, raw) in set() {
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

/// The keys that settings and application keys of any section refer to, directly or through others.
pub(crate) fn used<'d>(documents: impl Iterator<Item = &'d Document>) -> BTreeSet<String> {
    let mut anywhere = References::default();
    for document in documents {
        add_entries(&mut anywhere, document.sections.iter().chain([&document.defaults]));
    }
    anywhere.reached(is_known).into_iter().map(str::to_owned).collect()
}

fn is_known(key: &str) -> bool {
    settings::find(key).is_some() || app_name(key).is_some()
}

fn add_entries<'a>(references: &mut References, sections: impl Iterator<Item = &'a Section>) {
    for entry in sections.flat_map(|section| &section.entries) {
        references.add(&entry.key, entry.value.texts());
    }
}

fn unknown(key: &str, raw: &Raw) -> Problem {
    let mend = match nearest(key, SETTINGS.iter().map(|row| row.name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            format!("take it out; a key for the application itself is called `app_{}`", named(key))
        }
    };
    let message =
        format!("expected a known key, got one with the value {}", shown(&raw.written.text(key)));
    Problem::new(Place::Value(raw.origin.clone()), message, mend).about(&raw.section, key)
}

/// Warns of a section that looks like the inherited one but is not.
pub(crate) fn warn_of_default(document: &Document, file: &Path, report: &mut Report) {
    for section in &document.sections {
        if section.name.trim().eq_ignore_ascii_case(DEFAULT) {
            let origin = Origin::File { path: file.to_owned(), line: section.line };
            let message = format!(
                "expected [DEFAULT], got [{}], which no section inherits",
                named(&section.name)
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
