//! The row about configurations: 300 services in one file, all of them loaded.
//!
//! Its floor is Python's `configparser`, which the dialect comes from, reading the same file and
//! interpolating every value, without typing any. Without `python3` there is no floor.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::subject::Programs;
use super::table::{Goal, Row, Table};

/// How many services the file has.
const SECTIONS: usize = 300;
const ROUNDS: usize = 40;
const NANOS_OF_MS: f64 = 1e6;

const PYTHON: &str = "
import configparser, sys, time
for _ in range(int(sys.argv[2])):
    started = time.perf_counter_ns()
    parser = configparser.ConfigParser()
    parser.read(sys.argv[1])
    all = [dict(parser.items(name)) for name in parser.sections()]
    print(time.perf_counter_ns() - started)
";

/// Loads all sections of a large file.
pub(super) fn load(
    programs: &Programs,
    divisor: usize,
    only: Option<&str>,
    table: &mut Table,
) -> Result<()> {
    let work = format!("load all of {SECTIONS} sections");
    if only.is_some_and(|only| !work.contains(only)) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bench.ini");
    std::fs::write(&file, text())?;
    let rounds = (ROUNDS / divisor).to_string();
    let value = median(Command::new(&programs.config).arg(&file).arg(&rounds))? / NANOS_OF_MS;
    let python = median(Command::new("python3").args(["-c", PYTHON]).arg(&file).arg(&rounds));
    let floor = match python {
        Ok(floor) => Some(floor / NANOS_OF_MS),
        Err(error) => {
            println!("no floor for `{work}`: {error:#}");
            None
        }
    };
    let (unit, goal) = ("ms", Goal::AtMost(10.0));
    table.add(Row { work, workers: "-", unit, value, floor, quiet_ratio: None, goal });
    Ok(())
}

fn text() -> String {
    let mut text =
        "[DEFAULT]\ngraceful_timeout = 3\nbase_path = /srv\nlog_path = %(base_path)s/log\n"
            .to_owned();
    for number in 0..SECTIONS {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[service-{number}]\ncommand = ./serve --port {port} --name service-{number}\n\
             number_workers = 2\npidfile = %(base_path)s/run/{number}.pid\n\
             log_file = %(log_path)s/{number}.log\nmax_requests = 10000\n\
             environment = REGION=eu, GREETING=\"hello, world\"\n",
            port = 8000 + number
        );
    }
    text
}

/// The median of the nanoseconds that a program prints.
pub(super) fn median(command: &mut Command) -> Result<f64> {
    let output = command.output().with_context(|| format!("run {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr));
    }
    let mut all: Vec<f64> =
        String::from_utf8(output.stdout)?.lines().map(str::parse).collect::<Result<_, _>>()?;
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().context("it measured nothing")
}
