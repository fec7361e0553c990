//! Listening sockets: opened once by the master, before the first fork, shared by all workers.

mod address;
mod open;
mod options;
mod spread;

use std::cell::{Cell, RefCell};
use std::fs::Metadata;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockRef};
use tracing::warn;

pub use address::Address;
pub(super) use address::{are_one, resolve};
pub(crate) use open::connect;
pub(super) use open::{
    all_there_are, bind_tcp, open_unix, replace_unix, see_socket, with_short_path,
};
use open::{first_that_works, open_tcp};
pub use options::{KeepAlive, SocketOptions};
use spread::Spread;

use super::RunError;
use crate::sys::{folder, passed};
use crate::worker::Listener;

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
    socket: Rc<Listener>,
    /// With `reuse_port`: the sockets of the slots but the first.
    spread: RefCell<Option<Spread>>,
    /// Its file, if that is this master's to remove.
    pub(super) made: Cell<Option<MadeSocket>>,
    /// Where it really listens, for people.
    pub(super) shown: String,
    /// How it is made, if this process knows.
    applied: RefCell<Option<SocketOptions>>,
}

/// The file of a Unix socket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct MadeSocket {
    device: u64,
    inode: u64,
}

impl MadeSocket {
    /// What is at this path.
    fn at(path: &Path) -> io::Result<Self> {
        let there = std::fs::symlink_metadata(path)?;
        Ok(Self { device: there.dev(), inode: there.ino() })
    }

    fn is(&self, there: &Metadata) -> bool {
        (self.device, self.inode) == (there.dev(), there.ino())
    }
}

impl Listeners {
    /// Opens all, or none; of `existing` ones those that are wanted again, whatever a name among them
    /// means by now. These are left as they are until [`Opened::settle`]. Forked workers accept until
    /// there is nothing left, so their sockets are non-blocking; a command gets blocking ones, as from
    /// systemd.
    pub(super) fn open(
        addresses: &[Address],
        options: &SocketOptions,
        is_nonblocking: bool,
        existing: &[Rc<Opened>],
    ) -> Result<Self, RunError> {
        let mut left: Vec<_> = existing.iter().map(Rc::clone).collect();
        let mut all = Vec::new();
        for address in addresses {
            let opened = open_address(address, options, is_nonblocking, &mut left);
            all.extend(opened.map_err(|source| {
                let address = address.to_string();
                RunError::Listen { address, source }
            })?);
        }
        Ok(Self { all })
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

    /// Those of the worker of a slot, which are opened where each slot has its own.
    pub(super) fn of_slot(
        &self,
        slot: u32,
        options: &SocketOptions,
    ) -> Result<Vec<Rc<Listener>>, RunError> {
        let own = |opened: &Rc<Opened>| {
            let refused = |source| RunError::Listen { address: opened.shown.clone(), source };
            opened.of_slot(slot, options).map_err(refused)
        };
        self.all.iter().map(own).collect()
    }

    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.all.iter().map(|opened| opened.socket.as_fd()).collect()
    }

    /// Where they really listen, for people.
    pub(super) fn shown(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|opened| opened.shown.as_str())
    }
}

/// The sockets of one address: those that are there already, taken out of `left`, else new ones. The
/// same words may be there twice, each for a port of its own.
fn open_address(
    address: &Address,
    options: &SocketOptions,
    is_nonblocking: bool,
    left: &mut Vec<Rc<Opened>>,
) -> io::Result<Vec<Rc<Opened>>> {
    let most = if address.is_several() { usize::MAX } else { 1 };
    let mut kept = Vec::new();
    while kept.len() < most
        && let Some(found) = left.iter().position(|opened| opened.address == *address)
    {
        kept.push(left.remove(found));
    }
    match address {
        Address::Tcp { .. } if !kept.is_empty() => Ok(kept),
        Address::Tcp { host, port } => {
            let addresses = resolve(host.as_deref(), *port)?;
            let mut open = |at: SocketAddr| {
                let shown = format!("tcp://{at}");
                if let Some(found) = left.iter().position(|opened| opened.shown == shown) {
                    return Ok(left.remove(found));
                }
                Opened::open_tcp(address, at, options, is_nonblocking).map(Rc::new)
            };
            match address.is_several() {
                true => all_there_are(&addresses, open),
                false => first_that_works(&addresses, &mut open).map(|one| vec![one]),
            }
        }
        Address::Unix(path) => {
            let is_there = |opened: &Rc<Opened>| match &opened.address {
                Address::Unix(own) => folder::place(own) == folder::place(path),
                Address::Tcp { .. } | Address::Descriptor(_) | Address::Named(_) => false,
            };
            let found = left.iter().position(is_there).filter(|_| kept.is_empty());
            let kept = kept.pop().or_else(|| Some(left.remove(found?)));
            Ok(vec![match kept {
                Some(kept) => {
                    // It is given to its owner later, where no answer is waited for.
                    options.try_owner()?;
                    kept
                }
                None => Rc::new(Opened::open_unix(path, options, is_nonblocking)?),
            }])
        }
        Address::Descriptor(_) | Address::Named(_) if !kept.is_empty() => Ok(kept),
        Address::Descriptor(number) => {
            let passed = passed::take().numbered(*number)?;
            Ok(vec![Rc::new(Opened::passed(address, passed, is_nonblocking)?)])
        }
        Address::Named(name) => {
            let passed = passed::take().named(name)?.into_iter();
            passed.map(|it| Opened::passed(address, it, is_nonblocking).map(Rc::new)).collect()
        }
    }
}

