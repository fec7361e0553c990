//! What a file looks like after one value was written into it.

use ph_config::{Edit, EditError, Format, edit, line_of};

pub(crate) fn changed(
    format: Format,
    text: &str,
    place: &str,
    value: Option<&str>,
    keep_comment: bool,
) -> Result<String, EditError> {
    let (section, key) = place.split_once('/').expect("a place is section/key");
    edit(text, format, &Edit { section, key, value, keep_comment })
}

/// Rows of: what is tried, text before, section/key, value, text after.
pub(crate) type Rows<'a> = [(&'a str, &'a str, &'a str, Option<&'a str>, &'a str)];

pub(crate) fn check(format: Format, rows: &Rows<'_>) {
    for (what, before, place, value, after) in rows {
        let text = changed(format, before, place, *value, true);
        let text = text.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(text, *after, "{what}");
    }
}

#[test]
fn an_ini_value_is_replaced_where_it_stands() {
    check(
        Format::Ini,
        &[
            ("alignment", "[a]\n k   :\t1  \nb=2", "a/K", Some("5"), "[a]\n k   :\t5  \nb=2"),
            ("no last line end", "[a]\nk=1", "a/k", Some("2"), "[a]\nk=2"),
            ("CRLF", "[a]\r\nk = 1\r\n\r\n", "a/k", Some("x\ny"), "[a]\r\nk = x\r\n    y\r\n\r\n"),
            ("lone CR", "[a]\rk = 1\rj = 2", "a/k", Some("3"), "[a]\rk = 3\rj = 2"),
            ("byte order mark", "\u{feff}[a]\nk = 1\n", "a/k", Some("2"), "\u{feff}[a]\nk = 2\n"),
            ("no value yet", "[a]\nk =\nj=\ni:\n", "a/k", Some("1"), "[a]\nk = 1\nj=\ni:\n"),
            ("no blank yet", "[a]\nk =\nj=\ni:\n", "a/j", Some("1"), "[a]\nk =\nj=1\ni:\n"),
            ("no value now", "[a]\nk = 1\n", "a/k", Some(""), "[a]\nk =\n"),
            (
                "[DEFAULT] twice",
                "[DEFAULT]\na=1\n[s]\n[DEFAULT]\nb=2\n",
                "DEFAULT/b",
                Some("3"),
                "[DEFAULT]\na=1\n[s]\n[DEFAULT]\nb=3\n",
            ),
            ("header to the last bracket", "[a]b] c\nk=1\n", "a]b/k", Some("2"), "[a]b] c\nk=2\n"),
            (
                "a key in the value",
                "[a]\nk = 1\n  k = 2\n\nj = 3\n",
                "a/k",
                Some("4"),
                "[a]\nk = 4\n\nj = 3\n",
            ),
            ("same text", "[a]\nk =  1\t\n", "a/k", Some("1"), "[a]\nk =  1\t\n"),
        ],
    );
}

