//! `ph start`: masters in the background, and what whoever waits for them is told.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::ph;
use crate::support::{Master, Process, Stage, eventually};

/// Runs `ph` to its end; its exit code, stdout and stderr.
pub(crate) fn told(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let number = stage.starts();
    let (code, stderr) = stage.launch(&[], arguments).wait_with_stderr();
    (code, stage.read(&format!("stdout.{number}")), stderr)
}

/// The master that a pidfile names.
pub(crate) fn master_of(stage: &Stage, pidfile: &str) -> Process {
    Process(stage.read(pidfile).trim().parse().expect("a pid"))
}

/// Tells a master to stop, and waits until nothing of it is left.
pub(crate) fn stop(stage: &Stage, pidfile: &str) {
    let master = master_of(stage, pidfile);
    master.send(Signal::SIGTERM);
    eventually("the end of the master", || (!master.is_alive()).then_some(()));
    assert!(!stage.path(pidfile).exists());
}

#[test]
fn a_service_is_ready_when_the_command_returns() {
    let stage = ph();
    stage.configure("number_workers = 2\nmin_uptime = 0.1\ncommand = sleep 1000");
    let (code, stdout, stderr) = told(&stage, &["start", "-c", "config.ini", "web"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let master = master_of(&stage, "ph.pid");
    let rest = stdout.strip_prefix("web: ready, 2 workers after ").expect("the line");
    assert!(rest.ends_with(&format!(" s, pid {}\n", master.0)), "{stdout}");
    assert_eq!(stage.titled("sleep 1000").len(), 2);
    assert_eq!(master.title(), "ph: master [web]");
    stage.log().wait_for("all workers are ready after");
    let (code, stdout, stderr) = told(&stage, &["start", "-c", "config.ini", "web"]);
    assert_eq!((code, stdout.as_str()), (154, ""));
    let first = format!("ph: cannot start web: already running: pid {} holds ", master.0);
    assert!(stderr.starts_with(&first), "{stderr}");
    assert!(stderr.contains("set by default single_instance"), "{stderr}");
    assert!(master.is_alive());
    stop(&stage, "ph.pid");
}

#[test]
fn it_tells_programs_in_json() {
    let stage = ph();
    stage.configure("min_uptime = 0.1\ncommand = sleep 1000");
    let (code, stdout, stderr) = told(&stage, &["start", "-c", "config.ini", "--json"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let pid = master_of(&stage, "ph.pid").0;
    let wanted = format!(
        "{{\"schema\":1,\"services\":[{{\"instance\":1,\"master_pid\":{pid},\"name\":\"web\",\
         \"state\":\"ready\",\"took_s\":"
    );
    assert!(stdout.starts_with(&wanted) && stdout.ends_with(",\"workers\":1}]}\n"), "{stdout}");
    let (code, stdout, stderr) = told(&stage, &["start", "-c", "config.ini", "--json"]);
    assert_eq!((code, stderr.as_str()), (154, ""));
    assert!(stdout.contains("\"error\":{\"code\":154,"), "{stdout}");
    stop(&stage, "ph.pid");
    let (code, stdout, _) = told(&stage, &["start", "-c", "none.ini", "--json"]);
    assert_eq!(code, 6);
    assert!(stdout.starts_with("{\"error\":{\"code\":6,"), "{stdout}");
}

#[test]
fn whatever_dies_at_boot_is_told_with_its_last_lines_and_nothing_is_left() {
    let stage = ph();
    stage.configure("number_workers = 2");
    stage.expect_error("the worker of every slot has died: giving up");
    let script = "for line in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $line; done; exit 9";
    let words = ["start", "-c", "config.ini", "--", "sh", "-c", script];
    let (code, stdout, stderr) = told(&stage, &words);
    assert_eq!((code, stdout.as_str()), (1, ""));
    let lines: Vec<_> = stderr.lines().filter(|line| !line.starts_with("web: ")).collect();
    assert!(lines[0].starts_with("ph: cannot start web: worker "), "{stderr}");
    assert!(lines[0].ends_with(" exited with code 9"), "{stderr}");
    assert_eq!(lines[1], "    the last it said:");
    let said = (3..=12).map(|line| format!("    | line {line}"));
    assert!(lines[2..].iter().copied().eq(said.collect::<Vec<_>>()), "{stderr}");
    assert!(stage.processes().is_empty());
    assert_eq!(stage.files(), ["ph.log"]);
}

#[test]
fn a_command_that_cannot_be_executed_has_its_code_and_its_three_parts() {
    let stage = ph();
    std::fs::write(stage.path("plain"), "").expect("a file");
    for (command, wanted) in [("./missing", 127), ("./plain", 126)] {
        stage.configure(&format!("command = {command}"));
        let (code, _, stderr) = told(&stage, &["start", "-c", "config.ini"]);
        assert_eq!(code, wanted, "{stderr}");
        assert!(stderr.starts_with("ph: cannot start web: exec "), "{stderr}");
        assert!(stderr.contains("set by config.ini:7 command\n    try: "), "{stderr}");
        assert!(stage.processes().is_empty());
    }
    stage.configure("command = sleep 1000\nlog_file = no/such/folder/ph.log");
    let (code, _, stderr) = told(&stage, &["start", "-c", "config.ini"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("config.ini:8 log_file"), "{stderr}");
    stage.configure("command = sleep 1000\nnumber_workers = many");
    let (code, _, stderr) = told(&stage, &["start", "-c", "config.ini"]);
    assert_eq!(code, 6, "{stderr}");
    assert!(!stage.path("ph.pid").exists());
}

/// One of two slots never comes up; the other does not make up for it.
#[test]
fn a_boot_that_takes_too_long_is_ended_with_152() {
    let stage = ph();
    stage.configure("number_workers = 2\nmin_uptime = 0.1\nbackoff_min = 0.2\nboot_timeout = 600");
    stage.expect_error("not all workers were ready in time: giving up");
    stage.allow_error("is in a crash loop");
    let script = "[ $PH_SLOT = 0 ] && exec sleep 1000; echo no luck; exit 1";
    let words = ["start", "-c", "config.ini", "--timeout", "4s", "--", "sh", "-c", script];
    let (code, stdout, stderr) = told(&stage, &words);
    assert_eq!((code, stdout.as_str()), (152, ""), "{stderr}");
    assert!(stderr.contains("web: 1 of 2 workers ready\n"), "{stderr}");
    let reason = "ph: cannot start web: not all workers were ready in time: worker 1 (pid ";
    assert!(stderr.contains(reason) && stderr.contains(" exited with code 1\n"), "{stderr}");
    assert!(stderr.ends_with("    | no luck\n"), "{stderr}");
    assert!(stage.processes().is_empty());
    assert_eq!(stage.files(), ["ph.log"]);
}

#[test]
fn without_waiting_it_returns_when_the_master_has_its_pidfile() {
    let stage = ph();
    stage.configure("min_uptime = 5\ncommand = sleep 1000");
    let (code, stdout, stderr) = told(&stage, &["start", "-c", "config.ini", "--no-wait"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let master = master_of(&stage, "ph.pid");
    assert_eq!(stdout, format!("web: running, pid {}\n", master.0));
    stop(&stage, "ph.pid");
}

/// It has a session and no terminal, cannot get one, and is nobody's but init's; and of what the caller had
/// open nothing is left in any of its processes.
#[test]
fn nothing_ties_it_to_whoever_has_started_it() {
    let stage = ph();
    stage.configure("number_workers = 2\nmin_uptime = 0.1\ncommand = sleep 1000");
    let inherited = stage.path("slipped");
    let script = format!(
        "exec 7>{} 8<config.ini; shown=$(\"$@\" 2>&1); echo \"$? $shown\"",
        inherited.display()
    );
    let number = stage.starts();
    let wrapper = ["sh", "-c", &script, "sh"];
    let shell = stage.launch(&wrapper, &["start", "-c", "config.ini"]);
    assert_eq!(shell.wait(), 0);
    let shown = stage.read(&format!("stdout.{number}"));
    assert!(shown.starts_with("0 web: ready, 2 workers"), "{shown}");
    let master = master_of(&stage, "ph.pid");
    let (session, terminal) = (master.stat(6).expect("a session"), master.stat(7));
    assert_ne!(session, master.0.to_string(), "it leads none, so it never gets a terminal");
    let own = Process::own().stat(6).expect("a session");
    assert_ne!(session, own, "that of the caller");
    assert_eq!(terminal.as_deref(), Some("0"));
    let all = stage.processes();
    assert_eq!(all.len(), 5, "master, warden, log process and two workers");
    for process in all {
        let descriptors = process.descriptors();
        assert_eq!(descriptors.get(&0).map(String::as_str), Some("/dev/null"));
        for (number, target) in descriptors {
            let is_callers = ["stdout.", "stderr.", "slipped", "config.ini"];
            let is_callers = is_callers.iter().any(|name| target.contains(name));
            assert!(!is_callers, "{}: {number} is {target}", process.title());
        }
    }
    // The pipe of `$( … )` would have kept the shell, had anybody had its other end.
    stop(&stage, "ph.pid");
}

#[test]
fn it_goes_on_when_whoever_waits_is_interrupted() {
    let stage = ph();
    stage.configure("min_uptime = 5\ncommand = sleep 1000");
    let caller = stage.launch(&[], &["start", "-c", "config.ini"]);
    eventually("a worker", || (stage.titled("sleep 1000").len() == 1).then_some(()));
    caller.send(Signal::SIGINT);
    assert_eq!(caller.wait(), -(Signal::SIGINT as i32));
    stage.log().wait_for("all workers are ready");
    assert!(master_of(&stage, "ph.pid").is_alive());
    stop(&stage, "ph.pid");
}

/// A master that is killed says nothing, and is not waited for.
#[test]
fn a_master_that_is_killed_at_boot_is_a_failure_at_once() {
    let stage = ph();
    stage.configure("min_uptime = 50\ncommand = sleep 1000");
    let number = stage.starts();
    let caller = stage.launch(&[], &["start", "-c", "config.ini"]);
    eventually("a worker", || (stage.titled("sleep 1000").len() == 1).then_some(()));
    master_of(&stage, "ph.pid").send(Signal::SIGKILL);
    let (code, stderr) = caller.wait_with_stderr();
    assert_eq!((code, stage.read(&format!("stdout.{number}")).as_str()), (1, ""));
    assert!(stderr.contains("its master ended without a word"), "{stderr}");
    stage.wait_empty();
    for left in ["ph.pid", "ph.lock", "ph.sock"] {
        std::fs::remove_file(stage.path(left)).expect("what a killed master leaves");
    }
}

#[test]
fn one_that_is_told_to_stop_at_boot_was_not_started() {
    let stage = ph();
    stage.configure("min_uptime = 50\ncommand = sleep 1000");
    let caller = stage.launch(&[], &["start", "-c", "config.ini"]);
    eventually("a worker", || (stage.titled("sleep 1000").len() == 1).then_some(()));
    master_of(&stage, "ph.pid").send(Signal::SIGTERM);
    let (code, stderr) = caller.wait_with_stderr();
    assert_eq!(code, 1);
    assert!(stderr.contains("it was stopped before it was ready"), "{stderr}");
}

#[test]
fn of_many_starts_at_once_one_wins_and_the_others_are_refused() {
    let stage = ph();
    stage.configure("number_workers = 2\nmin_uptime = 0.1\ncommand = sleep 1000");
    let callers: Vec<_> =
        (0..20).map(|_| stage.launch(&[], &["start", "-c", "config.ini"])).collect();
    let mut codes: Vec<_> = callers.into_iter().map(Master::wait_with_stderr).collect();
    codes.sort();
    assert_eq!(codes.iter().filter(|(code, _)| *code == 0).count(), 1, "{codes:?}");
    assert!(codes[1..].iter().all(|(code, _)| *code == 154), "{codes:?}");
    assert_eq!(stage.titled("ph: master [web]"), [master_of(&stage, "ph.pid")]);
    stage.wait_titled("sleep 1000", 2);
    stop(&stage, "ph.pid");
}

/// The log on stderr: kept where that is a file, else given back, with a warning.
#[test]
fn a_log_on_stderr_goes_on_in_a_file_and_nowhere_else() {
    let stage = ph();
    stage.configure("min_uptime = 0.1\ncommand = sleep 1000\nlog_file = -");
    let words = ["start", "-c", "config.ini"];
    let (code, stdout, stderr) = told(&stage, &words);
    assert_eq!(code, 0);
    assert!(stdout.starts_with("web: ready"), "{stdout}");
    assert!(stderr.contains(" is ready after "), "a file: {stderr}");
    stop(&stage, "ph.pid");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ph"));
    command.args(words).current_dir(stage.folder()).env_clear().envs(stage.variables());
    command.stdin(Stdio::null()).stdout(File::create(stage.path("out")).expect("a file"));
    // It reads until every copy of the pipe is closed.
    let output = command.stderr(Stdio::piped()).output().expect("the program");
    let stderr = String::from_utf8(output.stderr).expect("text");
    let warning =
        "warning: the log of web goes nowhere: in the background it has no stderr; set log_file\n";
    assert_eq!(stderr, warning);
    assert!(output.status.success());
    stop(&stage, "ph.pid");
}

#[test]
fn an_upgrade_stays_in_the_background_and_keeps_to_its_section() {
    let stage = ph();
    let text = "[DEFAULT]\ngraceful_timeout = 5\nlog_file = ph.log\nmin_uptime = 0.1\n\
                [db]\ncommand = sleep 1001\n[web]\ncommand = sleep 1002\ndepends_on = db\n";
    std::fs::write(stage.path("config.ini"), text).expect("a configuration");
    let (code, stdout, stderr) = told(&stage, &["start", "-c", "config.ini"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("db: ready, 1 worker "), "{stdout}");
    for _ in 0..2 {
        let (db, old) = (master_of(&stage, "db.pid"), master_of(&stage, "web.pid"));
        old.send(Signal::SIGUSR2);
        eventually("the end of the old master", || (!old.is_alive()).then_some(()));
        let new = master_of(&stage, "web.pid");
        assert!(new != old && new.is_alive());
        assert_eq!(new.title(), "ph: master [web]");
        assert_eq!(new.stat(7).as_deref(), Some("0"));
        stage.wait_titled("sleep 1002", 1);
        assert_eq!(master_of(&stage, "db.pid"), db);
        assert_eq!(stage.titled("ph: master [db]"), [db]);
    }
    stop(&stage, "web.pid");
    stop(&stage, "db.pid");
}

#[test]
fn a_service_without_a_file_goes_to_the_background_too() {
    let mut stage = ph();
    let folder = stage.folder().to_str().expect("text").to_owned();
    stage.variable("XDG_RUNTIME_DIR", &folder);
    std::fs::remove_file(stage.path("config.ini")).expect("the configuration");
    let words = ["start", "-n", "2", "--set", "log_file=ph.log", "--set", "min_uptime=0.1"];
    let (code, stdout, stderr) = told(&stage, &[&words[..], &["--", "sleep", "1000"]].concat());
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("sleep: ready, 2 workers after "), "{stdout}");
    let old = master_of(&stage, "ph/sleep.pid");
    old.send(Signal::SIGUSR2);
    eventually("the end of the old master", || (!old.is_alive()).then_some(()));
    stage.wait_titled("sleep 1000", 2);
    stop(&stage, "ph/sleep.pid");
}

/// A master that neither has a verdict nor ends is given up; when it goes on, it judges itself.
#[test]
fn a_master_that_hangs_at_boot_does_not_hang_whoever_waits() {
    let stage = ph();
    stage.configure(
        "boot_timeout = 60\nmin_uptime = 50\ngraceful_timeout = 1\ncommand = sleep 1000",
    );
    stage.expect_error("not all workers were ready in time: giving up");
    let caller = stage.launch(&[], &["start", "-c", "config.ini", "--timeout", "1s"]);
    eventually("a worker", || (stage.titled("sleep 1000").len() == 1).then_some(()));
    let master = master_of(&stage, "ph.pid");
    master.send(Signal::SIGSTOP);
    let (code, stderr) = caller.wait_with_stderr();
    assert_eq!(code, 152, "{stderr}");
    assert!(stderr.contains("no verdict after "), "{stderr}");
    assert!(stderr.ends_with(&format!("try: kill {}\n", master.0)), "{stderr}");
    assert!(master.is_alive());
    master.send(Signal::SIGCONT);
    stage.wait_empty();
    assert_eq!(stage.files(), ["ph.log"]);
}

#[test]
fn fault_67_under_an_empty_umask_nobody_else_may_write_what_it_makes() {
    let stage = ph();
    stage.configure(
        "min_uptime = 0.1\nworker_log_file = worker.log\n\
         command = sh -c 'echo hello; exec sleep 1000'",
    );
    let wrapper = ["sh", "-c", "umask 0; exec \"$@\"", "sh"];
    let caller = stage.launch(&wrapper, &["start", "-c", "config.ini"]);
    assert_eq!(caller.wait_with_stderr(), (0, String::new()));
    let master = master_of(&stage, "ph.pid");
    master.send(Signal::SIGUSR2);
    eventually("the end of the old master", || (!master.is_alive()).then_some(()));
    eventually("what the worker prints", || stage.path("worker.log").exists().then_some(()));
    let made: Vec<_> = std::fs::read_dir(stage.folder()).expect("the folder").collect();
    let made = made.into_iter().map(|entry| entry.expect("an entry").path());
    let given = ["config.ini", "stdout.0", "stderr.0"];
    for path in made.filter(|path| !given.iter().any(|name| path.ends_with(name))) {
        let mode = path.metadata().expect("the file").permissions().mode();
        assert_eq!(mode & 0o022, 0, "{}: {mode:o}", path.display());
    }
    stop(&stage, "ph.pid");
}

/// As by some programs that start others at boot.
#[test]
fn it_can_be_started_without_standard_streams() {
    let stage = ph();
    stage.configure("min_uptime = 0.1\ncommand = sleep 1000");
    let wrapper = ["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"];
    let caller = stage.launch(&wrapper, &["start", "-c", "config.ini"]);
    assert_eq!(caller.wait_with_stderr(), (0, String::new()));
    for process in stage.processes() {
        for number in 0..=2 {
            let target = process.descriptors().remove(&number).unwrap_or_default();
            let is_its_own = target == "/dev/null" || target.starts_with("pipe:");
            assert!(is_its_own, "{}: {number} is {target:?}", process.title());
        }
    }
    stop(&stage, "ph.pid");
}
