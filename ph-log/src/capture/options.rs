//! What a capture is told, and what it tells.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::Format;
use crate::rotate::RotateLimits;

/// What a source is, which says how its lines are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// Lines that are formed already and trusted, such as the master's own. They are written as
    /// they are.
    Ready,
    /// Records of a worker that cannot write the log by itself. A line is `LEVEL TEXT`, the level
    /// being one of the letters E, W, I, D and T; the head is made here. With [`Format::Json`] the
    /// text is an object `{"message":…,"fields":{…}}`; any other text becomes the message.
    Records {
        /// The worker's slot.
        slot: u32,
        /// The worker's generation.
        generation: u32,
        /// The worker's process.
        pid: u32,
    },
    /// What a worker prints.
    Output {
        /// The worker's slot.
        slot: u32,
        /// The worker's generation.
        generation: u32,
        /// The worker's process.
        pid: u32,
        /// On which of its descriptors.
        stream: StandardStream,
    },
    /// What a helper prints.
    Helper {
        /// Its name, which stands where a worker's slot would.
        name: &'static str,
        /// Its process.
        pid: u32,
        /// On which of its descriptors.
        stream: StandardStream,
    },
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandardStream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// A pipe whose lines are brought to the log.
#[derive(Debug)]
pub struct Source {
    /// Which source it is. The same pipe has the same id in every log process, and no id is used
    /// twice.
    pub id: u64,
    /// The reading end, or a copy of it.
    pub pipe: OwnedFd,
    /// How its lines are formed.
    pub kind: SourceKind,
    /// A log of its own, rotated by the same limits. While it cannot be opened, the lines go to the
    /// main log, which says so, once a minute at most.
    pub path: Option<PathBuf>,
}

/// What happens to what workers print when the log cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// It stays in the pipes, and workers wait once theirs is full.
    #[default]
    Block,
    /// A pipe that is nearly full is emptied. What was in it is counted, and told in a line when
    /// writing works again. A disk that does not answer at all counts as one that cannot be
    /// written after a few seconds; what it was given then counts as dropped until it answers.
    Drop,
}

/// Where lines without a path of their own go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaptureTarget {
    /// Descriptor 2. A kill may repeat a piece of at most 4 KiB there.
    Stderr,
    /// A log that other processes may write to through [`RotatingFile`](crate::RotatingFile).
    File(PathBuf),
}

/// What [`Capture::open`](crate::Capture::open) needs to know.
#[derive(Debug, Clone)]
pub struct CaptureOptions {
    /// The name in every line, before the pid. Control characters in it are escaped.
    pub name: String,
    /// Where lines go.
    pub target: CaptureTarget,
    /// When the logs are rotated.
    pub limits: RotateLimits,
    /// Whether every line of the main log also goes to stderr, as far as that takes it: it is
    /// waited for at most a second.
    pub also_stderr: bool,
    /// How lines are formed.
    pub format: Format,
    /// The longest line a worker may print, in bytes; at most 64 KiB.
    pub line_max: usize,
    /// What happens when the log cannot be written.
    pub overflow: Overflow,
}

/// What became of bytes of sources. `read` is always `written` + `dropped_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Bytes taken out of pipes.
    pub read: u64,
    /// Of these, bytes whose lines are in the log.
    pub written: u64,
    /// Lines in the log.
    pub lines: u64,
    /// Bytes that are in no log.
    pub dropped_bytes: u64,
    /// Lines that are in no log.
    pub dropped_lines: u64,
}

/// What a turn has found.
#[derive(Debug, Default)]
pub struct Turn {
    /// Sources that are at their end. All they had is in the log, and they are forgotten here.
    pub ended: Vec<u64>,
    /// Whether there is something to read on the control descriptor.
    pub is_control_ready: bool,
}

/// What [`Capture::drain`](crate::Capture::drain) has done.
#[derive(Debug, Default)]
pub struct Drained {
    /// As in [`Turn::ended`].
    pub ended: Vec<u64>,
    /// Whether everything that was there is in the log.
    pub is_done: bool,
}

/// The moments after which a test may kill the log process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub enum CaptureStep {
    /// Lines are formed; nothing is noted down.
    Formed,
    /// It is noted down what is about to be written.
    Intended,
    /// The lines are written.
    Appended,
    /// It is noted down that they are.
    Noted,
    /// The bytes of a source are in the hold.
    Moved,
    /// The hold was full: it is noted down how far the move has come.
    Paused,
    /// It is noted down that the bytes of all sources are gone.
    Settled,
    /// The account of a source is brought up to date.
    Counted,
    /// The hold is empty.
    Emptied,
    /// A piece of the lines is on stderr, and it is noted down that it is.
    Shown,
}

impl Totals {
    pub(super) fn add(&mut self, other: Totals) {
        self.read += other.read;
        self.written += other.written;
        self.lines += other.lines;
        self.dropped_bytes += other.dropped_bytes;
        self.dropped_lines += other.dropped_lines;
    }

    /// What counted as dropped is in the log.
    pub(super) fn take_back(&mut self, bytes: u64, lines: u64) {
        self.written += bytes;
        self.lines += lines;
        self.dropped_bytes = self.dropped_bytes.saturating_sub(bytes);
        self.dropped_lines = self.dropped_lines.saturating_sub(lines);
    }

    pub(super) fn from_words(next: &mut impl FnMut() -> u64) -> Totals {
        let (read, written, lines) = (next(), next(), next());
        Totals { read, written, lines, dropped_bytes: next(), dropped_lines: next() }
    }
}
