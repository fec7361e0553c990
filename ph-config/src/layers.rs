//! The layers, and which of them wins: figment's part.
//!
//! Each source becomes a [`Layer`], a figment `Provider` of strings. figment merges them: built-in
//! defaults and `[DEFAULT]` sit in its default profile, the section in a custom one, variables and
//! the command line in the global one, which gives the order of the contract. A value keeps the tag
//! of its layer through the merge; the tag leads to the layer's metadata, and its name back to the
//! layer, which knows the [`Origin`] of each key, and what the value was before it became text. The
//! metadata's interpolater knows the same lines, so figment's own errors would point at them too.
//!
//! The profile of a section is prefixed: figment compares profiles without case and reserves
//! `default` and `global`, while in an INI file `[default]` and `[Global]` are sections like
//! others. Only one section is ever loaded into a figment, so `[Web]` and `[web]` cannot meet.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::value::magic::Tagged;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use crate::document::{DEFAULT, Section, Written};
use crate::error::Origin;
use crate::format::Format;

/// A value that won, as it was written, with where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) written: Written,
    pub(crate) origin: Origin,
    /// `DEFAULT`, or the section that is loaded.
    pub(crate) section: String,
    /// The folder of the file it is from.
    pub(crate) folder: Option<Arc<Path>>,
    /// Whether a `;` after white space may begin a comment in it.
    pub(crate) has_comments: bool,
    /// The values it won over, the strongest first.
    pub(crate) overridden: Vec<Overridden>,
}

impl Raw {
    /// Whether it is no value at all.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.written, Written::Text(text) if text.is_empty())
    }
}

/// A value that another one was stronger than.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overridden {
    /// The text, as it stands where it came from.
    pub text: String,
    /// Where it came from.
    pub origin: Origin,
}

/// One source of values.
#[derive(Debug)]
pub(crate) struct Layer<'a> {
    /// Unique among the layers of one load.
    name: String,
    profile: Profile,
    section: String,
    file: Option<&'a SourceFile>,
    values: BTreeMap<String, Written>,
    origins: Arc<BTreeMap<String, Origin>>,
}

/// A file as its values know it.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// As people spell it.
    pub(crate) shown: PathBuf,
    pub(crate) folder: Arc<Path>,
    pub(crate) format: Format,
}

impl<'a> Layer<'a> {
    /// The defaults of the table.
    pub(crate) fn defaults(rows: impl Iterator<Item = (&'static str, &'static str)>) -> Layer<'a> {
        let values = rows.map(|(key, text)| (key.to_owned(), Written::Text(text.to_owned())));
        let layer = Self::empty("built-in default".to_owned(), DEFAULT, Profile::Default);
        Layer { values: values.collect(), ..layer }
    }

    /// One section of a file, `[DEFAULT]` included.
    pub(crate) fn section(file: &'a SourceFile, section: &Section) -> Layer<'a> {
        let is_default = section.name == DEFAULT;
        let origin = |line| Origin::File { path: file.shown.clone(), line };
        Layer {
            name: format!("{} [{}]", file.shown.display(), section.name),
            profile: if is_default { Profile::Default } else { section_profile(&section.name) },
            section: section.name.clone(),
            file: Some(file),
            values: section.entries.iter().map(|e| (e.key.clone(), e.value.clone())).collect(),
            origins: Arc::new(
                section.entries.iter().map(|e| (e.key.clone(), origin(e.line))).collect(),
            ),
        }
    }

    /// A variable that is weaker than any file.
    pub(crate) fn fallback(given: Given<'a>) -> Layer<'a> {
        let mut layer = Self::empty("fallback".to_owned(), DEFAULT, Profile::Default);
        layer.add(given);
        layer
    }

    /// Variables or flags, the weakest first. Of a key that is given again each value has a layer of
    /// its own, so that none is forgotten.
    pub(crate) fn given(
        name: &str,
        section: &str,
        given: impl Iterator<Item = Given<'a>>,
    ) -> Vec<Layer<'a>> {
        let mut layers: Vec<Layer<'a>> = Vec::new();
        for given in given {
            let highest = layers.iter().rposition(|layer| layer.values.contains_key(&given.key));
            let place = highest.map_or(0, |index| index + 1);
            if place == layers.len() {
                let name = format!("{name} {place}");
                layers.push(Self::empty(name, section, Profile::Global));
            }
            layers[place].add(given);
        }
        layers
    }

    fn empty(name: String, section: &str, profile: Profile) -> Layer<'a> {
        let section = section.to_owned();
        let (values, origins) = (BTreeMap::new(), Arc::default());
        Layer { name, profile, section, file: None, values, origins }
    }

    fn add(&mut self, given: Given<'_>) {
        // Nobody else has it yet, so nothing is copied.
        Arc::make_mut(&mut self.origins).insert(given.key.clone(), given.origin);
        self.values.insert(given.key, Written::Text(given.text.to_owned()));
    }

    fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }
}

