//! No input panics, and whatever is refused is refused in printable lines.

use proptest::prelude::*;

use ph_config::Override;

use crate::Site;

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
        proptest::sample::select(ph_config::SETTINGS).prop_map(|row| format!("\n{} =", row.name)),
        proptest::sample::select(ph_config::SETTINGS).prop_map(|row| format!("%({})s", row.name)),
        "[0-9]{1,20}(ms|s|m|h|d|%|KB)?",
        "[A-C](=|-)(x|\"|'|\\\\){0,4}(,|\n )",
        "(unix:|\\[::1\\]|[a-z]{0,3}):[0-9]{0,6}",
        "\\PC{0,6}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| format!("[s]{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_text_panics(text in text()) {
        if let Err(errors) = Site::new(text).section("s").load() {
            prop_assert!(!errors.0.is_empty());
            let shown = errors.to_string();
            prop_assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
            prop_assert_eq!(shown.lines().count(), 2 * errors.0.len());
        }
    }

    #[test]
    fn words_of_a_command_come_back_as_they_were(
        words in prop::collection::vec("([^\0]|[%'\"\\\\ #\u{a0}\n;()]){1,8}", 1..5),
    ) {
        let mut site = Site::new("[s]");
        site.overrides.push(Override::command(words.iter().map(String::as_str), "--"));
        prop_assert_eq!(site.good().settings.command, words);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Site::new(bytes).load();
    }

    #[test]
    fn no_override_panics(
        value in any::<String>(),
        row in proptest::sample::select(ph_config::SETTINGS),
    ) {
        let _ = Site::new("[s]").set(row.name, &value).load();
        let _ = Site::new("[s]").set(&value, "1").load();
    }
}
