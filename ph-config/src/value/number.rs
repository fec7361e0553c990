//! Numbers and what is written like them: counts, durations, sizes, shares, switches.
//!
//! Conventions are those of the field: a bare number of seconds as in gunicorn and supervisord,
//! units as in systemd, binary sizes as in nginx and supervisord, `25%` rounded up as kubernetes
//! does for a surge. Signs, exponents and blanks inside a number are refused, not guessed at.

use std::fmt;
use std::num::NonZero;
use std::time::Duration;

use super::{Kind, Schema, Shape, ValueError, written};

/// The longest duration that is accepted, in seconds: a thousand years of 365 days.
const MAX_SECONDS: u64 = 1000 * 365 * 86_400;
const NANOS_OF_MILLISECOND: u128 = 1_000_000;
const NANOS_OF_SECOND: u128 = 1_000_000_000;
/// In nanoseconds, the shortest first.
const DURATION_UNITS: [(&str, u128); 5] = [
    ("ms", NANOS_OF_MILLISECOND),
    ("s", NANOS_OF_SECOND),
    ("m", 60 * NANOS_OF_SECOND),
    ("h", 3_600 * NANOS_OF_SECOND),
    ("d", 86_400 * NANOS_OF_SECOND),
];
/// As powers of 2, the smallest first.
const SIZE_UNITS: [(&str, u32); 5] = [("B", 0), ("KB", 10), ("MB", 20), ("GB", 30), ("TB", 40)];
/// The bound of `max_workers`, and so of every number of workers.
const MAX_WORKERS: u64 = 65_536;
const MAX_THREADS: u32 = 4096;
/// As many workers as CPUs.
const AUTO: &str = "auto";

pub(crate) const BOOLEAN: Kind<bool> = Kind {
    name: "yes or no",
    shape: Shape::Line,
    schema: Schema::Boolean,
    parse: |text, _| parse_boolean(text),
    write: bool::to_string,
};

pub(crate) const DURATION: Kind<Duration> = Kind {
    name: "duration",
    shape: Shape::Line,
    schema: Schema::Duration { above_zero: false },
    parse: |text, _| parse_duration(text),
    write: |time| write_duration(*time),
};

pub(crate) const DURATION_ABOVE_ZERO: Kind<Duration> = Kind {
    name: "duration above 0",
    shape: Shape::Line,
    schema: Schema::Duration { above_zero: true },
    parse: |text, _| match parse_duration(text)? {
        Duration::ZERO => Err(ValueError::new(
            "a duration above 0",
            "this wait cannot be switched off; write for example 100ms or 1s",
        )),
        duration => Ok(duration),
    },
    write: DURATION.write,
};

pub(crate) const OPTIONAL_DURATION: Kind<Option<Duration>> = Kind {
    name: "duration",
    shape: Shape::Line,
    schema: Schema::Duration { above_zero: false },
    parse: |text, _| if text.is_empty() { Ok(None) } else { parse_duration(text).map(Some) },
    write: |time| written(time.as_ref(), |time| write_duration(*time)),
};

pub(crate) const OPTIONAL_BOOLEAN: Kind<Option<bool>> = Kind {
    name: "yes or no",
    shape: Shape::Line,
    schema: Schema::Boolean,
    parse: |text, _| if text.is_empty() { Ok(None) } else { parse_boolean(text).map(Some) },
    write: |switch| written(switch.as_ref(), bool::to_string),
};

pub(crate) const SIZE: Kind<u64> = Kind {
    name: "size",
    shape: Shape::Line,
    schema: Schema::Size,
    parse: |text, _| parse_size(text),
    write: |bytes| write_size(*bytes),
};

pub(crate) const LINE_SIZE: Kind<u64> = Kind {
    name: "size from 256B to 64KB",
    parse: |text, _| match parse_size(text)? {
        bytes @ 256..=65_536 => Ok(bytes),
        _ => Err(ValueError::new("a size from 256B to 64KB", "write for example 16KB")),
    },
    ..SIZE
};

