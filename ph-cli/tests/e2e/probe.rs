//! `ph probe`: one question, one exit code.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use crate::ph;
use crate::support::{Stage, timed};

/// The exit code, and what is on stdout and stderr.
fn probe(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let start = stage.starts();
    let words: Vec<_> = ["probe"].iter().chain(arguments).copied().collect();
    let (code, stderr) = stage.launch(&[], &words).wait_with_stderr();
    (code, stage.read(&format!("stdout.{start}")), stderr)
}

/// A port at which one connection is answered with this.
fn answering(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 1024];
        let length = stream.read(&mut request).expect("a request");
        let request = String::from_utf8_lossy(&request[..length]);
        assert!(request.starts_with("GET /healthz?a=b HTTP/1.1\r\nHost: localhost:"), "{request}");
        stream.write_all(answer.as_bytes()).expect("a reader");
    });
    port
}

#[test]
fn a_connection_is_enough_for_tcp() {
    let stage = ph();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp:{}", listener.local_addr().expect("an address"));
    let timeout = "--timeout=20s";
    let quiet = (0, String::new(), String::new());
    assert_eq!(probe(&stage, &[&address, timeout]), quiet);
    let json = "{\"ready\":true,\"schema\":1}\n";
    assert_eq!(probe(&stage, &[&address, timeout, "--json"]), (0, json.into(), String::new()));
    drop(listener);
    let (code, stdout, stderr) = probe(&stage, &[&address, timeout]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("is not ready: Connection refused"), "{stderr}");
}

#[test]
fn an_answer_is_judged_by_its_code() {
    let stage = ph();
    for (answer, wanted) in [
        ("HTTP/1.1 200 OK\r\n\r\n", None),
        ("HTTP/1.0 301 Moved\r\n\r\n", None),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Some("it answers 503")),
        ("SSH-2.0-x\r\n", Some("it does not answer in HTTP")),
        ("", Some("it does not answer in HTTP")),
    ] {
        let target = format!("http://localhost:{}/healthz?a=b", answering(answer));
        let (code, _, stderr) = probe(&stage, &[&target, "--timeout", "20s"]);
        assert_eq!(code, i32::from(wanted.is_some()), "{answer}: {stderr}");
        assert!(stderr.contains(wanted.unwrap_or_default()), "{stderr}");
    }
}

#[test]
fn whoever_takes_too_long_is_not_ready() {
    let stage = ph();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = format!("http://{}/", listener.local_addr().expect("an address"));
    let ((code, _, stderr), took) = timed(|| probe(&stage, &[&target, "--timeout", "500ms"]));
    assert_eq!(code, 1);
    assert!(stderr.contains("no answer within 500ms"), "{stderr}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn what_is_no_target_is_refused() {
    let stage = ph();
    for bad in ["", "localhost:80", "tcp::80", "https://localhost/", "exec:true"] {
        let (code, _, stderr) = probe(&stage, &[bad]);
        assert_eq!(code, 2, "{bad}: {stderr}");
    }
}
