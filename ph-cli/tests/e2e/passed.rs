//! Sockets that are passed to the program when it is started, as systemd does it.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::place::Place;
use crate::support::{Stage, eventually, listening, require};

/// Opens two sockets on ports of the kernel's choice, which it writes to a file, has them at descriptors 3 and
/// 4, and becomes the program. `PASS_PID` may say another process than that.
const PASS: &str = "
import os, socket, sys
held = [socket.create_server(('127.0.0.1', 0)) for _ in range(2)]
ports = [str(it.getsockname()[1]) for it in held]
high = [os.dup(it.fileno()) for it in held]
high = [os.dup2(fd, 20 + place) for place, fd in enumerate(high)]
for place, fd in enumerate(high):
    os.dup2(fd, 3 + place, inheritable=True)
    os.close(fd)
with open('ports', 'w') as file:
    file.write(' '.join(ports))
pid = os.environ.pop('PASS_PID', str(os.getpid()))
os.environ.update(LISTEN_PID=pid, LISTEN_FDS='2', LISTEN_FDNAMES='web:admin')
os.execv(sys.argv[1], sys.argv[1:])
";

/// Says by what variables it was started, and answers with the number of the descriptor.
const SERVER: &str = "
import os, selectors, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
count = int(os.environ['LISTEN_FDS'])
assert int(os.environ['LISTEN_PID']) == os.getpid()
print('listening', count, os.environ['LISTEN_FDNAMES'], flush=True)
chosen = selectors.DefaultSelector()
for number in range(3, 3 + count):
    chosen.register(socket.socket(fileno=number), selectors.EVENT_READ)
while True:
    for key, _ in chosen.select():
        connection, _ = key.fileobj.accept()
        connection.sendall(b'%d\\n' % key.fd)
        connection.close()
";

fn ports(stage: &Stage) -> [u16; 2] {
    let text = stage.read("ports");
    let ports: Vec<_> = text.split(' ').map(|port| port.parse().expect("a port")).collect();
    ports.try_into().expect("two ports")
}

fn ask(port: u16) -> String {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a listener");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("an answer");
    line.trim_end().to_owned()
}

#[test]
fn passed_sockets_are_listened_on_by_name_and_number_over_reload_and_upgrade() {
    require(&["python3"]);
    let place = Place::new();
    let stage = &place.stage;
    stage.configure("bind = sd:web\nmin_uptime = 0.1");
    let run = ["run", "-c", "config.ini", "--", "python3", "-c", SERVER];
    let first = stage.launch(&["setsid", "python3", "-c", PASS], &run);
    stage.log().wait_for("listening 1 web");
    let [web, admin] = ports(stage);
    stage.log().wait_for(&format!("listening on tcp://127.0.0.1:{web}"));
    let unused = stage.log().wait_for("nobody accepts on descriptor 4");
    assert!(unused.level == "WARN" && unused.message.contains("sd:admin or fd:4"), "{unused:?}");
    assert_eq!(ask(web), "3");
    // One that is passed and was not listened on is there for a reload.
    stage.configure("bind = sd:web, fd:4\nmin_uptime = 0.1");
    first.send(Signal::SIGHUP);
    stage.log().wait_for("listening 2 web:web");
    eventually("the old worker's end", || (ask(admin) == "4").then_some(()));
    let second = place.upgrade();
    assert_eq!(first.wait(), 0);
    stage.log().wait_for_count("listening 2 web:web", 2);
    assert_eq!((ask(web), ask(admin)), ("3".to_owned(), "4".to_owned()));
    assert!(second.environment().keys().all(|name| !name.starts_with("LISTEN_")));
    place.stop();
    assert!(TcpStream::connect(("127.0.0.1", web)).is_err());
}

#[test]
fn what_is_not_passed_is_told_with_what_is() {
    require(&["python3"]);
    let mut stage = Stage::of(env!("CARGO_BIN_EXE_ph"), "web");
    let run = ["run", "-c", "config.ini", "--", "sleep", "1000"];
    let refused = |stage: &Stage, bind: &str| {
        stage.configure(&format!("bind = {bind}"));
        let (code, stderr) = stage.launch(&["python3", "-c", PASS], &run).wait_with_stderr();
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("set by config.ini:"), "{stderr}");
        stderr
    };
    let stderr = refused(&stage, "sd:job");
    assert!(stderr.contains("cannot listen on sd:job: no socket of that name"), "{stderr}");
    assert!(stderr.contains("there is web, admin"), "{stderr}");
    let stderr = refused(&stage, "fd:5");
    assert!(stderr.contains("no listening socket was passed as descriptor 5"), "{stderr}");
    stage.variable("PASS_PID", "1");
    let stderr = refused(&stage, "sd:web");
    assert!(stderr.contains("LISTEN_PID is 1, and this process was started as pid"), "{stderr}");
}

#[test]
fn a_start_in_the_background_keeps_what_its_caller_was_passed() {
    require(&["python3"]);
    let stage = Stage::of(env!("CARGO_BIN_EXE_ph"), "web");
    stage.configure("bind = sd:admin, fd:3\nmin_uptime = 0.1\ncommand = python3 server.py");
    std::fs::write(stage.path("server.py"), SERVER).expect("a file");
    let start = stage.launch(&["python3", "-c", PASS], &["start", "-c", "config.ini"]);
    let (code, stderr) = start.wait_with_stderr();
    assert_eq!(code, 0, "{stderr}");
    stage.log().wait_for("listening 2 admin:web");
    let [web, admin] = ports(&stage);
    assert_eq!((ask(admin), ask(web)), ("3".to_owned(), "4".to_owned()));
    assert_eq!(stage.launch(&[], &["stop", "-c", "config.ini"]).wait(), 0);
    stage.wait_empty();
}

/// A command finds the socket of its slot at descriptor 3, as it would find a shared one.
#[test]
fn commands_have_a_socket_for_each_slot_which_outlives_it_until_a_reload() {
    require(&["python3"]);
    let stage = Stage::of(env!("CARGO_BIN_EXE_ph"), "web");
    stage.configure("number_workers = 2\nbind = 127.0.0.1:0\nreuse_port = true\nmin_uptime = 0.1");
    let run = ["run", "-c", "config.ini", "--", "python3", "-c", SERVER];
    let master = stage.launch(&[], &run);
    stage.log().wait_for_count("listening 1 web", 2);
    let line = stage.log().wait_for("listening on tcp://127.0.0.1:").message;
    let port: u16 = line.rsplit(':').next().and_then(|it| it.parse().ok()).expect("a port");
    let sockets = || listening(&format!("127.0.0.1:{port}"));
    assert_eq!(sockets(), 2);
    let scaled = stage.launch(&[], &["scale", "-c", "config.ini", "web", "1"]);
    let (code, stderr) = scaled.wait_with_stderr();
    assert_eq!(code, 0, "{stderr}");
    let told = stage.read(&format!("stdout.{}", stage.starts() - 1));
    let text = "1 sockets of slots that are no more stay open until the next reload";
    assert!(told.contains(text) || stderr.contains(text), "{told} {stderr}");
    assert_eq!(sockets(), 2);
    for _ in 0..20 {
        assert_eq!(ask(port), "3", "the slot that is left answers");
    }
    master.send(Signal::SIGHUP);
    stage.log().wait_for("all workers are of generation 2");
    eventually("one socket", || (sockets() == 1).then_some(()));
    assert_eq!(ask(port), "3");
    assert_eq!(master.stop(), 0);
}
