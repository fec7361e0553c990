//! The lock between the processes of one log, and what they must remember together.
//!
//! `.app.log.lock` is locked shared around every write and exclusively around every rotation: so
//! nobody writes to a file that is being renamed, and nobody counts, deletes or compresses a file
//! somebody is still writing to. The lock belongs to the open file description, therefore a fork
//! needs a description of its own. Its text says in decimal when the log began, when the log to
//! come begins, and the inode of the log that is about to retire, or 0. Who holds the shared lock
//! and reads an inode knows that a rotator died.
//!
//! Every wait ends: a process that is stopped while it holds the lock (SIGSTOP, a frozen cgroup, a
//! debugger) must not stop the others.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollTimeout, poll};
use nix::sys::stat::{FileStat, Mode, fstat};

use super::folder::Folder;
use super::now;
use crate::output::monotonic;

/// How long the lock is waited for. A rotation takes well below a millisecond; a writer holds the
/// lock for as long as the kernel makes it wait for the disk.
const LIMIT: Duration = Duration::from_secs(1);

/// So often the processor is given away before the first pause.
const YIELDS: u32 = 50;

/// The text has one length, so that it is replaced by one small write.
const TEXT_LENGTH: usize = 63;

/// How the lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Shared,
    Exclusive,
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

/// The open companion file.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: File,
    /// The last wait was in vain, so the next one is short: for the shared lock, and for the
    /// exclusive one.
    stalled: [bool; 2],
}

impl Ledger {
    /// Opens the companion, and makes it if it is not there. Only its owner may: whoever may open
    /// it may hold it.
    pub(crate) fn open(folder: &Folder, name: &OsStr) -> io::Result<Ledger> {
        let how = OFlag::O_RDWR | OFlag::O_CREAT;
        let file = folder.open_regular(name, how, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(Ledger { file, stalled: [false; 2] })
    }

    /// Takes the lock, unless somebody keeps it for too long or it cannot be locked.
    pub(crate) fn hold(&mut self, hold: Hold) -> bool {
        let stalled = match hold {
            Hold::Shared => 0,
            Hold::Exclusive => 1,
        };
        let limit = if self.stalled[stalled] { Duration::ZERO } else { LIMIT };
        let mut until = None;
        for round in 0_u32.. {
            match self.try_hold(hold) {
                Ok(()) => {
                    self.stalled[stalled] = false;
                    return true;
                }
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(_)) => return false,
                Err(TryLockError::WouldBlock) => {}
            }
            if round < YIELDS {
                std::thread::yield_now();
                continue;
            }
            let now = monotonic();
            if now >= *until.get_or_insert(now + limit) {
                break;
            }
            // An interrupted pause is a short one.
            let _ = poll(&mut [], PollTimeout::from(1_u8));
        }
        self.stalled[stalled] = true;
        false
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

    /// Whether the companion was deleted: others may lock another one by now.
    pub(crate) fn is_deleted(&self) -> bool {
        fstat(&self.file).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// What is written down. An unreadable text is none: it is that of a new companion.
    pub(crate) fn record(&self) -> Record {
        let mut text = [0; TEXT_LENGTH];
        match self.file.read_exact_at(&mut text, 0) {
            Ok(()) => parse(&text).unwrap_or_default(),
            Err(_) => Record::default(),
        }
    }

    /// Writes down when the log began, if nobody has: at its last line, or now. Until that is
    /// known, no period is known to be over.
    pub(crate) fn note_beginning(&self, log: &FileStat) -> io::Result<()> {
        let record = self.record();
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
        self.file.write_all_at(format!("{began:020} {next:020} {retiring:020}\n").as_bytes(), 0)
    }
}

fn parse(text: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(text).ok()?;
    let mut numbers = text.strip_suffix('\n')?.split(' ').map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    Some(Record { began: next()?, next: next()?, retiring: next()? })
}
