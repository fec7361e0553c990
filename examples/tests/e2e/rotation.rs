//! Logs that are rotated under load, by their writers or by others: no line is lost, none is torn
//! or doubled. What may be in the way of that is in `log_troubles`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::misbehave;
use crate::support::{Line, Log, Master, Stage, eventually, require};

/// A log and its backups, the oldest first.
fn files(log: &Path) -> Vec<PathBuf> {
    let backup = |n: usize| PathBuf::from(format!("{}.{n}", log.display()));
    let backups = (1..).map(backup).take_while(|path| path.exists());
    let mut files: Vec<_> = backups.collect();
    files.reverse();
    files.push(log.to_owned());
    files
}

/// The lines of all of them. Each file ends with a whole line.
pub(crate) fn trail(log: &Path) -> Vec<Line> {
    let mut lines = Vec::new();
    for path in files(log) {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "{} is torn", path.display());
        lines.extend(Log(path).lines());
    }
    lines
}

/// The numbers of the lines of each process that begin with this word, in the order of the files.
pub(crate) fn numbers(lines: &[Line], word: &str) -> BTreeMap<i32, Vec<usize>> {
    let mut numbers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in lines {
        let mut words = line.message.split(' ');
        if words.next() == Some(word) {
            let number = words.next().and_then(|number| number.parse().ok());
            numbers.entry(line.pid).or_default().push(number.expect(&line.message));
        }
    }
    numbers
}

/// Waits until so many backups are there.
pub(crate) fn wait_rotated(log: &Path, backups: usize) {
    eventually("rotations", || (files(log).len() > backups).then_some(()));
}

/// Waits until each process has logged something that is in no backup yet.
pub(crate) fn wait_counted(log: &Log, workers: usize) -> BTreeMap<i32, Vec<usize>> {
    eventually("all of them count in the log", || {
        Some(numbers(&log.lines(), "count")).filter(|numbers| numbers.len() == workers)
    })
}

/// Counting workers, whose log is rotated after so many bytes.
pub(crate) fn counting(stage: &Stage, settings: &[&str]) -> Master {
    let common = ["number_workers=2", "app_behaviour=count,turn:1", "log_backups=100000"];
    stage.start(&[&common, settings].concat())
}

#[test]
fn fault_54_lines_of_four_workers_survive_their_rotations() {
    const LINES: usize = 4000;
    let stage = misbehave();
    let behaviour = format!("app_behaviour=write:{LINES},ok");
    let limits = ["log_max_size=64KB", "log_backups=1000"];
    let master = stage.start(&["number_workers=4", &behaviour, limits[0], limits[1]]);
    let log = stage.log().0;
    // Names change while the files are read, so this is no judgement yet.
    let last = format!("line {LINES} of {LINES}");
    eventually("all is written", || {
        let lines = files(&log).into_iter().flat_map(|path| Log(path).with(&last));
        let pids: BTreeSet<_> = lines.map(|line| line.pid).collect();
        (pids.len() == 4).then_some(())
    });
    assert_eq!(master.stop(), 0);
    assert!(files(&log).len() > 10, "{:?}", files(&log));
    for (pid, numbers) in numbers(&trail(&log), "line") {
        assert!(numbers.into_iter().eq(1..=LINES), "worker {pid}");
    }
    let one_batch_of_each = 6 * (64 << 10);
    let size = |path: &PathBuf| fs::metadata(path).expect("a file").len();
    assert!(files(&log).iter().all(|path| size(path) <= one_batch_of_each));
}

