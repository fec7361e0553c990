//! Log processes that are killed at every step and at any moment, and the one that goes on.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use ph_log::{
    Capture, CaptureJournal, CaptureOptions, CaptureStep, CaptureTarget, Compression, Format,
    RotateLimits, RotateOptions, RotatingFile, Source, SourceKind,
};

use crate::capture::{options, output, pipe};
use crate::stage::{self, Scenario, exit_now, expect_exit, fork};
use crate::trail::{Author, Trail, limits, line};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("capture_steps", steps),
    ("capture_steps_rotating", steps_rotating),
    ("capture_kills", kills),
    ("capture_formats", formats),
    ("capture_small_hold", small_hold),
    ("capture_torn", torn),
];

pub(crate) const STEPS: [CaptureStep; 9] = [
    CaptureStep::Formed,
    CaptureStep::Intended,
    CaptureStep::Appended,
    CaptureStep::Noted,
    CaptureStep::Moved,
    CaptureStep::Paused,
    CaptureStep::Settled,
    CaptureStep::Counted,
    CaptureStep::Emptied,
];

/// The one step that only stderr has.
pub(crate) const SHOWN: usize = STEPS.len();

pub(crate) const CRASHED: i32 = 77;

/// The step this process dies after, as an index of `STEPS`, and how often it passes before.
static CRASH_AT: AtomicU32 = AtomicU32::new(u32::MAX);
static PASSES: AtomicU32 = AtomicU32::new(0);

fn crash(step: CaptureStep) {
    let index = STEPS.iter().position(|known| *known == step).unwrap_or(SHOWN);
    let is_it = u32::try_from(index) == Ok(CRASH_AT.load(Ordering::Relaxed));
    if is_it && PASSES.fetch_sub(1, Ordering::Relaxed) == 0 {
        exit_now(CRASHED);
    }
}

/// The master of these tests: it keeps everything a log process gets.
pub(crate) struct Master {
    pub(crate) options: CaptureOptions,
    journal: Arc<CaptureJournal>,
    pipes: Vec<(OwnedFd, SourceKind)>,
    writers: Vec<Pid>,
    /// A log that all workers have for themselves.
    pub(crate) own: Option<PathBuf>,
}

impl Master {
    pub(crate) fn new(options: CaptureOptions) -> Master {
        let journal = Arc::new(CaptureJournal::new().expect("a journal"));
        Master { options, journal, pipes: Vec::new(), writers: Vec::new(), own: None }
    }

