//! `ph check` beside what is alive: masters that start, run and stop, listeners of others, and an end of its
//! own that comes too soon. Nobody notices it, and it leaves nothing behind.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ph;
use crate::support::{Stage, eventually, let_pass, require, timed};

/// Checks again and again until it is dropped.
struct Checks(Child);

impl Checks {
    fn of(stage: &Stage) -> Self {
        let program = env!("CARGO_BIN_EXE_ph");
        let mut shell = Command::new("sh");
        let script = "while :; do \"$1\" check -c config.ini; done";
        shell.args(["-c", script, "sh", program]).current_dir(stage.folder());
        Self(shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell"))
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn check(stage: &Stage, wrapper: &[&str]) -> (i32, String) {
    stage.launch(wrapper, &["check", "-c", "config.ini"]).wait_with_stderr()
}

/// A look at the lock of a service must not be a lock.
#[test]
fn a_start_is_never_refused_and_never_a_second_instance_because_of_a_check() {
    for is_single in ["true", "false"] {
        let stage = ph();
        stage.configure(&format!(
            "command = sleep 1000\nmin_uptime = 0\nsingle_instance = {is_single}"
        ));
        let _checks = [Checks::of(&stage), Checks::of(&stage)];
        for _ in 0..30 {
            // Only a lock file that is there is looked at.
            std::fs::write(stage.path("ph.lock"), "2147483647\n").expect("a lock file");
            let ready = stage.log().with("is ready after").len();
            let master = stage.start(&[]);
            stage.log().wait_ready(ready + 1);
            assert_eq!(master.stop(), 0);
        }
        assert_eq!(stage.log().with("instance 2").len(), 0);
    }
}

#[test]
fn a_service_that_starts_and_stops_is_never_taken_for_a_foreign_one() {
    let stage = ph();
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = held.local_addr().expect("an address").port();
    drop(held);
    stage.configure(&format!(
        "command = sleep 1000\nmin_uptime = 0\nbind = 127.0.0.1:{port}, unix:w.sock"
    ));
    for _ in 0..10 {
        let ready = stage.log().with("is ready after").len();
        let master = stage.start(&[]);
        let (code, stderr) = check(&stage, &[]);
        assert_eq!(code, 0, "at the start: {stderr}");
        stage.log().wait_ready(ready + 1);
        master.send(Signal::SIGTERM);
        let (code, stderr) = check(&stage, &[]);
        assert_eq!(code, 0, "at the end: {stderr}");
        assert_eq!(master.wait(), 0);
    }
}

/// Whether nobody waits to be accepted.
fn is_left_alone(listener: &UnixListener) -> bool {
    listener.set_nonblocking(true).expect("a mode");
    listener.accept().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn nobody_is_connected_to_however_the_socket_is_reached() {
    let stage = ph();
    let deep = "d".repeat(120);
    for folder in ["real", &deep] {
        std::fs::create_dir(stage.path(folder)).expect("a folder");
    }
    std::os::unix::fs::symlink("real", stage.path("link")).expect("a link");
    let foreign = UnixListener::bind(stage.path("real/a.sock")).expect("a listener");
    let opened = std::fs::File::open(stage.path(&deep)).expect("the folder");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&opened);
    let short = format!("/proc/self/fd/{fd}/a.sock");
    let foreign_deep = UnixListener::bind(short).expect("a listener");
    stage.configure(&format!("command = sleep 1\nbind = unix:link/a.sock, unix:{deep}/a.sock"));
    let (code, stderr) = check(&stage, &[]);
    assert_eq!(code, 6);
    let own = format!("pid {} (", std::process::id());
    assert_eq!(stderr.matches(&own).count(), 2, "{stderr}");
    assert!(is_left_alone(&foreign) && is_left_alone(&foreign_deep));
}

#[test]
fn an_own_socket_is_known_by_whatever_path() {
    let stage = ph();
    let deep = "d".repeat(120);
    for folder in ["real", &deep] {
        std::fs::create_dir(stage.path(folder)).expect("a folder");
    }
    std::os::unix::fs::symlink("real", stage.path("link")).expect("a link");
    let lines = "command = sleep 1000\nmin_uptime = 0";
    stage.configure(&format!("{lines}\nbind = unix:real/a.sock, unix:{deep}/a.sock"));
    let master = stage.start(&[]);
    stage.log().wait_ready(1);
    stage.configure(&format!("{lines}\nbind = unix:link/a.sock, unix:{deep}/a.sock"));
    assert_eq!(check(&stage, &[]), (0, String::new()));
    // Another instance could not have them as well.
    stage.configure(&format!(
        "{lines}\nsingle_instance = no\nbind = unix:link/a.sock, unix:{deep}/a.sock"
    ));
    let (code, stderr) = check(&stage, &[]);
    assert_eq!((code, stderr.matches("a second instance could not listen").count()), (0, 2));
    assert_eq!(master.stop(), 0);
}

/// One own listener does not excuse a foreign one beside it.
#[test]
fn a_foreign_listener_beside_an_own_one_is_told() {
    let stage = ph();
    let foreign = TcpListener::bind("127.0.0.2:0").expect("a port");
    let port = foreign.local_addr().expect("an address").port();
    let lines = "command = sleep 1000\nmin_uptime = 0";
    stage.configure(&format!("{lines}\nbind = 127.0.0.1:{port}"));
    let master = stage.start(&[]);
    stage.log().wait_ready(1);
    assert_eq!(check(&stage, &[]), (0, String::new()));
    stage.configure(&format!("{lines}\nbind = :{port}"));
    let (code, stderr) = check(&stage, &[]);
    assert_eq!(code, 6);
    assert!(stderr.contains(&format!("pid {} (", std::process::id())), "{stderr}");
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_stale_socket_is_told_of_and_stays() {
    let stage = ph();
    drop(UnixListener::bind(stage.path("a.sock")).expect("a listener"));
    stage.configure("command = sleep 1\nbind = unix:a.sock");
    let (code, stderr) = check(&stage, &[]);
    assert_eq!(code, 0);
    assert!(stderr.contains("stale or taken by a process that cannot be seen"), "{stderr}");
    std::fs::remove_file(stage.path("a.sock")).expect("the socket");
}

/// Whoever started it may have had no use for the ends of children.
#[test]
fn ignored_ends_of_children_change_nothing() {
    require(&["python3"]);
    let stage = ph();
    stage.configure("command = sleep 1000\nmin_uptime = 0");
    let ignoring = "import os, signal, sys\n\
                    signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
                    os.execv(sys.argv[1], sys.argv[1:])";
    let wrapper = ["python3", "-c", ignoring];
    let (said, took) = timed(|| check(&stage, &wrapper));
    assert_eq!(said, (0, String::new()));
    assert!(took < Duration::from_secs(5), "{took:?}");
    let master = stage.start_through(&wrapper, &[]);
    stage.log().wait_ready(1);
    assert_eq!(master.stop(), 0);
}

/// A file system whose server never answers, in a mount namespace of its own; the program goes on there.
const DEAD: &str = "import ctypes, os, sys\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    fd = os.open('/dev/fuse', os.O_RDWR)\n\
    os.set_inheritable(fd, True)\n\
    options = f'fd={fd},rootmode=40000,user_id=0,group_id=0'.encode()\n\
    assert libc.mount(b'dead', b'dead', b'fuse', 0, options) == 0, ctypes.get_errno()\n\
    os.execv(sys.argv[1], sys.argv[1:])";

#[test]
fn a_child_that_hangs_ends_with_its_parent_and_holds_nothing_open() {
    require(&["python3", "unshare"]);
    let wrapper = ["unshare", "-m", "python3", "-c", DEAD];
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let stage = ph();
        std::fs::create_dir(stage.path("dead")).expect("a folder");
        stage.configure("command = sleep 1000\ndirectory = dead/x");
        let parent = stage.launch(&wrapper, &["check", "-c", "config.ini"]);
        // Others read a file and are gone again.
        let child = eventually("a child that hangs, with /dev/null for its streams", || {
            let [child] = parent.process.children()[..] else { return None };
            let_pass(Duration::from_millis(300));
            let descriptors = child.descriptors();
            let is_null = |fd: &i32| descriptors.get(fd).is_some_and(|it| it == "/dev/null");
            (child.is_alive() && [0, 1, 2].iter().all(is_null)).then_some(child)
        });
        parent.send(signal);
        assert_eq!(parent.wait(), -(signal as i32));
        eventually("the end of the child", || (!child.is_alive()).then_some(()));
    }
}

/// What hangs is named.
#[test]
fn the_part_that_does_not_answer_is_the_one_that_is_blamed() {
    require(&["python3", "unshare"]);
    let stage = ph();
    std::fs::create_dir(stage.path("dead")).expect("a folder");
    std::fs::write(stage.path("script"), "#!dead/sh\n").expect("a script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(stage.path("script"), mode).expect("a mode");
    let wrapper = ["unshare", "-m", "python3", "-c", DEAD];
    for (lines, wanted) in [
        ("command = sleep 1000\ndirectory = dead/x", "enter the working directory"),
        ("command = ./script", "its interpreter dead/sh: Connection timed out"),
    ] {
        stage.configure(lines);
        let (code, stderr) = check(&stage, &wrapper);
        assert_eq!(code, 6);
        assert!(stderr.contains(wanted) && stderr.contains("ETIMEDOUT"), "{stderr}");
    }
}
