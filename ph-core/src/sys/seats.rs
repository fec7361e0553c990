//! Shared memory between master and forked workers: one cache line a seat.
//!
//! A worker writes its line, the master reads it. Workers are not trusted: what is read here is
//! clamped by the reader and never used as an index or a pid. A worker that has news rings by writing
//! its seat's number into one pipe all workers share; the number is a hint where to look, so a lie
//! costs a look. If the pipe is full, a flag asks the master to look at every seat once.

use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use super::last_words::{self, LastWords};
use super::{clock, fds};

/// One worker's line.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Seat {
    beat: AtomicU64,
    requests: AtomicU64,
    panics: AtomicU64,
    /// Written by the master: until when the worker answers what is queued after its stop; 0: not at all.
    queue_until: AtomicU64,
    is_ready: AtomicBool,
    is_recycle_due: AtomicBool,
}

const _: () = assert!(size_of::<Seat>() == 64, "a seat is one cache line");

impl Seat {
    /// Empties the line for the next worker.
    pub(crate) fn reset(&self) {
        self.is_ready.store(false, Ordering::Relaxed);
        self.is_recycle_due.store(false, Ordering::Relaxed);
        self.requests.store(0, Ordering::Relaxed);
        self.panics.store(0, Ordering::Relaxed);
        self.queue_until.store(0, Ordering::Relaxed);
        self.beat.store(clock::coarse(), Ordering::Relaxed);
    }

    /// "I live": one relaxed store of the coarse clock.
    pub(crate) fn beat(&self) {
        self.beat.store(clock::coarse(), Ordering::Relaxed);
    }

    /// Whether that is so recent that another beat would say the same.
    pub(crate) fn has_just_beaten(&self) -> bool {
        self.last_beat() == clock::coarse()
    }

    /// When the worker last beat, if it can be believed.
    pub(crate) fn last_beat(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }

    /// Counts a request and says how many there were.
    pub(crate) fn count_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Requests served, if the worker can be believed.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Counts a request that panicked.
    pub(crate) fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that panicked, if the worker can be believed.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Leaves the queue of the listeners to the worker, which is about to be stopped.
    pub(crate) fn leave_queue_until(&self, until: u64) {
        self.queue_until.store(until, Ordering::Release);
    }

    /// Until when the worker answers what is queued after its stop.
    pub(crate) fn queue_until(&self) -> u64 {
        self.queue_until.load(Ordering::Acquire)
    }

    /// Says that the worker is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    /// Says that the worker wants a successor.
    pub(crate) fn is_recycle_due(&self) -> bool {
        self.is_recycle_due.load(Ordering::Acquire)
    }
}

#[repr(C, align(64))]
#[derive(Debug)]
struct Header {
    /// A worker could not ring because the pipe was full.
    is_overrun: AtomicBool,
}

/// All seats, and the pipe by which workers ring. The memory is never unmapped: workers of a master
/// that has ended may still hold it.
#[derive(Debug)]
pub(crate) struct Seats {
    header: &'static Header,
    seats: &'static [Seat],
    last_words: &'static [LastWords],
    bell: (OwnedFd, OwnedFd),
}

impl Seats {
    /// Maps `count` seats. Memory is taken only for those that are used.
    pub(crate) fn map(count: usize) -> nix::Result<Self> {
        last_words::prepare();
        let of_seats = count * size_of::<Seat>();
        let length = size_of::<Header>() + of_seats + count * size_of::<LastWords>();
        let length = NonZeroUsize::new(length).unwrap_or(NonZeroUsize::MIN);
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh anonymous mapping; nothing else can alias it.
        let start = unsafe { mmap_anonymous(None, length, prot, MapFlags::MAP_SHARED) }?;
        // SAFETY: the mapping begins with a Header (all zero is a valid one), is page-aligned, and
        // is never unmapped.
        let header = unsafe { start.cast::<Header>().as_ref() };
        // SAFETY: the mapping is longer than one Header, which is 64-byte aligned and sized.
        let first = unsafe { start.byte_add(size_of::<Header>()) }.cast::<Seat>();
        // SAFETY: `count` seats follow the header; all zero is a valid seat, and every access to
        // one goes through atomics.
        let seats = unsafe { std::slice::from_raw_parts(first.as_ptr(), count) };
        // SAFETY: the mapping goes on for as long as the seats take.
        let words = unsafe { first.byte_add(of_seats) }.cast::<LastWords>();
        // SAFETY: `count` of them follow the seats; all zero is a valid one, every access goes through
        // atomics, and seats and header keep them aligned to 64 bytes.
        let last_words = unsafe { std::slice::from_raw_parts(words.as_ptr(), count) };
        Ok(Self { header, seats, last_words, bell: fds::pipe()? })
    }

