//! `config set` and `config unset`: one value of a file, written in place.
//!
//! The new text is tried out before it is written: an edit that adds a problem is refused, and so
//! is a value that is none, even where another one wins. Problems that were there before do not
//! count, or a file with two of them could never be mended. The variables that set keys are left
//! out of this, because a service is not started from the shell that edits its file; that one of
//! this shell is stronger is only told.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ph_config::{
    ConfigErrors, Configuration, DEFAULT, Edit, EditableFile, Environment, Escaped, FileError,
    Format, Origin, SETTINGS, Source, Trial, edit, line_of, normalise_key, whole_key,
};
use serde::Serialize;

use super::Opened;
use crate::args::{ConfigSet, ConfigUnset, EditArgs, SourceArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, SCHEMA};

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
    /// Of a key that was taken out there is none.
    line: Option<usize>,
    section: String,
    key: String,
    value: Option<String>,
    was: Option<String>,
    /// What holds instead of a value that was taken out, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Option<Now>>,
    /// When a master that runs takes it over; not of keys that are no settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    apply: Option<&'static str>,
    /// What a stronger layer says instead, by section.
    overridden_by: Vec<OverriddenBy>,
}

#[derive(Serialize)]
struct Now {
    value: String,
    origin: String,
}

#[derive(Serialize)]
struct OverriddenBy {
    section: String,
    origin: String,
}

/// One edit of one file.
struct Change<'a> {
    /// As messages spell it.
    file: &'a Path,
    section: &'a str,
    /// As settings and origins know it.
    key: &'a str,
    /// The text of the file with the edit made.
    text: &'a str,
}

fn change(given: &str, value: Option<&str>, args: &EditArgs) -> Result<ExitCode, Failure> {
    let given = given.trim();
    let key = normalise_key(given);
    let source = SourceArgs {
        config: args.config.clone(),
        set: Vec::new(),
        allow_writable: args.allow_writable,
    };
    let opened = Opened::new(&source)?;
    let section = match args.section.name() {
        Some(DEFAULT) => DEFAULT,
        wanted => opened.section(wanted)?,
    };
    let file = file_of(&opened.configuration, section, &key);
    let editable = EditableFile::open(&opened.place.folder.join(&file), &file)
        .map_err(|error| unedited(&error))?;
    // What the file says counts from here on; somebody may have edited it a moment ago.
    let old = Source { instead: Some((&file, editable.text())), ..opened.place.source() };
    let before = old.clone().read()?;
    let was = before.written_in(&file, section, &key).map(|(text, _)| text);
    let keep_comment = before.takes_comment(section, &key);
    let text = edit(
        editable.text(),
        Format::of(&file),
        &Edit { section, key: given, value, keep_comment },
    )
    .map_err(|error| {
        let code = if error.is_absent { Exit::Failed } else { Exit::Config };
        Failure::report(code, &error.at(&file))
    })?;
    let new = Source { instead: Some((&file, &text)), ..opened.place.source() };
    let change = Change { file: &file, section, key: &key, text: &text };
    change.try_out(&old, &new, value.is_some())?;
    let after = new.read()?;
    let done = change.describe(was, &after);
    editable.replace(&text).map_err(|error| unedited(&error))?;
    if args.json {
        output::print_json(&done)?;
    } else {
        tell(&done)?;
    }
    Ok(Exit::Ok.into())
}

/// The file to write: that which has the value; for a variable that is new, that which has the
/// others; else that which has the section, and if there is none, the main one.
fn file_of(configuration: &Configuration, section: &str, key: &str) -> PathBuf {
    let written =
        [key, whole_key(key)].into_iter().find_map(|key| configuration.written(section, key));
    match written {
        Some((_, Origin::File { path, .. })) => path,
        Some((_, Origin::Default | Origin::Variable(_) | Origin::Flag(_))) | None => {
            let home = configuration.home(section).or_else(|| configuration.files().next());
            home.map(Path::to_owned).unwrap_or_default()
        }
    }
}

fn unedited(error: &FileError) -> Failure {
    let code = match error {
        FileError::Busy(_) | FileError::Io(_) => Exit::Failed,
        FileError::Denied(_) => Exit::NotPermitted,
        FileError::Unfit(_) => Exit::Config,
    };
    Failure::report(code, error)
}