pub(crate) const COUNT: Kind<u32> = Kind {
    name: "whole number",
    shape: Shape::Line,
    schema: Schema::Integer { least: 0, most: u32::MAX as u64, word: None },
    parse: |text, _| narrow(text, 0, u32::MAX),
    write: u32::to_string,
};

pub(crate) const COUNT_U64: Kind<u64> = Kind {
    name: "whole number",
    shape: Shape::Line,
    schema: Schema::Integer { least: 0, most: u64::MAX, word: None },
    parse: |text, _| whole(text, 0, u64::MAX),
    write: u64::to_string,
};

pub(crate) const THREAD_COUNT: Kind<u32> = Kind {
    name: "whole number from 1 to 4096",
    shape: Shape::Line,
    schema: Schema::Integer { least: 1, most: MAX_THREADS as u64, word: None },
    parse: |text, _| narrow(text, 1, MAX_THREADS),
    write: u32::to_string,
};

pub(crate) const CONNECTION_COUNT: Kind<Option<u32>> = Kind {
    name: "whole number from 1",
    shape: Shape::Line,
    schema: Schema::Integer { least: 1, most: u32::MAX as u64, word: None },
    parse: |text, _| if text.is_empty() { Ok(None) } else { narrow(text, 1, u32::MAX).map(Some) },
    write: |count| written(count.as_ref(), u32::to_string),
};

pub(crate) const WORKER_LIMIT: Kind<u32> = Kind {
    name: "whole number from 1 to 65536",
    shape: Shape::Line,
    schema: Schema::Integer { least: 1, most: MAX_WORKERS, word: None },
    parse: |text, _| workers(text, "65536"),
    write: u32::to_string,
};

pub(crate) const WORKER_COUNT: Kind<WorkerCount> = Kind {
    name: "whole number from 1, or auto",
    shape: Shape::Line,
    schema: Schema::Integer { least: 1, most: MAX_WORKERS, word: Some(AUTO) },
    parse: |text, _| {
        if text.eq_ignore_ascii_case(AUTO) {
            return Ok(WorkerCount::Auto);
        }
        workers(text, "max_workers, or `auto`").map(WorkerCount::Fixed)
    },
    write: WorkerCount::to_string,
};

pub(crate) const AMOUNT: Kind<Amount> = Kind {
    name: "whole number, or share such as 25%",
    shape: Shape::Share,
    schema: Schema::Share,
    parse: |text, _| {
        let read = match text.strip_suffix('%') {
            Some(digits) => whole(digits, 0, 100)
                .ok()
                .and_then(|share| u8::try_from(share).ok())
                .map(Amount::Percent),
            None => narrow(text, 0, u32::MAX).ok().map(Amount::Count),
        };
        read.ok_or_else(|| {
            let expected = "a whole number, or a share from 0% to 100%";
            ValueError::new(expected, "write for example 2 or 25%")
        })
    },
    write: Amount::to_string,
};

/// How many workers to keep: `number_workers`.
///
/// Prints in the form it is written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerCount {
    /// As many as CPUs are allowed to this process.
    Auto,
    /// So many; at least 1.
    Fixed(u32),
}

impl WorkerCount {
    /// The number itself. `auto` asks the system how many CPUs this process may use (its affinity
    /// mask and its cgroup's CPU quota count) and answers 1 where that cannot be known.
    ///
    /// [`Settings::workers`](crate::Settings::workers) also keeps it within `max_workers`.
    ///
    /// ```
    /// use ph_config::WorkerCount;
    ///
    /// assert_eq!(WorkerCount::Fixed(3).resolve(), 3);
    /// assert!(WorkerCount::Auto.resolve() >= 1);
    /// ```
    pub fn resolve(self) -> u32 {
        match self {
            Self::Auto => {
                let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
                u32::try_from(cpus).unwrap_or(u32::MAX)
            }
            Self::Fixed(count) => count,
        }
    }
}

impl fmt::Display for WorkerCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::Fixed(count) => write!(f, "{count}"),
        }
    }
}

/// So many workers, or such a share of them: `reload_surge`.
///
/// Prints in the form it is written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// A share of the target, from 0 to 100.
    Percent(u8),
}

