//! The original's JobExecute: workers that log `go...` each second and a half.
//!
//! `jobexecute run -c examples/conf/config.ini` runs it in the foreground on the original's own
//! sample configuration; Ctrl-C ends it.

use std::process::ExitCode;
use std::time::Duration;

use ph_cli::App;
use ph_core::{Connection, Context, Result, Worker};

struct JobExecute;

impl Worker for JobExecute {
    fn handle_request(&mut self, ctx: &Context, _: Option<Connection>) -> Result {
        tracing::info!("go...");
        ctx.sleep(Duration::from_millis(1500));
        Ok(())
    }
}

fn main() -> ExitCode {
    App::new("jobexecute").worker(|_| JobExecute).main()
}
