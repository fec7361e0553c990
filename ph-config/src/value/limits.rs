//! What a worker may use: resource limits, priority, CPUs.
//!
//! Limits are written as in systemd: one value for both, or `SOFT:HARD`, with `infinity` or
//! `unlimited` for none. Which numbers and units a limit takes depends on what the kernel counts
//! there. Whether this process may set them is the kernel's answer when a worker starts.

use std::fmt;
use std::time::Duration;

use super::number::{digits, parse_duration, parse_size, whole, write_duration, write_size};
use super::{Kind, Schema, Shape, ValueError, listed, written};
use crate::error::shown;

/// The highest CPU that can be named: the kernel's own sets end there.
const MAX_CPU: usize = 1023;
const CPU: Schema = Schema::Integer { least: 0, most: MAX_CPU as u64, word: None };
/// One CPU for each worker.
const SPREAD: &str = "spread";
/// Any limit; the largest number is the kernel's word for none.
const NUMBER: Schema = Schema::Integer { least: 0, most: u64::MAX - 1, word: None };

pub(crate) const LIMIT_SIZE: Kind<Option<Rlimit>> = Kind {
    name: "size or SOFT:HARD, also unlimited",
    shape: Shape::Line,
    schema: Schema::Limit(&Schema::Size),
    parse: |text, _| limit(text, parse_size),
    write: |limit| write_limit(*limit, write_size),
};

pub(crate) const LIMIT_SECONDS: Kind<Option<Rlimit>> = Kind {
    name: "duration or SOFT:HARD, also unlimited",
    shape: Shape::Line,
    schema: Schema::Limit(&Schema::Duration { above_zero: false }),
    parse: |text, _| limit(text, seconds),
    write: |limit| write_limit(*limit, |seconds| write_duration(Duration::from_secs(seconds))),
};

pub(crate) const LIMIT_COUNT: Kind<Option<Rlimit>> = Kind {
    name: "whole number or SOFT:HARD, also unlimited",
    shape: Shape::Line,
    schema: Schema::Limit(&NUMBER),
    parse: |text, _| limit(text, |text| whole(text, 0, u64::MAX - 1)),
    write: |limit| write_limit(*limit, |number| number.to_string()),
};

pub(crate) const LIMIT_MICROSECONDS: Kind<Option<Rlimit>> =
    Kind { name: "microseconds or SOFT:HARD, also unlimited", ..LIMIT_COUNT };

pub(crate) const LIMIT_NICE: Kind<Option<Rlimit>> = Kind {
    name: "whole number from 0 to 40 or SOFT:HARD, also unlimited",
    shape: Shape::Line,
    schema: Schema::Limit(&Schema::Integer { least: 0, most: 40, word: None }),
    parse: |text, _| limit(text, |text| whole(text, 0, 40)),
    write: LIMIT_COUNT.write,
};

pub(crate) const LIMIT_PRIORITY: Kind<Option<Rlimit>> = Kind {
    name: "whole number from 0 to 99 or SOFT:HARD, also unlimited",
    shape: Shape::Line,
    schema: Schema::Limit(&Schema::Integer { least: 0, most: 99, word: None }),
    parse: |text, _| limit(text, |text| whole(text, 0, 99)),
    write: LIMIT_COUNT.write,
};

pub(crate) const NICE: Kind<Option<i32>> = Kind {
    name: "whole number from -20 to 19",
    shape: Shape::Line,
    schema: Schema::Integer { least: -20, most: 19, word: None },
    parse: |text, _| signed(text, -20, 19),
    write: |number| written(number.as_ref(), i32::to_string),
};

pub(crate) const OOM_SCORE: Kind<Option<i32>> = Kind {
    name: "whole number from -1000 to 1000",
    shape: Shape::Line,
    schema: Schema::Integer { least: -1000, most: 1000, word: None },
    parse: |text, _| signed(text, -1000, 1000),
    write: NICE.write,
};

pub(crate) const CPUS: Kind<Option<CpuAffinity>> = Kind {
    name: "list of CPUs such as 0,2-3, or spread",
    shape: Shape::Lines,
    schema: Schema::List { of: &CPU, word: Some(SPREAD) },
    parse: |text, _| if text.is_empty() { Ok(None) } else { cpus(text).map(Some) },
    write: |cpus| written(cpus.as_ref(), CpuAffinity::to_string),
};

