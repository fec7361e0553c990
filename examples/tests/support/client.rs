//! A conversation with a worker of the program `misbehave`.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::process::Process;
use super::wait::let_pass;

/// No answer takes longer.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// A client that a worker has begun to serve.
pub(crate) struct Client {
    stream: BufReader<Box<dyn Stream>>,
    /// Who serves it.
    pub(crate) worker: Process,
    pub(crate) slot: u32,
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// A client that may not have been heard of yet.
pub(crate) struct Queued(Box<dyn Stream>);

impl Queued {
    fn of<S: Stream + 'static>(
        mut stream: S,
        behaviour: &str,
        hang_up: impl Fn(&S) -> std::io::Result<()>,
    ) -> Self {
        writeln!(stream, "{behaviour}").expect("room for a line");
        hang_up(&stream).expect("a connection");
        Self(Box::new(stream))
    }

    /// Who has served it, once that has answered all and closed the connection; else how that was lost.
    pub(crate) fn served_by(mut self) -> std::io::Result<Process> {
        let mut answer = String::new();
        self.0.read_to_string(&mut answer)?;
        let served = answer.strip_suffix("done\n").and_then(|it| it.split_once(' '));
        let pid = served.and_then(|(pid, _)| pid.parse().ok());
        pid.map(Process).ok_or_else(|| std::io::Error::other(format!("answered: {answer:?}")))
    }
}

impl Client {
    /// Connects to `HOST:PORT` and waits until a worker has taken the connection.
    pub(crate) fn tcp(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a listener");
        stream.set_read_timeout(PATIENCE).expect("a timeout");
        Self::greeted(Box::new(stream))
    }

    /// The same; `None` if nobody listens, or whoever took the connection went away.
    pub(crate) fn try_tcp(address: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(PATIENCE).expect("a timeout");
        Self::try_greeted(Box::new(stream))
    }

    /// The same over a Unix socket.
    pub(crate) fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("a listener");
        stream.set_read_timeout(PATIENCE).expect("a timeout");
        Self::greeted(Box::new(stream))
    }

    /// Connects to `HOST:PORT`, says all it has to say, and waits for nothing.
    pub(crate) fn queue_tcp(address: &str, behaviour: &str) -> Queued {
        let stream = TcpStream::connect(address).expect("a listener");
        stream.set_read_timeout(PATIENCE).expect("a timeout");
        Queued::of(stream, behaviour, |stream| stream.shutdown(Shutdown::Write))
    }

    /// The same over a Unix socket.
    pub(crate) fn queue_unix(path: &Path, behaviour: &str) -> Queued {
        let stream = UnixStream::connect(path).expect("a listener");
        stream.set_read_timeout(PATIENCE).expect("a timeout");
        Queued::of(stream, behaviour, |stream| stream.shutdown(Shutdown::Write))
    }

    fn greeted(stream: Box<dyn Stream>) -> Self {
        Self::try_greeted(stream).expect("a greeting")
    }

    fn try_greeted(stream: Box<dyn Stream>) -> Option<Self> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let (pid, slot) = line.trim().split_once(' ')?;
        let number = |text: &str| text.parse().expect("a number");
        Some(Self { worker: Process(number(pid)), slot: number(slot).unsigned_abs(), stream })
    }

    /// Asks for a behaviour and gives the lines before `done`; `None` if the worker went away.
    pub(crate) fn ask(&mut self, behaviour: &str) -> Option<Vec<String>> {
        // A reset is an end too, whether it is met here or below.
        writeln!(self.stream.get_mut(), "{behaviour}").ok()?;
        let mut answer = Vec::new();
        loop {
            let mut line = String::new();
            let length = self.stream.read_line(&mut line).unwrap_or(0);
            match line.trim_end() {
                _ if length == 0 => return None,
                "done" => return Some(answer),
                other => answer.push(other.to_owned()),
            }
        }
    }
}

/// Ends what waits for this to be so, also when a test fails, which waits for its threads.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has clients talk while something is done; none of them may be let down. Says how many conversations there
/// were.
pub(crate) fn while_clients_talk(address: &str, act: impl FnOnce()) -> u32 {
    let is_over = AtomicBool::new(false);
    let talks = || {
        let mut talks = 0_u32;
        while !is_over.load(Ordering::Relaxed) {
            assert!(Client::tcp(address).ask("environment").is_some(), "after {talks}");
            talks += 1;
            let_pass(Duration::from_millis(2));
        }
        assert!(talks > 0, "a client had no conversation");
        talks
    };
    thread::scope(|scope| {
        let over = Over(&is_over);
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(talks)).collect();
        act();
        drop(over);
        clients.into_iter().map(|client| client.join().expect("every talk is heard")).sum()
    })
}
