//! What the class `async` is compared with: hyper on tokio, and nobody who keeps it alive.
//!
//! `bench-hyper own PORT`: one thread, on a socket of its own at a port that others share (SO_REUSEPORT).
//! `bench-hyper threads PORT`: two threads of one process.
//! `bench-hyper shared`: one thread, on the listening socket that is its standard input.
//!
//! Each has a session of its own, as workers have (`bench_floor/fork.rs` says what for).

#![expect(clippy::print_stderr, reason = "there is no log")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use tokio::net::{TcpListener, TcpSocket};

#[path = "../bench_serve/hyper_hello.rs"]
mod hyper_hello;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let port = |port: &String| port.parse().ok();
    let way = match &words[..] {
        [kind, number] if kind == "own" => port(number).map(|port| (1, Some(port))),
        [kind, number] if kind == "threads" => port(number).map(|port| (2, Some(port))),
        [kind] if kind == "shared" => Some((1, None)),
        _ => None,
    };
    let Some((threads, port)) = way else {
        eprintln!("bench-hyper: expected `own PORT`, `threads PORT` or `shared`");
        return ExitCode::from(2);
    };
    let _ = nix::unistd::setsid();
    // Ctrl-C does not reach another session; whoever started this one is gone then.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM);
    match run(threads, port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-hyper: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(threads: usize, port: Option<u16>) -> io::Result<()> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        accept(match port {
            Some(port) => listen(port)?,
            None => inherit()?,
        })
        .await
    })
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(2048)
}

fn inherit() -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
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
