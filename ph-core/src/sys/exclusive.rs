//! An exclusive wait for a listener that another library has put into its epoll.
//!
//! A runtime without such an interest (tokio, by mio) is woken in every process for each connection to a listener
//! that processes share. Here its registration is made anew, with the same data and `EPOLLEXCLUSIVE`: the
//! library finds it by the data, and takes it out by the descriptor, as before. The kernel says what the data is
//! (proc_pid_fdinfo(5)).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::fds;

/// The registration of one descriptor, which is named at each call again because somebody else owns it.
#[derive(Debug)]
pub(crate) struct Exclusive {
    epoll: Epoll,
    data: u64,
    is_in: bool,
}

impl Exclusive {
    /// Makes the wait for a descriptor exclusive and edge-triggered. `None` where that is impossible: it is in
    /// no epoll that can be found, or the kernel is too old; then it waits as before.
    ///
    /// # Errors
    ///
    /// It is in no epoll any more.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let Some((epoll, events, data)) = registration(fd.as_raw_fd()) else {
            return Ok(None);
        };
        epoll.delete(fd)?;
        let mut exclusive = Self { epoll, data, is_in: false };
        if exclusive.resume(fd).is_ok() {
            return Ok(Some(exclusive));
        }
        let former = EpollEvent::new(EpollFlags::from_bits_retain(events), data);
        exclusive.epoll.add(fd, former)?;
        Ok(None)
    }

    /// Wakes nobody until [`resume`](Self::resume), so that a connection wakes another process.
    pub(crate) fn suspend(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if std::mem::take(&mut self.is_in) {
            self.epoll.delete(fd)?;
        }
        Ok(())
    }

    /// Waits again; whatever is there already is an event.
    pub(crate) fn resume(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if !self.is_in {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET | EpollFlags::EPOLLEXCLUSIVE;
            self.epoll.add(fd, EpollEvent::new(flags, self.data))?;
            self.is_in = true;
        }
        Ok(())
    }
}

/// The epoll of this process that has the descriptor, with its events and its data.
fn registration(fd: RawFd) -> Option<(Epoll, i32, u64)> {
    for entry in std::fs::read_dir("/proc/self/fd").ok()?.flatten() {
        let is_epoll = std::fs::read_link(entry.path())
            .is_ok_and(|target| target.as_os_str() == "anon_inode:[eventpoll]");
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        let Some(number) = number.filter(|_| is_epoll) else { continue };
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
        let info = info.unwrap_or_default();
        if let Some((events, data)) = info.lines().find_map(|line| target_of(line, fd)) {
            return Some((Epoll(fds::duplicate_number(number)?), events, data));
        }
    }
    None
}

/// The events and the data of a line `tfd: 7 events: 80002019 data: 7f3c ...` about this descriptor.
fn target_of(line: &str, fd: RawFd) -> Option<(i32, u64)> {
    let mut words = line.split_ascii_whitespace();
    let mut after = |name: &str| (words.next()? == name).then(|| words.next()).flatten();
    if after("tfd:")?.parse() != Ok(fd) {
        return None;
    }
    let events = u32::from_str_radix(after("events:")?, 16).ok()?;
    Some((events.cast_signed(), u64::from_str_radix(after("data:")?, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    #[test]
    fn what_is_in_no_epoll_stays_as_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Exclusive::of(listener.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_registration_keeps_its_data_and_comes_back() {
        const DATA: u64 = 0xfedc_ba98_7654_3210;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = listener.as_fd();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let plain = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        epoll.add(fd, EpollEvent::new(plain, DATA)).unwrap();
        let mut exclusive = Exclusive::of(fd).unwrap().unwrap();
        let (_, events, data) = registration(fd.as_raw_fd()).unwrap();
        assert_eq!(data, DATA);
        let events = EpollFlags::from_bits_retain(events);
        assert!(events.contains(EpollFlags::EPOLLEXCLUSIVE | EpollFlags::EPOLLET), "{events:?}");

        let happened = || {
            let mut events = [EpollEvent::empty()];
            let count = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
            (count > 0).then(|| events[0].data())
        };
        exclusive.suspend(fd).unwrap();
        exclusive.suspend(fd).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(registration(fd.as_raw_fd()).is_none());
        assert_eq!(happened(), None);
        exclusive.resume(fd).unwrap();
        exclusive.resume(fd).unwrap();
        assert_eq!((happened(), happened()), (Some(DATA), None));
    }
}
