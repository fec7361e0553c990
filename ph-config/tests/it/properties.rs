//! What holds for every input, however odd: one function for each way in.
//!
//! `random.rs` calls these with texts out of meaningful pieces, and the targets in `fuzz/` include
//! this very file and call them with whatever the fuzzer finds. So everything here stands on the
//! public interface alone. A new way in (another format, edits of a file) gets a function here, a
//! few lines in `random.rs`, and a target.

use std::collections::BTreeMap;
use std::path::Path;

use ph_config::{ConfigErrors, Loaded, Override, Request, SETTINGS, load, sections};

/// How many sections of one file are loaded: enough to have each kind, few enough to be fast.
const SECTIONS: usize = 3;
/// What interpolation may make of one load, in bytes, on top of what was given.
const EXPANSION: usize = 4 * 1024 * 1024;
/// How long a report may become, in bytes: some hundred problems of two lines each.
const REPORT: usize = 512 * 1024;
/// How many look-ups the model of interpolation makes before it has no opinion.
const PATIENCE: usize = 5000;

/// Any bytes are a file: none panic, and what is refused is refused in lines one can print.
pub(crate) fn ini(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("app.ini");
    std::fs::write(&path, bytes).expect("the folder is writable");
    let allow = [given("extra_keys", "allow"), given("proc_name", "p")];
    let names = match sections(&path) {
        Ok(names) => names,
        Err(errors) => {
            printable(&errors);
            judge(&request(folder.path(), Some("app.ini"), None, &[]), bytes.len())
                .expect_err("what is no list of sections has none to load");
            return;
        }
    };
    judge(&request(folder.path(), Some("app.ini"), None, &[]), bytes.len()).ok();
    for name in names.iter().take(SECTIONS) {
        judge(&request(folder.path(), Some("app.ini"), Some(name), &allow), bytes.len()).ok();
    }
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
    let loaded = judge(&request(Path::new("/"), None, None, &overrides), text.len());
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
        let request = request(Path::new("/"), None, None, &overrides);
        if let Ok(loaded) = judge(&request, text.len()) {
            let again = load(&request).expect("it was accepted a moment ago");
            let changed = again.settings.changed(&loaded.settings);
            assert!(changed.is_empty(), "the same text is twice the same value: {changed:?}");
        }
    }
}

/// The one place where a request is made, for all of this file.
fn request<'a>(
    cwd: &'a Path,
    file: Option<&'a str>,
    section: Option<&'a str>,
    overrides: &'a [Override],
) -> Request<'a> {
    Request { file: file.map(Path::new), section, overrides, cwd, default_name: "unused" }
}

fn given(key: &str, value: &str) -> Override {
    Override { key: key.to_owned(), value: value.to_owned(), flag: "--set".to_owned() }
}

/// Loads, and holds the outcome to what is true of every one.
fn judge(request: &Request<'_>, size: usize) -> Result<Loaded, ConfigErrors> {
    let outcome = load(request);
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
    match judge(&request(Path::new("/"), None, None, &overrides), text.len()) {
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
