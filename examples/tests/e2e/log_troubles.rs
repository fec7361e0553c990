//! Logs in folders that are full, closed, deleted or not what they seem: no line is lost without
//! being counted, none is torn or doubled, and no file of somebody else is touched.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::misbehave;
use crate::rotation::{counting, numbers, trail, wait_counted, wait_rotated};
use crate::support::{Line, Log, Master, eventually, let_pass, require};

/// Runs a program that has to do what it is asked.
fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect(program);
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// What nobody may change, not even root, until this is dropped.
struct Held {
    attribute: char,
    path: PathBuf,
}

impl Held {
    /// Fails loudly where the file system knows no such thing: nothing could be said then.
    fn make(attribute: char, path: PathBuf) -> Self {
        require(&["chattr"]);
        let held = Self { attribute, path };
        held.set('+');
        held
    }

    fn set(&self, sign: char) {
        let path = self.path.to_str().expect("UTF-8");
        run("chattr", &[&format!("{sign}{}", self.attribute), path]);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set('-');
    }
}

#[test]
fn fault_56_lines_for_a_log_that_is_immutable_are_counted() {
    let stage = misbehave();
    let master = counting(&stage, &["log_max_size=1MB"]);
    wait_counted(&stage.log(), 2);
    let held = Held::make('i', stage.log().0);
    wait_stuck(&stage.log());
    drop(held);
    for worker in master.wait_workers(2) {
        check_loss(&stage.log(), worker.process.0, "Operation not permitted");
    }
    assert_eq!(master.stop(), 0);
}

#[test]
fn fault_56_what_keeps_a_log_from_being_rotated_keeps_no_line_from_it() {
    type Trouble = fn(&Path) -> Box<dyn FnOnce()>;
    let troubles: [(&str, Trouble); 3] = [
        ("the log can be appended to and nothing else", |log| {
            let held = Held::make('a', log.to_owned());
            Box::new(move || drop(held))
        }),
        ("the folder is immutable", |log| {
            let held = Held::make('i', log.parent().expect("a folder").to_owned());
            Box::new(move || drop(held))
        }),
        ("a folder has the name of a backup", |log| {
            let way = PathBuf::from(format!("{}.1", log.display()));
            fs::create_dir(&way).expect("a folder");
            Box::new(move || fs::remove_dir(way).expect("the folder"))
        }),
    ];
    for (what, trouble) in troubles {
        let stage = misbehave();
        fs::create_dir(stage.path("logs")).expect("a folder");
        let log = Log(stage.path("logs/ph.log"));
        let master = counting(&stage, &["log_file=logs/ph.log", "log_max_size=100KB"]);
        wait_counted(&log, 2);
        let end = trouble(&log.0);
        let size = || fs::metadata(&log.0).expect("the log").len();
        eventually("it grows all the same", || (size() > 200 << 10).then_some(()));
        let told = log.with("cannot rotate the log, the log in use stays");
        let mut tellers: Vec<_> = told.iter().map(|line| line.pid).collect();
        tellers.sort_unstable();
        tellers.dedup();
        assert!(!told.is_empty() && told.len() == tellers.len(), "{what}: once each, {told:?}");
        end();
        wait_rotated(&log.0, 1);
        assert_eq!(master.stop(), 0);
        for (pid, numbers) in numbers(&trail(&log.0), "count") {
            let all = 1..=numbers.len();
            assert!(numbers.into_iter().eq(all), "{what}: worker {pid}");
        }
    }
}

#[test]
fn fault_56_a_log_that_was_removed_is_made_anew() {
    let stage = misbehave();
    let master = counting(&stage, &[]);
    wait_counted(&stage.log(), 2);
    fs::remove_file(stage.log().0).expect("the log");
    wait_counted(&stage.log(), 2);
    assert_eq!(master.stop(), 0);
    stage.log().wait_for("master stopped");
}

/// Waits until nothing is written any more.
fn wait_stuck(log: &Log) {
    eventually("the log cannot grow", || {
        let before = fs::metadata(&log.0).expect("the log").len();
        let_pass(Duration::from_millis(200));
        (fs::metadata(&log.0).expect("the log").len() == before).then_some(())
    });
}

