//! The rows about serving: a thousand new connections a second, while the master reloads every second, or is
//! replaced by a successor every three.
//!
//! What the machine itself costs is seen in the row without orders, measured in the same run.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::monotonic;

use super::client::{SECOND, await_first, free_address};
use super::schedule::{self, RATE, Served, Span, count, millis, pause_until};
use super::subject::Programs;
use super::table::{Goal, Row, Table};

/// What the master is told meanwhile.
#[derive(Clone, Copy, Debug)]
struct Orders {
    name: &'static str,
    signal: Option<Signal>,
    every: Duration,
}

const NOTHING: Orders = Orders { name: "nothing", signal: None, every: Duration::from_secs(1) };
const RELOADS: Orders =
    Orders { name: "HUP a second", signal: Some(Signal::SIGHUP), every: Duration::from_secs(1) };
const UPGRADES: Orders = Orders {
    name: "upgrade each 3 s",
    signal: Some(Signal::SIGUSR2),
    every: Duration::from_secs(3),
};

/// Measures all of it.
pub(super) fn measure(
    programs: &Programs,
    is_quick: bool,
    only: Option<&str>,
    table: &mut Table,
) -> Result<()> {
    let seconds = if is_quick { 10 } else { 30 };
    // One slot serves two hundred requests of 5 ms a second, so two slots get shorter ones.
    for (slots, work) in [(2, 1), (8, 5)] {
        for orders in [NOTHING, RELOADS, UPGRADES] {
            let name = format!("{RATE} conn/s, {slots} slots, {work} ms, {}", orders.name);
            if only.is_some_and(|only| !name.contains(only)) {
                continue;
            }
            let served = round(programs, slots, work, orders, seconds)?;
            let row = |what: &str, unit, value, goal| Row {
                work: format!("{name}: {what}"),
                workers: "forked",
                unit,
                value,
                floor: None,
                quiet_ratio: None,
                goal: Goal::AtMost(goal),
            };
            table.add(row("failed", "", count(served.failures.len()), 0.0));
            table.add(row("worst", "ms", millis(served.worst), 15.0));
        }
    }
    Ok(())
}

/// One service, one schedule of requests.
fn round(
    programs: &Programs,
    slots: u32,
    work: u64,
    orders: Orders,
    seconds: u64,
) -> Result<Served> {
    let folder = tempfile::tempdir()?;
    let pidfile = folder.path().join("bench.pid");
    let address = free_address()?;
    let mut command = Command::new(&programs.serve);
    command
        .arg(address.port().to_string())
        .arg(&pidfile)
        .arg(slots.to_string())
        .arg(work.to_string());
    // Of its own process group, and without a terminal, as an upgrade needs it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let mut first = command.spawn().context("cannot start bench-serve")?;
    let measured = serve(address, &pidfile, orders, seconds);
    let ended = end(&mut first, &pidfile);
    let measured = measured?;
    ended?;
    Ok(measured)
}

fn serve(address: SocketAddr, pidfile: &Path, orders: Orders, seconds: u64) -> Result<Served> {
    await_first(address)?;
    let (served, ()) = schedule::run(address, seconds, |span| give(pidfile, orders, span));
    Ok(served)
}

/// Gives the orders, each when its time has come.
fn give(pidfile: &Path, orders: Orders, span: Span) {
    let mut at = span.begin;
    while let Some(signal) = orders.signal {
        at += u64::try_from(orders.every.as_nanos()).unwrap_or(SECOND);
        if at >= span.end {
            break;
        }
        pause_until(at);
        if let Some(master) = named(pidfile) {
            // It may have gone since it was read; the next one is told in its turn.
            let _ = kill(master, signal);
        }
    }
}

fn named(pidfile: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(pidfile).ok()?;
    text.trim().parse().ok().map(Pid::from_raw)
}

/// Stops whoever is the master now, and sees that it has gone.
fn end(first: &mut Child, pidfile: &Path) -> Result<()> {
    let give_up = monotonic() + 60 * SECOND;
    while let Some(master) = named(pidfile) {
        let _ = kill(master, Signal::SIGTERM);
        if monotonic() > give_up {
            bail!("the master of bench-serve does not stop");
        }
        pause_until(monotonic() + SECOND / 20);
    }
    first.wait()?;
    Ok(())
}
