//! One client: what it has sent, what it is still to be sent, and until when it has to do its part.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, UnixCredentials, send};
use socket2::Socket;

use super::answers::Wish;
use crate::arbiter::Time;
use crate::control::{Done, Lines, REQUEST_MAX, Reply, Request};
use crate::sys::fds;

/// How long a client has for its request, and to take something of what it is sent.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes that wait for a client to take them.
pub(super) const OUTPUT_MAX: usize = 256 * 1024;

/// What is read of a request in one turn.
const READ_A_TURN: usize = 16 * 1024;

/// Where a client is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its request has not come whole.
    Asking(Lines),
    /// It waits for what it asked for.
    Waiting(Wish),
    /// The last line is on its way.
    Leaving,
}

/// A client that may ask.
#[derive(Debug)]
pub(super) struct Client {
    socket: Socket,
    /// Who it is, for the log.
    pub(super) who: UnixCredentials,
    pub(super) stage: Stage,
    output: Vec<u8>,
    /// So much of the output is sent.
    sent: usize,
    /// When it has had its time; of a client that has all it was sent, and nothing to send: never.
    deadline: Option<Time>,
    /// When what it waits for is to be looked at again.
    pub(super) look_at: Option<Time>,
    /// What the loop waits for.
    interest: EpollFlags,
}

