//! The leaders of all living sessions, in memory that the master shares with its warden alone.
//!
//! Workers are not trusted, and whoever writes here says whom the warden kills; so a fork does not
//! inherit this memory, but for the warden's.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
use nix::unistd::Pid;

/// One number a seat: the leader of its worker's session, or 0.
#[derive(Debug)]
pub(crate) struct Leaders {
    start: NonNull<std::ffi::c_void>,
    length: NonZeroUsize,
    numbers: &'static [AtomicI32],
}

impl Leaders {
    /// Maps a table for so many seats. Like the seats it is never unmapped.
    pub(crate) fn map(seats: usize) -> nix::Result<Self> {
        let length = NonZeroUsize::new(seats * size_of::<AtomicI32>()).unwrap_or(NonZeroUsize::MIN);
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh anonymous mapping; nothing else can alias it.
        let start = unsafe { mmap_anonymous(None, length, prot, MapFlags::MAP_SHARED) }?;
        // SAFETY: the mapping holds `seats` numbers, is page-aligned and never unmapped; all zero is
        // a valid value, and every access goes through atomics.
        let numbers = unsafe { std::slice::from_raw_parts(start.cast().as_ptr(), seats) };
        let made = Self { start, length, numbers };
        made.advise(MmapAdvise::MADV_DONTFORK)?;
        Ok(made)
    }

    /// Does something while a fork inherits the table.
    pub(crate) fn inherited<T>(&self, fork: impl FnOnce() -> T) -> nix::Result<T> {
        self.advise(MmapAdvise::MADV_DOFORK)?;
        let done = fork();
        self.advise(MmapAdvise::MADV_DONTFORK)?;
        Ok(done)
    }

    /// Notes who leads the session of a seat's worker.
    pub(crate) fn set(&self, seat: usize, leader: Option<Pid>) {
        if let Some(number) = self.numbers.get(seat) {
            number.store(leader.map_or(0, Pid::as_raw), Ordering::Relaxed);
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = Pid> {
        let numbers = self.numbers.iter().map(|number| number.load(Ordering::Relaxed));
        numbers.filter(|number| *number > 0).map(Pid::from_raw)
    }

    fn advise(&self, advice: MmapAdvise) -> nix::Result<()> {
        // SAFETY: the range is this mapping, whole; the advice only says what a fork does with it.
        unsafe { madvise(self.start, self.length.get(), advice) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_noted_and_forgotten() {
        let leaders = Leaders::map(3).unwrap();
        leaders.set(1, Some(Pid::from_raw(77)));
        leaders.set(9, Some(Pid::from_raw(78)));
        assert_eq!(leaders.all().collect::<Vec<_>>(), [Pid::from_raw(77)]);
        leaders.set(1, None);
        assert_eq!(leaders.inherited(|| leaders.all().count()), Ok(0));
    }
}
