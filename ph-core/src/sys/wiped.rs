//! A number that a fork wipes: how a process knows, without a system call, that it was not forked.
//!
//! The kernel gives a child zeros instead of the page (Linux 4.14), whoever forks and by whatever
//! call that copies memory; so no handler has to run, and what is kept here is never a parent's.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

static NUMBER: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();

/// A number that is 0 at first, and 0 again in every process forked from this one; the same at each
/// call. A log keeps its process's pid there. `None` where the kernel cannot wipe memory at a fork.
#[must_use]
pub fn wiped_by_fork() -> Option<&'static AtomicU32> {
    *NUMBER.get_or_init(|| map().ok())
}

fn map() -> nix::Result<&'static AtomicU32> {
    let length = NonZeroUsize::new(size_of::<AtomicU32>()).unwrap_or(NonZeroUsize::MIN);
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a fresh anonymous mapping; nothing else can alias it.
    let start = unsafe { mmap_anonymous(None, length, prot, MapFlags::MAP_PRIVATE) }?;
    // SAFETY: the range is this mapping, whole; the advice only says what a fork does with it.
    unsafe { madvise(start, length.get(), MmapAdvise::MADV_WIPEONFORK) }?;
    // SAFETY: the mapping holds one number, is page-aligned and never unmapped; zero is a valid value,
    // and every access goes through the atomic.
    Ok(unsafe { start.cast::<AtomicU32>().as_ref() })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    #[test]
    fn a_fork_finds_nothing_and_takes_nothing_from_its_parent() {
        let number = wiped_by_fork().unwrap();
        number.store(7, Ordering::Relaxed);
        // SAFETY: the child only touches an atomic and ends.
        let child = match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let found = number.swap(9, Ordering::Relaxed);
                // SAFETY: has no precondition.
                unsafe { libc::_exit(i32::from(found != 0)) }
            }
            ForkResult::Parent { child } => child,
        };
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
        assert_eq!(number.load(Ordering::Relaxed), 7);
    }
}
