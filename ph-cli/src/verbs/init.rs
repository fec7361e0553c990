//! `init`: a template of every setting.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use ph_config::{Escaped, Format, reference};
use serde_json::json;

use crate::args::Init;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, SCHEMA};

/// Prints the template, or writes it to a file that is not there yet.
pub(crate) fn init(args: &Init) -> Result<ExitCode, Failure> {
    let format = match &args.file {
        _ if args.toml => Format::Toml,
        Some(file) => Format::of(file),
        None => Format::Ini,
    };
    let text = reference::template(format);
    let Some(file) = args.file.as_deref().filter(|file| *file != Path::new("-")) else {
        if args.json {
            return print_json(&text, None);
        }
        output::print(&text)?;
        if io::stdout().is_terminal() {
            output::note("to write it to a file: ph init FILE");
        }
        return Ok(Exit::Ok.into());
    };
    if format != Format::of(file) {
        let what = format!("cannot write TOML to {}: its name says INI", file.display());
        return Err(Failure::new(Exit::Usage, what).remedy("a name that ends in .toml"));
    }
    write_new(file, &text).map_err(|error| {
        let failure =
            Failure::new(Exit::Failed, format!("cannot write {}: {error}", file.display()));
        if error.kind() == io::ErrorKind::AlreadyExists {
            return failure.remedy("another name; nothing is overwritten");
        }
        failure
    })?;
    if args.json {
        return print_json(&text, Some(file));
    }
    let shown = Escaped(&file.to_string_lossy()).to_string();
    output::note(&format!("{shown} written; edit [web] in it, then: ph check -c {shown}"));
    Ok(Exit::Ok.into())
}

fn print_json(text: &str, file: Option<&Path>) -> Result<ExitCode, Failure> {
    let file = file.map(|file| file.to_string_lossy());
    output::print_json(&json!({"schema": SCHEMA, "file": file, "text": text}))?;
    Ok(Exit::Ok.into())
}

/// All of it or nothing.
fn write_new(file: &Path, text: &str) -> io::Result<()> {
    let mut opened = OpenOptions::new().write(true).create_new(true).open(file)?;
    let written = opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all());
    if written.is_err() {
        // Whoever looks next must not take half a file for a whole one.
        let _ = std::fs::remove_file(file);
    }
    written
}
