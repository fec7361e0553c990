//! What one writer does with its files: names, owners, other people's renames, compression.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{
    MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, symlink,
};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::write::GzEncoder;
use ph_log::{
    Compression, LogError, Notice, Period, RotateLimits, RotateOptions, RotatingFile, Written,
};

use crate::trail::{limits, unpack};

fn open(folder: &Path, limits: RotateLimits) -> RotatingFile {
    RotatingFile::open(RotateOptions::new(folder.join("log"), limits)).expect("a log")
}

fn refusal(folder: &Path) -> String {
    let options = RotateOptions::new(folder.join("log"), limits(100));
    let LogError::File { source, .. } = RotatingFile::open(options).expect_err("a refusal") else {
        panic!("another refusal")
    };
    source.to_string()
}

fn write(log: &mut RotatingFile, lines: &str) {
    let Written { lost, notice, .. } = log.write_batch(lines.as_bytes());
    assert_eq!(lost, 0);
    assert!(notice.is_none(), "{notice:?}");
}

/// The texts of the files with these names, `-` for one that is not there.
fn texts(folder: &Path, names: &[&str]) -> Vec<String> {
    let text = |name: &&str| fs::read_to_string(folder.join(name)).unwrap_or("-".to_owned());
    names.iter().map(text).collect()
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn a_log_is_rotated_before_the_batch_that_does_not_fit_and_keeps_so_many_backups() {
    let folder = temporary();
    let folder = folder.path();
    let mut log = open(folder, RotateLimits { backups: 2, ..limits(8) });
    for batch in ["1\n2\n", "3\n4\n", "5\n", "six six six\n", "7"] {
        write(&mut log, batch);
    }
    let names = ["log", "log.1", "log.2", "log.3", ".log.new"];
    assert_eq!(texts(folder, &names), ["7\n", "six six six\n", "5\n", "-", "-"]);
    assert!(log.rotate_now().expect("a rotation"));
    assert!(!log.rotate_now().expect("nothing to rotate"));
    assert_eq!(texts(folder, &names), ["", "7\n", "six six six\n", "-", "-"]);
}

#[test]
fn a_writer_that_keeps_the_lock_stops_the_rotation_and_no_line() {
    let folder = temporary();
    let folder = folder.path();
    let mut log = open(folder, limits(4));
    write(&mut log, "1\n2\n");
    let stopped = fs::File::open(folder.join(".log.lock")).expect("the companion");
    stopped.lock_shared().expect("the lock");
    let written = log.write_batch(b"3\n");
    let notice = written.notice.expect("a notice").to_string();
    assert!(written.lost == 0 && notice.contains("another process holds its lock"), "{notice}");
    for _ in 0..100 {
        write(&mut log, "4\n");
    }
    assert_eq!(texts(folder, &["log.1"]), ["-"]);
    stopped.unlock().expect("the lock");
    assert!(log.rotate_now().expect("a rotation"));
    assert_eq!(texts(folder, &["log", "log.1"])[1].lines().count(), 103);
}

#[test]
fn without_backups_a_full_log_is_deleted() {
    let folder = temporary();
    let mut log = open(folder.path(), RotateLimits { backups: 0, ..limits(8) });
    write(&mut log, "1\n2\n3\n");
    write(&mut log, "4\n5\n");
    assert_eq!(texts(folder.path(), &["log", "log.1", "log.2"]), ["4\n5\n", "-", "-"]);
}

#[test]
fn a_long_batch_is_cut_at_lines_and_a_long_line_is_not_cut() {
    let folder = temporary();
    let mut log = open(folder.path(), limits(200_000));
    let long = "x".repeat(150_000) + "\n";
    let text = "short\n".repeat(20_000) + &long + "short\n";
    write(&mut log, &text);
    let [log, first] = &texts(folder.path(), &["log", "log.1"])[..] else { panic!("two files") };
    assert_eq!(first.clone() + log, text);
    assert!(log.starts_with("xxx"), "the long line did not fit");
}

#[test]
fn owner_and_mode_stay() {
    let folder = temporary();
    let folder = folder.path();
    fs::write(folder.join("log"), "1\n").expect("a file");
    fs::set_permissions(folder.join("log"), fs::Permissions::from_mode(0o604)).expect("a mode");
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        chown(folder.join("log"), Some(65_533), Some(65_532)).expect("an owner");
    }
    let before = fs::metadata(folder.join("log")).expect("the log");
    let mut log = open(folder, limits(4));
    write(&mut log, "2\n3\n");
    let after = fs::metadata(folder.join("log")).expect("the log");
    assert_eq!(texts(folder, &["log", "log.1"]), ["2\n3\n", "1\n"]);
    assert_ne!(before.ino(), after.ino());
    let rights = |of: &fs::Metadata| (of.mode(), of.uid(), of.gid());
    assert_eq!(rights(&before), rights(&after));
}

