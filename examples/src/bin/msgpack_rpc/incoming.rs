//! The client's side of a connection: its messages, one after the other, with every wait bounded.
//!
//! A read waits a second at most ([`TICK`]), then the worker says that it lives and looks whether it is to
//! stop. Between two messages a stop, or too long a silence, is the end; a message has [`PATIENCE`] from its
//! first byte to its last.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use ph_core::{Connection, Context};

use crate::message::Message;

/// How long one read waits.
const TICK: Duration = Duration::from_secs(1);

/// How long a message may take, and a client that does not take its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest message.
const MESSAGE_AT_MOST: u64 = 1 << 20;

/// What comes next.
pub(crate) enum Next {
    Message(Message),
    /// Nothing any more: the client has closed, or was silent for too long, or the worker is to stop.
    End,
}

/// What a client sends.
pub(crate) struct Incoming<'a> {
    patient: BufReader<Patient<'a>>,
}

/// A connection that does not give up at the first tick.
struct Patient<'a> {
    connection: Connection,
    ctx: &'a Context,
    idle_ticks: u64,
    /// When a message has begun.
    begun_at: Option<Instant>,
}

impl<'a> Incoming<'a> {
    pub(crate) fn of(connection: Connection, ctx: &'a Context, idle: Duration) -> io::Result<Self> {
        match &connection {
            Connection::Tcp(stream, _) => {
                stream.set_read_timeout(Some(TICK))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
            }
            Connection::Unix(stream) => {
                stream.set_read_timeout(Some(TICK))?;
                stream.set_write_timeout(Some(PATIENCE))?;
            }
        }
        let idle_ticks = idle.as_secs() / TICK.as_secs();
        let patient = Patient { connection, ctx, idle_ticks, begun_at: None };
        Ok(Self { patient: BufReader::new(patient) })
    }

    pub(crate) fn next(&mut self) -> io::Result<Next> {
        self.patient.get_mut().begun_at = None;
        if self.patient.fill_buf()?.is_empty() {
            return Ok(Next::End);
        }
        self.patient.get_mut().begun_at = Some(now());
        Message::read(&mut self.patient.by_ref().take(MESSAGE_AT_MOST)).map(Next::Message)
    }

    /// Where answers go.
    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.patient.get_mut().connection
    }

    /// Says that nothing more comes, and reads on until the client has closed too, a moment at most: to
    /// close a socket that has something unread in it is a reset, which overtakes the answers.
    pub(crate) fn close(mut self) {
        let connection = self.connection();
        let _ = connection.flush();
        let is_shut = match connection {
            Connection::Tcp(stream, _) => stream.shutdown(Shutdown::Write),
            Connection::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
        let mut unread = [0; 4096];
        let mut reads = 0;
        while is_shut.is_ok() && reads < 100 && connection.read(&mut unread).is_ok_and(|it| it > 0)
        {
            reads += 1;
        }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut silent = 0;
        while self.ctx.running() || self.begun_at.is_some() {
            if self.begun_at.is_some_and(|begun_at| now() - begun_at > PATIENCE) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "half a message"));
            }
            match self.connection.read(buffer) {
                Ok(length) => return Ok(length),
                // A signal, which may be the one that asks for a stop.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_tick(&error) => silent += 1,
                Err(error) => return Err(error),
            }
            if self.begun_at.is_none() && silent >= self.idle_ticks {
                break;
            }
        }
        Ok(0)
    }
}

fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[expect(
    clippy::disallowed_methods,
    reason = "no decision of ph: how long a client of this service takes"
)]
fn now() -> Instant {
    Instant::now()
}
