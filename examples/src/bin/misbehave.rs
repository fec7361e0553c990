//! A worker that does whatever is asked, however bad: the subject of the end-to-end tests.
//!
//! `misbehave run -c FILE --set app_behaviour=WORD[:ARGUMENT][,WORD…]` has every worker act by
//! these words; with `--set app_from_slot=N` only the workers of slot N and above do. The table is
//! [`Behaviour::parse`]. A word that speaks of booting acts in `setup`, the others at each turn of
//! the job loop.
//!
//! With listeners, each client is first told who serves it (`PID SLOT`); then every line the client
//! sends is a word too, acted on at once and answered with `done` if the worker is still there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use ph_cli::App;
use ph_core::{Connection, Context, Result, Worker};

/// Longer than any test waits.
const FOR_EVER: Duration = Duration::from_secs(100_000);

/// One word of the vocabulary.
#[derive(Clone, Debug)]
enum Behaviour {
    /// Waits to be told to stop.
    Ok,
    /// Takes a turn each so many milliseconds.
    Turn(u64),
    /// Takes so many milliseconds, whatever happens meanwhile.
    Busy(u64),
    /// Logs a numbered line each turn.
    Count,
    /// Logs so many lines, then behaves.
    Write(u64),
    /// Prints so many numbered lines past the log, to stdout, then behaves.
    Print(u64),
    /// Beats, but goes on after a stop was asked for.
    IgnoreTerm,
    /// Does nothing at all: no heartbeat, no look at the stop flag.
    Hang,
    /// Blocks SIGABRT, so that only SIGKILL ends it.
    BlockAbort,
    /// Ends the process, with 1 in `setup`.
    CrashAtBoot,
    /// Ends the process with this code in `setup`.
    ExitCode(i32),
    /// Ends the process with this code at a turn, or when a client asks.
    Exit(i32),
    /// Ends the process with code 0 at this turn.
    ExitAfter(u64),
    /// `setup` comes back with an error.
    BootError,
    /// Panics in `setup`.
    PanicAtBoot,
    /// Panics at a turn, or when a client asks.
    Panic,
    /// A turn comes back with an error.
    Fail,
    /// `setup` takes so many seconds, whatever happens meanwhile.
    BootSlow(u64),
    /// Starts one process of its own, which outlives it.
    SpawnChild,
    /// Starts one process of its own that ignores SIGTERM.
    SpawnDeaf,
    /// Starts one in a session of its own, without a parent but the master.
    Escape,
    /// Becomes a daemon: this process ends, and a copy of it goes on in a session of its own.
    Daemonize,
    /// Starts so many processes that end at once, and never reaps them.
    Zombies(u64),
    /// Tells the client its environment.
    Environment,
}

impl Behaviour {
    fn parse(text: &str) -> Result<Self> {
        let (word, argument) = text.split_once(':').unwrap_or((text, ""));
        let number = || argument.parse().map_err(|_| format!("{text}: expected a number"));
        let code = || argument.parse().map_err(|_| format!("{text}: expected an exit code"));
        Ok(match word {
            "ok" => Self::Ok,
            "turn" => Self::Turn(number()?),
            "busy" => Self::Busy(number()?),
            "count" => Self::Count,
            "write" => Self::Write(number()?),
            "print" => Self::Print(number()?),
            "ignore_term" => Self::IgnoreTerm,
            "hang" => Self::Hang,
            "block_abort" => Self::BlockAbort,
            "crash_at_boot" => Self::CrashAtBoot,
            "exit_code" => Self::ExitCode(code()?),
            "exit" => Self::Exit(code()?),
            "exit_after" => Self::ExitAfter(number()?),
            "boot_error" => Self::BootError,
            "panic_at_boot" => Self::PanicAtBoot,
            "panic" => Self::Panic,
            "fail" => Self::Fail,
            "boot_slow" => Self::BootSlow(number()?),
            "spawn_child" => Self::SpawnChild,
            "spawn_deaf" => Self::SpawnDeaf,
            "escape" => Self::Escape,
            "daemonize" => Self::Daemonize,
            "zombies" => Self::Zombies(number()?),
            "environment" => Self::Environment,
            _ => return Err(format!("no such behaviour: {text}").into()),
        })
    }

    fn boot(&self) -> Result {
        match self {
            Self::CrashAtBoot => exit(1),
            Self::ExitCode(code) => exit(*code),
            Self::BootError => Err("asked to fail at boot".into()),
            Self::PanicAtBoot => panic!("asked to panic at boot"),
            Self::BootSlow(seconds) => {
                wait(Duration::from_secs(*seconds));
                Ok(())
            }
            Self::Ok
            | Self::Turn(_)
            | Self::Busy(_)
            | Self::Count
            | Self::Write(_)
            | Self::Print(_)
            | Self::IgnoreTerm
            | Self::Hang
            | Self::BlockAbort
            | Self::Exit(_)
            | Self::ExitAfter(_)
            | Self::Panic
            | Self::Fail
            | Self::SpawnChild
            | Self::SpawnDeaf
            | Self::Escape
            | Self::Daemonize
            | Self::Zombies(_)
            | Self::Environment => Ok(()),
        }
    }

