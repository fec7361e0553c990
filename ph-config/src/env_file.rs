//! The files that `env_file` names: `NAME=value`, one a line.
//!
//! The form is what systemd, docker and shells have in common. A line may begin with `export`; a
//! line that begins with `#` or `;` is a comment, and nothing after a value is one. A value may be
//! quoted as a whole; without quotes it is taken as it is, backslashes and later quotes included.
//! No value goes over several lines and none is interpolated. A name that is set again, by the
//! same file or by a later one, takes the later value.
//!
//! Secrets live in these files, so a message names a variable and never repeats its value.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::error::{Origin, Place, Problem, Report, shown};
use crate::layers::Raw;
use crate::read::{Purpose, read};
use crate::trust::ForeignWriters;
use crate::value::{EnvFile, MAX_VARIABLES, ValueError, check_variable, quoted};

/// Reads all files; `raw` is the value of `env_file`, for what concerns a file as a whole.
pub(crate) fn read_all(
    files: &[EnvFile],
    raw: &Raw,
    foreign_writers: ForeignWriters,
    report: &mut Report,
) -> Vec<(String, String)> {
    let mut variables = Variables::default();
    for EnvFile { path, optional } in files {
        if *optional && is_missing(path) {
            continue;
        }
        match read(path, path, &Purpose::VARIABLES, foreign_writers, report) {
            Ok(text) => variables.add(&text, path, report),
            Err(problem) => report.error(problem.within(&raw.origin, &raw.section, "env_file")),
        }
    }
    variables.all
}

fn is_missing(path: &Path) -> bool {
    path.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[derive(Default)]
struct Variables {
    /// In the order in which their names came first.
    all: Vec<(String, String)>,
    /// Where each name is in that list.
    index: BTreeMap<String, usize>,
}

impl Variables {
    fn add(&mut self, text: &str, path: &Path, report: &mut Report) {
        for (index, line) in text.lines().enumerate() {
            let added = match parse(line) {
                Ok(Some((name, value))) => self.set(name, value),
                Ok(None) => Ok(()),
                Err(fault) => Err(fault),
            };
            if let Err(Fault { error, got }) = added {
                report.error_by(|| {
                    let origin = Origin::File { path: path.to_owned(), line: index + 1 };
                    let message = format!("expected {}, got {got}", error.expected);
                    Problem::new(Place::Value(origin), message, error.mend)
                });
            }
        }
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Fault> {
        if let Some(index) = self.index.get(name) {
            self.all[*index].1 = value;
            return Ok(());
        }
        if self.all.len() == MAX_VARIABLES {
            let expected = format!("at most {MAX_VARIABLES} variables in all files");
            let error = ValueError::new(expected, "set fewer variables");
            return Err(Fault { error, got: format!("{} as one more", shown(name)) });
        }
        self.index.insert(name.to_owned(), self.all.len());
        self.all.push((name.to_owned(), value));
        Ok(())
    }
}

/// What is wrong with a line, and which part of it, in words that tell no secret.
#[derive(Debug)]
struct Fault {
    error: ValueError,
    got: String,
}

/// The variable of a line, if it is not blank and no comment.
fn parse(line: &str) -> Result<Option<(&str, String)>, Fault> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return Ok(None);
    }
    let exported = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
    let Some((name, value)) = exported.unwrap_or(line).split_once('=') else {
        let mend = "write NAME=value on one line; a comment begins with `#`";
        let error = ValueError::new("NAME=value", mend);
        return Err(Fault { error, got: "a line without `=`".to_owned() });
    };
    let (name, value) = (name.trim(), value.trim_start());
    let value = if value.starts_with(['"', '\'']) {
        match quoted(value) {
            Some((value, "")) => value,
            Some(_) => {
                let mend = "quote the whole value, and put a comment on a line of its own";
                let error = ValueError::new("nothing after the closing quote", mend);
                return Err(Fault { error, got: format!("more in {}", shown(name)) });
            }
            None => {
                let mend = "close the quote; within double quotes \\\" is a quote";
                let error = ValueError::new("a closing quote on the same line", mend);
                return Err(Fault { error, got: format!("none in {}", shown(name)) });
            }
        }
    } else {
        value.to_owned()
    };
    match check_variable(name, &value) {
        Ok(()) => Ok(Some((name, value))),
        Err(error) => Err(Fault { error, got: shown(name) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (line, expected) in [
            ("A=1", Some(("A", "1"))),
            ("  export \tA = a b  ", Some(("A", "a b"))),
            ("export=1", Some(("export", "1"))),
            ("A=", Some(("A", ""))),
            ("A= # not a comment", Some(("A", "# not a comment"))),
            ("A=a#b;c, d=e", Some(("A", "a#b;c, d=e"))),
            ("A=it's \"so\" \\n", Some(("A", "it's \"so\" \\n"))),
            (r#"A=" \"q\" \\ \n ' ""#, Some(("A", r#" "q" \ \n ' "#))),
            ("A='\\\"#'", Some(("A", "\\\"#"))),
            ("A=%(slot)s%", Some(("A", "%(slot)s%"))),
            ("A=1\r", Some(("A", "1"))),
            ("", None),
            (" # A=1", None),
            (";A=1", None),
        ] {
            let variable = parse(line).unwrap_or_else(|fault| panic!("{line}: {fault:?}"));
            let variable = variable.as_ref().map(|(name, value)| (*name, value.as_str()));
            assert_eq!(variable, expected, "{line}");
        }
    }

    #[test]
    fn faults_tell_no_secret() {
        for bad in [
            "secret",
            "export secret",
            "A=\"secret",
            "A='secret' x",
            "A=\"secret\"#",
            "1=secret",
            "=secret",
            "A B=secret",
            "exportA B=secret",
            "PH_SLOT=secret",
            "NOTIFY_SOCKET=secret",
        ] {
            let Fault { error, got } = parse(bad).expect_err(bad);
            assert!(!format!("{error} {got}").contains("secret"), "{bad}: {error} {got}");
        }
    }
}
