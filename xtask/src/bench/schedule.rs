//! Requests by a schedule: a thousand new connections a second, whatever becomes of them.
//!
//! Clients do not wait for each other, so a stall is seen by everyone it holds up; a latency is counted from
//! the moment at which the schedule has its connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use xtask::monotonic;

use super::client::{SECOND, request};

/// New connections a second, and the clients that make them.
pub(super) const RATE: u64 = 1000;
const CLIENTS: usize = 64;

/// From when to when requests are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// A request that was not answered.
#[derive(Debug)]
pub(super) struct Failure {
    /// When its client saw it.
    pub(super) at: u64,
    pub(super) is_refused: bool,
}

/// What became of the requests.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) failures: Vec<Failure>,
    /// The latency of the slowest that was answered.
    pub(super) worst: Duration,
}

/// Makes requests for so long, and does something else meanwhile.
pub(super) fn run<T>(
    address: SocketAddr,
    seconds: u64,
    meanwhile: impl FnOnce(Span) -> T,
) -> (Served, T) {
    let (next, worst) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    let begin = monotonic() + SECOND / 10;
    let total = RATE * seconds;
    let client = || {
        let mut failed = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= total {
                break;
            }
            let due = begin + number * (SECOND / RATE);
            pause_until(due);
            match request(address) {
                Ok(()) => {
                    worst.fetch_max(monotonic().saturating_sub(due), Ordering::Relaxed);
                }
                Err(error) => {
                    let is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
                    failed.push(Failure { at: monotonic(), is_refused });
                }
            }
        }
        if let Ok(mut failures) = failures.lock() {
            failures.append(&mut failed);
        }
    };
    let done = std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(client);
        }
        meanwhile(Span { begin, end: begin + seconds * SECOND })
    });
    let failures = failures.into_inner().unwrap_or_default();
    (Served { failures, worst: Duration::from_nanos(worst.into_inner()) }, done)
}

pub(super) fn pause_until(at: u64) {
    let wait = at.saturating_sub(monotonic());
    if wait > 0 {
        std::thread::park_timeout(Duration::from_nanos(wait));
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are some ten thousand at most")]
pub(super) fn count(requests: usize) -> f64 {
    requests as f64
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
