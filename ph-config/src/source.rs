//! The files of a configuration, read once: [`Source`] says which, [`Configuration`] holds them.
//!
//! The main file may name others by `include` in its `[DEFAULT]`. They are read in the order of
//! their names; each may have `[DEFAULT]` and sections of its own, which are stronger than those of
//! the files before it, and none includes more. What is wrong with any file is kept, so that a load
//! reports it together with what is wrong with values.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::document::{DEFAULT, Document, Section};
use crate::edit::{entry_text, normalise_key};
use crate::environ::{Environment, Names as VariableNames};
use crate::error::{ConfigErrors, Origin, Place, Problem, Report, nearest, shown};
use crate::format::Format;
use crate::include::{self, INCLUDE};
use crate::ini;
use crate::keys;
use crate::layers::{Layer, Raw, SourceFile, merge_inherited};
use crate::own_files::Whereabouts;
use crate::read::{Purpose, read};
use crate::settings::SETTINGS;
use crate::toml;
use crate::trust::ForeignWriters;
use crate::value::clean;

/// How large all files of one configuration may be together, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// How many section names an error lists.
const MAX_LISTED: usize = 20;

/// Where a configuration is.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    /// The main file, relative to `cwd` or absolute; messages spell it as it is here. Without one,
    /// defaults, variables and overrides make the whole configuration.
    pub file: Option<&'a Path>,
    /// The current directory, absolute.
    pub cwd: &'a Path,
    /// The variables that set keys, and that `%(ENV_X)s` stands for.
    pub environment: Environment,
    /// The name of the service when there is no file and no section.
    pub default_name: &'a str,
    /// What becomes of a file that others than root can write.
    pub foreign_writers: ForeignWriters,
    /// A file, as messages spell it, and the text to take for what it holds: to try an edit out.
    pub instead: Option<(&'a Path, &'a str)>,
}

impl<'a> Source<'a> {
    /// No file and no variables; `cwd` is absolute.
    pub fn new(cwd: &'a Path) -> Self {
        Self {
            file: None,
            cwd,
            environment: Environment::default(),
            default_name: "service",
            foreign_writers: ForeignWriters::Accept,
            instead: None,
        }
    }

    /// Reads the file and those it includes.
    ///
    /// # Errors
    ///
    /// The main file cannot be used at all: missing, not regular, over 1 MiB, not UTF-8, with NUL,
    /// writable by others where that is refused. All else is told by [`Configuration::load`].
    pub fn read(self) -> Result<Configuration, ConfigErrors> {
        let mut report = Report::default();
        if !self.cwd.is_absolute() {
            let cwd = shown(&self.cwd.to_string_lossy());
            let message = format!("expected an absolute cwd, got {cwd}");
            return Err(report.give_up(Problem::new(
                Place::Request,
                message,
                "pass the full path",
            )));
        }
        let mut files = Vec::new();
        if let Some(file) = self.file {
            match self.part(file, &mut report) {
                Ok(main) => files.push(main),
                Err(problem) => return Err(report.give_up(*problem)),
            }
        }
        let here = match files.first() {
            Some(main) => main.file.folder.to_path_buf(),
            None => clean(self.cwd),
        };
        if let Some(main) = files.first() {
            let found = include::find(main, self.cwd, &self.environment, &mut report);
            let mut bytes = main.bytes;
            for Found { file, by } in found {
                match self.part(&file, &mut report) {
                    Ok(part) if bytes + part.bytes > MAX_BYTES => {
                        let message = format!("expected at most {MAX_BYTES} bytes in all files");
                        let mend = "include fewer files";
                        let problem = Problem::new(Place::Value(by), message, mend);
                        report.error(problem.about(DEFAULT, INCLUDE));
                        break;
                    }
                    Ok(part) => {
                        bytes += part.bytes;
                        files.push(part);
                    }
                    // Named by a line, which is the place to act.
                    Err(problem) => report.error(problem.within(&by, DEFAULT, INCLUDE)),
                }
            }
        }
        let mut names: Vec<String> = Vec::new();
        let mut known = BTreeSet::new();
        for (index, part) in files.iter().enumerate() {
            include::refuse_misplaced(part, index == 0, &mut report);
            keys::warn_of_default(&part.document, &part.file.shown, &mut report);
            for section in &part.document.sections {
                if known.insert(section.name.as_str()) {
                    names.push(section.name.clone());
                }
            }
        }
        Ok(Configuration {
            files,
            names,
            here,
            environment: self.environment,
            default_name: self.default_name.to_owned(),
            report,
            foreign_writers: self.foreign_writers,
            used: OnceCell::new(),
            inherited: OnceCell::new(),
            variables: OnceCell::new(),
            places: OnceCell::new(),
        })
    }
}

