//! `rest_api` as its clients have it: over HTTP/1.1, kept alive, by hyper's client.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Channel, Either, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::deaths::address;
use crate::support::{Master, Stage, tell};

/// The configuration as people read it.
const CONFIGURATION: &str = include_str!("../../conf/rest_api.ini");

const PATIENCE: Duration = Duration::from_secs(60);

type Body = Either<Full<Bytes>, Channel<Bytes>>;

/// A kept-alive connection.
struct Client {
    requests: SendRequest<Body>,
    /// How it ended: an error for a reset.
    end: JoinHandle<hyper::Result<()>>,
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    is_last: bool,
    text: String,
}

impl Client {
    async fn to(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("a listener");
        let (requests, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
        Self { requests, end: tokio::spawn(connection) }
    }

    async fn send(&mut self, request: Request<Body>) -> hyper::Result<Answer> {
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await?;
        let status = response.status();
        let close = response.headers().get("connection");
        let is_last = close.is_some_and(|value| value == "close");
        let text = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, is_last, text: String::from_utf8_lossy(&text).into_owned() })
    }

    async fn ask(&mut self, method: Method, path: &str, text: &str) -> Answer {
        self.send(request(method, path, text)).await.expect("an answer")
    }

    /// The server has closed it, in order.
    async fn wait_end(self) {
        let ended = timeout(PATIENCE, self.end).await.expect("an end").expect("the connection");
        // To hyper's client an end before the first answer is none in order, if it is a plain one.
        assert!(ended.as_ref().err().is_none_or(hyper::Error::is_incomplete_message), "{ended:?}");
    }
}

fn request(method: Method, path: &str, text: &str) -> Request<Body> {
    let body = Either::Left(Full::new(Bytes::from(text.to_owned())));
    let builder = Request::builder().method(method).uri(path).header("host", "notes");
    builder.body(body).expect("a request")
}

fn start(settings: &[&str]) -> (Stage, Master, String) {
    let stage = Stage::of(env!("CARGO_BIN_EXE_rest_api"), "rest_api");
    std::fs::write(stage.path("config.ini"), CONFIGURATION).expect("the configuration");
    // On a busy machine a second is soon over.
    let common = [
        "app_last_request=5",
        "bind=127.0.0.1:0",
        "log_file=ph.log",
        "pidfile=ph.pid",
        "min_uptime=100ms",
    ];
    let master = stage.start(&[&common, settings].concat());
    stage.log().wait_ready(2);
    let address = address(&stage.log());
    (stage, master, address)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

fn number(stats: &str, key: &str) -> u64 {
    let stats: serde_json::Value = serde_json::from_str(stats).expect("JSON");
    stats[key].as_u64().unwrap_or_else(|| panic!("{key} in {stats}"))
}

/// However many connections wait to be told of a stop, that takes one descriptor.
#[test]
fn a_connection_is_one_descriptor() {
    const CLIENTS: usize = 200;
    let (_stage, master, address) = start(&[]);
    let workers = master.wait_workers(2);
    let descriptors =
        || workers.iter().map(|worker| worker.process.descriptors().len()).sum::<usize>();
    let idle = descriptors();
    run(async {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = Client::to(&address).await;
            client.ask(Method::GET, "/stats", "").await;
            clients.push(client);
        }
        let busy = descriptors();
        assert!((CLIENTS..CLIENTS + 10).contains(&(busy - idle)), "{idle}, then {busy}");
        master.send(Signal::SIGTERM);
        for client in clients {
            client.wait_end().await;
        }
    });
    assert_eq!(master.wait(), 0);
}

