//! No input panics, and whatever is refused is refused in printable lines.

use proptest::prelude::*;

use ph_config::{Override, SETTINGS};

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
