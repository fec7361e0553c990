//! `include`: which further files belong to a configuration.
//!
//! Patterns are shell globs, relative to the folder of the main file, because `base_path` may well
//! be set by an included one. They may refer to keys of the main file's `[DEFAULT]`. A pattern that
//! matches nothing is legal, as in nginx and supervisord, so that a folder may be empty; a plain
//! name of a file that is not there is not. The main file itself is passed over where a pattern
//! matches it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::environ::Environment;
use crate::error::{Origin, Place, Problem, Report, shown};
use crate::interpolate::{Scope, Spent, expand};
use crate::keys;
use crate::layers::Merged;
use crate::load::refused;
use crate::source::{Found, Part};
use crate::value::{Folders, GLOBS, Shape, clean};

/// The key.
pub(crate) const INCLUDE: &str = "include";
/// How many files one configuration may include.
const MAX_FILES: usize = 1000;
/// How many paths patterns may match, files or not.
const MAX_MATCHES: usize = 10_000;
const MEND_PLACE: &str = "move it into [DEFAULT] of the main file";

/// As a shell: `*` stays within a folder and passes over hidden files.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// The files that the main file includes, in their order.
pub(crate) fn find(
    main: &Part,
    cwd: &Path,
    environment: &Environment,
    report: &mut Report,
) -> Vec<Found> {
    let defaults = main.defaults();
    let mut merged = Merged::new(&defaults, BTreeMap::new());
    // The comment rule is told about by the load of a section, which sees the same line.
    keys::cut_comments(&mut merged, &mut Report::default());
    let here = &*main.file.folder;
    let scope = Scope {
        merged: &merged,
        section: crate::document::DEFAULT,
        here,
        environment,
        base_path: None,
        spent: Spent::default(),
    };
    let folders = Folders { here: here.to_owned(), base: here.to_owned() };
    let Some(raw) = merged.get(INCLUDE) else { return Vec::new() };
    let patterns = expand(&scope, INCLUDE, Shape::Lines, false)
        .map(|text| text.trim().to_owned())
        .and_then(|text| (GLOBS.parse)(&text, &folders));
    let patterns = match patterns {
        Ok(patterns) => patterns,
        Err(error) => {
            report.error(refused(INCLUDE, Some(raw), &error, None));
            return Vec::new();
        }
    };
    let mut search = Search { here, main: &cwd.join(&main.file.shown), files: Vec::new(), seen: 0 };
    for pattern in patterns {
        if let Err((message, mend)) = search.add(&pattern) {
            let place = Place::Value(raw.origin.clone());
            report.error(Problem::new(place, message, mend).about(&raw.section, INCLUDE));
        }
    }
    search.files.sort();
    let mut known = BTreeSet::new();
    // One file may have two names.
    search.files.retain(|path| known.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    let by = &raw.origin;
    let spelled = |path: PathBuf| spell(path, here, &main.file.shown);
    search.files.into_iter().map(|path| Found { file: spelled(path), by: by.clone() }).collect()
}

/// The path as it would be spelled beside the main file.
fn spell(path: PathBuf, here: &Path, main: &Path) -> PathBuf {
    match (path.strip_prefix(here), main.parent()) {
        (Ok(rest), Some(folder)) => folder.join(rest),
        _ => path,
    }
}

struct Search<'a> {
    /// Where relative patterns start. Not from `base_path`, which an included file may set.
    here: &'a Path,
    main: &'a Path,
    files: Vec<PathBuf>,
    seen: usize,
}

impl Search<'_> {
    fn add(&mut self, pattern: &str) -> Result<(), (String, &'static str)> {
        let got = shown(pattern);
        if !pattern.contains(['*', '?', '[']) {
            let path = clean(&self.here.join(pattern));
            if !is_same_file(&path, self.main) {
                self.files.push(path);
            }
            return self.bounded();
        }
        let pattern = match (pattern.starts_with('/'), self.here.to_str()) {
            (true, _) => pattern.to_owned(),
            (false, Some(here)) => format!("{}/{pattern}", Pattern::escape(here)),
            (false, None) => {
                let message = format!("expected a folder with a name in UTF-8 for {got}");
                return Err((message, "move the file to such a folder, or write whole paths"));
            }
        };
        let paths = glob::glob_with(&pattern, OPTIONS).map_err(|error| {
            let message = format!("expected a pattern of a shell, got {got}: {}", error.msg);
            (message, "write for example conf.d/*.ini")
        })?;
        for path in paths {
            self.seen += 1;
            if self.seen > MAX_MATCHES {
                let message = format!("expected patterns that match at most {MAX_MATCHES} paths");
                return Err((format!("{message}, got {got}"), "name a folder and an ending"));
            }
            let path = path.map_err(|error| {
                let message = format!(
                    "cannot read {}: {}",
                    shown(&error.path().to_string_lossy()),
                    error.error()
                );
                let is_denied = error.error().kind() == io::ErrorKind::PermissionDenied;
                let mend = match is_denied {
                    true => "give the user that runs this read permission on the folder",
                    false => "check the folders that the pattern goes through",
                };
                (message, mend)
            })?;
            if path.is_dir() || is_same_file(&path, self.main) {
                continue;
            }
            self.files.push(path);
            self.bounded()?;
        }
        Ok(())
    }

    fn bounded(&self) -> Result<(), (String, &'static str)> {
        match self.files.len() {
            0..=MAX_FILES => Ok(()),
            count => Err((
                format!("expected at most {MAX_FILES} files, got {count}"),
                "include fewer files",
            )),
        }
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// Reports `include` where it has no effect.
pub(crate) fn refuse_misplaced(part: &Part, is_main: bool, report: &mut Report) {
    let defaults = (!is_main).then_some(&part.document.defaults);
    for section in part.document.sections.iter().chain(defaults) {
        if let Some(entry) = section.entry(INCLUDE) {
            let origin = Origin::File { path: part.file.shown.clone(), line: entry.line };
            let value = shown(&entry.value.text(INCLUDE));
            let message = format!("expected files to be included by the main file, got {value}");
            let problem = Problem::new(Place::Value(origin), message, MEND_PLACE);
            report.error(problem.about(&section.name, INCLUDE));
        }
    }
}

/// Reports `include` as a variable or a flag, when all files are read already.
pub(crate) fn refuse_late(section: &str, origin: Origin, report: &mut Report) {
    let message = "expected files to be included by the main file, got a later wish";
    report.error(Problem::new(Place::Value(origin), message, MEND_PLACE).about(section, INCLUDE));
}
