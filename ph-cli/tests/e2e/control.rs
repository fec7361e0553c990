//! The control socket against those who mean it no good, and its file from birth to end.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ph;
use crate::support::{Master, Stage, eventually, let_pass, require};

/// What a client of the command line had to say.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A client that has been started.
pub(crate) struct Asking(Child);

/// Runs `ph` with these words, through a wrapper if there is one.
pub(crate) fn client(stage: &Stage, wrapper: &[&str], words: &[&str]) -> Said {
    begin(stage, wrapper, words).end()
}

/// The same without waiting for its end.
pub(crate) fn begin(stage: &Stage, wrapper: &[&str], words: &[&str]) -> Asking {
    let program = env!("CARGO_BIN_EXE_ph");
    let all: Vec<_> = wrapper.iter().chain([&program]).chain(words).collect();
    let mut command = Command::new(all[0]);
    command.args(&all[1..]).current_dir(stage.folder()).env_clear().envs(stage.variables());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Asking(command.spawn().expect("a client"))
}

impl Asking {
    /// Waits for its end.
    pub(crate) fn end(self) -> Said {
        let output = self.0.wait_with_output().expect("its output");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let code = output.status.code().expect("an exit code");
        Said { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// A master of some workers that only wait.
pub(crate) fn master_of(stage: &Stage, workers: usize, lines: &str) -> Master {
    stage.configure(&format!("number_workers = {workers}\nmin_uptime = 0.1\n{lines}"));
    let master = stage.launch(&[], &["run", "-c", "config.ini", "--", "sleep", "1000"]);
    stage.log().wait_ready(workers);
    master
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream
}

/// Sends something and gives all that comes back. The other end may have heard enough before the end.
fn answer(path: &Path, sent: &[u8]) -> String {
    let mut stream = connect(path);
    let _ = stream.write_all(sent);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("UTF-8")
}

const STATUS: &[u8] = b"{\"version\":1,\"request\":\"status\"}\n";

fn is_answered(stage: &Stage) {
    let answer = answer(&stage.path("ph.sock"), STATUS);
    assert!(answer.starts_with("{\"service\":{"), "{answer}");
    assert!(answer.ends_with("{\"done\":{\"code\":0,\"text\":\"\"}}\n"), "{answer}");
}

#[test]
fn what_is_no_request_has_one_line_for_an_answer() {
    let stage = ph();
    let master = master_of(&stage, 1, "");
    let path = stage.path("ph.sock");
    let huge = [&b"{\"version\":1,\"request\":\""[..], &vec![b'x'; 1 << 20], b"\"}\n"].concat();
    for (sent, wanted) in [
        (&b"garbage\n"[..], "not a request"),
        (b"\n", "not a request"),
        (b"\0\xff\xfe\n", "not a request"),
        (b"GET / HTTP/1.1\r\n\r\n", "not a request"),
        (b"{\"version\":7,\"request\":\"status\"}\n", "version 7 is not known here"),
        (b"{\"version\":1,\"request\":\"dance\"}\n", "unknown variant"),
        (b"{\"version\":1,\"request\":\"status\",\"x\":1}\n", "unknown field"),
        (&huge, "at most 65536 bytes"),
    ] {
        let answer = answer(&path, sent);
        assert!(answer.starts_with("{\"error\":\""), "{answer}");
        assert!(answer.contains(wanted) && answer.lines().count() == 1, "{answer}");
    }
    is_answered(&stage);
    assert_eq!(master.stop(), 0);
}

/// All of them at once, while the master supervises as ever.
#[test]
fn hostile_clients_hold_nobody_up() {
    let stage = ph();
    stage.allow_error("is in a crash loop");
    let master = master_of(&stage, 2, "max_restarts = 1000\nbackoff_max = 0.1");
    let path = stage.path("ph.sock");
    let mut silent: Vec<_> = (0..70).map(|_| connect(&path)).collect();
    let mut last = silent.pop().expect("one");
    let mut refusal = String::new();
    last.read_to_string(&mut refusal).expect("a refusal");
    assert!(refusal.contains("64 clients are here already"), "{refusal}");
    let worker = master.wait_workers(2)[0];
    worker.process.send(Signal::SIGKILL);
    master.wait_replaced(worker);
    silent.truncate(32);
    for client in &mut silent {
        client.write_all(&STATUS[..10]).expect("half a request");
    }
    // Those that watch and never read, while there is much to tell.
    let watchers: Vec<_> = (0..16)
        .map(|_| {
            let mut watcher = connect(&path);
            watcher.write_all(b"{\"version\":1,\"request\":\"watch\"}\n").expect("a request");
            watcher
        })
        .collect();
    for _ in 0..20 {
        let worker = master.wait_workers(2)[1];
        worker.process.send(Signal::SIGKILL);
        master.wait_replaced(worker);
    }
    is_answered(&stage);
    let before = master.process.cpu_ticks();
    let_pass(Duration::from_secs(2));
    assert!(master.process.cpu_ticks() - before < 30, "the master spins");
    // Half a request has its time; then the places are free again, without anybody's leaving.
    let mut first = silent.swap_remove(0);
    assert_eq!(first.read(&mut [0; 10]).expect("the end"), 0);
    drop(watchers);
    is_answered(&stage);
    drop(silent);
    assert_eq!(master.stop(), 0);
}

#[test]
fn two_hundred_connections_come_and_go() {
    let stage = ph();
    let master = master_of(&stage, 1, "");
    let path = stage.path("ph.sock");
    let descriptors = master.process.descriptors().len();
    for _ in 0..200 {
        drop(connect(&path));
    }
    let mut many: Vec<_> = (0..200).map(|_| connect(&path)).collect();
    let answered = many.iter_mut().filter_map(|client| {
        let _ = client.write_all(STATUS);
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        answer.contains("\"done\"").then_some(())
    });
    assert!(answered.count() >= 60);
    drop(many);
    eventually("no descriptor left", || {
        (master.process.descriptors().len() == descriptors).then_some(())
    });
    is_answered(&stage);
    assert_eq!(master.stop(), 0);
}

/// Neither does a worker have the socket, nor a client of it.
#[test]
fn workers_and_helpers_have_none_of_it() {
    let stage = ph();
    let master = master_of(&stage, 1, "");
    let path = stage.path("ph.sock");
    let sockets = |process: crate::support::Process| {
        let all = process.descriptors().into_values();
        all.filter(|name| name.starts_with("socket:")).collect::<Vec<_>>()
    };
    let mut watcher = connect(&path);
    watcher.write_all(b"{\"version\":1,\"request\":\"watch\"}\n").expect("a request");
    watcher.read_exact(&mut [0; 10]).expect("an answer");
    for child in master.process.children() {
        child.send(Signal::SIGKILL);
        child.wait_gone();
    }
    stage.log().wait_ready(2);
    let of_master = sockets(master.process);
    assert!(of_master.len() >= 2, "{of_master:?}");
    eventually("all children", || (master.process.children().len() == 3).then_some(()));
    for child in master.process.children() {
        let shared = sockets(child).into_iter().filter(|it| of_master.contains(it)).count();
        assert_eq!(shared, 0, "{}", child.title());
    }
    drop(watcher);
    assert_eq!(master.stop(), 0);
}

#[test]
fn the_file_is_private_survives_nobody_and_may_be_elsewhere() {
    let stage = ph();
    let deep = "d".repeat(120);
    std::fs::create_dir(stage.path(&deep)).expect("a folder");
    let long = format!("{deep}/control.sock");
    for (line, name) in [("", "ph.sock"), (&*format!("control_socket = {long}"), &*long)] {
        let master = master_of(&stage, 1, line);
        let path = stage.path(name);
        assert_eq!(path.metadata().expect("it").permissions().mode() & 0o777, 0o600);
        let said = client(&stage, &[], &["status", "-c", "config.ini"]);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{}", said.stdout);
        let said = client(&stage, &[], &["status", "--socket", name]);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{}", said.stdout);
        // A killed master leaves it; the next one replaces it.
        master.send(Signal::SIGKILL);
        master.wait();
        stage.wait_empty();
        assert!(path.exists());
        std::fs::remove_file(stage.path("ph.log")).expect("the log");
        let next = master_of(&stage, 1, line);
        assert_eq!(client(&stage, &[], &["status", "-c", "config.ini"]).code, 0);
        assert_eq!(next.stop(), 0);
        assert!(!path.exists());
        std::fs::remove_file(stage.path("ph.log")).expect("the log");
    }
    let master = master_of(&stage, 1, "control_socket = off");
    assert!(!stage.path("ph.sock").exists());
    // The parts of the reason are lines of their own.
    let said = client(&stage, &[], &["status", "-c", "config.ini"]);
    let remedy = "its control socket is off\n    try: ps -fp ";
    assert!(said.code == 4 && said.stderr.contains(remedy), "{}", said.stderr);
    assert_eq!(master.stop(), 0);
}

#[test]
fn what_is_in_the_way_is_kept_and_named() {
    let stage = ph();
    let _live = std::os::unix::net::UnixListener::bind(stage.path("live.sock")).expect("a socket");
    std::fs::write(stage.path("file"), "precious").expect("a file");
    for (name, why) in [("live.sock", "EADDRINUSE"), ("file", "not a socket")] {
        stage.configure(&format!("command = sleep 1000\ncontrol_socket = {name}"));
        for verb in ["run", "check"] {
            let said = client(&stage, &[], &[verb, "-c", "config.ini"]);
            assert!(said.code == 1 || said.code == 6, "{}", said.code);
            assert!(said.stderr.contains(why), "{}", said.stderr);
            assert!(said.stderr.contains("config.ini:8 control_socket"), "{}", said.stderr);
        }
    }
    assert_eq!(stage.read("file"), "precious");
    std::fs::remove_file(stage.path("live.sock")).expect("the socket");
}

/// A user who may not ask is told so, one who is named is answered. The file's mode lets both come.
#[test]
fn who_may_ask_is_for_the_master_to_say() {
    require(&["setpriv"]);
    let stage = ph();
    std::fs::set_permissions(stage.folder(), std::fs::Permissions::from_mode(0o755))
        .expect("a mode");
    std::fs::copy(env!("CARGO_BIN_EXE_ph"), stage.path("ph")).expect("a copy");
    let tell = |uid: &str, groups: &str, verb: &str| {
        let script =
            format!("shift; exec setpriv --reuid={uid} --regid={uid} {groups} ./ph \"$@\"");
        let words = ["sh", "-c", &script, "sh"];
        client(&stage, &words, &[verb, "--socket", "ph.sock"])
    };
    let as_user = |uid: &str, groups: &str| tell(uid, groups, "status");
    let master = master_of(&stage, 1, "");
    let said = as_user("65534", "--clear-groups");
    assert_eq!(said.code, 4, "{}", said.stderr);
    assert!(said.stderr.contains("Permission denied"), "{}", said.stderr);
    assert_eq!(master.stop(), 0);
    std::fs::remove_file(stage.path("ph.log")).expect("the log");
    let master = master_of(&stage, 1, "control_allow = 65533, @65532");
    let said = as_user("65534", "--clear-groups");
    assert_eq!(said.code, 4, "{}", said.stderr);
    assert!(said.stderr.contains("user 65534 may not ask this master"), "{}", said.stderr);
    for (uid, groups) in [
        ("65533", "--clear-groups"),
        ("65532", "--clear-groups"),
        ("65534", "--groups=65530,65532"),
        ("0", "--clear-groups"),
    ] {
        let said = as_user(uid, groups);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{uid} {groups}");
    }
    // Nobody else may reopen the logs either, and those may, whose master is another user's.
    assert_eq!(tell("65534", "--clear-groups", "reopen").code, 4);
    let said = tell("65533", "--clear-groups", "reopen");
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{}", said.stdout);
    assert_eq!(master.stop(), 0);
    stage.configure("command = sleep 1\ncontrol_allow = @no-such-group");
    let said = client(&stage, &[], &["check", "-c", "config.ini"]);
    assert_eq!(said.code, 6);
    assert!(said.stderr.contains("there is no group \"no-such-group\""), "{}", said.stderr);
}

/// With the socket and without a client the master makes no system call; with one that watches neither.
#[test]
fn an_idle_master_with_a_control_socket_does_not_wake() {
    let stage = ph();
    let master = master_of(&stage, 2, "");
    is_answered(&stage);
    let watched = {
        let mut watcher = connect(&stage.path("ph.sock"));
        watcher.write_all(b"{\"version\":1,\"request\":\"watch\"}\n").expect("a request");
        watcher.read_exact(&mut [0; 10]).expect("an answer");
        watcher
    };
    let is_still = || {
        let_pass(Duration::from_secs(1));
        let before = master.process.context_switches();
        let_pass(Duration::from_secs(3));
        assert_eq!(master.process.context_switches(), before);
    };
    is_still();
    drop(watched);
    is_still();
    assert_eq!(master.stop(), 0);
}
