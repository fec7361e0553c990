//! `docs/settings.schema.json`: what an editor can know about a `ph.toml`, as JSON Schema.
//!
//! Draft 7, because that is what editors of TOML read. Each setting has the types it may have in
//! TOML, and a pattern for its text; any text with `%(` in it passes, since only a load knows what
//! names stand for. A key that is no setting may be a helper of the interpolation, so the schema
//! lets texts, numbers and switches pass there: `ph check` is what finds a misspelt key.

use ph_config::{SETTINGS, Schema, SettingInfo};
use serde_json::{Map, Value, json};

/// The whole file.
pub(crate) fn schema() -> String {
    let keys: Map<String, Value> =
        SETTINGS.iter().map(|row| (row.name.to_owned(), setting(row))).collect();
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": "Written by `cargo xtask gen` from the table in ph-config/src/settings.rs.",
        "title": "ph.toml",
        "description": "Services for ph. Each table is one; [DEFAULT] is what all of them inherit.",
        "type": "object",
        "patternProperties": { ".": { "$ref": "#/definitions/section" } },
        "additionalProperties": false,
        "definitions": {
            "section": section(keys),
            "scalar": { "type": ["string", "number", "boolean"] },
        },
    });
    format!("{schema:#}\n")
}

fn section(mut keys: Map<String, Value>) -> Value {
    keys.insert(
        "app".to_owned(),
        json!({
            "description": "The application's own keys.",
            "type": "object",
            "additionalProperties": { "$ref": "#/definitions/scalar" },
        }),
    );
    json!({
        "description": "The settings of one service. A key that is not among them is an error for \
                        ph, unless `%(key)s` refers to it or extra_keys = \"allow\"; `ph check` \
                        tells, this schema cannot.",
        "type": "object",
        "properties": keys,
        "additionalProperties": { "$ref": "#/definitions/scalar" },
    })
}

fn setting(row: &SettingInfo) -> Value {
    let Forms { mut types, text } = forms(&row.schema);
    types.push(match text {
        Text::Any => json!({ "type": "string" }),
        Text::Like(pattern) => {
            // Where nothing is the default, empty text takes back what is inherited.
            let optional = if row.default.is_empty() { "?" } else { "" };
            json!({ "type": "string", "pattern": format!("^(?:{pattern}){optional}$|%\\(") })
        }
    });
    let apply = row.apply.as_str();
    let mut setting = json!({
        "description": format!("{} Value: {}. Applies: {apply}.", row.doc, row.kind),
        "anyOf": types,
    });
    if !row.default.is_empty() {
        setting["default"] = default(row);
    }
    setting
}

/// The default, of the first type that fits.
fn default(row: &SettingInfo) -> Value {
    let typed = match row.schema {
        Schema::Boolean => row.default.parse().map(Value::Bool).ok(),
        Schema::Integer { .. } => row.default.parse::<i64>().map(Value::from).ok(),
        Schema::Octal { .. }
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
        | Schema::Command => None,
    };
    typed.unwrap_or_else(|| row.default.into())
}

/// How TOML may write a value.
struct Forms {
    /// Schemas of the types beside text, and of words to suggest.
    types: Vec<Value>,
    text: Text,
}

enum Text {
    Any,
    /// A pattern for the whole text.
    Like(String),
}

fn forms(schema: &Schema) -> Forms {
    let like = |types: Vec<Value>, pattern: &str| {
        let text = Text::Like(pattern.to_owned());
        Forms { types, text }
    };
    let any = |types| Forms { types, text: Text::Any };
    match schema {
        Schema::Boolean => {
            let words = ["true", "false", "yes", "no", "on", "off", "1", "0"];
            like(vec![json!({ "type": "boolean" })], &any_case(&words))
        }
        Schema::Integer { least, most, word } => {
            let sign = if *least < 0 { "-?" } else { "" };
            let pattern = either(format!("{sign}[0-9]+"), word.as_slice());
            let number = json!({ "type": "integer", "minimum": least, "maximum": most });
            like(suggested(vec![number], word.as_slice()), &pattern)
        }
        Schema::Octal { most } => {
            let number = json!({ "type": "integer", "minimum": 0, "maximum": most });
            like(vec![number], "[0-7]+")
        }
        Schema::Duration { above_zero } => {
            let bound = if *above_zero { "exclusiveMinimum" } else { "minimum" };
            like(
                vec![json!({ "type": "number", bound: 0 })],
                r"[0-9]+(?:\.[0-9]{1,9})?(?:ms|s|m|h|d)?",
            )
        }
        Schema::SwitchOrDuration => {
            let words = any_case(&["true", "false", "yes", "no", "on", "off"]);
            like(
                vec![json!({ "type": "boolean" }), json!({ "type": "integer", "minimum": 0 })],
                &format!(r"(?:{words}|[0-9]+(?:\.[0-9]{{1,9}})?(?:ms|s|m|h|d)?)"),
            )
        }
        Schema::Size => {
            let number = json!({ "type": "integer", "minimum": 0 });
            like(vec![number], "[0-9]+(?:[Bb]|[KkMmGgTt][Bb]?)?")
        }
        Schema::Share => like(vec![json!({ "type": "integer", "minimum": 0 })], "[0-9]+%?"),
        Schema::Name => like(Vec::new(), "[A-Za-z0-9._-]{1,64}"),
        Schema::Identity => {
            like(vec![json!({ "type": "integer", "minimum": 0 })], r"[^\s:]+(?::[^\s:]+)?")
        }
        Schema::Path | Schema::Address | Schema::Readiness | Schema::Section => any(Vec::new()),
        Schema::Choice { words, aliases } => {
            like(suggested(Vec::new(), words), &any_case(&[*words, *aliases].concat()))
        }
        Schema::Limit(part) => limit(part),
        Schema::List { of, word } => list(of, *word),
        Schema::Map => any(vec![json!({
            "type": "object",
            "additionalProperties": { "$ref": "#/definitions/scalar" },
        })]),
        Schema::Command => any(vec![json!({ "type": "array", "items": { "type": "string" } })]),
    }
}

