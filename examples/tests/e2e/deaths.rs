//! Workers that die, and what becomes of the others: nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::misbehave;
use crate::support::{Client, Line, Log, Worker, eventually, let_pass};

/// The address the master says it listens on.
pub(crate) fn address(log: &Log) -> String {
    let line = log.wait_for("listening on tcp://");
    line.message.rsplit_once("//").expect("an address").1.to_owned()
}

#[test]
fn a_killed_worker_is_replaced_in_its_slot_and_the_other_is_left_alone() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=2"]);
    stage.log().wait_ready(2);
    let [first, second] = master.wait_workers(2)[..] else { panic!("two workers") };
    first.process.send(Signal::SIGKILL);
    let successor = master.wait_replaced(first);
    stage.log().wait_ready(3);
    assert_eq!(master.workers(), [successor, second]);
    let death = stage.log().wait_for("was ended by SIGKILL");
    assert!(death.message.starts_with("worker 0 "), "{death:?}");
    assert!(death.message.contains("next one at once"), "{death:?}");
    assert_eq!(stage.log().with("was ended by").len(), 1);
    assert_eq!(master.stop(), 0);
}

#[test]
fn no_exit_code_of_a_worker_ends_a_service_that_was_ready_once() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=2", "bind=127.0.0.1:0", "min_uptime=0"]);
    stage.log().wait_ready(2);
    let address = address(&stage.log());
    for (ready, code) in (3..).zip([0, 1, 3, 4, 100, 126, 127, 255]) {
        let mut client = Client::tcp(&address);
        let dying = Worker { slot: client.slot, process: client.worker };
        assert_eq!(client.ask(&format!("exit:{code}")), None);
        master.wait_replaced(dying);
        stage.log().wait_ready(ready);
        let how = format!("exited with code {code}");
        assert_eq!(stage.log().ends(dying.slot, &how).len(), 1, "{how}");
    }
    assert_eq!(master.workers().len(), 2);
    assert_eq!(master.stop(), 0);
}

