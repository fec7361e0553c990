//! A socket for each slot at one address (`reuse_port`), so that no two workers wait at the same one.
//!
//! A worker and its successor share the socket of their slot, so what is queued there outlives either. New
//! connections go only to slots that have a worker which is ready; when a slot goes, its socket is taken out of
//! the kernel's choice before its worker is told, which then answers what is queued. The first socket is that
//! of slot 0, and stays as long as the address is listened on.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use socket2::SockRef;
use tracing::warn;

use super::Opened;
use super::open::open_tcp_beside;
use super::options::SocketOptions;
use crate::sys::reuseport;
use crate::worker::Listener;

/// The sockets of one address, but for the first.
#[derive(Debug)]
pub(super) struct Spread {
    sockets: BTreeMap<u32, Rc<Listener>>,
    /// The slots in the kernel's order: the number of a socket is its place here.
    order: Vec<u32>,
    /// What the kernel was told last.
    chosen: Option<Vec<u32>>,
}

/// No number of a socket: that master may have told the kernel something.
const UNKNOWN: u32 = u32::MAX;

impl Spread {
    /// Of the first socket alone.
    pub(super) fn new() -> Self {
        Self { sockets: BTreeMap::new(), order: vec![0], chosen: None }
    }

    /// With sockets that another master has opened, in the kernel's order.
    pub(super) fn received(sockets: impl IntoIterator<Item = (u32, Rc<Listener>)>) -> Self {
        let mut spread = Self { chosen: Some(vec![UNKNOWN]), ..Self::new() };
        for (slot, socket) in sockets {
            spread.order.push(slot);
            spread.sockets.insert(slot, socket);
        }
        spread
    }

    /// Closes the socket of a slot, also where a process that should be gone still has it.
    fn close(&mut self, slot: u32) {
        let Some(socket) = self.sockets.remove(&slot) else { return };
        // It listens, so this is possible.
        let _ = SockRef::from(&*socket).shutdown(Shutdown::Both);
        if let Some(place) = self.order.iter().position(|other| *other == slot) {
            self.order.swap_remove(place);
        }
    }

    fn choose(&mut self, socket: &Listener, is_chosen: impl Fn(u32) -> bool) -> io::Result<()> {
        let numbered = (0..).zip(&self.order);
        let mut numbers: Vec<u32> =
            numbered.filter(|(_, slot)| is_chosen(**slot)).map(|(number, _)| number).collect();
        if numbers.len() == self.order.len() {
            // Then the kernel chooses, by the client's address.
            numbers.clear();
        }
        if self.chosen.as_ref() == Some(&numbers) || (self.chosen.is_none() && numbers.is_empty()) {
            return Ok(());
        }
        let done = reuseport::choose(socket, &numbers);
        self.chosen = Some(numbers);
        done
    }
}

impl Opened {
    /// The socket that the worker of a slot accepts from; it is opened if it is not there yet.
    pub(in super::super) fn of_slot(
        &self,
        slot: u32,
        options: &SocketOptions,
    ) -> io::Result<Rc<Listener>> {
        if !options.reuse_port || !self.can_be_spread() {
            return Ok(Rc::clone(&self.socket));
        }
        let mut place = self.spread.borrow_mut();
        let first = SockRef::from(&*self.socket);
        if place.is_none() {
            first.set_reuse_port(true)?;
        }
        let spread = place.get_or_insert_with(Spread::new);
        if slot == 0 {
            return Ok(Rc::clone(&self.socket));
        }
        if let Some(socket) = spread.sockets.get(&slot) {
            return Ok(Rc::clone(socket));
        }
        let socket = open_tcp_beside(&first, options)?;
        let socket = Rc::new(Listener::Tcp(socket.into()));
        spread.order.push(slot);
        spread.sockets.insert(slot, Rc::clone(&socket));
        Ok(socket)
    }

