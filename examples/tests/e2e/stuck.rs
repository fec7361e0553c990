//! A stuck worker says where it was, before SIGABRT ends it.

use std::process::Command;

use crate::misbehave;

#[test]
fn a_stuck_worker_leaves_addresses_that_lead_to_its_own_functions() {
    let stage = misbehave();
    stage.expect_error("is stuck: aborting it");
    let master = stage.start(&["timeout=1", "min_uptime=0", "app_behaviour=hang"]);
    let line = stage.log().wait_for("was aborted at: addr2line -Cfpie ");
    stage.log().wait_ends(0, "was ended by SIGABRT", 1);
    assert_eq!(master.stop(), 0);
    let (who, command) = line.message.split_once(" was aborted at: ").expect("both parts");
    assert!(who.starts_with("worker 0 gen 1 (pid "), "{line:?}");
    let words: Vec<_> = command.split(' ').collect();
    assert_eq!(words[2], env!("CARGO_BIN_EXE_misbehave"));
    let addresses = &words[3..];
    let is_address =
        |word: &&str| word.strip_prefix("0x").is_some_and(|it| u64::from_str_radix(it, 16).is_ok());
    assert!(!addresses.is_empty() && addresses.iter().all(is_address), "{line:?}");
    // Where the tool is not installed, the shape has to do.
    if let Ok(named) = Command::new(words[0]).args(&words[1..]).output() {
        let named = String::from_utf8_lossy(&named.stdout).into_owned();
        for function in ["misbehave::wait", "misbehave::Behaviour::act"] {
            assert!(named.contains(function), "no {function} in\n{named}");
        }
    }
}

/// A command gets the signal that its own runtime knows what to do with.
#[test]
fn the_abort_signal_is_the_one_that_was_set() {
    let stage = misbehave();
    stage.expect_error("is stuck: aborting it");
    let settings = ["timeout=1", "min_uptime=0", "abort_signal=USR2", "app_behaviour=hang"];
    let master = stage.start(&[&settings[..], &["graceful_timeout=1"]].concat());
    stage.log().wait_ends(0, "was ended by SIGKILL", 1);
    assert!(stage.log().with("was aborted at").is_empty(), "SIGUSR2 is caught, and does nothing");
    master.send(nix::sys::signal::Signal::SIGINT);
    assert_eq!(master.wait(), 0);
}
