//! Processes: fork, reap, signal, and what a child must arrange before anything else.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, Pid};

use super::{clock, fds, procfs};

/// Which side of a fork this is.
pub(crate) enum Fork {
    /// The master, and the child it has now.
    Master(Pid),
    /// The child.
    Child,
}

/// Forks. Whoever calls this has blocked all signals and is single-threaded.
pub(crate) fn fork() -> nix::Result<Fork> {
    // SAFETY: the caller checked that this process has one thread, so no lock can be held by a
    // thread that does not exist in the child.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Master(child)),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Forks into a cgroup, without glibc's part in it: for a child that only makes system calls and
/// executes.
pub(crate) fn fork_into(cgroup: BorrowedFd<'_>) -> nix::Result<Fork> {
    // SAFETY: an all-zero clone_args asks for nothing.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of everything. Handlers of
    // pthread_atfork do not run, which is why the child may not come back to any other code.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    Ok(match Errno::result(pid)? {
        0 => Fork::Child,
        pid => Fork::Master(Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))),
    })
}

/// In linux/sched.h; the C library's headers have it as an int, which it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The number of threads of this process. One system call where the answer is one: the link count of
/// the folder of tasks is that number and two. Any other answer is checked by counting, because not
/// every kernel that has the folder keeps its link count.
pub(crate) fn thread_count() -> io::Result<usize> {
    const TASKS: &str = "/proc/self/task";
    if std::fs::metadata(TASKS)?.nlink() == 3 {
        return Ok(1);
    }
    Ok(std::fs::read_dir(TASKS)?.count())
}

/// The next child that has ended. It stays a zombie, so its pid and its process group still mean it,
/// until [`reap`].
///
/// Both this and `reap` go to the C library: nix refuses statuses with real-time signals, and a
/// child that cannot be reaped would hide all that end after it.
pub(crate) fn next_ended() -> Option<Pid> {
    ended_of(libc::P_ALL, 0)
}

/// Whether a child that has not been reaped has ended.
pub(crate) fn has_ended(child: Pid) -> bool {
    libc::id_t::try_from(child.as_raw()).is_ok_and(|pid| ended_of(libc::P_PID, pid).is_some())
}

fn ended_of(kind: libc::idtype_t, id: libc::id_t) -> Option<Pid> {
    loop {
        // SAFETY: an all-zero siginfo is a valid value to be overwritten.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: the pointer is to a live variable.
        if unsafe { libc::waitid(kind, id, &raw mut info, flags) } == 0 {
            // SAFETY: waitid filled the fields of a SIGCHLD, or left the zeros if nobody ended.
            let pid = unsafe { info.si_pid() };
            return (pid != 0).then(|| Pid::from_raw(pid));
        }
        if Errno::last() != Errno::EINTR {
            return None;
        }
    }
}

/// Whether a leader that was reaped has left anybody in its group: any child of this process,
/// living or a zombie. A number is not given again while somebody is in its group, so if there is a
/// process with the number, the group is that one's, and of the old one nobody is left.
pub(crate) fn has_left_group(leader: Pid) -> bool {
    let Ok(group) = libc::id_t::try_from(leader.as_raw()) else { return false };
    // SAFETY: an all-zero siginfo is a valid value to be overwritten.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is to a live variable.
    let has_children = unsafe { libc::waitid(libc::P_PGID, group, &raw mut info, flags) == 0 };
    has_children && kill(leader, None) == Err(Errno::ESRCH)
}

/// A process that need not be a child, held fast: while this lives, its number means nobody else.
/// Where the kernel cannot do that (before Linux 5.3, or where a filter of system calls forbids it) it
/// is its number alone.
pub(crate) enum Held {
    Fast(OwnedFd),
    Number(Pid),
}

impl Held {
    /// Takes hold of whoever has the number now. Who that is has to be looked at afterwards.
    pub(crate) fn of(pid: Pid) -> nix::Result<Self> {
        // SAFETY: opens a descriptor, and touches no memory.
        let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        match Errno::result(opened) {
            Ok(number) => {
                let number = i32::try_from(number).map_err(|_| Errno::EBADF)?;
                // SAFETY: the call has just made this descriptor, so nobody else owns it.
                Ok(Self::Fast(unsafe { OwnedFd::from_raw_fd(number) }))
            }
            Err(Errno::ESRCH) => Err(Errno::ESRCH),
            Err(_) => Ok(Self::Number(pid)),
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> nix::Result<()> {
        match self {
            Self::Fast(fd) => {
                let (fd, no_info) = (fd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
                // SAFETY: sends a signal; a null siginfo means that of `kill`.
                let sent = unsafe {
                    libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, no_info, 0)
                };
                Errno::result(sent).map(drop)
            }
            Self::Number(pid) => kill(*pid, signal),
        }
    }

    /// Waits for its end; says whether that came in time. For those who have nothing else to do.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        match self {
            Self::Fast(fd) => fds::wait_readable(fd, limit),
            Self::Number(pid) => {
                let until = clock::monotonic().saturating_add(clock::nanos(limit));
                while kill(*pid, None) != Err(Errno::ESRCH) {
                    if clock::monotonic() >= until {
                        return false;
                    }
                    clock::pause(END_LOOK);
                }
                true
            }
        }
    }
}

