//! A log on stderr, whose reader is slow and whose log processes are killed.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollTimeout, poll};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr};
use ph_log::{CaptureOptions, CaptureTarget};

use crate::capture::options;
use crate::capture_crash::{CRASHED, Master, SHOWN, STEPS, WORKERS, kill_after};
use crate::capture_trouble::stderr_to_pipe;
use crate::stage::{self, Scenario, expect_exit, fork};
use crate::trail::Trail;

pub(crate) const SCENARIOS: &[Scenario] = &[("stderr_steps", steps), ("stderr_kills", kills)];

const LINES: u32 = 2000;

/// A master whose stderr is a small pipe. What comes out of it is in `log` of the folder when the
/// reader has ended.
fn before_a_slow_reader(folder: &Path) -> (Master, Pid) {
    let read = stderr_to_pipe();
    let reader = fork(|| {
        dup2_stderr(File::open("/dev/null").expect("a device")).expect("a descriptor");
        let (mut pipe, mut text, mut piece) = (File::from(read), Vec::new(), [0; 3001]);
        loop {
            match pipe.read(&mut piece).expect("a pipe") {
                0 => break,
                some => text.extend_from_slice(&piece[..some]),
            }
            poll(&mut [], PollTimeout::from(1_u8)).expect("a pause");
        }
        fs::write(folder.join("log"), text).expect("a file");
    });
    let mut master =
        Master::new(CaptureOptions { target: CaptureTarget::Stderr, ..options(folder) });
    (0..WORKERS).for_each(|process| master.author(process, LINES));
    (master, reader)
}

fn end(master: Master, reader: Pid) {
    master.finish();
    dup2_stderr(File::open("/dev/null").expect("a device")).expect("a descriptor");
    expect_exit(reader, 0);
}

fn steps(folder: &Path) {
    let (master, reader) = before_a_slow_reader(folder);
    let mut crashed = 0;
    for passes in 0..5 {
        // Without packets the hold is never full.
        for step in (0..=SHOWN).filter(|&step| step != 5) {
            let pid = master.log_process(Some((step, passes)));
            let status = waitpid(pid, None).expect("a process");
            assert!(matches!(status, WaitStatus::Exited(_, CRASHED | 0)), "{status:?}");
            crashed += u32::from(status == WaitStatus::Exited(pid, CRASHED));
        }
    }
    assert!(crashed >= 30, "{crashed} of {} died", STEPS.len() * 5);
    end(master, reader);
}

#[test]
fn log_processes_that_die_at_every_step_lose_double_and_tear_nothing_on_a_slow_stderr() {
    let left = stage::run("stderr_steps");
    let trail = Trail::read(left.folder());
    assert!(trail.torn.is_empty(), "{} torn, {:?}", trail.torn.len(), &trail.torn[0]);
    for process in 0..WORKERS {
        assert_eq!(trail.count(process), LINES, "worker {process}");
    }
}

fn kills(folder: &Path) {
    let (master, reader) = before_a_slow_reader(folder);
    for round in 0..60_u64 {
        if !kill_after(master.log_process(None), Duration::from_millis(round * round % 7)) {
            break;
        }
    }
    end(master, reader);
}

#[test]
fn log_processes_killed_anywhere_lose_and_tear_nothing_on_a_slow_stderr() {
    let left = stage::run("stderr_kills");
    let mut trail = Trail::read(left.folder());
    assert!(trail.torn.is_empty(), "{} torn, {:?}", trail.torn.len(), &trail.torn[0]);
    // A kill between a write and the note of it has the lines of that write come twice.
    trail.forget_repeats();
    for process in 0..WORKERS {
        assert_eq!(trail.count(process), LINES, "worker {process}");
    }
}
