//! Signals: into the loop by signal-hook and a wake pipe, and blocked across every fork.
//!
//! A handler does three things that are safe in a handler: it counts the signal in a static atomic,
//! remembers the sender there, and writes one byte into a non-blocking pipe. A full pipe is no loss,
//! because a byte that wakes the loop is in it already; so no kind of signal is ever lost (I14).
//!
//! The handlers installed by signal-hook survive a fork, and installing others afterwards is slow and
//! leaves a gap. So there is one action a signal for the life of the master and of all its forked
//! workers, and it asks what this process is: the child of a fork says so with one store, while all
//! signals are blocked. In any other process, as in one a user's code forks, it does what the system
//! would have done. SIGABRT, which is no request, has a handler of its own (`last_words`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use signal_hook::low_level::emulate_default_handler;
use signal_hook_registry::{FORBIDDEN, register_sigaction};

use super::fds;

const SIGNALS: usize = 65;
static COUNTS: [AtomicU32; SIGNALS] = [const { AtomicU32::new(0) }; SIGNALS];
/// The last sender of each: pid and uid in one word. No process has this pid.
static SENDERS: [AtomicU64; SIGNALS] = [const { AtomicU64::new(FROM_KERNEL) }; SIGNALS];
const FROM_KERNEL: u64 = u64::MAX;
/// The write end of this process's wake pipe.
static WAKE: AtomicI32 = AtomicI32::new(-1);
/// The pid of the process that is the master, and of the one that is a forked worker.
static MASTER: AtomicI32 = AtomicI32::new(0);
static WORKER: AtomicI32 = AtomicI32::new(0);
/// Which signals ask a worker to stop: bit n is signal n.
static STOP_SIGNALS: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
static REOPENS: AtomicU32 = AtomicU32::new(0);

/// How often this process was asked to reopen its log files (SIGUSR1). A log writer compares it with
/// the value it saw when it opened its file; a signal handler may bump it between any two lines.
#[must_use]
pub fn reopen_count() -> &'static AtomicU32 {
    &REOPENS
}

/// Asks the log writers of this process to reopen their files.
pub(crate) fn count_reopen() {
    REOPENS.fetch_add(1, Ordering::Relaxed);
}

/// A signal that came since the last look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    /// Which one.
    pub(crate) signal: Signal,
    /// How many the handler saw. The kernel merges what comes faster.
    pub(crate) count: u32,
    /// The process that sent the last of them; `None`: the kernel, as on a terminal's Ctrl-C.
    pub(crate) sender: Option<Sender>,
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender {
    /// Its pid; 0 if it is outside this pid namespace, as a container's engine is.
    pub(crate) pid: u32,
    /// Its user.
    pub(crate) uid: u32,
}

/// The signals that have their action, in this process and in all it forks. None is ever taken away:
/// without its action a signal would be swallowed.
static REGISTERED: Mutex<Vec<Signal>> = Mutex::new(Vec::new());

/// The master's end of its signals. When it is dropped, they do again what they do by default.
#[derive(Debug)]
pub(crate) struct SignalQueue {
    wake: (OwnedFd, OwnedFd),
    /// Signals that were ignored when the master started, SIGPIPE among them.
    ignored: Vec<i32>,
}

