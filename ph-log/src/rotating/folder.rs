//! The folder of a log, held by a descriptor, and the few things done in it.
//!
//! Whoever may rename the folder or put a link in its place gains nothing: every name is looked up
//! in the folder that was opened at the start. No symbolic link is followed, and a log is a
//! regular file with one name only, so that no line lands in a file somebody linked here.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{self, AtFlags, FcntlArg, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{AccessFlags, UnlinkatFlags, unlinkat};

use crate::rotate::{Found, Names};

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    handle: OwnedFd,
    path: PathBuf,
}

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl FileId {
    pub(crate) fn of(stat: &FileStat) -> FileId {
        FileId { device: stat.st_dev, inode: stat.st_ino }
    }
}

impl Folder {
    /// Opens the folder a log of this path is in.
    pub(crate) fn of(log: &Path) -> io::Result<Folder> {
        let parent = log.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let folder = Folder::open(parent, OFlag::empty())?;
        // The process may be elsewhere when the folder is to be opened again.
        Ok(Folder { path: std::path::absolute(parent)?, ..folder })
    }

    fn open(path: &Path, more: OFlag) -> io::Result<Folder> {
        // A path descriptor needs no right to list the folder.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | more;
        let handle = fcntl::open(path, flags, Mode::empty())?;
        Ok(Folder { handle: above_standard(handle)?, path: path.to_owned() })
    }

    /// The same folder under a descriptor of its own.
    pub(crate) fn try_clone(&self) -> io::Result<Folder> {
        Ok(Folder { handle: self.handle.try_clone()?, path: self.path.clone() })
    }

    /// A path that leads to this very folder, for calls that take no descriptor.
    pub(crate) fn proc_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.handle.as_raw_fd()).into()
    }

    /// Takes the folder that now has the path, if this one was deleted. Its owner must be the
    /// same, and it must not be reached by a link: deleting a folder is no way to choose another.
    pub(crate) fn reopen_if_deleted(&mut self) -> io::Result<bool> {
        let old = fstat(&self.handle)?;
        if old.st_nlink > 0 {
            return Ok(false);
        }
        let new = Folder::open(&self.path, OFlag::O_NOFOLLOW)?;
        if fstat(&new.handle)?.st_uid != old.st_uid {
            return Err(io::Error::other("the folder was replaced by another user's"));
        }
        *self = new;
        Ok(true)
    }

    /// The path it was opened by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether names can be made and taken away in it, by the rights of this process.
    pub(crate) fn is_open_to_changes(&self) -> Result<(), Errno> {
        let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
        nix::unistd::faccessat(&self.handle, ".", wanted, AtFlags::AT_EACCESS)
    }

    /// What the folder itself is.
    pub(crate) fn stat(&self) -> io::Result<FileStat> {
        Ok(fstat(&self.handle)?)
    }

    /// What has this name; a link is a link.
    pub(crate) fn look(&self, name: &OsStr) -> io::Result<Option<FileStat>> {
        match fstatat(&self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a log for appending, and for reading if that is allowed.
    pub(crate) fn open_log(&self, name: &OsStr, make: Option<Mode>) -> io::Result<(File, FileId)> {
        let create = if make.is_some() { OFlag::O_CREAT } else { OFlag::empty() };
        let mode = make.unwrap_or(Mode::empty());
        let append = create | OFlag::O_APPEND;
        let opened = match self.open_regular(name, append | OFlag::O_RDWR, mode) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.open_regular(name, append | OFlag::O_WRONLY, mode)
            }
            opened => opened,
        };
        let file = opened?;
        // O_NONBLOCK guarded the open alone.
        fcntl::fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        let stat = fstat(&file)?;
        Ok((file, FileId::of(&stat)))
    }

    /// Opens a regular file with one name, close-on-exec and above the standard descriptors.
    pub(crate) fn open_regular(&self, name: &OsStr, how: OFlag, mode: Mode) -> io::Result<File> {
        let guards = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = fcntl::openat(&self.handle, name, how | guards, mode)?;
        let stat = fstat(&file)?;
        if !is_regular(&stat) {
            return Err(io::Error::other("it is no regular file, and a log must be one"));
        }
        if stat.st_nlink > 1 {
            let text = "it has more than one name (hard links), and a log must have one";
            return Err(io::Error::other(text));
        }
        Ok(File::from(above_standard(file)?))
    }

    /// Makes an empty file with the owner and the mode of another one. What had the name, from a
    /// rotation that was cut off, is deleted first.
    pub(crate) fn make_alike(&self, name: &OsStr, model: &FileStat) -> io::Result<()> {
        self.delete(name)?;
        let how = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let file = self.open_regular(name, how, Mode::empty())?;
        let made = fstat(&file)?;
        let made_all = || -> io::Result<()> {
            if (made.st_uid, made.st_gid) != (model.st_uid, model.st_gid) {
                std::os::unix::fs::fchown(&file, Some(model.st_uid), Some(model.st_gid))?;
            }
            Ok(fchmod(&file, permissions(model))?)
        };
        made_all().inspect_err(|_| drop(self.delete(name)))
    }

    /// Gives a file a name that nothing has yet.
    pub(crate) fn rename_to_free(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        #[cfg(target_env = "gnu")]
        match fcntl::renameat2(
            &self.handle,
            from,
            &self.handle,
            to,
            fcntl::RenameFlags::RENAME_NOREPLACE,
        ) {
            // Some file systems do not know the flag.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
            result => return Ok(result?),
        }
        // Whoever keeps to the lock cannot take the name between the look and the move.
        match self.look(to)? {
            Some(_) => Err(Errno::EEXIST.into()),
            None => self.rename(from, to),
        }
    }

    /// Gives a file a name and takes it from what had it.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(fcntl::renameat(&self.handle, from, &self.handle, to)?)
    }

    /// Deletes a file, if it is there.
    pub(crate) fn delete(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            result => Ok(result?),
        }
    }

    /// The backups that are there.
    pub(crate) fn backups(&self, names: &Names) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in self.list()?.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let Some(backup) = names.parse(name) else { continue };
            if let Some(stat) = self.look(name)? {
                let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
                let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
                let modified = Duration::new(seconds, nanos);
                let (is_regular, is_linked) = (is_regular(&stat), stat.st_nlink > 1);
                found.push(Found { backup, modified, is_regular, is_linked });
            }
        }
        Ok(found)
    }

    /// Waits until the names in the folder are on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(self.list()?)?)
    }

    fn list(&self) -> io::Result<Dir> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Dir::openat(&self.handle, ".", flags, Mode::empty())?)
    }
}

/// Who may read and write it. A log is no program, so nothing else of its mode is copied.
pub(crate) fn permissions(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode) & (Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO)
}

pub(crate) fn is_regular(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

/// A process whose stderr is closed must not find its log there.
fn above_standard(handle: OwnedFd) -> io::Result<OwnedFd> {
    match handle.as_raw_fd() {
        // A clone is made above the standard descriptors.
        0..=2 => handle.as_fd().try_clone_to_owned(),
        _ => Ok(handle),
    }
}

/// The name of a log within its folder.
pub(crate) fn name_of(log: &Path) -> io::Result<OsString> {
    let name = log.file_name().ok_or_else(|| io::Error::from(Errno::EISDIR))?;
    Ok(name.to_owned())
}
