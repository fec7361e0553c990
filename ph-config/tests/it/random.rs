//! No input panics, and whatever is refused is refused in printable lines.

use proptest::prelude::*;

use ph_config::{Format, Override, SETTINGS};

use crate::{Site, properties};

/// Text made of pieces that mean something to the parser, so that depth is reached.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("[a]".to_owned()),
        Just("[DEFAULT]".to_owned()),
        Just("\n".to_owned()),
        Just("\r".to_owned()),
        Just("  ".to_owned()),
        Just(" = ".to_owned()),
        Just(" ; ".to_owned()),
        Just("%".to_owned()),
        proptest::sample::select(SETTINGS).prop_map(|row| format!("\n{} =", row.name)),
        proptest::sample::select(SETTINGS).prop_map(|row| format!("%({})s", row.name)),
        "[0-9]{1,20}(ms|s|m|h|d|%|KB)?",
        "[A-C](=|-)(x|\"|'|\\\\){0,4}(,|\n )",
        "(unix:|\\[::1\\]|[a-z]{0,3}):[0-9]{0,6}",
        "\\PC{0,6}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| format!("[s]{}", pieces.concat()))
}

/// The same for TOML.
fn toml_text() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("1".to_owned()),
        Just("true".to_owned()),
        "\"[a-z%()\\\\]{0,8}\"",
        "'[a-z%()]{0,8}'",
        "\\[(\"[a-z, ]{0,4}\"(, )?){0,3}\\]",
        "\\{ ([A-C] = \"[a-z]\",? ?){0,2}\\}",
        Just("\"\"\"\na\n\"\"\"".to_owned()),
        Just("2020-01-01".to_owned()),
        "\\PC{0,6}",
    ];
    let line = prop_oneof![
        4 => (proptest::sample::select(SETTINGS), value.clone())
            .prop_map(|(row, value)| format!("{} = {value}", row.name)),
        2 => ("[a-c](\\.[a-c])?", value).prop_map(|(key, value)| format!("{key} = {value}")),
        2 => "\\[\\[?(s|a|DEFAULT|default|s\\.environment|s\\.app|\"x y\")\\]\\]?( # c)?",
        // Tables of sections that come before those, after them, or between others.
        2 => "\\[(a|b|DEFAULT)\\.(environment|app)\\]\n[A-C] = '1'",
        1 => " ?#[a-z]{0,4}",
        1 => "\\PC{0,8}",
    ];
    let end = prop_oneof![4 => Just("\n"), 1 => Just("\r\n")];
    let lines = prop::collection::vec((line, end), 0..14);
    (lines, prop::bool::weighted(0.8)).prop_map(|(lines, has_section)| {
        let lines = lines.into_iter().map(|(line, end)| line + end);
        let lines = lines.collect::<String>();
        if has_section { format!("[s]\n{lines}") } else { lines }
    })
}

/// Values that refer to one another, a line each.
fn references() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => (1..8u8, "[kK]").prop_map(|(key, k)| format!("%({k}{key})s")),
        2 => Just("%%".to_owned()),
        3 => "[a-z ;=]{0,3}",
        1 => "\\PC{0,2}",
        1 => proptest::sample::select(vec!["%", "%(", ")s", "%(APP_0)s", "%(K1)d", "%(%(k2)s)s"])
            .prop_map(str::to_owned),
    ];
    let value = prop_oneof![
        prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat()),
        Just("end".to_owned()),
    ];
    prop::collection::vec(value, 1..9).prop_map(|values| values.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_text_is_a_file(text in text()) {
        properties::ini(text.as_bytes());
    }

    #[test]
    fn any_bytes_are_a_file(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        properties::ini(&bytes);
    }

    #[test]
    fn any_text_is_a_toml_file(text in toml_text()) {
        properties::toml(text.as_bytes());
    }

    #[test]
    fn any_edit_is_that_edit_or_refused(
        text in prop_oneof![text(), toml_text()],
        section in "a|b|s|DEFAULT|\\PC{0,3}",
        key in "[a-c]|command|environment(\\.[AX])?|app[._][Ab]|\\PC{0,3}",
        value in "[a-c0-9 =:;#%|\"'\\[\\]]{0,8}|\\PC{0,4}",
        is_toml in any::<bool>(),
    ) {
        let format = if is_toml { Format::Toml } else { Format::Ini };
        properties::edit(format, &format!("{section}\n{key}\n{value}\n{text}"));
    }

    #[test]
    fn names_stand_for_what_configparser_says(text in references()) {
        properties::interpolation(&text);
    }

    #[test]
    fn any_text_interpolates_or_not(text in any::<String>()) {
        properties::interpolation(&text);
    }

    #[test]
    fn any_text_is_a_value_or_not(
        row in 0..SETTINGS.len(),
        text in prop_oneof![any::<String>(), text()],
    ) {
        properties::value(row, &text);
    }

    #[test]
    fn words_of_a_command_come_back_as_they_were(
        words in prop::collection::vec("([^\0]|[%'\"\\\\ #\u{a0}\n;()]){1,8}", 1..5),
    ) {
        let mut site = Site::new("[s]");
        site.overrides.push(Override::command(words.iter().map(String::as_str), "--"));
        prop_assert_eq!(site.good().settings.command, words);
    }
}
