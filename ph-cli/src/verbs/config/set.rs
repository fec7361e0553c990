//! `config set` and `config unset`: one value of a file, written in place.
//!
//! The new text is tried out before it is written: an edit that adds a problem is refused. Problems
//! that were there before do not count, or a file with two of them could never be mended.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ph_config::{
    ConfigErrors, Configuration, Edit, EditableFile, Origin, Problem, SETTINGS, Source, edit,
    takes_comment,
};
use serde::Serialize;

use super::Opened;
use crate::args::{ConfigSet, ConfigUnset, EditArgs, SourceArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, SCHEMA};

/// The section that all others inherit from.
const DEFAULT: &str = "DEFAULT";

/// Writes a value.
pub(super) fn set(args: &ConfigSet) -> Result<ExitCode, Failure> {
    change(&args.key, Some(&args.value), &args.edit)
}

/// Takes a key out.
pub(super) fn unset(args: &ConfigUnset) -> Result<ExitCode, Failure> {
    change(&args.key, None, &args.edit)
}

/// What was done, as `--json` prints it.
#[derive(Serialize)]
struct Done {
    schema: u32,
    file: String,
    line: Option<usize>,
    section: String,
    key: String,
    value: Option<String>,
    was: Option<String>,
    /// When a master that runs takes it over; not of keys that are no settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    apply: Option<&'static str>,
    /// What a stronger layer says instead, by section.
    overridden_by: Vec<OverriddenBy>,
}

#[derive(Serialize)]
struct OverriddenBy {
    section: String,
    origin: String,
}

fn change(key: &str, value: Option<&str>, args: &EditArgs) -> Result<ExitCode, Failure> {
    let key = key.trim().to_lowercase();
    let source = SourceArgs {
        config: args.config.clone(),
        set: Vec::new(),
        allow_writable: args.allow_writable,
    };
    let opened = Opened::new(&source)?;
    let before = &opened.configuration;
    let section = match args.section.name() {
        Some(DEFAULT) => DEFAULT,
        wanted => before.section(wanted).map_err(|errors| Failure::no_section(&errors, wanted))?,
    };
    let was = before.written(section, &key);
    let file = match &was {
        Some((_, Origin::File { path, .. })) => path.clone(),
        Some((_, Origin::Default | Origin::Variable(_) | Origin::Flag(_))) | None => {
            before.home(section).map(Path::to_owned).unwrap_or_default()
        }
    };
    let editable = EditableFile::open(&opened.place.folder.join(&file))?;
    let keep_comment = takes_comment(&key);
    let text = edit(
        editable.text(),
        ph_config::Format::of(&file),
        &Edit { section, key: &key, value, keep_comment },
    )
    .map_err(|error| {
        let is_absent = value.is_none() && was.is_none();
        let code = if is_absent { Exit::Failed } else { Exit::Config };
        Failure::report(code, &error.at(&file))
    })?;
    let after = Source { instead: Some((&file, &text)), ..opened.place.source() }.read()?;
    let sections: Vec<&str> = match section {
        DEFAULT => before.sections().iter().map(String::as_str).collect(),
        section => vec![section],
    };
    let new = new_problems(before, &after, &sections);
    if !new.is_empty() {
        let what = format!("{}\nnothing was written", ConfigErrors(new));
        return Err(Failure::report(Exit::Config, &what));
    }
    editable.replace(&text)?;
    let done = describe(&file, section, &key, was.map(|(text, _)| text), &after, &sections);
    if args.json {
        output::print_json(&done)?;
    } else {
        tell(&done)?;
    }
    Ok(Exit::Ok.into())
}

/// What is wrong after the edit and was not before. Lines do not count, because they move.
fn new_problems(before: &Configuration, after: &Configuration, sections: &[&str]) -> Vec<Problem> {
    let known = problems(before, sections);
    let same = |one: &Problem, other: &Problem| {
        (&one.section, &one.key, &one.message) == (&other.section, &other.key, &other.message)
    };
    let mut new: Vec<Problem> = Vec::new();
    for problem in problems(after, sections) {
        if !known.iter().chain(&new).any(|other| same(other, &problem)) {
            new.push(problem);
        }
    }
    new
}

fn problems(configuration: &Configuration, sections: &[&str]) -> Vec<Problem> {
    let errors = sections.iter().filter_map(|name| configuration.load(Some(name), &[]).err());
    errors.flat_map(|ConfigErrors(problems)| problems).collect()
}

fn describe(
    file: &Path,
    section: &str,
    key: &str,
    was: Option<String>,
    after: &Configuration,
    sections: &[&str],
) -> Done {
    let written = after.written(section, key);
    let line = match &written {
        Some((_, Origin::File { line, .. })) => Some(*line),
        Some((_, Origin::Default | Origin::Variable(_) | Origin::Flag(_))) | None => None,
    };
    let mut overridden_by = Vec::new();
    for name in sections {
        let Ok(loaded) = after.load(Some(name), &[]) else { continue };
        let origin = loaded.settings.origin(key);
        if written.as_ref().is_some_and(|(_, written)| *written != origin) {
            overridden_by
                .push(OverriddenBy { section: (*name).to_owned(), origin: origin.to_string() });
        }
    }
    Done {
        schema: SCHEMA,
        file: PathBuf::from(file).to_string_lossy().into_owned(),
        line,
        section: section.to_owned(),
        key: key.to_owned(),
        value: written.map(|(text, _)| text),
        was,
        apply: SETTINGS.iter().find(|row| row.name == key).map(|row| row.apply.as_str()),
        overridden_by,
    }
}

fn tell(done: &Done) -> Result<(), Failure> {
    let printable = |text: &str| ph_config::Escaped(text).to_string();
    let place = match done.line {
        Some(line) => format!("{}:{line}", printable(&done.file)),
        None => printable(&done.file),
    };
    let what = match (&done.value, &done.was) {
        (Some(value), Some(was)) => format!(" = {} (was {})", printable(value), printable(was)),
        (Some(value), None) => format!(" = {} (was not set)", printable(value)),
        (None, Some(was)) => format!(" taken out (was {})", printable(was)),
        (None, None) => String::new(),
    };
    let applies = done.apply.map(|apply| format!("; applies: {apply}")).unwrap_or_default();
    let section = printable(&done.section);
    output::print(&format!("{place}: [{section}] {}{what}{applies}\n", done.key))?;
    for OverriddenBy { section, origin } in &done.overridden_by {
        let section = printable(section);
        output::note(&format!("warning: [{section}] still has the value of {origin}"));
    }
    Ok(())
}
