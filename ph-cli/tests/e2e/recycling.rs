//! Workers that are replaced for their age or their memory: the successor is ready first.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ph;
use crate::reload::start;
use crate::support::{Process, eventually, require};

#[test]
fn workers_of_a_certain_age_are_replaced_one_by_one() {
    let stage = ph();
    let lines = "command = sleep 1000\nmin_uptime = 0.1\nnumber_workers = 3\nkill_interval = 1\n\
                 kill_interval_jitter = 2";
    let (master, old) = start(&stage, lines, 3);
    let mut seen: BTreeSet<Process> = old.iter().map(|worker| worker.process).collect();
    let mut most = 0;
    eventually("each slot had three workers at least", || {
        // One that ends between two looks at it is none of the living, but the next is there.
        let workers = master.workers();
        let slots: BTreeSet<_> = workers.iter().map(|worker| worker.slot).collect();
        assert_eq!(slots.len(), 3, "no slot is ever without a worker: {workers:?}");
        most = most.max(workers.len());
        seen.extend(workers.iter().map(|worker| worker.process));
        (seen.len() >= 9).then_some(())
    });
    assert!(most <= 5, "{most} at once");
    assert_eq!(master.stop(), 0);
    let log = stage.log();
    assert!(log.with("has reached its greatest age").len() >= 6);
    assert!(log.with("crash").is_empty());
}

#[test]
fn a_worker_that_grows_is_replaced_and_others_are_not() {
    require(&["python3"]);
    let stage = ph();
    let script = "import os,time; x = bytearray(\
                  (200 << 20) if os.environ['PH_SLOT'] + os.environ['PH_WORKER_ID'] == '12' else 1)\
                  ; time.sleep(1000)";
    let lines = format!(
        "command = python3 -c \"{script}\"\nmin_uptime = 1\nnumber_workers = 2\n\
         max_memory = 100MB\nmemory_check_interval = 200ms"
    );
    let (master, old) = start(&stage, &lines, 2);
    let told = stage.log().wait_for("MiB, more than it may");
    let held = told.message.split(" holds ").nth(1).and_then(|rest| rest.split(' ').next());
    let held: u64 = held.and_then(|number| number.parse().ok()).expect("a number");
    assert!((200..400).contains(&held), "{told:?}");
    let new = master.wait_replaced(old[1]);
    eventually("the end of the old one", || (!old[1].process.is_alive()).then_some(()));
    crate::support::let_pass(Duration::from_secs(2));
    assert_eq!(master.workers(), [old[0], new]);
    assert_eq!(stage.log().with("more than it may").len(), 1);
    assert_eq!(master.stop(), 0);
}
