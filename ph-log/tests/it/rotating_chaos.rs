//! Writers that are stopped and killed anywhere, while their lock or their log is taken from them.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::pipe2;
use ph_log::{Compression, RotateLimits, RotateOptions, RotatingFile};

use crate::rotating_hostile::clock;
use crate::stage::{self, Scenario, expect_exit, fork};
use crate::trail::{Author, Trail, acknowledged, limits, unpack};

pub(crate) const SCENARIOS: &[Scenario] =
    &[("stopped_anywhere", stopped_anywhere), ("chaos", chaos)];

fn open(folder: &Path, limits: RotateLimits) -> RotatingFile {
    RotatingFile::open(RotateOptions::new(folder.join("log"), limits)).expect("a log")
}

fn stopped_anywhere(folder: &Path) {
    let limits = RotateLimits { compress: Compression::Zstd, max_size: None, ..limits(0) };
    let mut log = open(folder, limits.clone());
    let promise = fs::File::create(folder.join("promises")).expect("a file");
    let writer = fork(|| {
        let mut log = open(folder, limits.clone());
        for number in 0_u32.. {
            if folder.join("done").exists() {
                break;
            }
            // Counted as lost if nobody can know.
            let lost = log.write_batch(format!("line {number}\n").as_bytes()).lost;
            writeln!(&promise, "{lost}").expect("room");
        }
    });
    for _ in 0..100 {
        let size = || fs::metadata(folder.join("log")).map_or(0, |log| log.len());
        let before = size();
        stage::wait_until(|| size() != before);
        kill(writer, Signal::SIGSTOP).expect("a process");
        let stopped = waitpid(writer, Some(WaitPidFlag::WUNTRACED));
        assert_eq!(stopped, Ok(WaitStatus::Stopped(writer, Signal::SIGSTOP)));
        fs::remove_file(folder.join(".log.lock")).expect("the companion");
        assert!(log.rotate_now().expect("a rotation"));
        assert_eq!(log.write_batch(b"another\n").lost, 0);
        assert!(log.rotate_now().expect("a rotation"));
        log.pending_compression().expect("a folder").expect("a job").run().expect("compressed");
        kill(writer, Signal::SIGCONT).expect("a process");
    }
    fs::write(folder.join("done"), "").expect("a file");
    expect_exit(writer, 0);
}

#[test]
fn a_writer_stopped_anywhere_and_robbed_of_its_lock_loses_no_line_uncounted() {
    let left = stage::run("stopped_anywhere");
    let promises = left.lines("promises");
    let mut times = vec![0_u32; promises.len()];
    for entry in fs::read_dir(left.folder()).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        if name.starts_with("log") {
            let bytes = fs::read(left.folder().join(&name)).expect("a file");
            for line in unpack(&name, &bytes).expect("a whole file").lines() {
                let number = line.strip_prefix("line ").map(str::parse::<usize>);
                number.into_iter().for_each(|number| times[number.expect("a number")] += 1);
            }
        }
    }
    for (number, (lost, times)) in promises.iter().zip(times).enumerate() {
        let is_kept = if lost == "0" { times == 1 } else { times <= 1 };
        assert!(is_kept, "line {number} of {}: {times} times, lost: {lost}", promises.len());
    }
    let lost = promises.iter().filter(|lost| *lost != "0").count();
    assert!(lost <= 100, "{lost} lines of 100 stops");
}

/// Everything at once, from a fixed row of numbers, so that a failure comes again.
fn chaos(folder: &Path) {
    let limits = RotateLimits { compress: Compression::Zstd, ..limits(48 << 10) };
    let mut log = open(folder, limits);
    let mut dice = 0x2545_f491_u32;
    let mut roll = |sides: u32| {
        dice ^= dice << 13;
        dice ^= dice >> 17;
        dice ^= dice << 5;
        dice % sides
    };
    let mut process = 0;
    let mut start = |log: &mut RotatingFile| {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let number = process;
        process += 1;
        let pid = fork(|| {
            let mut author = Author::new(number, write);
            while !folder.join("done").exists() {
                author.write(log, 60);
                if number % 4 == 0
                    && let Ok(Some(job)) = log.pending_compression()
                {
                    drop(job.run());
                }
            }
        });
        (number, pid, read)
    };
    let mut running: Vec<_> = (0..6).map(|_| start(&mut log)).collect();
    let mut promises = Vec::new();
    let size = || fs::metadata(folder.join("log")).map_or(0, |log| log.len());
    for round in 0..120 {
        let before = size();
        let seen_at = clock();
        stage::wait_until(|| size() != before || clock() - seen_at > Duration::from_millis(500));
        let chosen = roll(6) as usize;
        let pid = running[chosen].1;
        match roll(6) {
            0 | 1 => {
                kill(pid, Signal::SIGKILL).expect("a process");
                waitpid(pid, None).expect("its end");
                let (number, _, acknowledge) =
                    std::mem::replace(&mut running[chosen], start(&mut log));
                promises.push((number, acknowledged(acknowledge)));
            }
            2 | 3 => kill(pid, Signal::SIGSTOP).expect("a process"),
            // As logrotate does it; the name is that of a backup which no rotation moves.
            4 if round % 3 == 0 => {
                let old = folder.join(format!("log.{}", 900_000 - round));
                if fs::rename(folder.join("log"), old).is_ok() {
                    drop(OpenOptions::new().create_new(true).append(true).open(folder.join("log")));
                }
            }
            _ => running.iter().for_each(|it| kill(it.1, Signal::SIGCONT).expect("a process")),
        }
    }
    running.iter().for_each(|it| kill(it.1, Signal::SIGCONT).expect("a process"));
    fs::write(folder.join("done"), "").expect("a file");
    for (number, pid, acknowledge) in running {
        expect_exit(pid, 0);
        promises.push((number, acknowledged(acknowledge)));
    }
    let text: String = promises.iter().map(|(process, n)| format!("{process} {n}\n")).collect();
    fs::write(folder.join("promises"), text).expect("a file");
    while let Some(job) = log.pending_compression().expect("a folder") {
        job.run().expect("a compressed backup");
    }
}

#[test]
fn writers_stopped_and_killed_and_a_log_renamed_at_random_keep_what_they_promised() {
    let left = stage::run("chaos");
    let trail = Trail::read(left.folder());
    assert!(trail.sizes.len() > 20, "{} files", trail.sizes.len());
    let promises = left.lines("promises");
    for promise in &promises {
        let (process, promised) = promise.split_once(' ').expect("two numbers");
        let (process, promised) = (process.parse().expect("one"), promised.parse().expect("one"));
        let found = trail.found(process);
        // The last batch of one that was killed may have been written and not acknowledged.
        let is_kept = (promised..=promised + 60).contains(&found);
        assert!(is_kept, "{process}: {found} of {promised}");
    }
    assert!(trail.torn.len() <= promises.len(), "{:?}", trail.torn);
}
