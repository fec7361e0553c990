//! `msgpack_rpc` as its clients have it: over TCP and over a Unix socket, with rmp-serde.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use rmp_serde::decode;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::deaths::address;
use crate::support::{Master, Stage, let_pass, tell, timed};

/// The configuration as people read it.
const CONFIGURATION: &str = include_str!("../../conf/msgpack_rpc.ini");

const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

const NOTHING: [u8; 0] = [];

/// A client that keeps its connection.
struct Client<S> {
    stream: S,
    last: u32,
}

#[derive(Debug, Deserialize)]
struct Stats {
    pid: i32,
    slot: u32,
    generation: u32,
    requests: u64,
}

/// What a request comes back with: its result, or the server's error.
type Outcome<T> = Result<T, String>;

impl Client<TcpStream> {
    fn tcp(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a listener");
        stream.set_read_timeout(PATIENCE).expect("a timeout");
        Self { stream, last: 0 }
    }
}

impl<S: Read + Write> Client<S> {
    fn send(&mut self, method: &str, params: impl Serialize) -> u32 {
        self.try_send(method, params).expect("a request")
    }

    fn try_send(&mut self, method: &str, params: impl Serialize) -> io::Result<u32> {
        self.last += 1;
        let request = rmp_serde::to_vec(&(0, self.last, method, params)).expect("a request");
        self.stream.write_all(&request).map(|()| self.last)
    }

    fn notify(&mut self, method: &str, params: impl Serialize) {
        let message = rmp_serde::to_vec(&(2, method, params)).expect("a notification");
        self.stream.write_all(&message).expect("a notification");
    }

    /// The next answer; `None` if the connection has ended, in order, before its first byte.
    fn receive<T: DeserializeOwned>(&mut self) -> Option<(u32, Outcome<T>)> {
        let (kind, id, error, result): (u8, u32, Option<String>, Option<T>) =
            match decode::from_read(&mut self.stream) {
                Ok(answer) => answer,
                Err(decode::Error::InvalidMarkerRead(error))
                    if error.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    return None;
                }
                Err(error) => panic!("no answer and no end: {error}"),
            };
        assert_eq!(kind, 1);
        Some((id, error.map_or_else(|| Ok(result.expect("a result")), Err)))
    }

    fn call<T: DeserializeOwned>(&mut self, method: &str, params: impl Serialize) -> Outcome<T> {
        let sent = self.send(method, params);
        let (id, outcome) = self.receive().expect("an answer");
        assert_eq!(id, sent);
        outcome
    }

    fn stats(&mut self) -> Stats {
        self.call("stats", NOTHING).expect("the stats")
    }

    fn wait_end(&mut self) {
        assert!(self.receive::<IgnoredAny>().is_none(), "an answer and not an end");
    }
}

fn start(workers: usize, settings: &[&str]) -> (Stage, Master, String) {
    let stage = Stage::of(env!("CARGO_BIN_EXE_msgpack_rpc"), "msgpack_rpc");
    std::fs::write(stage.path("config.ini"), CONFIGURATION).expect("the configuration");
    let socket = stage.path("rpc.sock");
    let bind = format!("bind=127.0.0.1:0,unix:{}", socket.display());
    let number = format!("number_workers={workers}");
    let common = ["log_file=ph.log", "pidfile=ph.pid", "min_uptime=100ms", &bind, &number];
    let master = stage.start(&[&common, settings].concat());
    stage.log().wait_ready(workers);
    let address = address(&stage.log());
    (stage, master, address)
}

fn check_methods(client: &mut Client<impl Read + Write>) {
    assert_eq!(client.call("add", (40, 2)), Ok(42));
    assert_eq!(client.call("add", (-3, i64::MAX)), Ok(i64::MAX - 3));
    let nested = ("text", vec![1.5, -2.5], Some(vec![true]), None::<u8>);
    type Nested = (String, Vec<f64>, Option<Vec<bool>>, Option<u8>);
    let echoed = client.call::<Nested>("echo", (nested.clone(),)).expect("an echo");
    assert_eq!((echoed.0.as_str(), echoed.1, echoed.2, echoed.3), nested);
    // Several at once are answered in their order.
    let sent =
        [client.send("add", (1, 1)), client.send("sleep", (50,)), client.send("add", (2, 2))];
    let received = sent.map(|_| client.receive::<u32>().expect("an answer"));
    assert_eq!(received, [(sent[0], Ok(2)), (sent[1], Ok(50)), (sent[2], Ok(4))]);
    for (method, error) in [("subtract", "there is no method"), ("add", "add wants two integers")] {
        let refused = client.call::<IgnoredAny>(method, ("one",)).map(|_| ());
        assert!(refused.as_ref().is_err_and(|text| text.starts_with(error)), "{refused:?}");
    }
    let refused = client.call::<i64>("add", (i64::MAX, 1)).expect_err("too much");
    assert!(refused.contains("more than 64 bits"), "{refused}");
    // Nobody answers a notification, not even one that came to nothing; but it is a request.
    let before = client.stats();
    client.notify("add", (1, 2));
    client.notify("subtract", (1, 2));
    let after = client.stats();
    assert_eq!((after.requests, after.pid), (before.requests + 3, before.pid));
    assert_eq!(after.generation, 1);
    assert!(after.slot < 2);
}