/// Waits until a process has told why it lost lines, and sees that it has counted all that are not
/// there.
fn check_loss(log: &Log, pid: i32, why: &str) {
    let report = eventually("the loss is told", || {
        let told = log.with("log lines were lost lines=").into_iter();
        told.into_iter().find(|line| line.pid == pid)
    });
    assert!(report.message.contains(why), "{}", report.message);
    eventually("it goes on behind the report", || {
        let lines = log.lines();
        let at = lines.iter().position(|line| line.message == report.message)?;
        numbers(&lines[at..], "count").contains_key(&pid).then_some(())
    });
    let lost = |line: &Line| {
        let (_, rest) = line.message.split_once("log lines were lost lines=")?;
        rest.split(' ').next()?.parse::<usize>().ok()
    };
    // A loss that is just happening is told a little later.
    eventually("what is not there was counted", || {
        let lines = log.lines();
        let told: usize = lines.iter().filter(|line| line.pid == pid).filter_map(lost).sum();
        let found = numbers(&lines, "count").remove(&pid)?;
        assert!(found.is_sorted_by(|one, next| one < next), "each once, in order");
        (found.last() == Some(&(found.len() + told))).then_some(())
    });
}

/// Starts what follows it with a small disk of its own in the place of this folder.
fn small_disk(folder: &Path) -> [String; 6] {
    require(&["unshare", "mount"]);
    let script = "mount -t tmpfs -o size=1m none \"$0\" && exec \"$@\"";
    let folder = folder.to_str().expect("UTF-8");
    ["unshare", "-m", "sh", "-c", script, folder].map(str::to_owned)
}

#[test]
fn fault_36_and_57_a_full_disk_is_survived_and_each_lost_line_counted() {
    let stage = misbehave();
    fs::create_dir(stage.path("disk")).expect("a folder");
    let wrapper = small_disk(&stage.path("disk"));
    let wrapper = wrapper.each_ref().map(String::as_str);
    let settings = ["log_file=disk/ph.log", "number_workers=2", "app_behaviour=count,turn:1"];
    let master = stage.start_through(&wrapper, &settings);
    let pid = master.process.0;
    // The mount is seen by those who were started behind it.
    let seen = |name: &str| {
        PathBuf::from(format!("/proc/{pid}/root{}", stage.path(&format!("disk/{name}")).display()))
    };
    let log = Log(seen("ph.log"));
    wait_counted(&log, 2);
    // Filled to the last byte, except for the rest of the page the log is in.
    let filler = vec![b'x'; 4096];
    let mut file = fs::File::create(seen("filler")).expect("a file");
    while file.write_all(&filler).is_ok() {}
    drop(file);
    wait_stuck(&log);
    let old = master.wait_workers(2)[0];
    old.process.send(Signal::SIGKILL);
    let new = master.wait_replaced(old);
    // The same log, but nothing is kept of what it became too full for.
    fs::remove_file(seen("filler")).expect("a file");
    let survivor = master.wait_workers(2).into_iter().find(|worker| *worker != new);
    let survivor = survivor.expect("the other one").process.0;
    check_loss(&log, survivor, "No space left on device");
    let text = fs::read_to_string(&log.0).expect("the log");
    let is_whole = |line: &&str| line.trim().is_empty() || line.starts_with("20");
    let torn: Vec<_> = text.lines().filter(|line| !is_whole(line)).collect();
    assert!(torn.is_empty(), "{torn:?}");
    stop_with(master, "cannot write the log: No space left on device");
}

/// Stops a master whose log process has told of its trouble where it could.
fn stop_with(master: Master, told: &str) {
    master.send(Signal::SIGTERM);
    let (code, stderr) = master.wait_with_stderr();
    assert_eq!(code, 0);
    assert!(stderr.is_empty() || stderr.contains(told), "{stderr}");
}