#[test]
fn a_note_is_the_same_whichever_worker_answers() {
    let (stage, master, address) = start(&[]);
    run(async {
        let mut clients = Vec::new();
        let mut slots = BTreeSet::new();
        while slots.len() < 2 {
            assert!(clients.len() < 200, "one worker takes all: {slots:?}");
            let mut client = Client::to(&address).await;
            let stats = client.ask(Method::GET, "/stats", "").await;
            slots.insert(number(&stats.text, "slot"));
            assert_eq!(number(&stats.text, "generation"), 1);
            clients.push(client);
        }
        let mut one = clients.pop().expect("a client");
        let other = &mut clients[0];
        let put = one.ask(Method::PUT, "/notes/a-1", "first").await;
        assert_eq!((put.status, put.is_last), (StatusCode::NO_CONTENT, false));
        let read = other.ask(Method::GET, "/notes/a-1", "").await;
        assert_eq!((read.status, read.text.as_str()), (StatusCode::OK, "first"));
        for (path, status) in
            [("/notes/a-1", StatusCode::PRECONDITION_FAILED), ("/notes/b", StatusCode::NO_CONTENT)]
        {
            let mut new = request(Method::PUT, path, "second");
            new.headers_mut().insert("if-none-match", "*".parse().expect("a value"));
            assert_eq!(other.send(new).await.expect("an answer").status, status, "{path}");
        }
        let list = one.ask(Method::GET, "/notes", "").await;
        assert_eq!(list.text, r#"{"more":false,"notes":["a-1","b"]}"#);
        let removed = one.ask(Method::DELETE, "/notes/a-1", "").await;
        assert_eq!(removed.status, StatusCode::NO_CONTENT);
        for (method, path, text, status) in [
            (Method::GET, "/notes/a-1", "", StatusCode::NOT_FOUND),
            (Method::DELETE, "/notes/a-1", "", StatusCode::NOT_FOUND),
            (Method::PUT, "/notes/..%2Fb", "", StatusCode::BAD_REQUEST),
            (Method::POST, "/notes/b", "", StatusCode::METHOD_NOT_ALLOWED),
            (Method::GET, "/healthz", "", StatusCode::OK),
        ] {
            assert_eq!(other.ask(method, path, text).await.status, status, "{path}");
        }
        let long = "x".repeat(65 * 1024);
        let refused = Client::to(&address).await.ask(Method::PUT, "/notes/long", &long).await;
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    });
    let files: Vec<_> = std::fs::read_dir(stage.path("notes")).expect("notes").collect();
    assert_eq!(files.len(), 1, "no draft is left: {files:?}");
    assert_eq!(master.stop(), 0);
}

/// What a client in a loop has met: answers, and of these the last ones of their connections.
async fn load(address: &str, is_over: &AtomicBool) -> (u64, u64) {
    let (mut answers, mut last) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        let mut client = Client::to(address).await;
        loop {
            let answer = client.ask(Method::GET, "/stats", "").await;
            assert_eq!(answer.status, StatusCode::OK);
            answers += 1;
            if answer.is_last {
                last += 1;
                client.wait_end().await;
                break;
            }
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
    (answers, last)
}

#[test]
fn eight_kept_alive_clients_notice_nothing_of_three_reloads() {
    let (stage, master, address) = start(&[]);
    let is_over = AtomicBool::new(false);
    let met = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..8).map(|_| scope.spawn(|| run(load(&address, &is_over)))).collect();
        for reload in 1..=3 {
            master.send(Signal::SIGHUP);
            stage.log().wait_for_count("all workers are of generation", reload);
        }
        // The workers of the last one but one say goodbye to their clients.
        master.wait_workers(2);
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("no failure")).collect::<Vec<_>>()
    });
    let answers: u64 = met.iter().map(|(answers, _)| answers).sum();
    let last: u64 = met.iter().map(|(_, last)| last).sum();
    tell(&format!("{answers} answers over 3 reloads, {last} with Connection: close, none failed"));
    assert!(answers > 100 && last >= 8, "{answers} {last}");
    assert_eq!(master.stop(), 0);
}

#[test]
fn at_a_stop_the_last_answers_say_close_and_no_connection_is_reset() {
    let (stage, master, address) = start(&[]);
    run(async {
        let mut between = Client::to(&address).await;
        assert!(!between.ask(Method::GET, "/stats", "").await.is_last);
        let mut idle = Client::to(&address).await;
        assert!(!idle.ask(Method::GET, "/stats", "").await.is_last);
        let fresh = Client::to(&address).await;
        let mut within = Client::to(&address).await;
        assert!(!within.ask(Method::GET, "/stats", "").await.is_last);
        let (mut body, channel) = Channel::new(1);
        let mut half = request(Method::PUT, "/notes/half", "");
        *half.body_mut() = Either::Right(channel);
        let answer = tokio::spawn(async move { (within.send(half).await, within) });
        body.send_data(Bytes::from_static(b"one ")).await.expect("half a body");
        sleep(Duration::from_millis(300)).await;

        master.send(Signal::SIGTERM);
        stage.log().wait_for("stopping");
        let health = between.ask(Method::GET, "/healthz", "").await;
        assert_eq!((health.status, health.is_last), (StatusCode::SERVICE_UNAVAILABLE, true));
        between.wait_end().await;
        idle.wait_end().await;
        fresh.wait_end().await;
        body.send_data(Bytes::from_static(b"two")).await.expect("the other half");
        drop(body);
        let (answer, within) = answer.await.expect("an answer");
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.is_last), (StatusCode::NO_CONTENT, true));
        within.wait_end().await;
    });
    assert_eq!(master.wait(), 0);
    assert_eq!(stage.read("notes/half"), "one two");
    assert!(stage.log().with("killing").is_empty());
}

/// One that never ends its request does not hold up the stop.
#[test]
fn a_client_that_sends_half_a_request_is_given_up() {
    let (stage, master, address) = start(&["app_patience=1"]);
    run(async {
        let mut client = Client::to(&address).await;
        let (mut body, channel) = Channel::new(1);
        let mut half = request(Method::PUT, "/notes/half", "");
        *half.body_mut() = Either::Right(channel);
        body.send_data(Bytes::from_static(b"one ")).await.expect("half a body");
        let answer = client.send(half).await.expect("an answer");
        assert_eq!((answer.status, answer.is_last), (StatusCode::REQUEST_TIMEOUT, true));
    });
    assert!(!stage.path("notes/half").exists());
    assert_eq!(master.stop(), 0);
}