impl Source<'_> {
    /// Reads and parses one file; `shown` is how messages spell it.
    fn part(&self, shown: &Path, report: &mut Report) -> Result<Part, Box<Problem>> {
        report.follow_with(shown);
        let path = clean(&self.cwd.join(shown));
        let text = match self.instead {
            Some((file, text)) if file == shown => text.to_owned(),
            _ => read(&path, shown, &Purpose::CONFIGURATION, self.foreign_writers, report)?,
        };
        let format = Format::of(shown);
        let (document, faults) = match format {
            Format::Ini => ini::parse(&text),
            Format::Toml => toml::parse(&text),
        };
        for fault in faults {
            let path = shown.to_owned();
            let place = match fault.line {
                0 => Place::File(path),
                line => Place::Value(Origin::File { path, line }),
            };
            let mut problem = Problem::new(place, fault.message, fault.mend);
            (problem.section, problem.key) = (fault.section, fault.key);
            report.error(problem);
        }
        let folder = path.parent().unwrap_or(&path).into();
        let file = SourceFile { shown: shown.to_owned(), folder, format };
        Ok(Part { file, document, bytes: text.len() })
    }
}

/// The files of a configuration, parsed.
#[derive(Debug)]
pub struct Configuration {
    /// The main file first, then the included ones in their order; empty without a file.
    pub(crate) files: Vec<Part>,
    names: Vec<String>,
    /// The folder of the main file, or the current directory.
    pub(crate) here: PathBuf,
    pub(crate) environment: Environment,
    default_name: String,
    /// What was found wrong so far.
    pub(crate) report: Report,
    pub(crate) foreign_writers: ForeignWriters,
    used: OnceCell<BTreeSet<String>>,
    inherited: OnceCell<BTreeMap<String, Raw>>,
    variables: OnceCell<VariableNames>,
    places: OnceCell<Vec<Whereabouts>>,
}

impl Configuration {
    /// The names of all sections in their order, without `[DEFAULT]`.
    pub fn sections(&self) -> &[String] {
        &self.names
    }

    /// Whether all files are understood, whatever their values are; if so, what is odd about them.
    ///
    /// # Errors
    ///
    /// What [`Configuration::load`] would tell of any section: lines that are not understood, and
    /// included files that cannot be used.
    pub fn syntax(&self) -> Result<Vec<Problem>, ConfigErrors> {
        self.report.clone().finish()
    }

