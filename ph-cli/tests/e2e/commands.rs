//! What is executed, and where its words go.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;

use crate::ph;
use crate::support::{Log, eventually};

#[test]
fn a_commands_output_and_errors_go_to_the_log_line_by_line() {
    let stage = ph();
    stage.configure("number_workers = 2");
    let script = "echo out $PH_SLOT; echo err $PH_SLOT >&2; printf 'no end'; exec sleep 1000";
    let master = stage.launch(&[], &["run", "-c", "config.ini", "--", "sh", "-c", script]);
    stage.log().wait_ready(2);
    for text in ["out 0", "out 1", "err 0", "err 1", "no end"] {
        eventually(text, || stage.read("ph.log").contains(text).then_some(()));
    }
    assert_eq!(master.stop(), 0);
    assert_eq!(stage.read("stdout.0"), "");
}

/// Words of commands are not lost at a rename either: who runs writes on in the old file, who is
/// started later writes the new one.
#[test]
fn after_a_rename_and_usr1_the_next_command_writes_the_new_file() {
    let stage = ph();
    let script = "echo hello from $$; exec sleep 1000";
    stage.configure("min_uptime = 0.1");
    let master = stage.launch(&[], &["run", "-c", "config.ini", "--", "sh", "-c", script]);
    stage.log().wait_ready(1);
    let first = master.wait_workers(1)[0];
    stage.log().wait_for(&format!("hello from {}", first.process.0));
    let old = Log(stage.path("old.log"));
    std::fs::rename(stage.log().0, &old.0).expect("the log");
    master.send(Signal::SIGUSR1);
    stage.log().wait_for("log files reopened");
    first.process.send(Signal::SIGKILL);
    let second = master.wait_replaced(first);
    stage.log().wait_for(&format!("hello from {}", second.process.0));
    assert!(first.process != second.process && old.with("hello from").len() == 1);
    assert_eq!(master.stop(), 0);
}

#[test]
fn slot_and_generation_are_filled_into_the_command_of_each_worker() {
    let stage = ph();
    stage.configure(
        "number_workers = 3\ncommand = sh -c 'exec sleep 100%(slot)s' %(generation)s-%(section)s",
    );
    let master = stage.launch(&[], &["run", "-c", "config.ini"]);
    stage.log().wait_ready(3);
    let titles: Vec<_> =
        master.wait_workers(3).iter().map(|worker| worker.process.title()).collect();
    assert_eq!(titles, ["sleep 1000", "sleep 1001", "sleep 1002"]);
    assert_eq!(master.stop(), 0);
}

/// No shell takes part: what looks like its syntax is a word like any other.
#[test]
fn words_reach_the_program_as_they_were_written() {
    let stage = ph();
    stage.configure("min_uptime = 0.1");
    let words = [
        "run",
        "-c",
        "config.ini",
        "--",
        "sh",
        "-c",
        "for it; do echo \"<$it>\"; done; exec sleep 1000",
        "sh",
        "two words",
        "",
        "$HOME",
        "*",
        "a;b",
        "--",
        "-n",
        "%(unknown)s",
        "100%",
        "é",
    ];
    let master = stage.launch(&[], &words);
    stage.log().wait_ready(1);
    let wanted = words[8..].iter().map(|word| format!("<{word}>")).collect::<Vec<_>>();
    let found = eventually("all words are in the log", || {
        let lines = stage.log().lines().into_iter().map(|line| line.message);
        let found = lines.filter(|message| message.starts_with('<'));
        Some(found.collect::<Vec<_>>()).filter(|found| found.len() >= wanted.len())
    });
    assert_eq!(found, wanted);
    assert_eq!(master.stop(), 0);
}

/// The listener is inherited, blocking, by the rules of systemd: here it is served by Python.
#[test]
fn a_program_in_another_language_serves_an_inherited_listener() {
    const SERVER: &str = "
import os, socket
assert os.environ['LISTEN_PID'] == str(os.getpid()) and os.environ['LISTEN_FDS'] == '1'
listener = socket.socket(fileno=3)
assert listener.getblocking()
while True:
    connection, _ = listener.accept()
    connection.sendall(b'served by %d' % os.getpid())
    connection.close()
";
    let stage = ph();
    stage.configure("number_workers = 2\nunix_socket = web.sock");
    let words = ["run", "-c", "config.ini", "--", "python3", "-c", SERVER];
    let master = stage.launch(&[], &words);
    stage.log().wait_ready(2);
    let ask = || {
        let mut stream = UnixStream::connect(stage.path("web.sock")).expect("a listener");
        stream.flush().expect("a connection");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let served_by = ask();
    let workers = master.wait_workers(2);
    let is_of =
        |worker: &&crate::support::Worker| served_by == format!("served by {}", worker.process.0);
    let server = *workers.iter().find(is_of).expect("one of the workers");
    server.process.send(Signal::SIGKILL);
    master.wait_replaced(server);
    for _ in 0..20 {
        assert!(ask().starts_with("served by "));
    }
    assert_eq!(master.stop(), 0);
    assert!(!stage.path("web.sock").exists());
}
