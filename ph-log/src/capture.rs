//! The lines that workers print, brought to the log by a process that may be killed at any moment.
//!
//! The master keeps the reading ends of its workers' pipes, gives copies of them to the *log
//! process*, and starts another one if that dies. What runs in the log process is here. The
//! promise: every byte that a worker's `write` put into its pipe comes into the log exactly once,
//! in whole lines, or is counted as dropped, however many log processes were killed meanwhile.
//!
//! Bytes leave a pipe only when they are in the file. One batch goes like this:
//!
//! 1. The pipes are looked into (`pipes`), and lines are formed (`lines`) from what is there.
//! 2. Under the log's exclusive lock it is noted down in the [`CaptureJournal`] which bytes of
//!    which pipes are about to be written, as of which time, to which place of which file. Then the
//!    lines are appended.
//! 3. It is noted down that they are written. The bytes are moved out of their pipes into the
//!    *hold*, each pipe's in one step of the kernel.
//! 4. It is noted down that they are gone. The sources' accounts are brought up to date and the
//!    hold is emptied.
//!
//! | killed | what the next log process does ([`Capture::recover`]) |
//! |---|---|
//! | before 2 | nothing: the bytes are in their pipes |
//! | in 2 | forms the same lines again and compares: what stands in the file is written, the rest is as if nothing had happened (`rotating/exact`) |
//! | in 3 | sees by the hold how far the move had come, and goes on |
//! | in 4 | what was not done yet; each of it may be done twice |
//!
//! A line is taken when its end is there. The beginning of one waits in its pipe for its end, for
//! two seconds, then it is written as it is; at the end of a pipe at once. A line that is longer than
//! `line_max`, or fills its pipe, is cut with a mark and goes on in the next line.
//!
//! What cannot be promised: on stderr nobody can look what stands there. How much of a batch was
//! shown is noted down after each piece (`show`), so a kill between a write and its note repeats one
//! piece. A worker that reads from its own pipe takes away what it gets. Of a file
//! that was deleted or compressed before the next log process came, it is taken that the batch
//! that was being written is in it. If its folder cannot be looked at, it is waited for, and after
//! some seconds the lines of the batch are written once more, to whatever takes them by then.

mod apart;
mod batch;
mod compress;
mod consume;
mod escape;
mod journal;
mod lines;
mod options;
mod partial;
mod pipes;
mod place;
mod recovery;
mod show;
mod stand_in;
mod terminal;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::file::LogError;
use apart::{Apart, Flight};
use compress::Compressor;
pub use journal::CaptureJournal;
use journal::{Account, Loss, Record};
use lines::Manner;
pub use options::{
    CaptureOptions, CaptureStep, CaptureTarget, Drained, Overflow, Source, SourceKind,
    StandardStream, Totals, Turn,
};
use partial::Partial;
use place::{MAIN, Places};
use recovery::Recovery;
use stand_in::ToldAt;
use terminal::Copy;

/// The most bytes taken from a source in a turn, but for a line that is longer.
const SOURCE_MAX: usize = 64 << 10;

/// The longest `line_max`.
const LINE_MAX: usize = 64 << 10;

/// A source as it is known here.
#[derive(Debug)]
struct Feed {
    pipe: OwnedFd,
    kind: SourceKind,
    place: usize,
    /// The place of its account.
    slot: usize,
    /// What stands in its lines between level and text.
    after: String,
    is_queued: bool,
    /// All writers are gone.
    is_hung: bool,
    /// There is the beginning of a line.
    partial: Option<Partial>,
}

/// Brings the lines of many pipes to the log.
#[derive(Debug)]
pub struct Capture {
    journal: Arc<CaptureJournal>,
    manner: Manner,
    overflow: Overflow,
    also_stderr: bool,
    epoll: Epoll,
    feeds: BTreeMap<u64, Feed>,
    places: Places,
    /// The beginnings of lines, by when they are looked at again.
    partials: BTreeSet<(Duration, u64)>,
    record: Record,
    accounts: Vec<Account>,
    /// All that was dropped.
    dropped: Loss,
    /// What was dropped is not told before.
    notice_at: Duration,
    /// Trouble is not told on stderr before.
    say_at: Duration,
    /// Of which path the journal knows.
    noted_path: Option<PathBuf>,
    ended: Vec<u64>,
    input: Vec<u8>,
    output: Vec<u8>,
    before: String,
    is_draining: bool,
    recovery: Recovery,
    compressor: Compressor,
    copy: Copy,
    /// The end of a line of which stderr took only the beginning.
    rest: Vec<u8>,
    /// The thread that writes, if one is needed, and the batch it has kept for too long.
    apart: Option<Apart>,
    flight: Option<Flight>,
    is_reopen_due: bool,
    told_at: ToldAt,
    after_step: Option<fn(CaptureStep)>,
}

