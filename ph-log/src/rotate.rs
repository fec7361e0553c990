//! Whether a log is to be rotated, and which file gets which name. Nothing here opens a file or
//! asks a clock: facts in, answers out.
//!
//! Names are those of supervisord and logrotate: `app.log` is written to, `app.log.1` is the
//! youngest backup, a higher number is older, and `.gz` or `.zst` says that a backup is compressed.
//!
//! Invariants:
//!
//! * A period (an hour, a day) is rotated at most once. A clock that goes back rotates nothing,
//!   and going forward over the same hour again does not either.
//! * A name is moved to only if nothing has it. Backups are moved up to the first free number and
//!   no further, so a rotation that was cut off leaves a gap, and the next one begins there.
//! * What is no regular file is neither moved nor deleted: it stops the rotation if it is in the
//!   way and is left alone otherwise.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::time::Duration;

use crate::clock::Clock;

/// How far ahead of the clock, in periods, the beginning of a file may lie before it is taken for
/// the mark of a clock that was wrong.
const AHEAD_LIMIT: u64 = 2;

/// When a log is rotated for its age. The moment is that of the first line written in the new
/// period: a log nobody writes to is not rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Period {
    /// Only for its size.
    #[default]
    Never,
    /// At every full hour. A repeated hour at the end of summer time is an hour like any other.
    Hourly,
    /// At midnight.
    Daily,
}

/// What becomes of backups from number 2 on. Number 1 stays readable, as with logrotate's
/// `delaycompress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// They stay as they are.
    #[default]
    None,
    /// `app.log.2` becomes `app.log.2.gz`; see
    /// [`RotatingFile::pending_compression`](crate::RotatingFile::pending_compression).
    Gzip,
    /// `app.log.2` becomes `app.log.2.zst`: sooner done than gzip, and somewhat larger.
    Zstd,
}

impl Compression {
    pub(crate) fn packing(self) -> Option<Packing> {
        match self {
            Compression::None => None,
            Compression::Gzip => Some(Packing::Gzip),
            Compression::Zstd => Some(Packing::Zstd),
        }
    }
}

/// When to rotate and what to keep.
#[derive(Debug, Clone)]
pub struct RotateLimits {
    /// The size in bytes that a file does not exceed, but for one batch of each process that
    /// writes, and but for a single batch that is larger. `None`: no limit.
    pub max_size: Option<u64>,
    /// When to rotate for age.
    pub period: Period,
    /// Days and hours begin by this clock.
    pub clock: Clock,
    /// How many backups are kept. With 0 a full log is deleted.
    pub backups: u32,
    /// Backups last written to longer ago than this are deleted at the next rotation, as with
    /// logrotate's `maxage`. `None`: age does not count.
    pub max_age: Option<Duration>,
    /// What becomes of old backups.
    pub compress: Compression,
}

/// The defaults of ph's settings: 50 MiB, 10 backups, not for age, UTC, not compressed.
impl Default for RotateLimits {
    fn default() -> RotateLimits {
        RotateLimits {
            max_size: Some(50 << 20),
            period: Period::Never,
            clock: Clock::utc(),
            backups: 10,
            max_age: None,
            compress: Compression::None,
        }
    }
}

/// What a writer knows of the log just before it writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) size: u64,
    /// When the file began, in seconds since 1970.
    pub(crate) began: u64,
    pub(crate) now: u64,
    /// The bytes about to be written.
    pub(crate) batch: u64,
}

/// What is to be done before the bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Stay,
    /// The file counts as begun now: it is empty, or the clock was wrong when it began.
    Begin,
    Rotate,
}

impl RotateLimits {
    pub(crate) fn decide(&self, moment: Moment) -> Decision {
        let Moment { size, began, now, batch } = moment;
        let is_full = self.max_size.is_some_and(|max| size.saturating_add(batch) > max);
        if is_full && size > 0 {
            return Decision::Rotate;
        }
        let Some(length) = self.period.seconds() else { return Decision::Stay };
        if began > now.saturating_add(AHEAD_LIMIT * length) {
            return Decision::Begin;
        }
        match self.period_of(now, length) > self.period_of(began, length) {
            true if size > 0 => Decision::Rotate,
            true => Decision::Begin,
            false => Decision::Stay,
        }
    }