/// A key with its value and where that came from, outside of any file.
pub(crate) struct Given<'a> {
    pub(crate) key: String,
    pub(crate) text: &'a str,
    pub(crate) origin: Origin,
}

impl Provider for &Layer<'_> {
    fn metadata(&self) -> Metadata {
        let origins = Arc::clone(&self.origins);
        let metadata = Metadata::named(self.name.clone()).interpolater(move |_, keys| {
            let key = keys.join(".");
            origins.get(&key).map_or(key, Origin::to_string)
        });
        match &self.file {
            Some(file) => metadata.source(file.shown.as_path()),
            None => metadata,
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        // Not `Value::from_str` or the like, which would guess types: all text stays text.
        let value = |(key, written): (&String, &Written)| {
            (key.clone(), Value::from(written.text(key).into_owned()))
        };
        Ok(self.profile.collect(self.values.iter().map(value).collect()))
    }
}

fn section_profile(name: &str) -> Profile {
    Profile::new(&format!("section {name}"))
}

/// The values that hold for one section. What all sections inherit is merged once for all.
#[derive(Debug)]
pub(crate) struct Merged<'c> {
    inherited: &'c BTreeMap<String, Raw>,
    own: BTreeMap<String, Raw>,
}

impl<'c> Merged<'c> {
    pub(crate) fn new(
        inherited: &'c BTreeMap<String, Raw>,
        own: BTreeMap<String, Raw>,
    ) -> Merged<'c> {
        Merged { inherited, own }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Raw> {
        self.own.get(key).or_else(|| self.inherited.get(key))
    }

    /// How many keys there are, at most.
    pub(crate) fn len(&self) -> usize {
        self.own.len() + self.inherited.len()
    }

    /// Every key with the value that won.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Raw)> {
        let inherited = self.inherited.iter().filter(|(key, _)| !self.own.contains_key(*key));
        self.own.iter().chain(inherited).map(|(key, raw)| (key.as_str(), raw))
    }

    /// Replaces what the value of a key is, and nothing else about it.
    pub(crate) fn rewrite(&mut self, key: &str, written: Written) {
        if let Some(raw) = self.get(key) {
            let raw = Raw { written, ..raw.clone() };
            self.own.insert(key.to_owned(), raw);
        }
    }

    /// Puts the default of a setting in place of its value.
    pub(crate) fn reset(&mut self, key: &str, default: &str) {
        let raw = Raw {
            written: Written::Text(default.to_owned()),
            origin: Origin::Default,
            section: DEFAULT.to_owned(),
            folder: None,
            has_comments: false,
            overridden: Vec::new(),
        };
        self.own.insert(key.to_owned(), raw);
    }

    /// What each value won over, where that is anything.
    pub(crate) fn overridden(&self) -> BTreeMap<String, Vec<Overridden>> {
        let lost = |(key, raw): (&str, &Raw)| {
            let mut lost = raw.overridden.clone();
            if let (true, Some(inherited)) = (self.own.contains_key(key), self.inherited.get(key)) {
                let text = inherited.written.text(key).into_owned();
                // A rewritten value is in both, and did not win over itself.
                if inherited.origin != raw.origin {
                    lost.push(Overridden { text, origin: inherited.origin.clone() });
                    lost.extend(inherited.overridden.iter().cloned());
                }
            }
            (!lost.is_empty()).then(|| (key.to_owned(), lost))
        };
        self.iter().filter_map(lost).collect()
    }
}