/// One resource limit of the workers: `rlimit_nofile` and the like, in the kernel's own unit.
///
/// Prints as `SOFT:HARD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rlimit {
    /// What holds until the worker raises it; `None` is unlimited. Never above `hard`, and never
    /// `u64::MAX`, by which the kernel means unlimited.
    pub soft: Option<u64>,
    /// How far the worker may raise it; `None` is unlimited. Never `u64::MAX`.
    pub hard: Option<u64>,
}

impl fmt::Display for Rlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |part: Option<u64>| part.map_or("unlimited".to_owned(), |n| n.to_string());
        write!(f, "{}:{}", word(self.soft), word(self.hard))
    }
}

/// The CPUs of the workers: `cpu_affinity`.
///
/// Prints in the form it is written in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CpuAffinity {
    /// One CPU for each worker, in turn over those allowed to this process.
    Spread,
    /// These CPUs for every worker: at least one, each once, in order, from 0 to 1023.
    List(Vec<u16>),
}

impl fmt::Display for CpuAffinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spread => f.write_str(SPREAD),
            Self::List(cpus) => {
                let ranges: Vec<&[u16]> =
                    cpus.chunk_by(|cpu, next| cpu.checked_add(1) == Some(*next)).collect();
                let text = listed(&ranges, |range| match range {
                    [first, .., last] => format!("{first}-{last}"),
                    [only] => only.to_string(),
                    [] => String::new(),
                });
                f.write_str(&text)
            }
        }
    }
}

fn limit(
    text: &str,
    number: fn(&str) -> Result<u64, ValueError>,
) -> Result<Option<Rlimit>, ValueError> {
    if text.is_empty() {
        return Ok(None);
    }
    let part = |text: &str| {
        let text = text.trim();
        if ["unlimited", "infinity"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
            return Ok(None);
        }
        match number(text) {
            Ok(u64::MAX) => {
                Err(ValueError::new("a smaller number", "write unlimited for no limit"))
            }
            Ok(number) => Ok(Some(number)),
            Err(ValueError { expected, mend }) => {
                Err(ValueError::new(format!("{expected}, unlimited, or SOFT:HARD"), mend))
            }
        }
    };
    let (soft, hard) = match text.split_once(':') {
        Some((soft, hard)) => (part(soft)?, part(hard)?),
        None => [part(text)?; 2].into(),
    };
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        let mend = "write SOFT:HARD with the smaller one first, or one value for both";
        return Err(ValueError::new("a soft limit that is not above the hard one", mend));
    }
    Ok(Some(Rlimit { soft, hard }))
}

fn write_limit(limit: Option<Rlimit>, number: fn(u64) -> String) -> String {
    let part = |part: Option<u64>| part.map_or("unlimited".to_owned(), number);
    match limit {
        None => String::new(),
        Some(Rlimit { soft, hard }) if soft == hard => part(soft),
        Some(Rlimit { soft, hard }) => format!("{}:{}", part(soft), part(hard)),
    }
}

fn seconds(text: &str) -> Result<u64, ValueError> {
    let time = parse_duration(text)?;
    if time.subsec_nanos() != 0 {
        let mend = "the kernel counts whole seconds; write for example 10 or 5m";
        return Err(ValueError::new("a duration of whole seconds", mend));
    }
    Ok(time.as_secs())
}

fn signed(text: &str, min: i32, max: i32) -> Result<Option<i32>, ValueError> {
    if text.is_empty() {
        return Ok(None);
    }
    // Rust's own parser would also take a plus sign.
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.filter(|_| !text.starts_with('+')).map(Some).ok_or_else(|| {
        let expected = format!("a whole number from {min} to {max}");
        ValueError::new(expected, "write digits only, with `-` before them if it is negative")
    })
}

fn cpus(text: &str) -> Result<CpuAffinity, ValueError> {
    if text.eq_ignore_ascii_case(SPREAD) {
        return Ok(CpuAffinity::Spread);
    }
    let mut named = [false; MAX_CPU + 1];
    for item in text.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty()) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let cpu = |text| {
            let number = digits(text).and_then(|number| usize::try_from(number).ok());
            number.filter(|number| *number <= MAX_CPU)
        };
        let (Some(first), Some(last)) = (cpu(first), cpu(last)) else {
            let expected =
                format!("spread, or CPUs from 0 to {MAX_CPU} (this has {})", shown(item));
            return Err(ValueError::new(expected, "write numbers and ranges, for example 0,2-3"));
        };
        if first > last {
            let expected = format!("ranges from low to high (this has {})", shown(item));
            return Err(ValueError::new(expected, format!("write {last}-{first}")));
        }
        named[first..=last].fill(true);
    }
    let list: Vec<u16> = (0..).zip(named).filter_map(|(cpu, named)| named.then_some(cpu)).collect();
    if list.is_empty() {
        return Err(ValueError::new("at least one CPU", "name one, or leave the value empty"));
    }
    Ok(CpuAffinity::List(list))
}

