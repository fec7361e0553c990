//! `ph logs`: lines of several services and files, what is asked of them, and how it ends.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::ph;
use crate::snapshot::assert_snapshot;
use crate::support::{Process, Stage, eventually};

const TEXT: &str = "\
[DEFAULT]
log_file = logs/%(section)s.log
command  = true

[web]
[job]
[loud]
log_file = -
";

/// A line at a second of one morning.
fn line(second: u32, end: &str) -> String {
    format!("2026-11-23T08:00:{second:02}.000Z {end}\n")
}

/// A stage with the logs of two services; the older lines of one are in its backup.
fn stage() -> Stage {
    let stage = ph();
    std::fs::write(stage.path("config.ini"), TEXT).expect("a configuration");
    std::fs::create_dir(stage.path("logs")).expect("a folder");
    append(&stage, "web.log.1", &line(1, "INFO web[7] master: one"));
    append(&stage, "web.log", &line(3, "WARN web[9] worker 1 gen 2: three took=\"3 ms\""));
    append(&stage, "web.log", "   a trace \x1b[2J\u{85}\u{202e}\t\u{fffd}\n");
    append(&stage, "web.log", &line(4, "ERROR web[8] worker 0 gen 1: four"));
    let json = r#"{"time":"2026-11-23T08:00:02.000Z","level":"INFO","name":"job","pid":5,"role":"master","message":"two \u0085","fields":{"id":17}}"#;
    append(&stage, "job.log", &format!("{json}\n"));
    append(&stage, "job.log", &line(5, "DEBUG job[5] master: five"));
    stage
}

fn append(stage: &Stage, name: &str, text: &str) {
    let path = stage.path(&format!("logs/{name}"));
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a log");
    file.write_all(text.as_bytes()).expect("room");
}

/// Runs `ph logs` to its end: exit code, stdout, stderr.
fn ask(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let words: Vec<_> = ["logs", "-c", "config.ini"].iter().chain(arguments).copied().collect();
    let number = stage.starts();
    let (code, stderr) = stage.launch(&[], &words).wait_with_stderr();
    (code, stage.read(&format!("stdout.{number}")), stderr)
}

fn good(stage: &Stage, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = ask(stage, arguments);
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
    stdout
}

/// The seconds of the lines that are shown, and `-` for a line without a time.
fn seconds(shown: &str) -> String {
    let second = |line: &str| match line.find("08:00:0") {
        Some(at) => line[at + 7..].chars().next().expect("a digit"),
        None => '-',
    };
    shown.lines().map(second).collect()
}

#[test]
fn all_logs_are_one_by_time() {
    let stage = stage();
    let all = good(&stage, &[]);
    assert_snapshot("logs.txt", &stage, &all);
    assert_eq!(seconds(&all), "123-45");
    let coloured = good(&stage, &["web", "--color", "always"]);
    assert_snapshot("logs-colour.txt", &stage, &coloured.replace('\x1b', "ESC"));
    let json = good(&stage, &["--json"]);
    assert_snapshot("logs.jsonl", &stage, &json);
    for line in json.lines() {
        let value: Value = serde_json::from_str(line).expect("valid JSON");
        assert_eq!(value["schema"], 1);
    }
}

#[test]
fn fault_76_nothing_in_a_line_reaches_the_terminal_as_a_command() {
    let stage = stage();
    for arguments in [&["web"][..], &["web", "--json"], &[]] {
        let shown = good(&stage, arguments);
        let is_odd = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}';
        assert!(!shown.contains(is_odd), "{shown:?}");
    }
}

