//! What the class `async` is compared with: hyper on tokio, and nobody who keeps it alive.
//!
//! `bench-hyper one PORT`: one thread, on a socket that other processes may share (SO_REUSEPORT).
//! `bench-hyper threads PORT`: two threads of one process.

#![expect(clippy::print_stderr, reason = "there is no log")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use tokio::net::{TcpListener, TcpSocket};

#[path = "../bench_serve/hyper_hello.rs"]
mod hyper_hello;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (threads, port) = match &words[..] {
        [kind, port] if kind == "one" => (1, port.parse().ok()),
        [kind, port] if kind == "threads" => (2, port.parse().ok()),
        _ => (0, None),
    };
    let Some(port) = port else {
        eprintln!("bench-hyper: expected `one PORT` or `threads PORT`");
        return ExitCode::from(2);
    };
    match run(threads, port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-hyper: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(threads: usize, port: u16) -> io::Result<()> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        accept(socket.listen(2048)?).await
    })
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    loop {
        let (connection, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A client that goes away is none that was served, and the bench counts those.
            let _ = hyper_hello::serve(connection).await;
        });
    }
}