#[test]
fn a_period_that_is_over_rotates_once() {
    let folder = temporary();
    let folder = folder.path();
    let hourly = RotateLimits { period: Period::Hourly, max_size: None, ..limits(1) };
    fs::write(folder.join("log"), "old\n").expect("a file");
    let hours_ago = SystemTime::now() - Duration::from_secs(3 * 3600);
    let file = OpenOptions::new().append(true).open(folder.join("log")).expect("the log");
    file.set_modified(hours_ago).expect("a time");
    let mut log = open(folder, hourly.clone());
    write(&mut log, "new\n");
    write(&mut log, "new\n");
    // A clock that was days ahead when the file began: it begins now.
    let ahead = SystemTime::now() + Duration::from_secs(90 * 3600);
    let ahead = ahead.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    fs::write(folder.join(".log.lock"), format!("{ahead:020} {0:020} {0:020}\n", 0)).expect("text");
    write(&mut log, "new\n");
    assert_eq!(texts(folder, &["log", "log.1", "log.2"]), ["new\nnew\nnew\n", "old\n", "-"]);
    let ledger = fs::read_to_string(folder.join(".log.lock")).expect("the companion");
    assert!(ledger[..20].parse::<u64>().expect("a time") < ahead);
}

#[test]
fn links_and_what_is_no_file_are_left_alone() {
    let folder = temporary();
    let folder = folder.path();
    let victim = folder.join("victim");
    fs::write(&victim, "secret\n").expect("a file");
    symlink("victim", folder.join("log")).expect("a link");
    assert!(refusal(folder).starts_with("Too many levels of symbolic links"));
    fs::remove_file(folder.join("log")).expect("a link");
    fs::hard_link(&victim, folder.join("log")).expect("a link");
    assert!(refusal(folder).contains("more than one name"));
    fs::remove_file(folder.join("log")).expect("a link");

    for make in [
        |at: &Path| symlink("victim", at).expect("a link"),
        |at: &Path| fs::create_dir(at).expect("a folder"),
    ] {
        let mut log = open(folder, limits(4));
        write(&mut log, "1\n2\n");
        make(&folder.join("log.1"));
        let written = log.write_batch(b"3\n");
        assert_eq!(written.lost, 0);
        let notice = written.notice.expect("a notice").to_string();
        let expected = "cannot rotate the log, the log in use stays: \"log.1\": it is no regular";
        assert!(notice.starts_with(expected), "{notice}");
        write(&mut log, "4\n");
        assert_eq!(
            texts(folder, &["log", "victim", ".log.new"]),
            ["1\n2\n3\n4\n", "secret\n", "-"]
        );
        assert!(!fs::symlink_metadata(folder.join("log.1")).expect("it").is_file());
        // A second name of the log itself, or a link that took its name.
        fs::remove_file(folder.join("log")).expect("the log");
        symlink("victim", folder.join("log")).expect("a link");
        let written = log.write_batch(b"5\n");
        assert_eq!(written.lost, 1, "the log was deleted, and a link is not followed");
        assert_eq!(texts(folder, &["victim"]), ["secret\n"]);
        fs::remove_file(folder.join("log")).expect("the link");
        let written = log.write_batch(b"6\n");
        assert!(matches!(written.notice, Some(Notice::Lost { lines: 1, .. })), "{written:?}");
        assert_eq!(texts(folder, &["log"]), ["6\n"]);
        drop(log);
        fs::remove_file(folder.join("log")).expect("the log");
        let is_folder = folder.join("log.1").is_dir();
        let removed = if is_folder { fs::remove_dir } else { fs::remove_file };
        removed(folder.join("log.1")).expect("removed");
    }
}