/// The pause between two looks whether somebody has ended whom the kernel does not tell about.
const END_LOOK: Duration = Duration::from_millis(20);

/// All children of this process. A kernel that has no such list says that there are none.
pub(crate) fn children() -> io::Result<Vec<Pid>> {
    match std::fs::read_to_string("/proc/thread-self/children") {
        Ok(list) => Ok(procfs::pids(&list).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// How a reaped process had ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it, with or without a core dump.
    Signal(i32, bool),
}

/// Reaps a child that has ended.
pub(crate) fn reap(pid: Pid) -> Option<Ended> {
    try_reap(pid).ok().flatten()
}

/// The same; `None` if it lives, and an error if there is no such child (any more).
fn try_reap(pid: Pid) -> nix::Result<Option<Ended>> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live variable.
        let reaped = unsafe { libc::waitpid(pid.as_raw(), &raw mut status, libc::WNOHANG) };
        if reaped == pid.as_raw() {
            return Ok(Some(if libc::WIFEXITED(status) {
                Ended::Code(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
            } else {
                Ended::Signal(libc::WTERMSIG(status), libc::WCOREDUMP(status))
            }));
        }
        if reaped == 0 {
            return Ok(None);
        }
        if Errno::last() != Errno::EINTR {
            return Err(Errno::last());
        }
    }
}

/// Waits, a bounded time, for the end of a child that is about to end, reaps it, and says whether that
/// is known to have been with code 0. Where SIGCHLD is ignored the kernel has reaped it already, and how
/// it ended can only be learned in another way. For the start of a master only.
pub(crate) fn reap_now(pid: Pid) -> bool {
    for _ in 0..REAP_LOOKS {
        match try_reap(pid) {
            Ok(Some(ended)) => return matches!(ended, Ended::Code(0)),
            Ok(None) => clock::pause(REAP_LOOK),
            Err(_) => return false,
        }
    }
    false
}

/// Some seconds in all. Most ends are seen at the first look or the second.
const REAP_LOOKS: u32 = 5000;
const REAP_LOOK: Duration = Duration::from_millis(1);

/// Sends a signal to a child that has not been reaped.
pub(crate) fn signal(pid: Pid, signal: Signal) -> nix::Result<()> {
    kill(pid, signal)
}

/// Sends a signal to the whole process group that a child leads.
pub(crate) fn signal_group(leader: Pid, signal: Signal) -> nix::Result<()> {
    killpg(leader, signal)
}

/// The steps that make a fresh child a worker of its own: it leads a session and a process group,
/// and the kernel kills it when the master dies. `master` is the pid seen before the fork: if the
/// parent is another one by now, the master died before the kernel was told, and so does the child.
pub(crate) fn become_worker(master: Pid) -> nix::Result<()> {
    nix::unistd::setsid()?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    leave_if_orphaned(master);
    Ok(())
}

/// Ends a child whose master died before the kernel knew that the child is to die with it.
pub(crate) fn leave_if_orphaned(master: Pid) {
    if nix::unistd::getppid() != master {
        exit_now(1);
    }
}

/// Makes this process the parent of every orphan below it, so that none escapes to pid 1.
pub(crate) fn become_subreaper() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Ends this process without running anything the master had registered for its own end.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: _exit does not return and touches no memory of this program.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Has `flush` called when this process calls `exit`: a worker's code may do that any time.
pub(crate) fn at_exit(flush: extern "C" fn()) {
    // SAFETY: registering a function with the C signature; it fails only for want of memory, and
    // then the lines in the queue are what is lost.
    unsafe { libc::atexit(flush) };
}

/// Whether a terminal sends this process its signals.
pub(crate) fn has_controlling_terminal() -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    nix::fcntl::open("/dev/tty", flags, Mode::empty()).is_ok()
}

/// The number of the calling thread.
pub(crate) fn own_thread() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// The pid of this process.
pub(crate) fn own_pid() -> u32 {
    std::process::id()
}

/// Puts /dev/null in place of standard input: a worker must not read what the master's is.
pub(crate) fn replace_standard_input(dev_null: impl AsFd) -> nix::Result<()> {
    nix::unistd::dup2_stdin(dev_null)
}

/// Makes descriptors standard output and standard error, where there are any.
pub(crate) fn replace_outputs(
    stdout: Option<&OwnedFd>,
    stderr: Option<&OwnedFd>,
) -> nix::Result<()> {
    stdout.map_or(Ok(()), nix::unistd::dup2_stdout)?;
    stderr.map_or(Ok(()), nix::unistd::dup2_stderr)
}
