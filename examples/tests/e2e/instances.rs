//! One master or several: the lock decides. And masters that were killed.

use nix::sys::signal::Signal;

use crate::misbehave;
use crate::support::{Client, Master, Process, Stage, eventually};

/// The exit code of a start that finds another one running.
const ALREADY_RUNNING: i32 = 154;

#[test]
fn a_second_single_instance_is_refused_and_names_the_first() {
    let stage = misbehave();
    let master = stage.start(&[]);
    stage.log().wait_ready(1);
    let holder = master.process.0;
    refused(&stage, holder);
    // The lock decides, not the pidfile; and not the name of the lock either.
    std::fs::remove_file(stage.path("ph.pid")).expect("the pidfile");
    refused(&stage, holder);
    assert_eq!(master.workers().len(), 1);
    assert_eq!(master.stop(), 0);
    assert_eq!(stage.files(), ["ph.log"]);
}

fn refused(stage: &Stage, holder: i32) {
    let (code, stderr) = stage.start(&[]).wait_with_stderr();
    assert_eq!(code, ALREADY_RUNNING);
    assert!(stderr.contains(&format!("already running: pid {holder} holds ")), "{stderr}");
    assert!(stderr.contains("ph.lock"), "{stderr}");
}

#[test]
fn instances_run_side_by_side_with_numbered_files() {
    let stage = misbehave();
    let start = || {
        let master = stage.start(&["single_instance=false", "app_behaviour=ok"]);
        eventually("its pidfile", || {
            let is_its = |name: &String| {
                name.ends_with(".pid") && stage.read(name).trim() == master.process.0.to_string()
            };
            stage.files().into_iter().find(is_its).map(|name| (name, ()))
        });
        master
    };
    let (first, second, third) = (start(), start(), start());
    let pid = |master: &Master| format!("{}\n", master.process.0);
    assert_eq!(stage.read("ph.pid"), pid(&first));
    assert_eq!(stage.read("ph.2.pid"), pid(&second));
    assert_eq!(stage.read("ph.3.pid"), pid(&third));
    assert_eq!(second.stop(), 0);
    assert!(!stage.path("ph.2.pid").exists() && !stage.path("ph.2.lock").exists());
    assert!(stage.path("ph.pid").exists() && stage.path("ph.3.pid").exists());
    let fourth = start();
    assert_eq!(stage.read("ph.2.pid"), pid(&fourth), "the lowest free number");
    for master in [first, third, fourth] {
        assert_eq!(master.stop(), 0);
    }
    assert_eq!(stage.files(), ["ph.log"]);
}

#[test]
fn of_twenty_started_at_once_exactly_one_runs() {
    let stage = misbehave();
    let mut masters: Vec<_> = (0..20).map(|_| stage.start(&["app_behaviour=ok"])).collect();
    stage.log().wait_ready(1);
    let holder = stage.read("ph.pid").trim().parse().expect("a pid");
    let position = masters.iter().position(|master| master.process == Process(holder));
    let winner = masters.swap_remove(position.expect("one of the twenty"));
    for master in masters {
        let (code, stderr) = master.wait_with_stderr();
        assert_eq!(code, ALREADY_RUNNING);
        assert!(stderr.contains(&format!("already running: pid {holder} holds ")), "{stderr}");
    }
    assert_eq!(stage.log().with("master started").len(), 1);
    assert_eq!(winner.workers().len(), 1);
    assert_eq!(winner.stop(), 0);
}

/// The kernel kills the workers; what they started themselves is the warden's.
#[test]
fn the_workers_of_a_killed_master_die_with_it_and_the_next_start_succeeds() {
    let stage = misbehave();
    let settings = ["number_workers=4", "unix_socket=app.sock", "app_behaviour=ignore_term"];
    let master = stage.start(&settings);
    stage.log().wait_ready(4);
    let before = stage.processes();
    assert_eq!(before.len(), 7, "master, warden, log process and workers");
    master.send(Signal::SIGKILL);
    assert_eq!(master.wait(), -(Signal::SIGKILL as i32));
    stage.wait_empty();
    assert_eq!(stage.files(), ["app.sock", "ph.lock", "ph.log", "ph.pid", "ph.sock"]);
    let next = stage.start(&settings);
    stage.log().wait_ready(8);
    assert_eq!(stage.read("ph.pid").trim(), next.process.0.to_string());
    Client::unix(&stage.path("app.sock"));
    assert_eq!(next.stop(), 0);
}

