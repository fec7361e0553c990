//! The lock between the processes of one log, and what they must remember together.
//!
//! `.app.log.lock` is locked shared around every write and exclusively around every rotation: so
//! nobody writes to a file that is being renamed, and nobody counts, deletes or compresses a file
//! somebody is still writing to. The lock belongs to the open file description, therefore a fork
//! needs a description of its own. Its text says in decimal when the log began, when the log to
//! come begins, and the inode of the log that is about to retire, or 0. Who holds the shared lock
//! and reads an inode knows that a rotator died.
//!
//! Writers that never pause would keep the exclusive lock from everybody for ever, as the kernel
//! gives the shared one to whoever asks while others have it. Therefore who waits for it says so in
//! a second line, by the moment of the monotonic clock until when it may be believed, and writers,
//! who read the text anyway, let it pass. That line is written without the lock, and whatever it
//! says costs a write no more than a few milliseconds.
//!
//! The lock is that of the file that has the name: who was given another one, because somebody
//! moved or deleted it, has nothing.
//!
//! Every wait ends: a process that is stopped while it holds the lock (SIGSTOP, a frozen cgroup, a
//! debugger) must not stop the others.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, fchown};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::ppoll;
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::geteuid;

use super::folder::{FileId, Folder};
use super::{now, size_limit};
use crate::output::monotonic;
use crate::rotate::Names;

/// How long the lock is waited for. A rotation takes well below a millisecond; a writer holds the
/// lock for as long as the kernel makes it wait for the disk.
const LIMIT: Duration = Duration::from_secs(1);

/// The same for the exclusive lock after it was waited for in vain. Not less: writers need a moment
/// to see that somebody waits.
const SHORT_LIMIT: Duration = Duration::from_millis(5);

/// So often the processor is given away before the first pause.
const YIELDS: u32 = 50;

/// Between two attempts: at first, when a rotation is waited for, and later.
const SHORT_PAUSE: Duration = Duration::from_micros(100);
const PAUSE: Duration = Duration::from_millis(1);

/// For so long after it was said, it is believed that somebody waits for the exclusive lock.
const WAIT_SHOWN: Duration = Duration::from_millis(5);

/// Who has waited for so long is kept from the lock by somebody who is stopped. The others need not
/// let it pass any longer.
const SHOWN_AT_MOST: Duration = Duration::from_millis(100);

/// The text has one length, so that it is replaced by one small write.
const TEXT_LENGTH: usize = 63;

/// The second line: until when somebody waits, in nanoseconds.
const WAIT_LENGTH: usize = 21;

/// How the lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Shared,
    Exclusive,
}

/// How a wait for the lock ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    Held,
    /// Somebody has kept it all the time.
    Stalled,
    /// It cannot be locked.
    Failed,
    /// What it was wanted for has been done by somebody else.
    Needless,
}

/// What the processes remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Record {
    /// When the log began, in seconds since 1970; 0 if nobody knows.
    pub(crate) began: u64,
    /// When the log to come begins. Means something only with a `retiring`.
    pub(crate) next: u64,
    /// The inode of the log that is about to retire, or 0.
    pub(crate) retiring: u64,
}

/// Until when somebody says to wait for the exclusive lock, by the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Waiting(Duration);

impl Waiting {
    /// Whether that is to be believed now.
    pub(crate) fn is_on(self, now: Duration) -> bool {
        self.0.checked_sub(now).is_some_and(|left| !left.is_zero() && left <= WAIT_SHOWN)
    }
}

/// The open companion file.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: File,
    id: FileId,
    /// The last wait was in vain, so the next one is short: for the shared lock, and for the
    /// exclusive one.
    stalled: [bool; 2],
}

