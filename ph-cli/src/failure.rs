//! An error as people read it: what was tried and why it failed, where that was set, what to do.
//!
//! Every part is escaped when it is put in, so that no text from a file can end a line or steer a terminal.

use std::fmt;
use std::io::Write as _;

use ph_config::{ConfigErrors, Escaped, Origin, Place, Problem};

use crate::exit::Exit;
use crate::output::SCHEMA;

/// Why a verb failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Exit,
    /// What could not be done: `cannot start web`.
    attempt: Option<Box<str>>,
    why: String,
    set_by: Option<Box<str>>,
    /// The same, for programs.
    spot: Option<Box<Spot>>,
    remedy: Option<Box<str>>,
    /// What the configuration reports, in its own form, which says all of the above.
    report: Option<Box<str>>,
    /// The same, one by one.
    problems: Box<[Problem]>,
}

/// The value, or the file, that is to blame.
#[derive(Debug)]
struct Spot {
    key: Option<String>,
    place: Place,
}

impl Failure {
    pub(crate) fn new(code: Exit, why: impl AsRef<str>) -> Self {
        Self {
            code,
            attempt: None,
            why: Escaped(why.as_ref().trim_end()).to_string(),
            set_by: None,
            spot: None,
            remedy: None,
            report: None,
            problems: Box::default(),
        }
    }

    /// What the configuration reports, which is escaped already and may have several lines.
    pub(crate) fn report(code: Exit, report: &impl ToString) -> Self {
        Self { report: Some(report.to_string().into()), ..Self::new(code, "") }
    }

    /// The same, with each problem for programs.
    fn errors(code: Exit, errors: &ConfigErrors) -> Self {
        Self { problems: errors.0.clone().into(), ..Self::report(code, errors) }
    }

    /// Says what else can be done, below all that the configuration reports.
    pub(crate) fn or_else(mut self, way: &str) -> Self {
        match &mut self.report {
            Some(report) => *report = format!("{report}\n    or: {}", Escaped(way)).into(),
            None => self.remedy = Some(escaped(way)),
        }
        self
    }

    /// There is no such section, which has a code of its own; having to choose one is bad
    /// configuration.
    pub(crate) fn no_section(errors: &ConfigErrors, wanted: Option<&str>) -> Self {
        let is_missing = errors.0.iter().any(|it| matches!(it.origin, Place::Section(_)));
        let is_missing = is_missing && wanted.is_some();
        Self::errors(if is_missing { Exit::NoSection } else { Exit::Config }, errors)
    }

    /// A finding of the configuration.
    pub(crate) fn of_problem(problem: &Problem) -> Self {
        let failure = Self::new(Exit::Config, &problem.message).remedy(&problem.mend);
        let failure = failure.placed(problem.origin.clone(), problem.key.as_deref());
        let problems = Box::new([problem.clone()]);
        Self { report: Some(problem.to_string().into()), problems, ..failure }
    }

    /// The same with another code.
    pub(crate) fn code(self, code: Exit) -> Self {
        Self { code, ..self }
    }

    /// Says what could not be done, before the reason.
    pub(crate) fn attempt(mut self, attempt: impl AsRef<str>) -> Self {
        self.attempt = Some(escaped(attempt.as_ref()));
        self
    }

    /// Names the line, flag or variable that asked for what failed.
    pub(crate) fn set_by(mut self, origin: impl AsRef<str>) -> Self {
        self.set_by = Some(escaped(origin.as_ref()));
        self
    }

    /// The same, of the value of one key.
    pub(crate) fn value(self, origin: Origin, key: &str) -> Self {
        self.placed(Place::Value(origin), Some(key))
    }

    fn placed(mut self, place: Place, key: Option<&str>) -> Self {
        let set_by = match key {
            Some(key) => format!("{place} {key}"),
            None => place.to_string(),
        };
        let key = key.map(|key| Escaped(key).to_string());
        self.spot = Some(Box::new(Spot { key, place }));
        self.set_by(set_by)
    }

    /// Says what to do about it.
    pub(crate) fn remedy(mut self, remedy: impl AsRef<str>) -> Self {
        self.remedy = Some(escaped(remedy.as_ref()));
        self
    }

