//! The other end of the control socket: for whoever wants something of a master.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Lines, Reply, Request};
use crate::driver::connect;
use crate::sys::clock;

/// The longest line of an answer that is read, in bytes.
const REPLY_MAX: usize = 1 << 20;

/// Reasons to look at the clock and go on.
const NOT_YET: [io::ErrorKind; 2] = [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock];

/// A connection to a master.
///
/// ```no_run
/// use ph_core::control::{Client, Reply, Request};
///
/// # fn main() -> std::io::Result<()> {
/// let mut client = Client::ask("/run/web.sock".as_ref(), &Request::Stop { now: false })?;
/// while let Some(reply) = client.next(None)? {
///     if let Reply::Done(done) = reply {
///         println!("{}", done.text);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    lines: Lines,
    /// When the whole answer has had its time.
    until: Option<u64>,
}

impl Client {
    /// Connects, and asks. A path of any length will do. Neither waits: a master that is too busy to
    /// take the connection is an error ([`io::ErrorKind::WouldBlock`]).
    ///
    /// # Errors
    ///
    /// Nobody is there (`NotFound`, `ConnectionRefused`), or this user may not connect.
    pub fn ask(path: &Path, request: &Request) -> io::Result<Self> {
        let mut stream = UnixStream::from(connect(path)?);
        match stream.write_all(request.to_line().as_bytes()) {
            // It was refused before it was heard; the answer says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written?,
        }
        stream.set_nonblocking(false)?;
        Ok(Self { stream, lines: Lines::new(REPLY_MAX), until: None })
    }

    /// Limits the time that the whole answer has, from now on.
    #[must_use]
    pub fn within(mut self, limit: Option<Duration>) -> Self {
        self.until = limit.map(after);
        self
    }

    /// Whether that time is over.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.until.is_some_and(|until| until <= clock::monotonic())
    }

    /// The next line of the answer, waited for as long as `limit` and [`within`](Self::within) say;
    /// `None` at its end.
    ///
    /// # Errors
    ///
    /// It did not come in time ([`io::ErrorKind::TimedOut`]), or is none.
    pub fn next(&mut self, limit: Option<Duration>) -> io::Result<Option<Reply>> {
        let until = limit.map(after).into_iter().chain(self.until).min();
        loop {
            let line = self.lines.take().map_err(|_| invalid("a line without end"))?;
            if let Some(line) = line {
                let reply = serde_json::from_slice(&line);
                return reply.map(Some).map_err(|error| invalid(&error.to_string()));
            }
            let left = until.map(|until| until.saturating_sub(clock::monotonic()));
            if left == Some(0) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(left.map(Duration::from_nanos))?;
            let mut bytes = [0; 1 << 16];
            match self.stream.read(&mut bytes) {
                Ok(0) if self.lines.is_empty() => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.lines.push(&bytes[..length]),
                Err(error) if NOT_YET.contains(&error.kind()) => {}
                // It was closed before all that was sent had been read.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// This span from now on, on the monotonic clock.
fn after(limit: Duration) -> u64 {
    clock::monotonic().saturating_add(clock::nanos(limit))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an answer of a master: {what}"))
}
