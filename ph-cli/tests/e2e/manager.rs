//! What the service manager above the master is told of reloads, upgrades, and that the loop turns.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};

use crate::ph;
use crate::support::{Process, Stage};

/// A service manager, which hears what it is told.
pub(crate) struct Manager(pub(crate) UnixDatagram);

impl Manager {
    pub(crate) fn at(stage: &mut Stage, name: &str) -> Self {
        let path = stage.path(name);
        stage.variable("NOTIFY_SOCKET", path.to_str().expect("a path in UTF-8"));
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        Self(socket)
    }

    pub(crate) fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    /// All up to the first that holds this.
    pub(crate) fn until(&self, text: &str) -> Vec<String> {
        let mut all = vec![self.next()];
        while !all.last().is_some_and(|last| last.contains(text)) {
            all.push(self.next());
        }
        all
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.0.set_nonblocking(true).expect("a flag");
        let received = self.0.recv(&mut [0; 4096]);
        self.0.set_nonblocking(false).expect("a flag");
        received.is_err()
    }
}

/// As `Type=notify-reload` and `WatchdogSec=` of systemd have it; a refused reload has a verdict, too.
#[test]
fn a_manager_hears_of_each_reload_and_twice_in_a_period_that_the_loop_turns() {
    let mut stage = ph();
    let manager = Manager::at(&mut stage, "manager");
    stage.variable("WATCHDOG_USEC", "1000000");
    for expected in ["number_workers: expected", "write digits only", "reload refused"] {
        stage.expect_error(expected);
    }
    let settings = "number_workers = 2\nmin_uptime = 0.1";
    stage.configure(settings);
    let master = stage.launch(&[], &["run", "-c", "config.ini", "--", "sleep", "1000"]);
    manager.until("READY=1");
    for configuration in [settings, "number_workers = many"] {
        stage.configure(configuration);
        let asked = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the time");
        master.send(Signal::SIGHUP);
        let told = manager.until("RELOADING=1").pop().unwrap_or_default();
        let (_, since) = told.trim_end().split_once("MONOTONIC_USEC=").expect("the time");
        let asked = i128::from(asked.tv_sec()) * 1_000_000 + i128::from(asked.tv_nsec()) / 1000;
        assert!(since.parse::<i128>().expect("a number") >= asked, "{told}");
        manager.until("READY=1");
    }
    stage.configure(settings);
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    let workers = master.wait_workers(2);
    assert!(!workers[0].process.environment().contains_key("WATCHDOG_USEC"));
    assert_eq!(master.stop(), 0);
    manager.until("STOPPING=1");
}

/// A manager that hears its main process only must know who that is, before that says anything.
#[test]
fn the_manager_hears_who_takes_over_before_it_hears_anything_of_it() {
    let mut stage = ph();
    let manager = Manager::at(&mut stage, "manager");
    stage.variable("WATCHDOG_USEC", "10000000");
    stage.variable("WATCHDOG_PID", "1");
    stage.configure("min_uptime = 0.1");
    let first = stage.launch(&[], &["run", "-c", "config.ini", "--", "sleep", "1000"]);
    let old = format!("MAINPID={}", first.process.0);
    assert!(manager.until("READY=1").pop().is_some_and(|ready| ready.contains(&old)));
    first.send(Signal::SIGUSR2);
    let moved = manager.until("MAINPID=").pop().unwrap_or_default();
    assert_eq!(first.wait(), 0);
    let new: i32 = stage.read("ph.pid").trim().parse().expect("a pid");
    assert_eq!(moved, format!("MAINPID={new}\n"));
    // The variables are those of the first start, and this one is heeded although it names another pid.
    let told = manager.next();
    assert_eq!(told, format!("READY=1\nMAINPID={new}\nSTATUS=1/1 ready\nWATCHDOG=1\n"));
    Process(new).send(Signal::SIGTERM);
    manager.until("STOPPING=1");
    stage.wait_empty();
}