impl Ledger {
    /// Opens the companion of a log, and makes it if it is not there. Only its owner may open it:
    /// whoever may can hold it.
    pub(crate) fn open(folder: &Folder, names: &Names) -> io::Result<Ledger> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let make = OFlag::O_RDWR | OFlag::O_CREAT;
        let file = match folder.open_regular(&names.ledger, make | OFlag::O_EXCL, mode) {
            Ok(made) => {
                if geteuid().is_root() {
                    // Where that is refused, root alone can use it, as before.
                    drop(give(&made, folder, &names.log));
                }
                made
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                folder.open_regular(&names.ledger, make, mode)?
            }
            Err(error) => return Err(error),
        };
        let id = FileId::of(&fstat(&file)?);
        Ok(Ledger { file, id, stalled: [false; 2] })
    }

    /// Takes the lock, unless somebody keeps it for too long or it cannot be locked.
    pub(crate) fn hold(&mut self, hold: Hold) -> bool {
        self.hold_unless(hold, || false) == Some(true)
    }

    /// The same, but gives up as soon as the lock is no longer needed. Returns nothing then.
    pub(crate) fn hold_unless(
        &mut self,
        hold: Hold,
        is_needless: impl Fn() -> bool,
    ) -> Option<bool> {
        let which = match hold {
            Hold::Shared => 0,
            Hold::Exclusive => 1,
        };
        let mut is_shown = false;
        let waited = self.wait(hold, self.stalled[which], is_needless, &mut is_shown);
        if is_shown {
            self.show(Duration::ZERO);
        }
        self.stalled[which] = waited == Waited::Stalled;
        match waited {
            Waited::Held => Some(true),
            Waited::Stalled | Waited::Failed => Some(false),
            Waited::Needless => None,
        }
    }

    fn wait(
        &self,
        hold: Hold,
        is_stalled: bool,
        is_needless: impl Fn() -> bool,
        is_shown: &mut bool,
    ) -> Waited {
        let (yields, limit) = match (is_stalled, hold) {
            (false, _) => (YIELDS, LIMIT),
            (true, Hold::Exclusive) => (YIELDS, SHORT_LIMIT),
            (true, Hold::Shared) => (0, Duration::ZERO),
        };
        let mut began = None;
        for round in 0_u32.. {
            match self.try_hold(hold) {
                Ok(()) => return Waited::Held,
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(_)) => return Waited::Failed,
                Err(TryLockError::WouldBlock) => {}
            }
            if is_needless() {
                return Waited::Needless;
            }
            if round < yields {
                std::thread::yield_now();
                continue;
            }
            let now = monotonic();
            let waited = now.saturating_sub(*began.get_or_insert(now));
            if waited >= limit {
                return Waited::Stalled;
            }
            if hold == Hold::Exclusive && waited < SHOWN_AT_MOST {
                self.show(now + WAIT_SHOWN);
                *is_shown = true;
            }
            pause(if waited < SHOWN_AT_MOST { SHORT_PAUSE } else { PAUSE });
        }
        Waited::Stalled
    }

    /// Says until when somebody waits.
    fn show(&self, until: Duration) {
        let text = format!("{:020}\n", until.as_nanos());
        // Who cannot say it waits all the same.
        drop(size_limit::guard(|| self.file.write_all_at(text.as_bytes(), TEXT_LENGTH as u64)));
    }

    /// Lets those pass who wait for the exclusive lock, for a few milliseconds at most.
    pub(crate) fn give_way(&self) {
        let end = monotonic() + 2 * WAIT_SHOWN;
        loop {
            pause(SHORT_PAUSE);
            let now = monotonic();
            if now >= end || !self.record().1.is_on(now) {
                return;
            }
        }
    }

    fn try_hold(&self, hold: Hold) -> Result<(), TryLockError> {
        match hold {
            Hold::Shared => self.file.try_lock_shared(),
            Hold::Exclusive => self.file.try_lock(),
        }
    }

    pub(crate) fn release(&self) {
        // Unlocking an open file does not fail; if it did, the close would do it.
        drop(self.file.unlock());
    }

    /// Whether it has its name. If not, others lock another one.
    pub(crate) fn is_named(&self, folder: &Folder, name: &OsStr) -> bool {
        matches!(folder.look(name), Ok(Some(stat)) if FileId::of(&stat) == self.id)
    }

    /// What is written down, and whether somebody waits. An unreadable text is none: it is that of
    /// a new companion.
    pub(crate) fn record(&self) -> (Record, Waiting) {
        let mut text = [0; TEXT_LENGTH + WAIT_LENGTH];
        let length = self.file.read_at(&mut text, 0).unwrap_or(0);
        let (record, waiting) = text[..length].split_at(TEXT_LENGTH.min(length));
        let nanos = std::str::from_utf8(waiting).ok().and_then(|text| text.trim_end().parse().ok());
        let waiting = Waiting(Duration::from_nanos(nanos.unwrap_or(0)));
        (parse(record).unwrap_or_default(), waiting)
    }

    /// Writes down when the log began, if nobody has: at its last line, or now. Until that is
    /// known, no period is known to be over.
    pub(crate) fn note_beginning(&self, log: &FileStat) -> io::Result<()> {
        let (record, _) = self.record();
        if record.began > 0 {
            return Ok(());
        }
        let began = match u64::try_from(log.st_mtime) {
            Ok(modified) if log.st_size > 0 => modified,
            Ok(_) | Err(_) => now(),
        };
        self.enter(Record { began, ..record })
    }

    /// Writes down, under the exclusive lock.
    pub(crate) fn enter(&self, record: Record) -> io::Result<()> {
        let Record { began, next, retiring } = record;
        let text = format!("{began:020} {next:020} {retiring:020}\n");
        size_limit::guard(|| self.file.write_all_at(text.as_bytes(), 0))
    }
}

/// What root has just made becomes that of the log's owner, or of the folder's if there is no log: the
/// service that writes there may have another user. What was there before is left alone, as somebody
/// may have put it there to be given it.
fn give(made: &File, folder: &Folder, log: &OsStr) -> io::Result<()> {
    let model = match folder.look(log)? {
        Some(stat) => stat,
        None => folder.stat()?,
    };
    fchown(made, Some(model.st_uid), Some(model.st_gid))
}

fn pause(duration: Duration) {
    // An interrupted pause is a short one.
    let _ = ppoll(&mut [], Some(duration.into()), None);
}

fn parse(text: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(text).ok()?;
    let mut numbers = text.strip_suffix('\n')?.split(' ').map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    Some(Record { began: next()?, next: next()?, retiring: next()? })
}
