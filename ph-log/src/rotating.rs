//! A log file that its writers rotate themselves, however many processes they are.
//!
//! The promise: every line whose write returned, and was not counted as lost, is in the files
//! exactly once and whole, whatever rotates, dies or fills up, on a local file system.
//!
//! How a write goes:
//!
//! 1. The companion's lock is taken shared (`ledger`).
//! 2. The name is looked up. If another file has it, a rotation was done, and the writer follows.
//!    If nothing has it, somebody renames by hand: as with every daemon, lines go into the renamed
//!    file until [`RotatingFile::reopen`]. A log that was *deleted* is made again.
//! 3. If a limit is reached, the lock is given back and taken exclusively, everything is looked at
//!    once more, and the files are renamed (`perform`).
//! 4. The lines are written with one `write(2)` in append mode (`append`).
//!
//! What cannot be done is not a reason to stop: the file in use stays, the caller is told at most
//! once a minute, and it is tried again at most once a second. A process that is stopped while it
//! holds the lock costs the others a second once; from then on they write without it, to the file
//! they have, which may then grow beyond its limit. No thread is started here and nothing is kept
//! in memory.

mod account;
mod append;
mod compress;
mod folder;
mod ledger;
mod perform;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::stat::{FileStat, Mode};

use crate::file::{LogError, MODE};
use crate::output::monotonic;
use crate::rotate::{Compression, Decision, Moment, Names, RotateLimits, Step, unpacked};
use account::Account;
pub use account::{Notice, Written};
pub use append::BATCH_MAX;
use append::{Append, piece_length};
pub use compress::CompressionJob;
use folder::{FileId, Folder};
use ledger::{Hold, Ledger, Record};
use perform::Rotation;

const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How often a write starts over because the file has changed under it.
const ROUNDS: u32 = 8;

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

/// What is to be done with the lines at hand, by a look under the shared lock.
enum Turn {
    Write,
    /// Everything is to be looked at again.
    Again,
    /// Something is due that takes the exclusive lock.
    Tend,
}

