//! Which lines are asked for.
//!
//! A line without a time or a slot of its own (a stack trace) belongs to the one before it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use regex::bytes::Regex;

use super::parts::Parts;
use crate::args::Logs;
use crate::exit::Exit;
use crate::failure::Failure;

/// The largest program a pattern may become, in bytes.
const PATTERN_LIMIT: usize = 1 << 20;

/// What a line has to be.
pub(super) struct Filter {
    since: Option<SystemTime>,
    pattern: Option<Regex>,
    slot: Option<u32>,
    /// Of each log, whether its last line with a head was young enough and of the slot.
    was_wanted: HashMap<usize, bool>,
}

impl Filter {
    pub(super) fn new(args: &Logs) -> Result<Self, Failure> {
        let since = args.since.as_deref().map(|text| moment(text, SystemTime::now()));
        let since = since.transpose().map_err(|why| Failure::new(Exit::Usage, why))?;
        let pattern = args.grep.as_deref().map(|text| {
            regex::bytes::RegexBuilder::new(text).size_limit(PATTERN_LIMIT).build().map_err(
                |error| {
                    Failure::new(Exit::Usage, error.to_string().replace('\n', " "))
                        .attempt("cannot use the pattern of --grep")
                },
            )
        });
        let pattern = pattern.transpose()?;
        Ok(Self { since, pattern, slot: args.slot, was_wanted: HashMap::new() })
    }

    pub(super) fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// Whether there is nothing a line could fail at.
    pub(super) fn takes_all(&self) -> bool {
        self.since.is_none() && self.pattern.is_none() && self.slot.is_none()
    }

    /// Whether a line of the log with this number is to be shown.
    pub(super) fn takes(&mut self, log: usize, line: &[u8]) -> bool {
        if self.since.is_some() || self.slot.is_some() {
            let is_wanted = match ph_log::stamp(line) {
                Some(at) => {
                    let is_young = self.since.is_none_or(|since| at >= since);
                    let is_wanted = is_young && self.is_of_slot(line);
                    self.was_wanted.insert(log, is_wanted);
                    is_wanted
                }
                None => self.was_wanted.get(&log).copied().unwrap_or(false),
            };
            if !is_wanted {
                return false;
            }
        }
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(line))
    }

    fn is_of_slot(&self, line: &[u8]) -> bool {
        let Some(slot) = self.slot else { return true };
        Parts::of(&String::from_utf8_lossy(line)).slot == Some(slot)
    }
}

/// A moment: one by RFC 3339, or so long ago.
fn moment(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let text = text.trim();
    if let Some(at) = date(text) {
        return Ok(at);
    }
    let wrong = |why: &str| {
        format!("--since {text}: {why}: a time such as 2026-11-23T08:00:00Z, or a span such as 10m")
    };
    match ph_config::parse_duration(text) {
        Ok(span) => now.checked_sub(span).ok_or_else(|| wrong("before all times")),
        Err(_) => Err(wrong("no time and no span")),
    }
}

/// A date and a time of day with `Z` or an offset such as `+01:00`; without either it is UTC.
fn date(text: &str) -> Option<SystemTime> {
    let (day, time) = text.split_at_checked(10)?;
    let time = time.strip_prefix(['T', 't', ' '])?;
    let (time, offset) = match time.find(['+', '-', 'Z', 'z']) {
        Some(end) => time.split_at(end),
        None => (time, ""),
    };
    let at = ph_log::stamp(format!("{day}T{time}Z ").as_bytes())?;
    let (sign, hours) = match offset {
        "" | "Z" | "z" => return Some(at),
        offset => offset.split_at(1),
    };
    let (hours, minutes) = hours.split_once(':')?;
    let number = |text: &str, limit: u64| {
        let is_whole = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|&number| is_whole && number < limit)
    };
    let offset = Duration::from_secs(number(hours, 24)? * 3600 + number(minutes, 60)? * 60);
    if sign == "+" { at.checked_sub(offset) } else { at.checked_add(offset) }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_moment_is_a_date_or_a_span() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let seconds = |text: &str| {
            let at = moment(text, now).ok()?;
            Some(at.duration_since(UNIX_EPOCH).expect("a late date").as_secs())
        };
        for (text, expected) in [
            ("10m", Some(999_400)),
            ("1970-01-02T00:00:00Z", Some(86_400)),
            ("1970-01-02 00:00:30", Some(86_430)),
            ("1970-01-02t01:00:00.500+01:00", Some(86_400)),
            ("1970-01-02T00:00:00-00:30", Some(88_200)),
            ("1970-01-02T00:00:00+1:00", None),
            ("1970-01-02T00:00:00+01:99", None),
            ("1970-01-02", None),
            ("yesterday", None),
            ("9999999999h", None),
            ("ä", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
