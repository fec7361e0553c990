//! Signals: into the loop by signal-hook and a wake pipe, and blocked across every fork.
//!
//! A handler does three things that are safe in a handler: it counts the signal in a static atomic,
//! remembers the sender there, and writes one byte into a non-blocking pipe. A full pipe is no loss,
//! because a byte that wakes the loop is in it already; so no kind of signal is ever lost (I14).
//!
//! The handlers installed by signal-hook survive a fork, and so would the master's actions. Each
//! action therefore compares the pid with that of the process it was registered for, and a forked
//! worker registers its own. All signals are blocked meanwhile, so one that comes in between waits.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use signal_hook::SigId;
use signal_hook::low_level::unregister;
use signal_hook_registry::register_sigaction;

use super::fds;

const SIGNALS: usize = 65;
static COUNTS: [AtomicU32; SIGNALS] = [const { AtomicU32::new(0) }; SIGNALS];
static SENDERS: [AtomicU64; SIGNALS] = [const { AtomicU64::new(0) }; SIGNALS];
/// The write end of the wake pipe of the process that is `OWNER`.
static WAKE: AtomicI32 = AtomicI32::new(-1);
static OWNER: AtomicI32 = AtomicI32::new(0);
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
    /// The process that sent the last of them; `None`: the kernel, for a terminal (Ctrl-C).
    pub(crate) sender: Option<Sender>,
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender {
    /// Its pid, as the kernel saw it.
    pub(crate) pid: u32,
    /// Its user.
    pub(crate) uid: u32,
}

/// The master's end of its signals.
pub(crate) struct SignalQueue {
    registered: Vec<(Signal, SigId)>,
    wake: (OwnedFd, OwnedFd),
}

impl SignalQueue {
    /// Registers a counting handler for each of the signals, and for `SIGCHLD` one that only wakes.
    pub(crate) fn install(signals: &[Signal]) -> std::io::Result<Self> {
        let wake = fds::pipe()?;
        WAKE.store(wake.1.as_raw_fd(), Ordering::Relaxed);
        OWNER.store(nix::unistd::getpid().as_raw(), Ordering::Relaxed);
        let mut registered = Vec::new();
        for &signal in signals.iter().chain(&[Signal::SIGCHLD]) {
            // SAFETY: the action only loads and stores atomics and calls getpid and write.
            let id = unsafe {
                register_sigaction(signal as i32, move |info| on_master_signal(signal, info))
            }?;
            registered.push((signal, id));
        }
        Ok(Self { registered, wake })
    }

    /// The descriptor that becomes readable when a signal has come.
    pub(crate) fn wake_fd(&self) -> &OwnedFd {
        &self.wake.0
    }

    /// What came since the last call. Empties the pipe first, so that a signal which comes during
    /// the call is either seen now or wakes the loop again.
    pub(crate) fn take(&self) -> impl Iterator<Item = Arrived> {
        let mut bytes = [0; 4096];
        while fds::read(&self.wake.0, &mut bytes) == Ok(bytes.len()) {}
        self.registered.iter().filter_map(|&(signal, _)| {
            let count = COUNTS[signal as usize].swap(0, Ordering::Relaxed);
            let sender = match SENDERS[signal as usize].swap(0, Ordering::Relaxed) {
                0 => None,
                both => Some(Sender { pid: (both >> 32) as u32, uid: (both & 0xffff_ffff) as u32 }),
            };
            (count > 0).then_some(Arrived { signal, count, sender })
        })
    }

    /// Both ends of the wake pipe, which a forked worker closes.
    pub(crate) fn raw_fds(&self) -> [i32; 2] {
        [self.wake.0.as_raw_fd(), self.wake.1.as_raw_fd()]
    }

    /// In a forked worker: takes the master's actions away and gives the worker its own. A signal
    /// that asks for a stop sets a flag and wakes [`stop_pipe`](WorkerSignals::stop_pipe); SIGUSR1
    /// asks for the log to be reopened. What the master caught and a worker does not want stays
    /// caught, without effect.
    pub(crate) fn become_worker(&self, stop_signal: Signal) -> std::io::Result<WorkerSignals> {
        for (_, id) in &self.registered {
            unregister(*id);
        }
        let pipe = fds::pipe()?;
        WAKE.store(pipe.1.as_raw_fd(), Ordering::Relaxed);
        OWNER.store(nix::unistd::getpid().as_raw(), Ordering::Relaxed);
        STOP.store(false, Ordering::Relaxed);
        let mut stops = vec![Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
        if !stops.contains(&stop_signal) {
            stops.push(stop_signal);
        }
        for signal in stops {
            // SAFETY: the action only loads and stores atomics and calls getpid and write.
            unsafe { register_sigaction(signal as i32, |_| on_worker_stop()) }?;
        }
        // SAFETY: the action is one atomic addition.
        unsafe { register_sigaction(Signal::SIGUSR1 as i32, |_| count_reopen()) }?;
        Ok(WorkerSignals { pipe })
    }
}

impl Drop for SignalQueue {
    fn drop(&mut self) {
        for (_, id) in &self.registered {
            unregister(*id);
        }
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

    /// Becomes readable, and stays so, when a stop was asked for.
    pub(crate) fn stop_pipe(&self) -> impl AsFd {
        self.pipe.0.as_fd()
    }
}

fn on_master_signal(signal: Signal, info: &libc::siginfo_t) {
    if OWNER.load(Ordering::Relaxed) != nix::unistd::getpid().as_raw() {
        return;
    }
    let from_kernel = info.si_code > 0;
    let from_terminal = matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU) && from_kernel;
    if from_terminal {
        // Job control speaking to a background process, not an operator.
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

fn on_worker_stop() {
    if OWNER.load(Ordering::Relaxed) == nix::unistd::getpid().as_raw() {
        STOP.store(true, Ordering::Relaxed);
        wake();
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

/// Blocks every signal and gives back the mask that was.
pub(crate) fn block_all() -> nix::Result<SigSet> {
    SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)
}

/// Sets the mask; for a worker, to an empty one.
pub(crate) fn set_mask(mask: &SigSet) -> nix::Result<()> {
    mask.thread_set_mask()
}

/// The signals this process ignores, which `exec` would hand on: a command gets them all at their
/// default.
pub(crate) fn ignored() -> Vec<i32> {
    let is_ignored = |signal: &i32| {
        // SAFETY: an all-zero sigaction is a valid value to be overwritten.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: asks for the current action only; the pointer is to a live variable.
        let known = unsafe { libc::sigaction(*signal, std::ptr::null(), &raw mut action) } == 0;
        known && action.sa_sigaction == libc::SIG_IGN
    };
    (1..=libc::SIGRTMAX()).filter(is_ignored).collect()
}
