//! Command workers: everything an `exec` needs is prepared before the fork; after it, the child only
//! makes system calls. It allocates nothing, takes no lock and cannot panic.
//!
//! A step that fails comes back through a close-on-exec pipe as its number and errno; the end of
//! that pipe without a word means that the program runs.

use std::cell::Cell;
#[cfg(test)]
use std::ffi::CStr;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use super::environ::{Environment, Table, c_string};
use super::fds::NofileLimit;
use super::{fds, process, signals};

/// `LISTEN_PID` is known only in the child, which writes its digits in place.
const LISTEN_PID: [u8; 23] = *b"LISTEN_PID=0\0         \0";
const LISTEN_PID_NAME: &[u8] = b"LISTEN_PID=";

/// The first descriptor of the listeners, by the convention of systemd's socket activation.
pub(crate) const LISTEN_FDS_START: RawFd = 3;

/// A step of the child between fork and exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// A session of its own, and death with the master.
    Session = 1,
    /// Standard streams and listeners in place.
    Descriptors,
    /// The descriptor limit the operator had set.
    Limits,
    /// The working directory.
    Directory,
    /// The program itself.
    Exec,
}

impl Step {
    const ALL: [Self; 5] =
        [Self::Session, Self::Descriptors, Self::Limits, Self::Directory, Self::Exec];

    /// What was tried, for people.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Session => "start a session for",
            Self::Descriptors => "set up the descriptors of",
            Self::Limits => "restore the descriptor limit of",
            Self::Directory => "enter the working directory of",
            Self::Exec => "exec",
        }
    }
}

/// What kept a program from running.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// The step.
    pub(crate) step: Step,
    /// Its errno.
    pub(crate) errno: i32,
}

/// A program with all its workers have in common.
pub(crate) struct Program {
    path: CString,
    environment: Environment,
    directory: Option<CString>,
    /// Copies numbered above all targets, so that no step of the child overwrites a source.
    listeners: Vec<OwnedFd>,
    dev_null: OwnedFd,
    /// Signals the master ignores, which `exec` would hand on.
    ignored: Vec<i32>,
    nofile: NofileLimit,
}

