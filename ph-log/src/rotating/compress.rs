//! Compressing a backup, away from whoever writes.
//!
//! The compressed file grows under a name of its own, which is locked against a second compressor
//! and made anew if its maker died. It gets its backup's name when it is whole and on the disk;
//! only then is the uncompressed one deleted. Both may therefore be there for a while, or after a
//! crash; the next rotation (`rotate::twins`) or the next job deletes the uncompressed one.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _};

use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};

use super::folder::{FileId, Folder, permissions};
use super::ledger::{Hold, Ledger};
use super::packing::{open_backup, pack};
use super::size_limit;
use crate::rotate::{Backup, Names, Packing};

const CHUNK: usize = 64 << 10;

/// One backup to compress. It needs no file of its [`RotatingFile`](crate::RotatingFile), so it
/// can be taken to another thread; a process forked for it is as good.
#[derive(Debug)]
pub struct CompressionJob {
    pub(super) folder: Folder,
    pub(super) names: Names,
    pub(crate) backup: Backup,
    pub(super) packing: Packing,
}

/// An uncompressed backup, and how long it was when it was read.
struct Source {
    file: File,
    stat: FileStat,
    length: u64,
}

impl CompressionJob {
    /// Which file it is about, if that is still there.
    pub(crate) fn file(&self) -> io::Result<Option<FileId>> {
        self.id(self.backup)
    }

    /// Compresses the backup and deletes the uncompressed one. Takes about a second for 50 MB.
    /// Returns without having done anything if the backup is gone, has grown meanwhile, or if
    /// another process compresses already.
    ///
    /// # Errors
    ///
    /// The system's, such as a full disk. The uncompressed backup is still there then. To be tried
    /// again later, not at once.
    pub fn run(self) -> io::Result<()> {
        let name = self.names.backup(self.backup);
        let file = match self.folder.open_regular(&name, OFlag::O_RDONLY, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let stat = fstat(&file)?;
        let mut source = Source { file, stat, length: 0 };
        let packed = match self.twin()? {
            Some((twin, packed)) => {
                if !self.is_same(&mut source, twin)? {
                    let name = self.names.backup(twin);
                    let text = format!("{name:?} is there already and holds something else");
                    return Err(io::Error::other(text));
                }
                Some(packed)
            }
            None => self.pack(&mut source)?,
        };
        let Some(packed) = packed else { return Ok(()) };
        self.folder.sync()?;
        self.under_lock(
            |found| {
                let mut is_packed = false;
                for packing in Packing::ALL {
                    is_packed |= self.id(found.packed(packing))? == Some(packed);
                }
                match is_packed && self.is_still(&source, found)? {
                    true => self.folder.delete(&self.names.backup(found)),
                    false => Ok(()),
                }
            },
            &source,
        )
    }

    /// The compressed form that is there already, whichever.
    fn twin(&self) -> io::Result<Option<(Backup, FileId)>> {
        for packing in Packing::ALL {
            let twin = self.backup.packed(packing);
            if let Some(id) = self.id(twin)? {
                return Ok(Some((twin, id)));
            }
        }
        Ok(None)
    }

    /// Writes the compressed file and gives it the backup's name, whatever its number is by then.
    fn pack(&self, source: &mut Source) -> io::Result<Option<FileId>> {
        let Some(target) = self.lock_target()? else { return Ok(None) };
        target.set_len(0)?;
        source.length = size_limit::guard(|| pack(&source.file, &target, self.packing))?;
        std::os::unix::fs::fchown(&target, Some(source.stat.st_uid), Some(source.stat.st_gid))?;
        fchmod(&target, permissions(&source.stat))?;
        // Age counts from the last line; and by their equal times the two are known as one.
        target.set_modified(source.file.metadata()?.modified()?)?;
        target.sync_all()?;
        let mut is_named = false;
        self.under_lock(
            |found| {
                if self.is_still(source, found)? {
                    let name = self.names.backup(found.packed(self.packing));
                    self.folder.rename_to_free(&self.names.packing, &name)?;
                    is_named = true;
                }
                Ok(())
            },
            source,
        )?;
        if !is_named {
            self.folder.delete(&self.names.packing)?;
            return Ok(None);
        }
        Ok(Some(FileId::of(&fstat(&target)?)))
    }

    /// The file to compress into, unless another process is at it.
    fn lock_target(&self) -> io::Result<Option<File>> {
        let how = OFlag::O_RDWR | OFlag::O_CREAT;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = self.folder.open_regular(&self.names.packing, how, mode)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => {}
        }
        // Between the open and the lock it may have become somebody's finished backup.
        let id = FileId::of(&fstat(&file)?);
        let now = self.folder.look(&self.names.packing)?;
        Ok(now.is_some_and(|stat| FileId::of(&stat) == id).then_some(file))
    }

    /// Does something with the backup under the exclusive lock, under the number it has now.
    fn under_lock(
        &self,
        mut act: impl FnMut(Backup) -> io::Result<()>,
        source: &Source,
    ) -> io::Result<()> {
        let mut ledger = Ledger::open(&self.folder, &self.names)?;
        if !ledger.hold(Hold::Exclusive) || !ledger.is_named(&self.folder, &self.names.ledger) {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "the log's lock is held, or was moved",
            ));
        }
        let id = FileId::of(&source.stat);
        for found in self.folder.backups(&self.names)? {
            if !found.backup.is_packed() && self.id(found.backup)? == Some(id) {
                return act(found.backup);
            }
        }
        Ok(())
    }

    fn id(&self, backup: Backup) -> io::Result<Option<FileId>> {
        let stat = self.folder.look(&self.names.backup(backup))?;
        Ok(stat.map(|stat| FileId::of(&stat)))
    }

    /// Whether the backup is as long as what was compressed of it.
    fn is_still(&self, source: &Source, backup: Backup) -> io::Result<bool> {
        let stat = self.folder.look(&self.names.backup(backup))?;
        Ok(stat.is_some_and(|stat| u64::try_from(stat.st_size) == Ok(source.length)))
    }

    /// Whether a compressed file holds the bytes of the backup.
    fn is_same(&self, source: &mut Source, packed: Backup) -> io::Result<bool> {
        let Ok(mut unpacked) = open_backup(&self.folder, &self.names, packed) else {
            return Ok(false);
        };
        let (mut ours, mut theirs) = (vec![0; CHUNK], vec![0; CHUNK]);
        loop {
            let length = source.file.read(&mut ours)?;
            if length == 0 {
                // An error at the end is a file that was cut off.
                return Ok(matches!(unpacked.read(&mut theirs), Ok(0)));
            }
            source.length += length as u64;
            let is_same = unpacked.read_exact(&mut theirs[..length]).is_ok();
            if !is_same || ours[..length] != theirs[..length] {
                return Ok(false);
            }
        }
    }
}