    /// Forks a worker that writes to a pipe of its own.
    pub(crate) fn worker(&mut self, kind: SourceKind, flags: OFlag, body: impl FnOnce(File)) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | flags).expect("a pipe");
        let pid = fork(|| body(File::from(write)));
        self.pipes.push((read, kind));
        self.writers.push(pid);
    }

    /// A worker that writes so many numbered lines, in pieces that do not end where lines do.
    pub(crate) fn author(&mut self, process: u32, lines: u32) {
        self.worker(output(process), OFlag::empty(), |mut pipe| {
            let mut text = Vec::new();
            for number in 0..lines {
                text.extend(line(process, number).into_bytes());
                let size = 1 + (number.wrapping_mul(2_654_435_761) >> 16) as usize % 6000;
                if text.len() > size {
                    pipe.write_all(&text[..size]).expect("a reader");
                    text.drain(..size);
                }
            }
            pipe.write_all(&text).expect("a reader");
        });
    }

    /// A log process that dies after a step, if one is given.
    pub(crate) fn log_process(&self, crash_at: Option<(usize, u32)>) -> Pid {
        fork(|| {
            if let Some((step, passes)) = crash_at {
                CRASH_AT.store(u32::try_from(step).expect("small"), Ordering::Relaxed);
                PASSES.store(passes, Ordering::Relaxed);
            }
            let capture = Capture::open(self.options.clone(), Arc::clone(&self.journal));
            let mut capture = capture.expect("a log").after_step(crash);
            for (id, (pipe, kind)) in (0..).zip(&self.pipes) {
                let pipe = pipe.try_clone().expect("a descriptor");
                let (kind, path) = (*kind, self.own.clone());
                capture.add(Source { id, pipe, kind, path }).expect("a source");
            }
            capture.recover().expect("a journal");
            let (control, _keep) = pipe();
            let mut left = self.pipes.len();
            while left > 0 {
                left -= capture.turn(control.as_fd()).expect("a turn").ended.len();
            }
            let totals = capture.totals();
            assert_eq!(totals.read, totals.written);
            let drained = capture.drain(Duration::from_secs(20)).expect("a drain");
            assert!(drained.is_done);
            let CaptureTarget::File(path) = &self.options.target else { return };
            let text = format!("{} {}", totals.read, totals.lines);
            fs::write(path.with_file_name("totals"), text).expect("a file");
        })
    }

    pub(crate) fn finish(self) {
        expect_exit(self.log_process(None), 0);
        for writer in self.writers {
            expect_exit(writer, 0);
        }
    }

    /// Log processes that die at every step, each several times. Returns how many did.
    pub(crate) fn crash_everywhere(&self) -> u32 {
        let mut crashed = 0;
        for passes in [0, 0, 1, 2, 3] {
            // Without packets the hold is never full.
            for step in (0..STEPS.len()).filter(|&step| STEPS[step] != CaptureStep::Paused) {
                let pid = self.log_process(Some((step, passes)));
                let status = waitpid(pid, None).expect("a process");
                let WaitStatus::Exited(_, code) = status else { panic!("{status:?}") };
                assert!(code == CRASHED || code == 0, "{step} {passes}: {code}");
                crashed += u32::from(code == CRASHED);
            }
        }
        crashed
    }
}

pub(crate) const WORKERS: u32 = 8;

/// What all lines of the workers are long.
fn length(lines: u32) -> usize {
    (0..WORKERS).map(|process| (0..lines).map(|n| line(process, n).len()).sum::<usize>()).sum()
}

pub(crate) fn judge(folder: &Path, lines: u32) -> Trail {
    let trail = Trail::read(folder);
    assert!(trail.torn.is_empty(), "{} torn, {:?}", trail.torn.len(), &trail.torn[0]);
    for process in 0..WORKERS {
        assert_eq!(trail.count(process), lines, "worker {process}");
    }
    let totals = fs::read_to_string(folder.join("totals")).expect("totals");
    assert_eq!(totals, format!("{} {}", length(lines), WORKERS * lines));
    trail
}

fn steps(folder: &Path) {
    let mut master = Master::new(options(folder));
    (0..WORKERS).for_each(|process| master.author(process, 20_000));
    let crashed = master.crash_everywhere();
    fs::write(folder.join("crashed"), crashed.to_string()).expect("a file");
    master.finish();
}

#[test]
fn log_processes_that_die_at_every_step_lose_double_and_tear_nothing() {
    let left = stage::run("capture_steps");
    judge(left.folder(), 20_000);
    let crashed = fs::read_to_string(left.folder().join("crashed")).expect("a file");
    let crashed: u32 = crashed.parse().expect("a number");
    assert!(crashed >= 30, "{crashed} log processes died");
}

/// Other processes write to the same log and rotate it.
fn others(folder: &Path, limits: &RotateLimits, first: u32) -> Vec<(Pid, OwnedFd)> {
    let options = RotateOptions::new(folder.join("log"), limits.clone());
    let mut log = RotatingFile::open(options).expect("a log");
    (first..first + 2)
        .map(|process| {
            let (read, write) = pipe();
            let pid = fork(|| Author::new(process, write).write(&mut log, 20_000));
            (pid, read)
        })
        .collect()
}

/// Takes what the others promise until they have ended.
fn end(others: Vec<(Pid, OwnedFd)>) {
    for (pid, promise) in others {
        crate::trail::acknowledged(promise);
        expect_exit(pid, 0);
    }
}

