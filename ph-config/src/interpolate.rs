//! `%(name)s`, after the layers were merged.
//!
//! The rules are those of ConfigParser's basic interpolation: `%%` is a percent sign, `%(name)s`
//! the value of another key of the section or of `[DEFAULT]`, itself interpolated, and any other
//! `%` an error. Beyond it, a name that is no key may be `here`, `section`, `host_name` or
//! `ENV_X`. What a built-in name stands for is taken as it is and never interpolated again.
//!
//! Late-bound names (`%(slot)s`, `%(generation)s`) differ from worker to worker. Where they are
//! legal they are kept as they stand, and [`bind_late`] fills them in; the text must not contain
//! the same characters from another source, or the two could not be told apart. The keys where they
//! are legal are [`LATE_KEYS`].
//!
//! A hostile file can make values explode, so depth, look-ups and length are bounded.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::document::Written;
use crate::environ::{Environment, NotUtf8};
use crate::error::{Origin, named, nearest, shown};
use crate::layers::{Merged, Raw};
use crate::value::{Shape, ValueError, command_line, variables};

/// How deep values may refer to one another, as in ConfigParser.
const MAX_DEPTH: usize = 10;
/// How many names one load may look up, all values and depths together.
const MAX_LOOKUPS: usize = 100_000;
/// How long the values of one load may become, in bytes, all together.
const MAX_LENGTH: usize = 4 * 1024 * 1024;
/// How many keys one load may compare with names that nobody set, to suggest the nearest.
const MAX_COMPARED: usize = 100_000;
/// How long a name may be, in bytes.
const MAX_NAME: usize = 256;
/// What is known only once a worker starts.
const LATE: [&str; 2] = ["slot", "generation"];
/// The settings in whose values that may stand.
pub(crate) const LATE_KEYS: [&str; 4] = ["command", "environment", "ready", "worker_log_file"];
/// The names beside keys, for suggestions.
const BUILT_IN: [&str; 5] = ["here", "section", "host_name", "slot", "generation"];

/// What names can stand for.
pub(crate) struct Scope<'m, 'a> {
    pub(crate) merged: &'m Merged<'m>,
    pub(crate) section: &'a str,
    /// The folder of what is in no file.
    pub(crate) here: &'a Path,
    pub(crate) environment: &'a Environment,
    /// What `%(base_path)s` stands for, once that is known.
    pub(crate) base_path: Option<String>,
    pub(crate) spent: Spent,
}

/// What the interpolations of one load have used up.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    lookups: Cell<usize>,
    compared: Cell<usize>,
    bytes: Cell<usize>,
}

/// The value of `key` as one text, with every name replaced. `late`: whether late-bound names are
/// legal in it. The parts of a list are put together only then, so that nothing inserted divides
/// them anew.
pub(crate) fn expand<'m>(
    scope: &Scope<'m, '_>,
    key: &str,
    shape: Shape,
    late: bool,
) -> Result<Cow<'m, str>, ValueError> {
    let Some(raw) = scope.merged.get(key) else { return Ok(Cow::Borrowed("")) };
    if let Written::Text(text) = &raw.written
        && !text.contains('%')
    {
        return Ok(Cow::Borrowed(text));
    }
    expand_parts(scope, key, raw, shape, late).map(Cow::Owned)
}

fn expand_parts(
    scope: &Scope<'_, '_>,
    key: &str,
    raw: &Raw,
    shape: Shape,
    late: bool,
) -> Result<String, ValueError> {
    let part = |text: &str| expand_part(scope, key, text, late);
    match (&raw.written, shape) {
        (Written::Text(text), Shape::Share) => match text.strip_suffix('%') {
            Some(number) if !number.ends_with('%') => Ok(part(number)? + "%"),
            _ => part(text),
        },
        (Written::Text(text), _) => part(text),
        (Written::Items(items), Shape::Words) => {
            let words: Result<Vec<String>, _> = items.iter().map(|item| part(item)).collect();
            Ok(command_line(words?.iter().map(String::as_str)))
        }
        (Written::Items(items), Shape::Lines) => {
            let items: Vec<String> =
                items.iter().map(|item| part(item)).collect::<Result<_, _>>()?;
            match items.iter().find(|item| item.contains([',', '\n'])) {
                None => Ok(items.join("\n")),
                Some(item) => {
                    let expected = format!("items without a comma (this has {})", shown(item));
                    Err(ValueError::new(expected, "make an item of the list for each"))
                }
            }
        }
        (Written::Pairs(pairs), Shape::Pairs) => {
            let pair = |(name, value): &(String, String)| Ok((name.clone(), part(value)?));
            pairs.iter().map(pair).collect::<Result<Vec<_>, _>>().map(|pairs| variables(&pairs))
        }
        (Written::Items(_), Shape::Line | Shape::Share | Shape::Pairs | Shape::Text) => {
            Err(ValueError::new("one value, not a list", "write one value without brackets"))
        }
        (
            Written::Pairs(_),
            Shape::Line | Shape::Share | Shape::Lines | Shape::Words | Shape::Text,
        ) => Err(ValueError::new("one value, not a table", "write one value without braces")),
    }
}

