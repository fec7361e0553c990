//! The rows about what a request costs: thirteen bytes by two workers, over a new connection each time or
//! over kept ones. What is counted is the CPU of the servers, user and system, for a request; the throughput
//! of a machine that has to make the requests as well says little.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use xtask::monotonic;

use super::client::{PATIENCE, SECOND, await_first, end_by, free_address, request, whole};
use super::subject::Programs;
use super::table::{Goal, Row, Table};

/// Requests under way at a time.
const CLIENTS: usize = 64;

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Two processes that accept, read, write and close.
    Floor,
    /// Two processes with hyper on one thread each, and a socket of their own.
    HyperSpread,
    /// The same on one socket.
    HyperShared,
    /// One process with hyper on two threads.
    HyperThreads,
    Sync,
    Async,
    /// Of the class `async`, with `reuse_port`.
    Spread,
}

/// How clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connections {
    New,
    Kept,
}

/// Measures all of it.
pub(super) fn measure(
    programs: &Programs,
    is_quick: bool,
    only: Option<&str>,
    table: &mut Table,
) -> Result<()> {
    let rows = [
        ("hello, a connection each, sync", Server::Sync, Server::Floor, Connections::New, 1.15),
        (
            "hello, a connection each, async, one socket",
            Server::Async,
            Server::HyperShared,
            Connections::New,
            1.0,
        ),
        (
            "hello, a connection each, async, reuse_port",
            Server::Spread,
            Server::HyperSpread,
            Connections::New,
            1.0,
        ),
        ("hello, kept alive, async", Server::Async, Server::HyperThreads, Connections::Kept, 1.05),
    ];
    for (name, server, floor, connections, times) in rows {
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let (mut ours, mut floors) = (Vec::new(), Vec::new());
        for _ in 0..if is_quick { 3 } else { 21 } {
            floors.push(round(programs, floor, connections)?);
            ours.push(round(programs, server, connections)?);
        }
        let middle = |mut all: Vec<f64>| {
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let least = |all: &[f64]| all.iter().copied().fold(f64::INFINITY, f64::min);
        table.add(Row {
            work: name.to_owned(),
            workers: "forked",
            unit: "us CPU",
            quiet_ratio: Some(least(&ours) / least(&floors)),
            value: middle(ours),
            floor: Some(middle(floors)),
            goal: Goal::TimesFloor(times),
        });
    }
    Ok(())
}

/// A second of requests; gives the CPU of one in microseconds. Rounds are short and many: how often servers sleep
/// depends on the CPUs on which they and the load were started, and stays so for a round.
#[expect(clippy::cast_precision_loss, reason = "there are a million at most")]
fn round(programs: &Programs, server: Server, connections: Connections) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let address = free_address()?;
    let running = Running::start(programs, server, address.port(), folder.path())?;
    await_first(address)?;
    load(address, connections, SECOND / 4);
    let before = running.cpu_nanos();
    let served = load(address, connections, SECOND);
    let nanos = running.cpu_nanos().saturating_sub(before);
    running.end()?;
    if served == 0 {
        bail!("{server:?} served nobody");
    }
    Ok(nanos as f64 / 1000.0 / served as f64)
}

/// The processes that serve.
struct Running(Vec<Child>);

impl Running {
    fn start(programs: &Programs, server: Server, port: u16, folder: &Path) -> Result<Self> {
        let port = port.to_string();
        let command = |program: &Path, words: &[&str]| {
            let mut command = Command::new(program);
            command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
            command.spawn().with_context(|| format!("cannot start {}", program.display()))
        };
        let pidfile = folder.join("bench.pid");
        let pidfile = pidfile.to_string_lossy();
        let children = match server {
            Server::Floor => vec![command(&programs.floor, &["accept", "2", &port])?],
            Server::HyperSpread => {
                let one = || command(&programs.hyper, &["own", &port]);
                vec![one()?, one()?]
            }
            Server::HyperShared => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?))?;
                let one = || {
                    let mut command = Command::new(&programs.hyper);
                    command
                        .arg("shared")
                        .stdin(OwnedFd::from(listener.try_clone()?))
                        .stdout(Stdio::null());
                    command.spawn().context("cannot start bench-hyper")
                };
                vec![one()?, one()?]
            }
            Server::HyperThreads => vec![command(&programs.hyper, &["threads", &port])?],
            Server::Sync => vec![command(&programs.serve, &[&port, &pidfile, "2", "0"])?],
            Server::Async | Server::Spread => {
                let way = if server == Server::Async { "async" } else { "spread" };
                vec![command(&programs.serve, &[&port, &pidfile, "2", "0", way])?]
            }
        };
        Ok(Self(children))
    }

    /// Of all of them and their children: user and system.
    fn cpu_nanos(&self) -> u64 {
        let mut pids: Vec<_> = self.0.iter().map(Child::id).collect();
        let mut next = 0;
        while let Some(pid) = pids.get(next) {
            let path = format!("/proc/{pid}/task/{pid}/children");
            let children = std::fs::read_to_string(path).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            next += 1;
        }
        pids.into_iter().map(nanos_of).sum()
    }

    fn end(mut self) -> Result<()> {
        self.0.drain(..).try_for_each(|child| end_by(child, Signal::SIGTERM))
    }
}

impl Drop for Running {
    /// Those that were not ended because something else went wrong, which is told.
    fn drop(&mut self) {
        for child in self.0.drain(..) {
            let _ = end_by(child, Signal::SIGTERM);
        }
    }
}

/// The first number of a thread's `schedstat` is its time on a CPU.
fn nanos_of(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stat = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    threads.filter_map(stat).sum()
}

/// Makes requests for so long, and says how many were answered.
fn load(address: SocketAddr, connections: Connections, span: u64) -> u64 {
    let (served, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut kept = None;
                while !is_over.load(Ordering::Relaxed) {
                    let done = match connections {
                        Connections::New => request(address),
                        Connections::Kept => request_again(address, &mut kept),
                    };
                    served.fetch_add(u64::from(done.is_ok()), Ordering::Relaxed);
                }
            });
        }
        let until = monotonic() + span;
        while monotonic() < until {
            std::thread::park_timeout(Duration::from_nanos(until.saturating_sub(monotonic())));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    served.into_inner()
}

/// A request over a connection that is kept, and the whole answer.
fn request_again(
    address: SocketAddr,
    kept: &mut Option<BufReader<TcpStream>>,
) -> std::io::Result<()> {
    let mut reader = match kept.take() {
        Some(reader) => reader,
        None => {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            BufReader::new(stream)
        }
    };
    reader.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return whole(false);
        }
    }
    let mut body = [0; 13];
    reader.read_exact(&mut body)?;
    whole(body == *b"Hello, world!")?;
    *kept = Some(reader);
    Ok(())
}
