//! An edit tried out before it is written: what would be wrong that was not.
//!
//! Two things are asked. First, whether any section that sees the value would hold less than it
//! does: its problems before and after are compared, all of them, and those that were there do not
//! count, or a file with two of them could never be mended. Second, whether the value holds by
//! itself, also where another file, the section, or every section says something stronger. For that
//! whatever is stronger is taken away. A value of `DEFAULT` need not make sense everywhere, because
//! it may rest on names that only some sections set: it is refused if no section could take it, not
//! even one without keys of its own.
//!
//! The variables that set keys belong to whoever starts the service and not to whoever edits its
//! file, so the caller leaves them out. What `%(ENV_X)s` stands for is not known either; a value
//! that depends on it is not refused, but what is wrong with it here is told.

use std::collections::BTreeSet;
use std::path::Path;

use crate::document::{DEFAULT, Section};
use crate::error::{ConfigErrors, Place, Problem};
use crate::interpolate::References;
use crate::source::{Configuration, Source};

use super::key::{normalise_key, whole_key};

/// How many problems a verdict names.
const MAX_PROBLEMS: usize = 100;

/// An edit that is about to be written.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// The edited file, as messages spell it.
    pub file: &'a Path,
    /// The section of the edit, or `DEFAULT`.
    pub section: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Whether there is a new value, or the key is taken out.
    pub has_value: bool,
}

/// What is wrong with an edit; both lists are bounded, with what concerns its own key first.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Why it must not be written.
    pub refused: Vec<Problem>,
    /// What depends on variables of the environment, and may be right where the service starts.
    pub doubtful: Vec<Problem>,
}

impl Trial<'_> {
    /// Compares the configuration `before` the edit with the one `after` it. Neither should have
    /// variables that set keys.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read.
    pub fn judge(&self, before: &Source<'_>, after: &Source<'_>) -> Result<Verdict, ConfigErrors> {
        let key = normalise_key(self.key);
        let mut verdict = Findings { key: whole_key(&key), ..Findings::default() };
        self.compare(&read(before)?, &read(after)?, &mut verdict);
        if self.has_value && verdict.refused.is_empty() {
            let (mut before, mut after) = (read(before)?, read(after)?);
            self.let_win(&mut before, whole_key(&key));
            self.let_win(&mut after, whole_key(&key));
            self.judge_value(&before, &after, &mut verdict);
        }
        Ok(verdict.finish())
    }

    /// What is wrong with the sections that see the value, and was not before.
    fn compare(&self, before: &Configuration, after: &Configuration, findings: &mut Findings<'_>) {
        if self.section != DEFAULT {
            let (old, new) = (load(before, self.section), load(after, self.section));
            return findings.add(after, self.section, &old, new);
        }
        for name in after.sections() {
            findings.add(after, name, &load(before, name), load(after, name));
        }
        if after.sections().is_empty() {
            let name = vacant_name(after);
            let all = |configuration: &Configuration| {
                let files = configuration.syntax().err().map(|ConfigErrors(problems)| problems);
                [files.unwrap_or_default(), configuration.judge(&name)].concat()
            };
            findings.add(after, &name, &all(before), all(after));
        }
    }

    /// What is wrong with the value where nothing is stronger: nothing, if it is right anywhere.
    fn judge_value(
        &self,
        before: &Configuration,
        after: &Configuration,
        findings: &mut Findings<'_>,
    ) {
        let vacant = vacant_name(after);
        let names: Vec<&str> = match self.section {
            DEFAULT => [vacant.as_str()]
                .into_iter()
                .chain(after.sections().iter().map(String::as_str))
                .collect(),
            section => vec![section],
        };
        let mut first = None;
        for name in names {
            let mut found = Findings { key: findings.key, ..Findings::default() };
            let (mut old, new) = (before.judge(name), after.judge(name));
            // The same mistake again is a mistake still.
            old.retain(|problem| problem.key.as_deref() != Some(found.key));
            found.add(after, name, &old, new);
            if found.refused.is_empty() {
                found.doubtful.retain(|problem| findings.seen.insert(signature(problem)));
                findings.doubtful.append(&mut found.doubtful);
                return;
            }
            first.get_or_insert(found);
        }
        if let Some(mut first) = first {
            findings.refused.append(&mut first.refused);
        }
    }

    /// Takes away whatever is stronger than the edited value.
    fn let_win(&self, configuration: &mut Configuration, key: &str) {
        let mut is_stronger = false;
        for part in &mut configuration.files {
            let document = &mut part.document;
            if self.section == DEFAULT {
                document.sections.iter_mut().for_each(|section| take_out(section, key));
                if is_stronger {
                    take_out(&mut document.defaults, key);
                }
            } else if is_stronger {
                let mut sections = document.sections.iter_mut();
                sections.find(|it| it.name == self.section).into_iter().for_each(|section| {
                    take_out(section, key);
                });
            }
            is_stronger |= part.file.shown == self.file;
        }
    }
}

