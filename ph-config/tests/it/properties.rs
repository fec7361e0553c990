//! What holds for every input, however odd: one function for each way in.
//!
//! `random.rs` calls these with texts out of meaningful pieces, and the targets in `fuzz/` include
//! this very file and call them with whatever the fuzzer finds. So everything here stands on the
//! public interface alone. A new way in gets a function here, a few lines in `random.rs`, and a
//! target.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ph_config::{ConfigErrors, Configuration, Edit, Format, Loaded, Override, SETTINGS, Source};

/// How many sections of one file are loaded: enough to have each kind, few enough to be fast.
const SECTIONS: usize = 3;
/// What interpolation may make of one load, in bytes, on top of what was given.
const EXPANSION: usize = 4 * 1024 * 1024;
/// How long a report may become, in bytes: some hundred problems of two lines each.
const REPORT: usize = 512 * 1024;
/// How many look-ups the model of interpolation makes before it has no opinion.
const PATIENCE: usize = 5000;

/// Any bytes are an INI file: none panic, and what is refused is refused in lines one can print.
pub(crate) fn ini(bytes: &[u8]) {
    file("app.ini", bytes);
}

/// Any bytes are a TOML file.
pub(crate) fn toml(bytes: &[u8]) {
    file("app.toml", bytes);
}

fn file(name: &str, bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join(name), bytes).expect("the folder is writable");
    let source = Source { file: Some(Path::new(name)), ..Source::new(folder.path()) };
    let configuration = match source.read() {
        Ok(configuration) => configuration,
        Err(errors) => return printable(&errors),
    };
    let allow = [given("extra_keys", "allow"), given("proc_name", "p")];
    let whole = judge(configuration.load(None, &[]), bytes.len());
    if let Err(errors) = configuration.syntax() {
        printable(&errors);
        whole.expect_err("a file that is not understood has nothing to load");
    }
    for name in configuration.sections().iter().take(SECTIONS) {
        judge(configuration.load(Some(name), &allow), bytes.len()).ok();
    }
}

/// Any edit of any text is refused, or is that edit: the first line of `text` is the section, the
/// second the key, the third the value with `|` for line ends, and the rest the file.
pub(crate) fn edit(format: Format, text: &str) {
    let mut lines = text.splitn(4, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let (section, key, value, before) = (next(), next(), next().replace('|', "\n"), next());
    let name = Path::new(if format == Format::Ini { "app.ini" } else { "app.toml" });
    for value in [Some(value.as_str()), None] {
        let edit = Edit { section, key, value, keep_comment: false };
        match ph_config::edit(before, format, &edit) {
            Ok(after) => {
                let (before, after) = (parse(name, before), parse(name, &after));
                let (before, after) =
                    before.and_then(|it| Ok((it, after?))).expect("both are text");
                // Files are included by the main section of a main file only.
                if before.syntax().is_ok() && key.to_lowercase() != "include" {
                    after.syntax().expect("the edited file is understood as well");
                }
                let (old, new) = (before.sections(), after.sections());
                let all: BTreeSet<&String> = new.iter().collect();
                assert!(old.iter().all(|name| all.contains(name)), "{old:?} {new:?}");
                // In TOML a list is written in many ways, and the first header of a section, which
                // gives it its place among the others, may come after its tables.
                if format == Format::Ini {
                    assert!(new.starts_with(old), "{old:?} {new:?}");
                    let written = after.written(section, key).map(|(text, _)| text);
                    assert_eq!(written.as_deref(), value);
                }
            }
            Err(error) => {
                assert!(!error.to_string().contains("bug in ph"), "{error}\n{before}");
                printable(&ConfigErrors(vec![error.at(name)]));
            }
        }
    }
}

fn parse(name: &Path, text: &str) -> Result<Configuration, ConfigErrors> {
    let source = Source::new(Path::new("/"));
    Source { file: Some(name), instead: Some((name, text)), ..source }.read()
}

/// Interpolation of any texts: the lines of `text` are values that may refer to one another, as
/// `app_0`, `k1`, `k2` and so on. What comes out is what ConfigParser's rules say.
pub(crate) fn interpolation(text: &str) {
    escaped_text_comes_back(text);
    let key = |index: usize| if index == 0 { "app_0".to_owned() } else { format!("k{index}") };
    let values: BTreeMap<String, String> =
        text.lines().take(16).enumerate().map(|(at, line)| (key(at), line.to_owned())).collect();
    let mut overrides = vec![given("extra_keys", "allow")];
    overrides.extend(values.iter().map(|(key, value)| given(key, value)));
    let loaded = load(&overrides, text.len());
    if !values.contains_key("app_0") || text.contains('\0') || names_of_ours(text) {
        return;
    }
    let mut model = Model { values: &values, lookups: 0 };
    let expected = model.expand("app_0", 1);
    if model.lookups > PATIENCE {
        return;
    }
    match (loaded, expected) {
        (Ok(loaded), Some(expected)) => assert_eq!(loaded.settings.app["0"], expected),
        (Ok(loaded), None) => panic!("accepted: {:?}", loaded.settings.app["0"]),
        (Err(errors), expected) => assert_eq!(expected, None, "refused: {errors}"),
    }
}

/// Any value of any setting, and any text as a key.
pub(crate) fn value(row: usize, text: &str) {
    let row = &SETTINGS[row % SETTINGS.len()];
    for (key, value) in [(row.name, text), (text, row.name)] {
        let overrides = [given(key, value)];
        if let Ok(loaded) = load(&overrides, text.len()) {
            let again = load(&overrides, text.len()).expect("it was accepted a moment ago");
            let changed = again.settings.diff(&loaded.settings);
            assert!(changed.is_empty(), "the same text is twice the same value: {changed:?}");
        }
    }
}

/// Loads a service that has no file, and judges the outcome.
fn load(overrides: &[Override], size: usize) -> Result<Loaded, ConfigErrors> {
    let configuration = Source::new(Path::new("/")).read().expect("there is nothing to read");
    judge(configuration.load(None, overrides), size)
}

fn given(key: &str, value: &str) -> Override {
    Override { key: key.to_owned(), value: value.to_owned(), flag: "--set".to_owned() }
}

/// Holds the outcome of a load to what is true of every one.
fn judge(outcome: Result<Loaded, ConfigErrors>, size: usize) -> Result<Loaded, ConfigErrors> {
    match &outcome {
        Ok(loaded) => {
            printable(&ConfigErrors(loaded.warnings.clone()));
            let app = loaded.settings.app.values().map(String::len).sum::<usize>();
            let words = loaded.settings.command.iter().map(String::len).sum::<usize>();
            assert!(app + words <= size + EXPANSION, "{size} bytes became {}", app + words);
        }
        Err(errors) => {
            assert!(!errors.0.is_empty(), "refused without a reason");
            printable(errors);
        }
    }
    outcome
}

/// A report is two lines a problem, has an end, and does not steer a terminal.
fn printable(report: &ConfigErrors) {
    let shown = report.to_string();
    let steers = |c: char| {
        let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}');
        (c.is_control() && c != '\n') || reorders || matches!(c, '\u{2028}' | '\u{2029}')
    };
    let odd = shown.chars().find(|c| steers(*c));
    assert_eq!(odd, None, "{:?}", shown.chars().take(2000).collect::<String>());
    assert_eq!(shown.lines().count(), 2 * report.0.len(), "{shown:?}");
    assert!(shown.len() <= REPORT, "a report of {} bytes", shown.len());
}