fn steps_rotating(folder: &Path) {
    let limits = RotateLimits { compress: Compression::Gzip, ..limits(64 << 10) };
    let mut master = Master::new(CaptureOptions { limits: limits.clone(), ..options(folder) });
    (0..WORKERS).for_each(|process| master.author(process, 20_000));
    let others = others(folder, &limits, WORKERS);
    let crashed = master.crash_everywhere();
    fs::write(folder.join("crashed"), crashed.to_string()).expect("a file");
    let master = fork(|| master.finish_log());
    end(others);
    expect_exit(master, 0);
}

impl Master {
    /// As `finish`, in a process that is not the workers' parent.
    fn finish_log(self) {
        expect_exit(self.log_process(None), 0);
    }
}

#[test]
fn so_they_do_while_others_write_and_everybody_rotates() {
    let left = stage::run("capture_steps_rotating");
    let trail = judge(left.folder(), 20_000);
    for process in WORKERS..WORKERS + 2 {
        assert_eq!(trail.count(process), 20_000, "process {process}");
    }
    assert!(trail.sizes.len() > 100, "{} files", trail.sizes.len());
    let crashed = fs::read_to_string(left.folder().join("crashed")).expect("a file");
    assert!(crashed.parse::<u32>().expect("a number") >= 30, "{crashed} died");
}

/// Ends a log process after a while, unless it has done all its work before. Returns whether it
/// was killed.
pub(crate) fn kill_after(pid: Pid, pause: Duration) -> bool {
    poll(&mut [], PollTimeout::try_from(pause).expect("short")).expect("a pause");
    let status = waitpid(pid, Some(WaitPidFlag::WNOHANG)).expect("a process");
    if status != WaitStatus::StillAlive {
        assert_eq!(status, WaitStatus::Exited(pid, 0));
        return false;
    }
    kill(pid, Signal::SIGKILL).expect("a process");
    let status = waitpid(pid, None).expect("a process");
    assert!(
        matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _))
            || status == WaitStatus::Exited(pid, 0),
        "{status:?}"
    );
    true
}

fn kills(folder: &Path) {
    let limits = limits(256 << 10);
    let mut master = Master::new(CaptureOptions { limits: limits.clone(), ..options(folder) });
    (0..WORKERS).for_each(|process| master.author(process, 20_000));
    let others = others(folder, &limits, WORKERS);
    let mut killed = 0;
    for round in 0..60_u64 {
        // From nothing at all to some dozens of batches.
        let pause = Duration::from_millis(round * round % 7);
        if !kill_after(master.log_process(None), pause) {
            break;
        }
        killed += 1;
    }
    fs::write(folder.join("crashed"), killed.to_string()).expect("a file");
    let master = fork(|| master.finish_log());
    end(others);
    expect_exit(master, 0);
}

#[test]
fn log_processes_killed_anywhere_lose_double_and_tear_nothing() {
    let left = stage::run("capture_kills");
    let trail = judge(left.folder(), 20_000);
    for process in WORKERS..WORKERS + 2 {
        assert_eq!(trail.count(process), 20_000, "process {process}");
    }
    let killed = fs::read_to_string(left.folder().join("crashed")).expect("a file");
    assert!(killed.parse::<u32>().expect("a number") >= 10, "{killed} were killed");
}