/// A client is to be forgotten.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl Client {
    /// A client that has just come. Its socket is non-blocking.
    pub(super) fn new(socket: Socket, who: UnixCredentials, now: Time) -> Self {
        Self {
            socket,
            who,
            stage: Stage::Asking(Lines::new(REQUEST_MAX)),
            output: Vec::new(),
            sent: 0,
            deadline: Some(now.after(PATIENCE)),
            look_at: None,
            interest: EpollFlags::empty(),
        }
    }

    /// When it has had its time.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Reads what there is of its request, and gives that once it is whole.
    pub(super) fn hear(&mut self, now: Time) -> Result<Option<Request>, Gone> {
        let Stage::Asking(lines) = &mut self.stage else { return Ok(None) };
        let mut bytes = [0; READ_A_TURN];
        match fds::read(&self.socket, &mut bytes) {
            Ok(0) => return Err(Gone),
            Ok(length) => lines.push(&bytes[..length]),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(_) => return Err(Gone),
        }
        let request = match lines.take() {
            Ok(None) => return Ok(None),
            Ok(Some(line)) => Request::of_line(&line),
            Err(_) => Err(format!("a request has at most {REQUEST_MAX} bytes")),
        };
        match request {
            Ok(request) => {
                // What it sends beyond its request is never read.
                self.deadline = None;
                Ok(Some(request))
            }
            Err(why) => {
                self.end(&Reply::Error(why), now);
                Ok(None)
            }
        }
    }

    /// Queues a line of the answer, if what the client has not taken is within the bound.
    pub(super) fn tell(&mut self, reply: &Reply, now: Time) -> Result<(), Gone> {
        let line = reply.to_line();
        if self.waiting_bytes() > OUTPUT_MAX / 2 {
            // What it takes at once need not wait. Who has left is found out by the next look.
            let _ = self.flush(now);
        }
        if self.waiting_bytes() + line.len() > OUTPUT_MAX {
            return Err(Gone);
        }
        self.queue(line.as_bytes(), now);
        Ok(())
    }

    /// Queues the last line, which has always a place.
    pub(super) fn finish(&mut self, code: u8, text: impl Into<String>, now: Time) {
        self.end(&Reply::Done(Done { code, text: text.into(), worker_pid: None }), now);
    }

    /// Queues the last line, whichever it is.
    pub(super) fn end(&mut self, reply: &Reply, now: Time) {
        self.stage = Stage::Leaving;
        self.look_at = None;
        self.queue(reply.to_line().as_bytes(), now);
    }

    fn queue(&mut self, line: &[u8], now: Time) {
        if self.waiting_bytes() == 0 {
            self.deadline = Some(now.after(PATIENCE));
        }
        self.output.extend_from_slice(line);
    }

    /// Bytes that it has not taken.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Sends what it takes. Once it has the last line, it is to be forgotten.
    pub(super) fn flush(&mut self, now: Time) -> Result<(), Gone> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while self.waiting_bytes() > 0 {
            match send(self.socket.as_raw_fd(), &self.output[self.sent..], flags) {
                Ok(length) => {
                    self.sent += length;
                    self.deadline = Some(now.after(PATIENCE));
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(_) => return Err(Gone),
            }
        }
        self.output.drain(..self.sent);
        self.sent = 0;
        match self.stage {
            Stage::Asking(_) => Ok(()),
            Stage::Leaving if self.output.is_empty() => Err(Gone),
            Stage::Waiting(_) | Stage::Leaving => {
                self.deadline = self.deadline.filter(|_| !self.output.is_empty());
                Ok(())
            }
        }
    }

    /// What the loop is to wait for, if that has changed. That it left is told in any case.
    pub(super) fn new_interest(&mut self) -> Option<EpollFlags> {
        let mut interest = match self.stage {
            Stage::Asking(_) => EpollFlags::EPOLLIN,
            Stage::Waiting(_) | Stage::Leaving => EpollFlags::empty(),
        };
        if self.waiting_bytes() > 0 {
            interest |= EpollFlags::EPOLLOUT;
        }
        (std::mem::replace(&mut self.interest, interest) != interest).then_some(interest)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    fn client() -> (UnixStream, Client) {
        let (other, own) = UnixStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        let who = UnixCredentials::new();
        (other, Client::new(Socket::from(std::os::fd::OwnedFd::from(own)), who, at(100)))
    }

    #[test]
    fn a_request_may_come_in_pieces_and_has_its_time() {
        let (mut other, mut client) = client();
        assert_eq!(client.hear(at(100)), Ok(None));
        let line = Request::Status.to_line();
        for byte in line.bytes() {
            assert_eq!(client.deadline(), Some(at(110)));
            other.write_all(&[byte]).unwrap();
            if byte == b'\n' {
                assert_eq!(client.hear(at(105)), Ok(Some(Request::Status)));
            } else {
                assert_eq!(client.hear(at(105)), Ok(None));
            }
        }
        assert_eq!(client.deadline(), None);
    }

    #[test]
    fn what_is_no_request_has_one_line_for_an_answer() {
        for sent in [b"garbage\n".to_vec(), vec![b'x'; REQUEST_MAX + 1]] {
            let (mut other, mut client) = client();
            other.set_nonblocking(true).unwrap();
            let mut rest = &sent[..];
            while matches!(client.stage, Stage::Asking(_)) {
                let length = other.write(rest).unwrap_or(0);
                rest = &rest[length..];
                assert_eq!(client.hear(at(100)), Ok(None));
            }
            assert_eq!(client.flush(at(100)), Err(Gone));
            drop(client);
            let mut answer = [0; 1000];
            let length = other.read(&mut answer).unwrap();
            let answer = std::str::from_utf8(&answer[..length]).unwrap();
            assert!(answer.starts_with("{\"error\":\"") && answer.ends_with("\"}\n"), "{answer}");
        }
    }

    #[test]
    fn a_client_that_leaves_is_gone_and_one_that_only_stops_sending_is_answered() {
        let (other, mut client) = client();
        drop(other);
        assert_eq!(client.hear(at(100)), Err(Gone));
        let (mut other, mut client) = self::client();
        other.write_all(Request::Watch.to_line().as_bytes()).unwrap();
        other.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.hear(at(100)), Ok(Some(Request::Watch)));
        client.stage = Stage::Waiting(Wish::Watch);
        assert_eq!(client.hear(at(100)), Ok(None));
        client.finish(0, "done", at(100));
        assert_eq!(client.flush(at(100)), Err(Gone));
    }

    #[test]
    fn a_client_that_takes_nothing_has_its_time_and_its_bound() {
        let (mut other, mut client) = client();
        other.write_all(Request::Watch.to_line().as_bytes()).unwrap();
        assert_eq!(client.hear(at(100)), Ok(Some(Request::Watch)));
        client.stage = Stage::Waiting(Wish::Watch);
        let reply = Reply::Error("x".repeat(10_000));
        // As much as the kernel takes is sent, the rest waits.
        while client.waiting_bytes() == 0 {
            client.tell(&reply, at(200)).unwrap();
            client.flush(at(200)).unwrap();
        }
        assert_eq!(client.deadline(), Some(at(210)));
        assert_eq!(client.new_interest(), Some(EpollFlags::EPOLLOUT));
        let mut taken = [0; 100_000];
        other.read_exact(&mut taken).unwrap();
        client.flush(at(205)).unwrap();
        assert!(client.deadline() == Some(at(215)) || client.waiting_bytes() == 0);
        let told = (0..1000).take_while(|_| client.tell(&reply, at(206)).is_ok()).count();
        assert!(told < 60, "{told}");
        assert!(client.waiting_bytes() <= OUTPUT_MAX);
    }
}
