//! A log file that its writers rotate themselves, however many processes they are.
//!
//! The promise: every line whose write returned, and was not counted as lost, is in the files
//! exactly once and whole, whatever rotates, dies or fills up, on a local file system.
//!
//! How a write goes:
//!
//! 1. The companion's lock is taken shared (`ledger`).
//! 2. The name is looked up (`turn`). If another file has it, a rotation was done, and the writer follows.
//!    If nothing has it, somebody renames by hand: as with every daemon, lines go into the renamed
//!    file until [`RotatingFile::reopen`]. A log that was *deleted* is made again.
//! 3. If a limit is reached, the lock is given back and taken exclusively, everything is looked at
//!    once more, and the files are renamed (`perform`).
//! 4. The lines are written with one `write(2)` in append mode (`append`), under the lock that is
//!    held by then.
//!
//! What cannot be done is not a reason to stop: the file in use stays, the caller is told at most
//! once a minute, and it is tried again at most once a second. A process that is stopped while it
//! holds the lock costs the others a second once; from then on they write without it, to the file
//! that has the name, which may then grow beyond its limit. No thread is started here and nothing is kept
//! in memory.

mod account;
mod append;
mod compress;
pub(crate) mod exact;
pub(crate) mod folder;
mod ledger;
pub(crate) mod packing;
mod perform;
mod reopen;
mod size_limit;
mod turn;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::stat::Mode;

use crate::file::{LogError, MODE};
use crate::output::monotonic;
use crate::rotate::{Names, RotateLimits, Step, unpacked};
use account::Account;
pub use account::{Notice, Written};
pub use append::BATCH_MAX;
use append::{Append, piece_length};
pub use compress::CompressionJob;
use folder::{FileId, Folder};
use ledger::{Hold, Ledger, Record, Waiting};
use perform::Rotation;
use turn::Cause;

const RETRY_EVERY: Duration = Duration::from_secs(1);

/// What [`RotatingFile::open`] needs to know. All processes of one log must agree on it.
#[derive(Debug, Clone)]
pub struct RotateOptions {
    path: PathBuf,
    limits: RotateLimits,
    after_step: Option<fn(Step)>,
}

impl RotateOptions {
    /// A log of this path, rotated by these limits.
    pub fn new(path: impl Into<PathBuf>, limits: RotateLimits) -> RotateOptions {
        RotateOptions { path: path.into(), limits, after_step: None }
    }

    /// For tests of crashes: called after each step of a rotation, under the lock.
    #[doc(hidden)]
    #[must_use]
    pub fn after_step(self, call: fn(Step)) -> RotateOptions {
        RotateOptions { after_step: Some(call), ..self }
    }

    fn passed(&self, step: Step) {
        if let Some(call) = self.after_step {
            call(step);
        }
    }
}

/// A log that several processes write to and rotate.
///
/// After a fork the child may use the value it inherited: the first call opens everything again,
/// on file descriptions of its own.
///
/// # Examples
///
/// ```
/// use ph_log::{RotateLimits, RotateOptions, RotatingFile};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.log");
///
/// let limits = RotateLimits { max_size: Some(1 << 20), ..RotateLimits::default() };
/// let mut log = RotatingFile::open(RotateOptions::new(&path, limits))?;
/// let written = log.write_batch(b"one line\nand another\n");
/// assert_eq!(written.lost, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RotatingFile {
    options: RotateOptions,
    names: Names,
    folder: Folder,
    /// Missing where the folder does not take one: then nothing is rotated.
    ledger: Option<Ledger>,
    file: Append,
    pid: u32,
    /// No attempt at what has failed is made before this.
    retry_at: Duration,
    account: Account,
}

impl RotatingFile {
    /// Opens the log, with mode 0640 less the umask if it does not exist, and ends a rotation that
    /// was cut off. Beside it stands `.NAME.lock`, through which its writers take turns.
    ///
    /// A folder in which that cannot be made is no error: the log is written to and not rotated.
    ///
    /// # Errors
    ///
    /// [`LogError::File`] if the file cannot be opened, is no regular file or has several names.
    pub fn open(options: RotateOptions) -> Result<RotatingFile, LogError> {
        let failed = |source| LogError::at(&options.path, source);
        let names = Names::new(&folder::name_of(&options.path).map_err(failed)?);
        let folder = Folder::of(&options.path).map_err(failed)?;
        let mut account = Account::default();
        let mut ledger = match Ledger::open(&folder, &names) {
            Ok(ledger) => Some(ledger),
            Err(error) => {
                account.trouble = Some(("lock the log", error));
                None
            }
        };
        let held = match &mut ledger {
            Some(ledger) => ledger.hold(Hold::Exclusive).then_some(&*ledger),
            None => None,
        };
        if let Some(ledger) = held {
            let options = &options;
            let rotation = Rotation { folder: &folder, names: &names, ledger, options };
            account.trouble = rotation.repair().err().map(|error| ("repair the log", error));
        }
        let opened = folder.open_log(&names.log, Some(mode()));
        if let Some(ledger) = held {
            if let Ok(Some(stat)) = folder.look(&names.log) {
                // What cannot be written down now is before the first rotation.
                drop(ledger.note_beginning(&stat));
            }
            ledger.release();
        }
        let file = Append::new(opened.map_err(failed)?);
        let (pid, retry_at) = (std::process::id(), Duration::ZERO);
        Ok(RotatingFile { options, names, folder, ledger, file, pid, retry_at, account })
    }