#[test]
fn every_method_is_answered_over_tcp_and_unix_sockets() {
    let (stage, master, address) = start(2, &[]);
    let mut tcp = Client::tcp(&address);
    let stream = UnixStream::connect(stage.path("rpc.sock")).expect("a listener");
    stream.set_read_timeout(PATIENCE).expect("a timeout");
    let mut unix = Client { stream, last: 0 };
    check_methods(&mut tcp);
    check_methods(&mut unix);
    assert_ne!(tcp.stats().pid, unix.stats().pid, "each worker has one client");
    assert_eq!(stage.log().with("the notification subtract came to nothing").len(), 2);
    drop((tcp, unix));
    assert_eq!(master.stop(), 0);
}

#[test]
fn bad_bytes_close_their_connection_with_a_line_and_nothing_else() {
    let (stage, master, address) = start(1, &[]);
    let before = Client::tcp(&address).stats().pid;
    let bad: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0xc1], &[0x91; 4096], &[0x93, 7, 0xa1, 97, 0x90]];
    for (number, bytes) in (1..).zip(bad) {
        let mut client = Client::tcp(&address);
        assert_eq!(client.call("add", (1, number)), Ok(number + 1));
        client.stream.write_all(bytes).expect("bad bytes");
        client.wait_end();
        stage.log().wait_for_count("is closed: ", usize::try_from(number).expect("a number"));
    }
    assert_eq!(Client::tcp(&address).stats().pid, before);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_kept_connection_keeps_its_worker_alive_and_holds_up_no_stop() {
    let (stage, master, address) = start(2, &["timeout=2"]);
    let (mut idle, mut busy) = (Client::tcp(&address), Client::tcp(&address));
    let worker = idle.stats().pid;
    assert_eq!(busy.call("sleep", (5000,)), Ok(5000));
    assert_eq!(idle.stats().pid, worker, "who waits for its client is not stuck");
    busy.send("sleep", (1500,));
    let_pass(Duration::from_millis(500));
    let (code, took) = timed(|| {
        master.send(Signal::SIGTERM);
        idle.wait_end();
        assert_eq!(busy.receive(), Some((2, Ok(1500))), "it is finished");
        busy.wait_end();
        drop((idle, busy));
        master.wait()
    });
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(stage.log().with("killing").is_empty());
    assert!(stage.log().with("is stuck").is_empty());
}

/// A worker has one client at a time, so one that says nothing must not keep it for good.
#[test]
fn a_silent_client_makes_room_for_the_next_and_half_a_message_too() {
    let (_stage, master, address) = start(1, &["app_idle=1"]);
    let mut silent = Client::tcp(&address);
    assert_eq!(silent.call("add", (1, 1)), Ok(2));
    let mut next = Client::tcp(&address);
    assert_eq!(next.call("add", (1, 2)), Ok(3));
    silent.wait_end();
    next.stream.write_all(&[0x94, 0]).expect("half a message");
    assert_eq!(Client::tcp(&address).call("add", (1, 3)), Ok(4));
    next.wait_end();
    assert_eq!(master.stop(), 0);
}

/// What a client in a loop has met: answers, and connections.
fn load(address: &str, is_over: &AtomicBool) -> (u32, u32) {
    let (mut answers, mut connections) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        let mut client = Client::tcp(address);
        connections += 1;
        while !is_over.load(Ordering::Relaxed) {
            // Not sent, or not answered: it was not begun, and is sent again.
            if client.try_send("add", (answers, 1)).is_err() {
                break;
            }
            let Some((_, sum)) = client.receive() else { break };
            assert_eq!(sum, Ok(answers + 1));
            answers += 1;
            let_pass(Duration::from_millis(2));
        }
    }
    (answers, connections)
}

#[test]
fn clients_that_keep_their_connections_notice_an_end_at_a_reload_and_no_reset() {
    let (stage, master, address) = start(4, &[]);
    let is_over = AtomicBool::new(false);
    let met = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| load(&address, &is_over))).collect();
        for reload in 1..=3 {
            master.send(Signal::SIGHUP);
            stage.log().wait_for_count("all workers are of generation", reload);
        }
        master.wait_workers(4);
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("no reset")).collect::<Vec<_>>()
    });
    let answers: u32 = met.iter().map(|(answers, _)| answers).sum();
    let connections: u32 = met.iter().map(|(_, connections)| connections).sum();
    tell(&format!("{answers} answers over 3 reloads and {connections} connections, no reset"));
    assert!(answers > 100 && connections > 8, "{answers} {connections}");
    assert_eq!(master.stop(), 0);
}