    /// When the log after one that began then is to count as begun. After a clock that went back
    /// the old beginning stands, lest the same period ends twice.
    pub(crate) fn next_began(&self, began: u64, now: u64) -> u64 {
        let length = self.period.seconds().unwrap_or(0);
        if began > now.saturating_add(AHEAD_LIMIT * length) { now } else { began.max(now) }
    }

    /// The number of the period a moment is in.
    fn period_of(&self, at: u64, length: u64) -> i64 {
        let length = length.cast_signed();
        // Only the part of the offset that moves the period's borders counts: were the whole of
        // it added to hours, the end of summer time would look like a clock that went back.
        let offset = i64::from(self.clock.offset(at)) % length;
        at.cast_signed().saturating_add(offset).div_euclid(length)
    }

    /// The backups that are too many or too old.
    pub(crate) fn surplus(&self, found: &[Found], now: u64) -> Vec<Backup> {
        let is_old = |found: &Found| {
            self.max_age
                .is_some_and(|max| now.saturating_sub(found.modified.as_secs()) > max.as_secs())
        };
        let is_surplus = |found: &&Found| found.backup.index > self.backups || is_old(found);
        found.iter().filter(|found| found.is_regular).filter(is_surplus).map(|f| f.backup).collect()
    }
}

impl Period {
    fn seconds(self) -> Option<u64> {
        match self {
            Period::Never => None,
            Period::Hourly => Some(3600),
            Period::Daily => Some(86400),
        }
    }
}

/// How a backup is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    pub(crate) const ALL: [Packing; 2] = [Packing::Gzip, Packing::Zstd];

    fn ending(self) -> &'static str {
        match self {
            Packing::Gzip => ".gz",
            Packing::Zstd => ".zst",
        }
    }
}

/// A backup by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Backup {
    pub(crate) index: u32,
    /// Nothing: it is as it was written.
    pub(crate) packing: Option<Packing>,
}

impl Backup {
    pub(crate) const FIRST: Backup = Backup { index: 1, packing: None };

    pub(crate) fn packed(self, packing: Packing) -> Backup {
        Backup { packing: Some(packing), ..self }
    }

    pub(crate) fn is_packed(self) -> bool {
        self.packing.is_some()
    }
}

/// What stands under a backup's name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) backup: Backup,
    /// Last written to, since 1970.
    pub(crate) modified: Duration,
    pub(crate) is_regular: bool,
    /// It has another name too, so it is moved and deleted but not read.
    pub(crate) is_linked: bool,
}

/// The backups that are there in compressed form too, under the same number: their compressor has
/// not deleted them yet, or died before it could. It gives its file the time of the original, to
/// the nanosecond; another time is that of another file. To be deleted before anything is moved:
/// a crash between two moves would leave them two numbers, and their lines in two backups.
pub(crate) fn twins(found: &[Found]) -> Vec<Backup> {
    let packed: HashSet<(u32, Duration)> = found
        .iter()
        .filter(|one| one.is_regular && one.backup.is_packed())
        .map(|one| (one.backup.index, one.modified))
        .collect();
    let is_twin = |one: &&Found| {
        one.is_regular
            && !one.backup.is_packed()
            && packed.contains(&(one.backup.index, one.modified))
    };
    found.iter().filter(is_twin).map(|one| one.backup).collect()
}

