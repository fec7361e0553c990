//! `ph rotate` and `ph reopen`: a running service whose log gets another name.

use crate::ph;
use crate::snapshot::assert_snapshot;
use crate::support::{Stage, eventually};

/// Runs `ph` to its end: exit code, stdout, stderr.
fn ask(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let number = stage.starts();
    let (code, stderr) = stage.launch(&[], arguments).wait_with_stderr();
    (code, stage.read(&format!("stdout.{number}")), stderr)
}

/// A stage whose log has a folder of its own.
fn stage() -> Stage {
    let stage = ph();
    stage.configure("log_file = logs/ph.log\ncommand = sleep 1000");
    std::fs::create_dir(stage.path("logs")).expect("a folder");
    stage
}

fn log(stage: &Stage, name: &str) -> String {
    std::fs::read_to_string(stage.path(&format!("logs/{name}"))).unwrap_or_default()
}

#[test]
fn a_log_is_rotated_by_name() {
    let stage = stage();
    std::fs::write(stage.path("logs/ph.log"), "one\n").expect("a log");
    let (code, stdout, stderr) = ask(&stage, &["rotate", "-c", "config.ini"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_snapshot("rotate.txt", &stage, &stdout);
    assert_eq!((log(&stage, "ph.log").as_str(), log(&stage, "ph.log.1").as_str()), ("", "one\n"));
    let (code, stdout, _) = ask(&stage, &["rotate", "-c", "config.ini", "web"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("is empty, so it was not rotated"), "{stdout}");
    std::fs::write(stage.path("logs/ph.log"), "two\n").expect("a log");
    let (code, json, _) = ask(&stage, &["rotate", "-c", "config.ini", "--json"]);
    assert_eq!(code, 0);
    assert_snapshot("rotate.json", &stage, &json);
    assert_eq!(log(&stage, "ph.log.2"), "one\n");
    let (_, shown, _) = ask(&stage, &["logs", "-c", "config.ini"]);
    assert_eq!(shown, "one\ntwo\n");
}

#[test]
fn a_rotation_keeps_to_the_limits_and_takes_the_files_of_workers() {
    let stage = stage();
    let write = |name: &str| {
        std::fs::write(stage.path(&format!("logs/{name}")), name).expect("a log");
    };
    for name in ["ph.log", "ph.log.1", "ph.log.2", "slot.0.log", "slot.12.log", "slot.x.log"] {
        write(name);
    }
    let set = ["log_backups=2", "worker_log_file=logs/slot.%(slot)s.log"];
    let mut words = vec!["rotate", "-c", "config.ini"];
    words.extend(set.iter().flat_map(|set| ["--set", set]));
    let (code, stdout, stderr) = ask(&stage, &words);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout.lines().count(), 3, "{stdout}");
    for (name, text) in [
        ("ph.log.1", "ph.log"),
        ("ph.log.2", "ph.log.1"),
        ("ph.log.3", ""),
        ("slot.0.log.1", "slot.0.log"),
        ("slot.12.log.1", "slot.12.log"),
        ("slot.x.log", "slot.x.log"),
    ] {
        assert_eq!(log(&stage, name), text, "{name}");
    }
    words.splice(0..1, ["logs", "-n", "all"]);
    let (_, shown, _) = ask(&stage, &words);
    let mut shown: Vec<_> = shown.lines().collect();
    shown.sort_unstable();
    assert_eq!(shown, ["ph.log", "ph.log.1", "slot.0.log", "slot.12.log"]);
    write("ph.log");
    words.splice(0..3, ["rotate"]);
    words.extend(["--set", "log_backups=0"]);
    let (code, stdout, _) = ask(&stage, &words);
    assert_eq!(code, 0);
    assert!(stdout.contains("logs/ph.log was deleted, as log_backups = 0 wants it"), "{stdout}");
}

#[test]
fn what_cannot_be_rotated_is_told() {
    let stage = stage();
    for (set, code, parts) in [
        ("log_file=-", 6, ["goes to stderr", "try: name a file"]),
        ("log_file=logs/none.log", 1, ["cannot rotate ", "logs/none.log: "]),
        ("log_file=missing/ph.log", 1, ["cannot rotate ", "No such file"]),
    ] {
        let (found, stdout, stderr) = ask(&stage, &["rotate", "-c", "config.ini", "--set", set]);
        assert_eq!((found, stdout.as_str()), (code, ""), "{stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{stderr}");
        }
    }
    assert!(!stage.path("logs/none.log").exists(), "a log is not made");
    std::fs::write(stage.path("logs/ph.log"), "one\n").expect("a log");
    let lock = std::fs::File::create(stage.path("logs/.ph.log.lock")).expect("the companion");
    lock.lock_shared().expect("the lock");
    let (code, _, stderr) = ask(&stage, &["rotate", "-c", "config.ini"]);
    assert_eq!(code, 1);
    assert_snapshot("rotate-held.txt", &stage, &stderr);
    assert_eq!(log(&stage, "ph.log"), "one\n");
}

#[test]
fn a_master_is_told_to_open_its_log_again() {
    let stage = stage();
    let (code, stdout, stderr) = ask(&stage, &["reopen", "-c", "config.ini"]);
    assert_eq!((code, stdout.as_str()), (7, ""));
    assert_snapshot("reopen-none.txt", &stage, &stderr);
    // A number alone is nobody's.
    std::fs::write(stage.path("ph.pid"), format!("{}\n", std::process::id())).expect("a pidfile");
    assert_eq!(ask(&stage, &["reopen", "-c", "config.ini"]).0, 7);

    let master = stage.start(&[]);
    eventually("a ready worker", || log(&stage, "ph.log").contains("ready").then_some(()));
    std::fs::rename(stage.path("logs/ph.log"), stage.path("logs/old.log")).expect("a move");
    let (code, stdout, stderr) = ask(&stage, &["reopen", "-c", "config.ini"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, "web: the log files are opened again\n");
    let pid = master.process.0;
    eventually("the new log", || stage.path("logs/ph.log").exists().then_some(()));
    let (code, json, _) = ask(&stage, &["reopen", "-c", "config.ini", "web@1", "--json"]);
    let wanted = format!("\"master_pid\":{pid},\"name\":\"web\"");
    assert!(code == 0 && json.contains(&wanted) && json.contains("\"verdict\":\"done\""), "{json}");
    assert_eq!(ask(&stage, &["reopen", "-c", "config.ini", "web@2"]).0, 7);
    // Without its socket a signal does it.
    std::fs::remove_file(stage.path("ph.sock")).expect("the socket");
    std::fs::rename(stage.path("logs/ph.log"), stage.path("logs/older.log")).expect("a move");
    let (code, stdout, stderr) = ask(&stage, &["reopen", "-c", "config.ini"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("web: told by a signal: "), "{stdout}");
    eventually("the new log", || stage.path("logs/ph.log").exists().then_some(()));
    assert_eq!(master.stop(), 0);
}

#[test]
fn those_who_write_follow_a_rotation_by_themselves() {
    let stage = stage();
    let line = "while sleep 0.01; do n=$((n + 1)); echo line $n; done";
    let words = ["run", "-c", "config.ini", "-n", "2", "--", "sh", "-c", line];
    let master = stage.launch(&[], &words);
    for n in 1..5 {
        eventually("lines", || (log(&stage, "ph.log").lines().count() > 9).then_some(()));
        let (code, stdout, stderr) = ask(&stage, &["rotate", "-c", "config.ini"]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        assert!(stage.path(&format!("logs/ph.log.{n}")).exists());
    }
    assert_eq!(master.stop(), 0);
    for slot in ["0", "1"] {
        let words = ["logs", "-c", "config.ini", "-n", "all", "--slot", slot, "--grep", ": line "];
        let (_, shown, _) = ask(&stage, &words);
        let numbers = shown.lines().map(|line| line.rsplit(' ').next().expect("a number"));
        let numbers: Vec<usize> = numbers.map(|it| it.parse().expect("a number")).collect();
        assert!(numbers.len() > 10, "{shown}");
        assert!(numbers.iter().copied().eq(1..=numbers.len()), "each line once: {numbers:?}");
    }
}

#[test]
fn the_help_says_what_they_do() {
    let stage = stage();
    for verb in ["logs", "rotate", "reopen"] {
        let (code, stdout, _) = ask(&stage, &[verb, "--help"]);
        assert_eq!(code, 0);
        assert_snapshot(&format!("help-{verb}.txt"), &stage, &stdout);
    }
}
