//! The arbiter's own time: it has no clock, so the driver hands a [`Time`] in with every event.

use core::fmt;
use core::time::Duration;

/// A point on the monotonic clock, in nanoseconds since an origin the arbiter does not know.
///
/// 64 bits of nanoseconds last 584 years. Sums saturate, so "for ever" is a legal deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Time(u64);

impl Time {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The point `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The point `wait` later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(nanos(wait)))
    }

    /// The point `span` earlier, or the origin.
    pub(super) fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The last multiple of `grid` at or before this point. A zero `grid` leaves it as it is.
    ///
    /// Deadlines that need not be exact are put on a grid so that many of them share one wake-up.
    #[must_use]
    pub fn floor(self, grid: Duration) -> Self {
        match self.0.checked_rem(nanos(grid)) {
            Some(rest) => Self(self.0 - rest),
            None => self,
        }
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate_and_spans_never_go_back() {
        let end = Time::from_nanos(u64::MAX);
        assert_eq!(end.after(Duration::from_secs(1)), end);
        assert_eq!(Time::ZERO.since(end), Duration::ZERO);
        assert_eq!(end.since(Time::from_nanos(u64::MAX - 7)), Duration::from_nanos(7));
    }

    #[test]
    fn floor_lands_on_the_grid() {
        let grid = Duration::from_nanos(250);
        assert_eq!(Time::from_nanos(999).floor(grid), Time::from_nanos(750));
        assert_eq!(Time::from_nanos(1000).floor(grid), Time::from_nanos(1000));
        assert_eq!(Time::from_nanos(999).floor(Duration::ZERO), Time::from_nanos(999));
    }
}
