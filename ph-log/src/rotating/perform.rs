//! The steps of a rotation as they are done, and what is done about one that was cut off.
//!
//! Everything here happens under the exclusive lock. A rotator may die after any step:
//!
//! | it died | what is there | what the next one does |
//! |---|---|---|
//! | before `Declare` | a new file under a name of its own | makes it anew |
//! | before `Retire` | the log is the declared file; a gap among the backups | strikes out the declaration; the limits decide again |
//! | before `Install` | no log; the declared file is backup 1 | installs a new one |
//! | before `Settle` | another log than the declared file | writes down that it is over |

use std::fs::File;
use std::io;

use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode};

use super::folder::Folder;
use super::ledger::{Ledger, Record};
use super::{RotateOptions, now};
use crate::rotate::{Backup, Names, REPAIR, ROTATION, Step, moves, twins};

/// A rotation in the folder of a log, for as long as the exclusive lock is held.
pub(super) struct Rotation<'a> {
    pub(super) folder: &'a Folder,
    pub(super) names: &'a Names,
    pub(super) ledger: &'a Ledger,
    pub(super) options: &'a RotateOptions,
}

/// What the steps need to know.
struct Course {
    record: Record,
    /// Whose owner and mode the new log gets.
    model: Option<FileStat>,
    /// A backup that could not be deleted; the rotation goes on without that.
    unpruned: Option<io::Error>,
}

impl Rotation<'_> {
    /// Rotates the log. An error means that it is as it was, or that the next repair is due; the
    /// error of a success is that of a backup that could not be deleted.
    pub(super) fn rotate(&self, log: &FileStat) -> io::Result<Option<io::Error>> {
        let began = self.ledger.record().0.began;
        let next = self.options.limits.next_began(began, now());
        let record = Record { began, next, retiring: log.st_ino };
        let mut course = Course { record, model: Some(*log), unpruned: None };
        match self.run(ROTATION, &mut course) {
            Ok(()) => Ok(course.unpruned),
            Err(error) => {
                // What could not be taken back now is repaired by whoever writes next.
                drop(self.repair());
                drop(self.folder.delete(&self.names.fresh));
                Err(error)
            }
        }
    }

    /// Ends a rotation whose process died, one way or the other.
    pub(super) fn repair(&self) -> io::Result<()> {
        let (record, _) = self.ledger.record();
        if record.retiring == 0 {
            return Ok(());
        }
        let mut course = Course { record, model: None, unpruned: None };
        match self.folder.look(&self.names.log)? {
            Some(log) if log.st_ino == record.retiring => {
                self.ledger.enter(Record { began: record.began, ..Record::default() })
            }
            Some(_) => self.run(&[Step::Prune, Step::Settle], &mut course),
            None => {
                course.model = self.retired(record.retiring)?;
                self.run(REPAIR, &mut course)
            }
        }
    }

    fn retired(&self, inode: u64) -> io::Result<Option<FileStat>> {
        let stat = self.folder.look(&self.names.backup(Backup::FIRST))?;
        Ok(stat.filter(|stat| stat.st_ino == inode))
    }

    fn run(&self, steps: &[Step], course: &mut Course) -> io::Result<()> {
        for &step in steps {
            self.take(step, course)?;
            self.options.passed(step);
        }
        Ok(())
    }

    fn take(&self, step: Step, course: &mut Course) -> io::Result<()> {
        let Rotation { folder, names, ledger, .. } = *self;
        let Record { next, .. } = course.record;
        match step {
            Step::Make => match &course.model {
                Some(model) => folder.make_alike(&names.fresh, model),
                // Nobody knows the old log any more.
                None => self.make_new().map(drop),
            },
            Step::Declare => ledger.enter(course.record),
            Step::Shift => self.shift(),
            Step::Retire => folder
                .rename_to_free(&names.log, &names.backup(Backup::FIRST))
                .map_err(|error| named(&error, names, Backup::FIRST)),
            Step::Install => match folder.rename_to_free(&names.fresh, &names.log) {
                // Somebody who does not know the lock has made it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    folder.delete(&names.fresh)
                }
                result => result,
            },
            Step::Prune => {
                course.unpruned = self.prune().err();
                Ok(())
            }
            Step::Settle => ledger.enter(Record { began: next, ..Record::default() }),
        }
    }

    fn make_new(&self) -> io::Result<File> {
        let Rotation { folder, names, .. } = *self;
        folder.delete(&names.fresh)?;
        let how = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        folder.open_regular(&names.fresh, how, Mode::from_bits_truncate(crate::file::MODE))
    }

    fn shift(&self) -> io::Result<()> {
        let Rotation { folder, names, .. } = *self;
        for twin in twins(&folder.backups(names)?) {
            folder.delete(&names.backup(twin)).map_err(|error| named(&error, names, twin))?;
        }
        let moves = moves(&folder.backups(names)?).map_err(|foreign| {
            let error = io::Error::other("it is no regular file, and a backup is in its place");
            named(&error, names, foreign)
        })?;
        for (from, to) in moves {
            folder
                .rename_to_free(&names.backup(from), &names.backup(to))
                .map_err(|error| named(&error, names, from))?;
            self.options.passed(Step::Shift);
        }
        Ok(())
    }

    fn prune(&self) -> io::Result<()> {
        let Rotation { folder, names, .. } = *self;
        let found = folder.backups(names)?;
        let mut result = Ok(());
        for backup in self.options.limits.surplus(&found, now()) {
            let deleted = folder.delete(&names.backup(backup));
            result = result.and(deleted.map_err(|error| named(&error, names, backup)));
        }
        result
    }
}

fn named(error: &io::Error, names: &Names, backup: Backup) -> io::Error {
    io::Error::new(error.kind(), format!("{:?}: {error}", names.backup(backup)))
}
