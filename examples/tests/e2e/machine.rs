//! A master on a machine that has too little time for it.
//!
//! The test is one fault, and has its number in the catalogue of faults. The load is bounded: by a
//! count, and by a clock of its own.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::misbehave;
use crate::support::{Master, let_pass, require};

/// Busy loops on all processors, which end by themselves soon after the test.
struct Load(Vec<Child>);

impl Load {
    fn of(loops: usize) -> Self {
        let start = || {
            let mut command = Command::new("timeout");
            command.args(["30", "sh", "-c", "while :; do :; done"]).stdin(Stdio::null());
            command.spawn().expect("timeout")
        };
        Self((0..loops).map(|_| start()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
            // SIGTERM, which `timeout` hands on to its loop.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

/// Gives the master another policy of scheduling.
fn schedule(master: &Master, policy: &str) {
    let pid = master.process.0.to_string();
    let arguments = [policy, "--pid", "0", &pid];
    assert!(Command::new("chrt").args(arguments).status().expect("chrt").success());
}

/// The master gets what nobody else wants of the processors, and the workers beat: whether they are
/// silent is judged by the time the master really had.
#[test]
fn fault_28_a_starved_master_takes_no_worker_for_stuck() {
    require(&["chrt", "timeout"]);
    let stage = misbehave();
    let settings = ["number_workers=4", "timeout=3", "app_behaviour=turn:100"];
    let master = stage.start(&settings);
    stage.log().wait_ready(4);
    let workers = master.wait_workers(4);
    schedule(&master, "--idle");
    let policy = master.process.stat(41);
    assert_eq!(policy.as_deref(), Some("5"), "the master is SCHED_IDLE");
    let load = Load::of(8);
    let_pass(Duration::from_secs(10));
    assert_eq!(master.workers(), workers, "nobody was replaced");
    drop(load);
    schedule(&master, "--other");
    assert_eq!(master.stop(), 0);
    for text in ["is stuck", "killing worker", "was ended by"] {
        assert!(stage.log().with(text).is_empty(), "{text}");
    }
}
