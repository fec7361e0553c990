//! A process of its own for every scenario, the only unsafe code of these tests, and how a log
//! is read.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU32;

use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use ph_log::{Format, Level, Log, LogOptions, RotateLimits, Target};

/// The reopen counter of every scenario.
pub(crate) static REOPEN: AtomicU32 = AtomicU32::new(0);

/// After so many seconds a process of a scenario is ended by SIGALRM: nothing hangs for ever.
const DEADLINE_SECONDS: u32 = 100;

const SCENARIO: &str = "PH_LOG_SCENARIO";
const FOLDER: &str = "PH_LOG_FOLDER";

/// A scenario and its name.
pub(crate) type Scenario = (&'static str, fn(&Path));

/// Every scenario. A new one is added to its module's table.
fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    [
        crate::capture_crash::SCENARIOS,
        crate::capture_hostile::SCENARIOS,
        crate::capture_own_file::SCENARIOS,
        crate::capture_stderr::SCENARIOS,
        crate::capture_trouble::SCENARIOS,
        crate::compression::SCENARIOS,
        crate::descriptors::SCENARIOS,
        crate::failures::SCENARIOS,
        crate::follow::SCENARIOS,
        crate::reopen::SCENARIOS,
        crate::rotating_chaos::SCENARIOS,
        crate::rotating_crash::SCENARIOS,
        crate::rotating_hostile::SCENARIOS,
        crate::rotating_trouble::SCENARIOS,
        crate::rotation::SCENARIOS,
        crate::stderr::SCENARIOS,
        crate::workers::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// What a scenario left behind.
pub(crate) struct Left {
    folder: tempfile::TempDir,
    pub(crate) stderr: String,
}

impl Left {
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The lines of a file in the folder. The file must end with a newline.
    pub(crate) fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join(file)).expect(file);
        assert!(text.is_empty() || text.ends_with('\n'), "{file} ends in a torn line");
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn metadata(&self, file: &str) -> fs::Metadata {
        fs::metadata(self.folder.path().join(file)).expect(file)
    }

    /// The lines of a file, each from its role on: `master: text` or `worker 1 gen 1: text`.
    pub(crate) fn texts(&self, file: &str) -> Vec<String> {
        self.lines(file).iter().map(|line| parse(line).1).collect()
    }
}

/// Runs one scenario to its end. It must end well.
pub(crate) fn run(name: &str) -> Left {
    let folder = tempfile::tempdir().expect("a folder");
    let stage = Command::new(std::env::current_exe().expect("this binary"))
        .args(["stage::stage", "--exact", "--test-threads=1", "--nocapture"])
        .env(SCENARIO, name)
        .env(FOLDER, folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("a process");
    let stderr = String::from_utf8_lossy(&stage.stderr).into_owned();
    let status = stage.status;
    assert!(status.success(), "{name}: {status} signal {:?}\n{stderr}", status.signal());
    Left { folder, stderr }
}

/// The stage itself; without a scenario in the environment it has nothing to show.
#[test]
fn stage() {
    let Ok(name) = std::env::var(SCENARIO) else { return };
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
    let (_, play) = scenarios().find(|(known, _)| *known == name).expect("a known scenario");
    // The harness has a main thread that waits for this one; the fork leaves it behind.
    let scenario = fork(|| {
        assert_eq!(threads(), 1, "a scenario begins with one thread");
        play(&folder);
    });
    expect_exit(scenario, 0);
}

/// The options of a log into `log` of the folder.
pub(crate) fn options(folder: &Path) -> LogOptions {
    LogOptions {
        name: "test".to_owned(),
        target: Target::File(folder.join("log")),
        limits: RotateLimits::default(),
        worker_path: None,
        also_stderr: false,
        level: Level::Info,
        format: Format::Text,
        reopen: &REOPEN,
        pid: Some(wiped_by_fork()),
    }
}

/// A log into `log` of the folder.
pub(crate) fn log(folder: &Path) -> Log {
    ph_log::init(options(folder)).expect("a log")
}

/// The number of threads of this process.
pub(crate) fn threads() -> usize {
    fs::read_dir("/proc/self/task").expect("proc").count()
}

/// Waits for a fact, while the deadline of the process runs.
pub(crate) fn wait_until(fact: impl Fn() -> bool) {
    while !fact() {
        std::thread::yield_now();
    }
}

/// Splits a line into its pid and what follows it, and checks everything before.
pub(crate) fn parse(line: &str) -> (u32, String) {
    let words = || line.split_once("Z ")?.1.split_once(" test[")?.1.split_once("] ");
    let (pid, text) = words().unwrap_or_else(|| panic!("no line of the log: {line:?}"));
    assert_eq!(line.find("Z "), Some("2026-11-23T08:00:00.123".len()), "{line:?}");
    (pid.parse().expect("a pid"), text.to_owned())
}

/// Forks a worker the way the process core does: all signals blocked until it has entered.
pub(crate) fn fork_worker(log: &Log, slot: u32, body: impl FnOnce()) -> Pid {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).expect("a mask");
    let child = fork(|| {
        log.enter_worker(slot, 1);
        before.thread_set_mask().expect("the mask");
        body();
    });
    before.thread_set_mask().expect("the mask");
    child
}

/// Waits for a child to end, with this code.
pub(crate) fn expect_exit(child: Pid, code: i32) {
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, code)));
}

