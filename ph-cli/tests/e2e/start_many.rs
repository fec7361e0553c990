//! `ph start` of several sections, `ph restart`, and `ph` without a verb.

use nix::sys::signal::Signal;

use crate::ph;
use crate::start::{master_of, stop, told};
use crate::support::{Stage, eventually};

fn configure(stage: &Stage, sections: &str) {
    let text = format!(
        "[DEFAULT]\ngraceful_timeout = 5\nlog_file = ph.log\nmin_uptime = 0.1\n\n{sections}"
    );
    std::fs::write(stage.path("config.ini"), text).expect("a configuration");
}

#[test]
fn all_with_autostart_are_started_in_the_order_of_their_dependencies() {
    let stage = ph();
    configure(
        &stage,
        "[web]\ncommand = sleep 1001\ndepends_on = cache, db\n\
         [cache]\ncommand = sleep 1002\ndepends_on = db\n\
         [tool]\nautostart = no\ncommand = sleep 1003\n\
         [db]\ncommand = sleep 1004\n",
    );
    let (code, stdout, stderr) = told(&stage, &["start", "-c", "config.ini"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let order: Vec<_> = stdout.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    assert_eq!(order, ["db", "cache", "web"]);
    assert!(!stage.path("tool.pid").exists());
    for pidfile in ["web.pid", "cache.pid", "db.pid"] {
        stop(&stage, pidfile);
    }
}

/// Each is told only when nobody needs it any more, and once, however often it is named.
#[test]
fn a_stop_takes_the_way_back() {
    let stage = ph();
    configure(
        &stage,
        "[db]\ncommand = sleep 1001\n[cache]\ncommand = sleep 1002\ndepends_on = db\n\
         [web]\ncommand = sleep 1003\ndepends_on = cache\n\
         [tool]\nautostart = no\ncommand = sleep 1004\n",
    );
    assert_eq!(told(&stage, &["start", "-c", "config.ini"]).0, 0);
    assert_eq!(told(&stage, &["start", "-c", "config.ini", "tool"]).0, 0);
    let old = master_of(&stage, "tool.pid");
    // What runs is restarted, also if it does not start by itself.
    assert_eq!(told(&stage, &["restart", "-c", "config.ini"]).0, 0);
    assert!(!old.is_alive() && master_of(&stage, "tool.pid").is_alive());
    let (code, stdout, stderr) = told(&stage, &["stop", "-c", "config.ini"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let mut order: Vec<_> =
        stdout.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    order.retain(|name| *name != "tool");
    assert_eq!(order, ["web", "cache", "db"]);
    assert!(stage.processes().is_empty(), "tool too: {stdout}");
    let (code, stdout, _) = told(&stage, &["start", "-c", "config.ini", "db"]);
    assert_eq!(code, 0, "{stdout}");
    let words = ["stop", "-c", "config.ini", "db", "db@1", "-s", "db"];
    let (code, stdout, stderr) = told(&stage, &words);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, "db: stopped, exit code 0\n");
}

#[test]
fn one_that_fails_takes_with_it_only_those_that_depend_on_it() {
    let stage = ph();
    configure(
        &stage,
        "[db]\ncommand = sh -c 'exit 9'\n[web]\ncommand = sleep 1001\ndepends_on = db\n\
         [job]\ncommand = sleep 1002\n",
    );
    stage.expect_error("the worker of every slot has died: giving up");
    let (code, stdout, stderr) = told(&stage, &["start", "-c", "config.ini"]);
    assert_eq!(code, 1, "the highest of all: {stderr}");
    assert!(stdout.starts_with("job: ready, 1 worker") && stdout.lines().count() == 1, "{stdout}");
    assert!(stderr.contains("cannot start db: worker "), "{stderr}");
    let skipped =
        "cannot start web: db, which it depends on, is not ready\n    set by config.ini:10";
    assert!(stderr.contains(skipped), "{stderr}");
    assert!(stage.titled("sleep 1001").is_empty());
    stop(&stage, "job.pid");
}

#[test]
fn a_bad_section_keeps_all_from_being_started() {
    let stage = ph();
    for (sections, wanted) in [
        ("[db]\ncommand = sleep 1\n[web]\ncommand = sleep 1\nnumber_workers = many\n", 6),
        (
            "[db]\ncommand = sleep 1\ndepends_on = web\n[web]\ncommand = sleep 1\ndepends_on = db\n",
            6,
        ),
        ("[db]\ncommand = sleep 1\n[web]\ncommand = sleep 1\ndepends_on = dv\n", 6),
        ("[db]\nautostart = no\ncommand = sleep 1\n", 6),
        ("[db]\ncommand = sleep 1\n[web]\ncommand = ./missing\n", 127),
        ("[db]\ncommand = sleep 1\n[web]\ncommand = sleep 1\ndirectory = no/such\n", 1),
    ] {
        configure(&stage, sections);
        let (code, stdout, stderr) = told(&stage, &["start", "-c", "config.ini"]);
        assert_eq!((code, stdout.as_str()), (wanted, ""), "{stderr}");
        assert!(stage.processes().is_empty());
    }
    let (code, _, stderr) = told(&stage, &["start", "-c", "config.ini", "nobody"]);
    assert_eq!(code, 5, "{stderr}");
    configure(
        &stage,
        "[db]\ncommand = sleep 1\ndepends_on = web\n[web]\ncommand = sleep 1\ndepends_on = db\n",
    );
    let (code, stdout, stderr) = told(&stage, &["check", "-c", "config.ini"]);
    assert_eq!(code, 6, "{stdout}{stderr}");
    assert!([stdout, stderr].concat().contains("db -> web -> db"));
}

#[test]
fn a_restart_stops_and_starts_and_a_bad_configuration_stops_nobody() {
    let stage = ph();
    stage.configure("number_workers = 1\nmin_uptime = 0.1\ncommand = sleep 1001");
    let words = ["restart", "-c", "config.ini", "web"];
    let (code, stdout, stderr) = told(&stage, &words);
    assert_eq!((code, stderr.as_str()), (0, ""), "it did not run: {stdout}");
    let old = master_of(&stage, "ph.pid");
    stage.configure("number_workers = 2\nmin_uptime = 0.1\ncommand = sleep 1002");
    let (code, stdout, stderr) = told(&stage, &words);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("web: ready, 2 workers"), "{stdout}");
    let new = master_of(&stage, "ph.pid");
    assert!(new != old && !old.is_alive());
    assert!(stage.titled("sleep 1001").is_empty());
    stage.configure("number_workers = many\ncommand = sleep 1002");
    let (code, _, stderr) = told(&stage, &words);
    assert_eq!(code, 6, "{stderr}");
    assert_eq!(master_of(&stage, "ph.pid"), new);
    assert!(new.is_alive());
    // The successor of one that was started by `restart` does not restart anything.
    stage.configure("number_workers = 2\nmin_uptime = 0.1\ncommand = sleep 1002");
    new.send(Signal::SIGUSR2);
    eventually("the end of the old master", || (!new.is_alive()).then_some(()));
    assert!(master_of(&stage, "ph.pid").is_alive());
    stop(&stage, "ph.pid");
}

/// What only a look at the machine shows: then nothing is stopped. What the master that runs has is no reason.
#[test]
fn a_restart_that_could_not_start_stops_nobody() {
    let stage = ph();
    let good = "min_uptime = 0.1\nbind = unix:web.sock\ncommand = sleep 1001";
    stage.configure(good);
    assert_eq!(told(&stage, &["start", "-c", "config.ini"]).0, 0);
    let old = master_of(&stage, "ph.pid");
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let bind = format!("bind = {}", held.local_addr().expect("its address"));
    let of_command = ["command = ./missing", "command = /etc/passwd"];
    let of_command = of_command.map(|line| (format!("min_uptime = 0.1\n{line}"), line));
    let of_others = [
        "directory = /nonexistent",
        "control_socket = /nonexistent/x.sock",
        "cpu_affinity = 900",
        "on_event = /nonexistent/hook",
        "ready = exec:/nonexistent/probe",
        &bind,
    ];
    let of_others = of_others.map(|line| (format!("command = sleep 1001\n{line}"), line));
    for (settings, line) in of_command.into_iter().chain(of_others) {
        stage.configure(&settings);
        let (code, stdout, stderr) = told(&stage, &["restart", "-c", "config.ini"]);
        assert!([1, 126, 127].contains(&code) && stdout.is_empty(), "{line}: {code} {stderr}");
        let key = line.split(' ').next().expect("a key");
        assert!(stderr.starts_with("ph: cannot start web: "), "{line}: {stderr}");
        assert!(stderr.contains(&format!(" {key}\n")), "{line}: {stderr}");
        assert!(stderr.ends_with("nothing was stopped\n"), "{line}: {stderr}");
        assert!(old.is_alive() && stage.titled("sleep 1001").len() == 1, "{line}");
    }
    stage.configure(good);
    let (code, _, stderr) = told(&stage, &["restart", "-c", "config.ini"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(!old.is_alive());
    stop(&stage, "ph.pid");
}

/// Each has what the other had.
#[test]
fn masters_that_are_restarted_together_may_change_places() {
    let stage = ph();
    let of = |db: &str, web: &str| {
        configure(
            &stage,
            &format!(
                "[db]\nbind = unix:{db}\ncommand = sleep 1001\n\
                 [web]\nbind = unix:{web}\ncommand = sleep 1002\n"
            ),
        );
    };
    of("a.sock", "b.sock");
    assert_eq!(told(&stage, &["start", "-c", "config.ini"]).0, 0);
    of("b.sock", "a.sock");
    let (code, _, stderr) = told(&stage, &["restart", "-c", "config.ini"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    stop(&stage, "db.pid");
    stop(&stage, "web.pid");
}

#[test]
fn without_a_verb_daemonize_decides() {
    let stage = ph();
    stage.configure("min_uptime = 0.1\ndaemonize = yes");
    let words = ["-c", "config.ini", "-s", "web", "--", "sleep", "1000"];
    let (code, stdout, stderr) = told(&stage, &words);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("web: ready, 1 worker "), "{stdout}");
    let old = master_of(&stage, "ph.pid");
    old.send(Signal::SIGUSR2);
    eventually("the end of the old master", || (!old.is_alive()).then_some(()));
    stop(&stage, "ph.pid");
    stage.configure("min_uptime = 0.1\ndaemonize = no");
    let master = stage.launch(&[], &words);
    stage.wait_titled("sleep 1000", 1);
    assert_eq!(master_of(&stage, "ph.pid"), master.process, "in the foreground");
    assert_eq!(master.stop(), 0);
}
