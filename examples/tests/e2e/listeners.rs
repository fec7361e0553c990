//! Listening sockets: shared by all workers, kept while workers come and go, gone at the end.

use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;

use crate::deaths::address;
use crate::misbehave;
use crate::support::{Client, Worker};

/// A worker of the class `sync` serves one client at a time, so as many clients as workers meet
/// each of them.
#[test]
fn all_workers_serve_tcp_and_unix_clients_and_a_death_drops_one_client_only() {
    let stage = misbehave();
    let socket = stage.path("app.sock");
    let unix = format!("bind=127.0.0.1:0,unix:{}", socket.display());
    let master = stage.start(&["number_workers=3", &unix]);
    stage.log().wait_ready(3);
    let address = address(&stage.log());
    let metadata = std::fs::metadata(&socket).expect("the socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let mut clients = [Client::tcp(&address), Client::unix(&socket), Client::tcp(&address)];
    let mut served: Vec<_> =
        clients.iter().map(|client| Worker { slot: client.slot, process: client.worker }).collect();
    served.sort();
    assert_eq!(served, master.workers());
    let [first, second, third] = &mut clients;
    second.worker.send(Signal::SIGKILL);
    assert_eq!(second.ask("ok"), None, "the connection died with its worker");
    assert_eq!(first.ask("write:1"), Some(vec![]));
    assert_eq!(third.ask("write:1"), Some(vec![]));
    // The others are busy, so it is the successor who answers.
    let mut fourth = Client::unix(&socket);
    assert_eq!(fourth.slot, second.slot);
    assert_eq!(fourth.ask("write:1"), Some(vec![]));
    drop((clients, fourth));
    assert_eq!(master.stop(), 0);
    assert!(!socket.exists());
    assert!(std::net::TcpStream::connect(&address).is_err());
}

#[test]
fn a_stale_socket_is_replaced() {
    let stage = misbehave();
    let socket = stage.path("app.sock");
    drop(UnixListener::bind(&socket).expect("a socket"));
    let master = stage.start(&["unix_socket=app.sock"]);
    stage.log().wait_ready(1);
    Client::unix(&socket);
    assert_eq!(master.stop(), 0);
    assert!(!socket.exists());
}

#[test]
fn a_live_socket_or_a_file_in_its_place_is_kept_and_named() {
    let stage = misbehave();
    let socket = stage.path("live");
    let live = UnixListener::bind(&socket).expect("a socket");
    let (code, stderr) = stage.start(&["unix_socket=live"]).wait_with_stderr();
    assert_eq!(code, 1);
    assert!(stderr.contains("live: Address already in use"), "{stderr}");
    assert!(stderr.contains("set by --set unix_socket"), "{stderr}");
    std::fs::write(stage.path("file"), "precious").expect("a file");
    let (code, stderr) = stage.start(&["unix_socket=file"]).wait_with_stderr();
    assert_eq!(code, 1);
    assert!(stderr.contains("not a socket"), "{stderr}");
    assert_eq!(stage.read("file"), "precious");
    assert!(live.local_addr().is_ok() && socket.exists());
    assert!(stage.log().with("is ready").is_empty());
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_started() {
    let stage = misbehave();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let (code, stderr) = stage.start(&[&format!("bind={address}")]).wait_with_stderr();
    assert_eq!(code, 1);
    assert!(stderr.contains(&address.to_string()), "{stderr}");
    assert!(stderr.contains("Address already in use"), "{stderr}");
    assert!(stage.log().with("master started").is_empty());
    assert_eq!(stage.files(), ["ph.log"]);
}

/// While every worker is dead the kernel queues, and the successor serves what was queued.
#[test]
fn a_connection_made_while_no_worker_lives_is_served_by_the_next() {
    let stage = misbehave();
    let master = stage.start(&["bind=127.0.0.1:0"]);
    stage.log().wait_ready(1);
    let address = address(&stage.log());
    let worker = master.wait_workers(1)[0];
    master.send(Signal::SIGSTOP);
    worker.process.send(Signal::SIGKILL);
    let client = std::thread::spawn(move || Client::tcp(&address).worker);
    master.send(Signal::SIGCONT);
    let served_by = client.join().expect("an answer");
    assert_eq!(master.wait_replaced(worker).process, served_by);
    assert_eq!(master.stop(), 0);
}
