//! Who listens where: what the kernel says of listening sockets, and which process has which.
//!
//! A socket is known by its inode, which the links in `/proc/PID/fd` name. To read a link enters nobody's
//! memory. Of a process of another user nothing is known, unless this one is root; of a socket of another
//! network namespace neither. Unix sockets are in [`unix_sockets`](super::unix_sockets).

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::unistd::Pid;
use socket2::{SockAddr, SockAddrStorage};

use super::procfs;

/// The kernel's number of the state LISTEN, in hexadecimal as /proc has it.
const LISTEN: &str = "0A";

/// How many processes a search looks at, and how many of their descriptors in all.
const PROCESSES_AT_MOST: usize = 4096;
const LINKS_AT_MOST: usize = 1 << 17;

/// The next connection of a listener, close-on-exec, and whose it is, if that is an internet address.
pub(crate) fn accept(
    listener: impl AsFd,
    is_blocking: bool,
) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let nonblocking = if is_blocking { 0 } else { libc::SOCK_NONBLOCK };
    let (listener, flags) = (listener.as_fd().as_raw_fd(), libc::SOCK_CLOEXEC | nonblocking);
    let accept = |address: *mut SockAddrStorage, length| {
        // SAFETY: both point to memory that lives during the call, of the first so much as the second says.
        match unsafe { libc::accept4(listener, address.cast(), length, flags) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the kernel has just made this descriptor, so nobody else owns it.
            connection => Ok(unsafe { OwnedFd::from_raw_fd(connection) }),
        }
    };
    // SAFETY: the kernel has filled in an address, and its length.
    let (connection, address) = unsafe { SockAddr::try_init(accept) }?;
    Ok((connection, address.as_socket()))
}

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

/// The sockets a process has open; `None` if it may not be asked.
pub(crate) fn sockets_of(pid: Pid) -> Option<BTreeSet<u64>> {
    sockets_within(pid, &mut LINKS_AT_MOST.clone())
}

/// The same, looking at no more descriptors than are `left`.
fn sockets_within(pid: Pid, left: &mut usize) -> Option<BTreeSet<u64>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = entries.take(*left).filter_map(|entry| {
        *left = left.saturating_sub(1);
        std::fs::read_link(entry.ok()?.path()).ok()
    });
    let inodes = links.filter_map(|link| {
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    });
    Some(inodes.collect())
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
    pids.find(|pid| sockets_within(*pid, &mut left).is_some_and(|it| !it.is_disjoint(inodes)))
}

/// Whether a listener gives a connection out only when something has come over it; if nothing does, after
/// about a second all the same (tcp(7)).
pub(crate) fn set_defer_accept(socket: impl AsFd, is_deferred: bool) -> io::Result<()> {
    let seconds = libc::c_int::from(is_deferred);
    let number = socket.as_fd().as_raw_fd();
    let length = size_of_val(&seconds).try_into().unwrap_or(0);
    let value = (&raw const seconds).cast();
    // SAFETY: the kernel reads one int, from a live variable.
    let done = unsafe {
        libc::setsockopt(number, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many connections wait at a TCP listener to be accepted.
pub(crate) fn queued(listener: impl AsFd) -> io::Result<u32> {
    // SAFETY: of this struct a value of all zeros is valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or(0);
    let number = listener.as_fd().as_raw_fd();
    let value = (&raw mut info).cast();
    // SAFETY: the kernel writes no more than `length` bytes into a live variable, and says how many.
    let done = unsafe {
        libc::getsockopt(number, libc::IPPROTO_TCP, libc::TCP_INFO, value, &raw mut length)
    };
    // Of a listener this field is the length of its queue (ss(8) shows it as Recv-Q).
    if done == 0 { Ok(info.tcpi_unacked) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_as_long_as_there_are_clients_who_wait() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(queued(&listener).unwrap(), 0);
        let clients: Vec<_> =
            (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        assert_eq!(queued(&listener).unwrap(), 3);
        drop(listener.accept().unwrap());
        assert_eq!(queued(&listener).unwrap(), 2);
        drop(clients);
        assert!(queued(io::stdin()).is_err());
    }

    #[test]
    fn a_listener_of_this_process_is_found_by_its_address() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(ip).unwrap();
            let address = listener.local_addr().unwrap();
            let found = tcp_listeners().into_iter().find(|(it, _)| *it == address).unwrap();
            assert!(sockets_of(Pid::this()).unwrap().contains(&found.1));
            assert!(holder(&BTreeSet::from([found.1])).is_some());
            drop(listener);
            assert!(!tcp_listeners().contains(&found));
        }
        assert_eq!(holder(&BTreeSet::from([u64::MAX])), None);
    }
}
