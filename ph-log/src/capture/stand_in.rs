//! Logs of workers that cannot be opened: the main one stands in for them, and says so.
//!
//! Whether such a file can be opened is found out by a batch that is meant for it, so nothing is
//! asked while nobody prints: at most every few seconds, and at once after a
//! [`reopen`](Capture::reopen). The journal names the file a batch is written to, whichever that
//! is; so a log process that is killed meanwhile leaves the next one nothing special to do.

use std::path::PathBuf;
use std::time::Duration;

use super::Capture;
use super::place::MAIN;
use crate::output::monotonic;

/// How often it is tried to open a file.
const OPEN_EVERY: Duration = Duration::from_secs(5);

/// How often it is told of one file.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Of so many files it is told in that time. Their names may hold generations, of which there is no
/// end.
const TOLD_MAX: usize = 1024;

impl Capture {
    /// The place that takes a batch now: the one it is meant for, or the main one if the file of that
    /// cannot be opened.
    pub(super) fn taker(&mut self, number: usize) -> usize {
        let now = monotonic();
        let is_due = self.places.get(number).is_some_and(|place| now >= place.open_at);
        if number == MAIN || !is_due {
            return MAIN;
        }
        let Err(error) = self.places.file(number) else { return number };
        if let Some(place) = self.places.get(number) {
            place.open_at = now + OPEN_EVERY;
            place.trouble = Some(format!("{error}; its lines come here until it can be opened"));
        }
        MAIN
    }

    /// Says in the main log, which has just taken the lines, why it did.
    pub(super) fn tell_why(&mut self, number: usize) {
        let Some(place) = self.places.get(number) else { return };
        let (Some(path), Some(trouble)) = (place.path.clone(), place.trouble.take()) else {
            return;
        };
        let now = monotonic();
        self.told_at.retain(|_, at| now < *at + TELL_EVERY);
        if self.told_at.len() < TOLD_MAX && !self.told_at.contains_key(&path) {
            self.put_in_main(&trouble);
            self.told_at.insert(path, now);
        }
    }

    /// If it cannot be written now, it is told again in a minute.
    fn put_in_main(&mut self, text: &str) {
        let pid = u64::from(std::process::id());
        let line = self.manner.notice(self.record.millis, pid, text, &[]);
        match self.places.file(MAIN) {
            Ok(Some(file)) => {
                let _ = file.write_batch(&line);
                if self.also_stderr {
                    self.copy.put(&line);
                }
            }
            Ok(None) => self.remark(&line, Duration::ZERO),
            Err(_) => {}
        }
    }
}

/// When it was told of which file.
pub(super) type ToldAt = std::collections::BTreeMap<PathBuf, Duration>;
