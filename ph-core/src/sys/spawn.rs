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
use super::setup::{Failure, Setup, Step};
use super::{fds, process, signals};

/// A variable whose value is the pid of the child, which is known only there: it writes its digits in
/// place.
struct OwnPid {
    text: Vec<Cell<u8>>,
    digits_at: usize,
}

impl OwnPid {
    fn new(name: &str) -> Self {
        // Ten digits and a NUL; until they are known it is a number of its own.
        let text = format!("{name}=0\0         \0");
        Self { text: text.bytes().map(Cell::new).collect(), digits_at: name.len() + 1 }
    }

    /// In the child.
    fn write(&self, pid: u32) {
        write_decimal(&self.text[self.digits_at..], pid);
    }

    fn as_ptr(&self) -> *const libc::c_char {
        self.text.as_ptr().cast()
    }
}

/// The first descriptor of the listeners, by the convention of systemd's socket activation.
pub(crate) const LISTEN_FDS_START: RawFd = 3;

/// A program with all its workers have in common.
pub(crate) struct Program {
    path: CString,
    environment: Environment,
    setup: Setup,
    /// Copies numbered above all targets, so that no step of the child overwrites a source.
    listeners: Vec<OwnedFd>,
    dev_null: OwnedFd,
    /// Signals the master ignores, which `exec` would hand on.
    ignored: Vec<i32>,
    /// The names of variables whose value is the pid of each child.
    own_pid: Vec<&'static str>,
}

/// What makes one worker of a program differ from another.
pub(crate) struct Instance<'a> {
    /// Its listeners, if they are not those of all; as many.
    pub(crate) listeners: Option<&'a [BorrowedFd<'a>]>,
    pub(crate) slot: u32,
    /// The arguments, the name of the program first.
    pub(crate) words: &'a [OsString],
    /// The variables of this worker alone.
    pub(crate) own: &'a [(OsString, OsString)],
    /// Its stdout and stderr.
    pub(crate) outputs: [BorrowedFd<'a>; 2],
    /// The cgroup of its seat.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    pub(crate) mark: Option<u64>,
}

impl Program {
    /// Prepares a program. Strings with a NUL byte are refused.
    pub(crate) fn new(
        path: &OsStr,
        environment: Environment,
        setup: Setup,
        listeners: &[BorrowedFd<'_>],
        ignored: &[i32],
    ) -> io::Result<Self> {
        let lowest = targets_end(listeners.len());
        let above = |fd: &BorrowedFd<'_>| fds::duplicate_above(fd, lowest);
        Ok(Self {
            path: c_string(path)?,
            environment,
            setup,
            listeners: listeners.iter().map(above).collect::<nix::Result<_>>()?,
            dev_null: fds::duplicate_above(fds::dev_null()?, lowest)?,
            ignored: ignored.to_vec(),
            own_pid: Vec::new(),
        })
    }

    /// The variables of these names are to hold the pid of each child.
    pub(crate) fn with_own_pid(mut self, names: impl Iterator<Item = &'static str>) -> Self {
        self.own_pid = names.collect();
        self
    }

    /// Its own descriptors.
    pub(crate) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        [&self.dev_null].into_iter().chain(&self.listeners).map(AsRawFd::as_raw_fd)
    }

