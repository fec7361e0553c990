//! Listening sockets that this program was started with: those that are passed by the convention of
//! `LISTEN_FDS` (see `sd_listen_fds(3)`), and whatever else was left open over its `exec` and listens.
//!
//! They are looked for once, when nothing else is open yet and the pid is still the one that `LISTEN_PID`
//! means, and kept as long as the process lives: they belong to whoever passed them, so a configuration that
//! does not name them any more, or does so again, finds them as they were.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::sync::OnceLock;

use socket2::{Domain, SockRef, Type};

use super::{fds, spawn, successor};

/// The most descriptors a manager can mean.
const FDS_MAX: RawFd = 1024;

static PASSED: OnceLock<Passed> = OnceLock::new();

/// What was passed.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    all: Vec<Socket>,
    /// Descriptors of `LISTEN_FDS` that are no listening sockets: number, name, and what they are.
    wrong: Vec<(RawFd, String, &'static str)>,
    /// Why none is taken that has a name.
    nothing: Option<String>,
}

#[derive(Debug)]
struct Socket {
    number: RawFd,
    /// Of one that was passed by `LISTEN_FDS`.
    name: Option<String>,
    fd: OwnedFd,
}

/// Finds them; only the first call looks.
pub(crate) fn take() -> &'static Passed {
    PASSED.get_or_init(|| {
        if successor::borrowed_channel().is_some() {
            // It gets all from the master that runs, and these variables were for that.
            return Passed::default();
        }
        let variable = |name: &str| std::env::var(name).ok();
        let announced = announced(
            variable("LISTEN_PID").as_deref(),
            variable("LISTEN_FDS").as_deref(),
            variable("LISTEN_FDNAMES").as_deref(),
            std::process::id(),
        );
        Passed::of(announced)
    })
}

/// The names of the descriptors from 3 on, if they are meant for this process.
fn announced(
    pid: Option<&str>,
    count: Option<&str>,
    names: Option<&str>,
    own: u32,
) -> Result<Vec<String>, String> {
    let (Some(pid), Some(count)) = (pid, count) else {
        return Err("LISTEN_FDS and LISTEN_PID are not set".to_owned());
    };
    if pid.parse() != Ok(own) {
        return Err(format!("LISTEN_PID is {pid}, and this process was started as pid {own}"));
    }
    let most = usize::try_from(FDS_MAX).unwrap_or(usize::MAX);
    let count: Option<usize> = count.parse().ok().filter(|count| *count <= most);
    let count = count.ok_or_else(|| format!("LISTEN_FDS is no number up to {FDS_MAX}"))?;
    let mut names = names.into_iter().flat_map(|names| names.split(':'));
    // What systemd calls a socket without a name.
    let name = |_| names.next().filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned();
    Ok((0..count).map(name).collect())
}

impl Passed {
    fn of(announced: Result<Vec<String>, String>) -> Self {
        let mut passed = Self { nothing: announced.as_ref().err().cloned(), ..Self::default() };
        let mut meant = announced.unwrap_or_default().into_iter();
        let first = spawn::LISTEN_FDS_START;
        let mut open = fds::inherited();
        open.sort_unstable();
        for number in first..first.saturating_add(FDS_MAX) {
            let Some(name) = meant.next() else { break };
            open.retain(|it| *it != number);
            let Some(fd) = fds::adopt(number) else {
                passed.wrong.push((number, name, "not open"));
                continue;
            };
            match what_it_is(&fd) {
                None => passed.all.push(Socket { number, name: Some(name), fd }),
                Some(what) => passed.wrong.push((number, name, what)),
            }
        }
        for number in open {
            // What does not listen is not for a master.
            if let Some(fd) = fds::copy_of(number).filter(|fd| what_it_is(fd).is_none()) {
                passed.all.push(Socket { number, name: None, fd });
            }
        }
        passed
    }

    /// A copy of the descriptor of this number.
    pub(crate) fn numbered(&self, number: u32) -> io::Result<OwnedFd> {
        let is_it = |it: RawFd| u32::try_from(it) == Ok(number);
        if let Some(socket) = self.all.iter().find(|socket| is_it(socket.number)) {
            return copy(socket);
        }
        let why = match self.wrong.iter().find(|(it, ..)| is_it(*it)) {
            Some((_, _, what)) => format!("descriptor {number} is {what}"),
            None => format!(
                "no listening socket was passed as descriptor {number} when this service was started"
            ),
        };
        Err(io::Error::other(why))
    }

