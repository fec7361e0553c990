//! Values as TOML text: single ones, and lists in the layout of the list that they replace.
//!
//! A list in one line stays in one line. One over several lines keeps an item a line, and the
//! comments that stood among its items come first in it, because nobody can know which of them
//! still belongs to which item. Strings are written in one line, so that no line end of another
//! kind gets into a file.

use toml_edit::{Array, Value};

use crate::document;
use crate::error::shown;

use super::Refusal;

/// Which types a value may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// What looks like a number or a boolean becomes one.
    Typed,
    /// Everything is a string.
    Text,
}

/// A value as TOML text.
pub(super) struct Written {
    pub(super) text: String,
    /// By this text it is known again.
    pub(super) canonical: String,
    /// What the loader must read.
    pub(super) meant: document::Written,
    /// Whether there are only strings in it, which always read back.
    pub(super) is_text: bool,
}

impl Written {
    pub(super) fn string(text: &str) -> Written {
        let value = Value::from(text);
        let (canonical, meant) = (canonical(&value), document::Written::Text(text.to_owned()));
        Written { text: quoted(text), canonical, meant, is_text: true }
    }

    /// A number or a boolean if the text is one, else a string.
    pub(super) fn guess(text: &str, form: Form) -> Written {
        let string = Written::string(text);
        match literal(text).filter(|_| form == Form::Typed) {
            Some(value) => Written {
                text: text.to_owned(),
                canonical: canonical(&value),
                is_text: false,
                ..string
            },
            None => string,
        }
    }
}

/// The text as a number or a boolean, if that is how people write one.
fn literal(text: &str) -> Option<Value> {
    let is_octal =
        |text: &str| text.strip_prefix("0o").is_some_and(|it| it.chars().all(|c| c.is_digit(8)));
    let is_decimal = |text: &str| text.chars().all(|c| matches!(c, '0'..='9' | '.' | '-'));
    if !(matches!(text, "true" | "false") || is_decimal(text) || is_octal(text)) {
        return None;
    }
    // Digits and dashes may be a day, too.
    let value: Value = text.parse().ok()?;
    (value.is_integer() || value.is_float() || value.is_bool()).then_some(value)
}

/// The list that takes the place of `array`; `old` is its text.
pub(super) fn list(
    array: &Array,
    old: &str,
    value: &str,
    is_command: bool,
    end: &str,
    form: Form,
) -> Result<Written, Refusal> {
    let items: Vec<String> = if is_command {
        words(value)?
    } else {
        let items = value.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty());
        items.map(str::to_owned).collect()
    };
    let numbers = form == Form::Typed && !array.is_empty() && array.iter().all(Value::is_integer);
    let number = |text: &str| literal(text).filter(|value| numbers && value.is_integer());
    let values: Array =
        items.iter().map(|text| number(text).unwrap_or_else(|| Value::from(text))).collect();
    let is_text = !values.iter().any(Value::is_integer);
    let texts: Vec<String> = items
        .iter()
        .map(|text| number(text).map_or_else(|| quoted(text), |_| text.clone()))
        .collect();
    let canonical = canonical(&Value::Array(values));
    let meant = document::Written::Items(items);
    if canonical == self::canonical(&Value::Array(array.clone())) {
        return Ok(Written { text: old.to_owned(), canonical, meant, is_text });
    }
    if !old.contains('\n') {
        return Ok(Written { text: format!("[{}]", texts.join(", ")), canonical, meant, is_text });
    }
    let mut text = format!("[{end}");
    let indent =
        old.lines().nth(1).map_or("    ", |line| &line[..line.len() - line.trim_start().len()]);
    let indent = if indent.is_empty() { "    " } else { indent };
    for comment in comments(old) {
        text += &format!("{indent}{comment}{end}");
    }
    for item in texts {
        text += &format!("{indent}{item},{end}");
    }
    let last = old.rsplit('\n').next().unwrap_or_default();
    text += &last[..last.len() - last.trim_start().len()];
    text.push(']');
    Ok(Written { text, canonical, meant, is_text })
}

/// A command's text as its words.
fn words(text: &str) -> Result<Vec<String>, Refusal> {
    let words = shlex::split(text).ok_or_else(|| {
        let message = format!("expected words as a shell reads them, got {}", shown(text));
        Refusal::new(message, "close the quotes; a backslash needs a character after it")
    })?;
    // A `#` means itself everywhere but at the start of a word, so without any of them the words
    // are the same unless one began a comment.
    let spare = ('\u{e000}'..='\u{f8ff}').find(|c| !text.contains(*c)).unwrap_or('x');
    let whole = shlex::split(&text.replace('#', &spare.to_string())).unwrap_or_default();
    if !whole.iter().map(|word| word.replace(spare, "#")).eq(words.iter().cloned()) {
        let message =
            format!("expected words alone, got {}: what follows the `#` is a comment", shown(text));
        return Err(Refusal::new(message, "put the `#` in quotes, or take the comment out"));
    }
    Ok(words)
}

/// The comments in a piece of TOML that begins outside of a string.
pub(super) fn comments(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['#', '"', '\'']) {
        rest = &rest[at..];
        let length = if rest.starts_with('#') {
            let line = rest.lines().next().unwrap_or_default();
            found.push(line.trim_end());
            line.len()
        } else {
            string_length(rest)
        };
        rest = &rest[length..];
    }
    found
}

/// The length of the string that the text begins with.
fn string_length(text: &str) -> usize {
    let (quote, is_basic) = if text.starts_with('"') { ("\"", true) } else { ("'", false) };
    let long = quote.repeat(3);
    let delimiter = if text.starts_with(&long) { long.as_str() } else { quote };
    let mut at = delimiter.len();
    while let Some(c) = text[at..].chars().next() {
        if text[at..].starts_with(delimiter) {
            at += delimiter.len();
            // A long string may end in quotes of its own.
            let more = text[at..].bytes().take_while(|byte| quote.as_bytes() == [*byte]).count();
            return at + if delimiter.len() > 1 { more } else { 0 };
        }
        at += c.len_utf8();
        if is_basic && c == '\\' {
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    text.len()
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
