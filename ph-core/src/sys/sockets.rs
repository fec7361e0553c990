//! Who listens where: what /proc says of listening sockets, and which process has which.
//!
//! A socket is known by its inode, which the links in `/proc/PID/fd` name. To read a link enters nobody's
//! memory. Of a process of another user nothing is known, unless this one is root.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::unistd::Pid;

use super::procfs;

/// The kernel's number of the state LISTEN, in hexadecimal as /proc has it.
const LISTEN: &str = "0A";

/// The flag of a Unix socket that listens, `__SO_ACCEPTCON`.
const ACCEPTS: u32 = 1 << 16;

/// How many processes a search looks at, and how many of their descriptors in all.
const PROCESSES_AT_MOST: usize = 4096;
const LINKS_AT_MOST: usize = 1 << 17;

/// All TCP sockets that listen, with their inodes.
pub(crate) fn tcp_listeners() -> Vec<(SocketAddr, u64)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let texts = tables.into_iter().filter_map(|table| std::fs::read_to_string(table).ok());
    texts.flat_map(|text| text.lines().filter_map(tcp_listener).collect::<Vec<_>>()).collect()
}

fn tcp_listener(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    let is_listening = fields.nth(1)? == LISTEN;
    let inode = fields.nth(5)?.parse().ok()?;
    let address = SocketAddr::new(parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?);
    is_listening.then_some((address, inode))
}

/// Words of 32 bits in network order, each printed as this machine reads it.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let words = [word(0)?, word(1)?, word(2)?, word(3)?];
    let bytes: [u8; 16] = words.as_flattened().try_into().ok()?;
    Some(Ipv6Addr::from(bytes).into())
}

/// The inodes of Unix sockets that listen and were bound by this name.
pub(crate) fn unix_listeners(path: &Path) -> BTreeSet<u64> {
    let table = std::fs::read("/proc/net/unix").unwrap_or_default();
    table.split(|byte| *byte == b'\n').filter_map(|line| unix_listener(line, path)).collect()
}

fn unix_listener(line: &[u8], path: &Path) -> Option<u64> {
    let bare = line.strip_suffix(path.as_os_str().as_bytes())?.strip_suffix(b" ")?;
    let mut fields = std::str::from_utf8(bare).ok()?.split_ascii_whitespace().skip(3);
    let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
    let inode = fields.nth(2)?.parse().ok()?;
    // What is left belongs to a longer path with a blank in it.
    (flags & ACCEPTS != 0 && fields.next().is_none()).then_some(inode)
}

/// The sockets a process has open; none if it may not be asked.
pub(crate) fn sockets_of(pid: Pid) -> BTreeSet<u64> {
    sockets_within(pid, &mut LINKS_AT_MOST.clone())
}

/// The same, looking at no more descriptors than are `left`.
fn sockets_within(pid: Pid, left: &mut usize) -> BTreeSet<u64> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    let links = entries.take(*left).filter_map(|entry| {
        *left = left.saturating_sub(1);
        std::fs::read_link(entry.ok()?.path()).ok()
    });
    links
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// The process with the lowest number that has one of these sockets, if one can be found.
pub(crate) fn holder(inodes: &BTreeSet<u64>) -> Option<Pid> {
    if inodes.is_empty() {
        return None;
    }
    let mut pids: Vec<_> = procfs::all().into_iter().map(|facts| facts.pid).collect();
    pids.sort_unstable();
    let mut left = LINKS_AT_MOST;
    let mut pids = pids.into_iter().take(PROCESSES_AT_MOST);
    pids.find(|pid| !sockets_within(*pid, &mut left).is_disjoint(inodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found_by_its_address() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(ip).unwrap();
            let address = listener.local_addr().unwrap();
            let found = tcp_listeners().into_iter().find(|(it, _)| *it == address).unwrap();
            assert!(sockets_of(Pid::this()).contains(&found.1));
            assert!(holder(&BTreeSet::from([found.1])).is_some());
            drop(listener);
            assert!(!tcp_listeners().contains(&found));
        }
        assert_eq!(holder(&BTreeSet::from([u64::MAX])), None);
    }

    #[test]
    fn a_unix_listener_is_found_by_its_whole_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("with a blank.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let found = unix_listeners(&path);
        assert_eq!(found.len(), 1);
        assert!(!found.is_disjoint(&sockets_of(Pid::this())));
        assert!(unix_listeners(Path::new("blank.sock")).is_empty());
        drop(listener);
        assert!(unix_listeners(&path).is_empty());
    }
}