/// A worker that is not yet a worker dies with its master too.
#[test]
fn a_master_killed_while_it_forks_leaves_nobody() {
    let stage = misbehave();
    for round in 0..20 {
        let master = stage.start(&["number_workers=50", "app_behaviour=ok"]);
        eventually("the first fork", || (master.process.children().len() > round).then_some(()));
        master.send(Signal::SIGKILL);
        master.wait();
        stage.wait_empty();
    }
    let last = stage.start(&[]);
    eventually("its pidfile", || {
        (stage.read("ph.pid").trim() == last.process.0.to_string()).then_some(())
    });
    assert_eq!(last.stop(), 0);
}

/// Whatever is at the pidfile's name is neither believed, nor followed, nor waited for.
#[test]
fn a_hostile_pidfile_is_replaced_and_its_victim_untouched() {
    let stage = misbehave();
    let victim = stage.path("victim");
    std::fs::write(&victim, "precious").expect("a victim");
    let pidfile = stage.path("ph.pid");
    let plant: [&dyn Fn() -> std::io::Result<()>; 5] = [
        &|| std::os::unix::fs::symlink(&victim, &pidfile),
        &|| std::os::unix::fs::symlink(stage.path("dangling"), &pidfile),
        &|| std::fs::hard_link(&victim, &pidfile),
        &|| std::fs::write(&pidfile, "not a number"),
        &|| std::fs::write(&pidfile, std::process::id().to_string()),
    ];
    for (round, plant) in plant.into_iter().enumerate() {
        plant().expect("planted");
        let master = stage.start(&[]);
        stage.log().wait_ready(round + 1);
        assert_eq!(stage.read("ph.pid"), format!("{}\n", master.process.0));
        assert_eq!(master.stop(), 0);
        assert_eq!(stage.read("victim"), "precious");
        assert!(!pidfile.exists() && !stage.path("dangling").exists());
    }
}

/// A slip in the configuration must not cost a file.
#[test]
fn a_file_that_never_was_a_pidfile_is_not_replaced() {
    let stage = misbehave();
    let file = std::fs::File::create(stage.path("ph.pid")).expect("a file");
    file.set_len(1 << 30).expect("a long file");
    let (code, stderr) = stage.start(&[]).wait_with_stderr();
    assert_eq!(code, 1);
    assert!(stderr.contains("it holds 1073741824 bytes, which the pid would replace"), "{stderr}");
    assert!(stderr.contains("set by config.ini:4 pidfile"), "{stderr}");
    std::fs::remove_file(stage.path("ph.pid")).expect("it is still there");
}

#[test]
fn a_fifo_or_a_directory_in_place_of_pidfile_or_lock_blocks_nobody() {
    let stage = misbehave();
    let fifo = |name: &str| {
        nix::unistd::mkfifo(&stage.path(name), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    };
    fifo("ph.pid");
    let master = stage.start(&[]);
    stage.log().wait_ready(1);
    assert_eq!(master.stop(), 0);
    for name in ["ph.pid", "ph.lock"] {
        std::fs::create_dir(stage.path(name)).expect("a directory");
        let (code, stderr) = stage.start(&[]).wait_with_stderr();
        assert_eq!(code, 1);
        assert!(stderr.contains(&format!("{name} cannot be used: ")), "{stderr}");
        assert!(stderr.contains("set by config.ini:4 pidfile"), "{stderr}");
        std::fs::remove_dir(stage.path(name)).expect("it is still one");
    }
    fifo("ph.lock");
    let (code, stderr) = stage.start(&[]).wait_with_stderr();
    assert_eq!(code, 1);
    assert!(stderr.contains("ph.lock cannot be used: not a regular file"), "{stderr}");
    std::fs::remove_file(stage.path("ph.lock")).expect("it is still there");
    assert_eq!(stage.files(), ["ph.log"]);
}

/// A pidfile another process took over meanwhile is not this master's to remove.
#[test]
fn a_pidfile_that_names_somebody_else_is_left_alone() {
    let stage = misbehave();
    let master = stage.start(&[]);
    stage.log().wait_ready(1);
    std::fs::write(stage.path("ph.pid"), "1\n").expect("another pid");
    assert_eq!(master.stop(), 0);
    assert_eq!(stage.files(), ["ph.log", "ph.pid"]);
    std::fs::remove_file(stage.path("ph.pid")).expect("it is there");
}
