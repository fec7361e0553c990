//! `ph restart`: what ran runs again, and nobody else is touched.

use nix::sys::signal::Signal;

use crate::control::client;
use crate::ph;
use crate::start::{master_of, stop, told};
use crate::support::{Process, Stage, eventually};

const RESTART: [&str; 3] = ["restart", "-c", "config.ini"];

fn restart(stage: &Stage, words: &[&str]) -> (i32, String, String) {
    told(stage, &[&RESTART, words].concat())
}

/// The masters of the first three instances.
fn masters(stage: &Stage) -> [Option<Process>; 3] {
    let of = |name: &str| stage.path(name).exists().then(|| master_of(stage, name));
    [of("ph.pid"), of("ph.2.pid"), of("ph.3.pid")]
}

#[test]
fn all_instances_run_again_each_with_its_number() {
    let stage = ph();
    stage.configure("min_uptime = 0.1\ncommand = sleep 1001\nsingle_instance = no");
    for _ in 0..3 {
        assert_eq!(told(&stage, &["start", "-c", "config.ini"]).0, 0);
    }
    let [first, second, third] = masters(&stage).map(|it| it.expect("a master"));
    let (code, stdout, stderr) = restart(&stage, &[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout.lines().count(), 3, "{stdout}");
    let all = masters(&stage).map(|it| it.expect("a master"));
    assert!(![first, second, third].iter().any(|it| it.is_alive()));
    // One of them, and its number, although a lower one is free.
    stop(&stage, "ph.2.pid");
    let (code, stdout, stderr) = restart(&stage, &["web@3"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.ends_with(", instance 3\n") && stdout.lines().count() == 1, "{stdout}");
    let now = masters(&stage);
    assert_eq!(now[..2], [Some(all[0]), None]);
    assert!(now[2].is_some_and(|it| it != all[2] && it.is_alive()));
    for (target, wanted, why) in [
        ("web@2", 7, "cannot restart web@2: no master holds "),
        ("web#0", 2, "`#0` names one worker"),
        ("web@0", 2, "is no target"),
        ("job@1", 5, "expected a section \"job\""),
    ] {
        let (code, _, stderr) = restart(&stage, &[target]);
        assert!(code == wanted && stderr.contains(why), "{target}: {code} {stderr}");
    }
    assert_eq!(masters(&stage), now);
    // What may be only one from now on becomes one, and says so.
    stage.configure("min_uptime = 0.1\ncommand = sleep 1001");
    let (code, _, stderr) = restart(&stage, &["web@3"]);
    assert!(code == 1 && stderr.contains("web would run beside it"), "{stderr}");
    assert_eq!(masters(&stage), now);
    let (code, _, stderr) = restart(&stage, &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("its 2 masters become one"), "{stderr}");
    assert_eq!(stage.titled("ph: master [web]"), [master_of(&stage, "ph.pid")]);
    stop(&stage, "ph.pid");
}

/// A service without a file has the name of its program, as others may.
#[test]
fn a_command_restarts_nobody_elses_service() {
    let mut stage = ph();
    let folder = stage.folder().to_str().expect("UTF-8").to_owned();
    stage.variable("XDG_RUNTIME_DIR", &folder);
    let words = |verb: &'static str, span: &'static str| {
        [verb, "--set", "log_file=ph.log", "--set", "min_uptime=0.1", "--", "sleep", span]
    };
    assert_eq!(told(&stage, &words("start", "1001")).0, 0);
    assert_eq!(told(&stage, &words("start", "1002")).0, 0);
    let [first, second] = ["ph/sleep.pid", "ph/sleep.2.pid"];
    let [one, two] = [first, second].map(|name| master_of(&stage, name));
    let (code, stdout, stderr) = told(&stage, &words("restart", "1002"));
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.ends_with(", instance 2\n"), "{stdout}");
    let left =
        format!("note: sleep (pid {}) runs sleep 1001, in {folder} and is left alone\n", one.0);
    assert_eq!(stderr, left);
    assert!(one.is_alive() && !two.is_alive());
    let two = master_of(&stage, second);
    let (code, stdout, stderr) = told(&stage, &words("restart", "1003"));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("runs sleep 1001, ") && stderr.contains(" sleep@1, or "), "{stderr}");
    assert!(one.is_alive() && two.is_alive());
    stop(&stage, first);
    stop(&stage, second);
}

