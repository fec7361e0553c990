//! The one heartbeat of a process in which several threads serve.
//!
//! A process beats when all threads that are at work have said that they live since it beat last. So one
//! that is stuck silences the process, however lively the others are, and one that waits for work silences
//! nobody.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::sys::process;

/// What stands for a thread that waits for work.
const RESTING: u64 = 0;

/// All threads, each in a cache line of its own.
#[derive(Debug)]
pub(super) struct Lanes {
    /// The round that is under way, from 1. It ends with a heartbeat.
    round: AtomicU64,
    lanes: Box<[Lane]>,
}

#[repr(align(64))]
#[derive(Debug)]
struct Lane {
    /// The last round in which the thread said that it lives.
    seen: AtomicU64,
    /// Its number, 0 until it is known.
    thread: AtomicI32,
}

impl Lanes {
    pub(super) fn new(count: usize) -> Self {
        let lane = || Lane { seen: AtomicU64::new(RESTING), thread: AtomicI32::new(0) };
        let lanes = (0..count).map(|_| lane());
        Self { round: AtomicU64::new(1), lanes: lanes.collect() }
    }

    /// The calling thread is the one of this lane.
    pub(super) fn enter(&self, lane: usize) {
        self.lanes[lane].thread.store(process::own_thread(), Ordering::Relaxed);
    }

    /// The thread that has been silent for longest, if one is. Safe in a signal handler.
    pub(super) fn silent(&self) -> Option<i32> {
        let round = self.round.load(Ordering::Acquire);
        let seen = |lane: &Lane| lane.seen.load(Ordering::Acquire);
        let silent = self.lanes.iter().filter(|lane| ![RESTING, round].contains(&seen(lane)));
        let thread = silent.min_by_key(|lane| seen(lane))?.thread.load(Ordering::Relaxed);
        (thread != 0).then_some(thread)
    }

    /// A thread lives; says whether the process has a heartbeat by that.
    pub(super) fn beat(&self, lane: usize) -> bool {
        let round = self.round.load(Ordering::Acquire);
        self.lanes[lane].seen.swap(round, Ordering::AcqRel) != round && self.ends(round)
    }

    /// Whether a thread waits for work.
    pub(super) fn rests(&self, lane: usize) -> bool {
        self.lanes[lane].seen.load(Ordering::Relaxed) == RESTING
    }

    /// A thread waits for work from here on.
    pub(super) fn rest(&self, lane: usize) -> bool {
        let round = self.round.load(Ordering::Acquire);
        self.lanes[lane].seen.store(RESTING, Ordering::Release);
        self.ends(round)
    }

    fn ends(&self, round: u64) -> bool {
        let is_in = |lane: &Lane| [RESTING, round].contains(&lane.seen.load(Ordering::Acquire));
        let (next, seen) = (round + 1, Ordering::AcqRel);
        self.lanes.iter().all(is_in)
            && self.round.compare_exchange(round, next, seen, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_silent_silences_all() {
        let lanes = Lanes::new(3);
        assert!(lanes.beat(0), "the others rest");
        assert!(lanes.beat(1) || lanes.beat(0), "both are at work");
        lanes.beat(0);
        lanes.beat(1);
        for _ in 0..10 {
            assert!(!lanes.beat(1), "the other one says nothing");
        }
        assert!(lanes.rest(0) || lanes.beat(1), "it waits for work");
        assert!(lanes.beat(1));
    }

    #[test]
    fn who_is_silent_is_known() {
        let lanes = Lanes::new(3);
        let enter = |lane: usize| {
            std::thread::scope(|scope| {
                let entered = scope.spawn(|| {
                    lanes.enter(lane);
                    process::own_thread()
                });
                entered.join().unwrap()
            })
        };
        let [_, second, third] = [0, 1, 2].map(enter);
        assert_eq!(lanes.silent(), None, "all rest");
        lanes.beat(2);
        assert_eq!(lanes.silent(), Some(third), "the round has ended without a word of it since");
        lanes.beat(1);
        lanes.beat(2);
        lanes.beat(2);
        assert_eq!(lanes.silent(), Some(second));
        lanes.rest(1);
        lanes.rest(2);
        assert_eq!(lanes.silent(), None);
    }

    #[test]
    fn a_process_that_rests_beats_whenever_one_looks() {
        let lanes = Lanes::new(2);
        for _ in 0..3 {
            assert!(lanes.beat(0));
            assert!(lanes.rest(0));
        }
    }
}
