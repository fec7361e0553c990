//! MessagePack-RPC over TCP and Unix sockets, of the class `sync`: each worker talks to one client at a time.
//!
//! | method | result |
//! |---|---|
//! | `add A B` | the sum of two integers |
//! | `echo VALUE` | the value |
//! | `sleep MILLISECONDS` | takes that long, a minute at most, and gives the number back |
//! | `stats` | who answers: `pid`, `slot`, `generation`, `requests` |
//!
//! A client keeps its connection for as many requests as it likes, and may send several before it reads an
//! answer; they are answered in their order. While it says nothing, its worker says that it lives, and looks
//! once a second whether it is to stop ([`incoming`]). A worker that is to stop answers what it has received
//! and closes; a request that was not answered then was never begun, and can be sent to another worker. A
//! client that says nothing for `app_idle` seconds is closed too, because others may wait for the worker.

mod incoming;
mod message;
mod methods;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use ph_cli::App;
use ph_core::{Connection, Context, Result, Worker};

use incoming::{Incoming, Next};
use message::Message;

/// How many requests of one client are answered after a stop was asked for: what it had sent by then.
const LAST_REQUESTS: u32 = 100;

struct MsgpackRpc {
    idle: Duration,
    requests: u64,
}

impl MsgpackRpc {
    fn new(ctx: &Context) -> Self {
        let idle = ctx.app("idle").and_then(|seconds| seconds.parse().ok());
        Self { idle: Duration::from_secs(idle.unwrap_or(30)), requests: 0 }
    }

    /// Answers until the client, or this worker, wants no more.
    fn converse(&mut self, ctx: &Context, incoming: &mut Incoming<'_>) -> io::Result<()> {
        let mut last = 0;
        while last < LAST_REQUESTS {
            match incoming.next()? {
                Next::End => break,
                Next::Message(message) => self.answer(ctx, incoming, message)?,
            }
            if !ctx.running() {
                last += 1;
            }
        }
        Ok(())
    }

    fn answer(&mut self, ctx: &Context, to: &mut Incoming<'_>, message: Message) -> io::Result<()> {
        self.requests += 1;
        match message {
            Message::Request { id, method, params } => {
                let outcome = methods::call(ctx, self.requests, &method, params);
                to.connection().write_all(&message::response(id, outcome)?)
            }
            Message::Notification { method, params } => {
                if let Err(error) = methods::call(ctx, self.requests, &method, params) {
                    tracing::warn!("the notification {method} came to nothing: {error}");
                }
                Ok(())
            }
        }
    }
}

impl Worker for MsgpackRpc {
    fn handle_request(&mut self, ctx: &Context, connection: Option<Connection>) -> Result {
        let connection = connection.ok_or("msgpack_rpc needs a listener: set bind")?;
        let peer = connection.peer();
        let mut incoming = Incoming::of(connection, ctx, self.idle)?;
        if let Err(error) = self.converse(ctx, &mut incoming) {
            tracing::warn!("the connection of {peer} is closed: {error}");
        }
        incoming.close();
        Ok(())
    }
}

fn main() -> ExitCode {
    App::new("msgpack_rpc").worker(MsgpackRpc::new).main()
}
