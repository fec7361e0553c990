//! Listening sockets: opened once by the master, before the first fork, shared by all workers.

use std::cell::Cell;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::sys::stat::{Mode, umask};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

use super::RunError;
use crate::sys::{folder, lock};
use crate::worker::Listener;

/// Connections the kernel queues for workers that are busy (gunicorn's default).
const BACKLOG: i32 = 2048;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl Address {
    /// The same address with the first one that its host has now in the place of a name, so that what is
    /// compared with many others is looked up once. A name that means nothing now stays.
    #[must_use]
    pub fn resolved(&self) -> Self {
        match self {
            Self::Tcp { host: Some(host), port } => {
                let first = resolve(Some(host), *port).ok();
                let first = first.and_then(|all| Some(all.first()?.ip().to_string()));
                Self::Tcp { host: Some(first.unwrap_or_else(|| host.clone())), port: *port }
            }
            Self::Tcp { host: None, .. } | Self::Unix(_) => self.clone(),
        }
    }

    /// Whether no two sockets can listen on both: the same file, or the same port of hosts of which one
    /// includes the other. A name counts as the first address it has now.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(another)) => folder::place(one) == folder::place(another),
            (Self::Tcp { port, .. }, Self::Tcp { port: another, .. }) if port != another => false,
            // Of these the kernel chooses another each time.
            (Self::Tcp { port: 0, .. }, Self::Tcp { .. }) => false,
            (Self::Tcp { host, port }, Self::Tcp { host: another, .. }) => {
                let first = |host: &Option<String>| {
                    resolve(host.as_deref(), *port).ok()?.first().map(SocketAddr::ip)
                };
                host == another
                    || first(host).zip(first(another)).is_some_and(|(a, b)| are_one(a, b))
            }
            (Self::Unix(_), Self::Tcp { .. }) | (Self::Tcp { .. }, Self::Unix(_)) => false,
        }
    }
}

/// Whether a socket on one of these gets connections to the other. The unspecified address of IPv6
/// includes those of IPv4, and `::ffff:127.0.0.1` is one of IPv4.
pub(super) fn are_one(one: IpAddr, other: IpAddr) -> bool {
    let (one, other) = (one.to_canonical(), other.to_canonical());
    let includes = |one: IpAddr, other: IpAddr| {
        one == other || (one.is_unspecified() && (one.is_ipv6() || other.is_ipv4()))
    };
    includes(one, other) || includes(other, one)
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

/// The listeners of one generation, which may share some with others.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners {
    all: Vec<Rc<Opened>>,
}

/// A socket that listens. Dropping it removes the file of a Unix socket this master made, if the path
/// still names that.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) address: Address,
    socket: Listener,
    /// Its file, if that is this master's to remove.
    pub(super) made: Cell<Option<MadeSocket>>,
    /// Where it really listens, for people.
    pub(super) shown: String,
}

/// The file of a Unix socket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct MadeSocket {
    device: u64,
    inode: u64,
}

impl Listeners {
    /// Opens all, or none; of `existing` ones those that are wanted again. Forked workers accept until
    /// there is nothing left, so their sockets are non-blocking; a command gets blocking ones, as from
    /// systemd.
    pub(super) fn open(
        addresses: &[Address],
        is_nonblocking: bool,
        existing: &[Rc<Opened>],
    ) -> Result<Self, RunError> {
        // The same words may mean several, each of a port of its own.
        let mut left: Vec<_> = existing.iter().collect();
        let open = |address: &Address| {
            if let Some(found) = left.iter().position(|opened| opened.listens_on(address)) {
                return Ok(Rc::clone(left.remove(found)));
            }
            let opened = Opened::open(address, is_nonblocking);
            opened.map(Rc::new).map_err(|source| {
                let address = address.to_string();
                RunError::Listen { address, source }
            })
        };
        Ok(Self { all: addresses.iter().map(open).collect::<Result<_, _>>()? })
    }

    pub(super) fn of(all: Vec<Rc<Opened>>) -> Self {
        Self { all }
    }

    pub(super) fn all(&self) -> &[Rc<Opened>] {
        &self.all
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn sockets(&self) -> Vec<&Listener> {
        self.all.iter().map(|opened| &opened.socket).collect()
    }

    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.all.iter().map(|opened| opened.socket.as_fd()).collect()
    }

    /// Where they really listen, for people.
    pub(super) fn shown(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|opened| opened.shown.as_str())
    }
}

impl Opened {
    fn open(address: &Address, is_nonblocking: bool) -> io::Result<Self> {
        let address = address.clone();
        match &address {
            Address::Tcp { host, port } => {
                let socket = open_tcp(host.as_deref(), *port)?;
                socket.set_nonblocking(is_nonblocking)?;
                let listener = TcpListener::from(socket);
                let shown = format!("tcp://{}", listener.local_addr()?);
                let made = Cell::new(None);
                Ok(Self { address, socket: Listener::Tcp(listener), made, shown })
            }
            Address::Unix(path) => {
                let socket = open_unix(path)?;
                socket.set_nonblocking(is_nonblocking)?;
                let metadata = std::fs::symlink_metadata(path)?;
                let made = MadeSocket { device: metadata.dev(), inode: metadata.ino() };
                let shown = address.to_string();
                let socket = Listener::Unix(socket.into());
                Ok(Self { address, socket, made: Cell::new(Some(made)), shown })
            }
        }
    }