impl Program {
    /// Prepares a program. Strings with a NUL byte are refused.
    pub(crate) fn new(
        path: &OsStr,
        environment: Environment,
        directory: Option<&OsStr>,
        listeners: &[BorrowedFd<'_>],
        nofile: NofileLimit,
        ignored: &[i32],
    ) -> io::Result<Self> {
        let lowest = targets_end(listeners.len());
        let above = |fd: &BorrowedFd<'_>| fds::duplicate_above(fd, lowest);
        Ok(Self {
            path: c_string(path)?,
            environment,
            directory: directory.map(c_string).transpose()?,
            listeners: listeners.iter().map(above).collect::<nix::Result<_>>()?,
            dev_null: fds::duplicate_above(fds::dev_null()?, lowest)?,
            ignored: ignored.to_vec(),
            nofile,
        })
    }

    /// Forks and executes. `words` are the arguments, the name of the program first; `own` are this
    /// worker's variables; `output` becomes its stdout and stderr. The caller has blocked all signals, and restores its own mask.
    ///
    /// Gives the pid, and the pipe that says what became of it (see [`outcome`]).
    pub(crate) fn spawn(
        &self,
        words: &[OsString],
        own: &[(&str, String)],
        output: BorrowedFd<'_>,
    ) -> io::Result<(Pid, OwnedFd)> {
        let listen_pid = LISTEN_PID.map(Cell::new);
        let has_listeners = !self.listeners.is_empty();
        let extra = has_listeners.then(|| listen_pid.as_ptr().cast());
        let envp = self.environment.table(own, extra)?;
        let words = words.iter().map(c_string).collect::<io::Result<Vec<_>>>()?;
        let mut argv: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
        argv.push(ptr::null());
        let (report, failed) = fds::pipe()?;
        // The copy is above every descriptor the child overwrites, like the listeners.
        let lowest = targets_end(self.listeners.len());
        let failed = fds::duplicate_above(failed, lowest)?;
        let output = fds::duplicate_above(output, lowest)?;
        let master = nix::unistd::getpid();
        match process::fork()? {
            process::Fork::Master(pid) => Ok((pid, report)),
            process::Fork::Child => {
                let failure = self.become_program(master, &output, &listen_pid, &argv, &envp);
                let message = [failure.step as u8, 0, 0, 0];
                let message = [message, failure.errno.to_le_bytes()];
                let _ = fds::write(&failed, message.as_flattened());
                process::exit_now(127);
            }
        }
    }

    /// The child's part; it comes back only if a step failed.
    fn become_program(
        &self,
        master: Pid,
        output: &OwnedFd,
        listen_pid: &[Cell<u8>],
        argv: &[*const libc::c_char],
        envp: &Table,
    ) -> Failure {
        let errno = |step: Step| move |errno: nix::Error| Failure { step, errno: errno as i32 };
        let steps = || -> Result<(), Failure> {
            process::become_worker(master).map_err(errno(Step::Session))?;
            let streams = [self.dev_null.as_fd(), output.as_fd(), output.as_fd()];
            let listeners = self.listeners.iter().map(AsFd::as_fd);
            for (target, source) in (0..).zip(streams.into_iter().chain(listeners)) {
                duplicate_to(source, target).map_err(errno(Step::Descriptors))?;
            }
            fds::close_on_exec_from(targets_end(self.listeners.len()));
            self.nofile.restore().map_err(errno(Step::Limits))?;
            if let Some(directory) = &self.directory {
                nix::unistd::chdir(directory.as_c_str()).map_err(errno(Step::Directory))?;
            }
            Ok(())
        };
        if let Err(failure) = steps() {
            return failure;
        }
        let digits = &listen_pid[LISTEN_PID_NAME.len()..];
        write_decimal(digits, nix::unistd::getpid().as_raw().unsigned_abs());
        for &signal in &self.ignored {
            // SAFETY: sets a signal's default action in a process of one thread.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        // An empty mask cannot fail to be set.
        let _ = signals::set_mask(&SigSet::empty());
        // SAFETY: path is a C string; both tables end with a null pointer, and what they point to
        // was made before the fork and is still there.
        unsafe { libc::execve(self.path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        Failure { step: Step::Exec, errno: nix::errno::Errno::last_raw() }
    }
}

/// What became of a spawn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SpawnOutcome {
    /// Nothing is known yet.
    Pending,
    /// The program runs.
    Running,
    /// It does not.
    Failed(Failure),
}

/// Reads a report pipe, which is non-blocking.
pub(crate) fn outcome(report: &OwnedFd) -> SpawnOutcome {
    let mut message = [0; 8];
    match fds::read(report, &mut message) {
        Ok(0) => SpawnOutcome::Running,
        Ok(8) => {
            let [step, _, _, _, a, b, c, d] = message;
            let step = Step::ALL.into_iter().find(|known| *known as u8 == step);
            let errno = i32::from_le_bytes([a, b, c, d]);
            SpawnOutcome::Failed(Failure { step: step.unwrap_or(Step::Exec), errno })
        }
        Err(nix::Error::EAGAIN) => SpawnOutcome::Pending,
        // A torn message cannot be: eight bytes are written at once. Whatever it is, the program
        // does not run, and the reaped exit code tells.
        Ok(_) | Err(_) => SpawnOutcome::Failed(Failure { step: Step::Exec, errno: libc::EIO }),
    }
}

/// The first descriptor behind those a program gets.
fn targets_end(listeners: usize) -> RawFd {
    LISTEN_FDS_START.saturating_add(RawFd::try_from(listeners).unwrap_or(RawFd::MAX))
}

/// `dup2`, whose copy is not close-on-exec.
fn duplicate_to(source: BorrowedFd<'_>, target: RawFd) -> nix::Result<()> {
    // SAFETY: the target numbers are the child's own to overwrite: whatever the parent had there is
    // close-on-exec or meant to be replaced, and no destructor runs in this child.
    nix::errno::Errno::result(unsafe { libc::dup2(source.as_raw_fd(), target) }).map(drop)
}

/// Writes a number and a NUL byte. Without leading zeros: readers may take those for octal.
fn write_decimal(text: &[Cell<u8>], number: u32) {
    let digits = number.checked_ilog10().map_or(1, |log| log as usize + 1);
    let mut rest = number;
    for digit in text.iter().take(digits).rev() {
        digit.set(b'0' + u8::try_from(rest % 10).unwrap_or(0));
        rest /= 10;
    }
    if let Some(end) = text.get(digits) {
        end.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_without_leading_zeros() {
        for number in [0, 7, 10, 4_194_304, u32::MAX] {
            let text = LISTEN_PID.map(Cell::new);
            write_decimal(&text[LISTEN_PID_NAME.len()..], number);
            let bytes = text.map(Cell::into_inner);
            let text = CStr::from_bytes_until_nul(&bytes).unwrap().to_str().unwrap();
            assert_eq!(text, format!("LISTEN_PID={number}"));
        }
    }
}
