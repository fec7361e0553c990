//! The last words of a worker that is aborted: where it was when SIGABRT came.
//!
//! A handler can do almost nothing: no allocation, no lock, not even a line in the log. So it writes raw
//! addresses into the worker's place in shared memory, which costs nothing until then, and the master
//! makes a line of them when it reaps the worker. Then the default action takes its course, and dumps
//! core where that is wanted, with the stack as it was.
//!
//! Programs are built without frame pointers, and unwinders take locks. So the stack is looked through,
//! word by word, for what can only be return addresses into the program itself: an address in its text,
//! right behind a call. A call that has returned may have left such a word, so there may be frames
//! too many, but hardly one too few. The stack is read by a system call, which ends at its end, whosever
//! stack it is. Functions of libraries are left out.
//!
//! The master's signal comes to any thread, for the most part to the first. Where it is known that another one is
//! stuck, the handler sends it on to that.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use nix::errno::Errno;

/// The addresses that are kept, the innermost first.
const ADDRESSES: usize = 30;

/// Words of the stack read by one system call, and how often: 64 KiB in all.
const WORDS_A_READ: usize = 64;
const READS: usize = 128;

/// One worker's place. It is written by the worker, so nothing here is believed.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct LastWords {
    /// Who wrote it; a place is not wiped for the next worker.
    pid: AtomicI32,
    count: AtomicU32,
    addresses: [AtomicUsize; ADDRESSES],
}

/// Where the program lies in memory, the same in all forked workers: what its addresses are counted
/// from, and its text.
static BASE: AtomicUsize = AtomicUsize::new(0);
static TEXT_START: AtomicUsize = AtomicUsize::new(0);
static TEXT_END: AtomicUsize = AtomicUsize::new(0);

/// The place of this process, and which process that is.
static PLACE: AtomicPtr<LastWords> = AtomicPtr::new(std::ptr::null_mut());
static OWNER: AtomicI32 = AtomicI32::new(0);

/// Says which thread is stuck, and is safe in a handler.
static STUCK: OnceLock<fn() -> Option<i32>> = OnceLock::new();
static IS_SENT_ON: AtomicBool = AtomicBool::new(false);

impl LastWords {
    /// What a process that was aborted has written, as addresses in the program's file.
    pub(crate) fn of(&self, pid: i32) -> Vec<usize> {
        if self.pid.load(Ordering::Acquire) != pid {
            return Vec::new();
        }
        let count = self.count.load(Ordering::Relaxed) as usize;
        let written = self.addresses.iter().take(count);
        written.map(|address| address.load(Ordering::Relaxed)).collect()
    }

    /// In the handler.
    fn add(&self, address: usize) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        let Some(place) = self.addresses.get(count as usize) else { return false };
        place.store(address.wrapping_sub(BASE.load(Ordering::Relaxed)), Ordering::Relaxed);
        self.count.store(count + 1, Ordering::Relaxed);
        true
    }
}

/// In a forked worker: from now on SIGABRT leaves its last words there.
pub(crate) fn leave_in(place: &'static LastWords) {
    PLACE.store(std::ptr::from_ref(place).cast_mut(), Ordering::Relaxed);
    OWNER.store(nix::unistd::getpid().as_raw(), Ordering::Relaxed);
    take_signal();
}

/// In a forked worker of several threads: the last words are those of the thread that `stuck` gives. It is
/// called in a handler, and has to be safe there.
pub(crate) fn are_those_of(stuck: fn() -> Option<i32>) {
    let _ = STUCK.set(stuck);
}

fn take_signal() {
    // SAFETY: an all-zero sigaction is a valid value to be filled in.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_abort as *const () as usize;
    // Once only: what follows the handler is the default action.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_ONSTACK;
    // SAFETY: the pointer is to a live variable.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    // SAFETY: sets the action of a signal; the handler is safe in a handler, as it says itself. If that
    // is refused, the default action stays.
    unsafe { libc::sigaction(libc::SIGABRT, &raw const action, std::ptr::null_mut()) };
}

/// Safe in a handler: it loads and stores atomics, calls getpid, gettid, tgkill, sigaction, process_vm_readv
/// and raise, and reads the program's text.
extern "C" fn on_abort(
    signal: libc::c_int,
    info: *const libc::siginfo_t,
    context: *const libc::c_void,
) {
    let errno = Errno::last_raw();
    let pid = nix::unistd::getpid().as_raw();
    // What a worker forks by itself has its place too, and leaves that alone.
    if pid == OWNER.load(Ordering::Relaxed) {
        // SAFETY: the kernel gives a handler of three arguments what it knows of the signal.
        let is_for_all = unsafe { info.as_ref() }.is_some_and(|it| it.si_code == libc::SI_USER);
        if is_for_all && is_sent_on(pid, signal) {
            Errno::set_raw(errno);
            return;
        }
        // SAFETY: the place is in memory that is never unmapped, or null.
        let place = unsafe { PLACE.load(Ordering::Relaxed).as_ref() };
        // SAFETY: the kernel gives a handler of three arguments the context it interrupted.
        let context = unsafe { context.cast::<libc::ucontext_t>().as_ref() };
        if let (Some(place), Some(context)) = (place, context) {
            place.count.store(0, Ordering::Relaxed);
            write(place, registers(context));
            place.pid.store(pid, Ordering::Release);
        }
    }
    Errno::set_raw(errno);
    // SAFETY: sends a signal, which stays blocked until this handler has returned.
    unsafe { libc::raise(signal) };
}

