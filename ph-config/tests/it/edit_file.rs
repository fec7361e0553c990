//! A file on the disk that is edited: whose it is, what it is, and who else is at it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use ph_config::{Edit, EditableFile, FileError, Format, edit};

use crate::Site;

/// Sets `key` in section `s`, the whole way; the error as people see it.
fn set(path: &Path, key: &str, value: &str) -> Result<(), String> {
    let file = EditableFile::open(path, path).map_err(|error| error.to_string())?;
    let wanted = Edit { section: "s", key, value: Some(value), keep_comment: true };
    let text = edit(file.text(), Format::of(path), &wanted).map_err(|error| error.to_string())?;
    file.replace(&text).map_err(|error| error.to_string())
}

fn open(path: &Path) -> Result<EditableFile, FileError> {
    EditableFile::open(path, Path::new("conf/app.ini"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("the file is readable")
}

fn names(site: &Site) -> Vec<String> {
    let entries = fs::read_dir(site.path("")).expect("the folder is readable");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("UTF-8")
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

#[test]
fn mode_and_owner_stay() {
    let site = Site::new("\u{feff}[s]\r\nk = 1\r\n");
    let path = site.path("app.ini");
    chown(&path, Some(12345), Some(12346)).expect("these tests run as root");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("chmod");
    let before = fs::metadata(&path).expect("metadata");
    set(&path, "k", "2").expect("the edit");
    let after = fs::metadata(&path).expect("metadata");
    assert_eq!(read(&path), "\u{feff}[s]\r\nk = 2\r\n");
    assert_eq!((after.uid(), after.gid(), after.mode()), (12345, 12346, before.mode()));
    assert_ne!(after.ino(), before.ino(), "a file is replaced, not written over");
    assert_eq!(names(&site), ["app.ini"]);
}

#[test]
fn a_link_stays_a_link() {
    let site = Site::new("[s]\nk = 1\n");
    fs::create_dir(site.path("links")).expect("a folder");
    symlink("../app.ini", site.path("links/one.ini")).expect("a link");
    symlink("one.ini", site.path("links/two.ini")).expect("a link");
    set(&site.path("links/two.ini"), "k", "2").expect("the edit");
    assert_eq!(read(&site.path("app.ini")), "[s]\nk = 2\n");
    for name in ["links/one.ini", "links/two.ini"] {
        assert!(site.path(name).is_symlink());
    }
    assert_eq!(names(&site), ["app.ini", "links"]);
}

#[test]
fn only_a_regular_file_of_one_name() {
    let site = Site::new("[s]\nk = 1\n");
    let refused = |name: &str| set(&site.path(name), "k", "2").expect_err("must be refused");
    fs::hard_link(site.path("app.ini"), site.path("other.ini")).expect("a hard link");
    let error = refused("app.ini");
    assert!(error.contains("app.ini: expected a file with one name, got one with 2"), "{error}");
    assert_eq!(error.lines().count(), 2);
    nix::unistd::mkfifo(&site.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    assert!(refused("fifo").contains("expected a regular file, got a FIFO"));
    assert!(refused("").contains("expected a regular file, got a folder"));
    assert!(refused("gone.ini").contains("No such file"));
    fs::write(site.path("nul.ini"), "[s]\nk = \0").expect("a file");
    assert!(refused("nul.ini").contains("nul.ini:2: expected text, got a NUL byte"));
    assert_eq!(names(&site), ["app.ini", "fifo", "nul.ini", "other.ini"]);
    assert_eq!(read(&site.path("app.ini")), "[s]\nk = 1\n");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let site = Site::new("[s]\nk = 1\n");
    let (folder, path) = (site.path(""), site.path("app.ini"));
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("chmod");
    chown(&path, Some(12345), Some(12345)).expect("these tests run as root");
    let as_other = |value: &'static str| {
        let path = path.clone();
        let other = std::thread::spawn(move || {
            // Of this thread alone; it cannot fail, but asking again tells whether it did.
            nix::unistd::setfsuid(12345.into());
            assert_eq!(nix::unistd::setfsuid(12345.into()).as_raw(), 12345, "run as root");
            set(&path, "k", value)
        });
        other.join().expect("the thread ends")
    };
    let error = as_other("2").expect_err("the folder is root's");
    let name = folder.to_string_lossy();
    assert!(error.contains("cannot make a file in the folder"), "{error}");
    assert!(error.contains(name.trim_end_matches('/')), "{error}");
    assert_eq!(names(&site), ["app.ini"]);
    assert_eq!(read(&path), "[s]\nk = 1\n");

    // A file of somebody else in a folder of one's own would change its owner.
    chown(&folder, Some(12345), None).expect("chown");
    chown(&path, Some(0), Some(0)).expect("chown");
    fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("chmod");
    let error = as_other("2").expect_err("the file is root's");
    assert!(error.contains("cannot keep the owner 0:0 of the file"), "{error}");
    assert_eq!(names(&site), ["app.ini"]);
    fs::set_permissions(&path, Permissions::from_mode(0o444)).expect("chmod");
    let error = as_other("2").expect_err("the file may only be read");
    assert!(error.contains("read and write permission on the file"), "{error}");
}

#[test]
fn a_file_that_somebody_is_editing_is_left_alone() {
    let site = Site::new("[s]\nk = 1\n");
    let path = site.path("app.ini");
    let first = open(&path).expect("the first");
    let error = open(&path).expect_err("the second");
    assert!(matches!(error, FileError::Busy(_)), "{error:?}");
    let error = error.to_string();
    assert!(error.starts_with("conf/app.ini: expected to be the only one"), "{error}");
    drop(first);
    let third = open(&path).expect("the lock went with its owner");
    // An editor that does not know of the lock.
    fs::write(&path, "[s]\nk = 5\n").expect("write");
    let error = third.replace("[s]\nk = 2\n").expect_err("the text is another");
    assert!(matches!(error, FileError::Busy(_)), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("expected nobody else to change the file"), "{error}");
    let fourth = open(&path).expect("open");
    fs::write(site.path("new"), "[s]\nk = 5\n").expect("write");
    fs::rename(site.path("new"), &path).expect("rename");
    fourth.replace("[s]\nk = 2\n").expect_err("the file is another");
    let fifth = open(&path).expect("open");
    assert!(matches!(fifth.replace("\0"), Err(FileError::Unfit(_))));
    assert_eq!(read(&path), "[s]\nk = 5\n");
    assert_eq!(names(&site), ["app.ini"]);
}

#[test]
fn a_lock_is_waited_for() {
    let site = Site::new("[s]\nk = 1\n");
    let path = site.path("app.ini");
    let first = open(&path).expect("the first");
    let second = std::thread::scope(|scope| {
        let second = scope.spawn(|| set(&path, "k", "3"));
        first.replace("[s]\nk = 2\nj = 2\n").expect("it has the lock");
        second.join().expect("the thread ends")
    });
    assert_eq!(second, Ok(()));
    // It saw what the first had written.
    assert_eq!(read(&path), "[s]\nk = 3\nj = 2\n");
}

#[test]
fn what_the_user_may_not_do_is_told_apart_and_folders_are_spelled_as_they_were() {
    let site = Site::new("[s]\nk = 1\n");
    let path = site.path("app.ini");
    chown(&path, Some(12345), Some(12345)).expect("these tests run as root");
    fs::set_permissions(site.path(""), Permissions::from_mode(0o755)).expect("chmod");
    symlink("app.ini", site.path("link.ini")).expect("a link");
    let as_other = |name: &'static str| {
        let path = site.path(name);
        let other = std::thread::spawn(move || {
            nix::unistd::setfsuid(12345.into());
            assert_eq!(nix::unistd::setfsuid(12345.into()).as_raw(), 12345, "run as root");
            let file = EditableFile::open(&path, Path::new(name))?;
            file.replace("[s]\n")
        });
        other.join().expect("the thread ends").expect_err("the folder is root's")
    };
    for name in ["app.ini", "link.ini"] {
        let error = as_other(name);
        assert!(matches!(error, FileError::Denied(_)), "{error:?}");
        let shown = error.to_string();
        let start = format!("{name}: cannot make a file in the folder \".\": Permission denied");
        assert!(shown.starts_with(&start), "{shown}");
    }
    let error = open(&site.path("gone.ini")).expect_err("there is none");
    assert!(matches!(error, FileError::Io(_)), "{error:?}");
    let error = open(&site.path("")).expect_err("a folder");
    assert!(matches!(error, FileError::Unfit(_)), "{error:?}");
}

#[test]
fn of_edits_at_once_none_is_lost() {
    const THREADS: usize = 8;
    const EDITS: usize = 25;
    let site = Site::new("# the service\n[s]\n");
    let path = site.path("app.ini");
    let edits = |thread: usize| {
        for number in 0..EDITS {
            let key = format!("key_{thread}_{number}");
            let mut tries = 0;
            while let Err(error) = set(&path, &key, "1") {
                let locked = error.contains("expected to be the only one");
                assert!(locked, "{error}");
                tries += 1;
                assert!(tries < 10_000_000, "the lock is never free");
                std::thread::yield_now();
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || edits(thread));
        }
    });
    let text = read(&path);
    assert!(text.starts_with("# the service\n[s]\n"));
    for thread in 0..THREADS {
        for number in 0..EDITS {
            assert!(text.contains(&format!("\nkey_{thread}_{number} = 1\n")), "{text}");
        }
    }
    assert_eq!(text.lines().count(), 2 + THREADS * EDITS);
    assert_eq!(names(&site), ["app.ini"]);
}
