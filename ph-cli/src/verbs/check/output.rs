//! What a check says: lines for people, or one object for programs.

use std::path::Path;

use ph_config::{Escaped, LogTarget, Origin, Place};
use ph_core::{Command, Running};
use serde::Serialize;

use super::{Checked, shown};
use crate::failure::Failure;
use crate::output::{self, SCHEMA};
use crate::wire::Service;

/// Problems and warnings go to stderr, section after section, and a line for each section that is as it
/// should be to stdout.
pub(super) fn print(program: &str, folder: &Path, checked: &[Checked]) -> Result<(), Failure> {
    for it in checked {
        for failure in it.outlook.problems.iter().chain(&it.outlook.warnings) {
            failure.print(program);
        }
        if let Some(service) = it.service.as_ref().filter(|_| it.is_ok()) {
            let line = ok_line(service, folder, &it.outlook.running);
            output::print(&format!("{}\n", Escaped(&line)))?;
        }
    }
    Ok(())
}

fn ok_line(service: &Service, folder: &Path, running: &[Running]) -> String {
    let settings = &service.settings;
    let workers = match settings.workers() {
        1 => "1 worker".to_owned(),
        count => format!("{count} workers"),
    };
    let what = match service.command.as_ref().and_then(Command::program) {
        Some(program) => format!("{workers} of {}", program.display()),
        None => format!("{workers} of this program"),
    };
    let log = match &settings.log_file {
        LogTarget::File(path) => format!("log {}", shown(path, folder)),
        LogTarget::Stderr => "log to stderr".to_owned(),
    };
    let running: String = running.iter().map(note).collect();
    format!("{}: ok ({what}, {log}){running}", settings.name())
}

fn note(running: &Running) -> String {
    let instance = match running.instance {
        1 => String::new(),
        instance => format!(", instance {instance}"),
    };
    match running.pid {
        Some(pid) => format!(", running as master {pid}{instance}"),
        None => format!(", running{instance}"),
    }
}

/// The whole answer.
#[derive(Serialize)]
struct Answer<'a> {
    schema: u32,
    ok: bool,
    file: Option<String>,
    problems: Vec<Entry<'a>>,
    warnings: Vec<Entry<'a>>,
    services: Vec<Verdict<'a>>,
}

/// One problem or warning.
#[derive(Serialize)]
struct Entry<'a> {
    section: Option<&'a str>,
    key: Option<&'a str>,
    file: Option<String>,
    line: Option<usize>,
    origin: Option<&'a str>,
    message: &'a str,
    remedy: Option<&'a str>,
}

/// One service.
#[derive(Serialize)]
struct Verdict<'a> {
    name: &'a str,
    ok: bool,
    running_pid: Option<i32>,
}

impl<'a> Entry<'a> {
    fn new(section: Option<&'a str>, failure: &'a Failure) -> Self {
        let (file, line) = match failure.place() {
            Some(Place::Value(Origin::File { path, line })) => (Some(path), Some(*line)),
            Some(Place::File(path) | Place::Section(path)) => (Some(path), None),
            Some(Place::Value(Origin::Default | Origin::Variable(_) | Origin::Flag(_)))
            | Some(Place::Request)
            | None => (None, None),
        };
        Self {
            section,
            key: failure.key(),
            file: file.map(|path| path.to_string_lossy().into_owned()),
            line,
            origin: failure.origin(),
            message: failure.why(),
            remedy: failure.cure(),
        }
    }
}

/// One object on stdout, and nothing else anywhere.
pub(super) fn print_json(file: Option<&Path>, checked: &[Checked]) -> Result<(), Failure> {
    let entries = |choose: fn(&Checked) -> &Vec<Failure>| {
        let all = checked.iter().flat_map(move |it| {
            choose(it).iter().map(|failure| Entry::new(it.name.as_deref(), failure))
        });
        all.collect()
    };
    let verdicts = checked.iter().filter_map(|it| {
        let running_pid = it.outlook.running.iter().find_map(|running| running.pid);
        Some(Verdict { name: it.name.as_deref()?, ok: it.is_ok(), running_pid })
    });
    let answer = Answer {
        schema: SCHEMA,
        ok: checked.iter().all(Checked::is_ok),
        file: file.map(|file| file.to_string_lossy().into_owned()),
        problems: entries(|it| &it.outlook.problems),
        warnings: entries(|it| &it.outlook.warnings),
        services: verdicts.collect(),
    };
    output::print_json(&answer)
}
