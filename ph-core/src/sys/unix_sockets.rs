//! Whose socket a Unix socket's file is, found out without a connection that its owner would notice.
//!
//! The kernel is asked by netlink (`sock_diag(7)`), which names the file of each socket by device and
//! inode, whatever the path it was bound by. Where that is not to be had, /proc/net/unix has the path
//! alone, which need not lead anywhere from here. Both tell of this network namespace only.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::stat::{major, minor};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::folder;

/// A Unix socket that has a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnixSocket {
    /// What the links in `/proc/PID/fd` call it.
    pub(crate) inode: u64,
    pub(crate) is_listening: bool,
    /// Whether it is of the kind a stream connects to.
    pub(crate) is_stream: bool,
    /// What it was bound by.
    name: Vec<u8>,
    /// Its file's inode and device, as far as the kernel tells them.
    file: Option<(u32, u32)>,
}

/// The sockets whose file this is; `None` if that cannot be told.
pub(crate) fn at(path: &Path, there: &Metadata) -> Option<Vec<UnixSocket>> {
    let all = ask_kernel().or_else(|_| read_table()).ok()?;
    among(all, path, there)
}

fn among(all: Vec<UnixSocket>, path: &Path, there: &Metadata) -> Option<Vec<UnixSocket>> {
    let mut found = Vec::new();
    for socket in all {
        if socket.is_at(path, there)? {
            found.push(socket);
        }
    }
    Some(found)
}

impl UnixSocket {
    /// Whether a file is this socket's. Some file systems (btrfs, overlays) tell the kernel another device
    /// than they tell `stat`; there the name has to be the same as well.
    fn is_at(&self, path: &Path, there: &Metadata) -> Option<bool> {
        let name = Path::new(OsStr::from_bytes(&self.name));
        let has_its_name = name.file_name() == path.file_name();
        match self.file {
            Some((inode, device)) => {
                let kernels = (major(there.dev()) << 20) | minor(there.dev());
                // The kernel gives the lower half of the inode.
                let is_inode = u64::from(inode) == there.ino() & u64::from(u32::MAX);
                Some(is_inode && (u64::from(device) == kernels || has_its_name))
            }
            None if !has_its_name => Some(false),
            // The path of a descriptor, or a relative one, means something to its process only.
            None if name.is_relative() || name.starts_with("/proc") => None,
            None => Some(folder::place(name) == folder::place(path)),
        }
    }
}

/// Numbers of linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h and net/tcp_states.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SHOW_NAME_AND_FILE: u32 = 1 | 2;
const ATTRIBUTE_NAME: u16 = 0;
const ATTRIBUTE_FILE: u16 = 1;
const STATE_LISTEN: u8 = 10;
const HEADER: usize = 16;
const MESSAGE: usize = HEADER + 16;

/// How many answers are read at most: each holds some hundreds of sockets.
const ANSWERS_AT_MOST: usize = 1 << 14;

