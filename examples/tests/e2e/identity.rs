//! What a worker is and has: title, session, environment, descriptors, signals; and what of the
//! master's it has not.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::signal::Signal;

use crate::deaths::address;
use crate::misbehave;
use crate::support::{Client, Process, environment, eventually};

#[test]
fn master_and_workers_say_who_they_are_and_the_environment_stays_readable() {
    let mut stage = misbehave();
    stage.variable("CUSTOM", "kept as it is");
    let wanted: BTreeMap<_, _> = stage.variables().into_iter().collect();
    let master = stage.start(&["number_workers=2", "proc_name=a-name"]);
    stage.log().wait_ready(2);
    assert_eq!(master.process.title(), "ph: master [a-name]");
    let workers = master.wait_workers(2);
    let titles: Vec<_> = workers.iter().map(|worker| worker.process.title()).collect();
    assert_eq!(titles, ["ph: worker 0 gen 1 [a-name]", "ph: worker 1 gen 1 [a-name]"]);
    assert_eq!(master.process.environment(), wanted);
    assert_eq!(workers[0].process.environment(), wanted);
    assert_eq!(master.process.status("Name"), "ph: master [a-n");
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_worker_leads_its_own_session_and_group_and_reads_from_nowhere() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=2"]);
    stage.log().wait_ready(2);
    for worker in master.wait_workers(2) {
        let (process, pid) = (worker.process, worker.process.0.to_string());
        assert_eq!(process.stat(5).as_deref(), Some(pid.as_str()), "its group");
        assert_eq!(process.stat(6).as_deref(), Some(pid.as_str()), "its session");
        assert_eq!(process.descriptors().get(&0).map(String::as_str), Some("/dev/null"));
    }
    assert_eq!(master.stop(), 0);
}

/// The exact set: nothing of the master's own comes through, and nothing else is added.
#[test]
fn a_workers_environment_is_the_operators_less_the_masters_plus_its_own() {
    let mut stage = misbehave();
    let before = stage.variables();
    environment::give_variables(&mut stage);
    let master = stage.start(&["bind=127.0.0.1:0", "app_queue-name=jobs"]);
    stage.log().wait_ready(1);
    let mut client = Client::tcp(&address(&stage.log()));
    let answer = client.ask("environment").expect("an answer");
    let pairs = answer.iter().filter_map(|line| line.split_once('='));
    let found: BTreeMap<_, _> =
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(found, environment::of_first_worker(before, "misbehave", &master));
    drop(client);
    assert_eq!(master.stop(), 0);
}

/// The two have one pipe in common, the bell, of which a worker has the writing end only.
#[test]
fn a_worker_has_no_descriptor_of_its_master() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=3"]);
    stage.log().wait_ready(3);
    // One that was forked when the master held everything it ever holds.
    let old = master.wait_workers(3)[1];
    old.process.send(Signal::SIGKILL);
    let worker = master.wait_replaced(old).process;
    stage.log().wait_ready(4);
    // What the caller of the tests let slip into them is nobody's here.
    let strays: BTreeSet<_> = Process::own().descriptors().into_values().collect();
    let of = |process: Process| {
        let mut all = process.descriptors();
        all.retain(|_, name| !strays.contains(name));
        all
    };
    let (of_master, of_worker) = (of(master.process), of(worker));
    let has = |text: &str| of_worker.values().any(|name| name.contains(text));
    assert!(!has("ph.lock") && !has("ph.pid") && !has("eventpoll"), "{of_worker:?}");
    let pipes = |fds: &BTreeMap<i32, String>| -> BTreeSet<String> {
        fds.values().filter(|name| name.starts_with("pipe:")).cloned().collect()
    };
    let common: Vec<_> = pipes(&of_master).intersection(&pipes(&of_worker)).cloned().collect();
    let [bell] = &common[..] else { panic!("{common:?} in {of_master:?} and {of_worker:?}") };
    let bells: Vec<_> = of_worker.iter().filter(|(_, name)| *name == bell).collect();
    let [(bell, _)] = bells[..] else { panic!("{bells:?}") };
    assert_eq!(access_mode(worker, *bell), 1, "the bell is there to be rung");
    // Output, the log, its lock and its folder, the bell, both ends of the stop pipe.
    assert!(of_worker.len() <= 9, "{of_worker:?}");
    assert_eq!(master.stop(), 0);
}

/// The last digit of the flags: 0 reads, 1 writes, 2 does both.
fn access_mode(process: Process, fd: i32) -> u32 {
    let text = process.read(&format!("fdinfo/{fd}")).expect("the descriptor");
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
    u32::from_str_radix(flags.trim(), 8).expect("octal") & 3
}

#[test]
fn what_the_caller_blocked_or_ignored_reaches_master_and_workers_all_the_same() {
    let stage = misbehave();
    let master = stage.start_through(
        &["env", "--block-signal=TERM,INT,CHLD,USR1,TTIN", "--ignore-signal=TERM,HUP,QUIT,ABRT"],
        &["number_workers=2"],
    );
    stage.log().wait_ready(2);
    assert_eq!(u64::from_str_radix(&master.process.status("SigBlk"), 16), Ok(0));
    for worker in master.wait_workers(2) {
        let mask = |name| u64::from_str_radix(&worker.process.status(name), 16);
        assert_eq!(mask("SigBlk"), Ok(0));
        // Rust's runtime ignores SIGPIPE in every program, and a worker is one. The C library keeps
        // the first real-time signals for itself and lets nobody touch them.
        let ignored = mask("SigIgn").map(|mask| mask & 0x7fff_ffff);
        assert_eq!(ignored, Ok(1 << (Signal::SIGPIPE as u32 - 1)));
    }
    master.send(Signal::SIGTTIN);
    stage.log().wait_ready(3);
    master.send(Signal::SIGHUP);
    stage.log().wait_for("SIGHUP from pid");
    assert_eq!(master.stop(), 0);
    assert!(stage.log().with("killing").is_empty());
}

/// A signal meant for the worker does not wake the master, and one the worker has no use for does
/// not end it.
#[test]
fn a_worker_survives_what_is_not_meant_for_it() {
    let stage = misbehave();
    let master = stage.start(&[]);
    stage.log().wait_ready(1);
    let worker = master.wait_workers(1)[0];
    for signal in
        [Signal::SIGHUP, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGWINCH, Signal::SIGUSR2]
    {
        worker.process.send(signal);
    }
    worker.process.send(Signal::SIGTERM);
    master.wait_replaced(worker);
    let end = stage.log().wait_ends(0, "exited with code 0", 1).swap_remove(0);
    assert!(end.message.contains("next one at once"), "{end:?}");
    assert!(stage.log().with("from pid").is_empty(), "none of them was the master's");
    eventually("the second is ready", || {
        (stage.log().with("is ready after").len() == 2).then_some(())
    });
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_forked_worker_needs_no_notification_and_has_no_address() {
    let stage = misbehave();
    let master = stage.start(&["ready=notify"]);
    stage.log().wait_for("ready = notify has no effect");
    stage.log().wait_ready(1);
    let environment = master.wait_workers(1)[0].process.environment();
    assert!(!environment.contains_key("NOTIFY_SOCKET"), "{environment:?}");
    assert_eq!(master.stop(), 0);
}
