//! A listening socket as its workers see it.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;

use super::Connection;
use crate::sys::sockets;

/// A listening socket, non-blocking, shared with all workers.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// The next connection, blocking or for a runtime.
    pub(super) fn accept(&self, is_blocking: bool) -> io::Result<Connection> {
        let (connection, peer) = sockets::accept(self, is_blocking)?;
        match (self, peer) {
            (Self::Tcp(_), Some(peer)) => Ok(Connection::Tcp(connection.into(), peer)),
            // Nobody can be answered who has no address.
            (Self::Tcp(_), None) => Err(io::ErrorKind::ConnectionAborted.into()),
            (Self::Unix(_), _) => Ok(Connection::Unix(connection.into())),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}
