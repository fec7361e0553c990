//! What people read about settings, written from the table: the page and the template of a file.
//!
//! The prose is in the folder of this module, since it is easier to write there; what is said
//! about a single setting comes from its row and from nowhere else, so neither text can fall
//! behind the table.
//!
//! In a template, prose is `# text` and a setting is commented out by one character directly
//! before it, `;` in INI and `#` in TOML, so that uncommenting can be told from reading.

use crate::format::Format;
use crate::interpolate::LATE_KEYS;
use crate::row::SettingInfo;
use crate::settings::SETTINGS;
use crate::value::Schema;

/// How long the lines of a template are, in characters.
const WIDTH: usize = 98;

/// A commented file of every setting, which loads as it stands: what `ph init` prints.
///
/// ```
/// use ph_config::{Format, reference};
///
/// assert!(reference::template(Format::Ini).contains("\n;graceful_timeout = 30s\n"));
/// assert!(reference::template(Format::Toml).contains("\n#graceful_timeout = \"30s\"\n"));
/// ```
pub fn template(format: Format) -> String {
    let head = match format {
        Format::Ini => include_str!("reference/head.ini"),
        Format::Toml => include_str!("reference/head.toml"),
    };
    let mut text = head.replace("{late_keys}", &LATE_KEYS.join(" and "));
    for rows in groups() {
        text += &format!("\n# ---- {} ----\n", rows[0].group);
        for row in rows {
            text += "\n";
            text += &commented(row.doc);
            text += &commented(&format!("Value: {}. Applies: {}.", row.kind, row.apply.as_str()));
            text += &match format {
                Format::Ini => format!(";{} = {}", row.name, row.default).trim_end().to_owned(),
                Format::Toml => format!("#{} = {}", row.name, toml_default(row)),
            };
            text += "\n";
        }
    }
    text
}

/// The page `docs/settings.md`: how values are written and merged, and a table of each group.
///
/// ```
/// assert!(ph_config::reference::markdown().contains("| `graceful_timeout` | duration | `30s` |"));
/// ```
pub fn markdown() -> String {
    let late_keys: Vec<String> = LATE_KEYS.iter().map(|key| format!("`{key}`")).collect();
    let mut text =
        include_str!("reference/intro.md").replace("{late_keys}", &late_keys.join(" and "));
    for rows in groups() {
        text += &format!("\n## {}\n\n", rows[0].group);
        text += "| key | value | default | applies | meaning |\n|---|---|---|---|---|\n";
        for SettingInfo { name, kind, default, apply, doc, .. } in rows {
            let default = match *default {
                "" => "not set".to_owned(),
                text => format!("`{text}`"),
            };
            let cells = [&format!("`{name}`"), *kind, &default, apply.as_str(), doc];
            // A bar would end the cell.
            text += &format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    }
    text
}

/// The rows under each heading.
fn groups() -> impl Iterator<Item = &'static [SettingInfo]> {
    SETTINGS.chunk_by(|row, next| row.group == next.group)
}

/// Prose as comment lines.
fn commented(text: &str) -> String {
    let mut out = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + " ".len() + word.chars().count() > WIDTH {
            out += &line;
            out.push('\n');
            line.truncate("#".len());
        }
        line.push(' ');
        line += word;
    }
    out + &line + "\n"
}

/// The default as a TOML value of the type the setting has.
fn toml_default(row: &SettingInfo) -> String {
    let default = row.default;
    let number = !default.is_empty() && default.bytes().all(|byte| byte.is_ascii_digit());
    match row.schema {
        Schema::Boolean if !default.is_empty() => default.to_owned(),
        Schema::Integer { .. } if number => default.to_owned(),
        Schema::Octal { .. } if number => format!("0o{default}"),
        Schema::List { .. } if default.is_empty() => "[]".to_owned(),
        Schema::Map if default.is_empty() => "{}".to_owned(),
        Schema::Boolean
        | Schema::Integer { .. }
        | Schema::Octal { .. }
        | Schema::Duration { .. }
        | Schema::SwitchOrDuration
        | Schema::Size
        | Schema::Share
        | Schema::Name
        | Schema::Section
        | Schema::Identity
        | Schema::Path
        | Schema::Address
        | Schema::Readiness
        | Schema::Choice { .. }
        | Schema::Limit(_)
        | Schema::List { .. }
        | Schema::Map
        | Schema::Command => toml_edit::Value::from(default).to_string(),
    }
}
