//! A listening socket as its workers see it.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;

use super::Connection;

/// A listening socket, non-blocking, shared with all workers.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().map(|(stream, peer)| Connection::Tcp(stream, peer))
            }
            Self::Unix(listener) => listener.accept().map(|(stream, _)| Connection::Unix(stream)),
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
