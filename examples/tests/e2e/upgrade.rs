//! An upgrade of a program whose workers are forked: conversations end with whom they began, and the
//! workers of a successor have nothing of its predecessor.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{
    Client, Master, Process, Stage, eventually, require, tell, while_clients_talk,
};

/// A stage whose program is a file of its own.
pub(crate) fn upgradable() -> (Stage, tempfile::TempDir) {
    require(&["setsid"]);
    let programs = tempfile::Builder::new().prefix("e2e-program-").tempdir().expect("a folder");
    let program = programs.path().join("misbehave");
    copy_to(&program);
    (Stage::of(program.to_str().expect("a path in UTF-8"), "misbehave"), programs)
}

/// In a process of its own: what another test forks meanwhile would have it open for writing, and then
/// nobody could execute it.
fn copy_to(path: &Path) {
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_misbehave")).arg(path).status();
    assert!(copied.expect("cp").success());
}

/// The former program is renamed away, and another one has its name.
pub(crate) fn replace(programs: &tempfile::TempDir) {
    let program = programs.path().join("misbehave");
    let new: PathBuf = programs.path().join("new");
    copy_to(&new);
    std::fs::rename(new, program).expect("renamed");
}

pub(crate) fn start(stage: &Stage, settings: &str) -> Master {
    stage.configure(settings);
    stage.start_through(&["setsid"], &[])
}

pub(crate) fn master(stage: &Stage) -> Process {
    eventually("a pidfile", || {
        let text = std::fs::read_to_string(stage.path("ph.pid")).ok()?;
        text.trim().parse().ok().map(Process)
    })
}

pub(crate) fn wait_upgraded(stage: &Stage, old: Process) -> Process {
    eventually("another master", || Some(master(stage)).filter(|new| *new != old))
}

pub(crate) fn stop(stage: &Stage) {
    master(stage).send(Signal::SIGTERM);
    stage.wait_empty();
}

pub(crate) fn workers_of(master: Process) -> Vec<Process> {
    let mut children = master.children();
    children.retain(|child| child.title().starts_with("ph: worker ") && child.is_alive());
    children
}

#[test]
fn a_conversation_ends_with_the_worker_it_began_with_and_new_ones_are_the_successors() {
    let (stage, programs) = upgradable();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let first = start(&stage, &format!("number_workers = 2\nbind = {port}\ntimeout = 20"));
    stage.log().wait_ready(2);
    let mut client = Client::tcp(&port.to_string());
    let old_worker = client.worker;
    assert!(client.ask("environment").is_some());
    replace(&programs);
    let old = first.process;
    old.send(Signal::SIGUSR2);
    let new = wait_upgraded(&stage, old);
    stage.log().wait_for("stopping, workers to end");
    assert!(client.ask("environment").is_some(), "it is heard to the end");
    assert!(old_worker.is_alive() && old.is_alive());
    let another = Client::tcp(&port.to_string());
    assert!(new.children().contains(&another.worker));
    drop((client, another));
    assert_eq!(first.wait(), 0);
    assert_eq!(workers_of(new).len(), 2);
    stop(&stage);
}

#[test]
fn no_conversation_fails_over_upgrades_in_a_row() {
    let (stage, programs) = upgradable();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let first = start(&stage, &format!("number_workers = 4\nbind = {port}"));
    stage.log().wait_ready(4);
    let talks = while_clients_talk(&port.to_string(), || {
        let mut before = first.process;
        for _ in 0..6 {
            replace(&programs);
            before.send(Signal::SIGUSR2);
            let new = wait_upgraded(&stage, before);
            eventually("the end of the former", || (!before.is_alive()).then_some(()));
            before = new;
        }
    });
    tell(&format!("{talks} conversations"));
    assert_eq!(first.wait(), 0);
    stop(&stage);
}

