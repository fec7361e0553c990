//! A stage for upgrades: its program is a file of its own, which can be replaced. Masters lead a session
//! without a terminal, as a service does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{Master, Process, Stage, eventually, let_pass, require};

/// A stage and its program, which can be replaced.
pub(crate) struct Place {
    pub(crate) stage: Stage,
    programs: TempDir,
    pub(crate) program: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        require(&["setsid"]);
        let programs = tempfile::Builder::new().prefix("e2e-program-").tempdir().expect("a folder");
        let program = programs.path().join("ph");
        let stage = Stage::of(program.to_str().expect("a path in UTF-8"), "web");
        let place = Self { stage, programs, program };
        place.put_good();
        place
    }

    /// Another file takes the place of the program.
    pub(crate) fn put(&self, make: impl FnOnce(&Path)) {
        let (made, new) = (self.programs.path().join("made"), self.programs.path().join("new"));
        make(&made);
        // What another test forks meanwhile may have it open for writing, and then nobody can execute it.
        let copied = Command::new("cp").arg("-p").args([&made, &new]).status().expect("cp");
        assert!(copied.success());
        std::fs::remove_file(made).expect("removed");
        std::fs::rename(new, &self.program).expect("renamed");
    }

    pub(crate) fn put_good(&self) {
        self.put(|new| {
            std::fs::copy(env!("CARGO_BIN_EXE_ph"), new).expect("a copy");
        });
    }

    pub(crate) fn run(&self, words: &[&str]) -> Master {
        let run = ["run", "-c", "config.ini", "--"];
        self.stage.launch(&["setsid"], &[&run, words].concat())
    }

    /// Whom the pidfile names.
    pub(crate) fn master(&self) -> Process {
        eventually("a pidfile", || read_pid(&self.stage.path("ph.pid")))
    }

    /// Orders an upgrade and waits until it is done and the former master gone.
    pub(crate) fn upgrade(&self) -> Process {
        let old = self.master();
        old.send(Signal::SIGUSR2);
        self.wait_upgraded(old)
    }

    pub(crate) fn wait_upgraded(&self, old: Process) -> Process {
        let new =
            eventually("another master", || Some(self.master()).filter(|master| *master != old));
        eventually("the end of the former", || (!old.is_alive()).then_some(()));
        new
    }

    /// Waits until there is exactly one tree, with so many workers, and gives its master.
    pub(crate) fn wait_one_tree(&self, workers: usize) -> Process {
        eventually("one whole tree", || {
            let master = read_pid(&self.stage.path("ph.pid"))?;
            let mut all = self.stage.processes();
            all.retain(|process| *process != master);
            let children = master.children();
            let are_its = all.iter().all(|process| children.contains(process));
            // With its warden and its log process.
            (master.is_alive() && are_its && all.len() == workers + 2).then_some(master)
        })
    }

    /// The successor that a master has started, once it has been handed all it needs.
    pub(crate) fn wait_successor(&self, of: Process) -> Process {
        eventually("a successor", || {
            let mut children = of.children().into_iter();
            let has_begun = |child: &Process| {
                let said = format!("master started with pid {},", child.0);
                !self.stage.log().with(&said).is_empty()
            };
            children.find(has_begun)
        })
    }

    /// Stops whoever runs.
    pub(crate) fn stop(&self) {
        let master = self.master();
        master.send(Signal::SIGTERM);
        self.stage.wait_empty();
    }
}

pub(crate) fn read_pid(path: &Path) -> Option<Process> {
    Some(Process(std::fs::read_to_string(path).ok()?.trim().parse().ok()?))
}

/// Workers of a master, by what they execute.
pub(crate) fn workers_of(master: Process) -> BTreeSet<Process> {
    let mut children: BTreeSet<_> = master.children().into_iter().collect();
    children.retain(|child| child.title().starts_with("sleep") && child.is_alive());
    children
}

/// What must be the same before and after an upgrade of which nothing came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) master: Process,
    workers: BTreeSet<Process>,
    lock: String,
    descriptors: usize,
}

pub(crate) fn facts(place: &Place, workers: usize) -> Facts {
    let master = place.wait_one_tree(workers);
    // While a worker starts, its master has a descriptor more.
    eventually("nobody starts", || {
        let descriptors = master.descriptors().len();
        let_pass(Duration::from_millis(100));
        (master.descriptors().len() == descriptors).then_some(())
    });
    let workers = workers_of(master);
    let lock = place.stage.read("ph.lock");
    Facts { master, workers, lock, descriptors: master.descriptors().len() }
}

/// Sees that everything is as it was, and that the next upgrade is none the worse.
pub(crate) fn is_whole(place: &Place, before: &Facts) {
    assert_eq!(facts(place, before.workers.len()), *before);
    assert_eq!(before.lock.trim(), before.master.0.to_string());
    let (code, stderr) = place.run(&["sleep", "1"]).wait_with_stderr();
    assert_eq!(code, 154, "{stderr}");
}
