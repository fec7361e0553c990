//! What commands say of themselves by `sd_notify`, who is believed, and what the service manager above
//! the master is told. The workers are small Python programs, as users write them.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::manager::Manager;
use crate::ph;
use crate::support::{
    Master, Stage, WITHOUT_CGROUPS, Worker, eventually, let_pass, require, timed,
};

/// What every worker here begins with.
const PRELUDE: &str = r#"
import os, signal, socket, subprocess, sys, time

def notify(text, to=None, fds=()):
    to = to or os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect("\0" + to[1:] if to[0] == "@" else to)
        if fds:
            socket.send_fds(s, [text.encode()], fds)
        else:
            s.send(text.encode())

def wait(name):
    while not os.path.exists(name):
        time.sleep(0.01)

slot = os.environ["PH_SLOT"]
"#;

/// Starts a service whose workers run this.
fn run(stage: &Stage, lines: &str, program: &str) -> Master {
    run_through(&[], stage, lines, program)
}

/// The same where there is another world around the master.
fn run_through(wrapper: &[&str], stage: &Stage, lines: &str, program: &str) -> Master {
    require(&["python3"]);
    std::fs::write(stage.path("worker.py"), format!("{PRELUDE}{program}")).expect("a program");
    let command = "command = python3 worker.py\nmin_uptime = 0.1\nlog_level = debug";
    stage.configure(&format!("{command}\n{lines}"));
    stage.launch(wrapper, &["run", "-c", "config.ini"])
}

fn touch(stage: &Stage, name: &str) {
    std::fs::write(stage.path(name), "").expect("a file");
}

fn address_of(worker: Worker) -> String {
    // It is there once the program was executed.
    eventually("its address", || worker.process.environment().remove("NOTIFY_SOCKET"))
}

fn send(address: &str, text: &str) -> std::io::Result<()> {
    let name = address.strip_prefix('@').expect("an abstract name");
    let to = SocketAddr::from_abstract_name(name.as_bytes())?;
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &to).map(drop)
}

/// Sends from a process of its own, of this user, which has ended when this returns.
fn send_and_end(user: u32, address: &str, text: &str) {
    let code = "import os, socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
                os.setresuid(*[int(sys.argv[3])] * 3); \
                s.sendto(sys.argv[2].encode(), '\\0' + sys.argv[1][1:])";
    let mut command = Command::new("python3");
    command.args(["-c", code, address, text, &user.to_string()]).stdin(Stdio::null());
    assert!(command.status().expect("python3").success());
}

