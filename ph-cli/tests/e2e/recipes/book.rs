//! `docs/recipes.md` as people use it: the files of one recipe in a folder, and `ph run` there.
//!
//! The first line of a block names its file. Only the port is another than in the book, so that tests
//! do not meet.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::control::{Said, client};
use crate::support::{Master, Process, Stage, eventually, timed};

const BOOK: &str = include_str!("../../../../docs/recipes.md");

/// The ports of the book.
const PORTS: [&str; 2] = ["8000", "6379"];

/// A recipe at work.
pub(super) struct Service {
    pub(super) stage: Stage,
    pub(super) master: Master,
    pub(super) port: u16,
}

impl Service {
    /// Does what the recipe says, and waits until so many workers are ready. The programs are looked
    /// for in `path`, if that is another one.
    pub(super) fn start(recipe: &str, workers: usize, path: Option<String>) -> Self {
        let mut stage = crate::ph();
        if let Some(path) = path {
            stage.variable("PATH", &path);
        }
        let port = free_port();
        for (name, text) in files(recipe) {
            let text =
                PORTS.iter().fold(text.to_owned(), |text, it| text.replace(it, &port.to_string()));
            std::fs::write(stage.path(name), text).expect("a file of the recipe");
        }
        let said = client(&stage, &[], &["check"]);
        assert_eq!(said.code, 0, "ph check: {}{}", said.stdout, said.stderr);
        assert_eq!(said.stderr, "", "ph check has nothing to warn of");
        let master = stage.launch(&[], &["run"]);
        stage.log().wait_ready(workers);
        Self { stage, master, port }
    }

    pub(super) fn reload(&self) -> Said {
        client(&self.stage, &[], &["reload"])
    }

    /// Every process of the service but the master: its helpers, its workers, what those have started.
    fn tree(&self) -> Vec<Process> {
        let mut tree = self.master.process.children();
        let mut at = 0;
        while let Some(process) = tree.get(at) {
            tree.extend(process.children());
            at += 1;
        }
        tree
    }

    /// Stops it. All have to end by themselves and with code 0 for the whole, and nobody and nothing
    /// may be left; programs that change their title are known by their number only.
    pub(super) fn stop(self) -> Stage {
        let tree = self.tree();
        assert!(tree.len() > 2, "{tree:?}");
        let (code, took) = timed(|| self.master.stop());
        assert_eq!(code, 0);
        assert!(took.as_secs() < 15, "{took:?}");
        let killed = self.stage.log().with("SIGKILL");
        assert!(killed.is_empty(), "{killed:?}");
        eventually("nobody is left", || tree.iter().all(|it| !it.is_alive()).then_some(()));
        drop(TcpListener::bind(("127.0.0.1", self.port)).expect("the port is free again"));
        self.stage
    }
}

/// The files of a recipe: those blocks of its part of the book.
fn files(recipe: &str) -> Vec<(&'static str, &'static str)> {
    let (_, part) = BOOK.split_once(&format!("\n## {recipe}\n")).expect("a recipe of this name");
    let part = part.split("\n## ").next().expect("a part");
    let blocks = part.split("\n```").skip(1).step_by(2);
    let files: Vec<_> = blocks
        .map(|block| {
            let (_language, text) = block.split_once('\n').expect("a block");
            let first = text.lines().next().expect("a first line");
            let name = first.trim_start_matches(['#', '/', ' ']);
            assert!(name.contains('.') && !name.contains(' '), "the name of a file: {first}");
            (name, text)
        })
        .collect();
    assert!(files.iter().any(|(name, _)| *name == "config.ini"), "{files:?}");
    files
}

/// A port that nobody has, below those that the kernel gives to clients.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + u16::try_from(std::process::id() % 1_000).expect("a small number") * 20;
    eventually("a free port", || {
        let port = base + TRIED.fetch_add(1, Ordering::Relaxed) % 2_000;
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    })
}
