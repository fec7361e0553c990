//! Variables for the workers: what `environment` may hold, and which files `env_file` names.
//!
//! `environment` is written as in supervisord: `KEY=value, OTHER="a, b"`, by commas or by lines.
//! Supervisord guesses at quotes inside a value; here a value is quoted as a whole or not at all,
//! so no text can be read in two ways. The order of things counts: `%(name)s` is replaced before
//! this is read, so a value inserted that way needs quotes around it if it may hold a comma.
//!
//! Names are checked here for both keys. What the master tells its workers through variables must
//! not be told by anybody else.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use super::path::file;
use super::{Folders, Kind, Schema, Shape, ValueError, listed};
use crate::error::shown;

/// How many variables one key may set.
pub(crate) const MAX_VARIABLES: usize = 1024;
/// The longest `NAME=value` that Linux hands to a program, in bytes, less the NUL at its end.
const MAX_LENGTH: usize = 128 * 1024 - 1;
/// How many files `env_file` may name.
const MAX_FILES: usize = 64;
/// How the names begin by which a master and its workers speak to one another.
const RESERVED: [&str; 3] = ["PH_", "LISTEN_", "WATCHDOG_"];

pub(crate) const ENVIRONMENT: Kind<Vec<(String, String)>> = Kind {
    name: "list of NAME=value",
    shape: Shape::Pairs,
    schema: Schema::Map,
    parse: |text, _| environment(text),
    write: |all| variables(all),
};

pub(crate) const ENV_FILES: Kind<Vec<EnvFile>> = Kind {
    name: "list of paths",
    shape: Shape::Lines,
    schema: Schema::List { of: &Schema::Path, word: None },
    parse: files,
    write: |all| listed(all, EnvFile::to_string),
};

/// One file of `env_file`.
///
/// Prints in the form it is written in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EnvFile {
    /// Its absolute path.
    pub path: PathBuf,
    /// Whether it may be missing: `-` before the path, as in systemd's `EnvironmentFile`.
    pub optional: bool,
}

impl fmt::Display for EnvFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.optional { "-" } else { "" }, self.path.display())
    }
}

fn environment(text: &str) -> Result<Vec<(String, String)>, ValueError> {
    let mut all = Vec::new();
    let mut names = BTreeSet::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
        if rest.is_empty() {
            return Ok(all);
        }
        let (name, value, after) = variable(rest)?;
        if let Err(ValueError { expected, mend }) = check(name, &value) {
            return Err(ValueError::new(format!("{expected} (this has {})", shown(name)), mend));
        }
        if !names.insert(name) {
            let expected = format!("different names (this has {} twice)", shown(name));
            return Err(ValueError::new(expected, "set each variable once"));
        }
        if all.len() == MAX_VARIABLES {
            let expected = format!("at most {MAX_VARIABLES} variables");
            return Err(ValueError::new(expected, "set fewer variables"));
        }
        all.push((name.to_owned(), value));
        rest = after;
    }
}

/// Splits `NAME=value, …` into name, value and what follows them.
fn variable(text: &str) -> Result<(&str, String, &str), ValueError> {
    let end = |text: &str| text.find([',', '\n']).unwrap_or(text.len());
    let item = &text[..end(text)];
    let Some((name, value)) = item.split_once('=') else {
        let expected = format!("NAME=value (this has {})", shown(item.trim_end()));
        return Err(ValueError::new(expected, "put quotes around a value that holds a comma"));
    };
    // A quoted value may go on after the comma.
    let rest = trim_blanks(&text[item.len() - value.len()..]);
    let name = name.trim_end();
    if rest.starts_with(['"', '\'']) {
        let (value, after) = quoted(rest).ok_or_else(|| {
            let expected = format!("a closing quote (this has none for {})", shown(name));
            ValueError::new(expected, "close the quote; within double quotes \\\" is a quote")
        })?;
        let after = trim_blanks(after);
        if after.is_empty() || after.starts_with([',', '\n']) {
            return Ok((name, value, after));
        }
    } else {
        let (value, after) = rest.split_at(end(rest));
        if !value.contains(['"', '\'']) {
            return Ok((name, value.trim_end().to_owned(), after));
        }
    }
    let expected =
        format!("a value in quotes as a whole, or without any (this has {})", shown(name));
    Err(ValueError::new(expected, "put quotes around the whole value, and a comma after it"))
}

/// Splits text that begins with a quote into what is quoted and what follows; `None` if the quote
/// is not closed. Within double quotes `\"` and `\\` are escapes, within single ones nothing is.
pub(crate) fn quoted(text: &str) -> Option<(String, &str)> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next()?;
    let mut value = String::new();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((value, &text[at + c.len_utf8()..]));
        }
        let escaped = quote == '"' && c == '\\' && text[at + 1..].starts_with(['"', '\\']);
        value.push(if escaped { chars.next()?.1 } else { c });
    }
    None
}

/// The variables as one text that is read as the same ones.
pub(crate) fn variables(all: &[(String, String)]) -> String {
    listed(all, |(name, value)| format!("{name}={}", in_quotes_if_needed(value)))
}

