//! A service in each of the three classes, chosen by `CLASS` (`sync`, `thread` or `async`): it answers a line
//! with what the line asks for. The subject of the tests of classes.
//!
//! | line | what the worker does |
//! |---|---|
//! | `pid` | says its pid and its slot |
//! | `sleep N` | takes N milliseconds, as a request that waits for something |
//! | `hang` | blocks its thread for good, without a heartbeat |
//! | `panic` | panics |
//! | `fail` | comes back with an error |
//! | `preloaded` | says the pid of the process that has preloaded, or `none` |
//! | `variable NAME` | says a variable of its environment, or `none` |
//!
//! Without listeners it is a job loop that says `turn` every tenth of a second. `app_boot` is what
//! goes wrong at a boot, `app_preload` (`fail`, `panic`, `thread`) what does when it preloads: `fail`, `panic`, `hang`, `slow` (it takes two seconds) or `deaf` (SIGABRT is blocked).

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use ph_cli::App;
use ph_core::{AsyncConnection, AsyncWorker, Connection, Context, Result, ThreadWorker, Worker};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

const TURN: Duration = Duration::from_millis(100);

/// Which process has preloaded.
static PRELOADED: OnceLock<u32> = OnceLock::new();

struct Service;

fn preload(app: &BTreeMap<String, String>) -> Result {
    match app.get("preload").map(String::as_str) {
        Some("fail") => Err("as it was asked for".into()),
        Some("panic") => panic!("as it was asked for"),
        Some("thread") => {
            drop(std::thread::spawn(|| hang()));
            Ok(())
        }
        _ => {
            let _ = PRELOADED.set(std::process::id());
            Ok(())
        }
    }
}

fn boot(ctx: &Context) -> Result {
    match ctx.app("boot") {
        Some("fail") => Err("as it was asked for".into()),
        Some("panic") => panic!("as it was asked for"),
        Some("hang") => hang(),
        Some("slow") => {
            take(Duration::from_secs(2));
            Ok(())
        }
        // Threads are started later, and inherit it.
        Some("deaf") => Ok(SigSet::from(Signal::SIGABRT).thread_block()?),
        _ => Ok(()),
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

/// What a line asks for, apart from the waiting.
fn answer(ctx: &Context, line: &str) -> Result<String> {
    if let Some(name) = line.trim_end().strip_prefix("variable ") {
        return Ok(std::env::var(name).unwrap_or_else(|_| "none".to_owned()) + "\n");
    }
    match line.trim_end() {
        "panic" => panic!("as it was asked for"),
        "preloaded" => Ok(PRELOADED.get().map_or("none".to_owned(), ToString::to_string) + "\n"),
        "fail" => Err("as it was asked for".into()),
        "hang" => hang(),
        _ => Ok(format!("{} {}\n", ctx.pid(), ctx.slot())),
    }
}

fn wait_of(line: &str) -> Option<Duration> {
    line.trim_end().strip_prefix("sleep ")?.parse().ok().map(Duration::from_millis)
}

#[expect(clippy::disallowed_methods, reason = "as a request to somebody else, deaf to a stop")]
fn take(span: Duration) {
    std::thread::sleep(span);
}

fn handle(ctx: &Context, connection: Option<Connection>) -> Result {
    let Some(connection) = connection else {
        tracing::info!("turn");
        ctx.sleep(TURN);
        return Ok(());
    };
    let (mut line, mut reader) = (String::new(), BufReader::new(connection));
    reader.read_line(&mut line)?;
    take(wait_of(&line).unwrap_or_default());
    let answer = answer(ctx, &line)?;
    Ok(reader.into_inner().write_all(answer.as_bytes())?)
}

impl Worker for Service {
    fn preload(app: &BTreeMap<String, String>) -> Result {
        preload(app)
    }

    fn setup(&mut self, ctx: &Context) -> Result {
        boot(ctx)
    }

    fn handle_request(&mut self, ctx: &Context, connection: Option<Connection>) -> Result {
        handle(ctx, connection)
    }

    fn stop(&mut self, _: &Context) {
        tracing::info!("stopped");
    }
}

impl ThreadWorker for Service {
    fn preload(app: &BTreeMap<String, String>) -> Result {
        preload(app)
    }

    fn setup(&mut self, ctx: &Context) -> Result {
        boot(ctx)
    }

    fn handle_request(&self, ctx: &Context, connection: Option<Connection>) -> Result {
        handle(ctx, connection)
    }

    fn stop(&mut self, _: &Context) {
        tracing::info!("stopped");
    }
}

impl AsyncWorker for Service {
    fn preload(app: &BTreeMap<String, String>) -> Result {
        preload(app)
    }

    async fn setup(&mut self, ctx: &Context) -> Result {
        boot(ctx)
    }

    async fn handle_request(&self, ctx: &Context, connection: Option<AsyncConnection>) -> Result {
        let Some(connection) = connection else {
            tracing::info!("turn");
            ctx.pause(TURN).await;
            return Ok(());
        };
        let (mut line, mut reader) = (String::new(), tokio::io::BufReader::new(connection));
        reader.read_line(&mut line).await?;
        tokio::time::sleep(wait_of(&line).unwrap_or_default()).await;
        let answer = answer(ctx, &line)?;
        Ok(reader.into_inner().write_all(answer.as_bytes()).await?)
    }

    async fn stop(&self, _: &Context) {
        tracing::info!("stopped");
    }
}

fn main() -> ExitCode {
    let app = App::new("classes");
    let app = match std::env::var("CLASS").as_deref() {
        Ok("thread") => app.thread_worker(|_| Service),
        Ok("async") => app.async_worker(|_| Service),
        _ => app.worker(|_| Service),
    };
    app.main()
}
