//! From a request to [`Settings`]: the order of the steps, and nothing of their substance.
//!
//! file -> document -> section -> layers -> merged texts -> comments cut -> interpolated -> typed
//! -> checked together -> env files read. Each step goes on after a problem as far as that makes
//! sense, so that one report holds them all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::check;
use crate::env_file;
use crate::error::{ConfigErrors, Origin, Place, Problem, Report, nearest, shown};
use crate::ini::{self, Document, Section};
use crate::interpolate::{self, LATE_KEYS, Scope, Spent};
use crate::keys;
use crate::layers::{Layer, Raw, merge};
use crate::read::read;
use crate::settings::{self, SETTINGS, Settings};
use crate::value::{
    BASE_PATH, ENV_FILES, EXTRA_KEYS, ExtraKeys, Folders, Kind, Shape, ValueError, clean,
};

/// How many section names an error lists.
const MAX_LISTED: usize = 20;

/// What to load.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The configuration file, relative to `cwd` or absolute; messages spell it as it is here.
    /// Without one, defaults and overrides make the whole configuration.
    pub file: Option<&'a Path>,
    /// The section to load. Without one, the only section of the file.
    pub section: Option<&'a str>,
    /// What the command line said, the weakest first.
    pub overrides: &'a [Override],
    /// The current directory, absolute.
    pub cwd: &'a Path,
    /// The name of the service when there is neither file nor section.
    pub default_name: &'a str,
}

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
        // NUL is let through here, because a load refuses it with a message of its own.
        let joined = shlex::Quoter::new().allow_nul(true).join(words).unwrap_or_default();
        let value = interpolate::escape(&joined);
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

/// Loads the settings of one service.
///
/// # Errors
///
/// Everything that is wrong, in one report: the file (missing, not regular, over 1 MiB, not UTF-8,
/// NUL), its lines, the choice of the section, names in `%(…)s`, unknown keys, values, settings
/// that do not fit together, and the files that `env_file` names. Other sections of the file are
/// parsed but not judged.
pub fn load(request: &Request<'_>) -> Result<Loaded, ConfigErrors> {
    let mut report = Report::default();
    if !request.cwd.is_absolute() {
        let cwd = shown(&request.cwd.to_string_lossy());
        let message = format!("expected an absolute cwd, got {cwd}");
        return Err(report.give_up(Problem::new(Place::Request, message, "pass the full path")));
    }
    let document = match request.file {
        Some(file) => match read(&request.cwd.join(file), file) {
            Ok(text) => Some(parse(&text, file, &mut report)),
            Err(problem) => return Err(report.give_up(*problem)),
        },
        None => None,
    };
    let section = match (&document, request.file) {
        (Some(document), Some(file)) => match choose(document, file, request.section) {
            Ok(section) => Some(section),
            Err(problem) => return Err(report.give_up(*problem)),
        },
        _ => None,
    };
    let name = section
        .map(|section| section.name.as_str())
        .or(request.section)
        .unwrap_or(request.default_name);
    let merged = merge_layers(request, document.as_ref(), section, name, &mut report);
    let mut reader = Reader { merged, expanded: BTreeMap::new(), folders: None, report };
    keys::cut_comments(&mut reader.merged, &mut reader.report);
    let app = reader.expand_all(name, &here(request));
    let tolerant = reader.expanded.get("extra_keys").is_some_and(|text| {
        (EXTRA_KEYS.parse)(text.trim(), &Folders::default()) == Ok(ExtraKeys::Allow)
    });
    let file = document.as_ref().zip(section);
    keys::refuse_unknown(&reader.merged, file, tolerant, &mut reader.report);
    let settings = Settings::read(&mut reader, name, app);
    if let Some(settings) = &settings {
        check::together(settings, &mut reader.report);
    }
    let variables = reader.read_env_files();
    let warnings = reader.report.finish()?;
    let mut settings = settings.expect("a setting that could not be read was reported");
    settings.file_environment = variables;
    Ok(Loaded { settings, warnings })
}

