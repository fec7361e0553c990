//! Datagrams of the `sd_notify` convention: what says how a process is, to whoever started it.
//!
//! A [`NotifySocket`] is where one worker is heard. Its address is public, so the kernel says with
//! each datagram who sent it, and nothing else of the sender is believed. Descriptors that come along
//! are never taken: there is no room for them in what is read, so the kernel lets go of them.
//!
//! [`Destination`] is the other way: where a service manager is told.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, send, setsockopt, socket,
    sockopt::PassCred,
};
use nix::unistd::Pid;

/// Longer datagrams are dropped.
pub(crate) const LONGEST: usize = 4096;

/// Where one worker is heard.
#[derive(Debug)]
pub(crate) struct NotifySocket(OwnedFd);

/// Who sent a datagram, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// Perhaps of a process that is gone, and 0 for one outside of this pid namespace.
    pub(crate) pid: Pid,
    /// Its user's number.
    pub(crate) uid: u32,
}

/// What was received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes of this sender.
    Message(usize, Credentials),
    /// Something that no worker sends: it is too long, or came without its sender.
    Rubbish,
}

impl NotifySocket {
    /// Binds one to an abstract name, which needs no folder and is gone with the socket.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE`: somebody has that name.
    pub(crate) fn bind(name: &str) -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        // Before it has a name, so that nothing comes without its sender.
        setsockopt(&socket, PassCred, &true)?;
        bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
        Ok(Self(socket))
    }

    /// The next datagram. `EAGAIN`: there is none.
    pub(crate) fn receive(&self, buffer: &mut [u8; LONGEST]) -> nix::Result<Received> {
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: LONGEST };
        // SAFETY: of this struct a value of all zeros is valid.
        let mut control: Control = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = size_of::<Control>() as _;
        let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
        let length = loop {
            // SAFETY: the header points to live buffers, of which it holds the true lengths.
            let length = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut header, flags) };
            match Errno::result(length) {
                Err(Errno::EINTR) => {}
                received => break received?,
            }
        };
        let is_whole = header.msg_flags & libc::MSG_TRUNC == 0;
        Ok(match control.sender().filter(|_| is_whole) {
            Some(sender) => Received::Message(length.unsigned_abs(), sender),
            None => Received::Rubbish,
        })
    }
}

/// Room for the sender alone: the kernel makes no descriptor for which there is none.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    sender: libc::ucred,
}

impl Control {
    /// Who sent what was just received.
    fn sender(&self) -> Option<Credentials> {
        const LENGTH: usize = size_of::<libc::cmsghdr>() + size_of::<libc::ucred>();
        let libc::cmsghdr { cmsg_len, cmsg_level, cmsg_type, .. } = self.header;
        let is_sender = (cmsg_level, cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS);
        // Of another type with every C library.
        let is_whole = u64::try_from(cmsg_len) == u64::try_from(LENGTH);
        let libc::ucred { pid, uid, .. } = self.sender;
        (is_sender && is_whole).then(|| Credentials { pid: Pid::from_raw(pid), uid })
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where a service manager is told, as `NOTIFY_SOCKET` names it.
#[derive(Debug)]
pub(crate) struct Destination(UnixAddr);

impl Destination {
    /// A path, or `@` and an abstract name.
    ///
    /// # Errors
    ///
    /// It is neither, or too long.
    pub(crate) fn parse(text: &[u8]) -> io::Result<Self> {
        match text {
            [b'/', _, ..] => Ok(Self(UnixAddr::new(text)?)),
            [b'@', name @ ..] if !name.is_empty() => Ok(Self(UnixAddr::new_abstract(name)?)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor @NAME")),
        }
    }

    /// A socket that is connected to it, and that never waits.
    pub(crate) fn connect(&self) -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        connect(socket.as_raw_fd(), &self.0)?;
        Ok(socket)
    }
}

/// Sends a datagram. `EAGAIN`: the other side has not read the earlier ones yet.
pub(crate) fn send_to(connected: &OwnedFd, message: &[u8]) -> nix::Result<()> {
    loop {
        match send(connected.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fds;
    use nix::sys::socket::{ControlMessage, sendmsg};
    use std::io::IoSlice;

    fn pair(name: &str) -> (NotifySocket, OwnedFd) {
        let name = format!("ph-test/{}/{name}", std::process::id());
        let socket = NotifySocket::bind(&name).unwrap();
        let sender = Destination::parse(format!("@{name}").as_bytes()).unwrap().connect().unwrap();
        (socket, sender)
    }

    fn own() -> Credentials {
        Credentials { pid: Pid::this(), uid: nix::unistd::getuid().as_raw() }
    }

    #[test]
    fn a_datagram_comes_whole_with_its_sender() {
        let (socket, sender) = pair("whole");
        let mut buffer = [0; LONGEST];
        assert_eq!(socket.receive(&mut buffer), Err(Errno::EAGAIN));
        for message in [&b"READY=1"[..], &[b'x'; LONGEST], b""] {
            send_to(&sender, message).unwrap();
            let received = socket.receive(&mut buffer);
            assert_eq!(received, Ok(Received::Message(message.len(), own())));
            assert_eq!(&buffer[..message.len()], message);
        }
        send_to(&sender, &[b'x'; LONGEST + 1]).unwrap();
        assert_eq!(socket.receive(&mut buffer), Ok(Received::Rubbish));
        assert_eq!(socket.receive(&mut buffer), Err(Errno::EAGAIN));
    }

    #[test]
    fn descriptors_that_come_along_are_let_go_of() {
        let (socket, sender) = pair("descriptors");
        let (read, write) = fds::pipe().unwrap();
        let numbers = [write.as_raw_fd(); 200];
        let rights = [ControlMessage::ScmRights(&numbers)];
        let parts = [IoSlice::new(b"FDSTORE=1")];
        let flags = MsgFlags::empty();
        sendmsg::<()>(sender.as_raw_fd(), &parts, &rights, flags, None).unwrap();
        drop(write);
        assert!(!fds::is_hung_up(&read), "they are on their way");
        let mut buffer = [0; LONGEST];
        assert_eq!(socket.receive(&mut buffer), Ok(Received::Message(9, own())));
        assert!(fds::is_hung_up(&read), "nobody has one any more");
    }

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        for good in ["/run/a", "@a", "@/org/freedesktop"] {
            assert!(Destination::parse(good.as_bytes()).is_ok(), "{good}");
        }
        let long = format!("/{}", "x".repeat(200));
        for bad in ["", "@", "/", "a", "vsock:2:1", &long] {
            assert!(Destination::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
