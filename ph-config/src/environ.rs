//! Variables of the environment: a layer of settings, and what `%(ENV_X)s` stands for.
//!
//! `PH_<SECTION>__<KEY>` sets a key of one section, `PH_<KEY>` of every section, both in upper case
//! with `-` and `.` as `_`. `WEB_CONCURRENCY` is gunicorn's and heroku's name for `number_workers`
//! when nothing else sets that. Names that a master gives its workers mean nothing here, because a
//! `ph` may well run under a `ph`; any other `PH_…` is probably a slip and gets a warning, not an
//! error: the environment belongs to more programs than this one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use crate::error::{Origin, Place, Problem, Report, named, nearest};
use crate::keys;
use crate::layers::Given;
use crate::settings::{self, SETTINGS};

/// What all names begin with.
const PREFIX: &str = "PH_";
/// How long the name of a section may be here, in bytes.
const MAX_SECTION: usize = 1024;
/// How many sections a slip is compared with; of more there is no suggestion.
const MAX_COMPARED: usize = 1000;
/// What is between section and key.
const DIVIDER: &str = "__";
/// The names that are never settings.
const RESERVED: [&str; 12] = [
    "PH_CONFIG",
    "PH_SLOT",
    "PH_GENERATION",
    "PH_WORKER_ID",
    "PH_WORKER_PID",
    "PH_NAME",
    "PH_INSTANCE",
    "PH_MASTER_PID",
    "PH_TRACE",
    "PH_FAULT",
    "PH_SUCCESSOR",
    "PH_SUCCESSOR_NOTE",
];
/// How the names of the application's keys begin, as workers see them.
const RESERVED_PREFIX: &str = "PH_APP_";
/// The number of workers where nothing else says it.
const WEB_CONCURRENCY: &str = "WEB_CONCURRENCY";

/// The variables that a load may use: those of this process, or others.
///
/// ```
/// let environment = ph_config::Environment::from_iter([("PH_NUMBER_WORKERS", "3")]);
/// assert_eq!(environment.value("PH_NUMBER_WORKERS"), Some(Ok("3")));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, Result<String, NotUtf8>>);

/// The value of a variable is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUtf8;

impl Environment {
    /// The variables of this process; those whose names are not UTF-8 cannot be meant.
    pub fn of_process() -> Self {
        Self::from_iter(std::env::vars_os())
    }

    /// The value of a variable, if it is set.
    pub fn value(&self, name: &str) -> Option<Result<&str, NotUtf8>> {
        self.0.get(name).map(|value| value.as_deref().map_err(|error| *error))
    }

    /// Whether any variable may be meant for a configuration.
    pub(crate) fn has_ours(&self) -> bool {
        self.of_ours().next().is_some()
    }

    /// The variables whose names begin with [`PREFIX`], in the order of their names.
    fn of_ours(&self) -> impl Iterator<Item = (&str, Result<&str, NotUtf8>)> {
        let from = self.0.range(PREFIX.to_owned()..);
        let ours = from.take_while(|(name, _)| name.starts_with(PREFIX));
        ours.map(|(name, value)| (name.as_str(), value.as_deref().map_err(|error| *error)))
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let text = |(name, value): (N, V)| {
            let value: OsString = value.into();
            let name: OsString = name.into();
            Some((name.into_string().ok()?, value.into_string().map_err(|_| NotUtf8)))
        };
        Self(variables.into_iter().filter_map(text).collect())
    }
}

/// Which sections and keys there are, by the names that variables give them; made once, because an
/// environment may have thousands of variables and a file as many sections.
#[derive(Debug)]
pub(crate) struct Names {
    sections: BTreeSet<String>,
    /// Keys of files that are no settings: those that others refer to.
    helpers: BTreeMap<String, String>,
}

