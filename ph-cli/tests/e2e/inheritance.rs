//! What a command finds when it starts: descriptors, signals, environment, folder.

use crate::ph;
use crate::support::{Master, Process, Stage, Worker, environment};

/// One `sleep` of the section `web`, with these lines in its configuration.
fn sleeping(stage: &Stage, wrapper: &[&str], lines: &str) -> (Master, Worker) {
    stage.configure(&format!("command = sleep 1000\nmin_uptime = 0.1\n{lines}"));
    let master = stage.launch(wrapper, &["run", "-c", "config.ini"]);
    stage.log().wait_ready(1);
    let worker = master.wait_workers(1)[0];
    (master, worker)
}

#[test]
fn a_command_has_its_streams_its_listeners_and_nothing_else() {
    let stage = ph();
    // A stray of the caller: a descriptor without close-on-exec.
    let wrapper = ["sh", "-c", "exec 9</dev/null; exec \"$@\"", "sh"];
    let listeners = "bind = 127.0.0.1:0, unix:web.sock";
    let (master, worker) = sleeping(&stage, &wrapper, listeners);
    assert!(master.process.descriptors().contains_key(&9), "the stray is there");
    let descriptors = worker.process.descriptors();
    assert_eq!(descriptors.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(descriptors[&0], "/dev/null");
    assert!(descriptors[&1].starts_with("pipe:") && descriptors[&2].starts_with("pipe:"));
    assert_ne!(descriptors[&1], descriptors[&2], "a pipe for each stream");
    assert!(descriptors[&3].starts_with("socket:") && descriptors[&4].starts_with("socket:"));
    const NONBLOCK: u32 = 0o4000;
    assert_eq!(flags(worker.process, 1) & NONBLOCK, 0, "blocking, as programs expect it");
    assert_eq!(flags(worker.process, 3) & NONBLOCK, 0, "blocking, as from systemd");
    assert_eq!(flags(worker.process, 4) & NONBLOCK, 0);
    let environment = worker.process.environment();
    assert_eq!(environment["LISTEN_FDS"], "2");
    assert_eq!(environment["LISTEN_PID"], worker.process.0.to_string());
    assert_eq!(environment["LISTEN_FDNAMES"], "web:web");
    assert_eq!(master.stop(), 0);
}

/// The lock, the log and the sockets must not become somebody's standard streams.
#[test]
fn closed_standard_streams_stay_what_they_were_and_nothing_takes_their_place() {
    let stage = ph();
    let wrapper = ["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"];
    let (master, worker) = sleeping(&stage, &wrapper, "bind = 127.0.0.1:0");
    let descriptors = master.process.descriptors();
    for stream in 0..=2 {
        assert_eq!(descriptors[&stream], "/dev/null", "{descriptors:?}");
    }
    let descriptors = worker.process.descriptors();
    assert_eq!(descriptors.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(descriptors[&1].starts_with("pipe:") && descriptors[&3].starts_with("socket:"));
    assert_eq!(master.stop(), 0);
}

fn flags(process: Process, fd: i32) -> u32 {
    let text = process.read(&format!("fdinfo/{fd}")).expect("the descriptor");
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
    u32::from_str_radix(flags.trim(), 8).expect("octal")
}

#[test]
fn a_commands_environment_is_the_operators_less_the_masters_plus_its_own() {
    let mut stage = ph();
    let before = stage.variables();
    environment::give_variables(&mut stage);
    let (master, worker) = sleeping(&stage, &[], "app_queue-name = jobs");
    let wanted = environment::of_first_worker(before, "web", &master);
    let mut found = worker.process.environment();
    let own = found.remove("NOTIFY_SOCKET").expect("an address of its own");
    assert!(own.starts_with("@ph/") && own.ends_with("/1"), "{own}");
    assert_eq!(found, wanted);
    assert_eq!(master.stop(), 0);
}

/// Nothing of what the caller blocked or ignored, nor of what Rust's runtime ignores (SIGPIPE).
#[test]
fn a_command_has_every_signal_at_its_default_and_none_blocked() {
    let stage = ph();
    let wrapper =
        ["env", "--block-signal=TERM,USR1,CHLD", "--ignore-signal=HUP,QUIT,PIPE,ABRT,USR2"];
    let (master, worker) = sleeping(&stage, &wrapper, "");
    let mask = |name| u64::from_str_radix(&worker.process.status(name), 16).expect("a mask");
    assert_eq!(mask("SigBlk"), 0);
    assert_eq!(mask("SigCgt"), 0);
    // The C library keeps the first real-time signals for itself and lets nobody touch them.
    assert_eq!(mask("SigIgn") & 0x7fff_ffff, 0);
    assert_eq!(master.stop(), 0);
}

#[test]
fn a_command_leads_its_own_session_and_group_in_the_folder_it_was_given() {
    let stage = ph();
    std::fs::create_dir(stage.path("there")).expect("a folder");
    let (master, worker) = sleeping(&stage, &[], "directory = there");
    let pid = worker.process.0.to_string();
    assert_eq!(worker.process.stat(5).as_deref(), Some(pid.as_str()), "its group");
    assert_eq!(worker.process.stat(6).as_deref(), Some(pid.as_str()), "its session");
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).expect("its folder");
    assert_eq!(folder, stage.path("there").canonicalize().expect("the folder"));
    assert_eq!(master.stop(), 0);
}

/// The master raises its own limit; the commands get what the operator had set.
#[test]
fn a_command_has_the_operators_descriptor_limit() {
    let stage = ph();
    let (master, worker) = sleeping(&stage, &["sh", "-c", "ulimit -Sn 99; exec \"$@\"", "sh"], "");
    let limit = |process: Process| {
        let limits = process.read("limits").expect("limits");
        let line = limits.lines().find(|line| line.starts_with("Max open files"));
        let words = line.expect("the limit").split_whitespace();
        words.skip(3).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let [soft, hard] = &limit(worker.process)[..] else { panic!("two limits") };
    assert_eq!(soft, "99");
    assert_eq!(limit(master.process), [hard.as_str(), hard.as_str()]);
    assert_eq!(master.stop(), 0);
}
