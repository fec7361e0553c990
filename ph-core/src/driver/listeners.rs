//! Listening sockets: opened once by the master, before the first fork, shared by all workers.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use socket2::{Domain, SockAddr, Socket, Type};

use super::RunError;
use crate::sys::lock;
use crate::worker::Listener;

/// Connections the kernel queues for workers that are busy (gunicorn's default).
const BACKLOG: i32 = 2048;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port; without a host: on every IPv4 address of the machine.
    Tcp {
        /// A name or an address, without brackets.
        host: Option<String>,
        /// 0 lets the kernel choose one.
        port: u16,
    },
    /// A Unix socket, made with mode 0600.
    Unix(PathBuf),
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
        }
    }
}

/// All listeners of a master. Dropping them removes the Unix sockets this master made, if the path
/// still names them.
pub(super) struct Listeners {
    sockets: Vec<Listener>,
    made: Vec<MadeSocket>,
    /// Where they really listen, for people.
    pub(super) shown: Vec<String>,
}

struct MadeSocket {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Listeners {
    /// Opens all, or none. Forked workers accept until there is nothing left, so their sockets are
    /// non-blocking; a command gets blocking ones, as from systemd.
    pub(super) fn open(addresses: &[Address], is_nonblocking: bool) -> Result<Self, RunError> {
        let mut all = Self { sockets: Vec::new(), made: Vec::new(), shown: Vec::new() };
        for address in addresses {
            all.add(address, is_nonblocking).map_err(|source| {
                let address = address.to_string();
                RunError::Listen { address, source }
            })?;
        }
        Ok(all)
    }

    pub(super) fn sockets(&self) -> &[Listener] {
        &self.sockets
    }

    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets.iter().map(std::os::fd::AsFd::as_fd).collect()
    }

    fn add(&mut self, address: &Address, is_nonblocking: bool) -> io::Result<()> {
        let (listener, shown) = match address {
            Address::Tcp { host, port } => {
                let socket = open_tcp(host.as_deref(), *port)?;
                socket.set_nonblocking(is_nonblocking)?;
                let listener = std::net::TcpListener::from(socket);
                let shown = format!("tcp://{}", listener.local_addr()?);
                (Listener::Tcp(listener), shown)
            }
            Address::Unix(path) => {
                let socket = open_unix(path)?;
                socket.set_nonblocking(is_nonblocking)?;
                let metadata = std::fs::symlink_metadata(path)?;
                let (device, inode) = (metadata.dev(), metadata.ino());
                self.made.push(MadeSocket { path: path.clone(), device, inode });
                (Listener::Unix(socket.into()), address.to_string())
            }
        };
        self.sockets.push(listener);
        self.shown.push(shown);
        Ok(())
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for made in &self.made {
            let there = std::fs::symlink_metadata(&made.path);
            if there.is_ok_and(|it| (it.dev(), it.ino()) == (made.device, made.inode)) {
                // Left behind, it would be replaced as stale by the next master.
                let _ = std::fs::remove_file(&made.path);
            }
        }
    }
}

fn open_tcp(host: Option<&str>, port: u16) -> io::Result<Socket> {
    let addresses: Vec<SocketAddr> = (host.unwrap_or("0.0.0.0"), port).to_socket_addrs()?.collect();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match bind_tcp(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Binds a Unix socket. A socket file that nobody listens on is replaced; anything else at that path
/// is kept, and is an error. The folder is locked meanwhile: between another master's bind and its
/// listen, its socket looks as if nobody listened.
fn open_unix(path: &Path) -> io::Result<Socket> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let _locked = lock::lock_folder(folder.unwrap_or(Path::new(".")))?;
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(io::Error::other("something that is not a socket is there; it was kept"));
        }
        match connect(path) {
            Ok(()) => return Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            Err(error) => return Err(error),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let previous = umask(Mode::from_bits_truncate(0o177));
    let bound = with_short_path(path, |address| socket.bind(address));
    umask(previous);
    bound?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    with_short_path(path, |address| socket.connect(address))
}

/// A socket address holds 107 bytes; a longer path is reached through a descriptor of its folder.
fn with_short_path<T>(path: &Path, act: impl Fn(&SockAddr) -> io::Result<T>) -> io::Result<T> {
    if let Ok(address) = SockAddr::unix(path) {
        return act(&address);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let folder = std::fs::File::open(folder)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd())).join(name);
    act(&SockAddr::unix(short)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_or_a_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(open_unix(&path).unwrap());
        let live = open_unix(&path).unwrap();
        assert_eq!(open_unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(open_unix(&file).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }

    #[test]
    fn a_path_longer_than_an_address_works() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("a.sock");
        let _listener = open_unix(&path).unwrap();
        connect(&path).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn only_its_own_socket_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listeners = Listeners::open(&[Address::Unix(path.clone())], true).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(listeners);
        assert!(path.exists());
    }
}