#[test]
fn exit_codes_3_and_4_in_setup_end_the_first_boot_and_only_that() {
    for code in [3, 4] {
        let stage = misbehave();
        let behaviour = format!("app_behaviour=exit_code:{code}");
        let master = stage.start(&["number_workers=3", &behaviour]);
        assert_eq!(master.wait(), code);
        assert_eq!(stage.files(), ["ph.log"]);
    }
    let stage = misbehave();
    let master = stage.start(&["app_behaviour=exit_code:3", "app_from_slot=1"]);
    stage.log().wait_ready(1);
    master.send(Signal::SIGTTIN);
    stage.log().wait_ends(1, "exited with code 3", 3);
    assert_eq!(master.workers().first().map(|worker| worker.slot), Some(0));
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_setup_that_fails_or_panics_ends_the_first_boot_with_3() {
    for (behaviour, text) in [
        ("boot_error", "this worker cannot boot: asked to fail at boot"),
        ("panic_at_boot", "asked to panic at boot"),
        ("no_such_word", "no such behaviour: no_such_word"),
    ] {
        let stage = misbehave();
        stage.expect_error(text);
        let master = stage.start(&[&format!("app_behaviour={behaviour}")]);
        assert_eq!(master.wait(), 3, "{behaviour}");
        assert_eq!(stage.files(), ["ph.log"]);
    }
}

#[test]
fn a_panic_in_a_job_is_logged_with_place_and_words_and_the_worker_is_replaced() {
    let stage = misbehave();
    stage.expect_error("asked to panic");
    let master = stage.start(&["app_behaviour=panic"]);
    let dying = master.wait_workers(1)[0];
    master.wait_replaced(dying);
    let panic = stage.log().wait_for("asked to panic");
    assert_eq!((panic.level.as_str(), panic.pid), ("ERROR", dying.process.0));
    assert!(panic.message.contains("misbehave.rs:"), "{panic:?}");
    stage.log().wait_ends(0, "exited with code 101", 1);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_job_turn_that_fails_costs_the_worker_and_a_request_that_fails_does_not() {
    let stage = misbehave();
    stage.expect_error("this worker failed: asked to fail");
    let master = stage.start(&["app_behaviour=fail"]);
    stage.log().wait_ends(0, "exited with code 1", 2);
    assert_eq!(master.stop(), 0);

    let stage = misbehave();
    stage.expect_error("failed: asked to fail");
    let master = stage.start(&["bind=127.0.0.1:0"]);
    stage.log().wait_ready(1);
    let address = address(&stage.log());
    let mut client = Client::tcp(&address);
    assert_eq!(client.ask("fail"), None);
    assert_eq!(Client::tcp(&address).worker, client.worker);
    assert_eq!(master.stop(), 0);
}

/// By the rule: at once, then 0.1 s, doubling. A loaded machine can only make the gaps longer.
#[test]
fn a_crash_at_boot_in_every_slot_backs_off_costs_nothing_and_still_obeys() {
    let stage = misbehave();
    stage.expect_error("is in a crash loop");
    let master = stage.start(&["number_workers=4", "app_behaviour=crash_at_boot"]);
    let deaths = stage.log().wait_for_count("exited with code 1 ", 4 * 6);
    stage.log().wait_for_count("is in a crash loop", 4);
    let mut by_slot: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for death in deaths {
        let slot = death.message.split(' ').nth(1).expect("a slot").to_owned();
        by_slot.entry(slot).or_default().push(death);
    }
    assert_eq!(by_slot.len(), 4);
    for (slot, deaths) in by_slot {
        for (number, pair) in (1_u32..).zip(deaths.windows(2)) {
            let wait = if number == 1 { 0 } else { 100 << (number - 2) };
            let gap = pair[0].until(&pair[1]);
            // Half of it: a stamp may be late, the wait is not short.
            assert!(gap >= Duration::from_millis(wait) / 2, "slot {slot}, {number}: {gap:?}");
        }
    }
    let before = master.process.cpu_ticks();
    let_pass(Duration::from_secs(2));
    let used = master.process.cpu_ticks() - before;
    assert!(used <= 20, "{used} ticks of the processor in two seconds of a crash loop");
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_quick_end_with_code_0_is_a_crash_too() {
    let stage = misbehave();
    stage.expect_error("is in a crash loop");
    let master = stage.start(&["app_behaviour=exit_after:1"]);
    stage.log().wait_for("is in a crash loop: 5 deaths in a row");
    let lines = stage.log().lines();
    let before = lines.iter().take_while(|line| !line.message.contains("is in a crash loop"));
    let deaths = before.filter(|line| line.message.contains("exited with code 0 "));
    assert_eq!(deaths.count(), 4, "the fifth is told after the loop");
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_stopped_worker_is_stuck_aborted_and_replaced() {
    stuck(|worker| worker.process.send(Signal::SIGSTOP), "ok");
}

#[test]
fn a_silent_worker_is_stuck_aborted_and_replaced() {
    stuck(|_| (), "turn:100,hang");
}

/// The first worker falls silent; `fault` may help.
fn stuck(fault: impl FnOnce(Worker), behaviour: &str) {
    let stage = misbehave();
    stage.expect_error("is stuck: aborting it");
    let behaviour = format!("app_behaviour={behaviour}");
    let master = stage.start(&["number_workers=2", "timeout=3", &behaviour, "app_from_slot=1"]);
    stage.log().wait_ready(2);
    let [other, victim] = master.wait_workers(2)[..] else { panic!("two workers") };
    fault(victim);
    let stuck = stage.log().wait_for("is stuck: aborting it");
    assert!(stuck.message.contains(&format!("(pid {})", victim.process.0)), "{stuck:?}");
    let successor = master.wait_replaced(victim);
    let death = stage.log().wait_ends(1, "was ended by SIGABRT", 1).swap_remove(0);
    assert!(death.message.contains("(stuck)"), "{death:?}");
    stage.log().wait_ready(3);
    assert_ne!(successor.process, victim.process);
    assert!(master.workers().contains(&other));
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_silent_worker_that_does_not_even_abort_is_killed() {
    let stage = misbehave();
    stage.expect_error("is stuck: aborting it");
    let master =
        stage.start(&["timeout=1", "graceful_timeout=1", "app_behaviour=block_abort,hang"]);
    let stuck = stage.log().wait_for("is stuck: aborting it, SIGKILL follows in 1.0s");
    let killed = stage.log().wait_for("killing worker 0");
    assert!(killed.message.ends_with("(stuck)"), "{killed:?}");
    let death = stage.log().wait_ends(0, "was ended by SIGKILL", 1).swap_remove(0);
    // The stamps are of the wall clock, and of the moment after.
    assert!(stuck.until(&killed) >= Duration::from_millis(900), "{stuck:?} {killed:?}");
    assert!(death.message.contains("(stuck)"), "{death:?}");
    stage.log().wait_ready(2);
    assert_eq!(master.stop(), 0);
}

#[test]
fn what_a_worker_left_behind_ends_with_it() {
    let stage = misbehave();
    let master = stage.start(&["app_behaviour=spawn_child,zombies:200,ok"]);
    stage.log().wait_ready(1);
    let worker = master.wait_workers(1)[0];
    let child = eventually("a grandchild", || {
        let mut children = worker.process.children().into_iter();
        children.find(|child| child.title() == "sleep 1000")
    });
    eventually("zombies", || (worker.process.children().len() > 200).then_some(()));
    worker.process.send(Signal::SIGKILL);
    eventually("the grandchild's end", || (!child.is_alive()).then_some(()));
    // All zombies came to the master, which is a subreaper, and none stays; the new worker has its
    // own; the other children are the warden and the log process.
    eventually("no zombie", || (master.process.children().len() == 3).then_some(()));
    assert_eq!(stage.log().with("was ended by").len(), 1, "strangers are reaped without a word");
    assert_eq!(master.stop(), 0);
}

/// Many deaths while the master cannot run are one pending signal.
#[test]
fn a_master_that_was_stopped_replaces_all_that_died_meanwhile() {
    let stage = misbehave();
    let master = stage.start(&["number_workers=8"]);
    stage.log().wait_ready(8);
    let before = master.wait_workers(8);
    master.send(Signal::SIGSTOP);
    for worker in &before {
        worker.process.send(Signal::SIGKILL);
    }
    eventually("all are dead", || {
        before.iter().all(|worker| !worker.process.is_alive()).then_some(())
    });
    master.send(Signal::SIGCONT);
    stage.log().wait_ready(16);
    let after = master.wait_workers(8);
    assert!(before.iter().all(|worker| !after.contains(worker)));
    assert_eq!(master.stop(), 0);
}

#[test]
fn three_hundred_deaths_leave_no_trace_in_the_master() {
    const DEATHS: usize = 300;
    let stage = misbehave();
    let master = stage.start(&["number_workers=3", "min_uptime=0", "max_restarts=100000"]);
    stage.log().wait_ready(3);
    let size = || (master.process.descriptors().len(), master.process.status_number("VmRSS"));
    let mut before = size();
    for round in 0..DEATHS / 3 {
        let workers = master.wait_workers(3);
        workers.iter().for_each(|worker| worker.process.send(Signal::SIGKILL));
        for worker in workers {
            master.wait_replaced(worker);
        }
        stage.log().wait_ready(3 * (round + 2));
        if round == 20 {
            before = size();
        }
    }
    let after = size();
    assert_eq!(after.0, before.0, "descriptors");
    assert!(after.1 < before.1 + 2048, "it grew from {} kB to {} kB", before.1, after.1);
    assert_eq!(stage.log().with("was ended by SIGKILL").len(), DEATHS);
    assert_eq!(master.stop(), 0);
}
