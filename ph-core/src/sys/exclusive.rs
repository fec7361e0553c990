//! An exclusive wait for a listener that another library has put into its epoll.
//!
//! A runtime without such an interest (tokio, by mio) is woken in every process for each connection to a listener
//! that processes share. Here its registration is made anew, with the same data and `EPOLLEXCLUSIVE`: the library
//! finds it by the data. The kernel says what the data is (proc_pid_fdinfo(5)).
//!
//! A connection then wakes one of the processes that sleep in `epoll_wait`, and is no event for those behind it.
//! So whoever is woken owes a look at all that it listens to, in which it takes one connection if there is any. Who
//! does not sleep there takes no wake away, and need not look.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::stat::fstat;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::fds;

/// Has the runtime this is called on wait until a descriptor is readable.
pub(crate) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: it stays open and the same for as long as its owner lives, which is the value made here.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// The registration of one descriptor, which is named at each call again because somebody else owns it.
#[derive(Debug)]
pub(crate) struct Exclusive {
    epoll: Rc<Epoll>,
    data: u64,
    is_registered: bool,
}

impl Exclusive {
    /// Makes the wait for each of these descriptors exclusive. `None` where that is impossible: it is in no
    /// epoll that can be found, or the kernel is too old; then it waits as before.
    ///
    /// # Errors
    ///
    /// One is in no epoll any more.
    pub(crate) fn take_over<'a>(
        fds: impl IntoIterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<Vec<Option<Self>>> {
        let epolls = Known::all();
        fds.into_iter().map(|fd| Self::of_one(fd, &epolls)).collect()
    }

    fn of_one(fd: BorrowedFd<'_>, epolls: &[Known]) -> io::Result<Option<Self>> {
        let Some((epoll, events, data)) = take_out(fd, epolls) else { return Ok(None) };
        let mut exclusive = Self { epoll, data, is_registered: false };
        if exclusive.resume(fd).is_ok() {
            return Ok(Some(exclusive));
        }
        exclusive.epoll.add(fd, EpollEvent::new(events, data))?;
        Ok(None)
    }

    /// Wakes nobody until [`resume`](Self::resume), so that a connection wakes another process.
    pub(crate) fn suspend(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.is_registered {
            self.epoll.delete(fd)?;
            self.is_registered = false;
        }
        Ok(())
    }

    /// Waits again; whatever is there already is an event. The library must still have the registration that
    /// was taken over: it believes the data.
    pub(crate) fn resume(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if !self.is_registered {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET | EpollFlags::EPOLLEXCLUSIVE;
            self.epoll.add(fd, EpollEvent::new(flags, self.data))?;
            self.is_registered = true;
        }
        Ok(())
    }
}

/// Takes a descriptor out of the epoll that has it, and says what it was there.
fn take_out(fd: BorrowedFd<'_>, epolls: &[Known]) -> Option<(Rc<Epoll>, EpollFlags, u64)> {
    let inode = fstat(fd).ok()?.st_ino;
    epolls.iter().find_map(|Known { epoll, targets }| {
        let target = targets.iter().find(|target| target.is(fd, inode))?;
        epoll.delete(fd).ok()?;
        Some((Rc::clone(epoll), target.events, target.data))
    })
}

/// An epoll of this process, and what it waits for.
struct Known {
    epoll: Rc<Epoll>,
    targets: Vec<Target>,
}

impl Known {
    fn all() -> Vec<Self> {
        fds::open_numbers().into_iter().filter_map(Self::numbered).collect()
    }

    /// `None`: it is no epoll, or is gone meanwhile.
    fn numbered(number: RawFd) -> Option<Self> {
        let link = std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
        if link.as_os_str() != "anon_inode:[eventpoll]" {
            return None;
        }
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
        let epoll = Rc::new(Epoll(fds::duplicate_number(number)?));
        Some(Self { epoll, targets: info.lines().filter_map(Target::parse).collect() })
    }
}

/// A line `tfd: 7 events: 80002019 data: 7f3c pos:0 ino:1a sdev:8` of an epoll.
struct Target {
    fd: RawFd,
    events: EpollFlags,
    data: u64,
    inode: u64,
}

impl Target {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let mut after = |name: &str| (words.next()? == name).then(|| words.next()).flatten();
        let fd = after("tfd:")?.parse().ok()?;
        let events = u32::from_str_radix(after("events:")?, 16).ok()?;
        let data = u64::from_str_radix(after("data:")?, 16).ok()?;
        let inode = words.find_map(|word| word.strip_prefix("ino:"))?;
        Some(Self {
            fd,
            events: EpollFlags::from_bits_retain(events.cast_signed()),
            data,
            inode: u64::from_str_radix(inode, 16).ok()?,
        })
    }

    /// A number may have meant another file when it was entered.
    fn is(&self, fd: BorrowedFd<'_>, inode: u64) -> bool {
        self.fd == fd.as_raw_fd() && self.inode == inode
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    const DATA: u64 = 0xfedc_ba98_7654_3210;

    fn epoll_with(fd: BorrowedFd<'_>) -> Epoll {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let plain = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        epoll.add(fd, EpollEvent::new(plain, DATA)).unwrap();
        epoll
    }

    fn take_over(fd: BorrowedFd<'_>) -> Option<Exclusive> {
        Exclusive::take_over([fd]).unwrap().pop().unwrap()
    }

    fn happened(epoll: &Epoll) -> Option<u64> {
        let mut events = [EpollEvent::empty()];
        let count = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
        (count > 0).then(|| events[0].data())
    }

    #[test]
    fn what_is_in_no_epoll_stays_as_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(take_over(listener.as_fd()).is_none());
    }

    /// A copy keeps the file of a number that is closed, and with it what an epoll knows of that number.
    #[test]
    fn a_number_that_meant_another_file_is_not_taken_for_this_one() {
        let former = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = former.as_raw_fd();
        let stale = epoll_with(former.as_fd());
        let _copy = former.try_clone().unwrap();
        let replaced = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::parse(&format!("tfd: {number} events: 1 data: 0 pos:0 ino:1 sdev:8"));
        assert!(!target.unwrap().is(former.as_fd(), fstat(&replaced).unwrap().st_ino));
        assert!(take_over(replaced.as_fd()).is_none());
        assert!(take_out(former.as_fd(), &Known::all()).is_some());
        drop(stale);
    }

    #[test]
    fn a_registration_keeps_its_data_and_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (fd, address) = (listener.as_fd(), listener.local_addr().unwrap());
        let epoll = epoll_with(fd);
        let mut exclusive = take_over(fd).unwrap();
        exclusive.suspend(fd).unwrap();
        exclusive.suspend(fd).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        assert_eq!(happened(&epoll), None);
        exclusive.resume(fd).unwrap();
        exclusive.resume(fd).unwrap();
        assert_eq!((happened(&epoll), happened(&epoll)), (Some(DATA), None));
        let (_, events, data) = take_out(fd, &Known::all()).unwrap();
        assert_eq!(data, DATA);
        assert!(events.contains(EpollFlags::EPOLLEXCLUSIVE | EpollFlags::EPOLLET), "{events:?}");
    }
}
