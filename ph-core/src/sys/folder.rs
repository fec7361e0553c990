//! Folders: whether a file could be made or replaced in one, found out without a trace.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access, geteuid};

/// Sees whether this process could make a file in a folder: by making one without a name, which is gone
/// when it is closed, so that a read-only file system, or one without a free inode, is found out too.
/// Where the file system has no such files, the folder's rights have to do.
pub(crate) fn takes_files(folder: &Path) -> nix::Result<()> {
    try_file(folder, &[]).map(drop)
}

/// The same of some files at once, and whether there is room for something in them.
pub(crate) fn takes_data(folder: &Path, files: usize) -> nix::Result<()> {
    // A write beyond this limit would end the process by a signal.
    if getrlimit(Resource::RLIMIT_FSIZE)?.0 == 0 {
        return Err(Errno::EFBIG);
    }
    (0..files).map(|_| try_file(folder, b"1")).collect::<nix::Result<Vec<_>>>().map(drop)
}

/// Gives the file, which lives until that is dropped.
fn try_file(folder: &Path, content: &[u8]) -> nix::Result<Option<OwnedFd>> {
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match open(folder, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(file) => {
            if !content.is_empty() {
                nix::unistd::write(&file, content)?;
            }
            Ok(Some(file))
        }
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => {
            access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map(|()| None)
        }
        Err(errno) => Err(errno),
    }
}

/// Sees that a file that is there may be removed or replaced: in a sticky folder by its owner and the
/// folder's only. That the folder may be written at all is for others to see.
pub(crate) fn see_removable(path: &Path) -> io::Result<()> {
    let folder = std::fs::metadata(of(path))?;
    let own = geteuid();
    let owners = [folder.uid(), std::fs::symlink_metadata(path)?.uid()];
    if folder.mode() & libc::S_ISVTX == 0 || own.is_root() || owners.contains(&own.as_raw()) {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(libc::EPERM))
}

/// Whether something is mounted on a file, which then cannot be replaced.
pub(crate) fn is_mount_point(path: &Path) -> bool {
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let place = place(path);
    let place = place.as_os_str().as_bytes();
    mounts.split(|byte| *byte == b'\n').any(|line| {
        line.split(|byte| *byte == b' ').nth(4).is_some_and(|point| unescaped(point) == place)
    })
}

/// The kernel writes a blank in a path as `\040`, and so some other bytes.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut rest = text;
    let mut whole = Vec::new();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped.filter(|_| byte == b'\\') {
            Some(escaped) => {
                whole.push(escaped);
                rest = &tail[3..];
            }
            None => {
                whole.push(byte);
                rest = tail;
            }
        }
    }
    whole
}

/// The folder a file is in.
pub(crate) fn of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// A file by the real path of its folder, whatever links led there; the file itself need not be there.
pub(crate) fn place(path: &Path) -> PathBuf {
    match (of(path).canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let two_files = |folder: &Path| takes_data(folder, 2);
        for tried in [&takes_files as &dyn Fn(&Path) -> _, &two_files] {
            tried(folder.path()).unwrap();
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
            assert_eq!(tried(&folder.path().join("missing")), Err(Errno::ENOENT));
            std::fs::write(folder.path().join("file"), "").unwrap();
            assert_eq!(tried(&folder.path().join("file")), Err(Errno::ENOTDIR));
            assert!(tried(Path::new("/proc/self")).is_err());
            std::fs::remove_file(folder.path().join("file")).unwrap();
        }
    }

    #[test]
    fn a_bare_name_is_in_the_current_folder() {
        assert_eq!(of(Path::new("a")), Path::new("."));
        assert_eq!(of(Path::new("/a/b")), Path::new("/a"));
    }

    #[test]
    fn a_link_to_a_folder_leads_to_the_same_place() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        let of = |name: &str| place(&folder.path().join(name).join("file"));
        assert_eq!(of("real"), of("link"));
        assert_ne!(of("real"), of("missing"));
    }

    #[test]
    fn mount_points_are_known_and_their_names_read_as_they_are_meant() {
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(Path::new("/proc/self")));
        assert_eq!(unescaped(br"/a\040b\134"), br"/a b\");
        assert_eq!(unescaped(br"/a\b"), br"/a\b");
    }
}