    fn act(&self, ctx: &Context, turn: u64, answer: &mut dyn std::io::Write) -> Result {
        match self {
            Self::Ok => {
                ctx.sleep(FOR_EVER);
            }
            Self::Turn(millis) => {
                ctx.sleep(Duration::from_millis(*millis));
            }
            Self::Busy(millis) => wait(Duration::from_millis(*millis)),
            Self::Count => tracing::info!("count {turn}"),
            Self::Write(lines) => {
                for line in 1..=*lines {
                    tracing::info!("line {line} of {lines}");
                }
            }
            Self::Print(lines) => {
                let mut stdout = std::io::stdout();
                for line in 1..=*lines {
                    writeln!(stdout, "printed {line} of {lines}")?;
                }
                writeln!(std::io::stderr(), "and this on stderr")?;
            }
            Self::IgnoreTerm => loop {
                ctx.beat();
                wait(Duration::from_millis(20));
            },
            Self::Hang => wait(FOR_EVER),
            Self::BlockAbort => SigSet::from(Signal::SIGABRT).thread_block()?,
            Self::Exit(code) => exit(*code),
            Self::ExitAfter(turns) if turn >= *turns => exit(0),
            Self::Panic => panic!("asked to panic"),
            Self::Fail => return Err("asked to fail".into()),
            Self::SpawnChild => spawn("sleep", &["1000"])?,
            Self::SpawnDeaf => spawn("sh", &["-c", "trap '' TERM; exec sleep 1001"])?,
            Self::Escape => spawn("setsid", &["sh", "-c", "(exec sleep 1002) &"])?,
            Self::Daemonize => nix::unistd::daemon(true, true)?,
            Self::Zombies(count) => {
                for _ in 0..*count {
                    spawn("true", &[])?;
                }
            }
            Self::Environment => {
                for (name, value) in std::env::vars() {
                    writeln!(answer, "{name}={value}")?;
                }
            }
            Self::ExitAfter(_)
            | Self::CrashAtBoot
            | Self::ExitCode(_)
            | Self::BootError
            | Self::PanicAtBoot
            | Self::BootSlow(_) => {}
        }
        Ok(())
    }
}

#[derive(Default)]
struct Misbehave {
    behaviours: Vec<Behaviour>,
    turn: u64,
}

impl Worker for Misbehave {
    fn setup(&mut self, ctx: &Context) -> Result {
        let from_slot = ctx.app("from_slot").map_or(Ok(0), str::parse)?;
        let text = ctx.app("behaviour").filter(|_| ctx.slot() >= from_slot).unwrap_or("ok");
        self.behaviours = text.split(',').map(Behaviour::parse).collect::<Result<_>>()?;
        self.behaviours.iter().try_for_each(Behaviour::boot)
    }

    fn handle_request(&mut self, ctx: &Context, connection: Option<Connection>) -> Result {
        self.turn += 1;
        match connection {
            Some(mut connection) => {
                writeln!(connection, "{} {}", ctx.pid(), ctx.slot())?;
                converse(ctx, &mut BufReader::new(connection))
            }
            None => {
                let act = |it: &Behaviour| it.act(ctx, self.turn, &mut std::io::sink());
                self.behaviours.iter().try_for_each(act)
            }
        }
    }

    fn stop(&mut self, _: &Context) {
        tracing::info!("stopped after turn {}", self.turn);
    }
}

/// Does what a client says, line by line, until it has said all.
fn converse(ctx: &Context, client: &mut BufReader<Connection>) -> Result {
    let mut line = String::new();
    while client.read_line(&mut line)? > 0 {
        Behaviour::parse(line.trim_end())?.act(ctx, 0, client.get_mut())?;
        client.get_mut().write_all(b"done\n")?;
        line.clear();
    }
    Ok(())
}

/// Time passes, and no signal ends the wait.
fn wait(duration: Duration) {
    let (_kept, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv_timeout(duration);
}

#[expect(clippy::disallowed_methods, reason = "what a user's code may do at any time")]
fn exit(code: i32) -> ! {
    std::process::exit(code)
}

/// Starts a process and forgets it: leaving processes behind is the misbehaviour.
fn spawn(program: &str, arguments: &[&str]) -> Result {
    std::process::Command::new(program).args(arguments).spawn()?;
    Ok(())
}

fn main() -> ExitCode {
    App::new("misbehave").worker(|_| Misbehave::default()).main()
}