    /// Forks and executes. The caller has blocked all signals, and restores its own mask.
    ///
    /// Gives the pid, and the pipe that says what became of it (see [`outcome`]).
    pub(crate) fn spawn(&self, instance: &Instance<'_>) -> io::Result<(Pid, OwnedFd)> {
        let own_pid: Vec<_> = self.own_pid.iter().map(|name| OwnPid::new(name)).collect();
        let extra: Vec<_> = own_pid.iter().map(OwnPid::as_ptr).collect();
        let envp = self.environment.table(instance.own, &extra)?;
        let words = instance.words.iter().map(c_string).collect::<io::Result<Vec<_>>>()?;
        let mut argv: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
        argv.push(ptr::null());
        let (report, failed) = fds::pipe()?;
        // The copies are above every descriptor the child overwrites, like the listeners.
        let lowest = targets_end(self.listeners.len());
        let failed = fds::duplicate_above(failed, lowest)?;
        let above = |fd: BorrowedFd<'_>| fds::duplicate_above(fd, lowest);
        let own = instance.listeners.unwrap_or_default().iter().map(|fd| above(*fd));
        let own = own.collect::<nix::Result<Vec<_>>>()?;
        let listeners = if instance.listeners.is_some() { &own } else { &self.listeners };
        let [stdout, stderr] = instance.outputs.map(above);
        let outputs = [stdout?, stderr?];
        let cgroup = instance.cgroup.map(above).transpose()?;
        let master = nix::unistd::getpid();
        let forked = match &cgroup {
            Some(cgroup) => process::fork_into(cgroup.as_fd()),
            None => process::fork(),
        };
        match forked? {
            process::Fork::Master(pid) => Ok((pid, report)),
            process::Fork::Child => {
                let Err(failure) = (|| {
                    process::become_worker(master).map_err(Failure::of(Step::Session))?;
                    self.place_descriptors(listeners, &outputs)
                        .map_err(Failure::of(Step::Descriptors))?;
                    self.setup.apply(instance.slot, master, instance.mark)?;
                    self.execute(&own_pid, &argv, &envp)
                })();
                tell(&failed, failure);
                process::exit_now(127);
            }
        }
    }

    fn place_descriptors(
        &self,
        listeners: &[OwnedFd],
        [stdout, stderr]: &[OwnedFd; 2],
    ) -> nix::Result<()> {
        let streams = [self.dev_null.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let listeners = listeners.iter().map(AsFd::as_fd);
        for (target, source) in (0..).zip(streams.into_iter().chain(listeners)) {
            duplicate_to(source, target)?;
        }
        fds::close_on_exec_from(targets_end(self.listeners.len()));
        Ok(())
    }

    /// The child's last part; it comes back only if the program cannot be executed.
    fn execute(
        &self,
        own_pid: &[OwnPid],
        argv: &[*const libc::c_char],
        envp: &Table,
    ) -> Result<std::convert::Infallible, Failure> {
        let pid = nix::unistd::getpid().as_raw().unsigned_abs();
        own_pid.iter().for_each(|variable| variable.write(pid));
        for &signal in &self.ignored {
            // SAFETY: sets a signal's default action in a process of one thread.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        // An empty mask cannot fail to be set.
        let _ = signals::set_mask(&SigSet::empty());
        // SAFETY: path is a C string; both tables end with a null pointer, and what they point to
        // was made before the fork and is still there.
        unsafe { libc::execve(self.path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        Err(Failure::of(Step::Exec)(nix::errno::Errno::last()))
    }
}

/// Tells the other end of a report pipe which step failed.
pub(super) fn tell(failed: &OwnedFd, failure: Failure) {
    let message = [failure.step as u8, failure.detail, 0, 0];
    let message = [message, failure.errno.to_le_bytes()];
    let _ = fds::write(failed, message.as_flattened());
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
            let [step, detail, _, _, a, b, c, d] = message;
            let step = Step::numbered(step).unwrap_or(Step::Exec);
            let errno = i32::from_le_bytes([a, b, c, d]);
            SpawnOutcome::Failed(Failure { step, errno, detail })
        }
        Err(nix::Error::EAGAIN) => SpawnOutcome::Pending,
        // A torn message cannot be: eight bytes are written at once. Whatever it is, the program
        // does not run, and the reaped exit code tells.
        Ok(_) | Err(_) => SpawnOutcome::Failed(Failure::of(Step::Exec)(nix::Error::EIO)),
    }
}

/// The first descriptor behind those a program gets.
fn targets_end(listeners: usize) -> RawFd {
    LISTEN_FDS_START.saturating_add(RawFd::try_from(listeners).unwrap_or(RawFd::MAX))
}

/// `dup2`, whose copy is not close-on-exec.
pub(super) fn duplicate_to(source: BorrowedFd<'_>, target: RawFd) -> nix::Result<()> {
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
            let variable = OwnPid::new("LISTEN_PID");
            variable.write(number);
            let bytes: Vec<_> = variable.text.iter().map(Cell::get).collect();
            let text = CStr::from_bytes_until_nul(&bytes).unwrap().to_str().unwrap();
            assert_eq!(text, format!("LISTEN_PID={number}"));
        }
    }
}