/// Packets of one line each fill the hold; the format changes from one log process to the next.
fn formats(folder: &Path) {
    let mut master = Master::new(options(folder));
    for process in 0..WORKERS {
        master.worker(output(process), OFlag::O_DIRECT, |mut pipe| {
            fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(1 << 20)).expect("a large pipe");
            for number in 0..3000 {
                pipe.write_all(line(process, number).as_bytes()).expect("a reader");
            }
        });
    }
    for round in 0..60 {
        let step = round % STEPS.len();
        master.options.format = if round % 2 == 0 { Format::Json } else { Format::Text };
        master.options.name = format!("name{round}");
        // The pipes are full before it begins, so that the hold is too small.
        let is_full = |pipe: &OwnedFd| {
            let mut asked = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            poll(&mut asked, PollTimeout::from(20_u8)).expect("an answer");
        };
        master.pipes.iter().for_each(|(pipe, _)| is_full(pipe));
        let pid = master.log_process(Some((step, 0)));
        let status = waitpid(pid, None).expect("a process");
        assert!(matches!(status, WaitStatus::Exited(_, CRASHED | 0)), "{status:?}");
        if status == WaitStatus::Exited(pid, CRASHED) {
            fs::write(folder.join(format!("{:?}", STEPS[step])), "").expect("a file");
        }
    }
    master.finish();
}

#[test]
fn packets_and_another_format_change_nothing() {
    let left = stage::run("capture_formats");
    let text = fs::read_to_string(left.folder().join("log")).expect("the log");
    // JSON lines become such as the trail knows.
    let plain: String = text
        .lines()
        .map(|found| match serde_json::from_str::<serde_json::Value>(found) {
            Ok(found) => found["message"].as_str().expect("a message").to_owned() + "\n",
            Err(_) => found.to_owned() + "\n",
        })
        .collect();
    for step in STEPS {
        assert!(left.folder().join(format!("{step:?}")).exists(), "nobody died after {step:?}");
    }
    assert!(text.contains("{\"time\"") && plain.contains(" stdout: "), "both formats");
    fs::write(left.folder().join("log"), plain).expect("a file");
    judge(left.folder(), 3000);
}

/// The kernel gives few pages to the pipes of a user that has very many, to the journal's too.
fn small_hold(folder: &Path) {
    let mut master = Master::new(options(folder));
    for fd in master.journal.fds() {
        // One of them is no pipe.
        let _ = fcntl(fd, FcntlArg::F_SETPIPE_SZ(16 << 10));
    }
    (0..WORKERS).for_each(|process| master.author(process, 2000));
    for round in 0..60 {
        let pid = master
            .log_process(Some((round % STEPS.len(), u32::try_from(round).expect("small") / 20)));
        let status = waitpid(pid, None).expect("a process");
        assert!(matches!(status, WaitStatus::Exited(_, CRASHED | 0)), "{status:?}");
        if status == WaitStatus::Exited(pid, CRASHED) {
            fs::write(folder.join(format!("{:?}", STEPS[round % STEPS.len()])), "")
                .expect("a file");
        }
    }
    master.finish();
}

#[test]
fn a_hold_of_four_pages_is_enough() {
    let left = stage::run("capture_small_hold");
    judge(left.folder(), 2000);
    for step in STEPS {
        assert!(left.folder().join(format!("{step:?}")).exists(), "nobody died after {step:?}");
    }
}

/// A write that is cut off in the middle of a line, by a limit, with the process that did it.
fn torn(folder: &Path) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let mut master = Master::new(options(folder));
    (0..WORKERS).for_each(|process| master.author(process, 2000));
    stage::set_signal_ignored(Signal::SIGXFSZ);
    for round in 1..30_u64 {
        let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("a limit");
        // The journal is a file too, and its beginning must be left writable.
        let size = fs::metadata(folder.join("log")).map_or(0, |log| log.len());
        setrlimit(Resource::RLIMIT_FSIZE, size.max(40_000) + 997 * round, hard).expect("a limit");
        let pid = master.log_process(Some((2, 0)));
        setrlimit(Resource::RLIMIT_FSIZE, soft, hard).expect("a limit");
        let status = waitpid(pid, None).expect("a process");
        assert!(matches!(status, WaitStatus::Exited(_, CRASHED | 0)), "{status:?}");
    }
    master.finish();
}

#[test]
fn a_write_that_was_cut_off_is_mended_by_the_next_log_process() {
    judge(stage::run("capture_torn").folder(), 2000);
}
