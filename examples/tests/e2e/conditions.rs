//! The conditions forked workers run under: the same as those of commands, taken on without an exec.

use nix::sys::signal::Signal;

use crate::deaths::address;
use crate::misbehave;
use crate::support::{Client, require, tell};

#[test]
fn a_forked_worker_is_who_it_was_told_to_be_and_still_logs_stops_and_dies_with_its_master() {
    require(&[]);
    let stage = misbehave();
    let settings = [
        "number_workers=2",
        "user=nobody",
        "umask=027",
        "rlimit_nofile=100:200",
        "nice=5",
        "oom_score_adj=300",
        "cpu_affinity=spread",
    ];
    let master = stage.start(&settings);
    stage.log().wait_ready(2);
    for worker in master.wait_workers(2) {
        let process = worker.process;
        let first = |name: &str| process.status(name).split_whitespace().next().map(str::to_owned);
        assert_eq!(first("Uid").as_deref(), Some("65534"));
        assert_eq!(process.status("Groups"), "65534");
        assert_eq!(u64::from_str_radix(&process.status("CapPrm"), 16), Ok(0));
        assert_eq!(process.status("Umask"), "0027");
        assert_eq!(process.stat(19).as_deref(), Some("5"), "nice");
        match process.read("autogroup") {
            Some(group) => assert!(group.ends_with(" nice 5\n"), "{group}"),
            None => tell("this kernel has no autogroup: the nice value of a session is not tested"),
        }
        assert_eq!(process.read("oom_score_adj").as_deref(), Some("300\n"));
        let cpus = process.status("Cpus_allowed_list");
        assert!(cpus.parse::<u32>().is_ok(), "one CPU: {cpus}");
        let limits = process.read("limits").expect("limits");
        let line = limits.lines().find(|line| line.starts_with("Max open files"));
        let words: Vec<_> = line.expect("the limit").split_whitespace().skip(3).take(2).collect();
        assert_eq!(words, ["100", "200"]);
    }
    assert_eq!(master.process.status("Umask"), "0022", "the master's own");
    master.send(Signal::SIGTERM);
    stage.log().wait_for_count("stopped after turn", 2);
    assert_eq!(master.stop(), 0);
    let master = stage.start(&settings);
    stage.log().wait_ready(4);
    master.send(Signal::SIGKILL);
    assert_eq!(master.wait(), -(Signal::SIGKILL as i32));
    stage.wait_empty();
    let master = stage.start(&settings);
    stage.log().wait_ready(6);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_forked_worker_has_the_variables_of_its_settings_and_each_once() {
    let mut stage = misbehave();
    stage.variable("INHERITED", "1");
    stage.variable("OVERRIDDEN", "by the caller");
    let variables = "environment=OVERRIDDEN=\"slot %(slot)s\", OWN=2";
    let master = stage.start(&["bind=127.0.0.1:0", variables]);
    stage.log().wait_ready(1);
    let mut client = Client::tcp(&address(&stage.log()));
    let answer = client.ask("environment").expect("an answer");
    for wanted in ["INHERITED=1", "OVERRIDDEN=slot 0", "OWN=2"] {
        assert_eq!(answer.iter().filter(|line| *line == wanted).count(), 1, "{answer:?}");
    }
    assert!(!answer.contains(&"OVERRIDDEN=by the caller".to_owned()));
    drop(client);
    assert_eq!(master.stop(), 0);
    let master = stage.start(&["bind=127.0.0.1:0", variables, "clear_env=yes"]);
    stage.log().wait_ready(2);
    let lines = stage.log().with("listening on tcp://");
    let address = lines.last().expect("an address").message.rsplit_once("//").expect("it").1;
    let mut client = Client::tcp(address);
    let answer = client.ask("environment").expect("an answer");
    let own: Vec<_> = answer.iter().filter(|line| !line.starts_with("PH_")).collect();
    assert_eq!(own, ["OVERRIDDEN=slot 0", "OWN=2"]);
    drop(client);
    assert_eq!(master.stop(), 0);
}
