//! Folders: whether a file could be made in one, found out without a trace.

use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access};

/// Sees whether this process could make a file in a folder: by making one without a name, which is gone
/// when it is closed, so that a full or read-only file system is found out too. Where the file system
/// has no such files, the folder's rights have to do.
pub(crate) fn takes_files(folder: &Path) -> nix::Result<()> {
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match open(folder, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(_) => Ok(()),
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => {
            access(folder, AccessFlags::W_OK | AccessFlags::X_OK)
        }
        Err(errno) => Err(errno),
    }
}

/// The folder a file is in.
pub(crate) fn of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        takes_files(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(takes_files(&folder.path().join("missing")), Err(Errno::ENOENT));
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(takes_files(&folder.path().join("file")), Err(Errno::ENOTDIR));
        assert!(takes_files(Path::new("/proc/self")).is_err());
    }

    #[test]
    fn a_bare_name_is_in_the_current_folder() {
        assert_eq!(of(Path::new("a")), Path::new("."));
        assert_eq!(of(Path::new("/a/b")), Path::new("/a"));
    }
}
