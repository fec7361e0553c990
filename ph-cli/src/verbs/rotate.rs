//! `rotate`: the logs of a service are rotated now, whatever their limits say.
//!
//! That needs no master: whoever writes to the log takes turns with this process, sees that the
//! name leads to another file, and follows.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use ph_config::Settings;
use ph_log::{LogError, LogReader, RotateLimits, RotateOptions, RotatingFile};
use serde_json::json;

use super::config::Opened;
use super::logs::{files, one_file};
use crate::args::Rotate;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, SCHEMA};
use crate::wire::limits;

/// What became of a log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Rotated,
    Empty,
    /// There is none.
    Missing,
}

/// Rotates the logs of a section.
pub(crate) fn rotate(args: &Rotate) -> Result<ExitCode, Failure> {
    let opened = Opened::new(&args.source)?;
    let section = opened.section(args.section.name())?;
    let settings = opened.load_one(section, &args.source)?;
    let files = files(&settings)?;
    let mut warnings = Vec::new();
    let limits = limits(&settings, &mut warnings);
    warnings.iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    let mut done = Vec::new();
    for log in &files {
        let outcome = rotate_file(log, &limits).map_err(|error| refused(&settings, log, &error))?;
        done.push((log.display().to_string(), outcome));
    }
    if done.iter().all(|(_, outcome)| *outcome == Outcome::Missing) {
        return Err(refused(&settings, &files[0], &io::Error::other("there is no such log")));
    }
    done.retain(|(_, outcome)| *outcome != Outcome::Missing);
    let has_backups = limits.backups > 0;
    match args.json {
        true => print_json(section, &done, has_backups)?,
        false => print(section, &done, has_backups)?,
    }
    Ok(Exit::Ok.into())
}

fn refused(settings: &Settings, log: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() == io::ErrorKind::PermissionDenied {
        true => Exit::NotPermitted,
        false => Exit::Failed,
    };
    let is_main = one_file(settings).is_ok_and(|main| main == log);
    let key = if is_main { "log_file" } else { "worker_log_file" };
    let failure = Failure::new(code, error.to_string());
    let failure = failure.attempt(format!("cannot rotate {}", log.display()));
    let failure = failure.value(settings.origin(key), key);
    match error.kind() == io::ErrorKind::WouldBlock {
        true => failure.remedy(format!("see who keeps it: fuser {}", lock_of(log))),
        false => failure,
    }
}

fn print(section: &str, done: &[(String, Outcome)], has_backups: bool) -> Result<(), Failure> {
    for (log, outcome) in done {
        let what = match outcome {
            Outcome::Rotated if has_backups => format!("has become {log}.1"),
            Outcome::Rotated => "was deleted, as log_backups = 0 wants it".to_owned(),
            Outcome::Empty => "is empty, so it was not rotated".to_owned(),
            Outcome::Missing => "is not there".to_owned(),
        };
        output::print_escaped(&format!("{section}: {log} {what}"))?;
    }
    Ok(())
}

fn print_json(section: &str, done: &[(String, Outcome)], has_backups: bool) -> Result<(), Failure> {
    let file = |(log, outcome): &(String, Outcome)| {
        let is_rotated = *outcome == Outcome::Rotated;
        let backup = (is_rotated && has_backups).then(|| format!("{log}.1"));
        json!({"log": log, "rotated": is_rotated, "backup": backup})
    };
    let files: Vec<_> = done.iter().map(file).collect();
    output::print_json(&json!({"schema": SCHEMA, "service": section, "files": files}))
}

/// Rotates a log. What is empty is not rotated, and what is not there is not made.
fn rotate_file(log: &Path, limits: &RotateLimits) -> io::Result<Outcome> {
    if !LogReader::open(log)?.exists()? {
        return Ok(Outcome::Missing);
    }
    let is_rotated = match RotatingFile::open(RotateOptions::new(log, limits.clone())) {
        Ok(mut file) => file.rotate_now()?,
        // Which file it is is said already.
        Err(LogError::File { source, .. }) => return Err(source),
        Err(error) => return Err(error.into()),
    };
    Ok(if is_rotated { Outcome::Rotated } else { Outcome::Empty })
}

fn lock_of(log: &Path) -> String {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    log.with_file_name(format!(".{name}.lock")).display().to_string()
}
