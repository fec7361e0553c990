//! The rows about what ph-core adds: the system calls of a request beside accept, read, write and close, and
//! the nanoseconds of a heartbeat, whose floor is the reading of the clock alone.
//!
//! System calls are read from `strace`, without which these rows cannot be measured. It slows the worker down,
//! so a client that comes back at once is there before the worker looks, and saves it a wait; the row of a
//! client that takes a rest has none of that, and every wait.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use xtask::monotonic;

use super::client::{SECOND, await_first, end_by, free_address, request};
use super::config::median;
use super::schedule::count;
use super::subject::{Programs, Subject};
use super::table::{Goal, Row, Table};

/// What the floor needs for a request, too.
const OWN: [&str; 7] = ["accept", "accept4", "read", "recvfrom", "write", "sendto", "close"];
const REST: Duration = Duration::from_millis(2);

/// The four of the floor, one wait, and now and then a look for a crowd that is not there.
const MOST_CALLS: f64 = 5.05;

/// Of a round, which is so short that most rounds are not interrupted.
const BEATS: &str = "100000";

/// Measures all of it.
pub(super) fn measure(
    programs: &Programs,
    is_quick: bool,
    only: Option<&str>,
    table: &mut Table,
) -> Result<()> {
    let wants = |name: &str| only.is_none_or(|only| name.contains(only));
    let requests = if is_quick { 500 } else { 2000 };
    for (way, rest) in [("back to back", Duration::ZERO), ("with rests", REST)] {
        let name = format!("system calls of a request, one client {way}");
        if wants(&name) {
            match calls(programs, requests, rest)? {
                Ok(calls) => add_calls(&name, &calls, table),
                Err(reason) => table.add_unmeasured(name, "forked", reason),
            }
        }
    }
    let rounds = if is_quick { "25" } else { "100" };
    let beat =
        |words: &[&str]| median(Command::new(&programs.beat).args([BEATS, rounds]).args(words));
    for (name, words) in
        [("heartbeat, sync", &[][..]), ("heartbeat, two threads at once", &["thread"])]
    {
        if wants(name) {
            let floor = beat(&["clock"])?;
            table.add(row(name.to_owned(), "ns", beat(words)?, Some(floor), 10.0));
        }
    }
    Ok(())
}

fn add_calls(name: &str, calls: &Calls, table: &mut Table) {
    let a_request = |calls: usize, all: &Calls| count(calls) / count(all.requests);
    let all = a_request(calls.own + calls.others, calls);
    let others = a_request(calls.others, calls);
    table.add(row(format!("{name}: all"), "", all, Some(4.0), MOST_CALLS));
    table.add(row(format!("{name}: not accept, read, write, close"), "", others, None, 1.0));
}

fn row(work: String, unit: &'static str, value: f64, floor: Option<f64>, goal: f64) -> Row {
    let (workers, goal) = ("forked", Goal::AtMost(goal));
    Row { work, workers, unit, value, floor, quiet_ratio: None, goal }
}

/// What a worker called for some requests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Calls {
    requests: usize,
    /// Those of `OWN`, the failed ones included.
    own: usize,
    others: usize,
}

impl Calls {
    /// Counts from one accepted connection to the last, so that whole rounds are counted, and nothing of what
    /// attaching and detaching brings about.
    fn read(trace: &str) -> Self {
        let is_accepted = |line: &&str| line.starts_with("accept") && !line.contains(" = -1 ");
        let (mut all, mut round) = (Self::default(), None);
        for line in trace.lines() {
            if is_accepted(&line) {
                if let Some(Self { own, others, .. }) = round {
                    all.requests += 1;
                    all.own += own;
                    all.others += others;
                }
                round = Some(Self::default());
            }
            let (Some(round), Some((name, _))) = (&mut round, line.split_once('(')) else {
                continue;
            };
            match OWN.contains(&name) {
                true => round.own += 1,
                false => round.others += 1,
            }
        }
        all
    }
}

/// Makes requests of one worker under `strace`; the reason if that is impossible here.
fn calls(programs: &Programs, requests: usize, rest: Duration) -> Result<Result<Calls, String>> {
    let address = free_address()?;
    let subject = Subject::of_servers(programs, address.port(), 1, 0)?;
    await_first(address)?;
    let worker = *subject.workers().front().context("no worker")?;
    let folder = tempfile::tempdir()?;
    let trace = folder.path().join("trace");
    let strace = match attach(worker, &trace)? {
        Ok(strace) => strace,
        Err(reason) => {
            subject.stop()?;
            return Ok(Err(reason));
        }
    };
    let answered = (0..=requests).try_for_each(|_| {
        std::thread::park_timeout(rest);
        request(address)
    });
    let detached = detach(strace);
    answered?;
    detached?;
    subject.stop()?;
    let calls = Calls::read(&std::fs::read_to_string(&trace)?);
    // One may come before all calls are seen.
    let (seen, all) = (calls.requests, requests + 1);
    ensure!(seen + 2 >= all, "of {all} requests {seen} were traced");
    Ok(Ok(calls))
}

fn attach(worker: Pid, trace: &Path) -> Result<Result<Child, String>> {
    let mut command = Command::new("strace");
    command.args(["-p", &worker.to_string(), "-o"]).arg(trace);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut strace = match command.spawn() {
        Ok(strace) => strace,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Err("strace is not installed".to_owned()));
        }
        Err(error) => return Err(error).context("start strace"),
    };
    let give_up = monotonic() + 10 * SECOND;
    while !is_traced(worker) {
        if strace.try_wait()?.is_some() {
            return Ok(Err("strace may not attach to a worker".to_owned()));
        }
        if monotonic() > give_up {
            detach(strace)?;
            bail!("strace does not attach");
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(Ok(strace))
}

fn is_traced(process: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

/// Lets the worker go on without it.
fn detach(strace: Child) -> Result<()> {
    end_by(strace, Signal::SIGINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_rounds_are_counted() {
        let round = "accept4(5, {sa_family=AF_INET}, [128 => 16], SOCK_CLOEXEC) = 9\n\
                     recvfrom(9, \"GET / HTTP/1.1\\r\\n\"..., 1024, 0, NULL, NULL) = 55\n\
                     sendto(9, \"HTTP\"..., 51, MSG_NOSIGNAL, NULL, 0) = 51\n\
                     close(9) = 0\n\
                     accept4(5, NULL, NULL, 0) = -1 EAGAIN (Resource temporarily unavailable)\n\
                     epoll_wait(8, [{events=EPOLLIN, data=0}], 1, -1) = 1\n";
        let trace = format!(
            "epoll_wait(8, 0x7ffd, 1, -1) = ? (interrupted)\n{}--- SIGINT ---\n",
            round.repeat(3)
        );
        assert_eq!(Calls::read(&trace), Calls { requests: 2, own: 10, others: 2 });
    }
}
