//! From a [`Configuration`] to [`Settings`]: the order of the steps, and nothing of their substance.
//!
//! section -> layers -> merged texts -> comments cut -> interpolated -> typed -> checked together
//! -> env files read. Each step goes on after a problem as far as that makes sense, so that one
//! report holds them all.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::check;
use crate::document::DEFAULT;
use crate::env_file;
use crate::environ::{Environment, Names};
use crate::error::{ConfigErrors, Origin, Place, Problem, Report, shown};
use crate::include::{self, INCLUDE};
use crate::interpolate::{self, LATE_KEYS, Scope, Spent};
use crate::keys;
use crate::layers::{Given, Layer, Merged, Overridden, Raw, merge_own};
use crate::settings::{self, SETTINGS, Settings};
use crate::source::Configuration;
use crate::trust::ForeignWriters;
use crate::value::{
    BASE_PATH, ENV_FILES, EXTRA_KEYS, ExtraKeys, Folders, Kind, Shape, ValueError, command_line,
};

/// One setting from the command line. It wins over every file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The key; its case does not matter.
    pub key: String,
    /// The value as it would stand in a file: names are interpolated, `%%` is a percent sign.
    pub value: String,
    /// How it was given, for messages: `--set number_workers` or `-n`.
    pub flag: String,
}

impl Override {
    /// The `command` that executes exactly these words: quoted, and with percent signs kept,
    /// except that `%(slot)s` and `%(generation)s` are late-bound here too.
    ///
    /// ```
    /// let given = ph_config::Override::command(["date", "+%F %T"], "--");
    /// assert_eq!(given.value, "date '+%%F %%T'");
    /// ```
    pub fn command<'w>(words: impl IntoIterator<Item = &'w str>, flag: &str) -> Override {
        let value = interpolate::escape(&command_line(words));
        Override { key: "command".to_owned(), value, flag: flag.to_owned() }
    }
}

/// A configuration that holds.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What is legal but probably not meant.
    pub warnings: Vec<Problem>,
}

impl Configuration {
    /// The settings of one service: those of the section named, or of the only one there is.
    /// `overrides` are what the command line said, the weakest first.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, in one report: the lines of all files, the choice of the section,
    /// names in `%(…)s`, unknown keys, values, settings that do not fit together, and the files
    /// that `env_file` names. Other sections are parsed but not judged.
    pub fn load(
        &self,
        section: Option<&str>,
        overrides: &[Override],
    ) -> Result<Loaded, ConfigErrors> {
        let name = self.section(section)?;
        let mut report = self.report.clone();
        let mut merged = self.merge_layers(name, overrides, &mut report);
        keys::cut_comments(&mut merged, &mut report);
        let (mut reader, settings) = self.read_values(&merged, name, report);
        if let Some(settings) = &settings {
            check::together(settings, self.places(), &mut reader.report);
            check::dependencies(settings, self.sections(), &mut reader.report);
        }
        let variables = reader.read_env_files(self.foreign_writers);
        let warnings = reader.report.finish()?;
        let mut settings = settings.expect("a setting that could not be read was reported");
        settings.file_environment = variables;
        settings.header = self
            .parts(name)
            .next()
            .map(|(file, section)| Origin::File { path: file.shown.clone(), line: section.line });
        Ok(Loaded { settings, warnings })
    }

    /// What can be told of a service although the configuration may not hold: defaults stand in for
    /// values that cannot be read, and lines that are not understood are passed over. For those who
    /// look for a service that runs; nothing may be started with it. What is wrong is in the warnings.
    ///
    /// # Errors
    ///
    /// There is no such section, or one of the `needed` keys is not among what can be read.
    pub fn salvage(
        &self,
        section: Option<&str>,
        overrides: &[Override],
        needed: &[&str],
    ) -> Result<Loaded, ConfigErrors> {
        let name = self.section(section)?;
        let mut report = self.report.clone();
        report.lift_bound();
        let mut merged = self.merge_layers(name, overrides, &mut report);
        keys::cut_comments(&mut merged, &mut report);
        let (reader, settings) = self.read_values(&merged, name, report);
        let (refused, report) = (reader.refused, reader.report);
        let problems = match report.clone().finish() {
            Ok(warnings) => warnings,
            Err(ConfigErrors(problems)) => {
                let concerns = |problem: &Problem| {
                    let is_here =
                        problem.section.as_deref().is_none_or(|it| [name, DEFAULT].contains(&it));
                    is_here && problem.key.as_deref().is_some_and(|key| needed.contains(&key))
                };
                if problems.iter().any(concerns) {
                    return Err(ConfigErrors(problems));
                }
                problems
            }
        };
        let settings = match settings {
            Some(settings) => Some(settings),
            None => {
                let rows = SETTINGS.iter().filter(|row| refused.contains(row.name));
                rows.for_each(|row| merged.reset(row.name, row.default));
                self.read_values(&merged, name, Report::default()).1
            }
        };
        // A default that does not fit here is no default.
        let settings = settings.ok_or_else(|| ConfigErrors(problems.clone()))?;
        Ok(Loaded { settings, warnings: problems })
    }

