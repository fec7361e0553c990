//! A master of forked workers on `ph-core` alone; each stamps the clock in `init_process`, then waits.
//!
//! `bench-forked N`. It has no log at all, as a service with `log_level = error` has none to write,
//! no listeners and no heartbeat timeout, and a slot whose worker is killed again and again does not
//! back off.

#![expect(clippy::print_stderr, reason = "there is no log")]

use std::fs::File;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ph_core::{Connection, Context, Master, Result, Worker};
use xtask::{Stamp, open_stamps};

struct Stamper(Rc<File>);

impl Worker for Stamper {
    fn init_process(&mut self, _: &Context) -> Result {
        Ok(Stamp::now().write(&self.0)?)
    }

    fn handle_request(&mut self, ctx: &Context, _: Option<Connection>) -> Result {
        ctx.sleep(Duration::from_secs(3600));
        Ok(())
    }
}

fn main() -> ExitCode {
    let workers = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let (Some(workers), Ok(pipe)) = (workers, open_stamps()) else {
        eprintln!("bench-forked: expected a number of workers and {} set", xtask::STAMPS);
        return ExitCode::from(2);
    };
    let pipe = Rc::new(pipe);
    let master = Master::forked("bench", move |_| Stamper(Rc::clone(&pipe))).policy(|policy| {
        policy.target = workers;
        policy.max_workers = policy.max_workers.max(workers);
        policy.min_uptime = Duration::ZERO;
        policy.max_restarts = 1_000_000;
    });
    match master.run() {
        Ok(finished) => finished.outcome.code().into(),
        Err(error) => {
            eprintln!("bench-forked: {error}");
            error.code().into()
        }
    }
}
