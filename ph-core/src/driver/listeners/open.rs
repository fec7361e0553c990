//! Sockets, opened: what is there already is replaced only if nobody listens on it.

use std::fs::Metadata;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use socket2::{Domain, SockAddr, Socket, Type};

use super::options::SocketOptions;
use crate::sys::{folder, lock};

/// A TCP socket that listens.
pub(super) fn open_tcp(address: SocketAddr, options: &SocketOptions) -> io::Result<Socket> {
    let socket = bind_with(address, options.reuse_port)?;
    options.apply_to_tcp(&socket)?;
    socket.listen(options.backlog())?;
    Ok(socket)
}

/// Another TCP socket at the address of one that shares its port.
pub(super) fn open_tcp_beside(first: &Socket, options: &SocketOptions) -> io::Result<Socket> {
    let at = first.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    let socket = open_tcp(at, options)?;
    socket.set_nonblocking(first.nonblocking()?)?;
    Ok(socket)
}

/// One of several addresses.
pub(super) fn first_that_works<T>(
    addresses: &[SocketAddr],
    mut open: impl FnMut(SocketAddr) -> io::Result<T>,
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

/// All of several addresses but those that this machine does not have, such as `::1` where IPv6 is
/// off; one at least.
pub(in super::super) fn all_there_are<T>(
    addresses: &[SocketAddr],
    mut open: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut opened = Vec::new();
    for address in addresses {
        match open(*address) {
            Ok(one) => opened.push(one),
            Err(error) if is_not_here(&error) => failure = error,
            Err(error) => return Err(error),
        }
    }
    if opened.is_empty() { Err(failure) } else { Ok(opened) }
}

fn is_not_here(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

pub(in super::super) fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    bind_with(address, false)
}

fn bind_with(address: SocketAddr, shares_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares_port)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // Whatever `net.ipv6.bindv6only` says: one configuration means the same everywhere.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Binds a Unix socket. A socket file that nobody listens on is replaced; anything else at that path
/// is kept, and is an error. The folder is locked meanwhile: between another master's bind and its
/// listen, its socket looks as if nobody listened.
pub(in super::super) fn open_unix(path: &Path, options: &SocketOptions) -> io::Result<Socket> {
    let _locked = lock::lock_folder(folder::of(path))?;
    match found_at(path)? {
        Found::Nothing => {}
        Found::Stale => std::fs::remove_file(path)?,
        Found::Listener => return Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
    }
    bind_unix(path, options)
}

/// The same at a name that is this process's alone: nobody is waited for or asked.
pub(in super::super) fn replace_unix(path: &Path) -> io::Result<Socket> {
    if let Ok(there) = std::fs::symlink_metadata(path) {
        see_socket(&there)?;
        std::fs::remove_file(path)?;
    }
    bind_unix(path, &SocketOptions::default())
}

/// Nobody can connect before it listens, and it listens when its file is as it shall be.
fn bind_unix(path: &Path, options: &SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let previous = umask(Mode::from_bits_truncate(options.mask_at_birth()));
    let bound = with_short_path(path, |address| socket.bind(address));
    umask(previous);
    bound?;
    // A folder's default ACL counts more than the mask, so the mode is looked at in any case.
    let listening =
        options.apply_to_file(path, None, false).and_then(|()| socket.listen(options.backlog()));
    if let Err(error) = listening {
        // It was made a moment ago, in a folder that is locked.
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
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

pub(in super::super) fn see_socket(there: &Metadata) -> io::Result<()> {
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
pub(in super::super) fn with_short_path<T>(
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

    fn open_plain(path: &Path) -> io::Result<Socket> {
        open_unix(path, &SocketOptions::default())
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_or_a_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(open_plain(&path).unwrap());
        let live = open_plain(&path).unwrap();
        assert_eq!(open_plain(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(open_plain(&file).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }

    #[test]
    fn a_path_longer_than_an_address_works() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("a.sock");
        let _listener = open_plain(&path).unwrap();
        connect(&path).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_unspecified_address_of_ipv6_takes_ipv4_too() {
        let any = open_tcp("[::]:0".parse().unwrap(), &SocketOptions::default()).unwrap();
        let port = any.local_addr().unwrap().as_socket().unwrap().port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        std::net::TcpStream::connect(("::1", port)).unwrap();
    }

    #[test]
    fn what_this_machine_has_not_is_left_out_if_there_is_something_else() {
        let all = |addresses: &[&str]| {
            let addresses: Vec<_> = addresses.iter().map(|it| it.parse().unwrap()).collect();
            all_there_are(&addresses, bind_tcp).map(|all| all.len()).map_err(|error| error.kind())
        };
        assert_eq!(all(&["127.0.0.1:0", "192.0.2.1:0", "[::1]:0"]), Ok(2));
        assert_eq!(all(&["192.0.2.1:0"]), Err(io::ErrorKind::AddrNotAvailable));
        let held = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        held.listen(1).unwrap();
        let taken = held.local_addr().unwrap().as_socket().unwrap().to_string();
        assert_eq!(all(&["[::1]:0", &taken]), Err(io::ErrorKind::AddrInUse));
    }
}