impl Amount {
    /// The number it means for `target` workers; a share is rounded up, as kubernetes rounds a
    /// surge, so that only 0% of something is 0.
    ///
    /// ```
    /// use ph_config::Amount;
    ///
    /// assert_eq!(Amount::Percent(25).of(10), 3);
    /// assert_eq!(Amount::Percent(25).of(1), 1);
    /// assert_eq!(Amount::Count(2).of(10), 2);
    /// ```
    pub fn of(self, target: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(share) => {
                let part = (u64::from(target) * u64::from(share)).div_ceil(100);
                u32::try_from(part).unwrap_or(u32::MAX)
            }
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(share) => write!(f, "{share}%"),
        }
    }
}

/// Reads `1/0`, `yes/no`, `true/false`, `on/off` in any case, the list of Python's ConfigParser.
///
/// ```
/// assert_eq!(ph_config::parse_boolean("Yes"), Ok(true));
/// assert!(ph_config::parse_boolean("enabled").is_err());
/// ```
///
/// # Errors
///
/// For any other text.
pub fn parse_boolean(text: &str) -> Result<bool, ValueError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "true" | "on" => Ok(true),
        "0" | "no" | "false" | "off" => Ok(false),
        _ => Err(ValueError::new("yes or no", "write yes or no (also true/false, on/off, 1/0)")),
    }
}

/// Reads a duration: a bare number is seconds (`3`, `0.5`), else a unit of `ms s m h d` follows.
///
/// At most nine digits after the point and a thousand years.
///
/// ```
/// use std::time::Duration;
///
/// assert_eq!(ph_config::parse_duration("0.5"), Ok(Duration::from_millis(500)));
/// assert_eq!(ph_config::parse_duration("1.5h"), Ok(Duration::from_secs(5400)));
/// assert!(ph_config::parse_duration("5 minutes").is_err());
/// ```
///
/// # Errors
///
/// For any other text, another unit, or a longer time.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let digits =
        text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, unit) = text.split_at(digits);
    let unit = if unit.is_empty() { "s" } else { unit };
    let unit = DURATION_UNITS.iter().find(|(name, _)| *name == unit);
    let (_, unit) = *unit.ok_or_else(bad_duration)?;
    let billionths = decimal(number).ok_or_else(bad_duration)?;
    let nanos = u128::from(billionths.0) * unit + u128::from(billionths.1) * unit / NANOS_OF_SECOND;
    let seconds = u64::try_from(nanos / NANOS_OF_SECOND).unwrap_or(u64::MAX);
    if seconds > MAX_SECONDS {
        return Err(ValueError::new("a duration of at most 365000d", "write a shorter time"));
    }
    let rest = u32::try_from(nanos % NANOS_OF_SECOND).unwrap_or(0);
    Ok(Duration::new(seconds, rest))
}

/// Writes a duration in the largest unit of which it is a whole number, and what is shorter than
/// a millisecond in parts of a second.
pub(super) fn write_duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    if !nanos.is_multiple_of(NANOS_OF_MILLISECOND) {
        let text = format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
        return format!("{}s", text.trim_end_matches('0'));
    }
    let whole = |unit: &(&str, u128)| nanos >= unit.1 && nanos.is_multiple_of(unit.1);
    match DURATION_UNITS.iter().rev().find(|unit| whole(unit)) {
        Some((unit, length)) => format!("{}{unit}", nanos / length),
        None => "0s".to_owned(),
    }
}

fn bad_duration() -> ValueError {
    ValueError::new("a duration", "write seconds (3, 0.5), or a unit: 500ms, 10s, 5m, 2h, 1d")
}

/// Splits `12.5` into whole part and billionths.
fn decimal(number: &str) -> Option<(u64, u64)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u64.pow(9 - u32::try_from(fraction.len()).ok()?);
    Some((digits(whole)?, digits(fraction)? * scale))
}

