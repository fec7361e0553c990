//! What makes a worker ready: `ready`, and the addresses that a probe can try.
//!
//! What differs from worker to worker may stand in a probe, so it stays text here, and is read as it
//! would be in slot 0: what is no address there is none anywhere.

use std::fmt;
use std::str::FromStr;

use super::address::{Bind, one};
use super::words::{command, command_line};
use super::{Folders, Kind, Schema, Shape, ValueError};
use crate::interpolate::bind_late;

const FORMS: &str = "write spawned, notify, tcp:HOST:PORT, http://HOST:PORT/PATH or exec:COMMAND";

const TARGETS: &str = "write tcp:HOST:PORT or http://HOST:PORT/PATH";

pub(crate) const READY: Kind<Ready> = Kind {
    name: "spawned, notify, tcp:HOST:PORT, http://HOST:PORT/PATH or exec:COMMAND",
    shape: Shape::Words,
    schema: Schema::Readiness,
    parse: |text, _| parse(text),
    write: Ready::to_string,
};

/// What makes a command ready: `ready`.
///
/// Prints in the form it is written in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It was executed.
    Spawned,
    /// It says so, by `READY=1` at its `NOTIFY_SOCKET`.
    Notify,
    /// A probe of this address succeeds. It is text in the form of [`ProbeTarget`], in which
    /// late-bound names may stand.
    Probe(String),
    /// A command succeeds: the words it is made of, in which late-bound names may stand.
    Exec(Vec<String>),
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawned => f.write_str("spawned"),
            Self::Notify => f.write_str("notify"),
            Self::Probe(target) => f.write_str(target),
            Self::Exec(words) => {
                write!(f, "exec:{}", command_line(words.iter().map(String::as_str)))
            }
        }
    }
}

impl Ready {
    /// The address that the probe of this slot's worker tries.
    pub fn target(&self, slot: u32, generation: u64) -> Option<ProbeTarget> {
        match self {
            Self::Probe(target) => bind_late(target, slot, generation).parse().ok(),
            Self::Spawned | Self::Notify | Self::Exec(_) => None,
        }
    }
}

/// Where one probe looks, as `ph probe` takes it.
///
/// ```
/// let target: ph_config::ProbeTarget = "http://localhost:8000/healthz".parse().unwrap();
/// assert_eq!((target.host.as_str(), target.port), ("localhost", 8000));
/// assert_eq!(target.path.as_deref(), Some("/healthz"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// 1 or more.
    pub port: u16,
    /// With HTTP what is asked for; without, a connection is enough.
    pub path: Option<String>,
}

impl FromStr for ProbeTarget {
    type Err = ValueError;

    /// `tcp:HOST:PORT`, `http://HOST:PORT/PATH` or `http:URL`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (address, path) = if let Some(url) = text.strip_prefix("http:") {
            let url = url.strip_prefix("http:").unwrap_or(url);
            let rest = url.strip_prefix("//").ok_or_else(wrong)?;
            let end = rest.find('/').unwrap_or(rest.len());
            let path = if end == rest.len() { "/" } else { &rest[end..] };
            let is_path = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
            if !is_path {
                return Err(ValueError::new("a path of visible ASCII characters", TARGETS));
            }
            (&rest[..end], Some(path.to_owned()))
        } else {
            (text.strip_prefix("tcp:").ok_or_else(wrong)?, None)
        };
        let address = match (&path, address.contains(':') && !address.ends_with(']')) {
            (Some(_), false) => format!("{address}:80"),
            (Some(_) | None, _) => address.to_owned(),
        };
        match one(&address, &Folders::default()).map_err(|_| wrong())? {
            Bind::Tcp { host: Some(host), port } if port > 0 => Ok(Self { host, port, path }),
            Bind::Tcp { .. } | Bind::Unix(_) | Bind::Descriptor(_) | Bind::Named(_) => Err(wrong()),
        }
    }
}

fn wrong() -> ValueError {
    ValueError::new("an address that can be connected to", TARGETS)
}

fn parse(text: &str) -> Result<Ready, ValueError> {
    if text.eq_ignore_ascii_case("spawned") {
        return Ok(Ready::Spawned);
    }
    if text.eq_ignore_ascii_case("notify") {
        return Ok(Ready::Notify);
    }
    if let Some(line) = text.strip_prefix("exec:") {
        let words = command(line.trim_start())?;
        if words.is_empty() {
            return Err(ValueError::new("a program to execute", FORMS));
        }
        return Ok(Ready::Exec(words));
    }
    if !text.starts_with("tcp:") && !text.starts_with("http:") {
        return Err(ValueError::new("spawned, notify or a probe", FORMS));
    }
    bind_late(text, 0, 1).parse::<ProbeTarget>()?;
    Ok(Ready::Probe(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let target = |host: &str, port, path: Option<&str>| {
            let (host, path) = (host.to_owned(), path.map(str::to_owned));
            Some(ProbeTarget { host, port, path })
        };
        for (text, wanted) in [
            ("tcp:localhost:80", target("localhost", 80, None)),
            ("tcp:[::1]:80", target("::1", 80, None)),
            ("tcp:127.0.0.1:80%(slot)s", target("127.0.0.1", 803, None)),
            ("http://a.b:80/c?d=e", target("a.b", 80, Some("/c?d=e"))),
            ("http:http://a:8/%(slot)s", target("a", 8, Some("/3"))),
            ("http://[::1]", target("::1", 80, Some("/"))),
            ("http://a", target("a", 80, Some("/"))),
            ("NOTIFY", None),
            ("spawned", None),
        ] {
            let ready = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(ready.target(3, 1), wanted, "{text}");
            assert_eq!(parse(&ready.to_string()), Ok(ready));
        }
        let words = ["check".to_owned(), "a b".to_owned()].to_vec();
        assert_eq!(parse("exec: check 'a b'"), Ok(Ready::Exec(words)));
        for bad in [
            "",
            "ready",
            "tcp:",
            "tcp:80",
            "tcp::80",
            "tcp:a:0",
            "tcp:unix:/a",
            "http:a:80",
            "https://a:80/",
            "http:///a",
            "http://a:80/b c",
            "http://a:80/\u{e9}",
            "http://u@a:80/",
            "exec:",
            "exec:'a",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
