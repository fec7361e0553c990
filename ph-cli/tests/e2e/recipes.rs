//! Real programs, unmodified, as docs/recipes.md has them: each answers, all its workers do, a reload
//! with requests running all the time costs none, and nothing is left of it.
//!
//! What a recipe needs has to be installed: uvicorn and gunicorn are put into a venv by the tests
//! themselves, all else comes from the system, and what is missing fails the test.

mod book;
mod http;
mod venv;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use book::Service;
use http::{Seen, Unanswered, during};

use crate::support::{eventually, require, tell};

/// The workers of the web servers.
const WORKERS: usize = 2;

/// Both workers answer; two reloads bring others, and every request meanwhile is answered.
fn serves_and_reloads(service: &Service, unanswered: Unanswered) {
    let ask = |act: &mut dyn FnMut()| {
        let ((), seen) = during(service.port, unanswered, act);
        assert_eq!(seen.failures, [""; 0], "{seen:?}");
        seen
    };
    let first = all_answer(&ask);
    let during_reloads = ask(&mut || {
        for generation in 2..=3 {
            let said = service.reload();
            assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
            let wanted = format!("{WORKERS} workers are of generation {generation}");
            assert!(said.stdout.contains(&wanted), "{}", said.stdout);
        }
    });
    assert!(during_reloads.answers > 20, "{during_reloads:?}");
    let (answers, repeated) = (during_reloads.answers, during_reloads.repeated);
    tell(&format!("{answers} answers during two reloads, {repeated} at the second attempt"));
    // The old ones have ended, or refuse nobody until they have.
    eventually("only new workers", || {
        let seen = all_answer(&ask);
        seen.servers.is_disjoint(&first.servers).then_some(())
    });
    for slot in 0..WORKERS {
        let head = format!(" worker {slot} gen 3 std");
        assert!(service.stage.read("ph.log").contains(&head), "the output of slot {slot}");
    }
}

/// Asks until each worker has answered.
fn all_answer(ask: &dyn Fn(&mut dyn FnMut()) -> Seen) -> Seen {
    eventually("an answer of each worker", || {
        let seen = ask(&mut || crate::support::let_pass(Duration::from_millis(200)));
        (seen.servers.len() >= WORKERS).then_some(seen)
    })
}

/// At its stop it closes a connection on which it has not read a request yet, so a client may have to
/// ask once more.
#[test]
fn uvicorn() {
    let service = Service::start("uvicorn", WORKERS, Some(venv::path()));
    serves_and_reloads(&service, Unanswered::IsRepeated);
    service.stop();
}

/// And a version of the application that does not even load is not taken.
#[test]
fn gunicorn() {
    let service = Service::start("gunicorn", WORKERS, Some(venv::path()));
    serves_and_reloads(&service, Unanswered::Fails);
    service.stage.expect_error("reload failed");
    let app = service.stage.path("app.py");
    std::fs::write(app, "import no_such_module").expect("a bad application");
    let (said, seen) = during(service.port, Unanswered::Fails, || service.reload());
    assert_eq!(said.code, 151, "{}{}", said.stdout, said.stderr);
    assert_eq!(seen.failures, [""; 0]);
    assert!(service.stage.read("ph.log").contains("no_such_module"), "the reason is in the log");
    service.stop();
}

#[test]
fn node() {
    require(&["node"]);
    let service = Service::start("Node.js", WORKERS, None);
    serves_and_reloads(&service, Unanswered::Fails);
    service.stop();
}

#[test]
fn nginx() {
    require(&["nginx", "python3"]);
    let service = Service::start("nginx", WORKERS, None);
    serves_and_reloads(&service, Unanswered::Fails);
    // Or whoever comes second would wait in `accept`, with all its other clients.
    let children = service.master.process.children().into_iter();
    let infos: Vec<_> = children
        .filter(|child| child.title().starts_with("nginx"))
        .map(|nginx| nginx.read("fdinfo/3").expect("a listener"))
        .collect();
    assert_eq!(infos.len(), WORKERS);
    assert!(infos.iter().all(|info| is_nonblocking(info)), "{infos:?}");
    let stage = service.stop();
    let alerts = stage.log().with("[alert]");
    assert!(alerts.is_empty(), "{alerts:?}");
}

/// What the kernel says of a descriptor.
fn is_nonblocking(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok()).expect("flags");
    flags & nix::fcntl::OFlag::O_NONBLOCK.bits() != 0
}

#[test]
fn python_socket_server() {
    require(&["python3"]);
    let service = Service::start("A Python socket server", WORKERS, None);
    serves_and_reloads(&service, Unanswered::Fails);
    service.stop();
}

/// It has a port of its own, so clients wait for the one that comes; what they wrote is there.
#[test]
fn redis() {
    require(&["redis-server"]);
    let service = Service::start("redis", 1, None);
    let mut client = Redis::connect(service.port).expect("a server that says that it is ready");
    assert_eq!(client.ask("SET greeting hello"), "+OK");
    let said = service.reload();
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let mut client = Redis::connect(service.port).expect("its successor");
    assert_eq!(client.ask("GET greeting"), "$5");
    assert_eq!(client.line(), "hello");
    let ready = service.stage.log().with("Ready to accept connections");
    assert_eq!(ready.len(), 2, "{ready:?}");
    service.stop();
}

/// A client of redis.
struct Redis(BufReader<TcpStream>);

impl Redis {
    fn connect(port: u16) -> std::io::Result<Self> {
        TcpStream::connect(("127.0.0.1", port)).map(|stream| Self(BufReader::new(stream)))
    }

    /// Sends a command; gives the first line of the answer.
    fn ask(&mut self, command: &str) -> String {
        write!(self.0.get_mut(), "{command}\r\n").expect("a server");
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }
}

/// Each job that was begun is done, whatever comes.
#[test]
fn shell_loop() {
    let service = Service::start("A shell loop", 2, None);
    let said = service.reload();
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    eventually("jobs of both slots", || {
        let text = service.stage.read("ph.log");
        let has_done = |slot| text.contains(&format!("worker {slot} gen 2 stdout: job 2 is done"));
        (has_done(0) && has_done(1)).then_some(())
    });
    let stage = service.stop();
    let jobs = stage.log().with("job ");
    let count = |what: &str| jobs.iter().filter(|it| it.message.ends_with(what)).count();
    assert_eq!(count("begins"), count("is done"));
    let ends = stage.log().with("exited with code");
    assert!(ends.iter().all(|it| it.message.contains("code 0 ")), "{ends:?}");
}