/// Nobody tells a new configuration where the master of the old one has its files; that one says whose it is.
#[test]
fn a_master_with_a_former_pidfile_is_found() {
    let stage = ph();
    let common = "min_uptime = 0.1\ncommand = sleep 1001";
    stage.configure(common);
    assert_eq!(told(&stage, &["start", "-c", "config.ini"]).0, 0);
    let old = master_of(&stage, "ph.pid");
    // `configure` writes a pidfile first.
    let text = stage.read("config.ini").replace("ph.pid", "other.pid");
    std::fs::write(stage.path("config.ini"), text).expect("a configuration");
    let elsewhere = format!("(pid {}) has another pidfile: ", old.0);
    for (words, wanted, what) in [
        (&["status"][..], 0, "running"),
        (&["reload"], 153, "pidfile needs a restart"),
        (&["scale", "2"], 0, "2 of 2 workers"),
    ] {
        let said = client(&stage, &[], &[words, &["-c", "config.ini"]].concat());
        assert_eq!(said.code, wanted, "{}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(&elsewhere), "{}", said.stderr);
        assert!([said.stdout, said.stderr].concat().contains(what));
    }
    let (code, _, stderr) = told(&stage, &["start", "-c", "config.ini"]);
    assert!(code == 154 && stderr.contains("with another pidfile: "), "{code} {stderr}");
    // One that was given a place of its own is another service.
    let beside = ["-c", "config.ini", "--set", "pidfile=beside.pid"];
    assert_eq!(told(&stage, &[&["start"][..], &beside].concat()).0, 0);
    let (code, _, stderr) = restart(&stage, &[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(!old.is_alive() && !stage.path("ph.pid").exists());
    assert!(master_of(&stage, "beside.pid").is_alive());
    stop(&stage, "beside.pid");
    stop(&stage, "other.pid");
    // As many as there were, each with its number.
    let several = |pidfile: &str| {
        stage.configure(&format!("{common}\nsingle_instance = no"));
        let text = stage.read("config.ini").replace("ph.pid", pidfile);
        std::fs::write(stage.path("config.ini"), text).expect("a configuration");
    };
    several("ph.pid");
    for _ in 0..3 {
        assert_eq!(told(&stage, &["start", "-c", "config.ini"]).0, 0);
    }
    stop(&stage, "ph.pid");
    several("other.pid");
    let (code, stdout, stderr) = restart(&stage, &[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains(", instance 2\n") && stdout.contains(", instance 3\n"), "{stdout}");
    let all = stage.titled("ph: master [web]");
    assert_eq!(all.len(), 2);
    for pidfile in ["other.2.pid", "other.3.pid"] {
        assert!(all.contains(&master_of(&stage, pidfile)));
        stop(&stage, pidfile);
    }
}

#[test]
fn a_slow_stop_is_told_and_whoever_was_killed_once() {
    let stage = ph();
    let script = "trap : TERM; echo deaf; while :; do sleep 1; done";
    std::fs::write(stage.path("deaf.sh"), script).expect("a script");
    stage.configure("min_uptime = 0.1\ngraceful_timeout = 1\ncommand = sh deaf.sh");
    assert_eq!(told(&stage, &["start", "-c", "config.ini"]).0, 0);
    stage.log().wait_for("deaf");
    let (code, stdout, stderr) = restart(&stage, &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("web: ready, 1 worker"), "{stdout}");
    assert!(stderr.lines().all(|line| line.starts_with("web: ")), "{stderr}");
    assert_eq!(stderr.to_lowercase().matches("kill").count(), 1, "{stderr}");
    assert!(stderr.ends_with("web: stopped, exit code 0\n"), "{stderr}");
    let master = master_of(&stage, "ph.pid");
    for _ in 0..2 {
        master.send(Signal::SIGTERM);
    }
    eventually("the end of the master", || (!master.is_alive()).then_some(()));
}