/// The names of a file's sections in their order, without `[DEFAULT]`.
///
/// # Errors
///
/// If the file cannot be read, or has lines that are not understood.
pub fn sections(file: &Path) -> Result<Vec<String>, ConfigErrors> {
    let mut report = Report::default();
    match read(file, file) {
        Ok(text) => {
            let document = parse(&text, file, &mut report);
            report.finish()?;
            Ok(document.sections.into_iter().map(|section| section.name).collect())
        }
        Err(problem) => Err(report.give_up(*problem)),
    }
}

fn parse(text: &str, file: &Path, report: &mut Report) -> Document {
    let (document, faults) = ini::parse(text);
    for fault in faults {
        let origin = Origin::File { path: file.to_owned(), line: fault.line };
        let mut problem = Problem::new(Place::Value(origin), fault.message, fault.mend);
        (problem.section, problem.key) = (fault.section, fault.key);
        report.error(problem);
    }
    document
}

fn choose<'d>(
    document: &'d Document,
    file: &Path,
    wanted: Option<&str>,
) -> Result<&'d Section, Box<Problem>> {
    let sections = &document.sections;
    let names: Vec<String> =
        sections.iter().take(MAX_LISTED).map(|section| shown(&section.name)).collect();
    let more = if sections.len() > MAX_LISTED { ", …" } else { "" };
    let list = format!("{}{more}", names.join(", "));
    let problem = |message: String, mend: String| {
        Box::new(Problem::new(Place::File(file.to_owned()), message, mend))
    };
    let Some(wanted) = wanted else {
        return match sections.as_slice() {
            [only] => Ok(only),
            [] => Err(problem(
                "expected a section besides [DEFAULT], got none".to_owned(),
                "add `[name]` and the settings of one service below it".to_owned(),
            )),
            _ => Err(problem(
                format!("expected one section or a choice, got {}: {list}", sections.len()),
                "name the section to use".to_owned(),
            )),
        };
    };
    if let Some(section) = sections.iter().find(|section| section.name == wanted) {
        return Ok(section);
    }
    let have = if sections.is_empty() { "none".to_owned() } else { list };
    let mend = if wanted == ini::DEFAULT {
        "[DEFAULT] is what sections inherit; name the section of a service".to_owned()
    } else {
        match nearest(wanted, sections.iter().map(|section| section.name.as_str())) {
            Some(near) => format!("did you mean {}? (case and blanks count)", shown(near)),
            None => "name one of the sections there are, or add this one".to_owned(),
        }
    };
    Err(problem(format!("expected a section {}, got {have}", shown(wanted)), mend))
}

fn merge_layers(
    request: &Request<'_>,
    document: Option<&Document>,
    section: Option<&Section>,
    name: &str,
    report: &mut Report,
) -> BTreeMap<String, Raw> {
    // The name is filled in here, so that a key called `section` cannot change the defaults.
    let escaped = name.replace('%', "%%");
    let rows = SETTINGS.iter().map(|row| (row.name, row.default.replace("%(section)s", &escaped)));
    let mut layers = vec![Layer::defaults(name, rows)];
    if let (Some(document), Some(file)) = (document, request.file) {
        let sections = [Some(&document.defaults), section];
        layers.extend(sections.into_iter().flatten().map(|s| Layer::section(file.to_owned(), s)));
        keys::warn_of_default(document, file, report);
    }
    let given = request.overrides.iter().filter(|given| {
        let nul = given.key.contains('\0') || given.value.contains('\0');
        if nul {
            let place = Place::Value(Origin::Flag(given.flag.clone()));
            let problem = Problem::new(place, "expected text, got a NUL character", "take it out");
            report.error(problem.about(name, &given.key.to_lowercase()));
        }
        !nul
    });
    let given = given.map(|g| (g.key.to_lowercase(), g.value.as_str(), g.flag.as_str()));
    layers.push(Layer::command_line(name, given));
    merge(name, &layers)
}

/// The folder of the file, or the current directory.
fn here(request: &Request<'_>) -> PathBuf {
    let file = request.file.map(|file| clean(&request.cwd.join(file)));
    match file.as_deref().and_then(Path::parent) {
        Some(folder) => folder.to_owned(),
        None => clean(request.cwd),
    }
}

/// Hands out values to the table, and takes what is wrong with them.
pub(crate) struct Reader<'a> {
    merged: BTreeMap<String, Raw>,
    /// Interpolated texts; a key whose interpolation failed is not here.
    expanded: BTreeMap<&'a str, String>,
    /// Known once `base_path` is.
    folders: Option<Folders>,
    report: Report,
}