#[test]
fn a_command_is_ready_when_it_says_so_and_the_manager_is_told_when_all_are() {
    let mut stage = ph();
    let manager = Manager::at(&mut stage, "manager");
    let program = "wait('go.' + slot)\nnotify('READY=1\\nSTATUS=at work')\nsignal.pause()";
    let master = run(&stage, "ready = notify\nnumber_workers = 2", program);
    master.wait_workers(2);
    assert_eq!(manager.next(), "STATUS=0/2 ready\n");
    // Longer than `min_uptime`, which would be enough without `notify`.
    let_pass(Duration::from_secs(1));
    assert!(stage.log().with("is ready").is_empty());
    touch(&stage, "go.0");
    stage.log().wait_ready(1);
    assert_eq!(manager.next(), "STATUS=1/2 ready\n");
    touch(&stage, "go.1");
    let wanted = format!("READY=1\nMAINPID={}\nSTATUS=2/2 ready\n", master.process.0);
    assert_eq!(manager.next(), wanted);
    stage.log().wait_for("says: at work");
    assert!(manager.is_silent());
    assert_eq!(master.stop(), 0);
    assert_eq!(manager.next(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000\nSTATUS=stopping\n");
    assert!(manager.is_silent());
}

#[test]
fn a_manager_at_an_abstract_address_hears_of_a_crash_loop() {
    let mut stage = ph();
    let name = format!("ph-e2e/{}", stage.folder().display());
    stage.variable("NOTIFY_SOCKET", &format!("@{name}"));
    let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("a name");
    let manager = Manager(UnixDatagram::bind_addr(&address).expect("a socket"));
    stage.expect_error("is in a crash loop");
    let lines = "ready = notify\nnumber_workers = 2\nbackoff_min = 0.01\nbackoff_max = 0.05";
    let program = "if slot == '1': sys.exit(1)\nnotify('READY=1')\nsignal.pause()";
    let master = run(&stage, lines, program);
    let all = manager.until("crash loop");
    assert!(all.iter().all(|message| !message.contains("READY=1")), "{all:?}");
    assert!(all.last().is_some_and(|last| last.ends_with("/2 ready, crash loop in slot 1\n")));
    assert_eq!(master.stop(), 0);
    manager.until("STOPPING=1");
}

#[test]
fn a_command_that_never_says_so_is_aborted_after_its_boot_timeout() {
    let stage = ph();
    stage.expect_error("did not boot in time");
    let master = run(&stage, "ready = notify\nboot_timeout = 2", "signal.pause()");
    stage.log().wait_ends(0, "was ended by SIGABRT", 1);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_command_whose_watchdog_falls_silent_is_stuck() {
    let stage = ph();
    stage.expect_error("is stuck");
    let program = "while not os.path.exists('hang'):\n    notify('WATCHDOG=1')\n    \
                   time.sleep(0.1)\nsignal.pause()";
    let master = run(&stage, "timeout = 2", program);
    stage.log().wait_ready(1);
    let worker = master.wait_workers(1)[0];
    let environment = worker.process.environment();
    assert_eq!(environment["WATCHDOG_USEC"], "2000000");
    assert_eq!(environment["WATCHDOG_PID"], worker.process.0.to_string());
    let_pass(Duration::from_secs(4));
    assert!(worker.process.is_alive() && stage.log().with("is stuck").is_empty());
    touch(&stage, "hang");
    stage.log().wait_ends(0, "was ended by SIGABRT", 1);
    std::fs::remove_file(stage.path("hang")).expect("the file");
    master.wait_replaced(worker);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_command_that_never_beats_is_never_judged_and_nobody_wakes_for_it() {
    let mut stage = ph();
    let manager = Manager::at(&mut stage, "manager");
    let lines = "timeout = 1\nready = notify\nnumber_workers = 5";
    let master = run(&stage, lines, "notify('READY=1')\nsignal.pause()");
    manager.until("READY=1");
    let_pass(Duration::from_secs(1));
    let before = master.process.context_switches();
    let_pass(Duration::from_secs(3));
    assert_eq!(master.process.context_switches(), before);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_master_that_was_stopped_condemns_nobody_whose_beats_it_has_not_read() {
    let stage = ph();
    let program = "while True:\n    notify('WATCHDOG=1')\n    time.sleep(0.1)";
    let master = run(&stage, "timeout = 1", program);
    stage.log().wait_ready(1);
    let worker = master.wait_workers(1)[0];
    for _ in 0..3 {
        master.send(Signal::SIGSTOP);
        let_pass(Duration::from_millis(1500));
        master.send(Signal::SIGCONT);
        let_pass(Duration::from_millis(300));
    }
    assert!(worker.process.is_alive() && stage.log().with("is stuck").is_empty());
    assert_eq!(master.stop(), 0);
}

/// The sender may be any process of the tree, also one that has begun a session of its own, and one that
/// is gone.
#[test]
fn anybody_of_the_tree_may_speak_for_the_worker() {
    let who = [
        ("a child", "subprocess.Popen([sys.executable, 'say.py'])"),
        ("a session", "subprocess.Popen([sys.executable, 'say.py'], start_new_session=True)"),
        ("one that is gone", "subprocess.run([sys.executable, 'say.py', 'end'])"),
    ];
    // A cgroup tells who is in the tree, or the mark.
    let worlds = [&[][..], &WITHOUT_CGROUPS];
    for ((how, start), world) in who.into_iter().flat_map(|one| worlds.map(|it| (one, it))) {
        let stage = ph();
        let say = "notify('READY=1\\nSTATUS=here I am')\nif len(sys.argv) == 1: signal.pause()";
        std::fs::write(stage.path("say.py"), format!("{PRELUDE}{say}")).expect("a program");
        let master =
            run_through(world, &stage, "ready = notify", &format!("{start}\nsignal.pause()"));
        stage.log().wait_ready(1);
        stage.log().wait_for("says: here I am");
        assert!(stage.log().with("none of it").is_empty(), "{how}");
        assert_eq!(master.stop(), 0);
    }
}

/// As shell scripts have it: a process that says one thing and ends, for root in the name of its parent. It
/// waits until it was heard, unless told not to.
#[test]
fn a_script_is_ready_when_systemd_notify_has_said_so() {
    require(&["systemd-notify"]);
    let users = ["", "user = 65534:65534\ndirectory = /"];
    let waits = ["", "--no-block"];
    let ways = users.into_iter().flat_map(|user| waits.map(|wait| (user, wait)));
    for ((user, wait), world) in ways.flat_map(|way| [(way, &[][..]), (way, &WITHOUT_CGROUPS)]) {
        let stage = ph();
        stage.configure(&format!(
            "command = sh -c \"sleep 1; systemd-notify {wait} --ready --status='at work'; \
             exec sleep 1000\"\nready = notify\nmin_uptime = 0.1\nlog_level = debug\n{user}"
        ));
        let master = stage.launch(world, &["run", "-c", "config.ini"]);
        stage.log().wait_ready(1);
        stage.log().wait_for("says: at work");
        assert!(stage.log().with("none of it").is_empty(), "{user} {wait}");
        assert_eq!(master.stop(), 0);
    }
}

/// A beat of somebody who is gone does not count, so that it waits until it was heard matters here.
#[test]
fn a_script_beats_by_systemd_notify_and_is_stuck_without() {
    require(&["systemd-notify"]);
    for user in ["", "\nuser = 65534:65534"] {
        let stage = ph();
        stage.expect_error("is stuck");
        let hang = stage.path("hang");
        let script = "systemd-notify --ready; while [ ! -e \"$1\" ]; do systemd-notify WATCHDOG=1; \
                      sleep 0.2; done; exec sleep 1000";
        std::fs::write(stage.path("worker.sh"), script).expect("a script");
        open_to_all(&stage);
        stage.configure(&format!(
            "command = sh {} {}\ndirectory = /\nready = notify\nmin_uptime = 0.1\ntimeout = 3{user}",
            stage.path("worker.sh").display(),
            hang.display(),
        ));
        let master = stage.launch(&[], &["run", "-c", "config.ini"]);
        stage.log().wait_ready(1);
        let worker = master.wait_workers(1)[0];
        let_pass(Duration::from_secs(6));
        assert!(worker.process.is_alive() && stage.log().with("is stuck").is_empty(), "{user}");
        std::fs::write(&hang, "").expect("a file");
        stage.log().wait_ends(0, "was ended by SIGABRT", 1);
        std::fs::remove_file(&hang).expect("the file");
        master.wait_replaced(worker);
        assert_eq!(master.stop(), 0);
    }
}

/// Other users may go into the stage's folder.
fn open_to_all(stage: &Stage) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(stage.folder(), mode).expect("permissions");
}

/// Names are public, so anybody may try.
#[test]
fn fault_78_nobody_else_may() {
    for world in [&[][..], &WITHOUT_CGROUPS] {
        nobody_else_may(world);
    }
}

fn nobody_else_may(world: &[&str]) {
    let stage = ph();
    let program = "if slot == '1':\n    wait('target')\n    \
                   notify('READY=1\\nREQUESTS=9', open('target').read())\n    \
                   notify('READY=1')\nsignal.pause()";
    let lines = "ready = notify\nnumber_workers = 2\nmax_requests = 5";
    let master = run_through(world, &stage, lines, program);
    let workers = master.wait_workers(2);
    let address = address_of(workers[0]);
    // Another worker, its own tree being another.
    std::fs::write(stage.path("target.new"), &address).expect("a file");
    std::fs::rename(stage.path("target.new"), stage.path("target")).expect("the name");
    stage.log().wait_ready(1);
    let told = stage.log().with("notifies in the name of worker 0");
    assert!(told[0].message.contains(&format!("pid {} uid ", workers[1].process.0)), "{told:?}");
    // This process, which is of the same user and no worker.
    send(&address, "READY=1\nREQUESTS=9").expect("a datagram");
    // Another user, gone before anybody can ask about it.
    master.send(Signal::SIGSTOP);
    send_and_end(65534, &address, "READY=1");
    // And one of the same user that is gone, which is believed as far as it does not matter.
    send_and_end(0, &address, "REQUESTS=9\nSTOPPING=1\nWATCHDOG=1\nSTATUS=gone");
    master.send(Signal::SIGCONT);
    stage.log().wait_for("says: gone");
    assert_eq!(stage.log().with("is ready").len(), 1, "of the other worker");
    assert!(stage.log().with("served its share").is_empty());
    assert!(stage.log().with("says that it stops").is_empty());
    master.send(Signal::SIGSTOP);
    send_and_end(0, &address, "READY=1");
    master.send(Signal::SIGCONT);
    stage.log().wait_ready(2);
    assert_eq!(stage.log().with("notifies in the name of worker 0").len(), 1, "told once");
    assert_eq!(master.wait_workers(2), workers);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_main_pid_and_descriptors_are_not_taken_and_rubbish_neither() {
    let stage = ph();
    let program = "wait('go')\nread, write = os.pipe()\n\
                   for _ in range(100):\n    \
                   notify('MAINPID=1\\nFDSTORE=1\\nFDNAME=a', fds=[write] * 100)\n    \
                   notify('BARRIER=1', fds=[write])\n\
                   for rubbish in ['', '=', 'x' * 5000, 'READY=1' + 'x' * 5000]:\n    \
                   notify(rubbish)\n\
                   os.close(write)\nos.read(read, 1)\n\
                   notify('READY=1', fds=[read])\nsignal.pause()";
    let master = run(&stage, "ready = notify", program);
    let worker = master.wait_workers(1)[0];
    let before = eventually("the start is over", || {
        let is_over = !worker.process.title().starts_with("ph");
        is_over.then(|| master.process.descriptors().len())
    });
    touch(&stage, "go");
    // The end of the pipe is read only when nobody has the other one any more.
    stage.log().wait_ready(1);
    assert!(master.process.descriptors().len() <= before);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_flood_of_messages_keeps_no_stop_waiting() {
    let stage = ph();
    let program = "notify('READY=1')\n\
                   s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
                   s.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:])\n\
                   count = 0\n\
                   while True:\n    s.send(b'STATUS=flood\\nX=' + b'x' * 4000)\n    count += 1\n    \
                   if count == 100000: open('flooded.' + slot, 'w').close()";
    let master = run(&stage, "ready = notify\nnumber_workers = 2", program);
    stage.log().wait_ready(2);
    for slot in 0..2 {
        eventually("100,000 messages", || {
            stage.path(&format!("flooded.{slot}")).exists().then_some(())
        });
    }
    let (code, took) = timed(|| master.stop());
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(stage.log().with("killing").is_empty(), "each ended by the stop signal");
}

#[test]
fn nor_does_a_flood_of_strangers_keep_the_worker_from_being_heard() {
    let stage = ph();
    let master = run(&stage, "ready = notify", "wait('go')\nnotify('READY=1')\nsignal.pause()");
    let address = address_of(master.wait_workers(1)[0]);
    let code = "import os, socket, sys; os.setresuid(*[65534] * 3)\n\
                s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
                s.connect('\\0' + sys.argv[1][1:])\n\
                while True:\n    s.send(b'READY=1')";
    let mut flood = Command::new("python3");
    // It ends when nobody is there any more.
    flood.args(["-c", code, &address]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut flood = flood.spawn().expect("python3");
    stage.log().wait_for("notifies in the name of worker 0");
    let_pass(Duration::from_secs(1));
    assert!(stage.log().with("is ready").is_empty());
    touch(&stage, "go");
    stage.log().wait_ready(1);
    let (code, took) = timed(|| master.stop());
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(!flood.wait().expect("its end").success());
}

/// What counts is the user that the worker was given, not the master's.
#[test]
fn a_worker_of_another_user_is_heard() {
    require(&["perl"]);
    let stage = ph();
    stage.configure(
        "command = perl -MSocket -e 'socket(S, AF_UNIX, SOCK_DGRAM, 0); \
         $a = substr($ENV{NOTIFY_SOCKET}, 1); \
         send(S, \"READY=1\", 0, pack_sockaddr_un(\"\\0$a\")) or die $!; sleep 1000'\n\
         ready = notify\nuser = 65534:65534\ndirectory = /\nmin_uptime = 0.1",
    );
    let master = stage.launch(&[], &["run", "-c", "config.ini"]);
    stage.log().wait_ready(1);
    assert!(stage.log().with("none of it").is_empty());
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_command_is_recycled_when_it_has_reported_its_share_of_requests() {
    let stage = ph();
    let program = "for count in [1, 2, 1, 3]:\n    notify(f'REQUESTS={count}')\n\
                   wait('go.' + os.environ['PH_WORKER_ID'])\nnotify('REQUESTS=7')\nsignal.pause()";
    let master = run(&stage, "max_requests = 5", program);
    stage.log().wait_ready(1);
    let worker = master.wait_workers(1)[0];
    let_pass(Duration::from_secs(1));
    assert!(stage.log().with("served its share").is_empty());
    touch(&stage, "go.1");
    stage.log().wait_for("served its share");
    let successor = master.wait_replaced(worker);
    stage.log().wait_ends(0, "was ended by SIGTERM", 1);
    assert_eq!(master.wait_workers(1), [successor]);
    assert_eq!(master.stop(), 0);
}

#[test]
fn what_a_former_worker_still_sends_reaches_nobody() {
    let stage = ph();
    let master = run(&stage, "", "signal.pause()");
    stage.log().wait_ready(1);
    let worker = master.wait_workers(1)[0];
    let address = address_of(worker);
    worker.process.send(Signal::SIGKILL);
    let successor = master.wait_replaced(worker);
    assert_ne!(address_of(successor), address);
    let refused = send(&address, "READY=1").expect_err("nobody is there");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(master.stop(), 0);
}