#[cfg(test)]
mod tests {
    use super::super::Folders;
    use super::*;

    fn read<T>(kind: &Kind<Option<T>>, text: &str) -> Option<T> {
        (kind.parse)(text, &Folders::default()).ok().flatten()
    }

    #[test]
    fn limits() {
        let shown = |kind, text| read::<Rlimit>(kind, text).map(|limit| limit.to_string());
        for (kind, text, expected) in [
            (&LIMIT_COUNT, "1024", "1024:1024"),
            (&LIMIT_COUNT, "1024 : Unlimited", "1024:unlimited"),
            (&LIMIT_COUNT, "18446744073709551614", "18446744073709551614:18446744073709551614"),
            (&LIMIT_SIZE, "0:infinity", "0:unlimited"),
            (&LIMIT_SIZE, "64KB:1g", "65536:1073741824"),
            (&LIMIT_SIZE, "UNLIMITED", "unlimited:unlimited"),
            (&LIMIT_SECONDS, "1.5m:2h", "90:7200"),
            (&LIMIT_MICROSECONDS, "200000", "200000:200000"),
            (&LIMIT_NICE, "0:40", "0:40"),
            (&LIMIT_PRIORITY, "99", "99:99"),
        ] {
            assert_eq!(shown(kind, text).as_deref(), Some(expected), "{text}");
        }
        for (kind, bad) in [
            (&LIMIT_COUNT, "-1"),
            (&LIMIT_COUNT, "2:1"),
            (&LIMIT_COUNT, "unlimited:1"),
            (&LIMIT_COUNT, "1:2:3"),
            (&LIMIT_COUNT, "1:"),
            (&LIMIT_COUNT, ":1"),
            (&LIMIT_COUNT, "64KB"),
            (&LIMIT_COUNT, "18446744073709551615"),
            (&LIMIT_SIZE, "18446744073709551615"),
            (&LIMIT_SIZE, "1.5GB"),
            (&LIMIT_SECONDS, "500ms"),
            (&LIMIT_MICROSECONDS, "1ms"),
            (&LIMIT_NICE, "41"),
            (&LIMIT_PRIORITY, "100"),
        ] {
            assert_eq!(shown(kind, bad), None, "{bad}");
            assert!((kind.parse)(bad, &Folders::default()).is_err());
        }
        assert_eq!((LIMIT_COUNT.parse)("", &Folders::default()), Ok(None));
    }

    #[test]
    fn signed_numbers() {
        for (text, number) in [("-20", -20), ("19", 19), ("0", 0), ("-0", 0)] {
            assert_eq!(read(&NICE, text), Some(number));
        }
        for bad in ["-21", "20", "+1", "--1", "-", "1.0", "- 1", "\u{2212}1"] {
            assert!((NICE.parse)(bad, &Folders::default()).is_err(), "{bad}");
        }
        assert_eq!(read(&OOM_SCORE, "-1000"), Some(-1000));
        assert!((OOM_SCORE.parse)("1001", &Folders::default()).is_err());
    }

    #[test]
    fn lists_of_cpus() {
        let list = |cpus: &[u16]| Some(CpuAffinity::List(cpus.to_vec()));
        assert_eq!(read(&CPUS, "Spread"), Some(CpuAffinity::Spread));
        assert_eq!(read(&CPUS, "8,2-3\n0, 3,"), list(&[0, 2, 3, 8]));
        assert_eq!(read(&CPUS, "1023"), list(&[1023]));
        assert_eq!(read(&CPUS, "5-5"), list(&[5]));
        for bad in [",", "1024", "0-1024", "3-2", "-1", "1-", "1-2-3", "a", "0 1", "+1"] {
            assert!((CPUS.parse)(bad, &Folders::default()).is_err(), "{bad}");
        }
    }
}