/// Sends the signal to the thread that is stuck, once, if that is another one.
fn is_sent_on(pid: i32, signal: libc::c_int) -> bool {
    let Some(stuck) = STUCK.get().and_then(|stuck| stuck()) else { return false };
    if stuck == super::process::own_thread() || IS_SENT_ON.swap(true, Ordering::Relaxed) {
        return false;
    }
    // It was taken away when this handler was called.
    take_signal();
    // SAFETY: sends a signal. A thread that is gone meanwhile is an error.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, stuck, signal) == 0 }
}

/// The program counter and the stack pointer.
#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> Option<(usize, usize)> {
    let registers = &context.uc_mcontext.gregs;
    // Addresses of programs are in the lower half, so none is negative.
    let number = |index: libc::c_int| {
        let value = registers.get(usize::try_from(index).ok()?)?;
        usize::try_from(*value).ok()
    };
    number(libc::REG_RIP).zip(number(libc::REG_RSP))
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> Option<(usize, usize)> {
    Some((context.uc_mcontext.pc as usize, context.uc_mcontext.sp as usize))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn registers(_: &libc::ucontext_t) -> Option<(usize, usize)> {
    None
}

fn write(place: &LastWords, registers: Option<(usize, usize)>) {
    let Some((counter, stack)) = registers else { return };
    if is_text(counter) {
        place.add(counter);
    }
    for read in 0..READS {
        let mut words = [0_usize; WORDS_A_READ];
        let length = size_of_val(&words);
        let there = read_own(stack.wrapping_add(read * length), &mut words);
        for &word in &words[..there] {
            // The line of the call, not of what follows it.
            if is_text(word) && follows_call(word) && !place.add(word - 1) {
                return;
            }
        }
        if there < WORDS_A_READ {
            return;
        }
    }
}

/// Reads memory of this process that may not be there; says how many words are.
fn read_own(from: usize, words: &mut [usize]) -> usize {
    let length = size_of_val(words);
    let own = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: length };
    let other = libc::iovec { iov_base: from as *mut libc::c_void, iov_len: length };
    let pid = nix::unistd::getpid().as_raw();
    // SAFETY: writes into `words` only, as many bytes as it has; what it reads from is checked by the
    // kernel.
    let read = unsafe { libc::process_vm_readv(pid, &raw const own, 1, &raw const other, 1, 0) };
    usize::try_from(read).map_or(0, |read| read / size_of::<usize>())
}

/// Whether an address is in the text, with room for an instruction before it.
fn is_text(address: usize) -> bool {
    let (start, end) = (TEXT_START.load(Ordering::Relaxed), TEXT_END.load(Ordering::Relaxed));
    start.saturating_add(8) <= address && address < end
}

/// Whether the instruction before this address is a call.
#[cfg(target_arch = "x86_64")]
fn follows_call(address: usize) -> bool {
    // SAFETY: the caller has seen that eight bytes before it are of the text, which is readable.
    let code: [u8; 8] = unsafe { std::ptr::read_unaligned((address - 8) as *const [u8; 8]) };
    let is_direct = code[3] == 0xe8;
    // `call` through a register or memory: its length depends on where the address is.
    let is_indirect = |length: usize| {
        let [opcode, operand] = [code[8 - length], code[9 - length]];
        opcode == 0xff && (operand >> 3) & 7 == 2
    };
    is_direct || [2, 3, 4, 6, 7].into_iter().any(is_indirect)
}

#[cfg(target_arch = "aarch64")]
fn follows_call(address: usize) -> bool {
    // SAFETY: the caller has seen that eight bytes before it are of the text, which is readable.
    let code = unsafe { std::ptr::read_unaligned((address - 4) as *const u32) };
    code >> 26 == 0b10_0101 || code & 0xffff_fc1f == 0xd63f_0000
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn follows_call(_: usize) -> bool {
    false
}

/// In the master, once: finds out where the program is.
pub(crate) fn prepare() {
    // SAFETY: the function is called for each object in turn, before this returns.
    unsafe { libc::dl_iterate_phdr(Some(see_object), std::ptr::null_mut()) };
}

/// Takes in the first object, which is the program, and asks for no other.
unsafe extern "C" fn see_object(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    _: *mut libc::c_void,
) -> libc::c_int {
    const EXECUTABLE: u32 = libc::PF_X | libc::PF_R;
    // SAFETY: the caller gives a valid description, which lives as long as this call.
    let Some(info) = (unsafe { info.as_ref() }) else { return 1 };
    let count = usize::from(info.dlpi_phnum);
    // SAFETY: the table has so many rows, and is part of the program.
    let rows = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, count) };
    let is_text = |row: &&libc::Elf64_Phdr| {
        row.p_type == libc::PT_LOAD && row.p_flags & EXECUTABLE == EXECUTABLE
    };
    let base = usize::try_from(info.dlpi_addr).unwrap_or(0);
    if let Some(row) = rows.iter().find(is_text) {
        let start = base.wrapping_add(usize::try_from(row.p_vaddr).unwrap_or(0));
        let length = usize::try_from(row.p_memsz).unwrap_or(0);
        BASE.store(base, Ordering::Relaxed);
        TEXT_START.store(start, Ordering::Relaxed);
        TEXT_END.store(start.saturating_add(length), Ordering::Relaxed);
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_and_a_call_is_told_from_other_code() {
        prepare();
        let own = prepare as *const () as usize;
        assert!(is_text(own));
        assert!(!is_text(own.wrapping_sub(BASE.load(Ordering::Relaxed)) % 4096));
        let mut words = [0; 2];
        let here = std::ptr::from_ref(&own) as usize;
        assert_eq!(read_own(here, &mut words[..1]), 1);
        assert_eq!(words[0], own);
        assert_eq!(read_own(8, &mut words), 0, "nothing is there, and nothing happens");
    }
}
