//! The beginnings of lines that wait in their pipes for their end.
//!
//! The kernel tells of every write to a pipe when it ends. Of a write that is larger than the pipe
//! has room for it tells nothing while the pipe is not empty, and a beginning that was left there
//! keeps it so. Therefore a pipe that holds one is looked into again: at once, then after a
//! millisecond, after two more, and so on, until something has changed or the wait is over.

use std::time::Duration;

use super::Capture;
use crate::output::monotonic;

/// How long the beginning of a line waits for its end.
const LIMIT: Duration = Duration::from_secs(2);

/// A pipe that is half full may take nothing more, for every other page may be nearly empty. So
/// long it is waited for the rest of a line then.
const FULL_LIMIT: Duration = Duration::from_millis(50);

/// The first pause between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// A beginning of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Partial {
    /// It is written then as it is.
    until: Duration,
    look_at: Duration,
    /// How long it was at the last look.
    bytes: usize,
    looks: u32,
}

impl Partial {
    pub(super) fn is_due(&self) -> bool {
        self.until <= monotonic()
    }
}

impl Capture {
    /// Leaves the beginning of a line in its pipe.
    pub(super) fn wait_for_end(&mut self, id: u64, bytes: usize, may_be_full: bool) {
        let Some(feed) = self.feeds.get_mut(&id) else { return };
        let now = monotonic();
        let limit = now + if may_be_full { FULL_LIMIT } else { LIMIT };
        let new = Partial { until: limit, look_at: now, bytes, looks: 0 };
        let before = feed.partial.unwrap_or(new);
        self.partials.remove(&(before.look_at, id));
        let looks = if before.bytes == bytes { before.looks } else { 0 };
        let until = before.until.min(limit);
        let pause = looks.checked_sub(1).map_or(Duration::ZERO, |doubled| {
            PAUSE.saturating_mul(1_u32.checked_shl(doubled).unwrap_or(u32::MAX))
        });
        let look_at = until.min(now + pause);
        feed.partial = Some(Partial { until, look_at, bytes, looks: looks + 1 });
        self.partials.insert((look_at, id));
    }

    pub(super) fn forget_partial(&mut self, id: u64) {
        let Some(feed) = self.feeds.get_mut(&id) else { return };
        if let Some(partial) = feed.partial.take() {
            self.partials.remove(&(partial.look_at, id));
        }
    }

    /// Queues the sources that are to be looked into again.
    pub(super) fn queue_partials(&mut self) {
        let now = monotonic();
        let due = self.partials.iter().take_while(|(at, _)| self.is_draining || *at <= now);
        let due: Vec<(Duration, u64)> = due.copied().collect();
        for (at, id) in due {
            // Nothing more is to be waited for, even if nothing can be written now.
            self.partials.remove(&(at, id));
            self.queue(id);
        }
    }
}