/// Reads a size in bytes: a bare number, or one with `B`, `KB`, `MB`, `GB`, `TB` (also without the
/// `B`, in any case). Units are binary: `64KB` is 65536 bytes.
///
/// ```
/// assert_eq!(ph_config::parse_size("64KB"), Ok(65_536));
/// assert_eq!(ph_config::parse_size("10m"), Ok(10 * 1024 * 1024));
/// assert!(ph_config::parse_size("1.5GB").is_err());
/// ```
///
/// # Errors
///
/// For any other text, another unit, or more than 2^64 - 1 bytes.
pub fn parse_size(text: &str) -> Result<u64, ValueError> {
    let wrong = || ValueError::new("a size", "write bytes (65536), or a unit: 64KB, 10MB, 1GB");
    let end = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(end);
    let is = |name: &str| {
        let short = name.trim_end_matches('B');
        unit.eq_ignore_ascii_case(name) || unit.eq_ignore_ascii_case(short)
    };
    let unit = SIZE_UNITS.iter().find(|(name, _)| is(name));
    let (_, shift) = *unit.ok_or_else(wrong)?;
    digits(number).and_then(|count| count.checked_mul(1 << shift)).ok_or_else(wrong)
}

/// Writes a size in the largest unit of which it is a whole number.
pub(super) fn write_size(bytes: u64) -> String {
    let whole = |unit: &&(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= unit.1;
    match SIZE_UNITS.iter().rev().find(whole) {
        Some((unit, shift)) if *shift > 0 => format!("{}{unit}", bytes >> shift),
        _ => bytes.to_string(),
    }
}

/// ASCII digits and nothing else; Rust's own parser would also take a plus sign.
pub(super) fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

pub(super) fn whole(text: &str, min: u64, max: u64) -> Result<u64, ValueError> {
    digits(text).filter(|number| (min..=max).contains(number)).ok_or_else(|| {
        ValueError::new(
            format!("a whole number from {min} to {max}"),
            "write digits only, without sign, point or unit",
        )
    })
}

fn narrow(text: &str, min: u32, max: u32) -> Result<u32, ValueError> {
    let number = whole(text, u64::from(min), u64::from(max))?;
    Ok(u32::try_from(number).unwrap_or(max))
}

fn workers(text: &str, most: &str) -> Result<u32, ValueError> {
    match digits(text).filter(|count| (1..=MAX_WORKERS).contains(count)) {
        Some(count) => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
        None => Err(ValueError::new(
            format!("a whole number from 1 to {most}"),
            "write digits only, without sign, point or unit",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let nanos = |text| parse_duration(text).map(|time| time.as_nanos()).ok();
        assert_eq!(nanos("3"), Some(3_000_000_000));
        assert_eq!(nanos("0.1"), Some(100_000_000));
        assert_eq!(nanos("500ms"), Some(500_000_000));
        assert_eq!(nanos("0.000000001"), Some(1));
        assert_eq!(nanos("1d"), Some(86_400_000_000_000));
        assert_eq!(nanos("365000d"), Some(u128::from(MAX_SECONDS) * 1_000_000_000));
        for bad in ["", "-1", "+1", "1e3", "1.", ".5", "1.2.3", "5M", "10 s", "1w", "٣", "365001d"]
        {
            assert_eq!(nanos(bad), None, "{bad}");
        }
        assert_eq!(nanos("18446744073709551615d"), None);
        assert_eq!(nanos("99999999999999999999"), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("1gb"), Ok(1 << 30));
        assert_eq!(parse_size("2T"), Ok(2 << 40));
        for bad in ["", "KB", "-1", "1 KB", "1PB", "99999999TB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn booleans() {
        for (text, value) in [("1", true), ("ON", true), ("False", false), ("no", false)] {
            assert_eq!(parse_boolean(text), Ok(value));
        }
        assert!(parse_boolean("").is_err() && parse_boolean("2").is_err());
    }

    #[test]
    fn shares_round_up() {
        assert_eq!(Amount::Percent(0).of(1000), 0);
        assert_eq!(Amount::Percent(100).of(u32::MAX), u32::MAX);
        assert_eq!(Amount::Percent(1).of(1), 1);
    }
}