/// The variables of this process without those that set keys. They stay what `%(ENV_X)s` stands
/// for, so that `include` leads to the same files.
fn neutral_environment() -> Environment {
    let is_setting =
        |name: &OsStr| name.as_encoded_bytes().starts_with(b"PH_") || name == "WEB_CONCURRENCY";
    std::env::vars_os().filter(|(name, _)| !is_setting(name)).collect()
}

impl Change<'_> {
    /// Fails if the edit would break something.
    fn try_out(&self, old: &Source<'_>, new: &Source<'_>, has_value: bool) -> Result<(), Failure> {
        let environment = neutral_environment();
        let old = Source { environment: environment.clone(), ..old.clone() };
        let new = Source { environment, ..new.clone() };
        let Change { file, section, key, .. } = *self;
        let trial = Trial { file, section, key, has_value };
        let verdict = trial.judge(&old, &new)?;
        for problem in &verdict.doubtful {
            output::note(&format!("warning: {problem}"));
        }
        if verdict.refused.is_empty() {
            return Ok(());
        }
        let what = format!("{}\nnothing was written", ConfigErrors(verdict.refused));
        Err(Failure::report(Exit::Config, &what))
    }

    fn describe(&self, was: Option<String>, after: &Configuration) -> Done {
        let Change { file, section, key, text } = *self;
        let written = after.written_in(file, section, key);
        let line = line_of(text, Format::of(file), section, key);
        let now = after.prevailing(section, key);
        let now = now.map(|(value, origin)| Now { value, origin: origin.to_string() });
        Done {
            schema: SCHEMA,
            file: file.to_string_lossy().into_owned(),
            line: written.as_ref().and(line),
            section: section.to_owned(),
            key: key.to_owned(),
            overridden_by: self.overridden_by(written.as_ref().map(|(_, origin)| origin), after),
            now: written.is_none().then_some(now),
            value: written.map(|(text, _)| text),
            was,
            apply: SETTINGS
                .iter()
                .find(|row| row.name == whole_key(key))
                .map(|row| row.apply.as_str()),
        }
    }

    /// Which sections take the value from elsewhere; of a value that was taken out, from a
    /// variable.
    fn overridden_by(&self, written: Option<&Origin>, after: &Configuration) -> Vec<OverriddenBy> {
        let names = match self.section {
            DEFAULT => after.sections().iter().map(String::as_str).collect(),
            section => vec![section],
        };
        let mut all = Vec::new();
        for name in names {
            let origin = after.winner(name, whole_key(self.key));
            let is_other = match (written, &origin) {
                (Some(written), origin) => written != origin,
                (None, Origin::Variable(_)) => true,
                (None, Origin::Default | Origin::File { .. } | Origin::Flag(_)) => false,
            };
            if is_other {
                let section = name.to_owned();
                all.push(OverriddenBy { section, origin: origin.to_string() });
            }
        }
        all
    }
}

fn tell(done: &Done) -> Result<(), Failure> {
    let place = match done.line {
        Some(line) => format!("{}:{line}", Escaped(&done.file)),
        None => Escaped(&done.file).to_string(),
    };
    let what = match (&done.value, &done.was) {
        (Some(value), Some(was)) => format!(" = {} (was {})", Escaped(value), Escaped(was)),
        (Some(value), None) => format!(" = {} (was not set)", Escaped(value)),
        (None, Some(was)) => format!(" taken out (was {})", Escaped(was)),
        (None, None) => String::new(),
    };
    let now = match &done.now {
        Some(Some(Now { value, .. })) if value.is_empty() => "; now it is not set".to_owned(),
        Some(Some(Now { value, origin })) if *origin == Origin::Default.to_string() => {
            format!("; now the default holds, {}", Escaped(value))
        }
        Some(Some(Now { value, origin })) => {
            format!("; {} now says {}", Escaped(origin), Escaped(value))
        }
        Some(None) => "; now it is not set".to_owned(),
        None => String::new(),
    };
    // What wins over the file is told below, and what the file would say then is no matter.
    let now = if done.overridden_by.is_empty() { now } else { String::new() };
    let applies = done.apply.map(|apply| format!("; applies: {apply}")).unwrap_or_default();
    let (section, key) = (Escaped(&done.section), Escaped(&done.key));
    output::print(&format!("{place}: [{section}] {key}{what}{now}{applies}\n"))?;
    for OverriddenBy { section, origin } in &done.overridden_by {
        let (section, origin) = (Escaped(section), Escaped(origin));
        output::note(&format!("warning: [{section}] still has the value of {origin}"));
    }
    Ok(())
}
