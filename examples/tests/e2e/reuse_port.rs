//! A socket for each slot: no connection is lost when slots come and go, and none waits at a slot that has no
//! worker.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use crate::deaths::address;
use crate::misbehave;
use crate::support::{Client, Process, Stage, eventually, listening, while_clients_talk};
use crate::upgrade::{replace, start, stop, upgradable, wait_upgraded};

fn wait_listening(address: &str, count: usize) {
    eventually("so many sockets", || (listening(address) == count).then_some(()));
}

/// The workers that answer; so many there must be.
fn answering(address: &str, count: usize) -> BTreeSet<Process> {
    let mut seen = BTreeSet::new();
    eventually("an answer of each", || {
        seen.insert(Client::tcp(address).worker);
        (seen.len() == count).then_some(())
    });
    seen
}

#[test]
fn what_is_queued_at_a_slot_that_goes_is_answered() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=3", "bind=127.0.0.1:0", "reuse_port=true"]);
    stage.log().wait_ready(3);
    let address = address(&stage.log());
    assert_eq!(listening(&address), 3);
    answering(&address, 3);
    let queued: Vec<_> = (0..45).map(|_| Client::queue_tcp(&address, "busy:50")).collect();
    let workers: BTreeSet<_> = master.workers().into_iter().map(|it| it.process).collect();
    master.send(Signal::SIGTTOU);
    stage.log().wait_for("workers wanted: 2 (was 3)");
    master.send(Signal::SIGTTOU);
    let served: BTreeSet<_> =
        queued.into_iter().map(|client| client.served_by().expect("an answer")).collect();
    assert_eq!(served, workers, "each has answered what was queued at its own");
    wait_listening(&address, 1);
    assert_eq!(answering(&address, 1).len(), 1);
    master.send(Signal::SIGTTIN);
    wait_listening(&address, 2);
    answering(&address, 2);
    assert_eq!(master.stop(), 0);
    assert_eq!(listening(&address), 0);
}

#[test]
fn nobody_waits_at_a_slot_without_a_worker() {
    let stage = misbehave();
    let settings = ["number_workers=2", "bind=127.0.0.1:0", "reuse_port=true", "min_uptime=50"];
    let master = stage.start(&[&settings[..], &["backoff_min=10m", "backoff_max=10m"]].concat());
    stage.log().wait_ready(2);
    let address = address(&stage.log());
    answering(&address, 2);
    let [other, first] = master.wait_workers(2).try_into().expect("two");
    first.process.send(Signal::SIGKILL);
    let second = master.wait_replaced(first);
    answering(&address, 2);
    second.process.send(Signal::SIGKILL);
    stage.log().wait_ends(first.slot, "was ended by SIGKILL", 2);
    for _ in 0..40 {
        assert_eq!(Client::tcp(&address).worker, other.process);
    }
    assert_eq!(listening(&address), 2);
    assert_eq!(master.stop(), 0);
}

#[test]
fn no_conversation_fails_over_reloads_and_upgrades() {
    let (stage, programs) = upgradable();
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    let address = port.expect("a port").to_string();
    let settings =
        format!("number_workers = 3\nbind = {address}\nreuse_port = true\nmin_uptime = 0.1");
    let first = start(&stage, &settings);
    stage.log().wait_ready(3);
    while_clients_talk(&address, || {
        let mut before = first.process;
        for round in 1..=2 {
            before.send(Signal::SIGHUP);
            stage.log().wait_for_count("all workers are of generation", round);
            replace(&programs);
            before.send(Signal::SIGUSR2);
            let after = wait_upgraded(&stage, before);
            before.wait_gone();
            assert_eq!(listening(&address), 3);
            before = after;
        }
    });
    answering(&address, 3);
    stop(&stage);
    assert_eq!(first.wait(), 0);
}

/// More sockets than a channel has room for messages.
#[test]
fn hundreds_of_sockets_go_through_an_upgrade() {
    let (stage, programs) = upgradable();
    let addresses: Vec<_> = (1..=120).map(|last| format!("127.0.0.{last}:0")).collect();
    let addresses = addresses.join(", ");
    let settings = format!("number_workers = 4\nbind = {addresses}\nreuse_port = true");
    let first = start(&stage, &settings);
    stage.log().wait_ready(4);
    let shown: Vec<_> = stage.log().with("listening on tcp://");
    let address = shown[119].message.replace("master: ", "").replace("listening on tcp://", "");
    wait_listening(&address, 4);
    replace(&programs);
    first.process.send(Signal::SIGUSR2);
    wait_upgraded(&stage, first.process);
    assert_eq!(first.wait(), 0);
    assert_eq!(listening(&address), 4);
    answering(&address, 4);
    stop(&stage);
}

#[test]
fn a_reload_changes_between_one_socket_and_one_for_each_slot() {
    let stage: Stage = misbehave();
    let settings = |reuse_port: bool| {
        stage.configure(&format!(
            "number_workers = 3\nbind = 127.0.0.1:0\nmin_uptime = 0.1\nreuse_port = {reuse_port}"
        ));
    };
    settings(false);
    let master = stage.start(&[]);
    stage.log().wait_ready(3);
    let address = address(&stage.log());
    while_clients_talk(&address, || {
        for (round, reuse_port) in (1..).zip([true, false, true]) {
            settings(reuse_port);
            master.send(Signal::SIGHUP);
            stage.log().wait_for_count("all workers are of generation", round);
            wait_listening(&address, if reuse_port { 3 } else { 1 });
        }
    });
    answering(&address, 3);
    assert_eq!(master.stop(), 0);
}