/// Warns of sockets that were passed to this process and are listened on by nobody, if it listens at all.
pub(super) fn tell_unused(addresses: &[Address]) {
    for (number, name) in passed::take().announced() {
        let is_it = |address: &Address| match address {
            Address::Descriptor(own) => *own == number,
            Address::Named(own) => own == name,
            Address::Tcp { .. } | Address::Unix(_) => false,
        };
        if !addresses.iter().any(is_it) {
            warn!(
                "nobody accepts on descriptor {number}, which LISTEN_FDS has passed: listen on \
                 sd:{name} or fd:{number}"
            );
        }
    }
}

impl Opened {
    fn open_tcp(
        address: &Address,
        at: SocketAddr,
        options: &SocketOptions,
        is_nonblocking: bool,
    ) -> io::Result<Self> {
        let socket = open_tcp(at, options)?;
        socket.set_nonblocking(is_nonblocking)?;
        let listener = TcpListener::from(socket);
        let shown = format!("tcp://{}", listener.local_addr()?);
        Ok(Self {
            address: address.clone(),
            socket: Rc::new(Listener::Tcp(listener)),
            spread: RefCell::new(options.reuse_port.then(Spread::new)),
            made: Cell::new(None),
            shown,
            applied: RefCell::new(Some(options.clone())),
        })
    }

    fn open_unix(path: &Path, options: &SocketOptions, is_nonblocking: bool) -> io::Result<Self> {
        let socket = open_unix(path, options)?;
        socket.set_nonblocking(is_nonblocking)?;
        let address = Address::Unix(path.to_owned());
        Ok(Self {
            shown: address.to_string(),
            address,
            made: Cell::new(Some(MadeSocket::at(path)?)),
            socket: Rc::new(Listener::Unix(socket.into())),
            spread: RefCell::new(None),
            applied: RefCell::new(Some(options.clone())),
        })
    }

    /// One that was there when this program was started.
    fn passed(address: &Address, socket: OwnedFd, is_nonblocking: bool) -> io::Result<Self> {
        let shown = {
            let socket = SockRef::from(&socket);
            socket.set_nonblocking(is_nonblocking)?;
            let own = socket.local_addr()?;
            match (own.as_socket(), own.as_pathname()) {
                (Some(at), _) => format!("tcp://{at}"),
                (None, Some(path)) => Address::Unix(path.to_owned()).to_string(),
                (None, None) => address.to_string(),
            }
        };
        Ok(Self {
            address: address.clone(),
            socket: Rc::new(listener_of(socket)),
            spread: RefCell::new(None),
            made: Cell::new(None),
            shown,
            applied: RefCell::new(None),
        })
    }

    /// Whether there can be others at the same address.
    fn can_be_spread(&self) -> bool {
        matches!(self.address, Address::Tcp { .. })
    }

    /// All of its descriptors.
    pub(super) fn raw_fds(&self) -> Vec<RawFd> {
        let slots = self.slots().into_iter().map(|(_, socket)| socket.as_fd().as_raw_fd());
        [self.socket.as_fd().as_raw_fd()].into_iter().chain(slots).collect()
    }

