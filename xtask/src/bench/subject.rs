//! A master under test, or the floor in its place: started, listened to, stopped.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;
use xtask::{STAMP_LENGTH, STAMPS, Stamp, monotonic};

use crate::release::Release;

/// How long anything here may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Room for the stamps of some ten thousand workers that start at once.
const PIPE_BYTES: i32 = 1 << 20;

/// What the workers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workers {
    Forked,
    Command,
}

/// Who keeps them alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Ph,
    Floor,
}

/// The programs of a run.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) ph: PathBuf,
    forked: PathBuf,
    pub(super) floor: PathBuf,
    pub(super) hyper: PathBuf,
    worker: PathBuf,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
    pub(super) serve: PathBuf,
    pub(super) beat: PathBuf,
}

impl Programs {
    pub(super) fn of(release: &Release) -> Result<Self> {
        let program = |name: &str| {
            let path = release.folder.join(name);
            ensure!(path.is_file(), "{} was not built", path.display());
            Ok(path)
        };
        Ok(Self {
            ph: program("ph")?,
            forked: program("bench-forked")?,
            floor: program("bench-floor")?,
            hyper: program("bench-hyper")?,
            worker: program("bench-worker")?,
            config: program("bench-config")?,
            log: program("bench-log")?,
            serve: program("bench-serve")?,
            beat: program("bench-beat")?,
        })
    }

    /// The command line of one master. The settings keep a slot whose worker is killed again and
    /// again from backing off, and ask for nothing the floor does not do.
    fn command(&self, who: Who, workers: Workers, count: usize, folder: &TempDir) -> Command {
        let count = count.to_string();
        let program = match (who, workers) {
            (Who::Ph, Workers::Forked) => &self.forked,
            (Who::Ph, Workers::Command) => &self.ph,
            (Who::Floor, _) => &self.floor,
        };
        let mut command = Command::new(program);
        match (who, workers) {
            (Who::Ph, Workers::Forked) => {
                command.arg(count);
            }
            (Who::Ph, Workers::Command) => {
                let base_path = format!("base_path={}", folder.path().display());
                let max_workers = format!("max_workers={count}");
                command.args(["run", "-n", &count]);
                for set in [&base_path, &max_workers, "log_level=error", "timeout=0"] {
                    command.args(["--set", set]);
                }
                for set in ["min_uptime=0", "max_restarts=1000000"] {
                    command.args(["--set", set]);
                }
                command.arg("--").arg(&self.worker);
            }
            (Who::Floor, Workers::Forked) => {
                command.args(["fork", &count]);
            }
            (Who::Floor, Workers::Command) => {
                command.args(["spawn", &count]).arg(&self.worker);
            }
        }
        command
    }
}

/// A master that runs.
#[derive(Debug)]
pub(super) struct Subject {
    master: Option<Child>,
    master_pid: Pid,
    stamps: File,
    /// Its workers, the oldest first.
    workers: VecDeque<Pid>,
    /// Where the FIFO and the master's files are.
    _folder: TempDir,
}

impl Subject {
    /// Starts a master and waits for all its workers; also says how long that took, from before the
    /// master was executed to the last stamp.
    pub(super) fn start(
        programs: &Programs,
        who: Who,
        workers: Workers,
        count: usize,
    ) -> Result<(Self, Duration)> {
        let folder = tempfile::tempdir()?;
        let command = programs.command(who, workers, count, &folder);
        Self::start_command(command, count, folder)
    }

    /// Starts `bench-serve`, a worker of which may be killed again and again. Each request takes `work`
    /// milliseconds.
    pub(super) fn of_servers(
        programs: &Programs,
        port: u16,
        count: usize,
        work: u64,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(&programs.serve);
        command.arg(port.to_string()).arg(folder.path().join("bench.pid"));
        command.args([&count.to_string(), &work.to_string(), "killed"]);
        Ok(Self::start_command(command, count, folder)?.0)
    }

