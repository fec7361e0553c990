//! The log file, as a test reads it: `STAMP LEVEL NAME[PID] ROLE: MESSAGE`. A line of another form,
//! as commands write them, is all message.

use std::path::PathBuf;
use std::time::Duration;

use super::wait::eventually;

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Log(pub(crate) PathBuf);

/// One line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// Time of the day.
    pub(crate) at: Duration,
    pub(crate) level: String,
    pub(crate) pid: i32,
    pub(crate) message: String,
}

impl Log {
    /// The lines that are whole by now.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let bytes = std::fs::read(&self.0).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(Line::parse).collect()
    }

    /// The lines whose message holds `text`.
    pub(crate) fn with(&self, text: &str) -> Vec<Line> {
        self.lines().into_iter().filter(|line| line.message.contains(text)).collect()
    }

    /// Waits until one line holds `text`, and gives the first.
    pub(crate) fn wait_for(&self, text: &str) -> Line {
        self.wait_for_count(text, 1).swap_remove(0)
    }

    /// Waits until so many lines hold `text`, and gives all that do.
    pub(crate) fn wait_for_count(&self, text: &str, count: usize) -> Vec<Line> {
        eventually(&format!("{count} lines with {text:?} in the log"), || {
            Some(self.with(text)).filter(|lines| lines.len() >= count)
        })
    }

    /// The ends of workers of a slot that the master told of in these words, such as "exited with
    /// code 1" or "was ended by SIGKILL".
    pub(crate) fn ends(&self, slot: u32, how: &str) -> Vec<Line> {
        let (slot, how) = (format!("worker {slot} "), format!(" {how} after "));
        let is_one = |line: &Line| line.message.starts_with(&slot) && line.message.contains(&how);
        self.lines().into_iter().filter(is_one).collect()
    }

    /// Waits until so many workers of a slot ended like this, and gives the lines.
    pub(crate) fn wait_ends(&self, slot: u32, how: &str, count: usize) -> Vec<Line> {
        eventually(&format!("{count} workers of slot {slot} that {how}"), || {
            Some(self.ends(slot, how)).filter(|lines| lines.len() >= count)
        })
    }

    /// Waits until so many workers were ready, each counted once.
    pub(crate) fn wait_ready(&self, workers: usize) {
        self.wait_for_count("is ready after", workers);
    }
}

impl Line {
    fn parse(text: &str) -> Self {
        let other = || Self { message: text.to_owned(), ..Self::default() };
        Self::parse_own(text).unwrap_or_else(other)
    }

    fn parse_own(text: &str) -> Option<Self> {
        let (stamp, rest) = text.split_once(' ')?;
        let (level, rest) = rest.split_once(' ')?;
        let (process, rest) = rest.split_once(' ')?;
        let (_role, message) = rest.split_once(": ")?;
        let pid = process.split_once('[')?.1.strip_suffix(']')?.parse().ok()?;
        let (_, time) = stamp.strip_suffix('Z')?.split_once('T')?;
        let at = time.split(':').try_fold(0.0, |sum, part| {
            part.parse::<f64>().ok().map(|number| sum * 60.0 + number)
        })?;
        let at = Duration::from_secs_f64(at);
        Some(Self { at, level: level.to_owned(), pid, message: message.to_owned() })
    }

    /// The time from this line to a later one; a day may end between them.
    pub(crate) fn until(&self, later: &Self) -> Duration {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let later = if later.at < self.at { later.at + DAY } else { later.at };
        later - self.at
    }
}
