//! A channel between two processes of one program: small messages, each whole, most with at most one
//! descriptor (SCM_RIGHTS). Neither end ever blocks.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

/// How long a sender that waits does so.
const ROOM_LIMIT: Duration = Duration::from_secs(60);

/// The most descriptors that come with one message; the kernel allows 253.
pub(crate) const FDS_MAX: usize = 64;

/// One end of a channel.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Both ends of a new channel.
    pub(crate) fn pair() -> nix::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self(one), Self(other)))
    }

    /// The end that another process has made and handed over; it must not block.
    pub(crate) fn of(fd: OwnedFd) -> nix::Result<Self> {
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self(fd))
    }

    /// Its descriptor.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends a message, which is not empty. `EAGAIN`: the other end has not read the earlier ones yet.
    pub(crate) fn send(&self, message: &[u8], fd: Option<BorrowedFd<'_>>) -> nix::Result<()> {
        self.send_all(message, fd.as_slice())
    }

    /// The same with several descriptors, [`FDS_MAX`] at most.
    pub(crate) fn send_all(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
        let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = (!numbers.is_empty()).then(|| ControlMessage::ScmRights(&numbers));
        let flags = MsgFlags::MSG_NOSIGNAL;
        let parts = [IoSlice::new(message)];
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &parts, rights.as_slice(), flags, None) {
                Err(Errno::EINTR) => {}
                sent => return sent.map(drop),
            }
        }
    }

    /// The same, for a process that has nothing else to do: waits for room, if need be.
    pub(crate) fn send_in_time(
        &self,
        message: &[u8],
        fd: Option<BorrowedFd<'_>>,
    ) -> nix::Result<()> {
        loop {
            match self.send(message, fd) {
                Err(Errno::EAGAIN) => {}
                done => return done,
            }
            let mut wait = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut wait, PollTimeout::try_from(ROOM_LIMIT).unwrap_or(PollTimeout::MAX)) {
                Ok(0) => return Err(Errno::ETIMEDOUT),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// The next message, of at most the buffer's length, and what came with it. A length of 0 is the end
    /// of the channel; `EAGAIN`: there is none yet.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> nix::Result<(usize, Option<OwnedFd>)> {
        let (length, came) = self.receive_all(buffer)?;
        Ok((length, came.into_iter().next_back()))
    }

    /// The same with all that came.
    pub(crate) fn receive_all(&self, buffer: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
        let mut control = nix::cmsg_space!([i32; FDS_MAX]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        loop {
            let mut parts = [IoSliceMut::new(buffer)];
            let fd = self.0.as_raw_fd();
            let received = match recvmsg::<()>(fd, &mut parts, Some(&mut control), flags) {
                Err(Errno::EINTR) => continue,
                received => received?,
            };
            if received.flags.contains(MsgFlags::MSG_CTRUNC) {
                // There were descriptors, and no room for them in this process.
                return Ok((received.bytes, Vec::new()));
            }
            let mut came = Vec::new();
            for message in received.cmsgs()? {
                if let ControlMessageOwned::ScmRights(numbers) = message {
                    // SAFETY: the kernel has just made these descriptors for this message, so nobody
                    // else owns them.
                    let owned = |number| unsafe { OwnedFd::from_raw_fd(number) };
                    came.extend(numbers.into_iter().map(owned));
                }
            }
            return Ok((received.bytes, came));
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fds;

    #[test]
    fn a_message_arrives_whole_with_its_descriptor_and_then_the_end() {
        let (one, other) = Channel::pair().unwrap();
        let (read, write) = fds::pipe().unwrap();
        one.send(b"alone", None).unwrap();
        one.send(b"with a pipe", Some(read.as_fd())).unwrap();
        drop((one, read));
        let mut buffer = [0; 64];
        let (length, fd) = other.receive(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], fd.is_none()), (&b"alone"[..], true));
        let (length, fd) = other.receive(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"with a pipe");
        fds::write(&write, b"x").unwrap();
        assert_eq!(fds::read(fd.unwrap(), &mut buffer), Ok(1));
        assert_eq!(other.receive(&mut buffer).unwrap().0, 0);
    }

    #[test]
    fn many_descriptors_come_with_one_message() {
        let (one, other) = Channel::pair().unwrap();
        let (read, write) = fds::pipe().unwrap();
        one.send_all(b"many", &[read.as_fd(); FDS_MAX]).unwrap();
        let mut buffer = [0; 64];
        let (_, came) = other.receive_all(&mut buffer).unwrap();
        assert_eq!(came.len(), FDS_MAX);
        fds::write(&write, b"x").unwrap();
        assert_eq!(fds::read(&came[FDS_MAX - 1], &mut buffer), Ok(1));
    }

    #[test]
    fn a_full_channel_and_an_empty_one_say_so() {
        let (one, other) = Channel::pair().unwrap();
        assert_eq!(other.receive(&mut [0; 8]).unwrap_err(), Errno::EAGAIN);
        let full = (0..100_000).find_map(|_| one.send(b"12345678", None).err());
        assert_eq!(full, Some(Errno::EAGAIN));
    }
}