impl Names {
    pub(crate) fn new<'a>(
        sections: impl Iterator<Item = &'a str>,
        keys: impl Iterator<Item = &'a str>,
    ) -> Names {
        let helpers = keys.filter(|key| !is_known(key)).map(|key| (upper(key), key.to_owned()));
        Names { sections: sections.map(upper).collect(), helpers: helpers.collect() }
    }

    /// The section that a name is for, if it is for one, and the name of its key. Of two sections
    /// that fit, `a` and `a__b`, the longer one is meant. None if no section fits.
    fn divide<'n>(&self, name: &'n str) -> Option<(Option<&'n str>, &'n str)> {
        let dividers = name.match_indices(DIVIDER).map(|(at, _)| at);
        let fitting = dividers.take_while(|at| *at <= MAX_SECTION).filter(|at| {
            // Three underlines in a row can be divided in two ways.
            self.sections.contains(&name[..*at])
        });
        match fitting.last() {
            Some(at) => Some((Some(&name[..at]), &name[at + DIVIDER.len()..])),
            None => (!name.contains(DIVIDER)).then_some((None, name)),
        }
    }

    /// The key that a name in upper case means.
    fn key(&self, name: &str) -> Option<String> {
        let key = name.to_ascii_lowercase();
        if is_known(&key) && name == upper(&key) {
            return Some(key);
        }
        self.helpers.get(name).cloned()
    }
}

fn is_known(key: &str) -> bool {
    settings::find(key).is_some() || keys::app_name(key).is_some()
}

impl Environment {
    /// `WEB_CONCURRENCY`, weaker than any file; empty it says nothing.
    pub(crate) fn concurrency(&self, report: &mut Report) -> Option<Given<'_>> {
        let value = self.value(WEB_CONCURRENCY)?;
        let value = text(value, WEB_CONCURRENCY, "number_workers", report)?;
        let key = "number_workers".to_owned();
        (!value.is_empty()).then(|| given(key, value, WEB_CONCURRENCY))
    }

    /// What variables set for this section, the weaker first. `has` answers whether the section has
    /// or inherits a key that is no setting.
    pub(crate) fn settings(
        &self,
        section: &str,
        names: &Names,
        has: impl Fn(&str) -> bool,
        report: &mut Report,
    ) -> Vec<Given<'_>> {
        let mut of_all = Vec::new();
        let mut of_section = Vec::new();
        let own = upper(section);
        for (variable, value) in self.of_ours() {
            let rest = &variable[PREFIX.len()..];
            let divided = names.divide(rest);
            let is_of_section = matches!(divided, Some((Some(_), _)));
            let is_reserved = RESERVED.contains(&variable) || variable.starts_with(RESERVED_PREFIX);
            // `PH_APP__BIND` is for a section called `app`, if there is one.
            if is_reserved && !is_of_section {
                continue;
            }
            let key = divided.and_then(|(of, name)| Some((of, names.key(name)?)));
            let Some((of, key)) = key else {
                report.warn_by(|| stray(variable, rest, names));
                continue;
            };
            let list = match of {
                None => &mut of_all,
                Some(name) if name == own => &mut of_section,
                Some(_) => continue,
            };
            if (is_known(&key) || has(&key))
                && let Some(value) = text(value, variable, &key, report)
            {
                list.push(given(key, value, variable));
            }
        }
        of_all.append(&mut of_section);
        of_all
    }
}

fn given<'e>(key: String, text: &'e str, variable: &str) -> Given<'e> {
    Given { key, text, origin: Origin::Variable(variable.to_owned()) }
}

/// A section or a key as the name of a variable has it.
fn upper(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

fn text<'e>(
    value: Result<&'e str, NotUtf8>,
    variable: &str,
    key: &str,
    report: &mut Report,
) -> Option<&'e str> {
    if let Err(NotUtf8) = value {
        let place = Place::Value(Origin::Variable(variable.to_owned()));
        let problem =
            Problem::new(place, "expected UTF-8, got other bytes", "set it to other text");
        report.error(Problem { key: Some(key.to_owned()), ..problem });
    }
    value.ok()
}