    /// One that another process has opened for this one.
    pub(super) fn received(
        address: Address,
        socket: OwnedFd,
        made: Option<MadeSocket>,
        shown: String,
    ) -> Self {
        let socket = match &address {
            Address::Tcp { .. } => Listener::Tcp(socket.into()),
            Address::Unix(_) => Listener::Unix(socket.into()),
        };
        Self { address, socket, made: Cell::new(made), shown }
    }

    /// Whether this is the listener of an address: the same words, or another name of the same place.
    fn listens_on(&self, address: &Address) -> bool {
        if self.address == *address {
            return true;
        }
        match address {
            Address::Tcp { host, port } => resolve(host.as_deref(), *port)
                .is_ok_and(|found| found.iter().any(|it| format!("tcp://{it}") == self.shown)),
            Address::Unix(path) => match &self.address {
                Address::Unix(own) => folder::place(own) == folder::place(path),
                Address::Tcp { .. } => false,
            },
        }
    }
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let (Some(made), Address::Unix(path)) = (self.made.get(), &self.address) else { return };
        let there = std::fs::symlink_metadata(path);
        if there.is_ok_and(|it| (it.dev(), it.ino()) == (made.device, made.inode)) {
            // Left behind, it would be replaced as stale by the next master.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn open_tcp(host: Option<&str>, port: u16) -> io::Result<Socket> {
    first_that_works(&resolve(host, port)?, |address| {
        let socket = bind_tcp(address)?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    })
}

pub(super) fn resolve(host: Option<&str>, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host.unwrap_or("0.0.0.0"), port).to_socket_addrs()?.collect())
}

/// A name may mean several addresses.
pub(super) fn first_that_works<T>(
    addresses: &[SocketAddr],
    open: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match open(*address) {
            Ok(opened) => return Ok(opened),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

pub(super) fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Binds a Unix socket. A socket file that nobody listens on is replaced; anything else at that path
/// is kept, and is an error. The folder is locked meanwhile: between another master's bind and its
/// listen, its socket looks as if nobody listened.
pub(super) fn open_unix(path: &Path) -> io::Result<Socket> {
    let _locked = lock::lock_folder(folder::of(path))?;
    match found_at(path)? {
        Found::Nothing => {}
        Found::Stale => std::fs::remove_file(path)?,
        Found::Listener => return Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
    }
    bind_unix(path)
}

/// The same at a name that is this process's alone: nobody is waited for or asked.
pub(super) fn replace_unix(path: &Path) -> io::Result<Socket> {
    if let Ok(there) = std::fs::symlink_metadata(path) {
        see_socket(&there)?;
        std::fs::remove_file(path)?;
    }
    bind_unix(path)
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let previous = umask(Mode::from_bits_truncate(0o177));
    let bound = with_short_path(path, |address| socket.bind(address));
    umask(previous);
    bound?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// What is where a Unix socket is to be.
enum Found {
    Nothing,
    /// A socket file that nobody listens on.
    Stale,
    /// Somebody listens.
    Listener,
}

/// Anything but a socket is an error.
fn found_at(path: &Path) -> io::Result<Found> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(Found::Nothing) };
    see_socket(&there)?;
    match connect(path) {
        Ok(_) => Ok(Found::Listener),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Found::Stale),
        Err(error) => Err(error),
    }
}

pub(super) fn see_socket(there: &Metadata) -> io::Result<()> {
    match there.file_type().is_socket() {
        true => Ok(()),
        false => Err(io::Error::other("something that is not a socket is there; it was kept")),
    }
}

/// A connection to a Unix socket, non-blocking from birth.
pub(crate) fn connect(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    with_short_path(path, |address| socket.connect(address))?;
    Ok(socket)
}

/// A socket address holds 107 bytes; a longer path is reached through a descriptor of its folder.
pub(super) fn with_short_path<T>(
    path: &Path,
    act: impl Fn(&SockAddr) -> io::Result<T>,
) -> io::Result<T> {
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
        assert!(["127.0.0.1", "::1"].map(tcp).contains(&tcp("localhost").resolved()));
        for same in [tcp("::"), tcp("no.such.host.invalid"), Address::Unix("/a".into())] {
            assert_eq!(same.resolved(), same);
        }
    }

    #[test]
    fn ports_that_the_kernel_chose_for_the_same_words_stay_as_many() {
        let address = Address::Tcp { host: Some("127.0.0.1".to_owned()), port: 0 };
        let both = [address.clone(), address];
        let first = Listeners::open(&both, true, &[]).unwrap();
        let again = Listeners::open(&both, true, first.all()).unwrap();
        assert_eq!(first.shown().collect::<Vec<_>>(), again.shown().collect::<Vec<_>>());
    }

    #[test]
    fn only_its_own_socket_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listeners = Listeners::open(&[Address::Unix(path.clone())], true, &[]).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(listeners);
        assert!(path.exists());
    }
}
