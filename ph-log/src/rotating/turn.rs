//! One write: what is looked at, and under which lock, before the lines go out.
//!
//! Nothing is rotated or deleted while the lock is held shared, so a look at the name is good until
//! the write is over. Where the lock cannot be had, because it is kept by a process that was stopped
//! or because there is none, the name is looked at all the same and the lines go to the file that
//! has it. Even who holds the lock may be overtaken: if he is stopped in the middle and somebody
//! deletes the companion, others hold another one. Therefore a turn that took long begins with
//! another look, and who then finds that his file was deleted writes once more if that was before
//! his lines were in it, and counts them as lost if nobody can know.

use std::io;
use std::time::Duration;

use nix::sys::stat::FileStat;

use super::append::Append;
use super::folder::FileId;
use super::ledger::{Hold, Record};
use super::perform::Rotation;
use super::{RotatingFile, mode, now};
use crate::output::{lines_in, monotonic};
use crate::rotate::{Decision, Moment};

/// How often a write starts over because there is something to do first.
const ROUNDS: u32 = 8;

/// How often the name is looked up because another file has it by the time it was opened.
const LOOKS: u32 = 8;

/// Within so short a time nobody rotates twice, compresses and deletes.
const SOON: Duration = Duration::from_millis(1);

/// What is to be done with the lines at hand, by a look under the shared lock.
enum Turn {
    /// To be written, to the file in use. `is_named`: it was seen under the log's name, at a moment
    /// not before `at`.
    Write { is_named: bool, at: Duration },
    /// Somebody waits for the exclusive lock.
    GiveWay,
    /// Something is due that takes the exclusive lock.
    Tend,
}

/// Why the exclusive lock is taken.
#[derive(Clone, Copy)]
pub(super) enum Cause {
    /// So many bytes are about to be written.
    Batch(u64),
    Asked,
}

impl RotatingFile {
    pub(super) fn write_piece(&mut self, piece: &[u8]) {
        let batch = piece.len() as u64;
        let mut has_given_way = false;
        for round in 1..=ROUNDS {
            if !self.hold(Hold::Shared) {
                break;
            }
            let turn = self.look(batch, has_given_way);
            if let Turn::Write { is_named, at } = turn {
                self.put(piece, is_named, Some(at));
                self.release();
                return;
            }
            self.release();
            if matches!(turn, Turn::Tend) {
                if self.tend_and_put(piece, round == ROUNDS) {
                    return;
                }
            } else if let Some(ledger) = &self.ledger {
                ledger.give_way();
                has_given_way = true;
            }
        }
        self.put_alone(piece);
    }

    /// Looks at everything a writer must know, and follows to the file that has the name.
    fn look(&mut self, batch: u64, has_given_way: bool) -> Turn {
        let (record, waiting) = self.record();
        let now = monotonic();
        let is_due = now >= self.retry_at;
        if waiting.is_on(now) && !has_given_way {
            return Turn::GiveWay;
        }
        if record.retiring != 0 && is_due {
            return Turn::Tend;
        }
        let Some(stat) = self.find() else { return Turn::Write { is_named: false, at: now } };
        match self.options.limits.decide(moment(&stat, record, batch)) {
            Decision::Begin | Decision::Rotate if is_due => Turn::Tend,
            Decision::Stay | Decision::Begin | Decision::Rotate => {
                Turn::Write { is_named: true, at: now }
            }
        }
    }

    /// Looks up the name and follows to the file that has it. Returns what is known of the file, if
    /// it is the one in use by then.
    pub(super) fn find(&mut self) -> Option<FileStat> {
        for _ in 0..LOOKS {
            let is_there = match self.folder.look(&self.names.log) {
                Ok(Some(stat)) if FileId::of(&stat) == self.file.id => return Some(stat),
                Ok(found) => found.is_some(),
                Err(error) => {
                    self.fail("find the log", error);
                    return None;
                }
            };
            // Renamed by hand: lines go into the renamed file until the reopen.
            if !is_there && !self.file.is_deleted() {
                return None;
            }
            match self.folder.open_log(&self.names.log, (!is_there).then(mode)) {
                Ok(opened) => self.file = Append::new(opened),
                // It was renamed since.
                Err(error) if is_there && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.fail("open the log", error);
                    return None;
                }
            }
        }
        None
    }

    /// Does what is due under the exclusive lock, and writes the lines under it as well, lest
    /// others fill the new log first. Returns whether they are dealt with: they are not if the lock
    /// cannot be had, or if somebody else has rotated meanwhile and this is not the last time.
    fn tend_and_put(&mut self, piece: &[u8], is_last: bool) -> bool {
        let Some(is_held) = self.hold_unless(Hold::Exclusive, !is_last) else { return false };
        let result = match is_held {
            true => self.tend_held(Cause::Batch(piece.len() as u64)).map(drop),
            false => Err(not_held()),
        };
        if let Err(error) = result {
            self.fail("rotate the log", error);
        }
        if is_held {
            let at = monotonic();
            let is_named = self.find().is_some();
            self.put(piece, is_named, Some(at));
            self.release();
        }
        is_held
    }

    /// Does what takes the exclusive lock, if it is still due under it. Returns whether the log
    /// was rotated.
    pub(super) fn tend(&mut self, cause: Cause) -> io::Result<bool> {
        if !self.hold(Hold::Exclusive) {
            return Err(not_held());
        }
        let result = self.tend_held(cause);
        self.release();
        result
    }

    pub(super) fn tend_held(&mut self, cause: Cause) -> io::Result<bool> {
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
                options.limits.decide(moment(&stat, ledger.record().0, batch))
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

    /// Writes without the lock.
    fn put_alone(&mut self, piece: &[u8]) {
        let is_named = self.find().is_some();
        self.put(piece, is_named, None);
    }

    /// Writes, by what was seen at a moment under the lock, or without one.
    fn put(&mut self, piece: &[u8], mut is_named: bool, seen_at: Option<Duration>) {
        if piece.is_empty() {
            return;
        }
        let began_at = monotonic();
        if seen_at.is_some_and(|at| began_at.saturating_sub(at) >= SOON) {
            is_named = self.find().is_some();
        }
        if !self.put_once(piece, is_named) {
            return;
        }
        let is_soon = monotonic().saturating_sub(began_at) < SOON;
        if (is_soon && seen_at.is_some()) || !self.file.is_deleted() {
            return;
        }
        if is_soon {
            let is_named = self.find().is_some();
            self.put_once(piece, is_named);
        } else {
            let text = "the log was deleted, and nobody knows whether they were in it";
            self.account.lose(lines_in(piece), io::Error::other(text));
        }
    }

    fn put_once(&mut self, piece: &[u8], is_named: bool) -> bool {
        let failure = match !is_named && self.file.is_deleted() {
            true => Err((piece.len(), io::Error::other("the log was deleted"))),
            false => self.file.put(piece),
        };
        let Err((bytes, error)) = failure else { return true };
        self.account.lose(lines_in(&piece[piece.len() - bytes..]), error);
        false
    }
}

fn not_held() -> io::Error {
    let text = "another process holds its lock, or there is none";
    io::Error::new(io::ErrorKind::WouldBlock, text)
}

fn moment(log: &FileStat, record: Record, batch: u64) -> Moment {
    let size = u64::try_from(log.st_size).unwrap_or(0);
    Moment { size, began: record.began, now: now(), batch }
}
