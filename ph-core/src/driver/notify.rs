//! What workers say of themselves by `sd_notify`: that they are ready, that they live, how they are.
//!
//! Each command worker has an address of its own, made for it and gone with it, so what an earlier
//! worker of the slot still sends reaches nobody. Anybody on the machine may send to it; who is
//! believed is decided by what the kernel says of the sender: the worker's user, and its pid or one of
//! its tree. A sender that is already gone, as `systemd-notify` is, can be asked for nothing more; its
//! user is enough for what a worker would gain nothing by, READY and STATUS.
//!
//! A worker that sends without end keeps nobody waiting: a turn reads a bounded number of its
//! datagrams, and the kernel lets the sender wait for the rest.

use std::ffi::OsString;
use std::hash::{BuildHasher as _, RandomState};
use std::io;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::{Pid, getsid};
use tracing::{debug, warn};

use super::perform::jitter;
use super::{Driver, NOTIFY_FROM, report};
use crate::arbiter::{Event, Readiness, Time, WorkerId};
use crate::sys::mark::Mark;
use crate::sys::notify::{Credentials, LONGEST, NotifySocket, Received};

/// Datagrams of one worker that a turn reads.
const MESSAGES_A_TURN: usize = 32;

/// A status is cut to so many bytes.
const STATUS_LENGTH: usize = 200;

/// Names that are tried for one address.
const ATTEMPTS: u32 = 4;

/// What a worker has said of itself.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Free text for people: one line of at most [`STATUS_LENGTH`] bytes, without control characters.
    pub(super) status: String,
    /// Requests it has served, the most it ever said.
    pub(super) requests: u64,
    /// It stops by its own decision.
    pub(super) is_stopping: bool,
    last_beat: Option<Time>,
    /// Somebody else has spoken in its name.
    has_impostor: bool,
}

/// One thing that a worker can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Assignment<'a> {
    Ready,
    Watchdog,
    Stopping,
    Status(&'a str),
    Requests(u64),
}

/// How far a sender is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The worker, or one of its tree.
    Member,
    /// Of the worker's user, and gone.
    Gone,
    Stranger,
}

/// Where a worker that is about to be started will be heard.
pub(super) struct Address {
    pub(super) socket: NotifySocket,
    name: String,
}

impl Address {
    fn bind(worker: WorkerId) -> io::Result<Self> {
        let mut failure = Errno::EADDRINUSE;
        for _ in 0..ATTEMPTS {
            // Random, so that nobody can have it before the worker has.
            let random = RandomState::new().hash_one(worker.0);
            let name = format!("ph/{random:016x}/{worker}");
            match NotifySocket::bind(&name) {
                Ok(socket) => return Ok(Self { socket, name }),
                Err(Errno::EADDRINUSE) => {}
                Err(errno) => {
                    failure = errno;
                    break;
                }
            }
        }
        Err(io::Error::other(format!("no address to hear it at: {failure}")))
    }

    /// What tells the worker of it.
    pub(super) fn variable(&self) -> (OsString, OsString) {
        ("NOTIFY_SOCKET".into(), format!("@{}", self.name).into())
    }
}

