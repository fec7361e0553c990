//! `config show` and `config get`: the values that hold, and why.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use ph_config::{Escaped, Origin, Settings};

use super::Opened;
use super::json::{Got, Service, Setting, Shown, all_keys};
use crate::args::{ConfigGet, ConfigShow};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// A value longer than this does not widen its column.
const WIDEST_VALUE: usize = 40;

/// Prints every value with its origin, of one section or of all.
pub(super) fn show(args: &ConfigShow) -> Result<ExitCode, Failure> {
    let opened = Opened::new(&args.source)?;
    let names = opened.sections(&args.sections)?;
    let services = opened.load(&names, &args.source)?;
    if args.json {
        let files = opened.configuration.files().map(|it| it.to_string_lossy().into_owned());
        output::print_json(&Shown::new(
            files.collect(),
            services.iter().map(Service::new).collect(),
        ))?;
        return Ok(Exit::Ok.into());
    }
    let tables: Vec<String> = services.iter().map(|settings| table(settings, args)).collect();
    output::print(&tables.join("\n"))?;
    Ok(Exit::Ok.into())
}

/// The settings of one service: key, value, origin. What is only a default is dim.
fn table(settings: &Settings, args: &ConfigShow) -> String {
    let is_default = |key: &str| settings.origin(key) == Origin::Default;
    let keys = all_keys(settings).filter(|key| !args.set_only || !is_default(key));
    let rows: Vec<(String, String)> = keys
        .map(|key| {
            let value = printable(&settings.text(&key).unwrap_or_default());
            (key, value)
        })
        .collect();
    let key_width = rows.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let values = rows.iter().map(|(_, value)| value.chars().count());
    let value_width = values.filter(|width| *width <= WIDEST_VALUE).max().unwrap_or(0);
    let (bold, dim, plain) = match args.color.on_stdout() {
        true => ("\x1b[1m", "\x1b[2m", "\x1b[0m"),
        false => ("", "", ""),
    };
    let mut text = format!("{bold}[{}]{plain}\n", printable(settings.name()));
    for (key, value) in rows {
        let origin = settings.origin(&key);
        let lost = if args.verbose { settings.overridden(&key) } else { &[] };
        let key = printable(&key);
        let (start, end) = if origin == Origin::Default { (dim, plain) } else { ("", "") };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{start}{key:key_width$}  {value:value_width$}  {origin}{end}");
        for lost in lost {
            let value = printable(&lost.text);
            let _ = writeln!(
                text,
                "{dim}{:key_width$}  {value:value_width$}  {} (overridden){plain}",
                "", lost.origin
            );
        }
    }
    text
}

/// Without what would leave the line or steer the terminal.
fn printable(text: &str) -> String {
    if text.is_empty() { "(not set)".to_owned() } else { Escaped(text).to_string() }
}

/// Prints one value, as it is.
pub(super) fn get(args: &ConfigGet) -> Result<ExitCode, Failure> {
    let opened = Opened::new(&args.source)?;
    let section = opened.section(args.section.name())?;
    let loaded = opened.load(&[section], &args.source)?;
    let settings = &loaded[0];
    let key = ph_config::normalise_key(args.key.trim());
    let Some(value) = value(settings, &key) else { return Err(unknown(settings, &key)) };
    if args.json {
        let setting = Setting::with_value(settings, &key, value);
        let service = settings.name().to_owned();
        output::print_json(&Got { schema: output::SCHEMA, service, setting })?;
    } else {
        // A program gets the value as it is; a terminal is not to be steered by one.
        let value = if io::stdout().is_terminal() { Escaped(&value).to_string() } else { value };
        output::print(&format!("{value}\n"))?;
    }
    Ok(Exit::Ok.into())
}

/// The text of a setting; of `environment.NAME` that of one variable.
fn value(settings: &Settings, key: &str) -> Option<String> {
    match key.strip_prefix("environment.") {
        Some(name) => {
            let mut all = settings.environment.iter();
            all.find(|(known, _)| known == name).map(|(_, value)| value.clone())
        }
        None => settings.text(key),
    }
}

fn unknown(settings: &Settings, key: &str) -> Failure {
    let own: Vec<String> = all_keys(settings).collect();
    let what = format!("no setting is called {}", printable(key));
    let failure = Failure::new(Exit::Failed, what);
    match ph_config::nearest(key, own.iter().map(String::as_str)) {
        Some(near) => failure.remedy(format!("{near}; ph config show prints all")),
        None => failure.remedy("ph config show prints all"),
    }
}
