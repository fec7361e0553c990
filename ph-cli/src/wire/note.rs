//! What a master remembers of its configuration until the next reload: the text of every value, by which
//! the loader sees what has changed, and to which it holds what only a restart can change.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use ph_config::{Apply, SETTINGS, Settings};
use serde::{Deserialize, Serialize};

/// The values of all keys, those of the application too.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    values: BTreeMap<String, String>,
    /// Of what the files of `env_file` hold, which may be secret.
    env_files: u64,
}

/// A key of the application is for workers, who see it from their start.
const APPLY_OF_APP: Apply = Apply::Roll;

impl Note {
    pub(crate) fn of(settings: &Settings) -> Note {
        let rows = SETTINGS.iter().map(|row| row.name.to_owned());
        let of_app = settings.app.keys().map(|name| format!("app_{name}"));
        let text = |key: String| settings.text(&key).map(|text| (key, text));
        let mut hasher = DefaultHasher::new();
        settings.file_environment().hash(&mut hasher);
        Note { values: rows.chain(of_app).filter_map(text).collect(), env_files: hasher.finish() }
    }

    /// `None` if it is no note of this program.
    pub(crate) fn parse(text: &str) -> Option<Note> {
        serde_json::from_str(text).ok()
    }

    /// Equal texts are equal settings.
    pub(crate) fn text(&self) -> String {
        // All keys of the map are text, so it can be written down.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What these settings have otherwise and only a restart can change, with the values that stay.
    pub(crate) fn kept<'a>(&'a self, settings: &Settings) -> Vec<(&'static str, &'a str)> {
        let rows = SETTINGS.iter().filter(|row| match row.apply {
            Apply::Restart => true,
            Apply::Live | Apply::Roll => false,
        });
        let kept = rows.filter_map(|row| {
            let former = self.values.get(row.name)?;
            (settings.text(row.name)? != *former).then_some((row.name, former.as_str()))
        });
        kept.collect()
    }

    /// What is otherwise in the settings of another note, and when each of it applies; then what was
    /// `kept`. Empty if there is nothing to say.
    pub(crate) fn changes(&self, new: &Note, kept: &[(&'static str, &str)]) -> String {
        let differs = |key: &str| self.values.get(key) != new.values.get(key);
        let rows = SETTINGS.iter().filter(|row| {
            differs(row.name) || (row.name == "env_file" && self.env_files != new.env_files)
        });
        let rows = rows.map(|row| (row.name, row.apply));
        let of_app = |key: &&String| key.starts_with("app_") && differs(key);
        let mut of_app: Vec<_> =
            self.values.keys().chain(new.values.keys()).filter(of_app).collect();
        of_app.sort();
        of_app.dedup();
        let of_app = of_app.into_iter().map(|key| (key.as_str(), APPLY_OF_APP));
        let changed: Vec<_> =
            rows.chain(of_app).map(|(key, apply)| format!("{key} ({})", apply.as_str())).collect();
        let changed = match &changed[..] {
            [] => String::new(),
            keys => format!("{} changed", keys.join(", ")),
        };
        let both = [changed, unapplied(kept)].into_iter().filter(|text| !text.is_empty());
        both.collect::<Vec<_>>().join("; ")
    }
}

/// What was `kept`, in words; empty if that is nothing.
pub(crate) fn unapplied(kept: &[(&'static str, &str)]) -> String {
    let keys: Vec<_> = kept.iter().map(|(key, _)| *key).collect();
    match &keys[..] {
        [] => String::new(),
        [key] => format!("{key} needs a restart and keeps its old value"),
        keys => format!("{} need a restart and keep their old values", keys.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use ph_config::{Override, Source};

    fn settings(values: &[(&str, &str)]) -> Settings {
        let set = values.iter().map(|(key, value)| Override {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            flag: "--set".to_owned(),
        });
        let configuration = Source::new(Path::new("/srv")).read().expect("no file");
        configuration.load(None, &set.collect::<Vec<_>>()).expect("settings").settings
    }

    #[test]
    fn what_changed_is_told_with_what_it_does() {
        let old = [("number_workers", "1"), ("app_a", "1"), ("app_b", "2"), ("timeout", "0")];
        let new = [("number_workers", "2"), ("app_b", "3"), ("command", "x"), ("timeout", "0s")];
        let [old, new] = [&old[..], &new].map(|values| Note::of(&settings(values)));
        assert_eq!(
            old.changes(&new, &[("base_path", "/srv"), ("pidfile", "/srv/x")]),
            "number_workers (live), command (roll), app_a (roll), app_b (roll) changed; \
             base_path, pidfile need a restart and keep their old values"
        );
        assert_eq!(old.changes(&old, &[]), "");
        let again = Note::parse(&old.text()).expect("a note");
        assert_eq!((again.changes(&new, &[]), again.text()), (old.changes(&new, &[]), old.text()));
    }

    #[test]
    fn what_needs_a_restart_stays() {
        let note = Note::of(&settings(&[("max_workers", "8")]));
        let new = settings(&[("max_workers", "9"), ("base_path", "/other"), ("nice", "1")]);
        let keys: Vec<_> = note.kept(&new).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["base_path", "log_path", "pidfile", "max_workers"]);
        assert!(note.kept(&new).contains(&("max_workers", "8")));
    }
}
