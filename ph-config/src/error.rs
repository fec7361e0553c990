//! What went wrong, where, and how to mend it.
//!
//! Owns [`Origin`] (where a value came from), [`Problem`] (one finding) and [`ConfigErrors`] (all
//! findings of one load). Two rules hold here. A load reports everything it can find at once, so
//! that an operator edits a file once; [`Report`] collects, sorts by place and bounds the list. And
//! whatever a file contains, a printed problem stays on its own line and cannot steer a terminal:
//! every foreign text goes through [`Escaped`], [`shown`] or [`named`].

use std::fmt;
use std::path::{Path, PathBuf};

/// How many problems one report names; a file can hold far more than anybody reads.
const MAX_PROBLEMS: usize = 100;
/// How many characters of a value or a name a message repeats.
const MAX_SHOWN: usize = 120;

/// Where the value of a setting came from.
///
/// It prints as people point at things: `default`, `conf/config.ini:14`, `$PH_NUMBER_WORKERS`,
/// `--set number_workers`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it; the table's default holds.
    Default,
    /// A line of a configuration file.
    File {
        /// The file, spelled as it was given in the request.
        path: PathBuf,
        /// The line of the key, counted from 1.
        line: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// The command line; the text says how, for example `-n` or `--set number_workers`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", escaped_path(path)),
            Self::Variable(name) => write!(f, "${}", Escaped(name)),
            Self::Flag(flag) => write!(f, "{}", Escaped(flag)),
        }
    }
}

/// What a [`Problem`] points at: one value, or a file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The place a value came from.
    Value(Origin),
    /// A file that cannot be used at all, or lacks something; spelled as it was given.
    File(PathBuf),
    /// A file that has not the section asked for, or none that could be meant.
    Section(PathBuf),
    /// The call itself, where no file and no value is to blame.
    Request,
}

impl Place {
    /// Sorts a report: whole files first, then the lines of one file after the other, then
    /// variables, flags and defaults. `files` is the order of the files.
    fn rank(&self, files: &[PathBuf]) -> (usize, usize) {
        match self {
            Self::File(_) | Self::Section(_) | Self::Request => (0, 0),
            Self::Value(Origin::File { path, line }) => {
                let file = files.iter().position(|file| file == path);
                (1 + file.unwrap_or(files.len()), *line)
            }
            Self::Value(Origin::Variable(_)) => (usize::MAX, 0),
            Self::Value(Origin::Flag(_)) => (usize::MAX, 1),
            Self::Value(Origin::Default) => (usize::MAX, 2),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(origin) => origin.fmt(f),
            Self::File(path) | Self::Section(path) => write!(f, "{}", escaped_path(path)),
            Self::Request => f.write_str("request"),
        }
    }
}

/// One finding: an error, or a warning in [`Loaded::warnings`](crate::Loaded::warnings).
///
/// Prints as `FILE:LINE: [section] key: message`, and below it, indented, how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it points at.
    pub origin: Place,
    /// The section, where one is concerned; `DEFAULT` for what is inherited.
    pub section: Option<String>,
    /// The key, where one is concerned, in lower case.
    pub key: Option<String>,
    /// What is wrong, on one line and free of control characters.
    pub message: String,
    /// What to do about it, on one line and free of control characters.
    pub mend: String,
}

impl Problem {
    pub(crate) fn new(
        origin: Place,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Problem {
        Problem { origin, section: None, key: None, message: message.into(), mend: mend.into() }
    }

    /// The same problem of a file that a line names by `key`: that line is the place to act.
    pub(crate) fn within(self, by: &Origin, section: &str, key: &str) -> Problem {
        match &self.origin {
            Place::File(path) => {
                let message = format!("{}: {}", shown(&path.to_string_lossy()), self.message);
                Problem { origin: Place::Value(by.clone()), message, ..self }.about(section, key)
            }
            Place::Value(_) | Place::Section(_) | Place::Request => self,
        }
    }

    pub(crate) fn about(mut self, section: &str, key: &str) -> Problem {
        self.section = Some(section.to_owned());
        self.key = Some(key.to_owned());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.origin)?;
        if let Some(section) = &self.section {
            write!(f, " [{}]", named(section))?;
        }
        if let Some(key) = &self.key {
            write!(f, " {}:", named(key))?;
        }
        write!(f, " {}\n    {}", self.message, self.mend)
    }
}

/// Why a configuration was refused: every problem that was found, in the order of the file.
///
/// Never empty when it comes from this crate, and at most about a hundred problems long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<Problem>);

/// Collects the findings of one load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Whether there were more errors than are kept.
    more: bool,
    /// Whether all errors are kept.
    unbounded: bool,
    /// The order of the files in the report.
    files: Vec<PathBuf>,
}

impl Report {
    /// Keeps every error from now on: for somebody who compares reports and prints none of them
    /// whole. There are at most some for each key of the files.
    pub(crate) fn lift_bound(&mut self) {
        self.unbounded = true;
    }

    /// Says that what is wrong with this file comes after what is wrong with those named before.
    pub(crate) fn follow_with(&mut self, file: &Path) {
        self.files.push(file.to_owned());
    }

    pub(crate) fn error(&mut self, problem: Problem) {
        self.error_by(|| problem);
    }

