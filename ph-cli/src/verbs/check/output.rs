//! What a check says: lines for people, or one object for programs.

use std::path::Path;

use ph_config::{Escaped, LogTarget};
use ph_core::{Command, Running};
use serde::Serialize;

use super::{Checked, Finding, shown};
use crate::failure::{Failure, file_and_line};
use crate::output::{self, SCHEMA};
use crate::wire::Service;

/// Problems and warnings go to stderr, section after section, and a line for each section that is as it
/// should be to stdout.
pub(super) fn print(
    program: &str,
    folder: &Path,
    checked: &[Checked],
    findings: &[Finding],
) -> Result<(), Failure> {
    for finding in findings {
        finding.failure.print(program);
    }
    for it in checked.iter().filter(|it| it.is_ok) {
        if let Some(service) = &it.service {
            let line = ok_line(service, folder, &it.running);
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
    /// The first of `sections`.
    section: Option<&'a str>,
    /// All that it concerns; none if it is about the file.
    sections: Vec<&'a str>,
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
    /// The first pid of `running`.
    running_pid: Option<i32>,
    running: Vec<Instance>,
}

/// One master that runs.
#[derive(Serialize)]
struct Instance {
    instance: u32,
    pid: Option<i32>,
}

impl<'a> Entry<'a> {
    fn new(finding: &'a Finding, checked: &'a [Checked]) -> Self {
        let failure = &finding.failure;
        let sections = finding.sections.iter().map(|number| checked[*number].name.as_str());
        let sections: Vec<_> = sections.collect();
        let (file, line) = failure.place().map_or((None, None), file_and_line);
        Self {
            section: sections.first().copied(),
            sections,
            key: failure.key(),
            file,
            line,
            origin: failure.origin(),
            message: failure.why(),
            remedy: failure.cure(),
        }
    }
}

/// One object on stdout, and nothing else anywhere.
pub(super) fn print_json(
    file: Option<&Path>,
    checked: &[Checked],
    findings: &[Finding],
) -> Result<(), Failure> {
    let entries = |is_warning: bool| {
        let all = findings.iter().filter(|it| it.is_warning == is_warning);
        all.map(|it| Entry::new(it, checked)).collect::<Vec<_>>()
    };
    let verdicts = checked.iter().map(|it| {
        let running_pid = it.running.iter().find_map(|running| running.pid);
        let running = it.running.iter();
        let running = running.map(|it| Instance { instance: it.instance, pid: it.pid }).collect();
        Verdict { name: &it.name, ok: it.is_ok, running_pid, running }
    });
    let (problems, warnings) = (entries(false), entries(true));
    let answer = Answer {
        schema: SCHEMA,
        ok: problems.is_empty(),
        file: file.map(|file| file.to_string_lossy().into_owned()),
        problems,
        warnings,
        services: verdicts.collect(),
    };
    output::print_json(&answer)
}