impl Reader<'_> {
    /// Interpolates all settings, `base_path` first, and returns the application's own keys.
    fn expand_all(&mut self, section: &str, here: &Path) -> BTreeMap<String, String> {
        let mut scope =
            Scope { merged: &self.merged, section, here, base_path: None, spent: Spent::default() };
        let base_text = interpolate::expand(&scope, "base_path", Shape::Line, false);
        let base_text = base_text.unwrap_or_default().trim().to_owned();
        let mut folders = Folders { here: here.to_owned(), base: here.to_owned() };
        if let Ok(base) = (BASE_PATH.parse)(&base_text, &folders) {
            folders.base = base;
        }
        self.folders = Some(folders);
        // Relative paths start from base_path, so a relative one must not be applied twice:
        // `%(base_path)s/x` is `./x` then, and an absolute one stands as it is.
        let relative = Path::new(&base_text).is_relative();
        scope.base_path = Some(if relative { ".".to_owned() } else { base_text });
        for row in SETTINGS {
            let late = LATE_KEYS.contains(&row.name);
            match interpolate::expand(&scope, row.name, row.shape, late) {
                Ok(text) => {
                    self.expanded.insert(row.name, text);
                }
                Err(error) => {
                    self.report.error(refused(row.name, self.merged.get(row.name), &error, None));
                }
            }
        }
        let mut app = BTreeMap::new();
        for (key, raw) in &self.merged {
            let Some(name) = keys::app_name(key) else { continue };
            match interpolate::expand(&scope, key, Shape::Free, false) {
                Ok(text) => {
                    app.insert(name.to_owned(), text);
                }
                Err(error) => self.report.error(refused(key, Some(raw), &error, None)),
            }
        }
        app
    }

    /// The typed value of a setting; `None` after reporting why there is none.
    pub(crate) fn take<T>(&mut self, name: &'static str, kind: &Kind<T>) -> Option<T> {
        let text = self.expanded.get(name)?.trim();
        let folders = self.folders.as_ref()?;
        let one_line = matches!(kind.shape, Shape::Line | Shape::Share);
        let parsed = if one_line && text.contains('\n') {
            let mend =
                "an indented line continues the value above it; start the line at the margin";
            Err(ValueError::new("one line", mend))
        } else {
            (kind.parse)(text, folders)
        };
        match parsed {
            Ok(value) => Some(value),
            Err(error) => {
                let problem = refused(name, self.merged.get(name), &error, Some(text));
                self.report.error(problem);
                None
            }
        }
    }

    /// The variables in the files of `env_file`, also where another setting was refused: one report
    /// holds all problems. A list that is itself refused was reported when it was taken.
    fn read_env_files(&mut self) -> Vec<(String, String)> {
        let text = self.expanded.get("env_file").map_or("", |text| text.trim());
        let (Some(folders), Some(raw)) = (&self.folders, self.merged.get("env_file")) else {
            return Vec::new();
        };
        let files = (ENV_FILES.parse)(text, folders).unwrap_or_default();
        env_file::read_all(&files, raw, &mut self.report)
    }

    /// Where each value came from, defaults left out.
    pub(crate) fn origins(&self) -> BTreeMap<String, Origin> {
        let set = self.merged.iter().filter(|(_, raw)| raw.origin != Origin::Default);
        set.map(|(key, raw)| (key.clone(), raw.origin.clone())).collect()
    }
}

/// The problem of a value that its kind, or interpolation, refused.
fn refused(key: &str, raw: Option<&Raw>, error: &ValueError, text: Option<&str>) -> Problem {
    let origin = raw.map_or(Origin::Default, |raw| raw.origin.clone());
    let section = raw.map_or("", |raw| raw.section.as_str());
    let got = shown(text.or(raw.map(|raw| raw.text.as_str())).unwrap_or_default());
    let mend = match (&origin, settings::find(key)) {
        (Origin::Default, Some(row)) => {
            format!("the default, {}, does not fit here: set `{key}`", shown(row.default))
        }
        _ => error.mend.clone(),
    };
    let message = format!("expected {}, got {got}", error.expected);
    Problem::new(Place::Value(origin), message, mend).about(section, key)
}