#[test]
fn fault_54_with_a_log_for_each_worker_that_is_compressed() {
    const LINES: usize = 4000;
    let stage = misbehave();
    let behaviour = format!("app_behaviour=write:{LINES},ok");
    let files = ["worker_log_file=w%(slot)s.%(generation)s.log", "log_compress=gzip"];
    let limits = ["log_max_size=32KB", "log_backups=1000"];
    let master =
        stage.start(&["number_workers=2", &behaviour, files[0], files[1], limits[0], limits[1]]);
    for slot in 0..2 {
        let name = format!("w{slot}.1.log");
        Log(stage.path(&name)).wait_for(&format!("line {LINES} of {LINES}"));
        let is_packed = || {
            let numbers = 2..1000;
            let plain = numbers.clone().filter(|n| stage.path(&format!("{name}.{n}")).exists());
            let packed = numbers.filter(|n| stage.path(&format!("{name}.{n}.gz")).exists());
            (plain.count() == 0 && packed.count() > 3).then_some(())
        };
        eventually("all but the youngest is compressed", is_packed);
        let script = format!("ls -v {name}.*.gz | tac | xargs zcat && cat {name}.1 {name}");
        let read = Command::new("sh").args(["-c", &script]).current_dir(stage.folder()).output();
        fs::write(stage.path("all"), read.expect("zcat").stdout).expect("a file");
        let found = numbers(&Log(stage.path("all")).lines(), "line");
        assert!(found.into_values().next().expect("lines").into_iter().eq(1..=LINES), "{slot}");
        fs::remove_file(stage.path("all")).expect("a file");
    }
    assert_eq!(master.stop(), 0);
    assert!(stage.log().with("line ").is_empty(), "nothing of theirs is in the master's log");
}

#[test]
fn fault_55_workers_killed_while_they_rotate_tear_and_double_nothing() {
    const LINES: usize = 300;
    let stage = misbehave();
    stage.allow_error("is in a crash loop");
    let behaviour = format!("app_behaviour=write:{LINES}");
    let limits = ["log_max_size=16KB", "log_backups=100000", "backoff_max=100ms"];
    let master = stage.start(&["number_workers=4", &behaviour, limits[0], limits[1], limits[2]]);
    let log = stage.log().0;
    for killed in 0..20 {
        wait_rotated(&log, 5 * killed);
        let workers = eventually("somebody to kill", || {
            Some(master.workers()).filter(|workers| !workers.is_empty())
        });
        workers[killed % workers.len()].process.send(Signal::SIGKILL);
    }
    assert_eq!(master.stop(), 0);
    let lines = trail(&log);
    for (pid, numbers) in numbers(&lines, "line") {
        let wanted = (1..=LINES).cycle().take(numbers.len());
        assert!(numbers.into_iter().eq(wanted), "worker {pid}: missing, doubled or moved");
    }
    // What a killed worker was at is on a line of its own, or made blank.
    let torn = lines.iter().filter(|line| line.pid == 0).count();
    assert!(torn <= 2 * 20, "{torn} lines that are nobody's");
}

#[test]
fn fault_58_a_log_that_logrotate_has_made_is_taken_as_it_is() {
    const ADM: u32 = 4;
    require(&[]);
    let stage = misbehave();
    let master = counting(&stage, &[]);
    wait_counted(&stage.log(), 2);
    let log = stage.log().0;
    for round in 0..3 {
        // As `create 0640 root adm` of logrotate does it.
        fs::rename(&log, stage.path(&format!("old.{round}"))).expect("a rename");
        fs::write(&log, "").expect("a new log");
        chown(&log, Some(0), Some(ADM)).expect("an owner");
        fs::set_permissions(&log, Permissions::from_mode(0o640)).expect("a mode");
        master.send(Signal::SIGUSR1);
        wait_counted(&stage.log(), 2);
        let found = fs::metadata(&log).expect("the log");
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, ADM, 0o640));
    }
    assert_eq!(master.stop(), 0);
    let old = (0..3).flat_map(|round| Log(stage.path(&format!("old.{round}"))).lines());
    let lines: Vec<_> = old.chain(stage.log().lines()).collect();
    for (pid, numbers) in numbers(&lines, "count") {
        let all = 1..=numbers.len();
        assert!(numbers.into_iter().eq(all), "worker {pid}");
    }
}

#[test]
fn the_owner_and_the_mode_of_a_log_outlive_its_rotations() {
    require(&[]);
    let stage = misbehave();
    fs::write(stage.log().0, "").expect("a log");
    chown(stage.log().0, Some(65_534), Some(4)).expect("an owner");
    fs::set_permissions(stage.log().0, Permissions::from_mode(0o604)).expect("a mode");
    let master = counting(&stage, &["log_max_size=16KB"]);
    wait_rotated(&stage.log().0, 3);
    assert_eq!(master.stop(), 0);
    for path in files(&stage.log().0) {
        let found = fs::metadata(&path).expect("a file");
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (65_534, 4, 0o604));
    }
}
