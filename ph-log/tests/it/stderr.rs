//! Stderr as the target or beside a file: read, closed, without a reader, with a lazy one.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::{dup2_stderr, pipe2};
use tracing::info;

use ph_log::{Log, LogOptions, Target};

use crate::stage::{self, Scenario, expect_exit, fork_worker, set_signal_default, wait_until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("both", both),
    ("closed", closed),
    ("both_closed", both_closed),
    ("no_reader", no_reader),
    ("lazy_reader", lazy_reader),
];

fn log_to_stderr(folder: &Path) -> Log {
    let options = LogOptions { target: Target::Stderr, ..stage::options(folder) };
    ph_log::init(options).expect("a log")
}

/// The file a scenario puts in the place of its stderr.
fn file(folder: &Path) -> File {
    File::create(folder.join("log")).expect("a file")
}

/// Makes a pipe the stderr of this process and returns the end to read from.
fn stderr_to_pipe() -> OwnedFd {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    dup2_stderr(&write).expect("a descriptor");
    read
}

fn both(folder: &Path) {
    let log = ph_log::init(LogOptions { also_stderr: true, ..stage::options(folder) });
    let log = log.expect("a log");
    info!("one");
    let worker = fork_worker(&log, 1, || {
        info!("two");
        log.flush();
    });
    expect_exit(worker, 0);
}

#[test]
fn a_line_goes_to_the_file_and_to_stderr() {
    let left = stage::run("both");
    assert_eq!(left.texts("log"), ["master: one", "worker 1 gen 1: two"]);
    assert_eq!(left.stderr.lines().collect::<Vec<_>>(), left.lines("log"));
}

fn closed(folder: &Path) {
    let log = log_to_stderr(folder);
    let file = file(folder);
    nix::unistd::close(2).expect("stderr was open");
    info!("lost");
    assert_eq!(log.dropped(), 1);
    dup2_stderr(&file).expect("a descriptor");
    info!("after");
    assert_eq!(log.dropped(), 1);
}

#[test]
fn a_closed_stderr_is_counted_and_reported() {
    let report = r#"master: log lines were lost lines=1 error="Bad file descriptor (os error 9)""#;
    assert_eq!(stage::run("closed").texts("log"), [report, "master: after"]);
}

fn both_closed(folder: &Path) {
    let log = ph_log::init(LogOptions { also_stderr: true, ..stage::options(folder) });
    let log = log.expect("a log");
    nix::unistd::close(2).expect("stderr was open");
    // The new file must not become descriptor 2.
    stage::REOPEN.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
    info!("one");
    info!("two");
    assert_eq!(log.dropped(), 0, "the file has them all");
}

#[test]
fn a_closed_terminal_loses_nothing_of_the_file() {
    assert_eq!(stage::run("both_closed").texts("log"), ["master: one", "master: two"]);
}

fn no_reader(folder: &Path) {
    let log = log_to_stderr(folder);
    drop(stderr_to_pipe());
    info!("lost by the master");
    assert_eq!(log.dropped(), 1);
    let worker = fork_worker(&log, 1, || {
        // As the process core has it in a worker: the signal is deadly.
        set_signal_default(Signal::SIGPIPE);
        assert_eq!(log.dropped(), 0, "the master's account is the master's");
        info!("lost in the background");
        wait_until(|| log.queued() == 0);
        assert_eq!(log.dropped(), 1);
        log.flush();
        info!("lost directly");
        assert_eq!(log.dropped(), 2);
        dup2_stderr(file(folder)).expect("a descriptor");
        info!("after");
    });
    expect_exit(worker, 0);
}

#[test]
fn a_pipe_without_a_reader_ends_nobody() {
    let report = r#"worker 1 gen 1: log lines were lost lines=2 error="Broken pipe (os error 32)""#;
    assert_eq!(stage::run("no_reader").texts("log"), [report, "worker 1 gen 1: after"]);
}

fn lazy_reader(folder: &Path) {
    let log = log_to_stderr(folder);
    let read = stderr_to_pipe();
    fcntl(&read, FcntlArg::F_SETPIPE_SZ(8192)).expect("a small pipe");
    let mut written = 0;
    while log.dropped() < 3 {
        info!(written, "{}", "x".repeat(1000));
        written += 1;
    }
    let mut read = File::from(read);
    let mut text = vec![0; 65536];
    let got = read.read(&mut text).expect("lines");
    text.truncate(got);
    info!("after");
    dup2_stderr(file(folder)).expect("a descriptor");
    // That closed the last writing end: what is in the pipe is all there will be.
    read.read_to_end(&mut text).expect("lines");
    std::fs::write(folder.join("log"), text).expect("a file");
}

#[test]
fn a_reader_that_does_not_read_is_not_waited_for_for_ever() {
    let texts = stage::run("lazy_reader").texts("log");
    let (after, report) = (&texts[texts.len() - 1], &texts[texts.len() - 2]);
    assert_eq!(after, "master: after");
    let wanted =
        r#"master: log lines were lost lines=3 error="Connection timed out (os error 110)""#;
    assert_eq!(report, wanted);
}