    /// Appends whole lines; a last line without its end gets one. The caller chooses the batches:
    /// a lock and a look are taken for every [`BATCH_MAX`] bytes, or for every line if it writes
    /// one at a time.
    ///
    /// Waits for a rotation of another process, which takes less than a millisecond, and at most
    /// for a second; and for the disk.
    pub fn write_batch(&mut self, lines: &[u8]) -> Written {
        self.leave_parent();
        let before = self.account.dropped;
        let mut rest = lines;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(piece_length(rest));
            match piece.ends_with(b"\n") {
                true => self.write_piece(piece),
                false => self.write_piece(&[piece, b"\n"].concat()),
            }
            rest = more;
        }
        let lost = self.account.dropped - before;
        let is_rotated = std::mem::take(&mut self.account.is_rotated);
        Written { lost, is_rotated, notice: self.account.notice(lost > 0) }
    }

    /// Rotates now, whatever the limits say. Returns whether it did: an empty log is not rotated.
    ///
    /// # Errors
    ///
    /// What the system said, or that another process keeps the lock. The file in use stays.
    pub fn rotate_now(&mut self) -> io::Result<bool> {
        self.leave_parent();
        // The file may be an old one: who has not written for long has not followed either.
        self.write_piece(b"");
        let result = self.tend(Cause::Asked);
        // The look before may have found a rotation due.
        let is_rotated = std::mem::take(&mut self.account.is_rotated);
        result.map(|_| is_rotated)
    }

    /// The next backup to compress, if the limits ask for that. To be asked for after a rotation
    /// and run where it may take its time: in another thread, or in another process.
    ///
    /// # Errors
    ///
    /// The folder cannot be listed.
    pub fn pending_compression(&self) -> io::Result<Option<CompressionJob>> {
        let Some(packing) = self.options.limits.compress.packing() else { return Ok(None) };
        let Some(backup) = unpacked(&self.folder.backups(&self.names)?) else { return Ok(None) };
        let folder = self.folder.try_clone()?;
        Ok(Some(CompressionJob { folder, names: self.names.clone(), backup, packing }))
    }

    /// Lines that this process has lost.
    pub fn dropped(&self) -> u64 {
        self.account.dropped
    }

    /// Takes the lock, if there is one; if not, tries to get one. The lock that counts is that of
    /// the companion which has the name.
    fn hold(&mut self, hold: Hold) -> bool {
        self.hold_unless(hold, false) == Some(true)
    }

    /// The same, but gives up as soon as another file has the log's name, if that is asked for.
    /// Returns nothing then.
    fn hold_unless(&mut self, hold: Hold, is_renamed: bool) -> Option<bool> {
        // A second time for one that was moved or deleted.
        for _ in 0..2 {
            if self.ledger.is_none() && monotonic() >= self.retry_at {
                let reopened = self.folder.reopen_if_deleted();
                match reopened.and_then(|_| Ledger::open(&self.folder, &self.names)) {
                    Ok(ledger) => self.ledger = Some(ledger),
                    Err(error) => self.fail("lock the log", error),
                }
            }
            let Some(ledger) = &mut self.ledger else { return Some(false) };
            let held = ledger.hold_unless(hold, || {
                let found = is_renamed.then(|| self.folder.look(&self.names.log));
                matches!(found, Some(Ok(Some(stat))) if FileId::of(&stat) != self.file.id)
            });
            if held != Some(true) {
                return held;
            }
            if ledger.is_named(&self.folder, &self.names.ledger) {
                return Some(true);
            }
            self.ledger = None;
        }
        Some(false)
    }

    fn release(&self) {
        if let Some(ledger) = &self.ledger {
            ledger.release();
        }
    }

    fn record(&self) -> (Record, Waiting) {
        self.ledger.as_ref().map(Ledger::record).unwrap_or_default()
    }

    fn fail(&mut self, tried: &'static str, error: io::Error) {
        let now = monotonic();
        // What fails at every write must not put the next attempt off for ever.
        if now >= self.retry_at {
            self.retry_at = now + RETRY_EVERY;
        }
        self.account.trouble = Some((tried, error));
    }

    /// In a process forked since the last call, opens everything again: a lock belongs to a file
    /// description, and so does the position by which a torn line is found.
    fn leave_parent(&mut self) {
        let pid = std::process::id();
        if pid == self.pid {
            return;
        }
        self.pid = pid;
        self.account = Account::default();
        self.retry_at = Duration::ZERO;
        self.file.is_own = false;
        // The next `hold` opens another one.
        self.ledger = None;
        // Not made here: the name may be free for the moment of a rotation.
        if let Ok(opened) = self.folder.open_log(&self.names.log, None) {
            self.file = Append::new(opened);
        }
    }
}

fn mode() -> Mode {
    Mode::from_bits_truncate(MODE)
}

/// The wall clock, in seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
