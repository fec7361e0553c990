//! The layers, and which of them wins: figment's part.
//!
//! Each source becomes a [`Layer`], a figment `Provider` of strings. figment merges them: built-in
//! defaults and `[DEFAULT]` sit in its default profile, the section in a custom one, the command
//! line in the global one, which gives the order of the contract. A value keeps the tag of its
//! layer through the merge; the tag leads to the layer's metadata, and its name back to the
//! layer, which knows the [`Origin`] of each key. The metadata's interpolater knows the same
//! lines, so figment's own errors would point at them too.
//!
//! The profile of a section is prefixed: figment compares profiles without case and reserves
//! `default` and `global`, while in an INI file `[default]` and `[Global]` are sections like
//! others. Only one section is ever loaded into a figment, so `[Web]` and `[web]` cannot meet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use figment::value::magic::Tagged;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use crate::error::Origin;
use crate::ini::{self, Section};

/// A raw value that won, with where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) text: String,
    pub(crate) origin: Origin,
    /// `DEFAULT`, or the section that is loaded.
    pub(crate) section: String,
}

/// One source of values.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Unique among the layers of one load.
    name: String,
    profile: Profile,
    section: String,
    source: Option<PathBuf>,
    values: BTreeMap<String, String>,
    origins: Arc<BTreeMap<String, Origin>>,
}

impl Layer {
    /// The defaults of the table, for a service of this name.
    pub(crate) fn defaults(
        name: &str,
        rows: impl Iterator<Item = (&'static str, String)>,
    ) -> Layer {
        Layer {
            name: "built-in default".to_owned(),
            profile: Profile::Default,
            section: name.to_owned(),
            source: None,
            values: rows.map(|(key, text)| (key.to_owned(), text)).collect(),
            origins: Arc::default(),
        }
    }

    /// One section of a file, `[DEFAULT]` included.
    pub(crate) fn section(path: PathBuf, section: &Section) -> Layer {
        let default = section.name == ini::DEFAULT;
        let origin = |line| Origin::File { path: path.clone(), line };
        Layer {
            name: format!("{} [{}]", path.display(), section.name),
            profile: if default { Profile::Default } else { section_profile(&section.name) },
            section: section.name.clone(),
            values: section.entries.iter().map(|e| (e.key.clone(), e.value.clone())).collect(),
            origins: Arc::new(
                section.entries.iter().map(|e| (e.key.clone(), origin(e.line))).collect(),
            ),
            source: Some(path),
        }
    }

    /// Keys, values and flags of the command line; the last of each key wins.
    pub(crate) fn command_line<'a>(
        section: &str,
        given: impl Iterator<Item = (String, &'a str, &'a str)>,
    ) -> Layer {
        let mut values = BTreeMap::new();
        let mut origins = BTreeMap::new();
        for (key, value, flag) in given {
            origins.insert(key.clone(), Origin::Flag(flag.to_owned()));
            values.insert(key, value.to_owned());
        }
        Layer {
            name: "command line".to_owned(),
            profile: Profile::Global,
            section: section.to_owned(),
            source: None,
            values,
            origins: Arc::new(origins),
        }
    }
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        let origins = Arc::clone(&self.origins);
        let metadata = Metadata::named(self.name.clone()).interpolater(move |_, keys| {
            let key = keys.join(".");
            origins.get(&key).map_or(key, Origin::to_string)
        });
        match &self.source {
            Some(path) => metadata.source(path.as_path()),
            None => metadata,
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        // Not `Value::from_str` or the like, which would guess types: all text stays text.
        let values =
            self.values.iter().map(|(key, text)| (key.clone(), Value::from(text.as_str())));
        Ok(self.profile.collect(values.collect()))
    }
}

fn section_profile(name: &str) -> Profile {
    Profile::new(&format!("section {name}"))
}

/// Merges the layers for one section, the weakest first.
pub(crate) fn merge(section: &str, layers: &[Layer]) -> BTreeMap<String, Raw> {
    let mut figment = Figment::new();
    for layer in layers {
        figment = figment.merge(layer);
    }
    let figment = figment.select(section_profile(section));
    let values: BTreeMap<String, Tagged<String>> =
        figment.extract().expect("every layer provides a dictionary of strings");
    let raw = |key: &str, value: Tagged<String>| {
        let metadata = figment.get_metadata(value.tag());
        let layer =
            metadata.and_then(|metadata| layers.iter().find(|layer| metadata.name == layer.name));
        let origin = layer.and_then(|layer| layer.origins.get(key).cloned());
        Raw {
            origin: origin.unwrap_or(Origin::Default),
            section: layer.map_or(section, |layer| layer.section.as_str()).to_owned(),
            text: value.into_inner(),
        }
    };
    values.into_iter().map(|(key, value)| (key.clone(), raw(&key, value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(document: &ini::Document, name: &str) -> Layer {
        let found = document.sections.iter().find(|section| section.name == name);
        Layer::section(PathBuf::from("a.ini"), found.unwrap_or(&document.defaults))
    }

    #[test]
    fn the_order_of_the_contract_and_the_origin_of_each_value() {
        let text = "[DEFAULT]\na=1\nb=1\nc=1\n[global]\nb=2\nc=2\n[default]\na=9\n";
        let (document, faults) = ini::parse(text);
        assert!(faults.is_empty());
        let rows = ["a", "b", "c", "d"].map(|key| (key, "0".to_owned()));
        let given = [("c".to_owned(), "3", "-c"), ("x.y".to_owned(), "true", "--set x.y")];
        let layers = [
            Layer::defaults("global", rows.into_iter()),
            section(&document, ini::DEFAULT),
            section(&document, "global"),
            Layer::command_line("global", given.into_iter()),
        ];
        let merged = merge("global", &layers);
        let seen: Vec<String> = merged
            .iter()
            .map(|(key, raw)| format!("{key}={} {} [{}]", raw.text, raw.origin, raw.section))
            .collect();
        let expected = [
            "a=1 a.ini:2 [DEFAULT]",
            "b=2 a.ini:6 [global]",
            "c=3 -c [global]",
            "d=0 default [global]",
            "x.y=true --set x.y [global]",
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_metadata_points_at_the_line() {
        let (document, _) = ini::parse("[web]\n\nworkers = many\n");
        let layer = section(&document, "web");
        let figment = Figment::new().merge(&layer).select(section_profile("web"));
        let error = figment.extract::<BTreeMap<String, u16>>().expect_err("it is no number");
        assert!(error.to_string().contains("a.ini:3"), "{error}");
    }
}
