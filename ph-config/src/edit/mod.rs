//! One value written back into a configuration file, everything else left as it was.
//!
//! People keep comments, an order and an alignment in these files, so a file is never printed
//! anew: [`edit()`] finds the characters that hold the value and changes those alone. Line ends,
//! a byte order mark and a missing last line end stay. It is pure; [`EditableFile`] brings the text
//! from the disk and back.
//!
//! Limits. A file with mistakes is refused, because nobody can say what an edit of it would mean.
//! A value or a name that would be read back as something else is refused, and why. And whatever
//! was written is parsed once more before it is handed out: the key has exactly the new value, and
//! every other section, key and value is there in the same order. If that does not hold, the text
//! is dropped and the error says that this is a bug in ph.

mod block;
mod cut;
mod file;
mod ini;
mod key;
mod literal;
mod lookup;
mod rows;
mod style;
#[cfg(test)]
mod tests;
mod toml;
mod tree;
mod trial;
mod verify;

use std::fmt;
use std::path::Path;

use crate::document::DEFAULT;
use crate::error::{Escaped, Place, Problem, shown};
use crate::format::Format;
use crate::read::MAX_BYTES;

pub use file::{EditableFile, FileError};
pub use key::{normalise_key, whole_key};
pub(crate) use lookup::entry_text;
pub use trial::{Trial, Verdict};

/// One value to write, or one key to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit<'a> {
    /// The section, or `DEFAULT`. It is added at the end of the file if it is not there.
    pub section: &'a str,
    /// The key; its case does not matter. `app.NAME` is the same as `app_NAME`, and in TOML
    /// `environment.NAME` is one variable, whose name counts to the letter.
    pub key: &'a str,
    /// The value as it stands in an INI file, its lines divided by `\n`. `None` removes the key.
    pub value: Option<&'a str>,
    /// Whether the loader of this key takes ` ; …` in an INI file for a comment. A comment after
    /// the old value then stays, and a new value that looks like one is refused.
    pub keep_comment: bool,
}

/// Why a value was not written.
///
/// Prints as `[section] key: message`, and below it, indented, how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditError {
    /// The section of the edit.
    pub section: String,
    /// The key of the edit, as it was given.
    pub key: String,
    /// What is wrong, on one line and free of control characters.
    pub message: String,
    /// What to do about it, on one line and free of control characters.
    pub mend: String,
    /// Whether that is all: the key to remove is not there.
    pub is_absent: bool,
}

impl EditError {
    /// The same as a finding about `file`.
    pub fn at(self, file: &Path) -> Problem {
        let problem = Problem::new(Place::File(file.to_owned()), self.message, self.mend);
        problem.about(&self.section, &self.key)
    }
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (section, key) = (Escaped(&self.section), Escaped(&self.key));
        write!(f, "[{section}] {key}: {}\n    {}", self.message, self.mend)
    }
}

impl std::error::Error for EditError {}

/// Why an edit is refused, before it is known what it was about.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    message: String,
    mend: String,
    is_absent: bool,
}

impl Refusal {
    fn new(message: impl Into<String>, mend: impl Into<String>) -> Refusal {
        Refusal { message: message.into(), mend: mend.into(), is_absent: false }
    }

    /// The file is refused as a whole.
    fn faulty(line: usize, message: &str, mend: impl Into<String>) -> Refusal {
        let message =
            format!("expected a file without mistakes, got this in line {line}: {message}");
        Refusal::new(message, mend)
    }

    /// There is nothing to remove.
    fn absent() -> Refusal {
        let mend = "check the section and the spelling; what no file sets has its default";
        let message = "expected a key that the file sets, got one that is not there";
        Refusal { is_absent: true, ..Refusal::new(message, mend) }
    }

    /// What was written does not read back.
    fn bug(what: &str) -> Refusal {
        let message = format!("the new text would have changed {what}; nothing was written");
        Refusal::new(message, "this is a bug in ph: please report it, and edit the file by hand")
    }
}

/// The text of the file with the value written, or with the key removed.
///
/// ```
/// use ph_config::{Edit, Format, edit};
///
/// let text = "[web] # two are enough\nnumber_workers   = 2\n";
/// let four = Edit { section: "web", key: "number_workers", value: Some("4"), keep_comment: true };
/// let text = edit(text, Format::Ini, &four)?;
/// assert_eq!(text, "[web] # two are enough\nnumber_workers   = 4\n");
/// # Ok::<(), ph_config::EditError>(())
/// ```
///
/// # Errors
///
/// If the text has mistakes, if the key to remove is not there, if the section, the key or the
/// value cannot be written so that it reads back the same, or if the result is over 1 MiB.
pub fn edit(text: &str, format: Format, edit: &Edit<'_>) -> Result<String, EditError> {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mark = &text[..text.len() - body.len()];
    let written = check_names(edit).and_then(|()| match format {
        Format::Ini => edit_ini(body, edit),
        Format::Toml => toml::edit(body, edit),
    });
    let written = written.and_then(|body| {
        let text = format!("{mark}{body}");
        if text.len() as u64 > MAX_BYTES {
            let message = format!("expected at most {MAX_BYTES} bytes in the file, got more");
            return Err(Refusal::new(message, "shorten the value, or divide the file"));
        }
        Ok(text)
    });
    written.map_err(|Refusal { message, mend, is_absent }| EditError {
        section: edit.section.to_owned(),
        key: edit.key.to_owned(),
        message,
        mend,
        is_absent,
    })
}

/// An INI file has no tables: the application's keys have their name in one piece, and variables
/// have no keys of their own.
fn edit_ini(text: &str, edit: &Edit<'_>) -> Result<String, Refusal> {
    let flat = match key::sub_key(edit.key) {
        Some((key::APP, name)) => Some(format!("app_{name}")),
        Some(_) => {
            let message = "expected a key of an INI file, got one variable of `environment`";
            let mend = "set `environment`, which holds all of them in one value";
            return Err(Refusal::new(message, mend));
        }
        None => None,
    };
    ini::edit(text, &Edit { key: flat.as_deref().unwrap_or(edit.key), ..*edit })
}

/// The line of a key in a section, or in `DEFAULT`, counted from 1. `None` if it is not there, or
/// the text has mistakes.
pub fn line_of(text: &str, format: Format, section: &str, key: &str) -> Option<usize> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Toml => toml::line(text, section, key),
        Format::Ini => {
            let (document, _) = crate::ini::parse(text);
            let section = match section {
                DEFAULT => Some(&document.defaults),
                section => document.section(section),
            };
            section?.entry(&normalise_key(key)).map(|entry| entry.line)
        }
    }
}

/// Refuses what neither language can hold, or what the loader would refuse.
fn check_names(edit: &Edit<'_>) -> Result<(), Refusal> {
    for (what, text) in [("section name", edit.section), ("key", edit.key)] {
        if text.is_empty() || text.contains(['\n', '\r', '\0']) {
            let message = format!("expected a {what} on one line, got {}", shown(text));
            return Err(Refusal::new(message, "give one that a file can hold"));
        }
    }
    if edit.value.is_some_and(|value| value.contains('\0')) {
        let message = "expected text, got a NUL character in the value";
        return Err(Refusal::new(message, "take it out"));
    }
    Ok(())
}