fn expand_part(
    scope: &Scope<'_, '_>,
    key: &str,
    text: &str,
    late: bool,
) -> Result<String, ValueError> {
    let mut expansion = Expansion { scope, late, out: String::new(), path: Vec::new(), kept: 0 };
    expansion.path.push(key.to_owned());
    expansion.run(text)?;
    let Expansion { out, kept, .. } = expansion;
    if late
        && LATE.iter().map(|name| out.matches(&placeholder(name)).count()).sum::<usize>() != kept
    {
        let expected = "`%(slot)s` and `%(generation)s` as names, not as text";
        return Err(ValueError::new(expected, "escaped or inserted text must not look like these"));
    }
    Ok(out)
}

/// Replaces the late-bound names in one word of a command, or in one value of `environment`.
///
/// ```
/// assert_eq!(ph_config::bind_late("--port=80%(slot)s", 3, 1), "--port=803");
/// assert_eq!(ph_config::bind_late("100%", 3, 1), "100%");
/// ```
pub fn bind_late(word: &str, slot: u32, generation: u64) -> String {
    word.replace(&placeholder("slot"), &slot.to_string())
        .replace(&placeholder("generation"), &generation.to_string())
}

/// Doubles every `%` that does not begin a late-bound name.
pub(crate) fn escape(text: &str) -> String {
    let mut out = text.replace('%', "%%");
    for name in LATE {
        out = out.replace(&format!("%{}", placeholder(name)), &placeholder(name));
    }
    out
}

fn placeholder(name: &str) -> String {
    format!("%({name})s")
}

struct Expansion<'a> {
    scope: &'a Scope<'a, 'a>,
    late: bool,
    out: String,
    /// The keys being expanded, from the one asked for to the one at work.
    path: Vec<String>,
    /// Late-bound names kept.
    kept: usize,
}