    /// The files that were read, the main one first, as messages spell them.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|part| part.file.shown.as_path())
    }

    /// The section of this name, or without one the only section there is. A configuration without
    /// a file has whatever section it is asked for.
    ///
    /// # Errors
    ///
    /// There is no such section; there are several, or none, to choose from.
    pub fn section<'s>(&'s self, wanted: Option<&'s str>) -> Result<&'s str, ConfigErrors> {
        let Some(main) = self.files.first() else {
            return Ok(wanted.unwrap_or(&self.default_name));
        };
        // Where lines are not understood, one of them may be the header.
        self.choose(&main.file.shown, wanted).map_err(|problem| {
            match self.report.clone().finish() {
                Ok(_) => Report::default().give_up(*problem),
                Err(errors) => errors,
            }
        })
    }

    /// The text of a key as the files write it in a section, or in `DEFAULT`, without what it
    /// inherits; and where that is. Of several files the strongest. `app.NAME` is `app_NAME`, and
    /// `environment.NAME` a variable in the table `environment`, whose line is that of the table.
    pub fn written(&self, section: &str, key: &str) -> Option<(String, Origin)> {
        let key = normalise_key(key);
        self.files.iter().rev().find_map(|part| {
            let (text, entry) = entry_text(part.section(section)?, &key)?;
            let origin = Origin::File { path: part.file.shown.clone(), line: entry.line };
            Some((text.into_owned(), origin))
        })
    }

    /// The first file that has this section; of `DEFAULT` the main file.
    pub fn home(&self, section: &str) -> Option<&Path> {
        let part = self.files.iter().find(|part| part.section(section).is_some());
        part.map(|part| part.file.shown.as_path())
    }

    /// What all sections inherit: the defaults of the table, and the `[DEFAULT]` of each file.
    pub(crate) fn inherited(&self) -> &BTreeMap<String, Raw> {
        self.inherited.get_or_init(|| {
            let mut layers =
                vec![Layer::defaults(SETTINGS.iter().map(|row| (row.name, row.default)))];
            // What is wrong with the variable is told by each load, where it is looked at again.
            let concurrency = self.environment.concurrency(&mut Report::default());
            layers.extend(concurrency.map(Layer::fallback));
            let defaults = self.files.iter().map(|part| (&part.file, &part.document.defaults));
            layers.extend(defaults.map(|(file, section)| Layer::section(file, section)));
            merge_inherited(&layers)
        })
    }

    /// What variables may be called.
    pub(crate) fn names_of_variables(&self) -> &VariableNames {
        self.variables.get_or_init(|| {
            let documents = || self.files.iter().map(|part| &part.document);
            let sections = documents()
                .flat_map(|document| document.sections.iter().chain([&document.defaults]));
            let keys = sections.flat_map(|section| &section.entries).map(|entry| &*entry.key);
            VariableNames::new(self.names.iter().map(String::as_str), keys)
        })
    }

    /// What each file says in the section of this name.
    pub(crate) fn parts<'s>(
        &'s self,
        name: &'s str,
    ) -> impl Iterator<Item = (&'s SourceFile, &'s Section)> {
        self.files.iter().filter_map(move |part| {
            part.document.section(name).map(|section| (&part.file, section))
        })
    }

    /// All that files say for the section of this name, what it inherits included.
    pub(crate) fn all_parts<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Section> {
        let defaults = self.files.iter().map(|part| &part.document.defaults);
        defaults.chain(self.parts(name).map(|(_, section)| section))
    }

    /// The keys that any section needs.
    pub(crate) fn used(&self) -> &BTreeSet<String> {
        self.used.get_or_init(|| keys::used(self.files.iter().map(|part| &part.document)))
    }

    /// Where its files are, for what must not be written there.
    pub(crate) fn places(&self) -> &[Whereabouts] {
        self.places.get_or_init(|| {
            let files = self.files.iter().map(|part| &part.file);
            let paths = files.filter_map(|it| Some(it.folder.join(it.shown.file_name()?)));
            paths.flat_map(|path| Whereabouts::all_of(&path)).collect()
        })
    }

    fn list(&self) -> String {
        let names: Vec<String> = self.names.iter().take(MAX_LISTED).map(|it| shown(it)).collect();
        let more = if self.names.len() > MAX_LISTED { ", …" } else { "" };
        format!("{}{more}", names.join(", "))
    }

    fn choose<'s>(&'s self, main: &Path, wanted: Option<&'s str>) -> Result<&'s str, Box<Problem>> {
        let problem = |message: String, mend: String| {
            Box::new(Problem::new(Place::Section(main.to_owned()), message, mend))
        };
        let Some(wanted) = wanted else {
            return match self.names.as_slice() {
                [only] => Ok(only),
                [] => Err(problem(
                    "expected a section besides [DEFAULT], got none".to_owned(),
                    "add `[name]` and the settings of one service below it".to_owned(),
                )),
                _ => Err(problem(
                    format!(
                        "expected one section or a choice, got {}: {}",
                        self.names.len(),
                        self.list()
                    ),
                    "name the section to use".to_owned(),
                )),
            };
        };
        if self.files.iter().any(|part| part.document.section(wanted).is_some()) {
            return Ok(wanted);
        }
        let have = if self.names.is_empty() { "none".to_owned() } else { self.list() };
        let mend = if wanted == DEFAULT {
            "[DEFAULT] is what sections inherit; name the section of a service".to_owned()
        } else {
            match nearest(wanted, self.names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {}? (case and blanks count)", shown(near)),
                None => "name one of the sections there are, or add this one".to_owned(),
            }
        };
        Err(problem(format!("expected a section {}, got {have}", shown(wanted)), mend))
    }
}

/// One file of a configuration.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) file: SourceFile,
    pub(crate) document: Document,
    bytes: usize,
}

/// An included file, and the line that names it.
pub(crate) struct Found {
    pub(crate) file: PathBuf,
    pub(crate) by: Origin,
}

impl Part {
    /// The section of this name, or `DEFAULT`.
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        match name {
            DEFAULT => Some(&self.document.defaults),
            name => self.document.section(name),
        }
    }

    /// The texts of its `[DEFAULT]`, by their keys.
    pub(crate) fn defaults(&self) -> BTreeMap<String, Raw> {
        merge_inherited(&[Layer::section(&self.file, &self.document.defaults)])
    }
}