#[test]
fn logrotate_renames_and_the_lines_before_the_reopen_are_in_the_renamed_file() {
    let folder = temporary();
    let folder = folder.path();
    let (mut log, mut other) = (open(folder, limits(1000)), open(folder, limits(1000)));
    write(&mut log, "1\n");
    fs::rename(folder.join("log"), folder.join("log.1")).expect("a rename");
    write(&mut log, "2\n");
    assert_eq!(texts(folder, &["log", "log.1"]), ["-", "1\n2\n"]);
    // logrotate's `create`; whoever writes sees it before the signal.
    let create =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join("log"));
    drop(create.expect("a new log"));
    write(&mut other, "3\n");
    log.reopen().expect("the new log");
    write(&mut log, "4\n");
    assert_eq!(texts(folder, &["log", "log.1"]), ["3\n4\n", "1\n2\n"]);
    // `nocreate`: the first reopen makes it.
    fs::rename(folder.join("log"), folder.join("log.old")).expect("a rename");
    log.reopen().expect("a log");
    write(&mut other, "5\n");
    assert_eq!(texts(folder, &["log", "log.old"]), ["5\n", "3\n4\n"]);
}

#[test]
fn a_deleted_folder_loses_what_it_must_and_a_new_one_is_taken() {
    let folder = temporary();
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).expect("a folder");
    let mut log = open(&logs, limits(1000));
    write(&mut log, "1\n");
    fs::remove_dir_all(&logs).expect("deleted");
    let written = log.write_batch(b"2\n3\n");
    assert_eq!((written.lost, log.dropped()), (2, 2));
    assert!(matches!(written.notice, Some(Notice::Kept { .. })), "{written:?}");
    assert!(log.reopen().is_err());
    fs::create_dir(&logs).expect("a folder");
    log.reopen().expect("a new log");
    let written = log.write_batch(b"4\n");
    assert!(matches!(written.notice, Some(Notice::Lost { lines: 2, .. })), "{written:?}");
    assert_eq!(texts(&logs, &["log"]), ["4\n"]);
}

#[test]
fn a_folder_that_is_swapped_for_a_link_changes_nothing() {
    let folder = temporary();
    let folder = folder.path();
    let logs = folder.join("logs");
    let victim = folder.join("etc");
    fs::create_dir(&logs).expect("a folder");
    fs::create_dir(&victim).expect("a folder");
    let mut log = open(&logs, limits(4));
    write(&mut log, "1\n2\n");
    fs::rename(&logs, folder.join("moved")).expect("a rename");
    symlink("etc", &logs).expect("a link");
    write(&mut log, "3\n");
    log.reopen().expect("the log");
    write(&mut log, "4\n");
    assert_eq!(texts(&folder.join("moved"), &["log", "log.1"]), ["3\n4\n", "1\n2\n"]);
    // Nor does it help to delete the folder that is held.
    fs::remove_dir_all(folder.join("moved")).expect("deleted");
    assert!(log.reopen().is_err());
    assert_eq!(log.write_batch(b"5\n").lost, 1);
    assert_eq!(fs::read_dir(&victim).expect("a folder").count(), 0);
}

