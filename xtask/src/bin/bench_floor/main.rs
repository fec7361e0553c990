//! The floor of the bench: the least that keeps N children alive, a bare loop of `fork` + `waitpid`
//! or of `posix_spawn` + `waitpid`. It keeps no state but the children's pids.
//!
//! `bench-floor fork N`, `bench-floor spawn N PROGRAM` or, with children that serve a port of the loopback,
//! `bench-floor accept N PORT`. SIGTERM ends every child, then itself.
//!
//! Rule 11 (unsafe code only in `ph-core/src/sys`) has an exception here: `fork` has no safe wrapper,
//! and a floor that went through ph-core would not be one. It is one function, in `fork`.

#![expect(clippy::print_stderr, reason = "there is no log")]

mod fork;

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use xtask::open_stamps;

/// How a child is started.
enum Start {
    Fork(File),
    Spawn(Box<Spawn>),
    Accept(TcpListener),
}

/// All `posix_spawn` needs, made once.
struct Spawn {
    program: CString,
    environment: Vec<CString>,
    actions: PosixSpawnFileActions,
    attributes: PosixSpawnAttr,
}

impl Start {
    fn child(&self) -> nix::Result<Pid> {
        match self {
            Self::Fork(pipe) => fork::stamping_child(pipe),
            Self::Accept(listener) => fork::serving_child(listener),
            Self::Spawn(spawn) => posix_spawn(
                spawn.program.as_c_str(),
                &spawn.actions,
                &spawn.attributes,
                std::slice::from_ref(&spawn.program),
                &spawn.environment,
            ),
        }
    }
}

impl Spawn {
    fn new(program: String) -> Option<Self> {
        let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            let mut text = name.into_vec();
            text.push(b'=');
            text.extend(value.into_vec());
            CString::new(text).ok()
        };
        let mut attributes = PosixSpawnAttr::init().ok()?;
        attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK).ok()?;
        attributes.set_sigmask(&SigSet::empty()).ok()?;
        Some(Self {
            program: CString::new(program).ok()?,
            environment: std::env::vars_os().filter_map(variable).collect(),
            actions: PosixSpawnFileActions::init().ok()?,
            attributes,
        })
    }
}

fn main() -> ExitCode {
    let Some((start, count)) = arguments() else {
        eprintln!("bench-floor: expected `fork N`, `spawn N PROGRAM` or `accept N PORT`");
        return ExitCode::from(2);
    };
    match keep_alive(&start, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errno) => {
            eprintln!("bench-floor: {errno}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Option<(Start, usize)> {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next()?;
    let count = arguments.next()?.parse().ok()?;
    let start = match kind.as_str() {
        "fork" => Start::Fork(open_stamps().ok()?),
        "accept" => {
            let port = arguments.next()?.parse().ok()?;
            Start::Accept(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?)
        }
        "spawn" => Start::Spawn(Box::new(Spawn::new(arguments.next()?)?)),
        _ => return None,
    };
    Some((start, count))
}

/// The signals are blocked and taken one by one, so there is no handler and nothing to lose.
fn keep_alive(start: &Start, count: usize) -> nix::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let mut children = HashSet::new();
    for _ in 0..count {
        children.insert(start.child()?);
    }
    while signals.wait()? != Signal::SIGTERM {
        while let Some(pid) = waitpid(None, Some(WaitPidFlag::WNOHANG))?.pid() {
            children.remove(&pid);
            children.insert(start.child()?);
        }
    }
    for child in &children {
        kill(*child, Signal::SIGTERM)?;
    }
    loop {
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}
