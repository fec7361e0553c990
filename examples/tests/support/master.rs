//! A master that was started on a stage.

use std::path::PathBuf;
use std::process::Child;

use nix::sys::signal::Signal;

use super::process::Process;
use super::wait::eventually;

/// A running master. Whoever started it has to see its end.
#[derive(Debug)]
pub(crate) struct Master {
    child: Child,
    pub(crate) process: Process,
    stderr: PathBuf,
    has_ended: bool,
}

/// A worker, by its place and its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Worker {
    pub(crate) slot: u32,
    pub(crate) process: Process,
}

impl Master {
    pub(super) fn new(child: Child, stderr: PathBuf) -> Self {
        let process = Process(i32::try_from(child.id()).expect("a pid"));
        Self { child, process, stderr, has_ended: false }
    }

    /// Its living workers in the order of their slots.
    pub(crate) fn workers(&self) -> Vec<Worker> {
        let living = self.process.children().into_iter().filter(|child| child.is_alive());
        let mut workers: Vec<_> = living.filter_map(Worker::known).collect();
        workers.sort();
        workers
    }

    /// Waits until there are exactly so many workers.
    pub(crate) fn wait_workers(&self, count: usize) -> Vec<Worker> {
        eventually(&format!("{count} workers"), || {
            Some(self.workers()).filter(|workers| workers.len() == count)
        })
    }

    /// Waits until the worker of a slot is another process than `old`, and gives the new one.
    pub(crate) fn wait_replaced(&self, old: Worker) -> Worker {
        eventually(&format!("a successor of {old:?}"), || {
            let mut workers = self.workers().into_iter();
            workers.find(|new| new.slot == old.slot && new.process != old.process)
        })
    }

    pub(crate) fn send(&self, signal: Signal) {
        self.process.send(signal);
    }

    /// Asks it to stop, and gives its exit code. A healthy one has nothing to say on stderr.
    pub(crate) fn stop(self) -> i32 {
        self.send(Signal::SIGTERM);
        let stderr = self.stderr.clone();
        let code = self.wait();
        assert_eq!(std::fs::read_to_string(stderr).expect("stderr"), "");
        code
    }

    /// Waits for its end: the exit code, or the number of the signal that ended it, negative.
    pub(crate) fn wait(mut self) -> i32 {
        let status = eventually("the end of the master", || self.child.try_wait().expect("wait"));
        self.has_ended = true;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        status.code().unwrap_or_else(|| -signal.expect("a code or a signal"))
    }

    /// Waits for its end; gives its exit code, and what it wrote to stderr.
    pub(crate) fn wait_with_stderr(self) -> (i32, String) {
        let stderr = self.stderr.clone();
        (self.wait(), std::fs::read_to_string(stderr).expect("stderr"))
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        // Its workers die with it; what does not is found by its stage.
        let _ = self.child.kill();
        let _ = self.child.wait();
        assert!(std::thread::panicking(), "the test left its master running");
    }
}

impl Worker {
    /// A forked worker says its slot in its title, a command has it in its environment.
    fn known(process: Process) -> Option<Self> {
        let title = process.title();
        let slot = match title.strip_prefix("ph: worker ") {
            Some(rest) => rest.split(' ').next()?.parse().ok()?,
            // A helper; its environment is that of the master's `exec`.
            None if title.starts_with("ph: ") => return None,
            // What it has left to the master bears its mark too, but leads no session of its own.
            None if process.stat(6) != Some(process.0.to_string()) => return None,
            None => process.environment().get("PH_SLOT")?.parse().ok()?,
        };
        Some(Self { slot, process })
    }
}