/// Merges what all sections inherit, the weakest layer first.
pub(crate) fn merge_inherited(layers: &[Layer<'_>]) -> BTreeMap<String, Raw> {
    merge(Profile::Default, layers)
}

/// Merges what is said for one section only, the weakest layer first.
pub(crate) fn merge_own(section: &str, layers: &[Layer<'_>]) -> BTreeMap<String, Raw> {
    merge(section_profile(section), layers)
}

fn merge(profile: Profile, layers: &[Layer<'_>]) -> BTreeMap<String, Raw> {
    let figment = figment_of(layers).select(profile);
    let values: BTreeMap<String, Tagged<String>> =
        figment.extract().expect("every layer provides a dictionary of strings");
    let by_name: HashMap<&str, usize> =
        layers.iter().enumerate().map(|(index, layer)| (layer.name.as_str(), index)).collect();
    // Which layers have a key, the weakest first.
    let mut having: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, layer) in layers.iter().enumerate() {
        for key in layer.values.keys() {
            having.entry(key).or_default().push(index);
        }
    }
    let raw = |key: String, value: Tagged<String>| {
        let winner = figment.get_metadata(value.tag()).map(|metadata| &*metadata.name);
        let index = winner.and_then(|name| by_name.get(name)).copied();
        let index = index.expect("a value comes from one of the layers");
        let layer = &layers[index];
        let losers = having.get(&*key).into_iter().flatten().rev().filter(|it| **it < index);
        let losers = losers.filter_map(|index| {
            let text = layers[*index].values.get(&key)?.text(&key).into_owned();
            Some(Overridden { text, origin: layers[*index].origin(&key) })
        });
        let raw = Raw {
            written: layer.values[&key].clone(),
            origin: layer.origin(&key),
            section: layer.section.clone(),
            folder: layer.file.map(|file| Arc::clone(&file.folder)),
            has_comments: layer.file.is_some_and(|file| file.format == Format::Ini),
            overridden: losers.collect(),
        };
        (key, raw)
    };
    values.into_iter().map(|(key, value)| raw(key, value)).collect()
}

/// Merges halves, not one layer after the other: figment goes through all values it has with each
/// merge, and a thousand files would be a thousand times all of them.
fn figment_of(layers: &[Layer<'_>]) -> Figment {
    match layers {
        [] => Figment::new(),
        [layer] => Figment::from(layer),
        layers => {
            let (weak, strong) = layers.split_at(layers.len() / 2);
            figment_of(weak).merge(figment_of(strong))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ini;

    fn file() -> SourceFile {
        let folder = Path::new("/etc").into();
        SourceFile { shown: PathBuf::from("a.ini"), folder, format: Format::Ini }
    }

    fn given(key: &str, text: &'static str, flag: &str) -> Given<'static> {
        Given { key: key.to_owned(), text, origin: Origin::Flag(flag.to_owned()) }
    }

    #[test]
    fn the_order_of_the_contract_and_the_origin_of_each_value() {
        let text = "[DEFAULT]\na=1\nb=1\nc=1\n[global]\nb=2\nc=2\n[default]\na=9\n";
        let (document, faults) = ini::parse(text);
        assert!(faults.is_empty());
        let file = file();
        let rows = ["a", "b", "c", "d"].map(|key| (key, "0"));
        let flags =
            [given("c", "6", "-n"), given("c", "3", "-c"), given("x.y", "true", "--set x.y")];
        let variable = Given { origin: Origin::Variable("V".into()), ..given("c", "4", "") };
        let weak = Given { origin: Origin::Variable("W".into()), ..given("d", "5", "") };
        let inherited = [
            Layer::defaults(rows.into_iter()),
            Layer::fallback(weak),
            Layer::section(&file, &document.defaults),
        ];
        let section = document.section("global").expect("it is there");
        let mut own = vec![Layer::section(&file, section)];
        own.extend(Layer::given("variables", "global", [variable].into_iter()));
        own.extend(Layer::given("command line", "global", flags.into_iter()));
        let inherited = merge_inherited(&inherited);
        let merged = Merged::new(&inherited, merge_own("global", &own));
        let lost = merged.overridden();
        let mut seen: Vec<String> = merged
            .iter()
            .map(|(key, raw)| {
                let losers = lost.get(key).into_iter().flatten();
                let losers: String =
                    losers.map(|it| format!(" {} {}", it.text, it.origin)).collect();
                let text = raw.written.text(key);
                format!("{key}={text} {} [{}]{losers}", raw.origin, raw.section)
            })
            .collect();
        seen.sort();
        let expected = [
            "a=1 a.ini:2 [DEFAULT] 0 default",
            "b=2 a.ini:6 [global] 1 a.ini:3 0 default",
            "c=3 -c [global] 6 -n 4 $V 2 a.ini:7 1 a.ini:4 0 default",
            "d=5 $W [DEFAULT] 0 default",
            "x.y=true --set x.y [global]",
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_metadata_points_at_the_line() {
        let (document, _) = ini::parse("[web]\n\nworkers = many\n");
        let file = file();
        let layer = Layer::section(&file, document.section("web").expect("it is there"));
        let figment = Figment::new().merge(&layer).select(section_profile("web"));
        let error = figment.extract::<BTreeMap<String, u16>>().expect_err("it is no number");
        assert!(error.to_string().contains("a.ini:3"), "{error}");
    }
}