/// Text with its percent signs doubled is itself again.
fn escaped_text_comes_back(text: &str) {
    let overrides = [given("app_x", &text.replace('%', "%%"))];
    match load(&overrides, text.len()) {
        Ok(loaded) => assert_eq!(loaded.settings.app["x"], text),
        Err(errors) => assert!(text.contains('\0') || text.len() > EXPANSION / 2, "{errors}"),
    }
}

/// Whether a text may use a name that only this crate knows; the model has no opinion on those.
fn names_of_ours(text: &str) -> bool {
    let text = text.to_lowercase();
    let built_in = ["here", "section", "host_name", "slot", "generation", "env_", "extra_keys"];
    let names = built_in.into_iter().chain(SETTINGS.iter().map(|row| row.name));
    names.into_iter().any(|name| text.contains(&format!("%({name}")))
}

/// ConfigParser's interpolation once more, written for being short.
struct Model<'a> {
    values: &'a BTreeMap<String, String>,
    lookups: usize,
}

impl Model<'_> {
    fn expand(&mut self, key: &str, depth: usize) -> Option<String> {
        self.lookups += 1;
        let text = self.values.get(&key.to_lowercase())?;
        if !text.contains('%') {
            return Some(text.clone());
        }
        if depth > 10 || self.lookups > PATIENCE {
            return None;
        }
        let mut pieces = text.split('%');
        let mut out = pieces.next()?.to_owned();
        while let Some(piece) = pieces.next() {
            if piece.is_empty() {
                // Two percent signs; what follows them stands as it is.
                out = out + "%" + pieces.next()?;
                continue;
            }
            // A name may hold percent signs itself.
            let mut reference = piece.to_owned();
            while !reference.contains(')') {
                reference = reference + "%" + pieces.next()?;
            }
            let (name, rest) = reference.strip_prefix('(')?.split_once(')')?;
            if name.is_empty() || name.len() > 256 {
                return None;
            }
            out += &self.expand(name, depth + 1)?;
            out += rest.strip_prefix('s')?;
        }
        Some(out)
    }
}