/// One value for both, or two with a colon between them.
fn limit(part: &Schema) -> Forms {
    let Forms { types, text } = forms(part);
    let text = match text {
        Text::Any => Text::Any,
        Text::Like(pattern) => {
            let one = either(pattern, &["unlimited", "infinity"]);
            Text::Like(format!(r"(?:{one})(?:\s*:\s*(?:{one}))?"))
        }
    };
    Forms { types: suggested(types, &["unlimited"]), text }
}

/// An array of one form of an item, or the item alone, or a word instead.
fn list(of: &Schema, word: Option<&'static str>) -> Forms {
    let alone = forms(of).types;
    let text = json!({ "type": "string" });
    let item: Vec<Value> = alone.iter().chain([&text]).cloned().collect();
    let array = json!({ "type": "array", "items": { "anyOf": item } });
    let types = [array].into_iter().chain(alone).collect();
    Forms { types: suggested(types, word.as_slice()), text: Text::Any }
}

/// With the words an editor should offer.
fn suggested(mut types: Vec<Value>, words: &[&str]) -> Vec<Value> {
    if !words.is_empty() {
        types.push(json!({ "enum": words }));
    }
    types
}

/// A pattern for what fits `pattern` or is one of the words in any case.
fn either(pattern: String, words: &[&str]) -> String {
    if words.is_empty() { pattern } else { format!("{pattern}|{}", any_case(words)) }
}

/// A pattern for these words in any case; the dialect of JSON Schema has no switch for that.
fn any_case(words: &[&str]) -> String {
    let letter = |c: char| match (c.to_ascii_uppercase(), c.to_ascii_lowercase()) {
        (upper, lower) if upper == lower => c.to_string(),
        (upper, lower) => format!("[{upper}{lower}]"),
    };
    let words: Vec<String> = words.iter().map(|word| word.chars().map(letter).collect()).collect();
    words.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed() -> Value {
        serde_json::from_str(&schema()).unwrap()
    }

    #[test]
    fn every_key_of_a_file_is_described() {
        let file = json!({
            "web": {
                "command": ["./server"], "number_workers": "auto", "bind": [":80"],
                "environment": { "A": 1 }, "graceful_timeout": 2.5, "umask": 0o22,
                "app": { "rate": 5 },
            },
        });
        let keys = &parsed()["definitions"]["section"]["properties"];
        for key in file["web"].as_object().unwrap().keys() {
            assert!(keys[key]["description"].is_string(), "{key}");
        }
        assert_eq!(keys.as_object().unwrap().len(), SETTINGS.len() + 1);
        for row in SETTINGS {
            let types = keys[row.name]["anyOf"].as_array().unwrap();
            assert_eq!(types.last().unwrap()["type"], "string", "{}", row.name);
            assert_eq!(keys[row.name]["default"].is_null(), row.default.is_empty());
        }
    }

    #[test]
    fn bounds_words_and_patterns_come_from_the_table() {
        let keys = &parsed()["definitions"]["section"]["properties"];
        let bounds = json!({ "type": "integer", "minimum": -20, "maximum": 19 });
        assert_eq!(keys["nice"]["anyOf"][0], bounds);
        assert_eq!(keys["nice"]["anyOf"][1]["pattern"], r"^(?:-?[0-9]+)?$|%\(");
        assert_eq!(keys["number_workers"]["default"], 1);
        assert_eq!(keys["number_workers"]["anyOf"][1]["enum"], json!(["auto"]));
        let pattern = "^(?:[0-9]+|[Aa][Uu][Tt][Oo])$|%\\(";
        assert_eq!(keys["number_workers"]["anyOf"][2]["pattern"], pattern);
        assert_eq!(keys["kill_mode"]["anyOf"][0]["enum"], json!(["tree", "group", "process"]));
    }
}
