//! How tasks get their connections: each wakes one of the workers that wait for it, as with the other classes.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Poll;

use super::{AsyncConnection, Listener};
use crate::sys::exclusive::Exclusive;

/// Of those that are idle, the kernel wakes whoever was first to ask for the listener, time and again. After so
/// many connections a worker asks anew and is the last one, or it would have all the clients that stay (so does
/// nginx since 1.21.6, as often).
const TURN: u32 = 16;

/// Takes connections from all listeners, from each in its turn. A connection wakes one of the workers that wait
/// in [`accept`](Self::accept), so whoever is not going to be there has to be suspended.
pub(super) struct Acceptor {
    listeners: Vec<AsyncListener>,
    /// Of each listener, where that can be had.
    exclusive: Vec<Option<Exclusive>>,
    is_suspended: bool,
    /// Connections of this turn.
    taken: u32,
    next: usize,
}

enum AsyncListener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl AsFd for AsyncListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Acceptor {
    pub(super) fn new(listeners: &[&Listener]) -> io::Result<Self> {
        let listeners = listeners.iter().map(|listener| {
            Ok(match listener {
                Listener::Tcp(listener) => {
                    let own = listener.try_clone()?;
                    AsyncListener::Tcp(tokio::net::TcpListener::from_std(own)?)
                }
                Listener::Unix(listener) => {
                    let own = listener.try_clone()?;
                    AsyncListener::Unix(tokio::net::UnixListener::from_std(own)?)
                }
            })
        });
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        let exclusive =
            listeners.iter().map(|it| Exclusive::of(it.as_fd())).collect::<io::Result<_>>()?;
        Ok(Self { listeners, exclusive, is_suspended: false, taken: 0, next: 0 })
    }

    /// Until the next [`accept`](Self::accept) no connection wakes this worker.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        self.is_suspended = true;
        self.each_exclusive(Exclusive::suspend)
    }

    fn each_exclusive(
        &mut self,
        act: impl Fn(&mut Exclusive, BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut all = self.exclusive.iter_mut().zip(&self.listeners);
        all.try_for_each(|(exclusive, listener)| match exclusive {
            Some(exclusive) => act(exclusive, listener.as_fd()),
            None => Ok(()),
        })
    }

    pub(super) async fn accept(&mut self) -> io::Result<AsyncConnection> {
        if self.taken >= TURN {
            self.suspend()?;
        }
        if self.is_suspended {
            self.taken = 0;
            self.each_exclusive(Exclusive::resume)?;
            self.is_suspended = false;
        }
        let accepted = poll_fn(|cx| {
            for _ in 0..self.listeners.len() {
                let listener = &self.listeners[self.next % self.listeners.len()];
                self.next = self.next.wrapping_add(1);
                let accepted = match listener {
                    AsyncListener::Tcp(listener) => listener
                        .poll_accept(cx)
                        .map_ok(|(stream, peer)| AsyncConnection::Tcp(stream, peer)),
                    AsyncListener::Unix(listener) => {
                        listener.poll_accept(cx).map_ok(|(stream, _)| AsyncConnection::Unix(stream))
                    }
                };
                match accepted {
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {
                        // There may be another behind it.
                        cx.waker().wake_by_ref();
                    }
                    Poll::Ready(accepted) => return Poll::Ready(accepted),
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await;
        self.taken += 1;
        accepted
    }
}
