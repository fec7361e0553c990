//! A program that configures itself in code and is reloaded all the same: at SIGHUP the file `workers` in
//! the folder `RELOADS_FOLDER` says how many there are to be.
//!
//! The subject of the tests of whoever reads a configuration: with `hang` in the file that takes for ever,
//! with `panic` it fails badly, and any other word is refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ph_core::{Connection, Context, LoadRequest, Master, Pidfile, Result, Worker};

/// Longer than any test waits.
const FOR_EVER: Duration = Duration::from_secs(100_000);

struct Idle;

impl Worker for Idle {
    fn handle_request(&mut self, ctx: &Context, _: Option<Connection>) -> Result {
        ctx.sleep(FOR_EVER);
        Ok(())
    }
}

/// What the file says now; the note is its text.
fn master(folder: &Path) -> std::result::Result<Master, String> {
    let path = folder.join("workers");
    let text =
        std::fs::read_to_string(&path).map_err(|why| format!("{}: {why}", path.display()))?;
    match text.trim() {
        "hang" => wait(),
        "panic" => panic!("asked to panic"),
        _ => {}
    }
    let workers = text.trim().parse().map_err(|_| format!("expected a number, got {text:?}"))?;
    let master = Master::forked("reloads", |_| Idle).workers(workers).note(text);
    Ok(master.policy(|policy| {
        policy.min_uptime = Duration::from_millis(100);
        policy.load_timeout = Duration::from_secs(2);
    }))
}

/// Time passes, and no signal ends the wait.
fn wait() {
    let (_kept, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv_timeout(FOR_EVER);
}

fn main() -> Result {
    let folder = PathBuf::from(std::env::var_os("RELOADS_FOLDER").ok_or("no RELOADS_FOLDER")?);
    let pidfile = Pidfile { path: folder.join("reloads.pid"), single_instance: true };
    let load = {
        let folder = folder.clone();
        move |request: &LoadRequest| {
            let master = master(&folder)?;
            Ok(master.changes(format!("the workers were {:?}", request.note())))
        }
    };
    master(&folder)?.pidfile(pidfile).on_reload(load).run()?;
    Ok(())
}
