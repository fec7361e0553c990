//! Connections that are queued when a worker stops: the last ones answer them, all others leave them to
//! those that go on.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::deaths::address;
use crate::misbehave;
use crate::support::{Client, Queued, timed};

fn queue(count: usize, address: &str, behaviour: &str) -> Vec<Queued> {
    (0..count).map(|_| Client::queue_tcp(address, behaviour)).collect()
}

#[test]
fn clients_queued_at_the_stop_are_all_served() {
    let stage = misbehave();
    let socket = stage.path("app.sock");
    let bind = format!("bind=127.0.0.1:0,unix:{}", socket.display());
    let master = stage.start(&["number_workers=1", &bind]);
    stage.log().wait_ready(1);
    let address = address(&stage.log());
    let busy = Client::tcp(&address);
    let mut queued = queue(20, &address, "busy:20");
    queued.extend((0..20).map(|_| Client::queue_unix(&socket, "busy:20")));
    master.send(Signal::SIGTERM);
    stage.log().wait_for("stopping, workers to end: 1");
    let worker = busy.worker;
    drop(busy);
    for client in queued {
        assert_eq!(client.served_by().expect("an answer"), worker);
    }
    assert_eq!(master.wait(), 0);
}

#[test]
fn several_workers_share_what_is_queued() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=4", "bind=127.0.0.1:0"]);
    stage.log().wait_ready(4);
    let address = address(&stage.log());
    let busy: Vec<_> = (0..4).map(|_| Client::tcp(&address)).collect();
    let queued = queue(40, &address, "busy:10");
    master.send(Signal::SIGTERM);
    stage.log().wait_for("stopping, workers to end: 4");
    drop(busy);
    for client in queued {
        client.served_by().expect("an answer");
    }
    assert_eq!(master.wait(), 0);
}

/// A drain is the same for those who wait then; who comes later is served after the reload.
#[test]
fn a_drain_answers_what_is_queued_and_keeps_the_rest() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=1", "bind=127.0.0.1:0"]);
    stage.log().wait_ready(1);
    let address = address(&stage.log());
    let busy = Client::tcp(&address);
    let old = busy.worker;
    let queued = queue(5, &address, "ok");
    master.send(Signal::SIGWINCH);
    stage.log().wait_for("(drained)");
    drop(busy);
    for client in queued {
        assert_eq!(client.served_by().expect("an answer"), old);
    }
    old.wait_gone();
    let later = Client::queue_tcp(&address, "write:1");
    master.send(Signal::SIGHUP);
    let served = later.served_by().expect("an answer");
    assert_ne!(served, old);
    assert_eq!(master.stop(), 0);
}

#[test]
fn in_a_roll_the_queue_is_the_successors() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=1", "bind=127.0.0.1:0", "min_uptime=0"]);
    stage.log().wait_ready(1);
    let address = address(&stage.log());
    let busy = Client::tcp(&address);
    let old = busy.worker;
    // Each takes so long that the old one could have some of them, if it wanted any.
    let queued = queue(10, &address, "busy:100");
    master.send(Signal::SIGHUP);
    stage.log().wait_for("reload: its successor takes over");
    drop(busy);
    for client in queued {
        assert_ne!(client.served_by().expect("an answer"), old);
    }
    assert_eq!(master.stop(), 0);
}

/// Whoever comes when the end has begun is not waited for, or there would be no end.
#[test]
fn who_comes_later_keeps_no_service_from_ending() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=1", "bind=127.0.0.1:0", "graceful_timeout=10m"]);
    stage.log().wait_ready(1);
    let address = address(&stage.log());
    let busy = Client::tcp(&address);
    master.send(Signal::SIGTERM);
    stage.log().wait_for("stopping, workers to end: 1");
    let last = std::net::TcpStream::connect(&address).expect("a listener");
    drop(busy);
    let mut greeting = String::new();
    BufReader::new(&last).read_line(&mut greeting).expect("it is served");
    let late = queue(3, &address, "ok");
    drop(last);
    assert_eq!(master.wait(), 0);
    for client in late {
        client.served_by().expect_err("it was too late");
    }
}

/// It stops taking when the next one might not be finished, and ends by itself.
#[test]
fn a_queue_longer_than_the_grace_is_left_in_time() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=1", "bind=127.0.0.1:0", "graceful_timeout=4"]);
    stage.log().wait_ready(1);
    let address = address(&stage.log());
    let busy = Client::tcp(&address);
    let queued = queue(20, &address, "busy:500");
    master.send(Signal::SIGTERM);
    stage.log().wait_for("stopping, workers to end: 1");
    drop(busy);
    let (code, took) = timed(|| master.wait());
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(10), "{took:?}");
    stage.log().wait_for("there is no time left for what is queued");
    assert_eq!(stage.log().with("stopped after turn").len(), 1);
    assert!(stage.log().with("killing").is_empty());
    let served = queued.into_iter().filter_map(|client| client.served_by().ok()).count();
    assert!((1..20).contains(&served), "{served}");
}
