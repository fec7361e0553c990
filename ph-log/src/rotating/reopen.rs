//! Opening what now has the name of a log, while others rotate it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::append::Append;
use super::folder::Folder;
use super::ledger::Hold;
use super::{Cause, RotatingFile, mode};
use crate::file::LogError;

impl RotatingFile {
    /// Opens the file that now has the name, or makes it: after a rename by logrotate, USR1.
    ///
    /// # Errors
    ///
    /// As for [`open`](RotatingFile::open). The file in use stays.
    pub fn reopen(&mut self) -> Result<(), LogError> {
        self.file =
            Append::new(self.open_named(|folder, name| folder.open_log(name, Some(mode())))?);
        Ok(())
    }

    /// A descriptor of the log for a program that writes to it by itself: in append mode, not for
    /// reading, close-on-exec, and of its own open file description.
    ///
    /// # Errors
    ///
    /// As for [`open`](RotatingFile::open).
    pub(crate) fn append_fd(&mut self) -> Result<OwnedFd, LogError> {
        self.open_named(|folder, name| {
            let how = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
            let file = folder.open_regular(name, how, mode())?;
            // O_NONBLOCK guarded the open alone; the program need not see it.
            fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
            Ok(file.into())
        })
    }

    /// Opens the log by its name at a moment at which no rotation has taken the name away.
    fn open_named<T>(
        &mut self,
        open: impl FnOnce(&Folder, &OsStr) -> io::Result<T>,
    ) -> Result<T, LogError> {
        self.leave_parent();
        self.retry_at = Duration::ZERO;
        if self.hold(Hold::Shared) {
            let is_cut_off = self.record().0.retiring != 0;
            self.release();
            if is_cut_off {
                // If the repair fails, the open below says what is wrong.
                drop(self.tend(Cause::Batch(0)));
            }
        }
        let is_held = self.hold(Hold::Shared);
        let opened = open(&self.folder, &self.names.log);
        if is_held {
            self.release();
        }
        opened.map_err(|source| LogError::at(&self.options.path, source))
    }
}
