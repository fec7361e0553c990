//! A program with every hook: each writes one line, `PID HOOK ARGUMENTS`, into the file that `HOOKS_FILE`
//! names. Whoever reads that file sees which process calls which hook, and in which order.
//!
//! The subject of the tests of hooks, so it can also misbehave. `app_hang = FILE`: a worker does nothing
//! any more while that file is there. `HOOKS_PANIC` names hooks, with commas between, that panic after
//! their line. `HOOKS_THREAD` names one that leaves a thread behind, once, for as long as the file
//! `HOOKS_FILE.thread` is there.

use std::cell::Cell;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ph_cli::App;
use ph_core::{Connection, Context, HookWorker, Hooks, Result, Worker};

struct Idle;

impl Worker for Idle {
    fn handle_request(&mut self, ctx: &Context, _: Option<Connection>) -> Result {
        if let Some(file) = ctx.app("hang") {
            wait_gone(Path::new(file));
        }
        ctx.sleep(Duration::from_millis(20));
        Ok(())
    }
}

/// Waits, without a heartbeat, until a file is gone.
fn wait_gone(file: &Path) {
    let (_kept, never) = std::sync::mpsc::channel::<()>();
    while file.exists() {
        let _ = never.recv_timeout(Duration::from_millis(20));
    }
}

/// Writes down every call.
struct Recorded {
    file: PathBuf,
    panics: String,
    thread: String,
    has_thread: Cell<bool>,
}

impl Recorded {
    fn of_environment() -> Option<Self> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Some(Self {
            file: std::env::var_os("HOOKS_FILE")?.into(),
            panics: variable("HOOKS_PANIC"),
            thread: variable("HOOKS_THREAD"),
            has_thread: Cell::new(false),
        })
    }

    /// One write at the end of the file, so that lines of several processes do not mix.
    fn line(&self, hook: &str, arguments: impl Display) {
        let line = format!("{} {hook} {arguments}", std::process::id());
        let file = OpenOptions::new().append(true).create(true).open(&self.file);
        let written =
            file.and_then(|mut file| file.write_all(format!("{}\n", line.trim_end()).as_bytes()));
        if let Err(error) = written {
            tracing::error!("{}: {error}", self.file.display());
        }
        if self.thread == hook && !self.has_thread.replace(true) {
            let mut name = self.file.clone().into_os_string();
            name.push(".thread");
            std::thread::spawn(move || wait_gone(Path::new(&name)));
        }
        assert!(self.panics.split(',').all(|panics| panics != hook), "asked to");
    }
}

/// A worker as a line shows it.
fn shown(worker: HookWorker) -> String {
    let HookWorker { slot, generation, id, pid } = worker;
    let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    format!("slot={slot} generation={generation} id={id} pid={pid}")
}

impl Hooks for Recorded {
    fn on_starting(&self) {
        self.line("on_starting", "");
    }

    fn when_ready(&self) {
        self.line("when_ready", "");
    }

    fn pre_fork(&self, worker: HookWorker) {
        self.line("pre_fork", shown(worker));
    }

    fn post_fork(&self, worker: HookWorker) {
        self.line("post_fork", shown(worker));
    }

    fn post_worker_init(&self, worker: HookWorker) {
        self.line("post_worker_init", shown(worker));
    }

    fn worker_abort(&self, worker: HookWorker) {
        self.line("worker_abort", shown(worker));
    }

    fn worker_exit(&self, worker: HookWorker) {
        self.line("worker_exit", shown(worker));
    }

    fn child_exit(&self, worker: HookWorker) {
        self.line("child_exit", shown(worker));
    }

    fn nworkers_changed(&self, from: u32, to: u32) {
        self.line("nworkers_changed", format_args!("from={from} to={to}"));
    }

    fn on_reload(&self) {
        self.line("on_reload", "");
    }

    fn pre_exec(&self) {
        self.line("pre_exec", "");
    }

    fn on_exit(&self) {
        self.line("on_exit", "");
    }
}

fn main() -> ExitCode {
    let app = App::new("hooks").worker(|_| Idle);
    match Recorded::of_environment() {
        Some(recorded) => app.hooks(recorded).main(),
        None => app.main(),
    }
}