    /// The reason alone.
    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    /// The key whose value is to blame.
    pub(crate) fn key(&self) -> Option<&str> {
        self.spot.as_ref()?.key.as_deref()
    }

    /// Where that value, or what else is to blame, stands.
    pub(crate) fn place(&self) -> Option<&Place> {
        self.spot.as_ref().map(|spot| &spot.place)
    }

    /// All that is said about where it was set.
    pub(crate) fn origin(&self) -> Option<&str> {
        self.set_by.as_deref()
    }

    /// What to do about it.
    pub(crate) fn cure(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// What could not be done.
    pub(crate) fn attempted(&self) -> Option<&str> {
        self.attempt.as_deref()
    }

    /// What the configuration reports.
    pub(crate) fn reported(&self) -> Option<&str> {
        self.report.as_deref()
    }

    /// One that another process of this program had, by its parts, which are escaped: the attempt, where it was
    /// set, the remedy, what the configuration reports.
    pub(crate) fn told(code: Exit, why: String, parts: [Option<String>; 4]) -> Self {
        let [attempt, set_by, remedy, report] = parts.map(|part| part.map(Box::from));
        Self { code, attempt, why, set_by, spot: None, remedy, report, problems: Box::default() }
    }

    /// The same for programs.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let message = match (&self.report, &self.attempt) {
            (Some(report), _) => report.to_string(),
            (None, Some(attempt)) => format!("{attempt}: {}", self.why),
            (None, None) => self.why.clone(),
        };
        let problems: Vec<_> = self.problems.iter().map(of_problem).collect();
        // What is to be mended first.
        let first = |part: &str| problems.first().map(|problem| problem[part].clone());
        let or_first = |own: &Option<Box<str>>, part: &str| match own {
            Some(own) => Some(own.to_string().into()),
            None => first(part),
        };
        let (file, line) = self.place().map_or((None, None), file_and_line);
        serde_json::json!({
            "schema": SCHEMA,
            "error": {
                "code": self.code.code(),
                "message": message,
                "origin": or_first(&self.set_by, "origin"),
                "key": self.key().map(Into::into).or_else(|| first("key")),
                "file": file.map(Into::into).or_else(|| first("file")),
                "line": line.map(Into::into).or_else(|| first("line")),
                "remedy": or_first(&self.remedy, "remedy"),
                "problems": problems,
            },
        })
    }

    /// Writes it to stderr. If that is closed, there is nobody to tell.
    pub(crate) fn print(&self, program: &str) {
        let _ = writeln!(std::io::stderr(), "{program}: {self}");
    }
}

/// One finding of the configuration for programs.
fn of_problem(problem: &Problem) -> serde_json::Value {
    let (file, line) = file_and_line(&problem.origin);
    serde_json::json!({
        "section": problem.section,
        "key": problem.key,
        "file": file,
        "line": line,
        "origin": problem.origin.to_string(),
        "message": problem.message,
        "remedy": problem.mend,
    })
}

/// The file of a place, and its line there.
pub(crate) fn file_and_line(place: &Place) -> (Option<String>, Option<usize>) {
    match place {
        Place::Value(Origin::File { path, line }) => {
            (Some(path.to_string_lossy().into_owned()), Some(*line))
        }
        Place::File(path) | Place::Section(path) => {
            (Some(path.to_string_lossy().into_owned()), None)
        }
        Place::Value(Origin::Default | Origin::Variable(_) | Origin::Flag(_)) | Place::Request => {
            (None, None)
        }
    }
}

fn escaped(text: &str) -> Box<str> {
    Escaped(text).to_string().into()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(attempt) = &self.attempt {
            write!(f, "{attempt}: ")?;
        }
        if let Some(report) = &self.report {
            return f.write_str(report);
        }
        f.write_str(&self.why)?;
        if let Some(origin) = &self.set_by {
            write!(f, "\n    set by {origin}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n    try: {remedy}")?;
        }
        Ok(())
    }
}

impl From<ConfigErrors> for Failure {
    /// The report as it is: its lines are escaped one by one.
    fn from(errors: ConfigErrors) -> Self {
        Self::errors(Exit::Config, &errors)
    }
}
