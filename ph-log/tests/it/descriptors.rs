//! The descriptor for programs that write to the log by themselves.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use tracing::info;

use ph_log::{LogOptions, Target};

use crate::stage::{self, Scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[("of_a_file", of_a_file), ("of_stderr", of_stderr)];

fn of_a_file(folder: &Path) {
    let log = stage::log(folder);
    info!("one");
    let fd = log.append_fd().expect("a descriptor");
    let status = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).expect("flags"));
    assert!(status.contains(OFlag::O_APPEND) && !status.contains(OFlag::O_NONBLOCK));
    assert_eq!(fcntl(&fd, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
    let mut file = File::from(fd);
    info!("two");
    file.write_all(b"by hand\n").expect("a write");
    info!("three");
    std::fs::remove_file(folder.join("log"))
        .and_then(|()| std::fs::create_dir(folder.join("log")))
        .expect("a folder in the way");
    let error = log.append_fd().expect_err("a folder").to_string();
    assert!(error.contains("/log\": Is a directory (os error 21)"), "{error}");
    std::fs::write(folder.join("kept"), read_all(&file)).expect("a copy");
}

/// What the file holds, which has no name any more.
fn read_all(file: &File) -> Vec<u8> {
    std::fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("the file")
}

#[test]
fn a_program_appends_between_the_lines() {
    let left = stage::run("of_a_file");
    let lines = left.lines("kept");
    let text = |line: &str| stage::parse(line).1;
    assert_eq!(lines.len(), 4);
    assert_eq!((text(&lines[0]), text(&lines[1])), ("master: one".into(), "master: two".into()));
    assert_eq!((lines[2].as_str(), text(&lines[3])), ("by hand", "master: three".into()));
}

fn of_stderr(folder: &Path) {
    let options = LogOptions { target: Target::Stderr, ..stage::options(folder) };
    let log = ph_log::init(options).expect("a log");
    let fd = log.append_fd().expect("a descriptor");
    assert!(fd.as_raw_fd() > 2);
    assert_eq!(fcntl(&fd, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
    File::from(fd).write_all(b"by hand\n").expect("a write");
}

#[test]
fn with_stderr_it_is_a_duplicate() {
    assert_eq!(stage::run("of_stderr").stderr, "by hand\n");
}