impl Driver<'_> {
    /// Makes the address of a worker and listens there.
    pub(super) fn open_address(&self, worker: WorkerId) -> io::Result<Address> {
        let address = Address::bind(worker)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, NOTIFY_FROM + worker.0);
        self.epoll.add(&address.socket, event)?;
        Ok(address)
    }

    /// Nobody is heard at an address any more.
    pub(super) fn close_address(&self, socket: NotifySocket) {
        // A child forked meanwhile has a copy until it executes, so closing is not enough.
        let _ = self.epoll.delete(&socket);
        drop(socket);
    }

    /// Reads what a worker has sent, and tells the arbiter what it has to know of it.
    pub(super) fn on_notify(&mut self, worker: WorkerId, now: Time) {
        for event in self.hear(worker, now) {
            self.step(now, event);
        }
    }

    /// The latest beat of a command. What it has sent and nobody has read yet counts too; what else
    /// that says is told after this.
    pub(super) fn last_beat(&mut self, worker: WorkerId, now: Time) -> Time {
        let events = self.hear(worker, now);
        self.heard.extend(events);
        let said = self.children.get(worker).map(|child| &child.said);
        said.and_then(|said| said.last_beat).unwrap_or(Time::ZERO)
    }

    fn hear(&mut self, worker: WorkerId, now: Time) -> Vec<Event> {
        let mut events = Vec::new();
        let mut latest = None;
        for (sender, message) in self.received(worker) {
            // A flood comes from one sender mostly, and is asked about once.
            let standing = match latest {
                Some((known, standing)) if known == sender => standing,
                _ => self.standing(worker, sender),
            };
            latest = Some((sender, standing));
            if standing == Standing::Stranger {
                self.on_impostor(worker, sender);
                continue;
            }
            for assignment in parse(&message) {
                events.extend(self.on_assignment(worker, standing, assignment, now));
            }
        }
        events
    }

    fn received(&self, worker: WorkerId) -> Vec<(Credentials, Vec<u8>)> {
        let mut messages = Vec::new();
        let socket = self.children.get(worker).and_then(|child| child.notify.as_ref());
        let Some(socket) = socket else { return messages };
        let mut buffer = [0; LONGEST];
        for _ in 0..MESSAGES_A_TURN {
            match socket.receive(&mut buffer) {
                Ok(Received::Message(length, sender)) => {
                    messages.push((sender, buffer[..length].to_vec()));
                }
                Ok(Received::Rubbish) => {}
                Err(_) => break,
            }
        }
        messages
    }

    fn standing(&self, worker: WorkerId, sender: Credentials) -> Standing {
        let Some(child) = self.children.get(worker) else { return Standing::Stranger };
        let user = self.eras.of(child.generation).spec.conditions.user_of_workers();
        if sender.pid == child.pid && child.reaped.is_none() {
            // A worker that was started as root may have become somebody else meanwhile.
            let is_its = sender.uid == user || user == 0;
            return if is_its { Standing::Member } else { Standing::Stranger };
        }
        // A pid of 0 is of somebody outside of this namespace, and would mean the master itself here.
        if sender.uid != user || sender.pid.as_raw() <= 0 {
            return Standing::Stranger;
        }
        match getsid(Some(sender.pid)) {
            Err(Errno::ESRCH) => return Standing::Gone,
            // Nobody else can be in a session that its leader has begun.
            Ok(session) if session == child.pid => return Standing::Member,
            Ok(_) | Err(_) => {}
        }
        let is_member = match self.trees.members(child.seat) {
            Some(members) => Ok(members.contains(&sender.pid)),
            None => self.bears_mark_of(worker, sender.pid),
        };
        match is_member {
            Ok(true) => Standing::Member,
            Err(Errno::ESRCH) => Standing::Gone,
            Ok(false) | Err(_) => Standing::Stranger,
        }
    }

    fn bears_mark_of(&self, worker: WorkerId, pid: Pid) -> nix::Result<bool> {
        let found = self.trees.mark.worker_of(pid)?;
        Ok(found.is_some_and(|found| Mark::means(found, worker.0)))
    }

    /// Told once for each worker, because whoever does it can do it without end.
    fn on_impostor(&mut self, worker: WorkerId, Credentials { pid, uid }: Credentials) {
        let Some(child) = self.children.get_mut(worker) else { return };
        if !std::mem::replace(&mut child.said.has_impostor, true) {
            let who = report::who(worker, &self.children);
            warn!("pid {pid} uid {uid} notifies in the name of {who} and is none of it: ignored");
        }
    }

    fn on_assignment(
        &mut self,
        worker: WorkerId,
        standing: Standing,
        assignment: Assignment<'_>,
        now: Time,
    ) -> Option<Event> {
        let generation = self.children.get(worker)?.generation;
        let policy = self.eras.of(generation).spec.policy;
        let is_judged = policy.timeout.is_some();
        let child = self.children.get_mut(worker)?;
        match (assignment, standing) {
            (_, Standing::Stranger) => None,
            (Assignment::Ready, Standing::Member | Standing::Gone) => {
                let is_awaited = policy.readiness == Readiness::Reported;
                let is_news = is_awaited && !std::mem::replace(&mut child.ready_told, true);
                is_news.then(|| Event::Ready { worker, jitter: jitter() })
            }
            (Assignment::Status(text), Standing::Member | Standing::Gone) => {
                let status = sanitized(text);
                if status != child.said.status {
                    child.said.status = status;
                    let child = self.children.get(worker)?;
                    let who = report::who(worker, &self.children);
                    debug!("{who} says: {}", child.said.status);
                }
                None
            }
            (_, Standing::Gone) => None,
            (Assignment::Watchdog, Standing::Member) => {
                let is_first = child.said.last_beat.replace(now).is_none();
                (is_first && is_judged).then_some(Event::Watched { worker })
            }
            (Assignment::Stopping, Standing::Member) => {
                if !std::mem::replace(&mut child.said.is_stopping, true) {
                    debug!("{} says that it stops", report::who(worker, &self.children));
                }
                None
            }
            (Assignment::Requests(requests), Standing::Member) => {
                let requests = requests.max(child.said.requests);
                child.said.requests = requests;
                let is_due = child.max_requests > 0 && requests >= child.max_requests;
                let is_news = is_due && !std::mem::replace(&mut child.recycle_told, true);
                is_news.then_some(Event::RecycleDue { worker })
            }
        }
    }
}

