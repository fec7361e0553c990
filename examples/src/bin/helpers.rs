//! A master with children that are not workers: helpers. One runs beside the workers and is told to stop
//! with them, one is needed until the last worker has ended, one runs once, one is another program.
//!
//! The subject of the tests of helpers; `ph_core` alone, so `HELPERS_FOLDER` says where the pidfile goes.

use std::path::PathBuf;
use std::time::Duration;

use ph_core::{
    Command, Connection, Context, Helper, HelperContext, Master, Pidfile, Result, Worker,
};

/// Longer than any test waits.
const FOR_EVER: Duration = Duration::from_secs(100_000);

struct Idle;

impl Worker for Idle {
    fn handle_request(&mut self, ctx: &Context, _: Option<Connection>) -> Result {
        ctx.sleep(FOR_EVER);
        Ok(())
    }

    fn stop(&mut self, ctx: &Context) {
        say(&format!("worker {} stops", ctx.slot()));
    }
}

/// Waits until it is told to stop.
fn wait(name: &'static str) -> impl Fn(&HelperContext) -> Result {
    move |ctx| {
        say(&format!("{name} is {}", std::process::id()));
        while ctx.running() {
            ctx.sleep(FOR_EVER);
        }
        say(&format!("{name} stops"));
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "what the tests read")]
fn say(line: &str) {
    println!("{line}");
}

fn main() -> Result {
    let folder = PathBuf::from(std::env::var_os("HELPERS_FOLDER").ok_or("no HELPERS_FOLDER")?);
    let once = |_: &HelperContext| {
        say("once ran");
        Ok(())
    };
    let program = Command::new(["sh", "-c", "echo program is $$; exec sleep 100000"]);
    let finished = Master::forked("helpers", |_| Idle)
        .workers(2)
        .pidfile(Pidfile { path: folder.join("helpers.pid"), single_instance: true })
        .helper(Helper::forked("beside", wait("beside")))
        .helper(Helper::forked("last", wait("last")).ends_last(true))
        .helper(Helper::forked("once", once).respawn(false))
        .helper(Helper::command("program", program))
        .run()?;
    say(&format!("ended with {}", finished.outcome.code()));
    Ok(())
}