#[test]
fn no_comment_is_lost() {
    check(
        Format::Ini,
        &[
            (
                "between lines",
                "[a]\nk = 1\n  # why\n\n  2\n; end\n",
                "a/k",
                Some("3"),
                "[a]\nk = 3\n  # why\n; end\n",
            ),
            (
                "between lines, no line end",
                "[a]\nk = 1\n#c\n  2",
                "a/k",
                Some("3"),
                "[a]\nk = 3\n#c",
            ),
            ("after the value", "[a]\nk = 1 \t; one\n", "a/k", Some("2"), "[a]\nk = 2 \t; one\n"),
            ("instead of a value", "[a]\nk = ; one\n", "a/k", Some("2"), "[a]\nk = 2 ; one\n"),
            (
                "after many values",
                "[a]\n k = 1 ; one\n  2 ; two\n",
                "a/k",
                Some("3"),
                "[a]\n k = 3\n ; one\n ; two\n",
            ),
            (
                "after a value that gets lines",
                "[a]\nk = 1 ; one\n",
                "a/k",
                Some("2\n3"),
                "[a]\nk = 2\n    3\n; one\n",
            ),
            ("key alone removed", "[a]\n k = 1 ; one\nj=2\n", "a/k", None, "[a]\n ; one\nj=2\n"),
            ("last key removed", "[a]\nk = 1 ; one", "a/k", None, "[a]\n; one"),
            (
                "key removed",
                "[a]\nk = 1\n  # why\n  2\n; end\n",
                "a/k",
                None,
                "[a]\n  # why\n; end\n",
            ),
        ],
    );
    check(
        Format::Toml,
        &[
            ("key removed", "[a]\r\n  k = 1 # c\r\n", "a/k", None, "[a]\r\n  # c\r\n"),
            ("last key removed", "[a]\nk = '#' # c", "a/k", None, "[a]\n# c"),
            (
                "list removed",
                "[a]\nk = [ # x\n  '#', # y \n  # z\n] # end\nj = 1\n",
                "a/k",
                None,
                "[a]\n# x\n# y\n# z\n# end\nj = 1\n",
            ),
            (
                "list replaced",
                "[a]\nk = [ # x\n  \"\"\"#\\\"\"\"\"\"\", # y\n  [ 1, # z\n  ],\n] # end\n",
                "a/k",
                Some("v"),
                "[a]\nk = [\n  # x\n  # y\n  # z\n  \"v\",\n] # end\n",
            ),
            (
                "comma behind the last variable",
                "[a]\nenvironment = { A = '1', }\n",
                "a/environment.A",
                None,
                "[a]\nenvironment = {  }\n",
            ),
        ],
    );
    // Where the loader takes the semicolon for a part of the value, so does an edit.
    let text = changed(Format::Ini, "[a]\nk = 1 ; one\n", "a/k", Some("2 ;x"), false);
    assert_eq!(text.as_deref(), Ok("[a]\nk = 2 ;x\n"));
}

#[test]
fn lists_are_indented_below_their_key() {
    check(
        Format::Ini,
        &[
            (
                "as before",
                "[a]\nk =\n\t 1\n\t 2\n",
                "a/k",
                Some("\n3\n4"),
                "[a]\nk =\n\t 3\n\t 4\n",
            ),
            ("from one line", "[a]\n  k = 1\n", "a/k", Some("1\n\n2"), "[a]\n  k = 1\n\n      2\n"),
            (
                "to one line",
                "[a]\nk =\n  1\n\n  2\n\n\nj=3",
                "a/k",
                Some("1"),
                "[a]\nk = 1\n\n\nj=3",
            ),
            ("new", "[a]\n", "a/k", Some("\n1\n2"), "[a]\nk =\n    1\n    2\n"),
        ],
    );
}

