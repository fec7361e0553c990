//! What a TOML file looks like after one value was written into it.

use ph_config::Format;

use crate::Site;
use crate::edit::{changed, check};

#[test]
fn a_toml_value_keeps_its_type_and_its_surroundings() {
    check(
        Format::Toml,
        &[
            ("number", "[a]\nk   = 1   # one\r\n", "a/K", Some("4"), "[a]\nk   = 4   # one\r\n"),
            ("number to fraction", "[a]\nk=1", "a/k", Some("0.5"), "[a]\nk=0.5"),
            ("number to text", "[a]\nk=1", "a/k", Some("5s"), "[a]\nk=\"5s\""),
            ("octal stays text", "[a]\nk=1", "a/k", Some("022"), "[a]\nk=\"022\""),
            ("boolean", "[a]\nk = true\n", "a/k", Some("false"), "[a]\nk = false\n"),
            ("text stays text", "[a]\nk = 'x'\n", "a/k", Some("4"), "[a]\nk = \"4\"\n"),
            ("quotes", "[a]\nk = 'x'\n", "a/k", Some("say \"\\\""), "[a]\nk = 'say \"\\\"'\n"),
            (
                "lines",
                "[a]\r\nk = 'x'\r\n",
                "a/k",
                Some("it's\n\"\t"),
                "[a]\r\nk = \"it's\\n\\\"\\t\"\r\n",
            ),
            ("byte order mark", "\u{feff}[a]\nk = 1", "a/k", Some("2"), "\u{feff}[a]\nk = 2"),
            (
                "section in one line",
                "a = { k = 1, j = 2 }",
                "a/k",
                Some("3"),
                "a = { k = 3, j = 2 }",
            ),
            ("section by dots", "a.k = 1\na.j = 2\n", "a/j", Some("3"), "a.k = 1\na.j = 3\n"),
            ("default", "[default]\nk = 1\n", "DEFAULT/k", Some("2"), "[default]\nk = 2\n"),
            ("list", "[a]\nk = ['x'] # c\n", "a/k", Some("y, z"), "[a]\nk = [\"y\", \"z\"] # c\n"),
            ("numbers", "[a]\nk = [1]\n", "a/k", Some("1\n2"), "[a]\nk = [1, 2]\n"),
            ("same list", "[a]\nk = [ 'x','y' ]\n", "a/k", Some("x\ny"), "[a]\nk = [ 'x','y' ]\n"),
            (
                "list in lines",
                "[a]\nk = [\n  'x', # c\n\n  # d\n]\n",
                "a/k",
                Some("y,z"),
                "[a]\nk = [\n  # c\n  # d\n  \"y\",\n  \"z\",\n]\n",
            ),
            (
                "words",
                "[a]\ncommand = ['x']\n",
                "a/command",
                Some("x 'a, b'"),
                "[a]\ncommand = [\"x\", \"a, b\"]\n",
            ),
            (
                "command as text",
                "[a]\ncommand = 'x'\n",
                "a/command",
                Some("x y"),
                "[a]\ncommand = \"x y\"\n",
            ),
        ],
    );
}