    /// One seat.
    pub(crate) fn seat(&self, index: usize) -> &'static Seat {
        &self.seats[index]
    }

    /// Where the worker of a seat leaves its last words. They take no memory before there are any.
    pub(crate) fn last_words(&self, index: usize) -> &'static LastWords {
        &self.last_words[index]
    }

    /// The descriptor that becomes readable when a worker has rung.
    pub(crate) fn bell_fd(&self) -> &OwnedFd {
        &self.bell.0
    }

    /// The read end of the bell, which a forked worker closes.
    pub(crate) fn raw_fd(&self) -> i32 {
        self.bell.0.as_raw_fd()
    }

    /// Both ends of the bell, which a helper closes.
    pub(crate) fn raw_fds(&self) -> [i32; 2] {
        [self.bell.0.as_raw_fd(), self.bell.1.as_raw_fd()]
    }

    /// The seats somebody rang for since the last call; `None`: look at all of them. One call reads
    /// a bounded number of bytes, whatever workers write.
    pub(crate) fn rung(&self) -> Option<Vec<usize>> {
        let mut bytes = [0; 4096];
        let length = fds::read(&self.bell.0, &mut bytes).unwrap_or(0);
        let (numbers, rest) = bytes[..length].as_chunks::<4>();
        let rung: Vec<_> =
            numbers.iter().map(|number| u32::from_le_bytes(*number) as usize).collect();
        let is_overrun = self.header.is_overrun.swap(false, Ordering::AcqRel);
        let is_sane = rest.is_empty() && rung.iter().all(|&index| index < self.seats.len());
        (is_sane && !is_overrun).then_some(rung)
    }

    /// The worker's end of its seat, to be taken into the child.
    pub(crate) fn occupy(&self, index: usize) -> Occupied<'_> {
        Occupied { seats: self, index }
    }
}

/// A seat as its worker sees it.
pub(crate) struct Occupied<'a> {
    seats: &'a Seats,
    index: usize,
}

impl Occupied<'_> {
    /// The line itself.
    pub(crate) fn seat(&self) -> &'static Seat {
        self.seats.seat(self.index)
    }

    /// Tells the master that the worker is ready.
    pub(crate) fn report_ready(&self) {
        self.seat().beat();
        self.seat().is_ready.store(true, Ordering::Release);
        self.ring();
    }

    /// Tells the master that the worker wants a successor.
    pub(crate) fn report_recycle_due(&self) {
        self.seat().is_recycle_due.store(true, Ordering::Release);
        self.ring();
    }

    /// The flag is set before the second try: if that fails as well, the pipe is full after the
    /// flag was set, so the master has yet to empty it and will see the flag when it does.
    fn ring(&self) {
        let number = u32::try_from(self.index).unwrap_or(u32::MAX).to_le_bytes();
        if fds::write(&self.seats.bell.1, &number).is_err() {
            self.seats.header.is_overrun.store(true, Ordering::Release);
            let _ = fds::write(&self.seats.bell.1, &number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_names_its_seat_and_a_full_pipe_loses_nothing() {
        let seats = Seats::map(8).unwrap();
        seats.occupy(3).report_ready();
        assert_eq!(seats.rung(), Some(vec![3]));
        assert!(seats.seat(3).is_ready() && !seats.seat(2).is_ready());
        assert_eq!(seats.rung(), Some(vec![]));
        for _ in 0..20_000 {
            seats.occupy(1).ring();
        }
        assert_eq!(seats.rung(), None, "an overrun asks for a look at every seat");
    }

    #[test]
    fn what_a_hostile_worker_writes_costs_a_look_and_nothing_else() {
        let seats = Seats::map(2).unwrap();
        fds::write(&seats.bell.1, &7_u32.to_le_bytes()).unwrap();
        assert_eq!(seats.rung(), None);
        fds::write(&seats.bell.1, &[0, 0, 0]).unwrap();
        assert_eq!(seats.rung(), None);
    }
}