/// The value as [`variable`] reads it.
fn in_quotes_if_needed(value: &str) -> String {
    let plain = value.trim() == value && !value.contains([',', '\n', '"', '\'']);
    if plain {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Without the white space before it, up to the end of the line.
fn trim_blanks(text: &str) -> &str {
    text.trim_start_matches(|c: char| c != '\n' && c.is_whitespace())
}

/// Whether a worker can be given this variable.
pub(crate) fn check(name: &str, value: &str) -> Result<(), ValueError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.bytes().all(good)
    {
        let mend = "begin it with a letter or `_`, and use letters, digits and `_` only";
        return Err(ValueError::new("the name of a variable", mend));
    }
    if name == "NOTIFY_SOCKET" || RESERVED.iter().any(|start| name.starts_with(start)) {
        let mend = "take it out: the master sets these itself";
        return Err(ValueError::new("a variable that is not the master's", mend));
    }
    if name.len() + "=".len() + value.len() > MAX_LENGTH {
        let expected = format!("a variable of at most {MAX_LENGTH} bytes");
        return Err(ValueError::new(expected, "put the value into a file, and its path here"));
    }
    Ok(())
}

fn files(text: &str, folders: &Folders) -> Result<Vec<EnvFile>, ValueError> {
    let mut all = Vec::new();
    for item in text.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty()) {
        if all.len() == MAX_FILES {
            let expected = format!("at most {MAX_FILES} files");
            return Err(ValueError::new(expected, "name fewer files"));
        }
        let (path, optional) = match item.strip_prefix('-') {
            Some(path) => (path.trim_start(), true),
            None => (item, false),
        };
        all.push(EnvFile { path: file(path, folders)?, optional });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_as_in_supervisord() {
        let read = |text| {
            let all = environment(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            all.iter().map(|(name, value)| format!("{name}=<{value}>")).collect::<String>()
        };
        for (text, expected) in [
            ("", ""),
            (",\n,", ""),
            ("A=1", "A=<1>"),
            ("A=1,B=2 , _c3 = x y ,\n", "A=<1>B=<2>_c3=<x y>"),
            ("A=\nB=,C=''", "A=<>B=<>C=<>"),
            ("A=a=b;c # d", "A=<a=b;c # d>"),
            ("A=\"a, b\",B='c\nd'", "A=<a, b>B=<c\nd>"),
            (r#"A="\"\\\n'""#, r#"A=<"\\n'>"#),
            (r#"A='\"\\'"#, r#"A=<\"\\>"#),
            ("A=%(slot)s,B=\"日,本\"", "A=<%(slot)s>B=<日,本>"),
            ("A=\" 1 \"\n\n  B=2", "A=< 1 >B=<2>"),
            (
                "phx=1,PHX=2,LISTENER=3,NOTIFY_SOCKET_2=4",
                "phx=<1>PHX=<2>LISTENER=<3>NOTIFY_SOCKET_2=<4>",
            ),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn variables_that_are_none() {
        for (bad, expected) in [
            ("A", "NAME=value (this has \"A\")"),
            ("A=a,b", "NAME=value (this has \"b\")"),
            ("=1", "the name of a variable (this has nothing)"),
            ("1A=1", "the name of a variable (this has \"1A\")"),
            ("A-B=1", "the name of a variable (this has \"A-B\")"),
            ("export A=1", "the name of a variable (this has \"export A\")"),
            ("É=1", "the name of a variable"),
            ("A%(slot)s=1", "the name of a variable"),
            ("A=1,B=2,A=1", "different names (this has \"A\" twice)"),
            ("A=\"x", "a closing quote (this has none for \"A\")"),
            ("A=\"x\\\"", "a closing quote"),
            ("A='x\\'y'", "a value in quotes as a whole, or without any (this has \"A\")"),
            ("A=\"x\"y", "a value in quotes as a whole"),
            ("A=\"x\" B=1", "a value in quotes as a whole"),
            ("A=it's", "a value in quotes as a whole"),
            ("PH_SLOT=1", "a variable that is not the master's (this has \"PH_SLOT\")"),
            ("LISTEN_FDS=1", "a variable that is not the master's"),
            ("WATCHDOG_USEC=1", "a variable that is not the master's"),
            ("NOTIFY_SOCKET=1", "a variable that is not the master's"),
        ] {
            let error = environment(bad).expect_err(bad);
            assert!(error.expected.starts_with(expected), "{bad}: {error}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let count = |count: usize| (0..count).map(|n| format!("A{n}=,")).collect::<String>();
        assert_eq!(environment(&count(MAX_VARIABLES)).map(|all| all.len()), Ok(MAX_VARIABLES));
        assert!(environment(&count(MAX_VARIABLES + 1)).is_err());
        assert!(check("A", &"x".repeat(MAX_LENGTH - 2)).is_ok());
        assert!(check("A", &"x".repeat(MAX_LENGTH - 1)).is_err());
        let folders = Folders { here: "/etc".into(), base: "/srv".into() };
        assert!(files(&"a,".repeat(MAX_FILES), &folders).is_ok());
        assert!(files(&"a,".repeat(MAX_FILES + 1), &folders).is_err());
    }

    #[test]
    fn lists_of_files() {
        let folders = Folders { here: "/etc".into(), base: "/srv".into() };
        let all = files("a.env, -/b.env\n- c.env, ./-d,", &folders).expect("they are paths");
        let seen: Vec<_> =
            all.iter().map(|file| (file.path.to_str().unwrap_or(""), file.optional)).collect();
        let expected =
            [("/srv/a.env", false), ("/b.env", true), ("/srv/c.env", true), ("/srv/-d", false)];
        assert_eq!(seen, expected);
        for bad in ["-", "run/", "~/x", "a,-~/b"] {
            assert!(files(bad, &folders).is_err(), "{bad}");
        }
    }
}