#[test]
fn a_new_toml_key_finds_its_table() {
    check(
        Format::Toml,
        &[
            (
                "guessed",
                "[a]\nlong   = 1\n\n[b]\n",
                "a/k",
                Some("2"),
                "[a]\nlong   = 1\nk      = 2\n\n[b]\n",
            ),
            ("text", "[a] # c\n", "a/k", Some("x"), "[a] # c\nk = \"x\"\n"),
            (
                "below a list",
                "[a]\nk = [\n 1, # c\n] # d\n# e\n",
                "a/n",
                Some("true"),
                "[a]\nk = [\n 1, # c\n] # d\nn = true\n# e\n",
            ),
            ("no line end", "[a]\r\nk = 1", "a/n", Some("2"), "[a]\r\nk = 1\r\nn = 2\r\n"),
            ("new section", "[a]\nk = 1\n", "b c/n", Some("2"), "[a]\nk = 1\n\n[\"b c\"]\nn = 2\n"),
            (
                "section with tables alone",
                "[a.app]\nk = 1\n",
                "a/n",
                Some("2"),
                "[a.app]\nk = 1\n\n[a]\nn = 2\n",
            ),
            (
                "variable",
                "[a]\nk = 1\n\n[b]\n",
                "a/environment.X",
                Some("2"),
                "[a]\nk = 1\n\n[a.environment]\nX = \"2\"\n\n[b]\n",
            ),
            (
                "variable in its table",
                "[a]\n[a.environment]\nx = '1'\n",
                "a/environment.X",
                Some("2"),
                "[a]\n[a.environment]\nx = '1'\nX = \"2\"\n",
            ),
            (
                "variable in a line",
                "[a]\nenvironment = { A = '1' } # c\n",
                "a/environment.B",
                Some("2"),
                "[a]\nenvironment = { A = '1', B = \"2\" } # c\n",
            ),
            (
                "first variable in a line",
                "[a]\nenvironment = {}\n",
                "a/environment.B",
                Some("2"),
                "[a]\nenvironment = { B = \"2\" }\n",
            ),
            (
                "variable by dots",
                "[a]\nenvironment.A = '1'\n",
                "a/environment.B",
                Some("2"),
                "[a]\nenvironment.A = '1'\nenvironment.B = \"2\"\n",
            ),
            (
                "application",
                "[a.app]\nx = 1\n",
                "a/app_Y",
                Some("2"),
                "[a.app]\nx = 1\nY = \"2\"\n",
            ),
            ("application, old", "[a.app]\nx = 1\n", "a/app.X", Some("2"), "[a.app]\nx = 2\n"),
            ("application, flat", "[a]\napp_x = 1\n", "a/app.X", Some("2"), "[a]\napp_x = 2\n"),
            ("application, first", "[a]\n", "a/app_x", Some("2"), "[a]\n\n[a.app]\nx = \"2\"\n"),
            ("empty file", "", "DEFAULT/n", Some("2"), "[DEFAULT]\nn = 2\n"),
        ],
    );
}

#[test]
fn a_hash_inside_a_word_or_in_quotes_is_no_comment() {
    let words = "[a]\ncommand = ['x']\n";
    check(
        Format::Toml,
        &[
            ("inside", words, "a/command", Some("x y#z"), "[a]\ncommand = [\"x\", \"y#z\"]\n"),
            ("quoted", words, "a/command", Some("x '# y'"), "[a]\ncommand = [\"x\", \"# y\"]\n"),
            ("escaped", words, "a/command", Some("x \\#y"), "[a]\ncommand = [\"x\", \"#y\"]\n"),
        ],
    );
}

#[test]
fn toml_tables_may_stand_in_any_order() {
    check(
        Format::Toml,
        &[
            (
                "section of tables alone",
                "[a.environment]\nA = '1'\n\n[b]\nk = 2\n",
                "a/k",
                Some("3"),
                "[a.environment]\nA = '1'\n\n[b]\nk = 2\n\n[a]\nk = 3\n",
            ),
            (
                "tables before and after",
                "[a.app]\nx = 'y'\n[b]\nk = 2\n[a]\nk = 1\n[b.app]\nz = 'z'\n[a.environment]\n",
                "a/k",
                Some("3"),
                "[a.app]\nx = 'y'\n[b]\nk = 2\n[a]\nk = 3\n[b.app]\nz = 'z'\n[a.environment]\n",
            ),
        ],
    );
}

#[test]
fn a_toml_number_is_read_back_as_the_very_text_that_was_given() {
    for old in ["1", "0.5", "true", "[1, 2]"] {
        for value in [
            "1",
            "-0",
            "0",
            "1.10",
            "1.0",
            "0o77",
            "077",
            "1_0",
            "2020-01-01",
            "-",
            "1.",
            "+1",
            "1e3",
        ] {
            let text = format!("[a]\nnice = {old}\n");
            let text = changed(Format::Toml, &text, "a/nice", Some(value), false).expect(value);
            let site = Site::toml(&text);
            let (read, _) = site.read().expect("TOML").written("a", "nice").expect("a value");
            assert_eq!(read, value, "{text}");
        }
    }
    let text = changed(Format::Toml, "[a]\nn = 1\n", "a/n", Some("2"), false);
    assert_eq!(text.as_deref(), Ok("[a]\nn = 2\n"), "plain numbers stay numbers");
}
