//! What the table says about one setting, and what a change of one is.

use crate::value::{Kind, Schema, Shape};

/// When a changed setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Apply {
    /// At the reload itself, for the workers that are there.
    Live,
    /// With the new generation that a reload brings up.
    Roll,
    /// Only when the master is started anew.
    Restart,
}

impl Apply {
    /// The word for it in the reference.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Roll => "roll",
            Self::Restart => "restart",
        }
    }
}

/// What the table says about one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingInfo {
    /// The heading it stands under in the reference.
    pub group: &'static str,
    /// The key, in lower case.
    pub name: &'static str,
    /// What its value is, in a few words.
    pub kind: &'static str,
    /// The form of its value.
    pub schema: Schema,
    /// The default as one would write it in a file; empty for "not set".
    pub default: &'static str,
    /// When a change takes effect.
    pub apply: Apply,
    /// What it means, one sentence.
    pub doc: &'static str,
    pub(crate) shape: Shape,
}

pub(crate) const fn info<T>(
    group: &'static str,
    name: &'static str,
    kind: &Kind<T>,
    default: &'static str,
    apply: Apply,
    doc: &'static str,
) -> SettingInfo {
    let (schema, shape) = (kind.schema, kind.shape);
    SettingInfo { group, name, kind: kind.name, schema, default, apply, doc, shape }
}

/// One key whose value differs between two [`Settings`](crate::Settings).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key; for one of the application's own, `app_NAME`.
    pub key: String,
    /// When the change takes effect.
    pub apply: Apply,
    /// The canonical text of the one value, empty for "not set". For `env_file` both texts are the
    /// same if only what the files hold differs: that may be secret.
    pub from: String,
    /// The canonical text of the other.
    pub to: String,
}