fn stray(variable: &str, name: &str, names: &Names) -> Problem {
    let (section, last) = match names.divide(name) {
        Some((section, last)) => (section, last),
        None => name.rsplit_once(DIVIDER).map_or((None, name), |(of, last)| (Some(of), last)),
    };
    let is_there = section.is_none_or(|section| names.sections.contains(section));
    let message = match section {
        Some(section) if !is_there => {
            format!("expected the name of a setting, got one of no section ({})", named(section))
        }
        Some(_) | None => "expected the name of a setting, got another one".to_owned(),
    };
    let near_section = match section {
        Some(section) if is_there => Some(section),
        Some(section) if names.sections.len() <= MAX_COMPARED => {
            nearest(section, names.sections.iter().map(String::as_str))
        }
        Some(_) | None => None,
    };
    let near = nearest(&last.to_lowercase(), SETTINGS.iter().map(|row| row.name));
    let mend = match (near, near_section) {
        (Some(key), Some(section)) => {
            format!("did you mean {PREFIX}{}{DIVIDER}{}?", named(section), upper(key))
        }
        (Some(key), None) => format!("did you mean {PREFIX}{}?", upper(key)),
        (None, _) => "it has no effect; take it out if it was meant for ph".to_owned(),
    };
    Problem::new(Place::Value(Origin::Variable(variable.to_owned())), message, mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let environment = Environment::from_iter(variables.iter().copied());
        let sections = ["web", "web-2.x", "web__b", "WEB", "app"].into_iter();
        let names = Names::new(sections, ["root", "bind", "other"].into_iter());
        let mut report = Report::default();
        let all = environment.settings("web", &names, |key| key == "root", &mut report);
        let all = all.iter().map(|it| format!("{}={} by {}", it.key, it.text, it.origin));
        let all = all.collect();
        let warnings = report.finish().expect("no error");
        (all, warnings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_of_sections_and_keys() {
        let (all, warnings) = read(&[
            ("PH_WEB__NUMBER_WORKERS", "1"),
            ("PH_NUMBER_WORKERS", "2"),
            ("PH_WEB_2_X__NUMBER_WORKERS", "3"),
            ("PH_WEB__B__NUMBER_WORKERS", "4"),
            ("PH_WEB__APP_COLOUR", "red"),
            ("PH_ROOT", "/srv"),
            ("PH_WEB__OTHER", "of another section"),
            ("PH_APP__BIND", "of a section"),
            ("PH_CONFIG", "x"),
            ("PH_SLOT", "1"),
            ("PH_APP_COLOUR", "blue"),
            ("PHX", "1"),
        ]);
        let expected = [
            "number_workers=2 by $PH_NUMBER_WORKERS",
            "root=/srv by $PH_ROOT",
            "app_colour=red by $PH_WEB__APP_COLOUR",
            "number_workers=1 by $PH_WEB__NUMBER_WORKERS",
        ];
        assert_eq!(all, expected);
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn slips_are_warned_of() {
        let (all, warnings) = read(&[
            ("PH_NUMBER_WORKER", "1"),
            ("PH_WBE__NUMBER_WORKERS", "1"),
            ("PH_WEB__NUMBER_WORKER", "1"),
            ("PH_ELSE", "1"),
            ("PH_number_workers", "1"),
        ]);
        assert_eq!(all, [""; 0]);
        let mends: Vec<&str> =
            warnings.iter().map(|warning| warning.lines().nth(1).unwrap().trim()).collect();
        let expected = [
            "it has no effect; take it out if it was meant for ph",
            "did you mean PH_NUMBER_WORKERS?",
            "did you mean PH_WEB__NUMBER_WORKERS?",
            "did you mean PH_WEB__NUMBER_WORKERS?",
            "did you mean PH_NUMBER_WORKERS?",
        ];
        assert_eq!(mends, expected);
    }
}
