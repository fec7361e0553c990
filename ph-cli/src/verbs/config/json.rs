//! Settings as JSON.

use ph_config::{Origin, SETTINGS, Settings, whole_key};
use serde::Serialize;

use crate::output::SCHEMA;

/// What `config show --json` prints.
#[derive(Serialize)]
pub(super) struct Shown {
    schema: u32,
    files: Vec<String>,
    services: Vec<Service>,
}

impl Shown {
    pub(super) fn new(files: Vec<String>, services: Vec<Service>) -> Self {
        Self { schema: SCHEMA, files, services }
    }
}

#[derive(Serialize)]
pub(super) struct Service {
    name: String,
    settings: Vec<Setting>,
}

impl Service {
    pub(super) fn new(settings: &Settings) -> Self {
        let keys = all_keys(settings);
        Self {
            name: settings.name().to_owned(),
            settings: keys.map(|key| Setting::new(settings, &key)).collect(),
        }
    }
}

/// Every setting in the order of the reference, then the application's own keys by name.
pub(super) fn all_keys(settings: &Settings) -> impl Iterator<Item = String> {
    let own = settings.app.keys().map(|name| format!("app_{name}"));
    SETTINGS.iter().map(|row| row.name.to_owned()).chain(own)
}

/// One setting; what `config get --json` prints has the version beside it.
#[derive(Serialize)]
pub(super) struct Setting {
    key: String,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    apply: Option<&'static str>,
    origin: JsonOrigin,
    overridden: Vec<JsonOverridden>,
}

impl Setting {
    pub(super) fn new(settings: &Settings, key: &str) -> Self {
        Self::with_value(settings, key, settings.text(key).unwrap_or_default())
    }

    /// The same of a part of a setting: `environment.NAME`.
    pub(super) fn with_value(settings: &Settings, given: &str, value: String) -> Self {
        let key = whole_key(given);
        let row = SETTINGS.iter().find(|row| row.name == key);
        let overridden = settings.overridden(key).iter().map(|it| JsonOverridden {
            value: it.text.clone(),
            origin: JsonOrigin::from(&it.origin),
        });
        Self {
            key: given.to_owned(),
            value,
            apply: row.map(|row| row.apply.as_str()),
            origin: JsonOrigin::from(&settings.origin(key)),
            overridden: overridden.collect(),
        }
    }
}

/// One setting on its own.
#[derive(Serialize)]
pub(super) struct Got {
    pub(super) schema: u32,
    pub(super) service: String,
    #[serde(flatten)]
    pub(super) setting: Setting,
}

#[derive(Serialize)]
struct JsonOverridden {
    value: String,
    origin: JsonOrigin,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum JsonOrigin {
    Default,
    File { file: String, line: usize },
    Variable { name: String },
    Flag { flag: String },
}

impl From<&Origin> for JsonOrigin {
    fn from(origin: &Origin) -> Self {
        match origin {
            Origin::Default => Self::Default,
            Origin::File { path, line } => {
                Self::File { file: path.to_string_lossy().into_owned(), line: *line }
            }
            Origin::Variable(name) => Self::Variable { name: name.clone() },
            Origin::Flag(flag) => Self::Flag { flag: flag.clone() },
        }
    }
}
