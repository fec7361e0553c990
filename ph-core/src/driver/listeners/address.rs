//! Addresses to listen on, and what they mean on this machine now.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sys::folder;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// A TCP port; without a host: on every IPv4 address of the machine. `::` is every address of both
    /// kinds, as it is where `net.ipv6.bindv6only` has its default. A name is all addresses it has when it
    /// is opened, each with a socket of its own; with port 0 it is the first that works.
    Tcp {
        /// A name or an address, without brackets.
        host: Option<String>,
        /// 0 lets the kernel choose one.
        port: u16,
    },
    /// A Unix socket; [`SocketOptions`](super::SocketOptions) say whose it is and who may connect.
    Unix(PathBuf),
    /// A listening socket that this program was started with, by the number of its descriptor. It stays
    /// as whoever has opened it has made it.
    Descriptor(u32),
    /// Those that were passed by this name, by the convention of `LISTEN_FDS` and `LISTEN_FDNAMES`
    /// (`sd_listen_fds(3)`), which must mean this process by `LISTEN_PID`. They too stay as they are.
    Named(String),
}

impl Address {
    /// The same address with those that its host has now in the place of a name, so that what is
    /// compared with many others is looked up once. A name that means nothing now stays.
    #[must_use]
    pub fn resolved(&self) -> Vec<Self> {
        match self {
            Self::Tcp { host: Some(host), port } => match resolve(Some(host), *port) {
                Ok(all) if !all.is_empty() => all
                    .iter()
                    .map(|it| Self::Tcp { host: Some(it.ip().to_string()), port: *port })
                    .collect(),
                Ok(_) | Err(_) => vec![self.clone()],
            },
            Self::Tcp { host: None, .. } | Self::Unix(_) | Self::Descriptor(_) | Self::Named(_) => {
                vec![self.clone()]
            }
        }
    }

    /// Whether no two sockets can listen on both: the same file, or the same port of hosts of which one
    /// includes the other. A name counts as all addresses it has now.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(another)) => folder::place(one) == folder::place(another),
            (Self::Tcp { port, .. }, Self::Tcp { port: another, .. }) if port != another => false,
            // Of these the kernel chooses another each time.
            (Self::Tcp { port: 0, .. }, Self::Tcp { .. }) => false,
            (Self::Tcp { host, port }, Self::Tcp { host: another, .. }) => {
                let all = |host: &Option<String>| {
                    let found = resolve(host.as_deref(), *port).unwrap_or_default();
                    found.iter().map(SocketAddr::ip).collect::<Vec<_>>()
                };
                let others = all(another);
                host == another
                    || all(host).iter().any(|one| others.iter().any(|it| are_one(*one, *it)))
            }
            (Self::Descriptor(_) | Self::Named(_), _)
            | (_, Self::Descriptor(_) | Self::Named(_)) => self == other,
            (Self::Unix(_), Self::Tcp { .. }) | (Self::Tcp { .. }, Self::Unix(_)) => false,
        }
    }

    /// Whether it may stand for several sockets.
    pub(super) fn is_several(&self) -> bool {
        match self {
            // Each would get a port of its own.
            Self::Tcp { port: 0, .. }
            | Self::Tcp { host: None, .. }
            | Self::Unix(_)
            | Self::Descriptor(_) => false,
            Self::Named(_) => true,
            Self::Tcp { host: Some(host), .. } => {
                let bare = host.split_once('%').map_or(host.as_str(), |(bare, _)| bare);
                bare.parse::<IpAddr>().is_err()
            }
        }
    }
}

/// Whether a socket on one of these gets connections to the other. The unspecified address of IPv6
/// includes those of IPv4, and `::ffff:127.0.0.1` is one of IPv4.
pub(in super::super) fn are_one(one: IpAddr, other: IpAddr) -> bool {
    let (one, other) = (one.to_canonical(), other.to_canonical());
    let includes = |one: IpAddr, other: IpAddr| {
        one == other || (one.is_unspecified() && (one.is_ipv6() || other.is_ipv4()))
    };
    includes(one, other) || includes(other, one)
}

/// All addresses of a host, each once.
pub(in super::super) fn resolve(host: Option<&str>, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for address in (host.unwrap_or("0.0.0.0"), port).to_socket_addrs()? {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    Ok(all)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host: None, port } => write!(f, "tcp://0.0.0.0:{port}"),
            Self::Tcp { host: Some(host), port } if host.contains(':') => {
                write!(f, "tcp://[{host}]:{port}")
            }
            Self::Tcp { host: Some(host), port } => write!(f, "tcp://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
            Self::Named(name) => write!(f, "sd:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_where_the_kernel_would_refuse_the_second() {
        let tcp = |host: &str, port| {
            let host = Some(host.to_owned()).filter(|host| !host.is_empty());
            Address::Tcp { host, port }
        };
        for (one, other, wanted) in [
            (tcp("", 80), tcp("127.0.0.1", 80), true),
            (tcp("::", 80), tcp("127.0.0.1", 80), true),
            (tcp("::ffff:127.0.0.1", 80), tcp("127.0.0.1", 80), true),
            (tcp("::ffff:0.0.0.0", 80), tcp("127.0.0.1", 80), true),
            (tcp("::ffff:127.0.0.2", 80), tcp("127.0.0.1", 80), false),
            (tcp("127.0.0.2", 80), tcp("127.0.0.1", 80), false),
            (tcp("", 80), tcp("::1", 80), false),
            (tcp("no.such.host.invalid", 80), tcp("no.such.host.invalid", 80), true),
            (tcp("", 80), tcp("", 81), false),
            (tcp("", 0), tcp("", 0), false),
            (tcp("", 80), Address::Unix("/a".into()), false),
            (Address::Unix("/a".into()), Address::Unix("/a".into()), true),
            (Address::Unix("/proc/self/a".into()), Address::Unix("/proc/self/b".into()), false),
            (Address::Unix("/usr/../a".into()), Address::Unix("/a".into()), true),
        ] {
            assert_eq!(one.overlaps(&other), wanted, "{one} {other}");
            assert_eq!(other.overlaps(&one), wanted, "{other} {one}");
        }
    }

    #[test]
    fn a_resolved_address_has_no_name_that_means_something() {
        let tcp = |host: &str| Address::Tcp { host: Some(host.to_owned()), port: 80 };
        let found = tcp("localhost").resolved();
        assert!(found.iter().all(|it| ["127.0.0.1", "::1"].map(tcp).contains(it)), "{found:?}");
        for same in [tcp("::"), tcp("no.such.host.invalid"), Address::Unix("/a".into())] {
            assert_eq!(same.resolved(), [same]);
        }
    }

    #[test]
    fn only_a_name_with_a_port_may_stand_for_several_sockets() {
        let tcp = |host: &str, port| Address::Tcp { host: Some(host.to_owned()), port };
        assert!(tcp("localhost", 80).is_several());
        for one in [tcp("localhost", 0), tcp("::1", 80), tcp("fe80::1%eth0", 80)] {
            assert!(!one.is_several(), "{one}");
        }
    }
}
