//! A trial: everything a worker's child does before its own code, done once by a child that does nothing
//! else. What would fail in every worker is known then, by doing it and not by guessing.
//!
//! It is for the start of a master and for a rehearsal of one: it waits for the child, a bounded time.
//! The child tells each step before it takes it, so that one that never comes back is known; and its last
//! word is that it has come to the end, so that nothing depends on who reaps it. It dies with the master,
//! holds none of its streams open, and ends itself if the master is stopped.

use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, Pid, access};

use super::setup::{Course, Failure, Setup, Step};
use super::spawn::duplicate_to;
use super::{clock, fds, process, signals};

/// How long a trial may take. A folder of a file server that does not answer can hold the child up for
/// ever.
const LIMIT: Duration = Duration::from_secs(10);

/// When the child ends by itself, in seconds: later than any master waits for it.
const LIFE: u32 = 20;

/// More than one program with all that interprets it, and all steps.
const MESSAGES_AT_MOST: usize = 1024;

/// Something a worker must be able to do with one of some files; the first that there is counts.
#[derive(Debug)]
pub(crate) struct Need {
    pub(crate) use_of: Use,
    pub(crate) paths: Vec<CString>,
}

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It must be a regular file, and executable.
    Execute,
    /// An interpreter will read it.
    Read,
}

/// Goes through a setup and gives the steps that failed, in their order. At the end the child tries, as
/// whoever it is by then and wherever it is, whether these needs are met; of a [`Step::Exec`] that failed,
/// the detail is the need's place in the list.
///
/// # Errors
///
/// The system call without which there is no trial.
pub(crate) fn try_out(setup: &Setup, needs: &[Need]) -> Result<Vec<Failure>, Refused> {
    let master = nix::unistd::getpid();
    let (pid, report) = start(|failed, is_ready| {
        let teller = Teller { failed, is_wrong_user: false };
        rehearse(setup, needs, master, teller, is_ready);
    })?;
    let (mut failures, end) = hear(&report);
    match end {
        End::Told => {}
        End::Silence(step) => {
            // One that has ended meanwhile is no longer there to be killed.
            let _ = process::signal(pid, Signal::SIGKILL);
            failures.push(Failure { errno: Errno::ETIMEDOUT as i32, ..step });
        }
        // A step that killed it (a limit can) is the one to blame.
        End::Death(step) if failures.is_empty() => {
            failures.push(Failure { errno: Errno::EINTR as i32, ..step });
        }
        End::Death(_) => {}
    }
    process::reap_now(pid);
    Ok(failures)
}

/// Has a child find something out that may take for ever, such as to read a file. Gives its answer, which
/// must fit into a pipe; `None` if that did not come in time. The caller has one thread, so the child may
/// do what it likes.
pub(crate) fn ask(act: impl FnOnce() -> Vec<u8>) -> Result<Option<Vec<u8>>, Refused> {
    let (pid, report) = start(|failed, _| {
        let _ = fds::write(failed, &act());
    })?;
    let until = clock::monotonic().saturating_add(clock::nanos(LIMIT));
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    let is_whole = loop {
        match fds::read(&report, &mut bytes) {
            Ok(0) => break true,
            Ok(length) => answer.extend_from_slice(&bytes[..length]),
            Err(Errno::EAGAIN) if clock::monotonic() < until => wait(&report, until),
            Err(_) => break false,
        }
    };
    if !is_whole {
        let _ = process::signal(pid, Signal::SIGKILL);
    }
    process::reap_now(pid);
    Ok(is_whole.then_some(answer))
}

fn wait(report: &OwnedFd, until: u64) {
    let left = Duration::from_nanos(until.saturating_sub(clock::monotonic()));
    fds::wait_readable(report, left);
}

/// The system call without which there is no child, and its answer.
type Refused = (&'static str, Errno);

/// Forks a child for a bounded time, which has the other end of the pipe.
fn start(act: impl FnOnce(&OwnedFd, nix::Result<()>)) -> Result<(Pid, OwnedFd), Refused> {
    let of = |call: &'static str| move |errno: Errno| (call, errno);
    // Above the standard streams, which the child replaces.
    let (report, failed) = fds::pipe().map_err(of("pipe"))?;
    let failed = fds::duplicate_above(failed, 3).map_err(of("duplicate a pipe"))?;
    let dev_null = fds::dev_null().and_then(|fd| fds::duplicate_above(fd, 3));
    let dev_null = dev_null.map_err(of("open /dev/null"))?;
    let master = nix::unistd::getpid();
    let mask = signals::block_all().map_err(of("sigprocmask"))?;
    let forked = match process::fork() {
        Ok(process::Fork::Child) => {
            act(&failed, withdraw(master, &dev_null));
            process::exit_now(0);
        }
        Ok(process::Fork::Master(pid)) => Ok(pid),
        Err(errno) => Err(errno),
    };
    drop(failed);
    signals::set_mask(&mask).map_err(of("sigprocmask"))?;
    Ok((forked.map_err(of("fork"))?, report))
}

/// The child's first part: nobody has to wait for it, whatever becomes of it.
fn withdraw(master: Pid, dev_null: &OwnedFd) -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    process::leave_if_orphaned(master);
    signals::end_at(LIFE)?;
    (0..=2).try_for_each(|stream| duplicate_to(dev_null.as_fd(), stream))
}

