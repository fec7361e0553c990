//! The clock: `CLOCK_MONOTONIC` for every decision, its coarse twin for heartbeats.
//!
//! A suspended machine does not age by it, and nobody can set it.

use std::time::Duration;

use nix::poll::{PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds on the monotonic clock.
pub(crate) fn monotonic() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// The same clock as of the last timer tick, some milliseconds behind, for a quarter of the price.
pub(crate) fn coarse() -> u64 {
    read(ClockId::CLOCK_MONOTONIC_COARSE)
}

/// Waits a moment, where there is no loop that could be kept waiting: at the start, for another process
/// that is about to finish something, and in the warden. A signal may cut it short.
pub(crate) fn pause(wait: Duration) {
    let _ = poll(&mut [], PollTimeout::try_from(millis(wait)).unwrap_or(PollTimeout::ZERO));
}

/// A wait for poll and epoll: in whole milliseconds, rounded up so that nobody wakes a moment too
/// early, twice. The longest are some weeks; whoever waits so long looks at the clock again.
pub(crate) fn millis(wait: Duration) -> i32 {
    i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// A duration on these clocks; the longest are "for ever".
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn read(clock: ClockId) -> u64 {
    // Both clocks exist on every Linux this builds for, and their values are never negative.
    let Ok(time) = clock_gettime(clock) else { return 0 };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
