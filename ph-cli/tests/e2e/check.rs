//! `ph check`: all that would keep services from starting, in one pass that leaves no trace.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ph;
use crate::snapshot::assert_snapshot;
use crate::support::{Stage, require, timed};

/// What a check said.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Checks, and sees that the folder is afterwards what it was before.
fn check(stage: &Stage, wrapper: &[&str], arguments: &[&str]) -> Said {
    let before = listing(stage.folder());
    let arguments: Vec<_> = ["check"].into_iter().chain(arguments.iter().copied()).collect();
    let ((code, stderr), took) = timed(|| stage.launch(wrapper, &arguments).wait_with_stderr());
    assert!(took < Duration::from_secs(10), "{arguments:?} took {took:?}");
    assert_eq!(listing(stage.folder()), before, "something was left behind");
    let outputs = std::fs::read_dir(stage.folder()).expect("the folder");
    let names = outputs.map(|it| it.expect("an entry").file_name().into_string().expect("a name"));
    let last = names.filter_map(|it| it.strip_prefix("stdout.")?.parse::<u32>().ok()).max();
    let stdout = stage.read(&format!("stdout.{}", last.expect("an output")));
    Said { code, stdout, stderr }
}

/// All below a folder, with what would change if somebody touched it; but for the outputs of programs.
fn listing(folder: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if ["stdout.", "stderr."].iter().any(|output| name.starts_with(output)) {
            continue;
        }
        let it = path.symlink_metadata().expect("metadata");
        if it.is_dir() {
            found.extend(listing(&path));
        }
        found.insert(path, (it.ino(), it.len(), it.mtime(), it.mtime_nsec()));
    }
    found
}

fn write(stage: &Stage, name: &str, text: &str, mode: u32) {
    std::fs::write(stage.path(name), text).expect("a file");
    set_mode(&stage.path(name), mode);
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
}

/// A port that nobody has now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

const AS_NOBODY: [&str; 4] = [
    "sh",
    "-c",
    "shift; exec setpriv --reuid=65534 --regid=65534 --clear-groups ./ph \"$@\"",
    "sh",
];

/// A stage in which every user of the machine may run a copy of the program, but not make files.
fn open_to_all() -> Stage {
    let stage = ph();
    std::fs::copy(env!("CARGO_BIN_EXE_ph"), stage.path("ph")).expect("a copy");
    set_mode(&stage.path("ph"), 0o755);
    set_mode(stage.folder(), 0o755);
    stage
}

