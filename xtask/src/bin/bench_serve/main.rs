//! A master of forked workers with one listener, on `ph-core` alone: each request takes some time and gets
//! thirteen bytes.
//!
//! `bench-serve PORT PIDFILE SLOTS MILLISECONDS [async | spread | killed]`. It has no log and no heartbeat timeout.
//! With `async` its workers are of that class, speak HTTP by hyper and keep connections; with `spread` they do, and
//! each has a socket of its own (`reuse_port`). With `killed` no number of restarts is too many. Workers that are
//! of the class `sync` stamp if there is a FIFO for it.

#![expect(clippy::print_stderr, reason = "there is no log")]

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use ph_core::{
    Address, AsyncConnection, AsyncWorker, Connection, Context, Master, Pidfile, Result,
    SocketOptions, Worker,
};

use xtask::{Stamp, open_stamps};

mod hyper_hello;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Sync,
    Async,
    Spread,
    Killed,
}

struct Hello {
    work: Duration,
}

impl AsyncWorker for Hello {
    async fn handle_request(&self, _: &Context, connection: Option<AsyncConnection>) -> Result {
        let Some(connection) = connection else { return Ok(()) };
        Ok(hyper_hello::serve(connection).await?)
    }
}

impl Worker for Hello {
    fn init_process(&mut self, _: &Context) -> Result {
        match std::env::var_os(xtask::STAMPS) {
            Some(_) => Ok(Stamp::now().write(&open_stamps()?)?),
            None => Ok(()),
        }
    }

    fn handle_request(&mut self, _: &Context, connection: Option<Connection>) -> Result {
        let Some(mut connection) = connection else { return Ok(()) };
        let mut request = [0; 1024];
        let _length = connection.read(&mut request)?;
        if !self.work.is_zero() {
            work(self.work);
        }
        Ok(connection.write_all(xtask::HELLO)?)
    }
}

/// A stop that comes meanwhile does not cut it short.
#[expect(clippy::disallowed_methods, reason = "as a request to somebody else")]
fn work(span: Duration) {
    std::thread::sleep(span);
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (words, way) = match &words[..] {
        [words @ .., last] if last == "async" => (words, Way::Async),
        [words @ .., last] if last == "spread" => (words, Way::Spread),
        [words @ .., last] if last == "killed" => (words, Way::Killed),
        words => (words, Way::Sync),
    };
    let parsed = match words {
        [port, pidfile, slots, work] => {
            port.parse().ok().zip(slots.parse().ok()).zip(work.parse().ok()).map(|it| (it, pidfile))
        }
        _ => None,
    };
    let Some((((port, slots), work), pidfile)) = parsed else {
        eprintln!(
            "bench-serve: expected PORT PIDFILE SLOTS MILLISECONDS [async | spread | killed]"
        );
        return ExitCode::from(2);
    };
    let work = Duration::from_millis(work);
    let master = match way {
        Way::Async | Way::Spread => Master::asynchronous("bench", move |_| Hello { work }),
        Way::Sync | Way::Killed => Master::forked("bench", move |_| Hello { work }),
    };
    let master = master
        .sockets(SocketOptions { reuse_port: way == Way::Spread, ..SocketOptions::default() })
        .bind(Address::Tcp { host: Some("127.0.0.1".to_owned()), port })
        .pidfile(Pidfile { path: pidfile.into(), single_instance: true })
        .policy(|policy| {
            policy.target = slots;
            policy.min_uptime = Duration::from_millis(100);
            if way == Way::Killed {
                policy.min_uptime = Duration::from_millis(200);
                policy.max_restarts = 100_000;
            }
        });
    match master.run() {
        Ok(finished) => finished.outcome.code().into(),
        Err(error) => {
            eprintln!("bench-serve: {error}");
            error.code().into()
        }
    }
}
