//! `probe`: whether something answers at an address, asked once.
//!
//! Looking up a name cannot be bounded, nor can a peer be kept from sending one byte a second. So a thread
//! asks, and whoever waits for it longer than the timeout leaves without it.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::mpsc;

use ph_config::ProbeTarget;
use serde_json::json;

use crate::args::Probe;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, SCHEMA};

/// As much as is read of an answer: its first line is shorter.
const ANSWER: usize = 1024;

/// Asks once. Says nothing if the answer is good.
pub(crate) fn probe(args: &Probe) -> Result<ExitCode, Failure> {
    let (sender, answer) = mpsc::channel();
    let target = args.target.clone();
    // Nobody hears an answer that comes too late.
    let asking = std::thread::Builder::new().spawn(move || drop(sender.send(ask(&target))));
    let answer = match asking {
        Ok(_) => answer.recv_timeout(args.timeout).unwrap_or_else(|_| {
            let why = format!("no answer within {:?}", args.timeout);
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        }),
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) if args.json => {
            output::print_json(&json!({"schema": SCHEMA, "ready": true}))?;
            Ok(Exit::Ok.into())
        }
        Ok(()) => Ok(Exit::Ok.into()),
        Err(why) => {
            let ProbeTarget { host, port, .. } = &args.target;
            let failure = Failure::new(Exit::Failed, why.to_string());
            Err(failure.attempt(format!("{host} port {port} is not ready")))
        }
    }
}

fn ask(target: &ProbeTarget) -> io::Result<()> {
    let mut stream = TcpStream::connect((target.host.as_str(), target.port))?;
    let Some(path) = &target.path else { return Ok(()) };
    let host = if target.host.contains(':') {
        // The zone of an address means something on this machine only.
        let address = target.host.split('%').next().unwrap_or_default();
        format!("[{address}]")
    } else {
        target.host.clone()
    };
    let port = target.port;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: ph-probe\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; ANSWER];
    while answer.len() < ANSWER && !answer.contains(&b'\n') {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => answer.extend(&part[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    judge(&answer)
}

/// Success and redirections are good (Kubernetes' `httpGet`).
fn judge(answer: &[u8]) -> io::Result<()> {
    let code = answer.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    let code = code.and_then(|code| std::str::from_utf8(code).ok()?.parse::<u16>().ok());
    match code {
        Some(200..=399) => Ok(()),
        Some(code) => Err(io::Error::other(format!("it answers {code}"))),
        None => Err(io::Error::other("it does not answer in HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_their_code() {
        for good in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 204 \r\n", "HTTP/1.1 302 Found"] {
            assert!(judge(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["", "HTTP/1.1", "HTTP/1.1 5", "HTTP/1.1 404 N", "HTTP/1.1 503", "SSH-2.0-x"] {
            assert!(judge(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
