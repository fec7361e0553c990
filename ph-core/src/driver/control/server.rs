//! The socket and all its clients: who is let in, whose time is up, and what the loop waits for.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use socket2::Socket;
use tracing::warn;

use super::client::{Client, Gone, Stage};
use super::{ControlSocket, Listening};
use crate::arbiter::Time;
use crate::control::{Reply, Request};
use crate::sys::peer;

/// What an epoll event about the socket itself is; those about clients have their number added.
pub(in crate::driver) const CONTROL_FROM: u64 = 1 << 62;

/// Clients at the same time.
const CLIENTS_MAX: usize = 64;

/// Clients let in in one turn of the loop.
const ACCEPTS_A_TURN: usize = 8;

/// The pause after a client that could not be let in, as for want of a descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The control socket of a running master; of one without a socket it is empty.
#[derive(Debug, Default)]
pub(in crate::driver) struct Server {
    listening: Option<Listening>,
    rules: ControlSocket,
    clients: BTreeMap<u64, Client>,
    next: u64,
    /// Nobody is let in before this.
    paused_until: Option<Time>,
}

impl Server {
    /// Takes over an open socket, in the place of the former one.
    pub(in crate::driver) fn listen(
        &mut self,
        listening: Listening,
        rules: &ControlSocket,
        epoll: &Epoll,
    ) -> nix::Result<()> {
        epoll.add(&listening.socket, EpollEvent::new(EpollFlags::EPOLLIN, CONTROL_FROM))?;
        self.close(epoll);
        self.listening = Some(listening);
        self.rules = rules.clone();
        Ok(())
    }

    /// Whether there is a socket, and its path leads to it.
    pub(in crate::driver) fn is_in_place(&self) -> bool {
        self.listening.as_ref().is_some_and(Listening::is_in_place)
    }

    /// Its descriptors, which are nobody's but the master's.
    pub(in crate::driver) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        let socket = self.listening.iter().map(Listening::raw_fd);
        socket.chain(self.clients.values().map(|it| it.as_fd().as_raw_fd()))
    }

    /// When the loop has to look here again.
    pub(in crate::driver) fn deadline(&self) -> Option<Time> {
        let clients = self.clients.values();
        let of_clients = clients.flat_map(|client| [client.deadline(), client.look_at]).flatten();
        of_clients.chain(self.paused_until).min()
    }

    /// Removes the socket's file, while the lock of the service is still held. Clients stay.
    pub(in crate::driver) fn close(&mut self, epoll: &Epoll) {
        if let Some(listening) = self.listening.take() {
            let _ = epoll.delete(&listening.socket);
        }
    }

    /// Lets in some of those who wait.
    pub(super) fn accept(&mut self, epoll: &Epoll, now: Time) {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(listening) = &self.listening else { return };
            // Close-on-exec from birth.
            let socket = match listening.socket.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_one_client(&error) => continue,
                Err(error) => return self.pause(&error, epoll, now),
            };
            if let Err(error) = self.let_in(socket, epoll, now) {
                warn!("a client of the control socket was turned away: {error}");
            }
        }
    }

    fn let_in(&mut self, socket: Socket, epoll: &Epoll, now: Time) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let who = peer::credentials(&socket)?;
        let mut client = Client::new(socket, who, now);
        let refusal = if !self.rules.allows(who, || peer::groups(&client).unwrap_or_default()) {
            Some(format!("user {} may not ask this master", who.uid()))
        } else if self.clients.len() >= CLIENTS_MAX {
            Some(format!("{CLIENTS_MAX} clients are here already; try again"))
        } else {
            None
        };
        if let Some(why) = refusal {
            client.end(&Reply::Error(why), now);
            // A fresh socket has room for a line.
            let _ = client.flush(now);
            return Ok(());
        }
        let token = CONTROL_FROM + 1 + self.next;
        let interest = client.new_interest().unwrap_or(EpollFlags::EPOLLIN);
        epoll.add(&client, EpollEvent::new(interest, token))?;
        self.next += 1;
        self.clients.insert(token, client);
        Ok(())
    }

    /// The loop would be told of the same client again at once, and so spin.
    fn pause(&mut self, error: &io::Error, epoll: &Epoll, now: Time) {
        warn!("the control socket cannot let a client in: {error}");
        self.paused_until = Some(now.after(ACCEPT_PAUSE));
        self.watch_socket(EpollFlags::empty(), epoll);
    }

    fn watch_socket(&self, flags: EpollFlags, epoll: &Epoll) {
        if let Some(listening) = &self.listening {
            // It was added when it was opened, so it can be changed.
            let _ = epoll.modify(&listening.socket, &mut EpollEvent::new(flags, CONTROL_FROM));
        }
    }

    /// What a client asks for, once it is whole; one that has left is forgotten.
    pub(super) fn hear(
        &mut self,
        token: u64,
        flags: EpollFlags,
        epoll: &Epoll,
        now: Time,
    ) -> Option<Request> {
        let client = self.clients.get_mut(&token)?;
        let heard = match client.stage {
            Stage::Asking(_) => client.hear(now),
            Stage::Waiting(_) | Stage::Leaving
                if flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) =>
            {
                Err(Gone)
            }
            Stage::Waiting(_) | Stage::Leaving => Ok(None),
        };
        heard.unwrap_or_else(|Gone| {
            self.forget(token, epoll);
            None
        })
    }

    pub(super) fn client(&mut self, token: u64) -> Option<&mut Client> {
        self.clients.get_mut(&token)
    }

    /// All clients, for one that is to be told the same.
    pub(super) fn clients(&mut self) -> impl Iterator<Item = (u64, &mut Client)> {
        self.clients.iter_mut().map(|(token, client)| (*token, client))
    }

    /// Whether nobody is here, and nobody was turned away for a while.
    pub(super) fn is_quiet(&self) -> bool {
        self.clients.is_empty() && self.paused_until.is_none()
    }

    /// A client has left, or is cut off. Closing is not enough: a child forked meanwhile has a copy
    /// until it executes or closes it, and for so long the end would be reported again and again.
    pub(super) fn forget(&mut self, token: u64, epoll: &Epoll) {
        if let Some(client) = self.clients.remove(&token) {
            let _ = epoll.delete(&client);
        }
    }

    /// Sends what is to be sent, and forgets those who have had it all, or their time.
    pub(super) fn serve(&mut self, epoll: &Epoll, now: Time) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.watch_socket(EpollFlags::EPOLLIN, epoll);
        }
        let mut gone = Vec::new();
        for (token, client) in &mut self.clients {
            let is_late = |client: &Client| client.deadline().is_some_and(|at| at <= now);
            if client.flush(now).is_err() || is_late(client) {
                gone.push(*token);
            } else if let Some(interest) = client.new_interest() {
                let _ = epoll.modify(&*client, &mut EpollEvent::new(interest, *token));
            }
        }
        for token in gone {
            self.forget(token, epoll);
        }
    }
}

/// Whether the next client may fare better.
fn is_of_one_client(error: &io::Error) -> bool {
    [io::ErrorKind::Interrupted, io::ErrorKind::ConnectionAborted].contains(&error.kind())
}
