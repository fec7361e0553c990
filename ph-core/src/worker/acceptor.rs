//! How tasks get their connections: each wakes one of the workers that wait for it, as with the other classes.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::task::{self, Poll};
use std::time::Duration;

use tokio::io::unix::AsyncFd;

use super::serve::accept_one;
use super::{Connection, Listener};
use crate::sys::exclusive::{self, Exclusive};

/// Of those that are idle, the kernel wakes whoever was first to ask for the listener, time and again. After so
/// many connections a worker asks anew and is the last one, or it would have all the clients that stay (so does
/// nginx since 1.21.6, as often).
const TURN: u32 = 16;

/// Takes connections from all listeners, from each in its turn. It has to be suspended before its worker waits
/// for anything else than the next connection.
pub(super) struct Acceptor<'a> {
    listeners: &'a [&'a Listener],
    waits: Vec<Wait>,
    /// How long a wait may last before the next look: a worker that was woken may have had no descriptor.
    look_every: Option<Duration>,
    is_suspended: bool,
    /// Connections of this turn.
    taken: u32,
    next: usize,
}

/// The wait for one listener.
struct Wait {
    fd: AsyncFd<OwnedFd>,
    exclusive: Option<Exclusive>,
}

impl Wait {
    fn for_all(listeners: &[&Listener]) -> io::Result<Vec<Self>> {
        let own = |listener: &&Listener| listener.as_fd().try_clone_to_owned();
        let registered = listeners.iter().map(|listener| exclusive::register(own(listener)?));
        let fds = registered.collect::<io::Result<Vec<_>>>()?;
        let exclusive = Exclusive::take_over(fds.iter().map(AsyncFd::as_fd))?;
        if exclusive.iter().any(Option::is_none) {
            tracing::debug!("a connection wakes all workers: there is no exclusive wait here");
        }
        Ok(fds.into_iter().zip(exclusive).map(|(fd, exclusive)| Self { fd, exclusive }).collect())
    }

    fn suspend(&mut self) -> io::Result<()> {
        let Self { fd, exclusive } = self;
        exclusive.as_mut().map_or(Ok(()), |exclusive| exclusive.suspend(fd.as_fd()))
    }

    fn resume(&mut self) -> io::Result<()> {
        let Self { fd, exclusive } = self;
        exclusive.as_mut().map_or(Ok(()), |exclusive| exclusive.resume(fd.as_fd()))
    }

    /// Whether something has happened since it was last asked.
    fn poll(&self, cx: &mut task::Context<'_>) -> io::Result<bool> {
        match self.fd.poll_read_ready(cx) {
            Poll::Ready(ready) => ready.map(|mut ready| {
                ready.clear_ready();
                true
            }),
            Poll::Pending => Ok(false),
        }
    }
}

impl Drop for Wait {
    /// tokio takes out what it has put in, and keeps for good what it does not find.
    fn drop(&mut self) {
        let _ = self.resume();
    }
}

impl<'a> Acceptor<'a> {
    pub(super) fn new(
        listeners: &'a [&'a Listener],
        look_every: Option<Duration>,
    ) -> io::Result<Self> {
        let waits = Wait::for_all(listeners)?;
        Ok(Self { listeners, waits, look_every, is_suspended: false, taken: 0, next: 0 })
    }

    /// Until the next [`accept`](Self::accept) no connection wakes this worker. One that cannot be suspended is
    /// woken in vain.
    pub(super) fn suspend(&mut self) {
        self.is_suspended = true;
        for wait in &mut self.waits {
            if let Err(error) = wait.suspend() {
                tracing::warn!("cannot leave connections to other workers: {error}");
            }
        }
    }

    /// What is there now, if anything is.
    pub(super) fn look(&mut self) -> io::Result<Option<Connection>> {
        accept_one(self.listeners, &mut self.next, false)
    }

    /// The next connection.
    pub(super) async fn accept(&mut self) -> io::Result<Connection> {
        if self.taken >= TURN {
            self.suspend();
        }
        if self.is_suspended {
            self.taken = 0;
            self.waits.iter_mut().try_for_each(Wait::resume)?;
            self.is_suspended = false;
        }
        tokio::task::coop::consume_budget().await;
        loop {
            if let Some(connection) = self.look()? {
                self.taken += 1;
                return Ok(connection);
            }
            let happened = poll_fn(|cx| self.poll(cx));
            match self.look_every {
                None => happened.await?,
                Some(every) => tokio::time::timeout(every, happened).await.unwrap_or(Ok(()))?,
            }
        }
    }

    fn poll(&self, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        // All are asked, so that each can wake this task.
        let mut happened = false;
        for wait in &self.waits {
            match wait.poll(cx) {
                Ok(has_happened) => happened |= has_happened,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if happened { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn listen() -> (Listener, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (Listener::Tcp(listener), address)
    }

    fn wait_asleep(thread: nix::unistd::Pid) {
        let stat = format!("/proc/self/task/{thread}/stat");
        let give_up = clock::monotonic() + clock::nanos(PATIENCE);
        while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
            assert!(clock::monotonic() < give_up, "it does not fall asleep");
            std::thread::yield_now();
        }
    }

    /// Another worker was woken for the first listener, and took something else.
    #[test]
    fn who_is_woken_for_one_listener_looks_at_the_others_too() {
        let ((quiet, first), (loud, second)) = (listen(), listen());
        let other = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        other.add(&quiet, EpollEvent::new(flags, 0)).unwrap();
        let (tell, told) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                tell.send(nix::unistd::gettid()).unwrap();
                let patience = EpollTimeout::try_from(PATIENCE).unwrap();
                assert_eq!(other.wait(&mut [EpollEvent::empty()], patience), Ok(1));
            });
            wait_asleep(told.recv().unwrap());
            runtime.block_on(async {
                let listeners = [&quiet, &loud];
                let mut acceptor = Acceptor::new(&listeners, None).unwrap();
                let _clients = [first, second].map(|address| TcpStream::connect(address).unwrap());
                for _ in 0..2 {
                    tokio::time::timeout(PATIENCE, acceptor.accept()).await.unwrap().unwrap();
                }
            });
        });
    }
}
