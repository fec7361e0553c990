//! Whether listeners could be opened, found out without opening one: nobody gets a connection, and nobody
//! who starts at this moment is kept from an address.
//!
//! Who listens is known from the kernel's tables, and whose socket that is from the descriptors of
//! processes. Where those may not be read, what cannot be told is said to be so.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use nix::unistd::{AccessFlags, Pid, access};

use super::listeners::{
    Address, all_there_are, are_one, bind_tcp, resolve, see_socket, with_short_path,
};
use crate::sys::{folder, lock, procfs, sockets, unix_sockets};

/// Whether a listener could be opened.
#[derive(Debug)]
pub(super) enum Prospect {
    /// It could.
    Free,
    /// One of these masters listens there already, and nobody else.
    Own,
    /// Somebody else does; perhaps it is known who.
    Taken(Option<Pid>),
    /// Somebody does, and it cannot be told whether that is one of these masters.
    Hidden,
    /// A socket file is there, and it cannot be told whether anybody listens.
    Unseen,
}

/// Finds out whether a listener could be opened where `masters` may have theirs. A TCP port is bound and
/// given up at once, without ever listening: nobody's connection can get lost in between, and no master
/// that starts at this moment is kept from it. Of a Unix socket only the place is looked at.
pub(super) fn prospect(address: &Address, masters: &[Pid]) -> io::Result<Prospect> {
    match address {
        Address::Tcp { host, port } => {
            let addresses = resolve(host.as_deref(), *port)?;
            match all_there_are(&addresses, bind_tcp) {
                Ok(_) => Ok(Prospect::Free),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    let is_there = |found: &SocketAddr| {
                        found.port() == *port
                            && addresses.iter().any(|it| are_one(it.ip(), found.ip()))
                    };
                    let found = sockets::tcp_listeners().into_iter();
                    let found = found.filter(|(it, _)| is_there(it)).map(|(_, inode)| inode);
                    Ok(held_by(&found.collect(), masters))
                }
                Err(error) => Err(error),
            }
        }
        Address::Unix(path) => prospect_of_unix(path, masters),
        // Whether it is passed is seen by the process that it is passed to.
        Address::Descriptor(_) | Address::Named(_) => Ok(Prospect::Free),
    }
}

/// Whatever a start would fail at: it makes a socket in the folder, locks that, connects to what is
/// there, and replaces it if nobody listens.
fn prospect_of_unix(path: &Path, masters: &[Pid]) -> io::Result<Prospect> {
    folder::takes_files(folder::of(path))?;
    lock::see_lockable(folder::of(path))?;
    with_short_path(path, |_| Ok(()))?;
    let there = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Prospect::Free),
        there => there?,
    };
    see_socket(&there)?;
    access(path, AccessFlags::W_OK)?;
    let Some(found) = unix_sockets::at(path, &there) else { return Ok(Prospect::Unseen) };
    if found.iter().any(|socket| !socket.is_stream) {
        return Err(io::Error::from_raw_os_error(libc::EPROTOTYPE));
    }
    let listeners = found.iter().filter(|socket| socket.is_listening);
    let listeners: BTreeSet<_> = listeners.map(|socket| socket.inode).collect();
    if !listeners.is_empty() {
        return Ok(held_by(&listeners, masters));
    }
    folder::see_removable(path)?;
    Ok(if found.is_empty() { Prospect::Unseen } else { Prospect::Free })
}

/// Whose these sockets are, of which there may be several for one address: own are those of the masters
/// and of all that comes from them.
fn held_by(found: &BTreeSet<u64>, masters: &[Pid]) -> Prospect {
    let own: Vec<_> = masters.iter().map(|pid| sockets::sockets_of(*pid)).collect();
    let is_hidden = own.iter().any(Option::is_none);
    let own: BTreeSet<_> = own.into_iter().flatten().flatten().collect();
    let mut has_unknown = found.is_empty();
    for inode in found.difference(&own) {
        match sockets::holder(&BTreeSet::from([*inode])) {
            Some(pid) if procfs::comes_from(pid, masters) => {}
            Some(pid) => return Prospect::Taken(Some(pid)),
            None => has_unknown = true,
        }
    }
    match (has_unknown, is_hidden) {
        (false, _) => Prospect::Own,
        (true, true) => Prospect::Hidden,
        (true, false) => Prospect::Taken(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    fn is(address: &Address, masters: &[Pid]) -> Prospect {
        prospect(address, masters).unwrap()
    }

    #[test]
    fn a_prospect_changes_nothing_and_knows_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let unix = Address::Unix(path.clone());
        assert!(matches!(is(&unix, &[]), Prospect::Free));
        assert!(!path.exists());
        let live = UnixListener::bind(&path).unwrap();
        live.set_nonblocking(true).unwrap();
        let own = Pid::this();
        assert!(matches!(is(&unix, &[]), Prospect::Taken(Some(pid)) if pid == own));
        assert!(matches!(is(&unix, &[own]), Prospect::Own));
        assert!(matches!(is(&unix, &[Pid::parent()]), Prospect::Own), "from a master");
        let waiting = live.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(waiting, Err(io::ErrorKind::WouldBlock), "nobody connected");
        drop(live);
        assert!(matches!(is(&unix, &[]), Prospect::Unseen));
        assert!(path.exists(), "a stale socket stays where it was");
        std::fs::remove_file(&path).unwrap();
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        let error = prospect(&unix, &[]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPROTOTYPE));
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(prospect(&Address::Unix(file), &[]).is_err());
        assert!(prospect(&Address::Unix(folder.path().join("no/a.sock")), &[]).is_err());
    }

    #[test]
    fn a_port_is_free_again_after_a_look() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let tcp = Address::Tcp { host: None, port };
        assert!(matches!(is(&tcp, &[Pid::this()]), Prospect::Own));
        assert!(matches!(
            is(&tcp, &[Pid::from_raw(i32::MAX)]),
            Prospect::Taken(_) | Prospect::Hidden
        ));
        drop(held);
        assert!(matches!(is(&tcp, &[]), Prospect::Free));
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }

    /// One socket of its own does not excuse another one's.
    #[test]
    fn an_address_is_own_only_if_all_that_listen_there_are() {
        let own = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = own.local_addr().unwrap().port();
        let inode = |address| {
            let all = sockets::tcp_listeners();
            all.into_iter().find(|(it, _)| *it == address).unwrap().1
        };
        let own = inode(own.local_addr().unwrap());
        assert_ne!(port, 0);
        let masters = [Pid::this()];
        assert!(matches!(held_by(&BTreeSet::from([own]), &masters), Prospect::Own));
        let both = BTreeSet::from([own, u64::MAX]);
        assert!(matches!(held_by(&both, &masters), Prospect::Taken(None)));
        let gone = [Pid::this(), Pid::from_raw(i32::MAX)];
        assert!(matches!(held_by(&both, &gone), Prospect::Hidden));
    }
}