#[test]
fn a_new_ini_key_looks_like_its_neighbours() {
    check(
        Format::Ini,
        &[
            (
                "aligned",
                "[a]\nlong_key    = 1\n\n# next\n[b]\n",
                "a/k",
                Some("2"),
                "[a]\nlong_key    = 1\nk           = 2\n\n# next\n[b]\n",
            ),
            (
                "aligned by the longest",
                "[a]\nk        = 1\nlong_key = 2\n",
                "a/n",
                Some("3"),
                "[a]\nk        = 1\nlong_key = 2\nn        = 3\n",
            ),
            ("too long", "[a]\nk  = 1\n", "a/long", Some("2"), "[a]\nk  = 1\nlong = 2\n"),
            ("not aligned", "[a]\nk=1\nlong=2\n", "a/x", Some("3"), "[a]\nk=1\nlong=2\nx=3\n"),
            (
                "no key to look at",
                "# one\n[a]\n# two\n",
                "a/k",
                Some("1"),
                "# one\n[a]\nk = 1\n# two\n",
            ),
            (
                "below a list",
                "[a]\nk:\n  1\n  2\n\n[b]",
                "a/n",
                Some("3"),
                "[a]\nk:\n  1\n  2\nn: 3\n\n[b]",
            ),
            ("indented", "[a]\n  k = 1\n  [b]", "a/n", Some("2"), "[a]\n  k = 1\n  n = 2\n  [b]"),
            (
                "before an indented header",
                "[a]\n  [b]\nk=1",
                "a/n",
                Some("2"),
                "[a]\n  n = 2\n  [b]\nk=1",
            ),
            (
                "first block",
                "[DEFAULT]\na=1\n[DEFAULT]\nb=2\n",
                "DEFAULT/c",
                Some("3"),
                "[DEFAULT]\na=1\nc=3\n[DEFAULT]\nb=2\n",
            ),
            ("no last line end", "[a]\r\nk = 1", "a/n", Some("2"), "[a]\r\nk = 1\r\nn = 2\r\n"),
            ("new section", "[a]\nk=1\n", "b/n", Some("2"), "[a]\nk=1\n\n[b]\nn = 2\n"),
            ("new section, no line end", "[a]\nk=1", "b/n", Some("2"), "[a]\nk=1\n\n[b]\nn = 2\n"),
            (
                "new section, blank line",
                "[a]\nk=1\n\n",
                "b/n",
                Some("2"),
                "[a]\nk=1\n\n[b]\nn = 2\n",
            ),
            ("empty file", "", "DEFAULT/n", Some("2"), "[DEFAULT]\nn = 2\n"),
        ],
    );
}

#[test]
fn a_key_is_removed_with_its_lines() {
    check(
        Format::Ini,
        &[
            ("list", "[a]\nk =\n  1\n\n  2\n\nj = 3\n", "a/K", None, "[a]\n\nj = 3\n"),
            ("last line", "[a]\nj = 1\r\nk = 2", "a/k", None, "[a]\nj = 1"),
            ("only key", "[a]\nk = 1\n[b]\n", "a/k", None, "[a]\n[b]\n"),
        ],
    );
    check(
        Format::Toml,
        &[
            ("line", "[a]\nj = 1\nk = 2 # two\n# end", "a/K", None, "[a]\nj = 1\n# two\n# end"),
            ("list", "[a]\nk = [\n  1,\n]\nj = 1", "a/k", None, "[a]\nj = 1"),
            ("last line", "[a]\r\nj = 1\r\nk = 2", "a/k", None, "[a]\r\nj = 1"),
            (
                "variable",
                "[a]\nenvironment = { A = '1', B = '2', C = '3' }\n",
                "a/environment.B",
                None,
                "[a]\nenvironment = { A = '1', C = '3' }\n",
            ),
            (
                "first variable",
                "[a]\nenvironment = { A = '1', B = '2' }\n",
                "a/environment.A",
                None,
                "[a]\nenvironment = { B = '2' }\n",
            ),
            ("last one", "[a]\nenvironment.A = '1'\n", "a/environment.A", None, "[a]\n"),
        ],
    );
    for (format, text) in [(Format::Ini, "[a]\nk=1"), (Format::Toml, "[a]\nk=1")] {
        for place in ["a/j", "b/k", "DEFAULT/k"] {
            let error = changed(format, text, place, None, false).expect_err("nothing is there");
            assert!(error.message.contains("one that is not there"), "{error}");
        }
    }
}

#[test]
fn a_key_of_the_application_has_one_name_in_an_ini_file() {
    check(
        Format::Ini,
        &[
            ("old", "[a]\napp_X = 1\n", "a/app.x", Some("2"), "[a]\napp_X = 2\n"),
            ("new", "[a]\n", "a/App.x", Some("2"), "[a]\napp_x = 2\n"),
            ("removed", "[a]\napp_x = 1\n", "a/app.X", None, "[a]\n"),
        ],
    );
}

