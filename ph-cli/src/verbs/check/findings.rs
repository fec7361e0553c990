//! What was found, each thing once, with all the sections it concerns.
//!
//! A line of [DEFAULT] is at fault in every section that inherits it, and is told once.

use std::collections::HashMap;

use ph_config::{Origin, Place, Problem};

use crate::exit::Exit;
use crate::failure::Failure;

/// A problem or a warning.
pub(super) struct Finding {
    pub(super) failure: Failure,
    pub(super) is_warning: bool,
    /// The sections it concerns, by their numbers in the pass; none if it is about no section.
    pub(super) sections: Vec<usize>,
    form: Form,
}

/// How a finding is worded.
enum Form {
    /// As the configuration reports it.
    Report(Problem),
    /// As the error of a start.
    Start,
    /// The same, where another section has what is wanted.
    Beside(String),
}

/// All findings of a pass.
#[derive(Default)]
pub(super) struct Findings {
    all: Vec<Finding>,
    known: HashMap<String, usize>,
}

impl Findings {
    /// A problem of the configuration.
    pub(super) fn problem(&mut self, section: Option<usize>, problem: Problem) {
        self.add(section, Failure::of_problem(&problem), false, Form::Report(problem));
    }

    /// A section that is not there.
    pub(super) fn missing(&mut self, section: usize, problem: Problem) {
        let failure = Failure::of_problem(&problem).code(Exit::NoSection);
        self.add(Some(section), failure, false, Form::Report(problem));
    }

    /// A warning of the configuration.
    pub(super) fn remark(&mut self, section: Option<usize>, problem: Problem) {
        let failure = Failure::of_problem(&problem).attempt("warning");
        self.add(section, failure, true, Form::Report(problem));
    }

    /// What a start would meet.
    pub(super) fn failure(&mut self, section: Option<usize>, failure: Failure, is_warning: bool) {
        self.add(section, failure, is_warning, Form::Start);
    }

    /// What a start would meet because of another section.
    pub(super) fn beside(
        &mut self,
        section: usize,
        other: &str,
        failure: Failure,
        is_warning: bool,
    ) {
        self.add(Some(section), failure, is_warning, Form::Beside(other.to_owned()));
    }

    fn add(&mut self, section: Option<usize>, failure: Failure, is_warning: bool, form: Form) {
        let other = match &form {
            Form::Report(_) | Form::Start => None,
            Form::Beside(other) => Some(other),
        };
        let (why, origin, cure) = (failure.why(), failure.origin(), failure.cure());
        let identity = format!("{is_warning} {other:?} {why:?} {origin:?} {cure:?}");
        let index = *self.known.entry(identity).or_insert(self.all.len());
        if index == self.all.len() {
            self.all.push(Finding { failure, is_warning, sections: Vec::new(), form });
        }
        let sections = &mut self.all[index].sections;
        sections.extend(section.filter(|section| !sections.contains(section)));
    }

    /// The problems, and not the warnings.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Finding> {
        self.all.iter().filter(|it| !it.is_warning)
    }

    /// Section after section, of each its problems and then its warnings; `names` are those of the
    /// sections.
    pub(super) fn into_sorted(self, names: &[&str]) -> Vec<Finding> {
        let mut all: Vec<_> = self.all.into_iter().map(|it| it.named(names)).collect();
        all.sort_by_key(|it| (it.sections.first().copied(), it.is_warning));
        all
    }
}

impl Finding {
    /// The same; if it concerns several sections, the words say so.
    fn named(mut self, names: &[&str]) -> Self {
        let [first, more @ ..] = self.sections.as_slice() else { return self };
        if more.is_empty() {
            return self;
        }
        let plural = if more.len() == 1 { "section" } else { "sections" };
        let whom = format!("{} and {} more {plural}", names[*first], more.len());
        let lead = if self.is_warning { "warning for" } else { "cannot start" };
        let failure = match self.form {
            Form::Report(ref problem) => {
                let failure = Failure::of_problem(&general(problem.clone()));
                match self.is_warning {
                    true => failure.code(self.failure.code).attempt(format!("{lead} {whom}")),
                    false => failure.code(self.failure.code),
                }
            }
            Form::Start => self.failure.attempt(format!("{lead} {whom}")),
            Form::Beside(ref other) => {
                self.failure.attempt(format!("{lead} {whom} beside {other}"))
            }
        };
        self.failure = failure;
        self
    }
}

/// What is wrong with a variable or a default names the section that was loaded, though it concerns
/// others too.
fn general(problem: Problem) -> Problem {
    match problem.origin {
        Place::Value(Origin::Default | Origin::Variable(_) | Origin::Flag(_)) => {
            Problem { section: None, ..problem }
        }
        Place::Value(Origin::File { .. }) | Place::File(_) | Place::Section(_) | Place::Request => {
            problem
        }
    }
}