/// Asks for all Unix sockets.
fn ask_kernel() -> io::Result<Vec<UnixSocket>> {
    let (raw, kind) = (SockType::Raw, SockProtocol::NetlinkSockDiag);
    let netlink = socket(AddressFamily::Netlink, raw, SockFlag::SOCK_CLOEXEC, kind)?;
    setsockopt(&netlink, ReceiveTimeout, &TimeVal::seconds(5))?;
    send(netlink.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut all = Vec::new();
    let mut answer = vec![0; 1 << 16];
    for _ in 0..ANSWERS_AT_MOST {
        let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let mut rest = &answer[..length];
        while let Some((message, tail)) = split_message(rest) {
            rest = tail;
            match i32::from(u16_at(message, 4)) {
                libc::NLMSG_DONE => return Ok(all),
                libc::NLMSG_ERROR => return Err(io::Error::other("it knows no Unix sockets")),
                _ => all.extend(parse_message(message)),
            }
        }
    }
    Err(io::Error::other("it does not come to an end"))
}

/// A netlink header, and a `unix_diag_req` of any state.
fn request() -> Vec<u8> {
    const LENGTH: u32 = 40;
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or(0);
    let mut request = LENGTH.to_ne_bytes().to_vec();
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([AddressFamily::Unix as u8, 0, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend([0; 4]);
    request.extend(SHOW_NAME_AND_FILE.to_ne_bytes());
    request.extend([0; 8]);
    request
}

fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)).ok()?;
    let message = bytes.get(..length).filter(|_| length >= HEADER)?;
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// A header, a `unix_diag_msg`, and attributes. A socket without a name is left out.
fn parse_message(message: &[u8]) -> Option<UnixSocket> {
    let (kind, state) = (*message.get(HEADER + 1)?, *message.get(HEADER + 2)?);
    let mut rest = message.get(MESSAGE..)?;
    let (mut name, mut file) = (Vec::new(), None);
    while rest.len() >= 4 {
        let length = usize::from(u16_at(rest, 0));
        let value = rest.get(4..length)?;
        match u16_at(rest, 2) {
            ATTRIBUTE_NAME => name = value.split(|byte| *byte == 0).next()?.to_vec(),
            ATTRIBUTE_FILE => file = Some((u32_at(value, 0), u32_at(value, 4))),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    (!name.is_empty()).then_some(UnixSocket {
        inode: u32_at(message, HEADER + 4).into(),
        is_listening: state == STATE_LISTEN,
        is_stream: i32::from(kind) == libc::SOCK_STREAM,
        name,
        file,
    })
}

/// What is behind the end counts as zeros.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|it| it.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|it| it.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// The flag of a Unix socket that listens, `__SO_ACCEPTCON`.
const ACCEPTS: u32 = 1 << 16;

/// All Unix sockets that have a path, as /proc has them.
fn read_table() -> io::Result<Vec<UnixSocket>> {
    let table = std::fs::read("/proc/net/unix")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
}

/// `ADDRESS: COUNT PROTOCOL FLAGS TYPE STATE INODE PATH`; the path may hold anything.
fn parse_line(line: &[u8]) -> Option<UnixSocket> {
    let mut rest = line;
    let mut fields = Vec::new();
    while fields.len() < 7 {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| *byte == b' ')?;
        fields.push(std::str::from_utf8(&rest[..end]).ok()?);
        rest = &rest[end..];
    }
    let name = rest.strip_prefix(b" ").filter(|name| !name.is_empty())?.to_vec();
    let number = |field: usize| u32::from_str_radix(fields[field], 16).ok();
    Some(UnixSocket {
        inode: fields[6].parse().ok()?,
        is_listening: number(3)? & ACCEPTS != 0,
        is_stream: number(4)? == libc::SOCK_STREAM.unsigned_abs(),
        name,
        file: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    /// Whichever way it was bound, and however the kernel is asked.
    #[test]
    fn a_listener_is_found_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("with a blank.sock");
        std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).unwrap();
        let path = folder.path().join("link/with a blank.sock");
        for bound in [&real, &path] {
            let listener = UnixListener::bind(bound).unwrap();
            let there = std::fs::symlink_metadata(&path).unwrap();
            for all in [ask_kernel().unwrap(), read_table().unwrap()] {
                let found = among(all, &path, &there).unwrap();
                assert_eq!(found.len(), 1, "{found:?}");
                assert!(found[0].is_listening && found[0].is_stream);
                let own = crate::sys::sockets::sockets_of(nix::unistd::Pid::this()).unwrap();
                assert!(own.contains(&found[0].inode));
            }
            drop(listener);
            for all in [ask_kernel().unwrap(), read_table().unwrap()] {
                assert_eq!(among(all, &path, &there).unwrap(), []);
            }
            std::fs::remove_file(&real).unwrap();
        }
    }

    #[test]
    fn a_path_that_means_nothing_here_is_told_by_the_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let opened = std::fs::File::open(folder.path()).unwrap();
        let bound = format!("/proc/self/fd/{}/a.sock", opened.as_raw_fd());
        let _listener = UnixListener::bind(bound).unwrap();
        let path = folder.path().join("a.sock");
        let there = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!(among(ask_kernel().unwrap(), &path, &there).unwrap().len(), 1);
        assert_eq!(among(read_table().unwrap(), &path, &there), None);
    }

    #[test]
    fn what_is_no_stream_is_known_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        let there = std::fs::symlink_metadata(&path).unwrap();
        for all in [ask_kernel().unwrap(), read_table().unwrap()] {
            let found = among(all, &path, &there).unwrap();
            assert!(!found[0].is_stream && !found[0].is_listening, "{found:?}");
        }
    }
}