#[test]
fn fault_37_without_its_folder_a_service_goes_on_and_logs_again_in_a_new_one() {
    let stage = misbehave();
    fs::create_dir(stage.path("logs")).expect("a folder");
    let log = Log(stage.path("logs/ph.log"));
    let master = counting(&stage, &["log_file=logs/ph.log", "base_path=."]);
    wait_counted(&log, 2);
    fs::remove_dir_all(stage.path("logs")).expect("the folder");
    let old = master.wait_workers(2)[1];
    old.process.send(Signal::SIGKILL);
    let new = master.wait_replaced(old);
    fs::create_dir(stage.path("logs")).expect("a folder");
    let numbers = wait_counted(&log, 2);
    assert!(numbers.contains_key(&new.process.0), "{:?}", numbers.keys());
    stop_with(master, "cannot write the log: the log was deleted");
    log.wait_for("master stopped");
}

#[test]
fn fault_59_no_link_leads_a_log_or_a_rotation_to_another_file() {
    let stage = misbehave();
    let logs = stage.path("logs");
    fs::create_dir(&logs).expect("a folder");
    fs::set_permissions(&logs, Permissions::from_mode(0o1777)).expect("a mode");
    let secret = stage.path("secret");
    fs::write(&secret, "secret\n").expect("a file");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("a mode");
    let is_untouched = |what: &str| {
        let found = fs::metadata(&secret).expect("the file");
        assert_eq!(fs::read_to_string(&secret).expect("the file"), "secret\n", "{what}");
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o600, nix::unistd::getuid().as_raw()));
    };
    let log = Log(logs.join("ph.log"));
    for (name, text) in [("symbolic", "it is a symbolic link"), ("hard", "hard links")] {
        match name {
            "hard" => fs::hard_link(&secret, &log.0).expect("a link"),
            _ => symlink(&secret, &log.0).expect("a link"),
        }
        let (code, stderr) = counting(&stage, &["log_file=logs/ph.log"]).wait_with_stderr();
        assert!(code == 1 && stderr.contains(text), "{name}: {code} {stderr}");
        is_untouched(name);
        fs::remove_file(&log.0).expect("the link");
    }
    // At every other name of a rotation: one after the other, each while it runs.
    for name in ["ph.log.1", ".ph.log.new", ".ph.log.gz", ".ph.log.lock"] {
        let way = logs.join(name);
        symlink(&secret, &way).expect("a link");
        let settings = ["log_file=logs/ph.log", "log_max_size=16KB", "log_compress=gzip"];
        let master = counting(&stage, &settings);
        match name {
            "ph.log.1" | ".ph.log.lock" => {
                let size = || fs::metadata(&log.0).map_or(0, |found| found.len());
                eventually("it is not rotated", || (size() > 64 << 10).then_some(()));
            }
            _ => wait_rotated(&log.0, 1),
        }
        assert_eq!(master.stop(), 0);
        is_untouched(name);
        let _ = fs::remove_file(way);
        fs::remove_dir_all(&logs).and_then(|()| fs::create_dir(&logs)).expect("the folder");
    }
}

#[test]
fn fault_83_a_folder_that_becomes_a_link_while_running_leads_nobody_astray() {
    let stage = misbehave();
    for name in ["logs", "target"] {
        fs::create_dir(stage.path(name)).expect("a folder");
    }
    let settings = ["log_file=logs/ph.log", "log_max_size=16KB", "log_compress=gzip"];
    let master = counting(&stage, &settings);
    wait_rotated(&stage.path("logs/ph.log"), 1);
    fs::rename(stage.path("logs"), stage.path("moved")).expect("a rename");
    symlink("target", stage.path("logs")).expect("a link");
    let log = Log(stage.path("moved/ph.log"));
    let packed = |n: usize| stage.path(&format!("moved/ph.log.{n}.gz"));
    let count = || (2..100_000).take_while(|n| packed(*n).exists()).count();
    let before = count();
    eventually("it is rotated and compressed where it was", || {
        (count() > before + 3).then_some(())
    });
    master.send(Signal::SIGUSR1);
    let old = master.wait_workers(2)[0];
    old.process.send(Signal::SIGKILL);
    let new = master.wait_replaced(old);
    eventually("a new worker logs there too", || {
        numbers(&log.lines(), "count").contains_key(&new.process.0).then_some(())
    });
    assert_eq!(master.stop(), 0);
    assert_eq!(fs::read_dir(stage.path("target")).expect("the folder").count(), 0);
}
