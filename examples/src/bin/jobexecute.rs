//! The original's JobExecute: workers that log `go...` each second and a half.
//!
//! `jobexecute run -c examples/conf/config.ini` runs it in the foreground on the original's own
//! sample configuration; Ctrl-C ends it. `app_pause` is the time between two lines, in milliseconds.

use std::process::ExitCode;
use std::time::Duration;

use ph_cli::App;
use ph_core::{Connection, Context, Result, Worker};

struct JobExecute {
    pause: Duration,
}

impl JobExecute {
    /// The factory, called in each worker: whatever it is told is in its context.
    fn new(ctx: &Context) -> Self {
        let pause = ctx.app("pause").and_then(|millis| millis.parse().ok());
        Self { pause: Duration::from_millis(pause.unwrap_or(1500)) }
    }
}

impl Worker for JobExecute {
    fn handle_request(&mut self, ctx: &Context, _: Option<Connection>) -> Result {
        tracing::info!("go...");
        ctx.sleep(self.pause);
        Ok(())
    }
}

fn main() -> ExitCode {
    App::new("jobexecute").worker(JobExecute::new).main()
}