    /// The name by which a command knows it, if it has one of its own.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.address {
            Address::Named(name) => Some(name),
            Address::Tcp { .. } | Address::Unix(_) | Address::Descriptor(_) => None,
        }
    }

    /// One that another process has opened for this one; with these options, if they are known, and with the
    /// sockets of slots but the first, in the kernel's order.
    pub(super) fn received(
        address: Address,
        socket: OwnedFd,
        made: Option<MadeSocket>,
        shown: String,
        options: Option<SocketOptions>,
        slots: Vec<(u32, OwnedFd)>,
    ) -> Self {
        let socket = Rc::new(listener_of(socket));
        let of_slot = |(slot, socket)| (slot, Rc::new(listener_of(socket)));
        let slots: Vec<_> = slots.into_iter().map(of_slot).collect();
        let spread = RefCell::new((!slots.is_empty()).then(|| Spread::received(slots)));
        Self {
            address,
            socket,
            spread,
            made: Cell::new(made),
            shown,
            applied: RefCell::new(options),
        }
    }

    /// Makes a socket that listens already what these options say, as far as it is not. No connection
    /// that waits is lost.
    pub(super) fn settle(&self, options: &SocketOptions) -> io::Result<()> {
        if self.applied.borrow().as_ref() == Some(options)
            || matches!(self.address, Address::Descriptor(_) | Address::Named(_))
        {
            return Ok(());
        }
        let former = self.applied.replace(Some(options.clone()));
        for (_, socket) in self.slots() {
            let socket = SockRef::from(&*socket);
            socket.listen(options.backlog())?;
            options.apply_to_tcp(&socket)?;
        }
        let socket = SockRef::from(&*self.socket);
        // The kernel takes a socket that listens at its word and changes the length of its queue.
        socket.listen(options.backlog())?;
        match (&self.address, self.made.get()) {
            (Address::Tcp { .. }, _) => options.apply_to_tcp(&socket),
            (Address::Descriptor(_) | Address::Named(_), _) => Ok(()),
            (Address::Unix(path), Some(made)) => {
                let had_owner = former.is_some_and(|former| former.owner.is_some());
                options.apply_to_file(path, Some(made), had_owner)
            }
            (Address::Unix(_), None) => Ok(()),
        }
    }
}

fn listener_of(socket: OwnedFd) -> Listener {
    let is_unix = SockRef::from(&socket).domain().is_ok_and(|it| it == Domain::UNIX);
    if is_unix { Listener::Unix(socket.into()) } else { Listener::Tcp(socket.into()) }
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
        if there.is_ok_and(|it| made.is(&it)) {
            // Left behind, it would be replaced as stale by the next master.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(addresses: &[Address], existing: &[Rc<Opened>]) -> Listeners {
        Listeners::open(addresses, &SocketOptions::default(), true, existing).unwrap()
    }

    #[test]
    fn ports_that_the_kernel_chose_for_the_same_words_stay_as_many() {
        let address = Address::Tcp { host: Some("127.0.0.1".to_owned()), port: 0 };
        let both = [address.clone(), address];
        let first = open(&both, &[]);
        let again = open(&both, first.all());
        assert_eq!(first.shown().collect::<Vec<_>>(), again.shown().collect::<Vec<_>>());
    }

    #[test]
    fn only_its_own_socket_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listeners = open(&[Address::Unix(path.clone())], &[]);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(listeners);
        assert!(path.exists());
    }

    #[test]
    fn a_name_is_all_its_addresses_and_keeps_them() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let name = [Address::Tcp { host: Some("localhost".to_owned()), port }];
        let first = open(&name, &[]);
        assert_eq!(first.len(), name[0].resolved().len());
        let again = open(&name, first.all());
        assert!(again.all().iter().zip(first.all()).all(|(one, other)| Rc::ptr_eq(one, other)));
        let literal = [Address::Tcp { host: Some("127.0.0.1".to_owned()), port }];
        assert!(first.all().iter().any(|it| Rc::ptr_eq(it, &open(&literal, first.all()).all()[0])));
    }

    #[test]
    fn a_socket_that_listens_takes_on_other_options() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listeners = open(&[Address::Unix(path.clone())], &[]);
        let _waiting = connect(&path).unwrap();
        let options = SocketOptions { backlog: 1, mode: 0o640, ..SocketOptions::default() };
        listeners.all()[0].settle(&options).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        let mut more = (0..8).map(|_| connect(&path));
        assert!(more.any(|it| it.is_err()), "the queue is short now");
    }
}