/// By what they are, since their numbers differ.
fn kinds(process: Process) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    let strays: Vec<_> = Process::own().descriptors().into_values().collect();
    for name in process.descriptors().into_values().filter(|name| !strays.contains(name)) {
        let kind = name.split(['[', '(']).next().unwrap_or_default().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

#[test]
fn workers_and_helpers_of_a_successor_have_no_descriptor_of_its_predecessor() {
    let (stage, _programs) = upgradable();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let first = start(&stage, &format!("number_workers = 1\nbind = {port}, 127.0.0.1:0"));
    stage.log().wait_ready(1);
    // The second listener is not the successor's.
    stage.configure(&format!("number_workers = 1\nbind = {port}"));
    first.send(Signal::SIGUSR2);
    let new = wait_upgraded(&stage, first.process);
    assert_eq!(first.wait(), 0);
    let old_worker = workers_of(new)[0];
    let of_old = kinds(old_worker);
    let old_helpers: Vec<_> = ["ph: warden [misbehave]", "ph: log [misbehave]"]
        .into_iter()
        .flat_map(|title| stage.titled(title))
        .map(|helper| (helper, kinds(helper)))
        .collect();
    assert_eq!(old_helpers.len(), 2);
    old_worker.send(Signal::SIGKILL);
    let young = eventually("another worker", || {
        let workers = workers_of(new);
        workers.into_iter().find(|worker| *worker != old_worker)
    });
    stage.log().wait_ready(3);
    assert_eq!(of_old, kinds(young), "born beside its predecessor, and after");
    assert_eq!(of_old.get("socket:"), Some(&1), "its listener: {of_old:?}");
    let warden = &old_helpers[0];
    assert_eq!(warden.1.get("socket:"), None, "{warden:?}");
    let log = &old_helpers[1];
    assert_eq!(log.1.get("socket:"), Some(&1), "its channel: {log:?}");
    stop(&stage);
}

#[test]
fn fault_51_the_workers_of_a_killed_old_master_end_and_its_successor_serves() {
    let (stage, _programs) = upgradable();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    // So slow that the old master is halted before they are ready.
    let settings = "number_workers = 2\napp_behaviour = boot_slow:2";
    let first = start(&stage, &format!("{settings}\nbind = {port}"));
    stage.log().wait_ready(2);
    stage.expect_error("is gone: taking over");
    let old = first.process;
    // It does not answer, so the successor is ready and waits.
    old.send(Signal::SIGUSR2);
    let new = eventually("a successor", || {
        let has_begun = |child: &Process| {
            let said = format!("master started with pid {},", child.0);
            !stage.log().with(&said).is_empty()
        };
        old.children().into_iter().find(has_begun)
    });
    old.send(Signal::SIGSTOP);
    stage.log().wait_for("all workers are ready");
    old.send(Signal::SIGKILL);
    assert!(first.wait() < 0);
    assert_eq!(wait_upgraded(&stage, old), new);
    eventually("nobody of the old tree", || {
        let mut all = stage.processes();
        all.retain(|process| *process != new && !new.children().contains(process));
        all.is_empty().then_some(())
    });
    assert_eq!(workers_of(new).len(), 2);
    stop(&stage);
}

/// Workers of a successor serve before it has taken over, so it is not simply killed.
#[test]
fn what_a_successor_that_is_given_up_has_begun_is_finished() {
    let (stage, _programs) = upgradable();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let settings = format!("number_workers = 2\nbind = {port}\nupgrade_timeout = 2");
    let first = start(&stage, &settings);
    stage.log().wait_ready(2);
    stage.expect_error("the successor was not ready within");
    let slow = "app_behaviour = boot_slow:100\napp_from_slot = 1\ngraceful_timeout = 4";
    stage.configure(&format!("{settings}\n{slow}"));
    first.send(Signal::SIGUSR2);
    stage.log().wait_ready(3);
    // Each worker has one at a time.
    let mut clients: Vec<_> = (0..3).map(|_| Client::tcp(&port.to_string())).collect();
    let old = first.process.children();
    let is_other = |client: &Client| !old.contains(&client.worker);
    let mut client = clients.remove(clients.iter().position(is_other).expect("one of three"));
    stage.log().wait_for("the successor was not ready within");
    stage.log().wait_for("stop; a second one: at once");
    assert!(client.ask("environment").is_some(), "it is heard to the end");
    drop((client, clients));
    eventually("the end of the successor", || (stage.processes().len() == 5).then_some(()));
    assert_eq!(first.stop(), 0);
}