#[test]
fn lines_of_keys_are_known() {
    let toml = "\u{feff}[a.environment]\nA = '1'\n\n[a]\nk = [\n1]\napp_x = 1\n";
    let line = |key| line_of(toml, Format::Toml, "a", key);
    let found = [line("environment.A"), line("K"), line("app.X"), line("environment.a")];
    assert_eq!(found, [Some(2), Some(5), Some(7), None]);
    let ini = "[DEFAULT]\rx = 1\r[a]\rapp_x = 2\r";
    assert_eq!(line_of(ini, Format::Ini, "a", "app.x"), Some(4));
    assert_eq!(line_of(ini, Format::Ini, "DEFAULT", "X"), Some(2));
}

#[test]
fn what_would_not_read_back_is_refused() {
    let rows = [
        (Format::Ini, "[a]", "a/k", " x", "white space at the ends"),
        (Format::Ini, "[a]", "a/k", "x\u{85}", "white space at the ends"),
        (Format::Ini, "[a]", "a/k", "x\n y", "white space at the ends"),
        (Format::Ini, "[a]", "a/k", "x\n", "blank lines at the end"),
        (Format::Ini, "[a]", "a/k", "x\n#y", "is a comment"),
        (Format::Ini, "[a]", "a/k", "x ; y", "is a comment"),
        (Format::Ini, "[a]", "a/k", "x\ry", "carriage return"),
        (Format::Ini, "[a]", "a/k", "\0", "got a NUL character in the value"),
        (Format::Ini, "[a]", "a/k=", "x", "which ends a key"),
        (Format::Ini, "[a]", "a/[k", "x", "like a section header"),
        (Format::Ini, "[a]", "a/;k", "x", "like a comment"),
        (Format::Ini, "[a]", "a/k ", "x", "white space at its ends"),
        (Format::Ini, "[a]", "a/", "x", "expected a key on one line, got nothing"),
        (Format::Ini, "[a]", "/k", "x", "expected a section name on one line, got nothing"),
        (Format::Ini, "[a]", "a\nb/k", "x", "got \"a\\nb\""),
        (Format::Ini, "[a]\nx", "a/k", "x", "in line 2: expected `key = value`"),
        (Format::Toml, "[a]\nx\n", "a/k", "x", "in line 2: "),
        (Format::Toml, "[a]", "a/k\r", "x", "got \"k\\r\""),
        (Format::Toml, "[a]\nk = 1\nK = 2", "a/k", "x", "got \"k\" and \"K\""),
        (Format::Toml, "[[a]]\nk = 1", "a/k", "x", "to be a table, got array of tables"),
        (Format::Toml, "[a.environment]", "a/environment", "x", "got a table"),
        (Format::Toml, "[a]\nenvironment = 'A=1'", "a/environment.A", "2", "got string"),
        (Format::Toml, "[a]\ncommand = ['x']", "a/command", "'x", "expected words"),
        (
            Format::Toml,
            "[a]\ncommand = ['x']",
            "a/command",
            "x # y",
            "follows the `#` is a comment",
        ),
        (Format::Toml, "[a]\nenvironment = {\n# c\n}", "a/environment.A", "2", "with comments"),
        (Format::Ini, "[a]", "a/environment.A", "2", "got one variable of `environment`"),
        (Format::Toml, "a.k = 1", "a/environment.A", "2", "got dotted keys"),
    ];
    for (format, text, place, value, reason) in rows {
        let error = changed(format, text, place, Some(value), true).expect_err(reason);
        let shown = error.to_string();
        assert!(shown.contains(reason), "{shown}");
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(!error.mend.contains("bug"), "{shown}");
    }
    let error = changed(Format::Ini, "[a]", "a/k", Some("x\n#y"), false).expect_err("a comment");
    assert_eq!(
        error.at("app.ini".as_ref()).to_string(),
        "app.ini: [a] k: expected a value that an INI file can hold, got \"x\\n#y\": a line that \
         begins with `#` or `;` is a comment\n    begin the line with something else"
    );
    let long = "x".repeat(1024 * 1024);
    let error = changed(Format::Ini, "[a]", "a/k", Some(&long), false).expect_err("too long");
    assert!(error.message.starts_with("expected at most 1048576 bytes"), "{error}");
}