pub(crate) use process::{exit_now, fork, set_signal_default, set_signal_ignored, wiped_by_fork};

#[expect(unsafe_code, reason = "fork, _exit, signal and mmap have no safe form; for the stage")]
mod process {
    use std::num::NonZeroUsize;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicU32;

    use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
    use nix::sys::signal::{SigHandler, Signal, signal};
    use nix::unistd::{ForkResult, Pid, alarm};

    /// Forks; the child runs `body` and ends with 0, or with 101 if it panicked.
    pub(crate) fn fork(body: impl FnOnce()) -> Pid {
        // SAFETY: a scenario has one thread, by the assertion of the stage. Before that, the other
        // thread is the harness's main one, which sleeps. Where a worker with a log thread forks,
        // that is the point of the test, and glibc keeps its allocator usable in the child.
        match unsafe { nix::unistd::fork() }.expect("a fork") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                alarm::set(super::DEADLINE_SECONDS);
                let result = catch_unwind(AssertUnwindSafe(body));
                exit_now(if result.is_ok() { 0 } else { 101 })
            }
        }
    }

    /// Ends the process at once: no destructor, no atexit handler runs.
    pub(crate) fn exit_now(code: i32) -> ! {
        // SAFETY: has no precondition.
        unsafe { nix::libc::_exit(code) }
    }

    /// A number that is 0 in every process that has not written it.
    pub(crate) fn wiped_by_fork() -> &'static AtomicU32 {
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let length = NonZeroUsize::new(size_of::<AtomicU32>()).expect("a size");
        // SAFETY: a mapping of its own.
        let start = unsafe { mmap_anonymous(None, length, prot, MapFlags::MAP_PRIVATE) };
        let start = start.expect("memory");
        // SAFETY: the range is that mapping, whole.
        unsafe { madvise(start, length.get(), MmapAdvise::MADV_WIPEONFORK) }.expect("Linux 4.14");
        // SAFETY: the mapping is page-aligned, holds one number, and is never unmapped.
        unsafe { start.cast().as_ref() }
    }

    pub(crate) fn set_signal_default(of: Signal) {
        // SAFETY: installs no handler.
        unsafe { signal(of, SigHandler::SigDfl) }.expect("a disposition");
    }

    pub(crate) fn set_signal_ignored(of: Signal) {
        // SAFETY: installs no handler.
        unsafe { signal(of, SigHandler::SigIgn) }.expect("a disposition");
    }
}