    /// For errors there may be very many of: what nobody will read is not made.
    pub(crate) fn error_by(&mut self, make: impl FnOnce() -> Problem) {
        if self.unbounded || self.errors.len() < MAX_PROBLEMS {
            self.errors.push(make());
        } else {
            self.more = true;
        }
    }

    pub(crate) fn warn(&mut self, problem: Problem) {
        self.warn_by(|| problem);
    }

    pub(crate) fn warn_by(&mut self, make: impl FnOnce() -> Problem) {
        if self.warnings.len() < MAX_PROBLEMS {
            self.warnings.push(make());
        }
    }

    /// The warnings if nothing was wrong, else every error.
    pub(crate) fn finish(mut self) -> Result<Vec<Problem>, ConfigErrors> {
        if self.errors.is_empty() {
            sort(&mut self.warnings, self.files);
            return Ok(self.warnings);
        }
        sort(&mut self.errors, self.files);
        if self.more
            && let Some(last) = self.errors.last()
        {
            let place = last.origin.clone();
            let message = "more problems are not listed";
            self.errors.push(Problem::new(place, message, "mend these first"));
        }
        Err(ConfigErrors(self.errors))
    }

    /// Ends a load at once: without this there is nothing to go on with.
    pub(crate) fn give_up(mut self, problem: Problem) -> ConfigErrors {
        self.error(problem);
        match self.finish() {
            Err(errors) => errors,
            Ok(_) => unreachable!("an error was just added"),
        }
    }
}

/// Sorts by place. Of files whose order nobody said that one comes first which was first found at
/// fault, after the others.
fn sort(problems: &mut [Problem], mut files: Vec<PathBuf>) {
    for problem in problems.iter() {
        if let Place::Value(Origin::File { path, .. }) = &problem.origin
            && !files.contains(path)
        {
            files.push(path.clone());
        }
    }
    problems.sort_by_key(|problem| problem.origin.rank(&files));
}

/// Prints foreign text so that it can neither break the line nor reach the terminal as a command.
///
/// ```
/// assert_eq!(ph_config::Escaped("a\x1b[2J\nb").to_string(), "a\\u{1b}[2J\\nb");
/// ```
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            // Bidirectional marks reorder what a terminal shows; line separators end a line.
            let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}');
            if c.is_control() || hidden {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

fn escaped_path(path: &Path) -> String {
    Escaped(&path.to_string_lossy()).to_string()
}

/// A value as a message repeats it: quoted, escaped, cut to a readable length.
pub(crate) fn shown(text: &str) -> String {
    if text.is_empty() {
        return "nothing".to_owned();
    }
    let head: String = text.chars().take(MAX_SHOWN).collect();
    let more = if head.len() < text.len() { " …" } else { "" };
    format!("\"{}\"{more}", Escaped(&head))
}

/// The name of a section or key as a message repeats it: escaped, and cut like a value. A name may
/// be as long as a file, and a report repeats it in every problem.
pub(crate) fn named(name: &str) -> String {
    match name.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", Escaped(&name[..end])),
        None => Escaped(name).to_string(),
    }
}

/// The candidate nearest to `wrong`, if one is near enough to be what was meant.
///
/// Near means at most one edit in three characters (an exchange of neighbours is one edit).
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if wrong.len() > MAX_SHOWN {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(wrong, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(shown("a\x1b[31m\nb"), "\"a\\u{1b}[31m\\nb\"");
        assert_eq!(shown("日志\u{202e}"), "\"日志\\u{202e}\"");
        let origin = Origin::File { path: PathBuf::from("a\nb.ini"), line: 3 };
        assert_eq!(origin.to_string(), "a\\nb.ini:3");
        assert_eq!(shown(&"x".repeat(500)).len(), MAX_SHOWN + "\"\" …".len());
        assert_eq!(named("日志\u{202e}"), "日志\\u{202e}");
        assert_eq!(named(&"日".repeat(500)), "日".repeat(MAX_SHOWN) + "…");
    }

    #[test]
    fn a_report_is_sorted_by_place_and_bounded() {
        let mut report = Report::default();
        for line in (1..=250).rev() {
            let path = PathBuf::from(if line > 200 { "z" } else { "a" });
            let origin = Origin::File { path, line };
            report.error(Problem::new(Place::Value(origin), "m", "mend"));
        }
        let ConfigErrors(problems) = report.finish().expect_err("errors were reported");
        assert_eq!(problems.len(), MAX_PROBLEMS + 1);
        let places = [0, 49, 50, 99].map(|index: usize| problems[index].origin.to_string());
        assert_eq!(places, ["z:201", "z:250", "a:151", "a:200"]);
        assert_eq!(problems[MAX_PROBLEMS].message, "more problems are not listed");
    }

    #[test]
    fn suggestions_are_near() {
        let keys = ["number_workers", "max_workers", "pidfile", "bind"];
        assert_eq!(nearest("number_worker", keys), Some("number_workers"));
        assert_eq!(nearest("pid_file", keys), Some("pidfile"));
        assert_eq!(nearest("bnid", keys), Some("bind"));
        assert_eq!(nearest("database_url", keys), None);
    }
}