#[test]
fn lines_are_chosen_by_number_time_pattern_and_slot() {
    let stage = stage();
    for (arguments, expected) in [
        (&["-n", "2"][..], "45"),
        (&["-n", "0"], ""),
        (&["-n", "all", "web"], "13-4"),
        (&["-s", "job"], "25"),
        (&["--since", "2026-11-23T08:00:03Z"], "3-45"),
        (&["--since", "2026-11-23T09:00:04+01:00", "-n", "1"], "5"),
        (&["--since", "100000d"], "123-45"),
        (&["--grep", "t(wo|hree)"], "23"),
        (&["--grep", "(?i)FOUR|trace", "-n", "1"], "4"),
        (&["--slot", "1"], "3-"),
        (&["--slot", "1", "--grep", "three"], "3"),
        (&["--slot", "7"], ""),
    ] {
        assert_eq!(seconds(&good(&stage, arguments)), expected, "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_shown_is_told() {
    let stage = stage();
    let (code, stdout, stderr) = ask(&stage, &["loud"]);
    assert_eq!((code, stdout.as_str()), (6, ""));
    assert_snapshot("logs-stderr.txt", &stage, &stderr);
    for (arguments, expected, part) in [
        (&["--since", "yesterday"][..], 2, "no time and no span"),
        (&["--grep", "("], 2, "cannot use the pattern of --grep: "),
        (&["-n", "many"], 2, "`all`"),
        (&["nobody"], 5, "nobody"),
        (&["web", "--set", "log_file=missing/web.log"], 1, "/missing/web.log: No such file"),
    ] {
        let (code, stdout, stderr) = ask(&stage, arguments);
        assert_eq!((code, stdout.as_str()), (expected, ""), "{stderr}");
        assert!(stderr.contains(part), "{stderr}");
    }
    std::os::unix::fs::symlink("/etc/hostname", stage.path("logs/web.log.2")).expect("a link");
    std::fs::write(stage.path("logs/web.log.3.gz"), "not compressed").expect("a file");
    let (code, stdout, stderr) = ask(&stage, &["web", "-n", "all"]);
    assert_eq!((code, seconds(&stdout).as_str()), (1, "13-4"));
    assert!(stderr.contains("logs/web.log.3.gz: "), "{stderr}");
    let (code, stdout, _) = ask(&stage, &["web", "--set", "log_file=logs/new.log"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "nothing was written yet");
}

/// A running `ph logs -f`, and the lines it shows.
struct Follower {
    child: std::process::Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Follower {
    fn new(stage: &Stage, arguments: &[&str]) -> Follower {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ph"))
            .args(["logs", "-c", "config.ini", "-f"])
            .args(arguments)
            .current_dir(stage.folder())
            .env_clear()
            .envs(stage.variables())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Follower { child, lines }
    }

    /// The next line; a test that hangs here is ended from outside.
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line
    }
}

#[test]
fn a_log_is_followed_over_rotations_until_an_interrupt() {
    let stage = stage();
    let mut follower = Follower::new(&stage, &["web", "-n", "1"]);
    assert!(follower.next().contains("four"));
    for n in 6..9 {
        if n == 7 {
            std::fs::rename(stage.path("logs/web.log.1"), stage.path("logs/web.log.2"))
                .and_then(|()| {
                    std::fs::rename(stage.path("logs/web.log"), stage.path("logs/web.log.1"))
                })
                .expect("a rotation");
        }
        append(&stage, "web.log", &line(n, "INFO web[7] master: more"));
        assert_eq!(seconds(&follower.next()), n.to_string());
    }
    let process = Process(i32::try_from(follower.child.id()).expect("a pid"));
    process.send(Signal::SIGINT);
    let status = follower.child.wait().expect("an end");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2), "{status}");
}

#[test]
fn whoever_stops_reading_ends_it_at_once() {
    let stage = stage();
    let mut follower = Follower::new(&stage, &["-n", "all"]);
    assert!(follower.next().contains("one"));
    drop(follower.lines);
    // Nothing is written any more that could fail.
    let mut child = follower.child;
    let status = eventually("its end", || child.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(0));
    for n in 0..10_000 {
        append(&stage, "job.log", &line(n % 60, "INFO job[5] master: a longer line for the pipe"));
    }
    let shell = format!("{} logs -c config.ini -n all | head -n 1", env!("CARGO_BIN_EXE_ph"));
    let shell = format!("set -o pipefail; {shell}");
    let output = Command::new("bash").args(["-c", &shell]).current_dir(stage.folder()).output();
    let output = output.expect("bash");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
