//! What a heartbeat costs: `bench-beat BEATS ROUNDS [thread | clock]`.
//!
//! One worker of `ph-core` beats so often, so many times over, and prints the nanoseconds of a beat of each
//! round, one a line; then it has its master stop. It is of the class `sync`, or with `thread` of that class,
//! where two threads beat at the same time. With `clock` there is no worker: the clock that a heartbeat reads
//! is read, which is the floor.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "that is how it answers")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::getppid;
use ph_core::{Connection, Context, Master, Result, ThreadWorker, Worker};
use xtask::monotonic;

#[derive(Clone, Copy)]
enum Way {
    Sync,
    Thread,
    Clock,
}

struct Beats {
    beats: u32,
    rounds: u32,
    /// Threads that have more to print.
    busy: AtomicUsize,
}

impl Beats {
    fn time(&self, beat: impl Fn()) {
        for _ in 0..self.rounds {
            let started = monotonic();
            for _ in 0..self.beats {
                beat();
            }
            let nanos = Duration::from_nanos(monotonic() - started).as_secs_f64() * 1e9;
            println!("{}", nanos / f64::from(self.beats));
        }
    }

    fn live(&self, ctx: &Context) -> Result {
        self.time(|| ctx.beat());
        if self.busy.fetch_sub(1, Ordering::Relaxed) == 1 {
            kill(getppid(), Signal::SIGTERM)?;
        }
        while ctx.sleep(Duration::from_secs(3600)) {}
        Ok(())
    }
}

impl Worker for Beats {
    fn handle_request(&mut self, ctx: &Context, _: Option<Connection>) -> Result {
        self.live(ctx)
    }
}

impl ThreadWorker for Beats {
    fn handle_request(&self, ctx: &Context, _: Option<Connection>) -> Result {
        self.live(ctx)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (words, way) = match &words[..] {
        [words @ .., last] if last == "thread" => (words, Way::Thread),
        [words @ .., last] if last == "clock" => (words, Way::Clock),
        words => (words, Way::Sync),
    };
    let parsed = match words {
        [beats, rounds] => beats.parse().ok().zip(rounds.parse().ok()),
        _ => None,
    };
    let Some((beats, rounds)) = parsed else {
        eprintln!("bench-beat: expected BEATS ROUNDS [thread | clock]");
        return ExitCode::from(2);
    };
    let beats = move |threads| Beats { beats, rounds, busy: AtomicUsize::new(threads) };
    let master = match way {
        Way::Sync => Master::forked("bench", move |ctx| beats(ctx.threads())),
        Way::Thread => Master::threaded("bench", move |ctx| beats(ctx.threads())).threads(2),
        Way::Clock => {
            beats(0).time(|| {
                std::hint::black_box(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).ok());
            });
            return ExitCode::SUCCESS;
        }
    };
    match master.policy(|policy| policy.target = 1).run() {
        Ok(finished) => finished.outcome.code().into(),
        Err(error) => {
            eprintln!("bench-beat: {error}");
            error.code().into()
        }
    }
}
