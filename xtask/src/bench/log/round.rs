//! One round of one way: processes started, let go together, waited for, and what they wrote counted.

use std::fs::{self, File, OpenOptions};
use std::io::{PipeReader, PipeWriter, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::time::TimeVal;
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;
use xtask::{STAMP_LENGTH, STAMPS, Stamp, monotonic};

use super::verify::Count;
use super::{Programs, WRITERS, Way};

/// How long anything here may take before the bench gives up, in nanoseconds.
const PATIENCE: u64 = 120_000_000_000;

/// The steps of a rotation at which a process can kill itself, and one that is never reached.
const STEPS: usize = 7;
const NO_STEP: usize = 99;

/// The most processes that kill themselves in one round: their lines are numbered by two digits.
const KILLED_MAX: usize = 90;

/// What is to be done.
pub(super) struct Round<'a> {
    pub(super) programs: &'a Programs,
    pub(super) way: Way,
    /// Of each writer.
    pub(super) lines: usize,
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) seconds: f64,
    /// Seconds of all processes.
    pub(super) cpu: f64,
    pub(super) count: Count,
}

/// Where it happens.
struct Place {
    folder: TempDir,
    logs: PathBuf,
    fifo: PathBuf,
    stamps: File,
}

impl Place {
    fn new() -> Result<Place> {
        let folder = tempfile::tempdir()?;
        let (logs, fifo) = (folder.path().join("logs"), folder.path().join("stamps"));
        fs::create_dir(&logs)?;
        mkfifo(&fifo, Mode::S_IRWXU).context("mkfifo")?;
        // Open for writing too, so that it never ends.
        let how = OFlag::O_NONBLOCK.bits();
        let stamps = OpenOptions::new().read(true).write(true).custom_flags(how).open(&fifo)?;
        Ok(Place { folder, logs, fifo, stamps })
    }

    /// Waits for so many stamps, and says when the first of them was made.
    fn wait_for(&mut self, count: usize) -> Result<u64> {
        let deadline = monotonic() + PATIENCE;
        let mut first = u64::MAX;
        for missing in (1..=count).rev() {
            let mut fds = [PollFd::new(self.stamps.as_fd(), PollFlags::POLLIN)];
            let left = Duration::from_nanos(deadline.saturating_sub(monotonic()));
            let is_there = poll(&mut fds, PollTimeout::try_from(left)?)? > 0;
            ensure!(is_there, "{missing} of {count} writers did not answer");
            let mut bytes = [0; STAMP_LENGTH];
            self.stamps.read_exact(&mut bytes)?;
            first = first.min(Stamp::from_bytes(bytes).at);
        }
        Ok(first)
    }
}

/// Processes that must not outlive the bench.
struct Running(Vec<Child>);

impl Running {
    /// Waits until all have ended, and well.
    fn wait(mut self) -> Result<()> {
        for child in &mut self.0 {
            let status = ended(child)?;
            ensure!(status.success(), "a process ended with {status}");
        }
        self.0.clear();
        Ok(())
    }

