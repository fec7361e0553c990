//! Addresses to listen on.
//!
//! The forms are gunicorn's, less its guesses: a port always has a colon before it and a host
//! always has one after it, so no text can be read in two ways.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::path::file;
use super::{Folders, Kind, Schema, Shape, ValueError, listed};

/// How many addresses one service may listen on.
const MAX_ADDRESSES: usize = 128;

const FORMS: &str = "write HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH, fd:NUMBER or sd:NAME";

/// The descriptors that a socket may be passed as: three are the standard streams.
const DESCRIPTORS: std::ops::RangeInclusive<u32> = 3..=65_535;

/// The longest name of a passed socket, as systemd has it.
const MAX_NAME: usize = 255;

pub(crate) const ADDRESSES: Kind<Vec<Bind>> = Kind {
    name: "list of addresses",
    shape: Shape::Lines,
    schema: Schema::List { of: &Schema::Address, word: None },
    parse: list,
    write: |all| listed(all, Bind::to_string),
};

/// One address of `bind`.
///
/// Prints in the form it is written in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// A TCP address.
    Tcp {
        /// A name, an IPv4 address or an IPv6 address without its brackets; none for all
        /// addresses of the machine.
        host: Option<String>,
        /// 0 lets the kernel choose.
        port: u16,
    },
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
    /// A listening socket that is passed to the program when it is started, by the number of its
    /// descriptor.
    Descriptor(u32),
    /// Those that are passed by this name, as systemd does it (`LISTEN_FDS`, `FileDescriptorName=`).
    Named(String),
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host: None, port } => write!(f, ":{port}"),
            Self::Tcp { host: Some(host), port } if host.contains(':') => {
                write!(f, "[{host}]:{port}")
            }
            Self::Tcp { host: Some(host), port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
            Self::Named(name) => write!(f, "sd:{name}"),
        }
    }
}

fn list(text: &str, folders: &Folders) -> Result<Vec<Bind>, ValueError> {
    let mut all: Vec<Bind> = Vec::new();
    for item in text.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty()) {
        let bind = one(item, folders)?;
        if all.contains(&bind) {
            let expected = format!("different addresses (this has {bind} twice)");
            return Err(ValueError::new(expected, "name each address once"));
        }
        if all.len() == MAX_ADDRESSES {
            let expected = format!("at most {MAX_ADDRESSES} addresses");
            return Err(ValueError::new(expected, "listen on fewer addresses"));
        }
        all.push(bind);
    }
    Ok(all)
}

/// One address.
pub(super) fn one(item: &str, folders: &Folders) -> Result<Bind, ValueError> {
    if let Some(path) = item.strip_prefix("unix:") {
        return file(path, folders).map(Bind::Unix);
    }
    let wrong = || {
        let expected = format!("an address (this has {})", crate::error::shown(item));
        ValueError::new(expected, FORMS)
    };
    if let Some(number) = item.strip_prefix("fd:") {
        let is_plain = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|it| is_plain && DESCRIPTORS.contains(it));
        return number.map(Bind::Descriptor).ok_or_else(|| {
            let (first, last) = DESCRIPTORS.into_inner();
            let expected = format!("a descriptor from {first} to {last}");
            ValueError::new(expected, "write fd:3 for the first that is passed")
        });
    }
    if let Some(name) = item.strip_prefix("sd:") {
        let is_name = !name.is_empty() && name.len() <= MAX_NAME && !name.contains(':');
        let is_printable = name.bytes().all(|byte| byte.is_ascii_graphic());
        return match is_name && is_printable {
            true => Ok(Bind::Named(name.to_owned())),
            false => {
                let expected = "the name of a passed socket";
                let mend = "write sd: and the FileDescriptorName= of the socket unit";
                Err(ValueError::new(expected, mend))
            }
        };
    }
    let (host, port) = item.rsplit_once(':').ok_or_else(wrong)?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
    if host.is_empty() {
        return Ok(Bind::Tcp { host: None, port });
    }
    let good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => Some(inner).filter(|inner| is_ipv6(inner)),
        None => Some(host).filter(|host| is_name(host)),
    };
    let host = good.ok_or_else(wrong)?;
    Ok(Bind::Tcp { host: Some(host.to_owned()), port })
}

/// An IPv6 address, with `%zone` after it if it is link-local.
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "-"));
    address.parse::<Ipv6Addr>().is_ok() && is_name(zone)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let folders = Folders { here: "/etc".into(), base: "/srv".into() };
        let text = "localhost:80, [::1]:8080,\n:0\nunix:run/a.sock, [fe80::1%eth0]:1, fd:3, sd:web.socket,";
        let all = list(text, &folders).expect("all forms are known");
        let written: Vec<String> = all.iter().map(ToString::to_string).collect();
        let expected = [
            "localhost:80",
            "[::1]:8080",
            ":0",
            "unix:/srv/run/a.sock",
            "[fe80::1%eth0]:1",
            "fd:3",
            "sd:web.socket",
        ];
        assert_eq!(written, expected);
        assert_eq!(all[2], Bind::Tcp { host: None, port: 0 });
        assert_eq!(list("", &folders), Ok(Vec::new()));
        for bad in [
            "8000",
            "host",
            "host:",
            "::1:80",
            "[::1]",
            "[host]:80",
            ":65536",
            ":+1",
            "a b:1",
            "http://x:80",
            "fd:",
            "fd:2",
            "fd:+3",
            "fd:99999999999",
            "sd:",
            "sd:a b",
            "sd:a:b",
            "unix:",
            "*:80",
            ":80, :80",
        ] {
            assert!(list(bad, &folders).is_err(), "{bad}");
        }
        let many: Vec<String> = (1..=129).map(|port| format!(":{port}")).collect();
        assert_eq!(list(&many[1..].join(","), &folders).map(|all| all.len()), Ok(128));
        assert!(list(&many.join(","), &folders).is_err());
    }
}