    /// Copies of all that have this name.
    pub(crate) fn named(&self, name: &str) -> io::Result<Vec<OwnedFd>> {
        if let Some((number, _, what)) = self.wrong.iter().find(|(_, it, _)| it == name) {
            return Err(io::Error::other(format!("descriptor {number}, of that name, is {what}")));
        }
        let found: Vec<_> =
            self.all.iter().filter(|socket| socket.name.as_deref() == Some(name)).collect();
        if found.is_empty() {
            return Err(io::Error::other(self.what_there_is()));
        }
        found.into_iter().map(copy).collect()
    }

    fn what_there_is(&self) -> String {
        if let Some(why) = &self.nothing {
            return format!("no socket of that name was passed: {why}");
        }
        let mut names: Vec<_> = self.all.iter().filter_map(|it| it.name.as_deref()).collect();
        names.dedup();
        match names.is_empty() {
            true => "no socket of that name was passed, nor any other".to_owned(),
            false => format!("no socket of that name was passed; there is {}", names.join(", ")),
        }
    }

    /// Those of `LISTEN_FDS`, by number and name.
    pub(crate) fn announced(&self) -> impl Iterator<Item = (u32, &str)> {
        self.all.iter().filter_map(|socket| {
            Some((u32::try_from(socket.number).ok()?, socket.name.as_deref()?))
        })
    }
}

fn copy(socket: &Socket) -> io::Result<OwnedFd> {
    Ok(fds::duplicate_above(socket.fd.as_fd(), spawn::LISTEN_FDS_START)?)
}

/// What something is that is no socket connections can be accepted from.
fn what_it_is(fd: &OwnedFd) -> Option<&'static str> {
    let socket = SockRef::from(fd);
    let Ok(kind) = socket.r#type() else { return Some("no socket") };
    let is_known = |domain| [Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&domain);
    if kind != Type::STREAM {
        Some("a socket without connections (SOCK_STREAM is needed)")
    } else if !socket.domain().is_ok_and(is_known) {
        Some("neither a TCP nor a Unix socket")
    } else if !socket.is_listener().unwrap_or(false) {
        Some("a socket that does not listen")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_for_one_process_and_has_names() {
        let names = |names| announced(Some("7"), Some("3"), names, 7).unwrap();
        assert_eq!(names(Some("web::admin")), ["web", "unknown", "admin"]);
        assert_eq!(names(Some("web")), ["web", "unknown", "unknown"]);
        assert_eq!(names(None), ["unknown"; 3]);
        let refused = |pid, count| announced(pid, count, None, 7).unwrap_err();
        assert!(refused(Some("8"), Some("1")).contains("LISTEN_PID is 8"));
        assert!(refused(None, Some("1")).contains("not set"));
        for count in ["-1", "x", "", "1025", "99999999999999999999"] {
            assert!(refused(Some("7"), Some(count)).contains("LISTEN_FDS"), "{count}");
        }
    }

    #[test]
    fn only_sockets_that_listen_are_taken() {
        let tcp: OwnedFd = std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
        assert_eq!(what_it_is(&tcp), None);
        let udp: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        assert!(what_it_is(&udp).unwrap().contains("without connections"));
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        assert_eq!(what_it_is(&file), Some("no socket"));
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(what_it_is(&one.into()), Some("a socket that does not listen"));
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let fd = || -> OwnedFd { std::net::TcpListener::bind("127.0.0.1:0").unwrap().into() };
        let socket = |number, name: &str| Socket { number, name: Some(name.to_owned()), fd: fd() };
        let passed = Passed {
            all: vec![socket(3, "web"), socket(4, "web"), socket(5, "admin")],
            wrong: vec![(6, "log".to_owned(), "no socket")],
            nothing: None,
        };
        assert_eq!(passed.named("web").unwrap().len(), 2);
        let why = |result: io::Result<Vec<OwnedFd>>| result.unwrap_err().to_string();
        assert!(why(passed.named("job")).ends_with("there is web, admin"));
        assert!(why(passed.named("log")).contains("descriptor 6"));
        assert!(passed.numbered(5).is_ok() && passed.numbered(7).is_err());
        let empty = Passed { nothing: Some("LISTEN_PID is 8".to_owned()), ..Passed::default() };
        assert!(why(empty.named("web")).ends_with("LISTEN_PID is 8"));
    }
}