/// What a datagram says, line by line. What is no text says nothing, and what is not known, neither;
/// `MAINPID`, `FDSTORE` and the like are for those who watch over one process.
fn parse(message: &[u8]) -> impl Iterator<Item = Assignment<'_>> {
    // One NUL at the end is what programs in C send now and then.
    let message = message.strip_suffix(b"\0").unwrap_or(message);
    let text = std::str::from_utf8(message).unwrap_or("");
    let text = if text.contains('\0') { "" } else { text };
    text.lines().filter_map(|line| match line.split_once('=')? {
        ("READY", "1") => Some(Assignment::Ready),
        ("WATCHDOG", "1") => Some(Assignment::Watchdog),
        ("STOPPING", "1") => Some(Assignment::Stopping),
        ("STATUS", text) => Some(Assignment::Status(text)),
        ("REQUESTS", digits) => number(digits).map(Assignment::Requests),
        _ => None,
    })
}

/// Digits only: neither a sign nor blanks.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// A status that can be shown anywhere.
fn sanitized(text: &str) -> String {
    let mut status = String::new();
    for character in text.chars() {
        let shown = if character.is_control() { ' ' } else { character };
        if status.len() + shown.len_utf8() > STATUS_LENGTH {
            break;
        }
        status.push(shown);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(message: &[u8]) -> Vec<Assignment<'_>> {
        parse(message).collect()
    }

    #[test]
    fn known_lines_are_taken_and_all_others_ignored() {
        use Assignment::{Ready, Requests, Status, Stopping, Watchdog};
        let message = b"READY=1\nSTATUS=a=b c\nMAINPID=1\nFDSTORE=1\nX_Y=z\n\nWATCHDOG=1\n";
        assert_eq!(parsed(message), [Ready, Status("a=b c"), Watchdog]);
        assert_eq!(parsed(b"STOPPING=1\0"), [Stopping]);
        assert_eq!(parsed(b"REQUESTS=12\r\nREQUESTS=012"), [Requests(12), Requests(12)]);
        assert_eq!(parsed("STATUS=日本".as_bytes()), [Status("日本")]);
        for nothing in [
            &b""[..],
            b"READY",
            b"READY=",
            b"READY=0",
            b"READY=11",
            b" READY=1",
            b"ready=1",
            b"WATCHDOG=trigger",
            b"REQUESTS=",
            b"REQUESTS=-1",
            b"REQUESTS=+1",
            b"REQUESTS=1 ",
            b"REQUESTS=99999999999999999999",
            b"READY=1\n\xff",
            b"READY=1\0\n",
            b"\0READY=1",
        ] {
            assert_eq!(parsed(nothing), [], "{}", String::from_utf8_lossy(nothing));
        }
    }

    #[test]
    fn a_status_is_one_short_line_without_control_characters() {
        assert_eq!(sanitized("a\x1b[31m\tb\u{9b}c"), "a [31m b c");
        assert_eq!(sanitized(&"日".repeat(100)), "日".repeat(66));
        assert_eq!(sanitized(&"x".repeat(4000)).len(), STATUS_LENGTH);
    }
}
