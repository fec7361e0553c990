//! How lines are shown: for people, with the section before them if there are several, or as one
//! JSON object a line.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Stdout, Write as _};
use std::path::PathBuf;

use ph_config::Escaped;
use serde_json::Value;

use super::Line;
use super::parts::Parts;
use crate::args::Logs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, SCHEMA};

/// Why nothing more is shown.
pub(super) enum Ended {
    /// Nobody reads any more.
    Closed,
    Failed(Failure),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Closed;
        }
        Self::Failed(Failure::new(Exit::Failed, format!("cannot write to stdout: {error}")))
    }
}

/// The lines on their way out.
pub(super) struct Show {
    out: BufWriter<Stdout>,
    /// The section of each log.
    names: Vec<String>,
    paths: Vec<PathBuf>,
    /// How wide the sections are; none if there is one only.
    width: Option<usize>,
    is_json: bool,
    is_coloured: bool,
    has_trouble: bool,
    text: String,
}

impl Show {
    pub(super) fn new(args: &Logs, names: Vec<String>, paths: Vec<PathBuf>) -> Self {
        let shown = names.iter().map(|name| Escaped(name).to_string());
        let names: Vec<String> = if args.json { names } else { shown.collect() };
        let is_one = names.iter().all(|name| *name == names[0]);
        let width = names.iter().map(|name| name.chars().count()).max();
        Self {
            // A terminal gets each line at once, because the wait for the next one is a flush.
            out: BufWriter::new(io::stdout()),
            width: width.filter(|_| !is_one),
            names,
            paths,
            is_json: args.json,
            is_coloured: args.color.on_stdout(),
            has_trouble: false,
            text: String::new(),
        }
    }

    pub(super) fn has_trouble(&self) -> bool {
        self.has_trouble
    }

    /// Shows one line.
    pub(super) fn line(&mut self, (number, line): &Line) -> Result<(), Ended> {
        let line = String::from_utf8_lossy(line);
        self.text.clear();
        match self.is_json {
            true => self.json(*number, &line),
            false => self.plain(*number, &line),
        }
        self.text.push('\n');
        Ok(self.out.write_all(self.text.as_bytes())?)
    }

    /// Hands over what is waiting.
    pub(super) fn flush(&mut self) -> Result<(), Ended> {
        Ok(self.out.flush()?)
    }

    /// Says something about one of the logs, to people.
    pub(super) fn tell(&mut self, number: usize, what: &str) -> Result<(), Ended> {
        self.flush()?;
        output::note(&format!(
            "warning: {} {what}",
            Escaped(&self.paths[number].to_string_lossy())
        ));
        Ok(())
    }

    /// Says that a file could not be read.
    pub(super) fn trouble(&mut self, what: &str) -> Result<(), Ended> {
        self.flush()?;
        self.has_trouble = true;
        output::note(&format!("warning: cannot read {}", Escaped(what)));
        Ok(())
    }

    fn plain(&mut self, number: usize, line: &str) {
        let colour = if self.is_coloured { colour_of(line) } else { "" };
        if let Some(width) = self.width {
            let (start, end) = if self.is_coloured { ("\x1b[36m", "\x1b[0m") } else { ("", "") };
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{start}{:width$} |{end} ", self.names[number]);
        }
        self.text.push_str(colour);
        escape(&mut self.text, line, |c| c != '\t' && is_unsafe(c), |c| format!("\\u{{{c:x}}}"));
        self.text.push_str(if colour.is_empty() { "" } else { "\x1b[0m" });
    }

    fn json(&mut self, number: usize, line: &str) {
        let mut object = Parts::of(line).object;
        object.insert("schema".to_owned(), SCHEMA.into());
        object.insert("section".to_owned(), Value::from(self.names[number].as_str()));
        // In JSON these can stand in strings only.
        let json = Value::Object(object).to_string();
        escape(&mut self.text, &json, is_unsafe, |c| format!("\\u{c:04x}"));
    }
}

fn colour_of(line: &str) -> &'static str {
    match Parts::of(line).level.as_deref() {
        Some("ERROR") => "\x1b[31m",
        Some("WARN") => "\x1b[33m",
        Some("DEBUG" | "TRACE") => "\x1b[2m",
        Some(_) | None => "",
    }
}

/// Appends a text with some characters in another form.
fn escape(
    into: &mut String,
    text: &str,
    is_escaped: impl Fn(char) -> bool,
    form: impl Fn(u32) -> String,
) {
    for c in text.chars() {
        match is_escaped(c) {
            true => into.push_str(&form(u32::from(c))),
            false => into.push(c),
        }
    }
}

/// Whether a terminal could take the character for more than a glyph.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
