//! What not to do: a thread is started before the master. The master refuses to run, because a fork
//! copies one thread only and every lock another one holds would stay locked in the worker.

use std::process::ExitCode;
use std::sync::mpsc;

use ph_cli::App;
use ph_core::{Connection, Context, Result, Worker};

struct Idle;

impl Worker for Idle {
    fn handle_request(&mut self, ctx: &Context, _: Option<Connection>) -> Result {
        ctx.sleep(std::time::Duration::from_secs(60));
        Ok(())
    }
}

fn main() -> ExitCode {
    let (until_the_end, end) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || end.recv());
    let code = App::new("threaded").worker(|_| Idle).main();
    drop(until_the_end);
    // It ends with an error, being told by the hang-up.
    let _ = thread.join();
    code
}