/// Why the exclusive lock is taken.
#[derive(Clone, Copy)]
enum Cause {
    /// So many bytes are about to be written.
    Batch(u64),
    Asked,
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
        let failed = |source| LogError::File { path: options.path.clone(), found: None, source };
        let names = Names::new(&folder::name_of(&options.path).map_err(failed)?);
        let folder = Folder::of(&options.path).map_err(failed)?;
        let mut account = Account::default();
        let mut ledger = match Ledger::open(&folder, &names.ledger) {
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

    /// Opens the file that now has the name, or makes it: after a rename by logrotate, USR1.
    ///
    /// # Errors
    ///
    /// As for [`open`](RotatingFile::open). The file in use stays.
    pub fn reopen(&mut self) -> Result<(), LogError> {
        self.leave_parent();
        self.retry_at = Duration::ZERO;
        if self.hold(Hold::Shared) {
            let is_cut_off = self.record().retiring != 0;
            self.release();
            if is_cut_off {
                // If the repair fails, the open below says what is wrong.
                drop(self.tend(Cause::Batch(0)));
            }
        }
        let is_held = self.hold(Hold::Shared);
        let opened = self.folder.open_log(&self.names.log, Some(mode()));
        if is_held {
            self.release();
        }
        let failed = |source| {
            let path = self.options.path.clone();
            LogError::File { path, found: None, source }
        };
        self.file = Append::new(opened.map_err(failed)?);
        Ok(())
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
        if self.options.limits.compress == Compression::None {
            return Ok(None);
        }
        let Some(backup) = unpacked(&self.folder.backups(&self.names)?) else { return Ok(None) };
        let folder = self.folder.try_clone()?;
        Ok(Some(CompressionJob { folder, names: self.names.clone(), backup }))
    }

    /// Lines that this process has lost.
    pub fn dropped(&self) -> u64 {
        self.account.dropped
    }

    fn write_piece(&mut self, piece: &[u8]) {
        for _ in 0..ROUNDS {
            if !self.hold(Hold::Shared) {
                break;
            }
            match self.look(piece.len() as u64) {
                Turn::Write => {
                    self.put(piece);
                    self.release();
                    return;
                }
                Turn::Again => self.release(),
                Turn::Tend => {
                    self.release();
                    if let Err(error) = self.tend(Cause::Batch(piece.len() as u64)) {
                        self.fail("rotate the log", error);
                    }
                }
            }
        }
        self.put(piece);
    }

    /// Looks at everything a writer must know, and follows to the file that has the name.
    fn look(&mut self, batch: u64) -> Turn {
        if self.ledger.as_ref().is_none_or(Ledger::is_deleted) {
            self.ledger = None;
            return Turn::Again;
        }
        let record = self.record();
        let is_due = monotonic() >= self.retry_at;
        if record.retiring != 0 && is_due {
            return Turn::Tend;
        }
        match self.folder.look(&self.names.log) {
            Ok(Some(stat)) if FileId::of(&stat) == self.file.id => {
                let decision = self.options.limits.decide(moment(&stat, record, batch));
                match decision {
                    Decision::Begin | Decision::Rotate if is_due => Turn::Tend,
                    Decision::Stay | Decision::Begin | Decision::Rotate => Turn::Write,
                }
            }
            Ok(found) => self.follow(found.is_some()),
            Err(error) => {
                self.fail("find the log", error);
                Turn::Write
            }
        }
    }

    /// Another file has the name, or none.
    fn follow(&mut self, is_there: bool) -> Turn {
        if !is_there && !self.file.is_deleted() {
            return Turn::Write;
        }
        match self.folder.open_log(&self.names.log, (!is_there).then(mode)) {
            Ok(opened) => {
                self.file = Append::new(opened);
                Turn::Again
            }
            // It was renamed since.
            Err(error) if is_there && error.kind() == io::ErrorKind::NotFound => Turn::Again,
            Err(error) => {
                self.fail("open the log", error);
                Turn::Write
            }
        }
    }

    /// Does what takes the exclusive lock, if it is still due under it. Returns whether the log
    /// was rotated.
    fn tend(&mut self, cause: Cause) -> io::Result<bool> {
        if !self.hold(Hold::Exclusive) {
            let text = "another process holds its lock, or there is none";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        let result = self.tend_held(cause);
        self.release();
        result
    }

    fn tend_held(&mut self, cause: Cause) -> io::Result<bool> {
        let RotatingFile { options, names, folder, ledger, account, .. } = self;
        let Some(ledger) = ledger.as_ref() else { return Ok(false) };
        let rotation = Rotation { folder, names, ledger, options };
        rotation.repair()?;
        let Some(stat) = folder.look(&names.log)? else { return Ok(false) };
        if FileId::of(&stat) != self.file.id {
            return Ok(false);
        }
        let decision = match cause {
            Cause::Asked if stat.st_size > 0 => Decision::Rotate,
            Cause::Asked => Decision::Stay,
            Cause::Batch(batch) => {
                ledger.note_beginning(&stat)?;
                options.limits.decide(moment(&stat, ledger.record(), batch))
            }
        };
        match decision {
            Decision::Stay => Ok(false),
            Decision::Begin => {
                ledger.enter(Record { began: now(), ..Record::default() })?;
                Ok(false)
            }
            Decision::Rotate => {
                let unpruned = rotation.rotate(&stat)?;
                account.is_rotated = true;
                if let Some(error) = unpruned {
                    account.trouble = Some(("delete an old backup", error));
                }
                Ok(true)
            }
        }
    }

    fn put(&mut self, piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        // Whoever holds the lock has just seen the file under its name or followed to it; what
        // remains is a deleted one that could not be made again.
        let failure = match self.file.is_deleted() {
            true => Err((piece.len(), io::Error::other("the log was deleted"))),
            false => self.file.put(piece),
        };
        if let Err((bytes, error)) = failure {
            let lost = &piece[piece.len() - bytes..];
            self.account.lose(lost.iter().filter(|&&byte| byte == b'\n').count() as u64, error);
        }
    }

    /// Takes the lock, if there is one; if not, tries to get one.
    fn hold(&mut self, hold: Hold) -> bool {
        if self.ledger.is_none() && monotonic() >= self.retry_at {
            let reopened = self.folder.reopen_if_deleted();
            match reopened.and_then(|_| Ledger::open(&self.folder, &self.names.ledger)) {
                Ok(ledger) => self.ledger = Some(ledger),
                Err(error) => self.fail("lock the log", error),
            }
        }
        self.ledger.as_mut().is_some_and(|ledger| ledger.hold(hold))
    }

    fn release(&self) {
        if let Some(ledger) = &self.ledger {
            ledger.release();
        }
    }

    fn record(&self) -> Record {
        self.ledger.as_ref().map(Ledger::record).unwrap_or_default()
    }

    fn fail(&mut self, tried: &'static str, error: io::Error) {
        self.retry_at = monotonic() + RETRY_EVERY;
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

fn moment(log: &FileStat, record: Record, batch: u64) -> Moment {
    let size = u64::try_from(log.st_size).unwrap_or(0);
    Moment { size, began: record.began, now: now(), batch }
}

fn mode() -> Mode {
    Mode::from_bits_truncate(MODE)
}

/// The wall clock, in seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