fn gzip(path: &Path, text: &str) {
    let file = fs::File::create(path).expect("a file");
    let mut encoder = GzEncoder::new(file, flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("room");
    encoder.finish().expect("room");
}

fn unpacked(folder: &Path, name: &str) -> String {
    unpack(name, &fs::read(folder.join(name)).expect("a file")).expect("a whole file")
}

#[test]
fn a_change_of_the_compression_leaves_what_is_compressed() {
    let folder = temporary();
    let folder = folder.path();
    let compress = |how: Compression, lines: &[&str]| {
        let mut log = open(folder, RotateLimits { compress: how, ..limits(2) });
        lines.iter().for_each(|line| write(&mut log, line));
        while let Some(job) = log.pending_compression().expect("a folder") {
            job.run().expect("compressed");
        }
    };
    compress(Compression::Gzip, &["1\n", "2\n", "3\n"]);
    compress(Compression::Zstd, &["4\n", "5\n"]);
    // A compressor of the one kind died before it deleted, and the other kind is asked for now.
    fs::write(folder.join("log.2"), "3\n").expect("a file");
    compress(Compression::Gzip, &[]);
    compress(Compression::None, &["6\n"]);
    let names = ["log", "log.1", "log.2", "log.3.zst", "log.4.zst", "log.5.gz"];
    for (name, text) in names.iter().zip(["6\n", "5\n", "4\n", "3\n", "2\n", "1\n"]) {
        assert_eq!(unpacked(folder, name), text, "{name}");
    }
    assert_eq!(fs::read_dir(folder).expect("a folder").count(), names.len() + 1, "and the lock");
}

#[test]
fn old_backups_are_compressed_and_half_ones_thrown_away() {
    let folder = temporary();
    let folder = folder.path();
    let mut log = open(folder, RotateLimits { compress: Compression::Gzip, ..limits(2) });
    for line in ["1\n", "2\n", "3\n", "4\n"] {
        write(&mut log, line);
    }
    // A compressor that died in the middle, and one that died before it deleted.
    fs::write(folder.join(".log.pack"), "half a file, and longer than the whole one will be")
        .expect("it");
    gzip(&folder.join("log.3.gz"), "1\n");
    let taken = log.pending_compression().expect("a folder").expect("a job");
    assert!(log.rotate_now().expect("a rotation"), "the files move before the job runs");
    write(&mut log, "5\n");
    taken.run().expect("a job that finds other files under the names is none");
    while let Some(job) = log.pending_compression().expect("a folder") {
        job.run().expect("compressed");
    }
    let names = ["log", "log.1", "log.2", "log.3", "log.4", ".log.pack"];
    assert_eq!(texts(folder, &names), ["5\n", "4\n", "-", "-", "-", "-"]);
    let packed = |index: u32| unpacked(folder, &format!("log.{index}.gz"));
    assert_eq!([packed(2), packed(3), packed(4)], ["3\n", "2\n", "1\n"]);
    let mode = |name: &str| fs::metadata(folder.join(name)).expect("a file").mode();
    assert_eq!(mode("log.2.gz"), mode("log.1"));
}

#[test]
fn a_rotation_deletes_what_was_compressed_before_it_moves_anything() {
    let folder = temporary();
    let folder = folder.path();
    let mut log = open(folder, RotateLimits { compress: Compression::Gzip, ..limits(2) });
    for line in ["1\n", "2\n", "3\n", "4\n"] {
        write(&mut log, line);
    }
    for (name, is_twin) in [("log.2", true), ("log.3", false)] {
        gzip(&folder.join(format!("{name}.gz")), "packed\n");
        let times = fs::metadata(folder.join(name)).expect("a backup").modified().expect("a time");
        let other = if is_twin { times } else { times + Duration::from_nanos(1) };
        let packed = OpenOptions::new().append(true).open(folder.join(format!("{name}.gz")));
        packed.expect("a file").set_modified(other).expect("a time");
    }
    assert!(log.rotate_now().expect("a rotation"));
    assert_eq!(texts(folder, &["log.1", "log.2", "log.3", "log.4"]), ["4\n", "3\n", "-", "1\n"]);
    assert!(folder.join("log.3.gz").exists() && folder.join("log.4.gz").exists());
}

#[test]
fn a_compressed_file_of_something_else_is_not_overwritten() {
    let folder = temporary();
    let folder = folder.path();
    let mut log = open(folder, RotateLimits { compress: Compression::Gzip, ..limits(2) });
    for line in ["1\n", "2\n", "3\n"] {
        write(&mut log, line);
    }
    for text in ["something else\n", "1\n2\n", "", "1"] {
        gzip(&folder.join("log.2.gz"), text);
        let job = log.pending_compression().expect("a folder").expect("a job");
        let error = job.run().expect_err("two different files").to_string();
        assert!(error.contains("holds something else"), "{error}");
        assert_eq!(unpacked(folder, "log.2.gz"), text);
        assert_eq!(texts(folder, &["log.2"]), ["1\n"]);
    }
}

#[test]
fn a_companion_that_root_makes_is_its_whose_log_or_folder_it_is() {
    assert!(nix::unistd::geteuid().is_root(), "needs root, to have files of others");
    let owner = |path: &Path| fs::metadata(path).map(|it| (it.uid(), it.gid())).expect("a file");
    let folder = tempfile::tempdir().expect("a folder");
    let lock = folder.path().join(".log.lock");
    chown(folder.path(), Some(1234), Some(1235)).expect("root");
    drop(open(folder.path(), limits(100)));
    assert_eq!(owner(&lock), (1234, 1235), "by the folder, as there was no log");
    fs::remove_file(&lock).expect("a file");
    chown(folder.path().join("log"), Some(1236), Some(1237)).expect("root");
    drop(open(folder.path(), limits(100)));
    assert_eq!(owner(&lock), (1236, 1237));
    // What was there before stays whose it was: somebody may have put it there.
    chown(&lock, Some(0), Some(0)).expect("root");
    drop(open(folder.path(), limits(100)));
    assert_eq!(owner(&lock), (0, 0));
}
