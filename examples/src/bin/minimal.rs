//! The smallest service: two workers that count, on `ph-core` alone. Ctrl-C ends it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it shows")]

use std::process::ExitCode;
use std::time::Duration;

use ph_core::{Connection, Context, Master, Result, Worker};

struct Counter(u64);

impl Worker for Counter {
    fn handle_request(&mut self, ctx: &Context, _: Option<Connection>) -> Result {
        self.0 += 1;
        println!("worker {} counts {}", ctx.slot(), self.0);
        ctx.sleep(Duration::from_secs(1));
        Ok(())
    }
}

fn main() -> ExitCode {
    match Master::forked("minimal", |_| Counter(0)).workers(2).run() {
        Ok(finished) => finished.outcome.code().into(),
        Err(error) => {
            eprintln!("minimal: {error}");
            error.code().into()
        }
    }
}