impl Expansion<'_> {
    fn run(&mut self, text: &str) -> Result<(), ValueError> {
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            self.push(&rest[..at])?;
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("%%") {
                self.push("%")?;
                rest = after;
            } else if let Some((name, after)) = reference(rest) {
                self.look_up(name)?;
                rest = after;
            } else {
                let start: String = rest.chars().take(12).collect();
                let expected = format!("`%%` or `%(name)s` at {}{}", shown(&start), self.through());
                return Err(ValueError::new(expected, "for a percent sign write %%"));
            }
        }
        self.push(rest)
    }

    fn push(&mut self, text: &str) -> Result<(), ValueError> {
        let bytes = &self.scope.spent.bytes;
        bytes.set(bytes.get().saturating_add(text.len()));
        if bytes.get() > MAX_LENGTH {
            let expected = format!("at most {MAX_LENGTH} bytes in all interpolated values");
            return Err(ValueError::new(expected, "refer to fewer or shorter values"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn look_up(&mut self, name: &str) -> Result<(), ValueError> {
        let lookups = &self.scope.spent.lookups;
        lookups.set(lookups.get() + 1);
        if lookups.get() > MAX_LOOKUPS {
            let expected = format!("at most {MAX_LOOKUPS} uses of names in all values");
            return Err(ValueError::new(expected, "refer to fewer values"));
        }
        let key = name.to_lowercase();
        // A key that is called `section` must not change the defaults, which mean the name.
        let is_default = self.at_work().is_some_and(|raw| raw.origin == Origin::Default);
        if name == "section" && is_default {
            return self.built_in(name);
        }
        // A default of nothing is not a value: what nobody set cannot be referred to.
        let raw = self.scope.merged.get(&key);
        let raw = raw.filter(|raw| raw.origin != Origin::Default || !raw.is_empty());
        let Some(raw) = raw else { return self.built_in(name) };
        if self.path.contains(&key) {
            let names = self.path.iter().chain([&key]).map(|key| named(key));
            let circle = names.collect::<Vec<_>>().join(" -> ");
            let expected = format!("no circle (this goes {circle})");
            return Err(ValueError::new(expected, "write one of these values without the others"));
        }
        if key == "base_path"
            && let Some(text) = &self.scope.base_path
        {
            return self.push(text);
        }
        let text = raw.written.text(&key);
        // As in ConfigParser only values that themselves interpolate count.
        if !text.contains('%') {
            return self.push(&text);
        }
        if self.path.len() >= MAX_DEPTH {
            let expected = format!("values that refer to one another at most {MAX_DEPTH} deep");
            return Err(ValueError::new(expected, "write one of the inner values out"));
        }
        self.path.push(key);
        self.run(&text)?;
        self.path.pop();
        Ok(())
    }

    fn built_in(&mut self, name: &str) -> Result<(), ValueError> {
        if LATE.contains(&name) {
            if self.late {
                self.kept += 1;
                return self.push(&placeholder(name));
            }
            let expected = format!("a value that all workers share (`%({name})s` differs)");
            let [others @ .., last] = LATE_KEYS;
            let mend = format!("use it in `{}` or `{last}` only", others.join("`, `"));
            return Err(ValueError::new(expected, mend));
        }
        let broken = |what: &str, mend: &str| {
            let expected = format!("`%({})s` to be {what}{}", named(name), self.through());
            ValueError::new(expected, mend)
        };
        let text = match name {
            "here" => Some(self.here().to_str().map(str::to_owned).ok_or_else(|| {
                broken(
                    "UTF-8",
                    "write the folder out, or move the file to a folder with such a name",
                )
            })?),
            "section" => Some(self.scope.section.to_owned()),
            "host_name" => Some(host_name().ok_or_else(|| {
                broken("known", "give this host a name in UTF-8, or write the value out")
            })?),
            _ => match name.strip_prefix("ENV_").map(|name| self.scope.environment.value(name)) {
                Some(Some(Ok(value))) => Some(value.to_owned()),
                Some(Some(Err(NotUtf8))) => {
                    return Err(broken("UTF-8", "set the variable to other text"));
                }
                Some(None) => {
                    return Err(broken(
                        "in the environment",
                        "set the variable, or write the value",
                    ));
                }
                None => None,
            },
        };
        match text {
            Some(text) => self.push(&text),
            None => Err(self.unknown(name)),
        }
    }

    /// The value whose text is being expanded.
    fn at_work(&self) -> Option<&Raw> {
        self.path.last().and_then(|key| self.scope.merged.get(key))
    }

    /// The folder of the file that holds the text at work.
    fn here(&self) -> &Path {
        self.at_work().and_then(|raw| raw.folder.as_deref()).unwrap_or(self.scope.here)
    }

    fn unknown(&self, name: &str) -> ValueError {
        let expected =
            format!("names that are set (`%({})s` is not){}", named(name), self.through());
        let mend = match self.suggestion(name) {
            Some(near) => format!("did you mean `%({})s`?", named(near)),
            None => "set it in this section or in [DEFAULT], or write %% for a percent sign".into(),
        };
        ValueError::new(expected, mend)
    }

    /// The known name nearest to one that nobody set, unless the load has compared enough already:
    /// a file may hold a mistake in each of very many keys.
    fn suggestion(&self, name: &str) -> Option<&str> {
        let Scope { merged, spent, .. } = self.scope;
        spent.compared.set(spent.compared.get().saturating_add(merged.len()));
        if spent.compared.get() > MAX_COMPARED {
            return None;
        }
        let keys = merged.iter().filter(|(_, raw)| !raw.is_empty());
        let known = keys.map(|(key, _)| key).chain(BUILT_IN);
        nearest(&name.to_lowercase(), known)
    }

    /// Names the key at fault where it is not the one asked for.
    fn through(&self) -> String {
        match self.path.as_slice() {
            [_, .., last] => format!(" (in `{}`, which it refers to)", named(last)),
            _ => String::new(),
        }
    }
}

fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

/// Splits `%(name)s…` into the name and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix("%(")?;
    // Bounded, or a megabyte of `%(` would be searched to its end at each of them.
    let end = inner[..inner.floor_char_boundary(MAX_NAME + 1)].find(')')?;
    let (name, rest) = (&inner[..end], &inner[end + 1..]);
    rest.strip_prefix('s').filter(|_| !name.is_empty()).map(|rest| (name, rest))
}

/// Which keys refer to which, by the texts as they stand.
#[derive(Debug, Default)]
pub(crate) struct References(BTreeMap<String, BTreeSet<String>>);

impl References {
    /// Adds what `texts`, parts of a value of `key`, refer to.
    pub(crate) fn add<'t>(&mut self, key: &str, texts: impl Iterator<Item = &'t str>) {
        let names = self.0.entry(key.to_owned()).or_default();
        for text in texts {
            let mut rest = text;
            while let Some(at) = rest.find('%') {
                rest = &rest[at..];
                if let Some((name, after)) = reference(rest) {
                    names.insert(name.to_lowercase());
                    rest = after;
                } else {
                    rest = rest.strip_prefix("%%").unwrap_or(&rest[1..]);
                }
            }
        }
    }

    /// All keys that a key for which `starts` holds needs, directly or through others.
    pub(crate) fn reached(&self, starts: impl Fn(&str) -> bool) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = self.0.keys().map(String::as_str).filter(|k| starts(k)).collect();
        while let Some(key) = open.pop() {
            for name in self.0.get(key).into_iter().flatten() {
                if reached.insert(name.as_str()) {
                    open.push(name);
                }
            }
        }
        reached
    }
}