/// What is found while sections are looked at.
#[derive(Default)]
struct Findings<'k> {
    /// The edited key.
    key: &'k str,
    refused: Vec<Problem>,
    doubtful: Vec<Problem>,
    /// What was found already: sections share a problem of what they inherit.
    seen: BTreeSet<Signature>,
}

/// By what a problem is known again. Lines do not count, because they move.
type Signature = (Option<String>, Option<String>, String);

fn signature(problem: &Problem) -> Signature {
    (problem.section.clone(), problem.key.clone(), problem.message.clone())
}

impl Findings<'_> {
    /// Adds the problems of the section `name` that are in `new` and not in `old`.
    fn add(&mut self, after: &Configuration, name: &str, old: &[Problem], new: Vec<Problem>) {
        if new.is_empty() {
            return;
        }
        let known: BTreeSet<Signature> = old.iter().map(signature).collect();
        let mut references: Option<References> = None;
        for problem in new {
            let signature = signature(&problem);
            if known.contains(&signature) || !self.seen.insert(signature) {
                continue;
            }
            let references = references.get_or_insert_with(|| references_in(after, name));
            let key = problem.key.as_deref().unwrap_or_default();
            let is_key = |key: &str| after.all_parts(name).any(|it| it.entry(key).is_some());
            let reached = references.reached(|it| it == key);
            if reached.into_iter().any(|name| name.starts_with("env_") && !is_key(name)) {
                self.doubtful.push(problem);
            } else {
                self.refused.push(problem);
            }
        }
    }

    fn finish(self) -> Verdict {
        let Findings { key, mut refused, mut doubtful, .. } = self;
        for problems in [&mut refused, &mut doubtful] {
            problems.sort_by_key(|problem| problem.key.as_deref() != Some(key));
            if problems.len() > MAX_PROBLEMS {
                problems.truncate(MAX_PROBLEMS);
                let message = "more problems are not listed";
                problems.push(Problem::new(Place::Request, message, "mend these first"));
            }
        }
        Verdict { refused, doubtful }
    }
}

fn read(source: &Source<'_>) -> Result<Configuration, ConfigErrors> {
    let mut configuration = source.clone().read()?;
    // A new problem must not go unnoticed because there are many old ones.
    configuration.report.lift_bound();
    Ok(configuration)
}

fn load(configuration: &Configuration, section: &str) -> Vec<Problem> {
    let refused = configuration.load(Some(section), &[]).err();
    refused.map_or_else(Vec::new, |ConfigErrors(problems)| problems)
}

/// Which keys refer to which in a section, and in what it inherits.
fn references_in(configuration: &Configuration, name: &str) -> References {
    let mut references = References::default();
    for entry in configuration.all_parts(name).flat_map(|section| &section.entries) {
        references.add(&entry.key, entry.value.texts());
    }
    references
}

/// A name that no section has.
fn vacant_name(configuration: &Configuration) -> String {
    let mut name = "service".to_owned();
    while configuration.sections().contains(&name) {
        name.push('_');
    }
    name
}

fn take_out(section: &mut Section, key: &str) {
    if section.entry(key).is_none() {
        return;
    }
    let empty = Section::new(&section.name, section.line);
    let old = std::mem::replace(section, empty);
    for entry in old.entries.into_iter().filter(|entry| entry.key != key) {
        // They were all different before.
        let _ = section.add(entry);
    }
}