    /// What is wrong with each value by itself, as a section of this name sees it, be there one or
    /// not. An edit asks this, which has to judge a value also where no section takes it.
    pub(crate) fn judge(&self, name: &str) -> Vec<Problem> {
        let mut report = Report::default();
        report.lift_bound();
        let mut merged = self.merge_layers(name, &[], &mut report);
        keys::cut_comments(&mut merged, &mut report);
        let (reader, _) = self.read_values(&merged, name, report);
        reader.report.finish().err().map_or_else(Vec::new, |ConfigErrors(problems)| problems)
    }

    /// Interpolates and types each value by itself, and looks for unknown keys.
    fn read_values<'m>(
        &self,
        merged: &'m Merged<'m>,
        name: &'m str,
        report: Report,
    ) -> (Reader<'m>, Option<Settings>) {
        let (expanded, folders) = (BTreeMap::new(), Folders::default());
        let refused = BTreeSet::new();
        let mut reader = Reader { merged, section: name, expanded, folders, refused, report };
        let app = reader.expand_all(&self.here, &self.environment);
        let tolerant = reader.expanded.get("extra_keys").is_some_and(|text| {
            (EXTRA_KEYS.parse)(text.trim(), &Folders::default()) == Ok(ExtraKeys::Allow)
        });
        let (sections, used) = (self.all_parts(name), || self.used());
        keys::refuse_unknown(merged, sections, used, tolerant, &mut reader.report);
        let settings = Settings::read(&mut reader, name, app);
        (reader, settings)
    }

    /// Where the value that wins for this key of a section is from, whether it is good or not.
    pub fn winner(&self, section: &str, key: &str) -> Origin {
        let merged = self.merge_layers(section, &[], &mut Report::default());
        merged.get(&key.to_lowercase()).map_or(Origin::Default, |raw| raw.origin.clone())
    }

    fn merge_layers(&self, name: &str, overrides: &[Override], report: &mut Report) -> Merged<'_> {
        let mut layers: Vec<Layer<'_>> =
            self.parts(name).map(|(file, section)| Layer::section(file, section)).collect();
        if self.environment.has_ours() {
            let single = Names::new([name].into_iter(), [].into_iter());
            let names = if self.files.is_empty() { &single } else { self.names_of_variables() };
            let has = |key: &str| self.all_parts(name).any(|section| section.entry(key).is_some());
            let variables = self.environment.settings(name, names, has, report);
            layers.extend(Layer::given("variables", name, variables.into_iter()));
        }
        let overrides = overrides.iter().filter(|given| {
            let nul = given.key.contains('\0') || given.value.contains('\0');
            if nul {
                let place = Place::Value(Origin::Flag(given.flag.clone()));
                let problem =
                    Problem::new(place, "expected text, got a NUL character", "take it out");
                report.error(problem.about(name, &given.key.to_lowercase()));
            }
            !nul
        });
        let flags = overrides.map(|given| Given {
            key: given.key.to_lowercase(),
            text: &given.value,
            origin: Origin::Flag(given.flag.clone()),
        });
        layers.extend(Layer::given("command line", name, flags));
        let merged = Merged::new(self.inherited(), merge_own(name, &layers));
        if merged.get("number_workers").is_some_and(|raw| raw.origin == Origin::Default) {
            // It counts where nothing else does, and so do its faults.
            self.environment.concurrency(report);
        }
        match merged.get(INCLUDE).map(|raw| &raw.origin) {
            Some(origin @ (Origin::Variable(_) | Origin::Flag(_))) => {
                include::refuse_late(name, origin.clone(), report);
            }
            Some(Origin::Default | Origin::File { .. }) | None => {}
        }
        merged
    }
}

/// Hands out values to the table, and takes what is wrong with them.
pub(crate) struct Reader<'a> {
    merged: &'a Merged<'a>,
    section: &'a str,
    /// Interpolated texts; a key whose interpolation failed is not here.
    expanded: BTreeMap<&'static str, Cow<'a, str>>,
    /// Known once `base_path` is.
    folders: Folders,
    /// Keys whose values cannot be read.
    refused: BTreeSet<String>,
    report: Report,
}

