//! The last that one process had to say.

use std::collections::VecDeque;

use ph_config::{Escaped, Settings};
use ph_log::{Found, LogReader};

use super::parts::Parts;
use crate::output;

/// How many of the last lines of a worker are shown.
pub(crate) const SHOWN: usize = 10;

/// How many lines of each file are looked through.
const LINES: usize = 5000;

/// The last lines of a process that has ended, [`SHOWN`] of them, from the log files of its service; none if it said
/// nothing, or the log is in no file.
pub(crate) fn of_pid(settings: &Settings, pid: u32) -> Vec<String> {
    let mut last = VecDeque::new();
    for path in super::files(settings).unwrap_or_default() {
        let Ok(mut reader) = LogReader::open(path) else { continue };
        if reader.skip_to_last(LINES).is_err() {
            continue;
        }
        let lines = std::iter::from_fn(|| reader.next()).take(LINES);
        for found in lines.filter(|found| matches!(found, Found::Line(_) | Found::CutLine(_))) {
            let (Found::Line(text) | Found::CutLine(text)) = found else { continue };
            let mut parts = Parts::of(&String::from_utf8_lossy(&text)).object;
            if parts.get("pid").and_then(serde_json::Value::as_u64) != Some(pid.into()) {
                continue;
            }
            if let Some(serde_json::Value::String(message)) = parts.remove("message") {
                last.push_back(message);
            }
            if last.len() > SHOWN {
                last.pop_front();
            }
        }
    }
    last.into()
}

/// Shows them below an error.
pub(crate) fn print(lines: &[String]) {
    if !lines.is_empty() {
        output::note("    the last it said:");
    }
    for line in lines {
        output::note(&format!("    | {}", Escaped(line)));
    }
}
