//! A trial: everything a worker's child does before its own code, done once by a child that does nothing
//! else. What would fail in every worker is known then, by doing it and not by guessing.
//!
//! It is for the start of a master and for a rehearsal of one: it waits for the child, a bounded time.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, Pid, access};

use super::setup::{Failure, Setup, Step};
use super::spawn::{SpawnOutcome, outcome, tell};
use super::{clock, fds, process, signals};

/// How long a trial may take. A folder of a file server that does not answer can hold the child up for
/// ever.
const LIMIT: Duration = Duration::from_secs(10);

/// More steps than there are.
const FAILURES_AT_MOST: usize = 64;

/// Goes through a setup and gives the steps that failed, in their order. At the end the child tries, as
/// whoever it is by then and wherever it is, whether it may execute these programs; of a
/// [`Step::Exec`] that failed, the detail is the program's place in the list.
pub(crate) fn try_out(setup: &Setup, programs: &[CString]) -> nix::Result<Vec<Failure>> {
    let (report, failed) = fds::pipe()?;
    let master = nix::unistd::getpid();
    let mask = signals::block_all()?;
    let forked = match process::fork() {
        Ok(process::Fork::Child) => {
            rehearse(setup, programs, master, &failed);
            process::exit_now(0);
        }
        Ok(process::Fork::Master(pid)) => Ok(pid),
        Err(errno) => Err(errno),
    };
    drop(failed);
    signals::set_mask(&mask)?;
    let pid = forked?;
    let (mut failures, is_complete) = hear(&report);
    if !is_complete {
        process::signal(pid, Signal::SIGKILL)?;
    }
    let has_ended_well = process::reap_now(pid);
    if !is_complete {
        failures.push(Failure::of(Step::Directory)(Errno::ETIMEDOUT));
    } else if !has_ended_well && failures.is_empty() {
        failures.push(Failure::of(Step::Session)(Errno::EINTR));
    }
    Ok(failures)
}

/// The child's part: system calls only.
fn rehearse(setup: &Setup, programs: &[CString], master: Pid, failed: &OwnedFd) {
    let mut is_wrong_user = false;
    let mut judge = |failure: Failure| {
        is_wrong_user |=
            matches!(failure.step, Step::Groups | Step::Group | Step::User | Step::Verify);
        // What one user may not do says nothing about the one who was meant.
        if !is_wrong_user || failure.errno != libc::EACCES {
            tell(failed, failure);
        }
        Ok(())
    };
    let _ = setup.go_through(0, master, None, &mut judge);
    for (detail, program) in (0..=u8::MAX).zip(programs) {
        if let Err(errno) = access(program.as_c_str(), AccessFlags::X_OK) {
            let _ = judge(Failure { detail, ..Failure::of(Step::Exec)(errno) });
        }
    }
}

/// Everything the child says, and whether it came to an end in time.
fn hear(report: &OwnedFd) -> (Vec<Failure>, bool) {
    let until = clock::monotonic().saturating_add(clock::nanos(LIMIT));
    let mut failures = Vec::new();
    while failures.len() < FAILURES_AT_MOST {
        let left = Duration::from_nanos(until.saturating_sub(clock::monotonic()));
        if !fds::wait_readable(report, left) {
            if clock::monotonic() >= until {
                return (failures, false);
            }
            continue;
        }
        match outcome(report) {
            SpawnOutcome::Failed(failure) => failures.push(failure),
            SpawnOutcome::Running => return (failures, true),
            SpawnOutcome::Pending => {}
        }
    }
    (failures, false)
}