#[test]
fn what_would_start_is_ok_and_nothing_is_made() {
    let stage = ph();
    write(&stage, "server", "#!/bin/sh\nexec sleep 1000\n", 0o755);
    let config = format!(
        "[web]\ncommand = ./server\nnumber_workers = 2\nlog_file = web.log\nbind = :{}, unix:app.sock\n\
         ready_interval = 5s\nmax_requests = 100\n\n[jobs]\ncommand = sleep 1000\nrlimit_nofile = 64\n",
        free_port()
    );
    write(&stage, "config.ini", &config, 0o644);
    let said = check(&stage, &[], &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_snapshot("check-ok.txt", &stage, &format!("{}--\n{}", said.stdout, said.stderr));
    for one in [&["jobs"][..], &["-s", "jobs"], &["-c", "config.ini", "jobs", "jobs"]] {
        let said = check(&stage, &[], one);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{one:?}");
        assert_eq!(said.stdout, "jobs: ok (1 worker of sleep, log to stderr)\n");
    }
}

#[test]
fn all_problems_of_a_file_are_told_in_one_pass() {
    require(&["setpriv"]);
    let stage = ph();
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = held.local_addr().expect("an address").port();
    std::fs::create_dir(stage.path("folder")).expect("a folder");
    write(&stage, "no-interpreter", "#!/no/such/interpreter\n", 0o755);
    write(&stage, "no-program", "\u{1}\u{2}", 0o755);
    write(&stage, "env-script", "#!/usr/bin/env no-such-language\n", 0o755);
    let precious = "what nobody may lose\n".repeat(10);
    write(&stage, "precious", &precious, 0o644);
    let config = format!(
        "[a]\ncommand = ./missing\nlog_file = folder\npidfile = nowhere/a.pid\n\
         bind = 127.0.0.1:{port}, unix:precious, unix:nowhere/s.sock, :{port}\n\
         rlimit_nofile = 3\ncpu_affinity = 1023\nuser = no-such-user\ngroup = no-such-group\n\
         [b]\ncommand = ./no-interpreter\npidfile = precious\nrlimit_nofile = 99999999999\n\
         [c]\ncommand = ./no-program\npidfile = folder\n\
         [d]\nnumber_workers = many\nlog_level = loud\n\
         [e]\ncommand = ./env-script\n\
         [f]\nnumber_workers = 2\ndirectory = nowhere\n"
    );
    write(&stage, "config.ini", &config, 0o644);
    let said = check(&stage, &[], &[]);
    assert_eq!(said.code, 6);
    assert_eq!(said.stdout, "");
    let text = said.stderr.replace(&port.to_string(), "$PORT");
    let own = std::process::id();
    let (before, after) = text.split_once(&format!("pid {own} (")).expect("who has the port");
    let (name, after) = after.split_once(')').expect("its name");
    assert!(!name.is_empty());
    let text = format!("{before}pid $PID ($NAME){after}").replace(&own.to_string(), "$PID");
    assert_snapshot("check-problems.txt", &stage, &text);
    assert_eq!(stage.read("precious"), precious);
}

#[test]
fn lines_that_are_not_understood_do_not_hide_the_rest_of_a_section() {
    let stage = ph();
    write(&stage, "config.ini", "[web]\nnonsense\nnumber_workers = many\n", 0o644);
    let said = check(&stage, &[], &[]);
    assert_eq!(said.code, 6);
    assert_snapshot("check-syntax.txt", &stage, &said.stderr);
    for (text, wanted) in [("", "got none"), ("[DEFAULT]\nlog_level = info\n", "got none")] {
        write(&stage, "config.ini", text, 0o644);
        let said = check(&stage, &[], &[]);
        assert_eq!(said.code, 6);
        assert!(said.stderr.contains(wanted), "{}", said.stderr);
    }
    write(&stage, "config.ini", "[a]\ncommand = sleep 1\n[b]\ncommand = sleep 1\n", 0o644);
    let said = check(&stage, &[], &["b", "wbe", "a"]);
    assert_eq!(said.code, 5);
    assert!(said.stderr.contains("a section \"wbe\""), "{}", said.stderr);
    assert_eq!(said.stdout.lines().count(), 2, "{}", said.stdout);
}

#[test]
fn sections_that_share_what_only_one_can_have_are_named_with_both_lines() {
    let stage = ph();
    let port = free_port();
    let config = format!(
        "[DEFAULT]\ncommand = sleep 1000\nlog_file = all.log\n\
         [a]\npidfile = run.pid\nbind = 127.0.0.1:{port}, unix:a.sock\n\
         [b]\npidfile = run\nlog_file = b.log\nbind = :{port}\nunix_socket = a.sock\n\
         [c]\npidfile = b.log\n\
         [d]\nlog_file = d.log\n"
    );
    write(&stage, "config.ini", &config, 0o644);
    let said = check(&stage, &[], &[]);
    assert_eq!(said.code, 6);
    let text = format!("{}--\n{}", said.stdout, said.stderr).replace(&port.to_string(), "$PORT");
    assert_snapshot("check-shared.txt", &stage, &text);
    assert_eq!(check(&stage, &[], &["a", "d"]).code, 0);
}

#[test]
fn a_service_that_runs_is_ok_and_does_not_notice() {
    let stage = ph();
    let port = free_port();
    let lines =
        format!("command = sleep 1000\nmin_uptime = 0.1\nbind = :{port}\nunix_socket = w.sock");
    stage.configure(&lines);
    let master = stage.start(&[]);
    stage.log().wait_ready(1);
    let before = stage.log().lines().len();
    let said = check(&stage, &[], &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let wanted = format!("running as master {}\n", master.process.0);
    assert!(said.stdout.ends_with(&wanted), "{}", said.stdout);
    let said = check(&stage, &[], &["--json"]);
    let pid = master.process.0;
    let wanted_json =
        format!("\"running_pid\":{pid},\"running\":[{{\"instance\":1,\"pid\":{pid}}}]");
    assert!(said.stdout.contains(&wanted_json), "{}", said.stdout);
    // Another service has none of that.
    let other =
        format!("[other]\ncommand = sleep 1\nbind = 127.0.0.1:{port}\nunix_socket = w.sock\n");
    write(&stage, "other.ini", &other, 0o644);
    let said = check(&stage, &[], &["-c", "other.ini"]);
    assert_eq!(said.code, 6);
    let holder = format!("pid {} (ph", master.process.0);
    assert_eq!(said.stderr.matches(&holder).count(), 2, "{}", said.stderr);
    // And instances side by side are counted.
    let said = {
        stage.configure(&format!("{lines}\nsingle_instance = no"));
        check(&stage, &[], &[])
    };
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.ends_with(&wanted), "{}", said.stdout);
    assert_eq!(stage.log().lines().len(), before);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_program_is_judged_as_the_user_who_will_execute_it() {
    require(&["setpriv"]);
    let stage = open_to_all();
    for folder in ["private", "open"] {
        std::fs::create_dir(stage.path(folder)).expect("a folder");
    }
    write(&stage, "private/program", "#!/bin/sh\n", 0o755);
    write(&stage, "open/roots-alone", "#!/bin/sh\n", 0o700);
    let interpreter = stage.path("private/program").display().to_string();
    write(&stage, "open/script", &format!("#!{interpreter}\n"), 0o755);
    write(&stage, "open/program", "#!/bin/sh\n", 0o755);
    set_mode(&stage.path("private"), 0o700);
    let sections = ["private/program", "open/roots-alone", "open/script", "open/program"];
    let sections = sections.map(|it| format!("[{}]\ncommand = ./{it}\n", it.replace('/', "-")));
    let config = format!("[DEFAULT]\nuser = nobody\n{}", sections.concat());
    write(&stage, "config.ini", &config, 0o644);
    let said = check(&stage, &[], &[]);
    assert_eq!(said.code, 6);
    let text = format!("{}--\n{}", said.stdout, said.stderr);
    assert_snapshot("check-user.txt", &stage, &text);
}

#[test]
fn a_user_who_may_not_do_what_is_asked_for_is_told_all_of_it() {
    require(&["setpriv"]);
    let stage = open_to_all();
    std::fs::create_dir(stage.path("private")).expect("a folder");
    write(&stage, "private/program", "#!/bin/sh\n", 0o755);
    set_mode(&stage.path("private"), 0o700);
    stage.configure(
        "command = ./private/program\nuser = root\nnice = -5\noom_score_adj = -1000\n\
         rlimit_nofile = 99999999999",
    );
    let said = check(&stage, &AS_NOBODY, &[]);
    assert_eq!(said.code, 6);
    assert_snapshot("check-not-root.txt", &stage, &said.stderr);
    stage.configure("command = sleep 1000");
    set_mode(stage.folder(), 0o777);
    let said = check(&stage, &AS_NOBODY, &[]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
}

/// Whoever can change what root executes is root.
#[test]
fn a_program_that_others_may_write_is_refused_to_root() {
    require(&["setpriv"]);
    let stage = ph();
    write(&stage, "program", "#!/bin/sh\nexec sleep 1000\n", 0o757);
    stage.configure("command = ./program\nmin_uptime = 0.1");
    let said = check(&stage, &[], &[]);
    assert_eq!(said.code, 6);
    assert_snapshot("check-writable.txt", &stage, &said.stderr);
    let (code, stderr) = stage.launch(&[], &["run", "-c", "config.ini"]).wait_with_stderr();
    assert_eq!(code, 1);
    assert_eq!(stderr, said.stderr);
    let said = check(&stage, &[], &["--allow-writable"]);
    assert_eq!(said.code, 0);
    assert!(said.stderr.starts_with("ph: warning for web: everybody may write"));
    let master = stage.launch(&[], &["run", "-c", "config.ini", "--allow-writable"]);
    stage.log().wait_ready(1);
    assert_eq!(stage.log().with("everybody may write").len(), 1);
    assert_eq!(master.stop(), 0);
}

#[test]
fn programs_are_answered_in_json_alone() {
    let stage = ph();
    let config =
        "[a]\ncommand = ./missing\nready_interval = 5\n[b]\ncommand = sleep 1\n[c]\nbind = x\n";
    write(&stage, "config.ini", config, 0o644);
    let said = check(&stage, &[], &["--json"]);
    assert_eq!((said.code, said.stderr.as_str()), (6, ""));
    assert_snapshot("check.json", &stage, &said.stdout);
    std::fs::remove_file(stage.path("config.ini")).expect("the configuration");
    let said = check(&stage, &[], &["--json"]);
    assert_eq!((said.code, said.stderr.as_str()), (6, ""));
    assert_snapshot("check-none.json", &stage, &said.stdout);
}

#[test]
fn what_a_file_says_cannot_steer_the_terminal() {
    let stage = ph();
    write(&stage, "config.ini", "[web]\ncommand = './a\u{1b}[31m\u{202e}b'\n", 0o644);
    let said = check(&stage, &[], &[]);
    assert_eq!(said.code, 6);
    assert!(said.stderr.contains("a\\u{1b}[31m\\u{202e}b"), "{}", said.stderr);
    assert!(!said.stderr.contains('\u{1b}') && !said.stderr.contains('\u{202e}'));
}
