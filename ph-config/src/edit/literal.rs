//! Values as TOML text: single ones, and lists in the layout of the list that they replace.
//!
//! A list in one line stays in one line. One over several lines keeps an item a line, and the
//! comments that stood among its items come first in it, because nobody can know which of them
//! still belongs to which item. Strings are written in one line, so that no line end of another
//! kind gets into a file.

use std::ops::Range;

use toml_edit::{Array, Value};

use crate::error::shown;

use super::Refusal;

/// A value as TOML text, and the canonical text by which it is known again.
pub(super) struct Written {
    pub(super) text: String,
    pub(super) canonical: String,
}

impl Written {
    fn of(value: &Value) -> Written {
        let text = value.as_str().map_or_else(|| value.to_string(), quoted);
        Written { text, canonical: canonical(value) }
    }

    pub(super) fn string(text: &str) -> Written {
        Written::of(&Value::from(text))
    }

    /// A number or a boolean if the text is one and would be printed the same, else a string.
    pub(super) fn guess(text: &str) -> Written {
        literal(text).map_or_else(|| Written::string(text), |value| Written::of(&value))
    }
}

/// The text as a number or a boolean.
fn literal(text: &str) -> Option<Value> {
    if let "true" | "false" = text {
        return Some(Value::from(text == "true"));
    }
    if let Some(number) = text.parse::<i64>().ok().filter(|number| number.to_string() == text) {
        return Some(Value::from(number));
    }
    let is_decimal = |text: &str| text.chars().all(|c| matches!(c, '0'..='9' | '.' | '-'));
    let number = text.parse::<f64>().ok().filter(|_| is_decimal(text));
    number.filter(|number| format!("{number:?}") == text).map(Value::from)
}

/// The list that takes the place of `array`; `old` is its text.
pub(super) fn list(
    array: &Array,
    old: &str,
    value: &str,
    is_command: bool,
    end: &str,
) -> Result<Written, Refusal> {
    let items = if is_command {
        words(value)?
    } else {
        let numbers = !array.is_empty() && array.iter().all(Value::is_integer);
        let items = value.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty());
        let item = |item: &str| literal(item).filter(|value| numbers && value.is_integer());
        items.map(|text| item(text).unwrap_or_else(|| Value::from(text))).collect()
    };
    let canonical = canonical(&Value::Array(items.iter().collect()));
    if canonical == self::canonical(&Value::Array(array.clone())) {
        return Ok(Written { text: old.to_owned(), canonical });
    }
    let items: Vec<String> = items.iter().map(|item| Written::of(item).text).collect();
    if !old.contains('\n') {
        return Ok(Written { text: format!("[{}]", items.join(", ")), canonical });
    }
    let mut text = format!("[{end}");
    let indent =
        old.lines().nth(1).map_or("    ", |line| &line[..line.len() - line.trim_start().len()]);
    let indent = if indent.is_empty() { "    " } else { indent };
    for comment in comments(array, old) {
        text += &format!("{indent}{comment}{end}");
    }
    for item in items {
        text += &format!("{indent}{item},{end}");
    }
    let last = old.rsplit('\n').next().unwrap_or_default();
    text += &last[..last.len() - last.trim_start().len()];
    text.push(']');
    Ok(Written { text, canonical })
}

/// A command's text as its words.
fn words(text: &str) -> Result<Array, Refusal> {
    let words = shlex::split(text).ok_or_else(|| {
        let message = format!("expected words as a shell reads them, got {}", shown(text));
        Refusal::new(message, "close the quotes; a backslash needs a character after it")
    })?;
    Ok(words.into_iter().collect())
}

/// The comments among the items of a list.
fn comments<'t>(array: &Array, old: &'t str) -> Vec<&'t str> {
    let offset = array.span().map_or(0, |span| span.start);
    let mut start = 0;
    let mut found = Vec::new();
    let items = array.iter().filter_map(Value::span);
    let ends: Range<usize> = offset + old.len()..offset + old.len();
    for item in items.chain([ends]) {
        let gap = &old[start..item.start - offset];
        found.extend(gap.lines().filter_map(|line| Some(line[line.find('#')?..].trim_end())));
        start = item.end - offset;
    }
    found
}

/// A TOML string in one line.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = !text.chars().any(char::is_control);
    if is_plain && text.contains(['"', '\\']) && !text.contains('\'') {
        return format!("'{text}'");
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// One text for one value, whatever it looks like in the file.
pub(super) fn canonical(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", text.value()),
        Value::Integer(number) => number.value().to_string(),
        Value::Float(number) => format!("{:?}", number.value()),
        Value::Boolean(truth) => truth.value().to_string(),
        Value::Datetime(time) => time.value().to_string(),
        Value::Array(array) => {
            let items: Vec<String> = array.iter().map(canonical).collect();
            format!("[{}]", items.join(", "))
        }
        Value::InlineTable(table) => {
            let items = table.iter().map(|(key, value)| format!("{key:?}={}", canonical(value)));
            format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
        }
    }
}
