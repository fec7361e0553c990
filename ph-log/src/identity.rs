//! Who writes: the part of a line that says which process it comes from.
//!
//! A fork makes a new writer out of an old one without anybody's leave, so the identity is split
//! in two. The **pid** is looked up for every line, in the process that writes it: a
//! plain copy would be wrong in a process that forked without telling us. The kernel is asked once in a
//! process if there is memory that it wipes at every fork, and otherwise each time, which takes as long
//! as all the rest of a line. The **role** (master, a helper's name, or a worker's slot and
//! generation) is told by `enter_worker` or `enter_helper` and kept in plain atomics, so that reading it takes no lock that a
//! fork could have frozen.
//!
//! The *owner* is the process that last took the role. A process whose pid is not the owner's is
//! a *stranger*: it must not use the queue, whose thread lives in the owner.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::format;

/// The role named in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Master,
    Worker {
        slot: u32,
        generation: u32,
    },
    Helper(&'static str),
    /// A worker whose lines are records: whoever reads them says who wrote them.
    Unnamed,
}

/// The name, role and owner of the log of this process.
#[derive(Debug)]
pub(crate) struct Identity {
    name: String,
    owner: AtomicU32,
    /// The pid of the calling process, or 0 if it has not asked for it yet.
    pid: Option<&'static AtomicU32>,
    is_worker: AtomicBool,
    /// Its lines are records: somebody else puts a head before them.
    is_headless: AtomicBool,
    slot: AtomicU32,
    generation: AtomicU32,
    helper: OnceLock<&'static str>,
}

impl Identity {
    /// The identity of the calling process, as a master.
    pub(crate) fn master(name: &str, pid: Option<&'static AtomicU32>) -> Identity {
        let mut escaped = String::with_capacity(name.len());
        format::escape(&mut escaped, name);
        Identity {
            name: escaped,
            owner: AtomicU32::new(std::process::id()),
            pid,
            is_worker: AtomicBool::new(false),
            is_headless: AtomicBool::new(false),
            slot: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            helper: OnceLock::new(),
        }
    }

    /// Makes the calling process the owner, as a worker. Nothing else runs in it yet, which is
    /// why the four stores need not be one.
    pub(crate) fn become_worker(&self, slot: u32, generation: u32) {
        self.slot.store(slot, Ordering::Relaxed);
        self.generation.store(generation, Ordering::Relaxed);
        self.is_worker.store(true, Ordering::Relaxed);
        self.own();
    }

    /// Makes the calling process the owner, as a helper. A process is that once and for good, so its
    /// name is never freed.
    pub(crate) fn become_helper(&self, name: &str) {
        let mut escaped = String::with_capacity(name.len());
        format::escape(&mut escaped, name);
        let _ = self.helper.set(escaped.leak());
        self.own();
    }

    fn own(&self) {
        self.owner.store(self.ask_pid(), Ordering::Release);
    }

    /// The pid of the calling process.
    pub(crate) fn pid(&self) -> u32 {
        match self.pid.map_or(0, |pid| pid.load(Ordering::Relaxed)) {
            0 => self.ask_pid(),
            pid => pid,
        }
    }

    fn ask_pid(&self) -> u32 {
        let asked = std::process::id();
        if let Some(pid) = self.pid {
            pid.store(asked, Ordering::Relaxed);
        }
        asked
    }

    /// From now on the lines of this process are records.
    pub(crate) fn lose_head(&self) {
        self.is_headless.store(true, Ordering::Relaxed);
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn role(&self) -> Role {
        if self.is_headless.load(Ordering::Relaxed) {
            Role::Unnamed
        } else if self.is_worker.load(Ordering::Relaxed) {
            Role::Worker {
                slot: self.slot.load(Ordering::Relaxed),
                generation: self.generation.load(Ordering::Relaxed),
            }
        } else {
            self.helper.get().map_or(Role::Master, |name| Role::Helper(name))
        }
    }

    /// Whether the process `pid` may use the queue.
    pub(crate) fn is_owner(&self, pid: u32) -> bool {
        self.owner.load(Ordering::Acquire) == pid
    }
}