    fn is_over(&mut self) -> Result<bool> {
        for child in &mut self.0 {
            if child.try_wait()?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Round<'_> {
    /// Does it; or says why that is not possible here.
    pub(super) fn run(&self) -> Result<std::result::Result<Outcome, String>> {
        let mut place = Place::new()?;
        let before = cpu()?;
        let seconds = match self.way {
            Way::S6Log => match self.s6_log(&place.logs)? {
                Ok((s6_log, input)) => self.writers(&mut place, Some(input), s6_log)?,
                Err(why) => return Ok(Err(why)),
            },
            Way::Captured => match self.captured(&mut place)? {
                Ok(seconds) => seconds,
                Err(why) => return Ok(Err(why)),
            },
            Way::FloorBatches
            | Way::FloorLines
            | Way::Rotating
            | Way::RotatingLines
            | Way::Killed
            | Way::Tracing
            | Way::Appender => self.writers(&mut place, None, Running(Vec::new()))?,
        };
        let cpu = cpu()? - before;
        let count = Count::of(&place.logs, WRITERS, self.lines)?;
        Ok(Ok(Outcome { seconds, cpu, count }))
    }

    /// Eight processes that write by themselves, and `others` that end when they have.
    fn writers(
        &self,
        place: &mut Place,
        output: Option<PipeWriter>,
        others: Running,
    ) -> Result<f64> {
        let (input, go) = std::io::pipe()?;
        let mut running = Running(Vec::new());
        for writer in 0..WRITERS {
            let mut command = self.writer(writer, self.lines, NO_STEP, place);
            command.stdin(input.try_clone()?);
            if let Some(output) = &output {
                command.stdout(output.try_clone()?);
            }
            running.0.push(command.spawn()?);
        }
        drop((input, output));
        place.wait_for(WRITERS)?;
        let begun_at = monotonic();
        drop(go);
        if self.way == Way::Killed {
            self.kill_rotators(&mut running, place)?;
        }
        running.wait()?;
        others.wait()?;
        Ok(seconds_since(begun_at))
    }

    /// One more writer at a time, which kills itself in its first rotation, while the others run.
    fn kill_rotators(&self, running: &mut Running, place: &mut Place) -> Result<()> {
        for (number, step) in (WRITERS..WRITERS + KILLED_MAX).zip((0..STEPS).cycle()) {
            let mut command = self.writer(number, 1_000_000, step, place);
            let mut rotator = Running(vec![command.stdin(Stdio::null()).spawn()?]);
            let Some(child) = rotator.0.first_mut() else { break };
            ensure!(!ended(child)?.success(), "a rotator was to be killed, and was not");
            rotator.0.clear();
            place.wait_for(1)?;
            if running.is_over()? {
                break;
            }
        }
        Ok(())
    }

    fn writer(&self, writer: usize, lines: usize, step: usize, place: &Place) -> Command {
        let mut command = Command::new(&self.programs.log);
        command.arg(self.way.job()).arg(writer.to_string()).arg(lines.to_string());
        command.arg(&place.logs).arg(self.way.batch().to_string());
        command.arg(self.way.max_size().to_string()).arg(step.to_string());
        command.env(STAMPS, &place.fifo).stdout(Stdio::null());
        command
    }

    fn s6_log(&self, logs: &Path) -> Result<std::result::Result<(Running, PipeWriter), String>> {
        let (input, output): (PipeReader, PipeWriter) = std::io::pipe()?;
        let mut command = Command::new("s6-log");
        command.args(["t", "n100000", &format!("s{}", self.way.max_size())]).arg(logs);
        match command.stdin(input).spawn() {
            Ok(child) => Ok(Ok((Running(vec![child]), output))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Err("not installed".to_owned()))
            }
            Err(error) => Err(error).context("run s6-log"),
        }
    }

    /// `ph run` with eight workers that print, from their first stamp to the end of the master.
    fn captured(&self, place: &mut Place) -> Result<std::result::Result<f64, String>> {
        let configuration = place.folder.path().join("bench.ini");
        let logs = place.logs.display();
        let batch = self.way.batch();
        let max_size = self.way.max_size();
        let text = format!(
            "[bench]\ncommand = {} {} %(slot)s {} {logs} {batch} {max_size} {NO_STEP}\n\
             number_workers = {WRITERS}\ntimeout = 0\nlog_file = {logs}/log\n",
            self.programs.log.display(),
            self.way.job(),
            self.lines,
        );
        fs::write(&configuration, &text)?;
        let mut show = Command::new(&self.programs.ph);
        let shown = show
            .args(["config", "show", "-c"])
            .arg(&configuration)
            .output()
            .context("run ph config show")?;
        if !String::from_utf8_lossy(&shown.stdout).contains("\ncapture_output ") {
            return Ok(Err("this ph does not capture".to_owned()));
        }
        let rotated = format!("{text}log_max_size = {max_size}B\nlog_backups = 100000\n");
        fs::write(&configuration, rotated)?;
        let mut command = Command::new(&self.programs.ph);
        command.args(["run", "-c"]).arg(&configuration).env(STAMPS, &place.fifo);
        let master =
            command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("run ph")?;
        let pid = Pid::from_raw(i32::try_from(master.id())?);
        let running = Running(vec![master]);
        let begun_at = place.wait_for(2 * WRITERS)?;
        kill(pid, Signal::SIGTERM)?;
        running.wait()?;
        Ok(Ok(seconds_since(begun_at)))
    }
}

/// Waits for the end of a process, with all patience there is.
fn ended(child: &mut Child) -> Result<std::process::ExitStatus> {
    let deadline = monotonic() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        ensure!(monotonic() < deadline, "a process did not end");
        // An interrupted pause is a short one.
        let _ = poll(&mut [], PollTimeout::from(1_u8));
    }
}

/// The CPU of all processes that have ended, in seconds.
fn cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    #[expect(clippy::cast_precision_loss, reason = "days at most")]
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn seconds_since(begun_at: u64) -> f64 {
    Duration::from_nanos(monotonic().saturating_sub(begun_at)).as_secs_f64()
}