    /// Has connections come to the sockets of the slots that are chosen, or to all if none is, and closes
    /// those of slots that nobody keeps.
    pub(in super::super) fn respread(
        &self,
        is_chosen: impl Fn(u32) -> bool,
        is_kept: impl Fn(u32) -> bool,
    ) {
        let Some(spread) = &mut *self.spread.borrow_mut() else { return };
        let gone: Vec<u32> =
            spread.sockets.keys().copied().filter(|slot| !is_kept(*slot)).collect();
        for slot in gone {
            spread.close(slot);
        }
        if let Err(error) = spread.choose(&self.socket, is_chosen) {
            warn!("{}: workers that are not ready get connections too: {error}", self.shown);
        }
    }

    pub(in super::super) fn is_spread(&self) -> bool {
        self.spread.borrow().is_some()
    }

    /// All sockets but the first, by their slots, in the kernel's order.
    pub(in super::super) fn slots(&self) -> Vec<(u32, Rc<Listener>)> {
        let spread = self.spread.borrow();
        let Some(spread) = &*spread else { return Vec::new() };
        let socket = |slot: &u32| Some((*slot, Rc::clone(spread.sockets.get(slot)?)));
        spread.order.iter().filter_map(socket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Address, Listeners};
    use super::*;
    use std::net::TcpStream;

    const OPTIONS: fn() -> SocketOptions =
        || SocketOptions { reuse_port: true, ..SocketOptions::default() };

    fn opened() -> Rc<Opened> {
        let address = Address::Tcp { host: Some("127.0.0.1".to_owned()), port: 0 };
        let listeners = Listeners::open(&[address], &OPTIONS(), true, &[]).unwrap();
        Rc::clone(&listeners.all()[0])
    }

    /// How many of so many connections come to the socket of each slot.
    fn came(opened: &Opened, slots: &[u32]) -> Vec<usize> {
        let address = opened.shown.strip_prefix("tcp://").unwrap();
        let clients: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
        let sockets = slots.iter().map(|slot| opened.of_slot(*slot, &OPTIONS()).unwrap());
        let came = sockets.map(|socket| taken_from(&socket)).collect();
        drop(clients);
        came
    }

    fn taken_from(socket: &Listener) -> usize {
        let Listener::Tcp(socket) = socket else { panic!("{socket:?}") };
        std::iter::from_fn(|| socket.accept().ok()).count()
    }

    #[test]
    fn only_slots_that_are_chosen_get_connections() {
        let opened = opened();
        for slot in 0..4 {
            opened.of_slot(slot, &OPTIONS()).unwrap();
        }
        opened.respread(|slot| slot == 2, |_| true);
        assert_eq!(came(&opened, &[0, 1, 2, 3]), [0, 0, 40, 0]);
        // The last one takes the place of one that is closed.
        opened.respread(|slot| slot == 3, |slot| slot != 1);
        assert_eq!(came(&opened, &[0, 2, 3]), [0, 0, 40]);
        opened.of_slot(1, &OPTIONS()).unwrap();
        opened.respread(|slot| slot == 1, |_| true);
        assert_eq!(came(&opened, &[0, 2, 3, 1]), [0, 0, 0, 40]);
        opened.respread(|_| false, |slot| slot < 2);
        assert_eq!(came(&opened, &[0, 1]).iter().sum::<usize>(), 40);
        assert_eq!(opened.slots().len(), 1);
    }

    #[test]
    fn a_socket_that_was_shared_can_be_spread() {
        let address = Address::Tcp { host: Some("127.0.0.1".to_owned()), port: 0 };
        let shared = SocketOptions::default();
        let listeners = Listeners::open(&[address], &shared, true, &[]).unwrap();
        let opened = &listeners.all()[0];
        let first = opened.of_slot(5, &shared).unwrap();
        assert!(Rc::ptr_eq(&first, &opened.of_slot(0, &OPTIONS()).unwrap()));
        let other = opened.of_slot(5, &OPTIONS()).unwrap();
        assert!(!Rc::ptr_eq(&first, &other));
        opened.respread(|slot| slot == 5, |_| true);
        assert_eq!(came(opened, &[0, 5]), [0, 40]);
    }
}