impl Capture {
    /// Opens the log. Sources that earlier log processes had are to be added next, then
    /// [`recover`](Capture::recover) is to be called.
    ///
    /// # Errors
    ///
    /// As for [`RotatingFile::open`](crate::RotatingFile::open); or no descriptor is left.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write as _;
    /// use std::os::fd::AsFd as _;
    /// use std::sync::Arc;
    /// use ph_log::{
    ///     Capture, CaptureJournal, CaptureOptions, CaptureTarget, Format, Overflow, RotateLimits,
    ///     Source, SourceKind, StandardStream,
    /// };
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.log");
    ///
    /// let options = CaptureOptions {
    ///     name: "jobexecute".to_owned(),
    ///     target: CaptureTarget::File(path.clone()),
    ///     limits: RotateLimits::default(),
    ///     also_stderr: false,
    ///     format: Format::Text,
    ///     line_max: 16 << 10,
    ///     overflow: Overflow::Block,
    /// };
    /// let mut capture = Capture::open(options, Arc::new(CaptureJournal::new()?))?;
    /// capture.recover()?;
    /// let (pipe, mut worker) = std::io::pipe()?;
    /// let stream = StandardStream::Stdout;
    /// let kind = SourceKind::Output { slot: 3, generation: 2, pid: 4121, stream };
    /// capture.add(Source { id: 1, pipe: pipe.into(), kind, path: None })?;
    /// worker.write_all(b"hello\n")?;
    ///
    /// let (control, _master) = std::io::pipe()?;
    /// let turn = capture.turn(control.as_fd())?;
    /// assert!(turn.ended.is_empty());
    /// let text = std::fs::read_to_string(&path)?;
    /// assert!(text.ends_with(" INFO jobexecute[4121] worker 3 gen 2 stdout: hello\n"), "{text}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(
        options: CaptureOptions,
        journal: Arc<CaptureJournal>,
    ) -> Result<Capture, LogError> {
        let CaptureOptions { name, target, limits, also_stderr, format, line_max, overflow } =
            options;
        let (path, shown) = match target {
            CaptureTarget::Stderr => (None, PathBuf::from("stderr")),
            CaptureTarget::File(path) => (Some(path.clone()), path),
        };
        let failed = |source| LogError::File { path: shown.clone(), found: None, source };
        let record = journal.load().map_err(failed)?;
        let accounts = journal.load_accounts().map_err(failed)?;
        let rest = journal.load_rest(record.rest).map_err(failed)?;
        // What a killed log process was looking at.
        journal.scratch.empty(&mut vec![0; LINE_MAX]).map_err(failed)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        let also_stderr = also_stderr && path.is_some();
        let mut capture = Capture {
            manner: Manner::new(&name, format, line_max.min(LINE_MAX)),
            overflow,
            also_stderr,
            epoll: epoll.map_err(|errno| failed(errno.into()))?,
            feeds: BTreeMap::new(),
            places: Places::open(path, limits)?,
            partials: BTreeSet::new(),
            record,
            accounts,
            dropped: Loss::default(),
            notice_at: Duration::ZERO,
            say_at: Duration::ZERO,
            noted_path: None,
            ended: Vec::new(),
            input: vec![0; SOURCE_MAX + LINE_MAX],
            output: Vec::new(),
            before: String::new(),
            is_draining: false,
            recovery: Recovery::default(),
            compressor: Compressor::default(),
            copy: Copy::default(),
            rest,
            apart: None,
            flight: None,
            is_reopen_due: false,
            told_at: ToldAt::new(),
            after_step: None,
            journal,
        };
        let Totals { dropped_bytes, dropped_lines, .. } = capture.totals();
        capture.dropped = Loss { bytes: dropped_bytes, lines: dropped_lines };
        Ok(capture)
    }

    /// For tests of crashes: called after each step of a batch.
    #[doc(hidden)]
    #[must_use]
    pub fn after_step(self, call: fn(CaptureStep)) -> Capture {
        Capture { after_step: Some(call), ..self }
    }

    /// Adds a source. What is in its pipe already is found too.
    ///
    /// # Errors
    ///
    /// The id is taken, the descriptor is no pipe, or the system refuses to watch it.
    pub fn add(&mut self, source: Source) -> io::Result<()> {
        let Source { id, pipe, kind, path } = source;
        if self.feeds.contains_key(&id) {
            let text = format!("there is a source {id} already");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        if pipes::capacity(&pipe) == 0 {
            let text = format!("source {id} is no pipe");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let slot = self.open_account(id)?;
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll.add(&pipe, EpollEvent::new(events, id))?;
        let place = self.places.enter(path.as_deref());
        let feed = Feed {
            pipe,
            kind,
            place,
            slot,
            after: self.manner.after(kind),
            is_queued: false,
            is_hung: false,
            partial: None,
        };
        self.feeds.insert(id, feed);
        Ok(())
    }

    /// The account of a source: that of an earlier log process, or a new one.
    fn open_account(&mut self, id: u64) -> io::Result<usize> {
        let found = self.accounts.iter().position(|account| account.is_of(id));
        if let Some(slot) = found {
            return Ok(slot);
        }
        let free = self.accounts.iter().position(Account::is_free);
        let slot = free.unwrap_or(self.accounts.len());
        let account = Account::new(id);
        self.journal.store_account(slot, &account)?;
        match self.accounts.get_mut(slot) {
            Some(place) => *place = account,
            None => self.accounts.push(account),
        }
        Ok(slot)
    }

    /// Moves to the files that now have the names: after a rename by logrotate. If one cannot be
    /// opened, the old one stays in use, and stderr says so.
    pub fn reopen(&mut self) {
        // The file that a disk keeps is opened again when it comes back.
        self.is_reopen_due = self.flight.is_some();
        self.places.try_all();
        self.recovery.retry_at = Duration::ZERO;
        let mut failed = Vec::new();
        for (_, file) in self.places.open_files() {
            failed.extend(file.reopen().err());
        }
        for error in failed {
            self.say(&format!("cannot open the log again, the old one stays in use: {error}"));
        }
    }

    /// Rotates all logs that are open. Returns whether the main one was: an empty one is not.
    ///
    /// # Errors
    ///
    /// What the system said of the last log that could not be rotated. It stays in use.
    pub fn rotate_now(&mut self) -> io::Result<bool> {
        let (mut is_rotated, mut result) = (false, Ok(()));
        for (number, file) in self.places.open_files() {
            match file.rotate_now() {
                Ok(rotated) => is_rotated |= rotated && number == MAIN,
                Err(error) => result = Err(error),
            }
        }
        for number in self.places.numbers() {
            self.compress(number);
        }
        result.map(|()| is_rotated)
    }

    /// What became of the bytes of all sources there ever were, over all log processes.
    pub fn totals(&self) -> Totals {
        let mut totals = self.record.ended;
        for account in self.accounts.iter().filter(|account| !account.is_free()) {
            totals.add(account.totals);
        }
        totals
    }

    /// For tests: what became of the bytes of one source, and how many are in its pipe.
    #[doc(hidden)]
    pub fn account(&mut self, id: u64) -> io::Result<Option<(Totals, usize)>> {
        let Some(feed) = self.feeds.get(&id) else { return Ok(None) };
        let mut buffer = vec![0; pipes::capacity(&feed.pipe)];
        let buffered = match pipes::peek(&feed.pipe, &self.journal.scratch, &mut buffer)? {
            pipes::Peek::Bytes(bytes) => bytes,
            pipes::Peek::Empty | pipes::Peek::Ended => 0,
        };
        Ok(Some((self.accounts[feed.slot].totals, buffered)))
    }

    fn passed(&self, step: CaptureStep) {
        if let Some(call) = self.after_step {
            call(step);
        }
    }

    fn compress(&mut self, number: usize) {
        let limits = self.places.limits().clone();
        if let Some(path) = self.places.get(number).and_then(|place| place.path.as_ref()) {
            self.compressor.start(path, limits);
        }
    }
}
