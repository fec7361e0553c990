//! A full disk, and what is no log file.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use tracing::info;

use ph_log::{LogError, LogOptions, Target};

use crate::stage::{self, REOPEN, Scenario, expect_exit, fork_worker, set_signal_ignored};

pub(crate) const SCENARIOS: &[Scenario] =
    &[("full_disk", full_disk), ("full_disk_of_a_worker", full_disk_of_a_worker), ("twice", twice)];

/// Lets the log grow by so many bytes and no more, as a full disk would.
fn limit_log(folder: &Path, room: u64) {
    let size = fs::metadata(folder.join("log")).expect("the log").len();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("a limit");
    setrlimit(Resource::RLIMIT_FSIZE, size + room, hard).expect("a limit");
}

fn unlimit_log() {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("a limit");
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).expect("a limit");
}

fn full_disk(folder: &Path) {
    let log = stage::log(folder);
    set_signal_ignored(Signal::SIGXFSZ);
    info!("before");
    limit_log(folder, 10);
    info!("torn");
    info!("lost");
    assert_eq!(log.dropped(), 2);
    unlimit_log();
    info!("after");
    assert_eq!(log.dropped(), 2);
}

#[test]
fn a_full_disk_is_reported_once_there_is_room() {
    let left = stage::run("full_disk");
    let lines = left.lines("log");
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert_eq!(lines[1], " ".repeat(9), "what the disk still took of a line was made blank");
    assert_eq!(stage::parse(&lines[2]).1, "master: after");
    assert!(lines[3].contains(" WARN test["), "{}", lines[3]);
    let report = r#"master: log lines were lost lines=2 error="File too large (os error 27)""#;
    assert_eq!(stage::parse(&lines[3]).1, report);
}

fn full_disk_of_a_worker(folder: &Path) {
    let log = stage::log(folder);
    // The signal stays deadly: in the background thread it is blocked.
    let worker = fork_worker(&log, 1, || {
        limit_log(folder, 20_000);
        (0..2000).for_each(|n| info!("{n}"));
        stage::wait_until(|| log.queued() == 0);
        assert!(log.dropped() > 0);
        unlimit_log();
        info!(dropped = log.dropped(), "after");
        log.flush();
    });
    expect_exit(worker, 0);
}

#[test]
fn a_worker_counts_exactly_the_lines_it_lost() {
    let left = stage::run("full_disk_of_a_worker");
    let lines = left.lines("log");
    let [.., torn, after, report] = lines.as_slice() else { panic!("{lines:#?}") };
    let whole = (lines.len() - 3) as u64;
    assert!(lines[..lines.len() - 3].iter().all(|line| stage::parse(line).1.len() > 16));
    assert!(torn.bytes().all(|byte| byte == b' ') && torn.len() < lines[0].len() + 3, "{torn:?}");
    let lost = 2000 - whole;
    let report = stage::parse(report).1;
    assert!(report.contains(&format!(" lines={lost} ")), "{report}, {whole} written");
    assert!(after.ends_with(&format!("after dropped={lost}")), "{after}");
}

fn twice(folder: &Path) {
    stage::log(folder);
    let again = ph_log::init(stage::options(folder));
    assert!(matches!(again, Err(LogError::AlreadySet)));
    info!("still the first");
}

#[test]
fn a_second_log_is_refused() {
    assert_eq!(stage::run("twice").texts("log"), ["master: still the first"]);
}

/// The error text for a target, less the folder.
fn refusal(folder: &Path, file: &str) -> String {
    let options = LogOptions {
        target: Target::File(folder.join(file)),
        reopen: &REOPEN,
        ..stage::options(folder)
    };
    let error = ph_log::init(options).expect_err("a refusal");
    error.to_string().replace(folder.to_str().expect("UTF-8"), "")
}

#[test]
fn only_a_regular_file_is_a_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::create_dir(folder.join("dir")).expect("a folder");
    fs::write(folder.join("file"), "").expect("a file");
    symlink("file", folder.join("link")).expect("a link");
    symlink("nowhere", folder.join("dangling")).expect("a link");
    fs::write(folder.join("shared"), "").expect("a file");
    fs::hard_link(folder.join("shared"), folder.join("second")).expect("a second name");
    nix::unistd::mkfifo(&folder.join("fifo"), Mode::S_IRWXU).expect("a FIFO");
    for (file, error) in [
        (
            "dir",
            "Is a directory (os error 21); it is a directory, and a log must be a regular file",
        ),
        (
            "link",
            "Too many levels of symbolic links (os error 40); it is a symbolic link, and a log must be a regular file",
        ),
        (
            "dangling",
            "Too many levels of symbolic links (os error 40); it is a symbolic link, and a log must be a regular file",
        ),
        ("fifo", "Invalid argument (os error 22); it is a FIFO, and a log must be a regular file"),
        ("second", "it has more than one name (hard links), and a log must have one"),
        ("none/log", "No such file or directory (os error 2)"),
    ] {
        assert_eq!(refusal(folder, file), format!("cannot log to \"/{file}\": {error}"));
    }
    // With a reader the open succeeds, and the refusal comes from the look at what was opened.
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(folder.join("fifo"));
    let found = "Invalid argument (os error 22); it is a FIFO, and a log must be a regular file";
    assert_eq!(refusal(folder, "fifo"), format!("cannot log to \"/fifo\": {found}"));
    drop(reader);
    assert!(!folder.join("nowhere").exists());
}

#[test]
fn a_new_file_is_not_for_everybody() {
    let left = stage::run("twice");
    let mode = left.metadata("log").permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}