/// The child's second part: system calls only.
fn rehearse(
    setup: &Setup,
    needs: &[Need],
    master: Pid,
    mut teller: Teller<'_>,
    is_ready: nix::Result<()>,
) {
    let _ = teller.take(Step::Session, || is_ready);
    let _ = setup.go_through(0, master, None, &mut teller);
    for (detail, need) in (0..=u8::MAX).zip(needs) {
        teller.begin(Step::Exec, detail);
        if let Err(errno) = need.is_met() {
            let _ = teller.judge(Failure { detail, ..Failure::of(Step::Exec)(errno) });
        }
    }
    teller.send(END, Failure::of(Step::Exec)(Errno::UnknownErrno));
}

impl Need {
    /// As `execvp` has it: one that may not be used is told of only if there is no other.
    fn is_met(&self) -> nix::Result<()> {
        let mut best = Errno::ENOENT;
        for path in &self.paths {
            match self.use_of.try_on(path) {
                Ok(()) => return Ok(()),
                Err(Errno::ENOENT | Errno::ENOTDIR) if self.paths.len() > 1 => {}
                Err(errno) => best = errno,
            }
        }
        Err(best)
    }
}

impl Use {
    fn try_on(self, path: &CString) -> nix::Result<()> {
        match self {
            Self::Read => access(path.as_c_str(), AccessFlags::R_OK),
            Self::Execute => {
                access(path.as_c_str(), AccessFlags::X_OK)?;
                let mode = SFlag::from_bits_truncate(stat(path.as_c_str())?.st_mode);
                match mode & SFlag::S_IFMT == SFlag::S_IFREG {
                    true => Ok(()),
                    false => Err(Errno::EACCES),
                }
            }
        }
    }
}

/// The kinds of messages, all of one length.
const FAILURE: u8 = 0;
const BEGIN: u8 = 1;
const END: u8 = 2;

/// The child's end of the pipe.
struct Teller<'a> {
    failed: &'a OwnedFd,
    is_wrong_user: bool,
}

impl Teller<'_> {
    fn send(&self, kind: u8, about: Failure) {
        let message = [about.step as u8, about.detail, kind, 0];
        let message = [message, about.errno.to_le_bytes()];
        let _ = fds::write(self.failed, message.as_flattened());
    }
}

impl Course for Teller<'_> {
    fn begin(&mut self, step: Step, detail: u8) {
        self.send(BEGIN, Failure { step, detail, errno: 0 });
    }

    fn judge(&mut self, failure: Failure) -> Result<(), Failure> {
        self.is_wrong_user |=
            matches!(failure.step, Step::Groups | Step::Group | Step::User | Step::Verify);
        // What one user may not do says nothing about the one who was meant.
        if !self.is_wrong_user || failure.errno != libc::EACCES {
            self.send(FAILURE, failure);
        }
        Ok(())
    }
}

/// How the child's report ended; if not by its last word, with the step it told of last.
enum End {
    Told,
    /// It said nothing more in time.
    Silence(Failure),
    /// It ended before its time.
    Death(Failure),
}

/// Everything the child says.
fn hear(report: &OwnedFd) -> (Vec<Failure>, End) {
    let until = clock::monotonic().saturating_add(clock::nanos(LIMIT));
    let mut failures = Vec::new();
    let mut step = Failure { step: Step::Session, errno: 0, detail: 0 };
    for _ in 0..MESSAGES_AT_MOST {
        match next_message(report, until) {
            Message::Failure(failure) => failures.push(failure),
            Message::Begin(begun) => step = begun,
            Message::End => return (failures, End::Told),
            Message::Silence => break,
            Message::Death => return (failures, End::Death(step)),
        }
    }
    (failures, End::Silence(step))
}

/// What is heard from a child.
enum Message {
    Failure(Failure),
    Begin(Failure),
    End,
    /// Nothing in time.
    Silence,
    /// It is gone.
    Death,
}

/// Waits for one message. A torn one cannot be: eight bytes are written at once.
fn next_message(report: &OwnedFd, until: u64) -> Message {
    let mut message = [0; 8];
    loop {
        match fds::read(report, &mut message) {
            Ok(8) => break,
            Err(Errno::EAGAIN) if clock::monotonic() < until => wait(report, until),
            Err(Errno::EAGAIN) => return Message::Silence,
            Ok(_) | Err(_) => return Message::Death,
        }
    }
    let [step, detail, kind, _, a, b, c, d] = message;
    let step = Step::numbered(step).unwrap_or(Step::Exec);
    let failure = Failure { step, errno: i32::from_le_bytes([a, b, c, d]), detail };
    match kind {
        FAILURE => Message::Failure(failure),
        BEGIN => Message::Begin(failure),
        _ => Message::End,
    }
}