/// The moves that free number 1, in their order; or what is in the way. What shares a number moves
/// together.
pub(crate) fn moves(found: &[Found]) -> Result<Vec<(Backup, Backup)>, Backup> {
    let taken: HashSet<u32> = found.iter().map(|found| found.backup.index).collect();
    let free = (1..u32::MAX).find(|index| !taken.contains(index)).unwrap_or(u32::MAX);
    let mut below: Vec<_> = found.iter().filter(|found| found.backup.index < free).collect();
    if let Some(foreign) = below.iter().find(|found| !found.is_regular) {
        return Err(foreign.backup);
    }
    below.sort_by_key(|found| Reverse(found.backup));
    let up = |backup: Backup| (backup, Backup { index: backup.index + 1, ..backup });
    Ok(below.into_iter().map(|found| up(found.backup)).collect())
}

/// The youngest backup that is to be compressed. One whose compressed form is there already comes
/// last: if that holds something else, it can never be, and would keep the others from it.
pub(crate) fn unpacked(found: &[Found]) -> Option<Backup> {
    let packed: HashSet<u32> =
        found.iter().map(|one| one.backup).filter(|it| it.is_packed()).map(|it| it.index).collect();
    let is_due = |found: &&Found| {
        found.is_regular && !found.is_linked && found.backup.index >= 2 && !found.backup.is_packed()
    };
    let due = found.iter().filter(is_due).map(|found| found.backup);
    due.min_by_key(|backup| (packed.contains(&backup.index), backup.index))
}

/// The steps of a rotation, in their order. Before `Retire` nothing has happened to the log, and
/// after `Install` nothing is left that matters to a writer; a rotator that died between the two
/// is known by what `Declare` wrote down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub enum Step {
    /// The new file is made, under a name of its own, with the owner and mode of the old one.
    Make,
    /// It is written down which file is about to retire.
    Declare,
    /// One backup gets the next number. As often as it takes.
    Shift,
    /// The log becomes backup 1.
    Retire,
    /// The new file becomes the log.
    Install,
    /// Backups that are too many or too old are deleted.
    Prune,
    /// It is written down that the rotation is over.
    Settle,
}

/// A whole rotation.
pub(crate) const ROTATION: &[Step] = &[
    Step::Make,
    Step::Declare,
    Step::Shift,
    Step::Retire,
    Step::Install,
    Step::Prune,
    Step::Settle,
];

/// What is left of a rotation whose file has retired.
pub(crate) const REPAIR: &[Step] = &[Step::Make, Step::Install, Step::Prune, Step::Settle];

/// The names in the folder of a log that belong to it.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) log: OsString,
    /// The file that processes lock; see `ledger`.
    pub(crate) ledger: OsString,
    /// The next log until it is installed.
    pub(crate) fresh: OsString,
    /// A compressed backup until it is whole.
    pub(crate) packing: OsString,
}

impl Names {
    /// The names that go with a log's. The helpers' begin with a dot, so that `app.log*` names
    /// logs only.
    pub(crate) fn new(log: &OsStr) -> Names {
        let helper = |ending: &str| {
            let mut name = OsString::from(".");
            name.push(log);
            name.push(ending);
            name
        };
        Names {
            log: log.to_owned(),
            ledger: helper(".lock"),
            fresh: helper(".new"),
            packing: helper(".pack"),
        }
    }

    pub(crate) fn backup(&self, backup: Backup) -> OsString {
        let ending = backup.packing.map_or("", Packing::ending);
        let mut name = self.log.clone();
        name.push(format!(".{}{ending}", backup.index));
        name
    }

    /// Which backup has this name, if any. `app.log.01` is none: it would be a second number 1.
    pub(crate) fn parse(&self, name: &OsStr) -> Option<Backup> {
        let rest = name.as_bytes().strip_prefix(self.log.as_bytes())?.strip_prefix(b".")?;
        let packed = |packing: Packing| {
            Some((rest.strip_suffix(packing.ending().as_bytes())?, Some(packing)))
        };
        let (digits, packing) = Packing::ALL.into_iter().find_map(packed).unwrap_or((rest, None));
        let index = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let backup = Backup { index, packing };
        let is_own =
            (1..u32::MAX).contains(&index) && self.backup(backup).into_vec() == name.as_bytes();
        is_own.then_some(backup)
    }
}

#[cfg(test)]
#[path = "rotate/tests.rs"]
mod tests;