impl<'a> Reader<'a> {
    /// Interpolates all settings, `base_path` first, and returns the application's own keys.
    fn expand_all(&mut self, here: &Path, environment: &Environment) -> BTreeMap<String, String> {
        let (merged, section) = (self.merged, self.section);
        let spent = Spent::default();
        let mut scope = Scope { merged, section, here, environment, base_path: None, spent };
        let base_text = interpolate::expand(&scope, "base_path", Shape::Line, false);
        let base_text = base_text.unwrap_or_default().trim().to_owned();
        self.folders = Folders { here: here.to_owned(), base: here.to_owned() };
        if let Ok(base) = (BASE_PATH.parse)(&base_text, &self.folders) {
            self.folders.base = base;
        }
        // The folder itself, whoever asks: a relative one would mean another folder to whoever is
        // not resolved against it. A folder whose name is no text can still be the start of paths.
        scope.base_path = Some(self.folders.base.to_str().unwrap_or(".").to_owned());
        for row in SETTINGS {
            let late = LATE_KEYS.contains(&row.name);
            match interpolate::expand(&scope, row.name, row.shape, late) {
                Ok(text) => {
                    self.expanded.insert(row.name, text);
                }
                Err(error) => self.refuse(row.name, &error, None),
            }
        }
        let mut app = BTreeMap::new();
        for (key, _) in self.merged.iter() {
            let Some(name) = keys::app_name(key) else { continue };
            match interpolate::expand(&scope, key, Shape::Text, false) {
                Ok(text) => {
                    app.insert(name.to_owned(), text.into_owned());
                }
                Err(error) => self.refuse(key, &error, None),
            }
        }
        app
    }

    /// The typed value of a setting; `None` after reporting why there is none.
    pub(crate) fn take<T>(&mut self, name: &'static str, kind: &Kind<T>) -> Option<T> {
        let text = self.expanded.get(name)?.trim();
        let one_line = matches!(kind.shape, Shape::Line | Shape::Share);
        let parsed = if one_line && text.contains('\n') {
            let mend =
                "an indented line continues the value above it; start the line at the margin";
            Err(ValueError::new("one line", mend))
        } else {
            (kind.parse)(text, &self.folders)
        };
        match parsed {
            Ok(value) => Some(value),
            Err(error) => {
                let text = text.to_owned();
                self.refuse(name, &error, Some(&text));
                None
            }
        }
    }

    fn refuse(&mut self, key: &str, error: &ValueError, text: Option<&str>) {
        self.refused.insert(key.to_owned());
        let mut problem = refused(key, self.merged.get(key), error, text);
        match &problem.origin {
            // All sections share these, but only one is loaded.
            Place::Value(Origin::Default | Origin::Variable(_)) => {
                problem.section = Some(self.section.to_owned());
            }
            Place::Value(Origin::File { .. } | Origin::Flag(_))
            | Place::File(_)
            | Place::Section(_)
            | Place::Request => {}
        }
        self.report.error(problem);
    }

    /// The variables in the files of `env_file`, also where another setting was refused: one report
    /// holds all problems. A list that is itself refused was reported when it was taken.
    fn read_env_files(&mut self, foreign_writers: ForeignWriters) -> Vec<(String, String)> {
        let text = self.expanded.get("env_file").map_or("", |text| text.trim());
        let Some(raw) = self.merged.get("env_file") else { return Vec::new() };
        let files = (ENV_FILES.parse)(text, &self.folders).unwrap_or_default();
        env_file::read_all(&files, raw, foreign_writers, &mut self.report)
    }

    /// Where each value came from, defaults left out.
    pub(crate) fn origins(&self) -> BTreeMap<String, Origin> {
        let set = self.merged.iter().filter(|(_, raw)| raw.origin != Origin::Default);
        set.map(|(key, raw)| (key.to_owned(), raw.origin.clone())).collect()
    }

    /// What each value won over.
    pub(crate) fn overridden(&self) -> BTreeMap<String, Vec<Overridden>> {
        self.merged.overridden()
    }
}

/// The problem of a value that its kind, or interpolation, refused.
pub(crate) fn refused(
    key: &str,
    raw: Option<&Raw>,
    error: &ValueError,
    text: Option<&str>,
) -> Problem {
    let origin = raw.map_or(Origin::Default, |raw| raw.origin.clone());
    let section = raw.map_or("", |raw| raw.section.as_str());
    let got = shown(
        &text.map(Cow::Borrowed).or(raw.map(|raw| raw.written.text(key))).unwrap_or_default(),
    );
    let mend = match (&origin, settings::find(key)) {
        (Origin::Default, Some(row)) => {
            format!("the default, {}, does not fit here: set `{key}`", shown(row.default))
        }
        _ => error.mend.clone(),
    };
    let message = format!("expected {}, got {got}", error.expected);
    Problem::new(Place::Value(origin), message, mend).about(section, key)
}