    fn start_command(
        mut command: Command,
        count: usize,
        folder: TempDir,
    ) -> Result<(Self, Duration)> {
        let path = folder.path().join("stamps");
        mkfifo(&path, Mode::S_IRWXU).context("mkfifo")?;
        // Open for writing too, so that it never ends.
        let stamps = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&path)?;
        fcntl(&stamps, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).context("F_SETPIPE_SZ")?;
        command.env(STAMPS, &path).stdin(Stdio::null()).stdout(Stdio::null());
        let started_at = monotonic();
        let master =
            command.spawn().with_context(|| format!("start {:?}", command.get_program()))?;
        let mut subject = Self {
            master_pid: Pid::from_raw(i32::try_from(master.id())?),
            master: Some(master),
            stamps,
            workers: VecDeque::new(),
            _folder: folder,
        };
        let last = subject.wait_for(count)?;
        Ok((subject, Duration::from_nanos(last.saturating_sub(started_at))))
    }

    pub(super) fn master_pid(&self) -> Pid {
        self.master_pid
    }

    pub(super) fn workers(&self) -> &VecDeque<Pid> {
        &self.workers
    }

    /// Kills the oldest worker; the time until its successor runs.
    pub(super) fn kill_one(&mut self) -> Result<Duration> {
        let victim = self.workers.pop_front().context("no worker is left")?;
        let killed_at = monotonic();
        kill(victim, Signal::SIGKILL)?;
        let last = self.wait_for(1)?;
        Ok(Duration::from_nanos(last.saturating_sub(killed_at)))
    }

    /// Kills all workers; the time until as many successors run.
    pub(super) fn kill_all(&mut self) -> Result<Duration> {
        let victims = std::mem::take(&mut self.workers);
        let killed_at = monotonic();
        for victim in &victims {
            kill(*victim, Signal::SIGKILL)?;
        }
        let last = self.wait_for(victims.len())?;
        Ok(Duration::from_nanos(last.saturating_sub(killed_at)))
    }

    /// Asks the master to stop; the time until it has ended, and with it all workers.
    pub(super) fn stop(mut self) -> Result<Duration> {
        let mut master = self.master.take().context("it was stopped already")?;
        let (sender, ended) = channel();
        std::thread::spawn(move || {
            let status = master.wait();
            // The receiver has given up if it is not there.
            let _ = sender.send((status, monotonic()));
        });
        let asked_at = monotonic();
        kill(self.master_pid, Signal::SIGTERM)?;
        let Ok((status, ended_at)) = ended.recv_timeout(PATIENCE) else {
            kill(self.master_pid, Signal::SIGKILL)?;
            bail!("it did not stop");
        };
        let status = status?;
        ensure!(status.success(), "it ended with {status}");
        Ok(Duration::from_nanos(ended_at.saturating_sub(asked_at)))
    }

    /// Lets some time pass in which no worker may start.
    pub(super) fn rest(&mut self, duration: Duration) -> Result<()> {
        ensure!(!self.is_readable(duration)?, "a worker started that nobody had asked for");
        Ok(())
    }

    /// Takes `count` stamps and gives the time of the latest.
    fn wait_for(&mut self, count: usize) -> Result<u64> {
        let mut latest = 0;
        let mut missing = count;
        let mut bytes = [0; STAMP_LENGTH * 256];
        while missing > 0 {
            match self.stamps.read(&mut bytes) {
                Ok(length) => {
                    let (stamps, rest) = bytes[..length].as_chunks::<STAMP_LENGTH>();
                    ensure!(rest.is_empty(), "a torn stamp");
                    ensure!(stamps.len() <= missing, "more workers started than were asked for");
                    missing -= stamps.len();
                    for stamp in stamps.iter().copied().map(Stamp::from_bytes) {
                        latest = latest.max(stamp.at);
                        self.workers.push_back(Pid::from_raw(i32::try_from(stamp.pid)?));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ensure!(self.is_readable(PATIENCE)?, "{missing} of {count} did not start");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(latest)
    }

    fn is_readable(&self, wait: Duration) -> Result<bool> {
        let mut fds = [PollFd::new(self.stamps.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, PollTimeout::try_from(wait)?)? > 0)
    }
}

impl Drop for Subject {
    /// A subject that something went wrong with must not outlive the bench.
    fn drop(&mut self) {
        if let Some(mut master) = self.master.take() {
            // Asked first, because it ends its children. It cannot be gone: nobody has waited.
            let _ = kill(self.master_pid, Signal::SIGTERM);
            let _ = self.is_readable(Duration::from_secs(2));
            let _ = master.kill();
            let _ = master.wait();
        }
    }
}
