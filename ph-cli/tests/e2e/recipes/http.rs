//! Clients of a web server whose answers are the number of the process that gave them.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How many ask at the same time.
const CLIENTS: usize = 4;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client does about a connection that is closed before the first byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It has failed.
    Fails,
    /// It asks once more, as browsers and proxies do with a GET (RFC 9110, 9.2.2).
    IsRepeated,
}

/// What clients have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) answers: usize,
    pub(super) servers: BTreeSet<u32>,
    pub(super) repeated: usize,
    pub(super) failures: Vec<String>,
}

/// Why there was no answer.
enum Failure {
    /// Not a byte of one came.
    Unanswered(String),
    Other(String),
}

/// Has clients ask all the time while something is done.
pub(super) fn during<T>(port: u16, unanswered: Unanswered, act: impl FnOnce() -> T) -> (T, Seen) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ask_on = || {
            let mut seen = Seen::default();
            while !is_over.load(Ordering::Relaxed) {
                seen.ask(port, unanswered);
            }
            seen
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask_on)).collect();
        let done = act();
        is_over.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        clients.into_iter().for_each(|client| all.add(client.join().expect("a client")));
        (done, all)
    })
}

impl Seen {
    fn ask(&mut self, port: u16, unanswered: Unanswered) {
        let answer = match ask(port) {
            Err(Failure::Unanswered(_)) if unanswered == Unanswered::IsRepeated => {
                self.repeated += 1;
                ask(port)
            }
            answer => answer,
        };
        match answer {
            Ok(server) => {
                self.answers += 1;
                self.servers.insert(server);
            }
            Err(Failure::Unanswered(why) | Failure::Other(why)) => self.failures.push(why),
        }
    }

    fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.servers.extend(other.servers);
        self.repeated += other.repeated;
        self.failures.extend(other.failures);
    }
}

/// Asks once, on a connection of its own.
fn ask(port: u16) -> Result<u32, Failure> {
    let other = |error: std::io::Error| Failure::Other(format!("connect: {error}"));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(other)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(other)?;
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let sent = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let read = sent.and_then(|()| stream.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer);
    match read {
        Ok(_) if answer.is_empty() => Err(Failure::Unanswered("closed unanswered".to_owned())),
        Err(error) if answer.is_empty() => Err(Failure::Unanswered(error.to_string())),
        Ok(_) => parse(&answer).ok_or_else(|| Failure::Other(format!("not whole: {answer:?}"))),
        Err(error) => Err(Failure::Other(format!("{error} after {answer:?}"))),
    }
}

/// The body of a good and whole answer.
fn parse(answer: &str) -> Option<u32> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let is_good = head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200");
    let lengths = head.to_ascii_lowercase();
    let length = lengths.split("\r\n").find_map(|line| line.strip_prefix("content-length:"))?;
    let is_whole = length.trim().parse() == Ok(body.len());
    body.trim().parse().ok().filter(|_| is_good && is_whole)
}
