//! What a writer has to tell: lines that were lost, and what could not be done.

use std::io;
use std::time::Duration;

use crate::output::monotonic;

const SAY_EVERY: Duration = Duration::from_secs(60);

/// What became of a batch.
#[derive(Debug, Default)]
#[must_use = "lines may have been lost"]
pub struct Written {
    /// Lines of this batch that are in no file.
    pub lost: u64,
    /// Whether this call has rotated the log; then a backup may wait for its compression.
    pub is_rotated: bool,
    /// What the caller should log.
    pub notice: Option<Notice>,
}

/// Something to be told in the log, as a warning.
#[derive(Debug, thiserror::Error)]
pub enum Notice {
    /// Writing works again; so many lines were lost since it last did. Told with the first batch
    /// that is written.
    #[error("log lines were lost lines={lines}: {source}")]
    Lost {
        /// How many.
        lines: u64,
        /// Why the last of them was.
        source: io::Error,
    },
    /// Something could not be done, and the file in use stays. Told at most once a minute.
    #[error("cannot {tried}, the log in use stays: {source}")]
    Kept {
        /// What, as `"rotate the log"`.
        tried: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// What is still to be told.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) dropped: u64,
    unreported: Option<(u64, io::Error)>,
    pub(super) trouble: Option<(&'static str, io::Error)>,
    say_at: Duration,
    pub(super) is_rotated: bool,
}

impl Account {
    pub(super) fn lose(&mut self, lines: u64, error: io::Error) {
        self.dropped += lines;
        let before = self.unreported.take().map_or(0, |(lines, _)| lines);
        self.unreported = Some((before + lines, error));
    }

    /// What is to be told now: of lost lines once writing works, of trouble once a minute.
    pub(super) fn notice(&mut self, is_failing: bool) -> Option<Notice> {
        if !is_failing && let Some((lines, source)) = self.unreported.take() {
            return Some(Notice::Lost { lines, source });
        }
        let now = monotonic();
        if now < self.say_at {
            self.trouble = None;
            return None;
        }
        let (tried, source) = self.trouble.take()?;
        self.say_at = now + SAY_EVERY;
        Some(Notice::Kept { tried, source })
    }
}
