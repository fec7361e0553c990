//! The machine made smaller, for one test: a cgroup with a limit; and what a test cannot do
//! without.
//!
//! The limits are those of cgroup controllers of version 1, found through /proc as everything else.

use std::path::{Path, PathBuf};

use super::process::Process;
use super::wait::eventually;

/// Fails a test, with a sentence, that cannot say anything here: it needs root and these programs.
pub(crate) fn require(programs: &[&str]) {
    let users = Process::own().status("Uid");
    assert!(users.split_whitespace().nth(1) == Some("0"), "this test has to run as root");
    let path = std::env::var_os("PATH").expect("PATH");
    for program in programs {
        let is_there = std::env::split_paths(&path).any(|folder| folder.join(program).exists());
        assert!(is_there, "this test needs the program {program}, which is not in PATH");
    }
}

/// A cgroup below the tests' own, with a limit; it goes with the test.
#[derive(Debug)]
pub(crate) struct Limited {
    folder: PathBuf,
    limit: &'static str,
    /// What starts a program in it.
    enter: String,
}

impl Limited {
    /// So many processes, threads included.
    pub(crate) fn processes(count: u32) -> Self {
        Self::new("pids", "pids.max", &count.to_string())
    }

    /// So many bytes of memory, swap included.
    pub(crate) fn memory(bytes: u64) -> Self {
        let limited = Self::new("memory", "memory.limit_in_bytes", &bytes.to_string());
        let with_swap = limited.folder.join("memory.memsw.limit_in_bytes");
        if with_swap.exists() {
            std::fs::write(with_swap, bytes.to_string()).expect("the limit with swap");
        }
        limited
    }

    fn new(controller: &str, limit: &'static str, value: &str) -> Self {
        let own = own_folder(controller).unwrap_or_else(|| {
            panic!("this test needs the cgroup controller {controller} of version 1, mounted")
        });
        let made = tempfile::Builder::new().prefix("e2e-").tempdir_in(&own);
        let folder = made.unwrap_or_else(|error| {
            panic!("this test has to make a cgroup in {}: {error}", own.display())
        });
        let folder = folder.keep();
        let enter = format!("echo $$ > '{}/cgroup.procs' && exec \"$@\"", folder.display());
        let limited = Self { folder, limit, enter };
        limited.set(value);
        limited
    }

    /// Starts what follows it in this cgroup.
    pub(crate) fn wrapper(&self) -> [&str; 4] {
        ["sh", "-c", &self.enter, "sh"]
    }

    /// Sets the limit anew.
    pub(crate) fn set(&self, value: &str) {
        std::fs::write(self.folder.join(self.limit), value).expect("the limit");
    }

    /// What a file of it says.
    pub(crate) fn number(&self, file: &str) -> u64 {
        let text = std::fs::read_to_string(self.folder.join(file)).expect("a file of the cgroup");
        text.trim().parse().unwrap_or_else(|error| panic!("{file}: {text:?}: {error}"))
    }
}

impl Drop for Limited {
    /// What is in it dies with its stage, which was dropped before.
    fn drop(&mut self) {
        let remove = || std::fs::remove_dir(&self.folder).ok();
        if std::thread::panicking() {
            // The stage has killed all; the last of them is not yet gone.
            (0..200).find_map(|_| {
                super::wait::let_pass(std::time::Duration::from_millis(10));
                remove()
            });
        } else {
            eventually("the cgroup can be removed", remove);
        }
    }
}

/// The cgroups a master made for its workers, as folders that are there now.
pub(crate) fn cgroups_of(master: Process) -> Vec<PathBuf> {
    let own = own_folder("").expect("this test needs cgroup v2, mounted");
    let prefix = format!("ph-{}-", master.0);
    let entries = std::fs::read_dir(own).expect("the cgroup's folder").flatten();
    let made = entries.filter(|it| it.file_name().to_string_lossy().starts_with(&prefix));
    made.map(|it| it.path()).collect()
}

/// The folder that shows the cgroup of this process: of a controller of version 1, or, without a name,
/// of version 2.
fn own_folder(controller: &str) -> Option<PathBuf> {
    let has_it = |names: &str| names.split(',').any(|name| name == controller);
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = cgroups.lines().find_map(|line| {
        let (names, own) = line.split_once(':')?.1.split_once(':')?;
        has_it(names).then_some(own)
    })?;
    let kind = if controller.is_empty() { " - cgroup2 " } else { " - cgroup " };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(kind)?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let is_meant = controller.is_empty() || after.split(' ').nth(1).is_some_and(has_it);
        let below = Path::new(own).strip_prefix(root).ok().filter(|_| is_meant)?;
        Some(Path::new(point).join(below))
    })
}

/// How many sockets listen at an IPv4 address, `HOST:PORT`, by its port.
pub(crate) fn listening(address: &str) -> usize {
    let port: u16 = address.rsplit(':').next().and_then(|it| it.parse().ok()).expect("a port");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let (own, state) = (format!(":{port:04X}"), "0A");
    let is_it = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|it| it.ends_with(&own)) && fields.get(3) == Some(&state)
    };
    table.lines().filter(is_it).count()
}
