//! Words: the title of a process, what a command executes, and names of sections.

use super::{Kind, Schema, Shape, ValueError, listed};

pub(crate) const NAME: Kind<String> = Kind {
    name: "name",
    shape: Shape::Line,
    schema: Schema::Name,
    parse: |text, _| name(text),
    write: String::clone,
};

pub(crate) const COMMAND: Kind<Vec<String>> = Kind {
    name: "command line",
    shape: Shape::Words,
    schema: Schema::Command,
    parse: |text, _| command(text),
    write: |words| command_line(words.iter().map(String::as_str)),
};

pub(crate) const SECTIONS: Kind<Vec<String>> = Kind {
    name: "list of sections",
    shape: Shape::Lines,
    schema: Schema::List { of: &Schema::Section, word: None },
    parse: |text, _| sections(text),
    write: |all| listed(all, String::clone),
};

/// How many sections `depends_on` may name.
const MAX_SECTIONS: usize = 64;

/// The text that is split into exactly these words.
pub(crate) fn command_line<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    // NUL is let through here, because a load refuses it with a message of its own.
    shlex::Quoter::new().allow_nul(true).join(words).unwrap_or_default()
}

fn name(text: &str) -> Result<String, ValueError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(good) {
        return Ok(text.to_owned());
    }
    let mend = "use letters, digits, `.`, `_` and `-` only";
    Err(ValueError::new("a name of 1 to 64 characters", mend))
}

/// Splits as a POSIX shell splits words; there is no shell, so nothing else of it works.
pub(super) fn command(text: &str) -> Result<Vec<String>, ValueError> {
    let words = shlex::split(text).ok_or_else(|| {
        let mend = "close the open quote, or write \\ before a quote that is meant as such";
        ValueError::new("words with balanced quotes", mend)
    })?;
    match words.first() {
        None if !text.is_empty() => {
            let mend = "`#` starts a comment here; name the program before it";
            Err(ValueError::new("a program to execute", mend))
        }
        Some(program) if program.is_empty() => {
            Err(ValueError::new("a program to execute", "the first word must not be empty"))
        }
        _ => Ok(words),
    }
}

/// Names of sections, each once. Whether they are there is not known here.
fn sections(text: &str) -> Result<Vec<String>, ValueError> {
    let mut all: Vec<String> = Vec::new();
    for name in text.split([',', '\n']).map(str::trim).filter(|name| !name.is_empty()) {
        if all.iter().any(|known| known == name) {
            return Err(ValueError::new("each section once", "name it only once"));
        }
        if all.len() == MAX_SECTIONS {
            let expected = format!("at most {MAX_SECTIONS} sections");
            return Err(ValueError::new(expected, "depend on fewer sections"));
        }
        all.push(name.to_owned());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_split_like_a_shell() {
        let words = command("./server --name 'a b' \"c;d\" e\\ f ; g\n  h").expect("it splits");
        assert_eq!(words, ["./server", "--name", "a b", "c;d", "e f", ";", "g", "h"]);
        assert_eq!(command(""), Ok(Vec::new()));
        for bad in ["a 'b", "a \"b", "''", "# all comment"] {
            assert!(command(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_of_sections() {
        assert_eq!(
            sections(" db, a cache \n web"),
            Ok(["db", "a cache", "web"].map(str::to_owned).to_vec())
        );
        assert_eq!(sections(","), Ok(Vec::new()));
        assert!(sections("db, db").is_err());
        let many: Vec<_> = (0..=MAX_SECTIONS).map(|number| number.to_string()).collect();
        assert!(sections(&many.join(",")).is_err());
    }

    #[test]
    fn names() {
        assert_eq!(name("job.execute-2_x"), Ok("job.execute-2_x".to_owned()));
        for bad in ["", "a b", "名", "a/b", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