impl SignalQueue {
    /// Registers an action for each of the signals the master counts, for `SIGCHLD`, and for those
    /// that ask a forked worker to stop.
    ///
    /// # Errors
    ///
    /// A stop signal that cannot be caught or must not be (SIGKILL, SIGSTOP, and those of a fault).
    pub(crate) fn install(counted: &[Signal], stop_signal: Option<Signal>) -> io::Result<Self> {
        if stop_signal.is_some_and(|signal| FORBIDDEN.contains(&(signal as i32))) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let ignored = ignored();
        let wake = fds::pipe()?;
        let mut stops = vec![Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
        stops.extend(stop_signal);
        let bits = stops.iter().fold(0, |bits, stop| bits | 1 << (*stop as u64));
        STOP_SIGNALS.store(bits, Ordering::Relaxed);
        WAKE.store(wake.1.as_raw_fd(), Ordering::Relaxed);
        MASTER.store(nix::unistd::getpid().as_raw(), Ordering::Relaxed);
        let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        for &signal in counted.iter().chain(&stops).chain(&[Signal::SIGCHLD]) {
            if !registered.contains(&signal) {
                // SAFETY: the action is safe in a handler: it loads and stores atomics and calls
                // getpid and write, or signal-hook's own emulation of a default action.
                unsafe { register_sigaction(signal as i32, move |info| on_signal(signal, info)) }?;
                registered.push(signal);
            }
        }
        wake_for_ends_only()?;
        Ok(Self { wake, ignored })
    }

    /// The signals `exec` would hand on as ignored; a worker gets them at their default.
    pub(crate) fn ignored(&self) -> &[i32] {
        &self.ignored
    }

    /// The descriptor that becomes readable when a signal has come.
    pub(crate) fn wake_fd(&self) -> &OwnedFd {
        &self.wake.0
    }

    /// What came since the last call. Reads the pipe first, so that a signal which comes during
    /// the call is either seen now or wakes the loop again.
    pub(crate) fn take(&self) -> impl Iterator<Item = Arrived> {
        // One read a call: bytes that are left only wake the loop once more.
        let _ = fds::read(&self.wake.0, &mut [0; 4096]);
        Signal::iterator().filter_map(|signal| {
            let count = COUNTS[signal as usize].swap(0, Ordering::Relaxed);
            let sender = SENDERS[signal as usize].swap(FROM_KERNEL, Ordering::Relaxed);
            let sender = (sender != FROM_KERNEL).then_some(Sender {
                pid: (sender >> 32) as u32,
                uid: (sender & 0xffff_ffff) as u32,
            });
            (count > 0).then_some(Arrived { signal, count, sender })
        })
    }

    /// Both ends of the wake pipe, which a forked worker closes.
    pub(crate) fn raw_fds(&self) -> [i32; 2] {
        [self.wake.0.as_raw_fd(), self.wake.1.as_raw_fd()]
    }

    /// In a forked worker, with all signals blocked: from here on the actions are the worker's. A
    /// signal that asks for a stop sets a flag and wakes [`stop_pipe`](WorkerSignals::stop_pipe);
    /// SIGUSR1, unless it is the stop signal, asks for the log to be reopened. What else the master
    /// catches stays caught, without effect. What the caller of the master had ignored, as a shell
    /// may with SIGABRT, does what it does by default; but for SIGPIPE, which Rust's runtime ignores
    /// and whose EPIPE a worker's code counts on.
    pub(crate) fn become_worker(&self) -> io::Result<WorkerSignals> {
        let pipe = fds::pipe()?;
        WAKE.store(pipe.1.as_raw_fd(), Ordering::Relaxed);
        STOP.store(false, Ordering::Relaxed);
        for &signal in self.ignored.iter().filter(|signal| **signal != libc::SIGPIPE) {
            // SAFETY: sets a signal's default action in a process of one thread.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        WORKER.store(nix::unistd::getpid().as_raw(), Ordering::Relaxed);
        Ok(WorkerSignals { pipe })
    }
}

impl Drop for SignalQueue {
    fn drop(&mut self) {
        MASTER.store(0, Ordering::Relaxed);
        WAKE.store(-1, Ordering::Relaxed);
    }
}

/// A forked worker's end of its signals.
#[derive(Debug)]
pub(crate) struct WorkerSignals {
    pipe: (OwnedFd, OwnedFd),
}

impl WorkerSignals {
    /// Whether a stop was asked for: one relaxed load.
    pub(crate) fn stop_asked(&self) -> bool {
        STOP.load(Ordering::Relaxed)
    }

    /// Does what a signal that asks for a stop does.
    pub(crate) fn ask_stop(&self) {
        STOP.store(true, Ordering::Relaxed);
        wake();
    }

    /// Waits, at most so long, until a stop was asked for; says whether to go on. A signal may cut
    /// the wait short.
    pub(crate) fn wait(&self, limit: std::time::Duration) -> bool {
        if !self.stop_asked() {
            fds::wait_readable(self.stop_pipe(), limit);
        }
        !self.stop_asked()
    }

    /// Becomes readable, and stays so, when a stop was asked for.
    pub(crate) fn stop_pipe(&self) -> impl AsFd {
        self.pipe.0.as_fd()
    }
}

fn on_signal(signal: Signal, info: &libc::siginfo_t) {
    let pid = nix::unistd::getpid().as_raw();
    if pid == MASTER.load(Ordering::Relaxed) {
        on_master_signal(signal, info);
    } else if pid == WORKER.load(Ordering::Relaxed) {
        on_worker_signal(signal);
    } else {
        // A command between fork and exec, or what a worker forked by itself: it has no use for our
        // handler, and a stop must not be swallowed. This call is made for handlers.
        let _ = emulate_default_handler(signal as i32);
    }
}

fn on_master_signal(signal: Signal, info: &libc::siginfo_t) {
    let from_kernel = info.si_code > 0;
    if from_kernel && matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU) {
        // Not an operator, but a terminal that refuses a background process. Swallowed, the refused
        // write would be tried again at once and for ever; the system stops the process.
        let _ = emulate_default_handler(signal as i32);
        return;
    }
    if !from_kernel {
        // SAFETY: si_code says that a process sent this, so the pid field is set.
        let pid = u64::from(unsafe { info.si_pid() }.unsigned_abs());
        // SAFETY: and so is the uid field.
        let uid = unsafe { info.si_uid() };
        SENDERS[signal as usize].store((pid << 32) | u64::from(uid), Ordering::Relaxed);
    }
    COUNTS[signal as usize].fetch_add(1, Ordering::Relaxed);
    wake();
}

fn on_worker_signal(signal: Signal) {
    if STOP_SIGNALS.load(Ordering::Relaxed) & (1 << (signal as u64)) != 0 {
        STOP.store(true, Ordering::Relaxed);
        wake();
    } else if signal == Signal::SIGUSR1 {
        count_reopen();
    }
}

/// Writes one byte; the interrupted code must not see another errno.
fn wake() {
    let errno = Errno::last_raw();
    let byte = 0_u8;
    // SAFETY: one byte from a live variable into a descriptor that, if it is gone by now, gives
    // EBADF; write is async-signal-safe.
    unsafe { libc::write(WAKE.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
    Errno::set_raw(errno);
}

/// Has the kernel end this child after so many seconds, wherever it hangs by then. All other signals stay
/// blocked.
pub(crate) fn end_at(seconds: u32) -> nix::Result<()> {
    let mut alarm = SigSet::empty();
    alarm.add(Signal::SIGALRM);
    // SAFETY: sets a signal's default action in a process of one thread.
    unsafe { libc::signal(libc::SIGALRM, libc::SIG_DFL) };
    // SAFETY: sets a timer of this process.
    unsafe { libc::alarm(seconds) };
    alarm.thread_unblock()
}

/// Blocks every signal and gives back the mask that was.
pub(crate) fn block_all() -> nix::Result<SigSet> {
    SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)
}

/// The mask as it is.
pub(crate) fn mask() -> nix::Result<SigSet> {
    SigSet::thread_get_mask()
}

/// Sets the mask; for a worker, to an empty one.
pub(crate) fn set_mask(mask: &SigSet) -> nix::Result<()> {
    mask.thread_set_mask()
}

/// Has the kernel send SIGCHLD for ends only: a worker that is stopped or continued must not wake the
/// master.
fn wake_for_ends_only() -> io::Result<()> {
    // SAFETY: an all-zero sigaction is a valid value to be overwritten.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks for the current action; the pointer is to a live variable.
    let asked = unsafe { libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut action) };
    action.sa_flags |= libc::SA_NOCLDSTOP;
    // SAFETY: sets the action signal-hook has installed, with one flag more.
    let set = unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) };
    if asked == 0 && set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The signals this process ignores.
fn ignored() -> Vec<i32> {
    let is_ignored = |signal: &i32| {
        // SAFETY: an all-zero sigaction is a valid value to be overwritten.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: asks for the current action only; the pointer is to a live variable.
        let known = unsafe { libc::sigaction(*signal, std::ptr::null(), &raw mut action) } == 0;
        known && action.sa_sigaction == libc::SIG_IGN
    };
    (1..=libc::SIGRTMAX()).filter(is_ignored).collect()
}
