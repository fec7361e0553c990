//! Who else can write what root is about to obey.
//!
//! A configuration says which program runs as whom, so whoever can write it is root; and so is who
//! can write that program. The rule is that of sudo, cron and logrotate, less strict in two points: a
//! group whose number is that of the owner is the owner's private one, and an owner who is not root is
//! told of apart, because a checkout or a volume of a container often belongs to somebody else on
//! purpose.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

/// Permission bits.
const OTHERS_MAY_WRITE: u32 = 0o002;
const GROUP_MAY_WRITE: u32 = 0o020;
const STICKY: u32 = 0o1000;

/// What becomes of a file that others than root can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignWriters {
    /// Nothing; for whoever is not root.
    Accept,
    /// A warning.
    Warn,
    /// An error.
    Refuse,
}

/// Somebody besides root who can change a file, and why he can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignWriter {
    /// The file, or a folder above it.
    path: PathBuf,
    by: By,
    mode: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Everybody,
    Group(u32),
    /// Whoever may write into the folder may put another file in the place of this one.
    Folder,
    Owner(u32),
}

impl ForeignWriter {
    /// Whether it is only the owner, who may be meant to.
    pub fn is_owner(&self) -> bool {
        matches!(self.by, By::Owner(_))
    }

    /// The command that takes the right away.
    pub fn cure(&self) -> String {
        let path = self.path.display();
        match self.by {
            By::Everybody => format!("chmod o-w {path}"),
            By::Group(_) => format!("chmod g-w {path}"),
            By::Folder => format!("chmod o-w {path} (or +t, as /tmp has it)"),
            By::Owner(_) => format!("chown root {path}"),
        }
    }
}

impl fmt::Display for ForeignWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.by {
            By::Everybody => write!(f, "everybody may write {path}"),
            By::Group(group) => write!(f, "group {group} may write {path}"),
            By::Folder => write!(f, "everybody may put files in the place of others in {path}"),
            By::Owner(user) => write!(f, "user {user} owns {path}"),
        }?;
        write!(f, " (mode {:04o})", self.mode)
    }
}

/// Who besides root can change the file at this path: itself, or what its path leads to, by the way
/// the path is written or by the one that its links make of it. `None` if nobody, or if it is not
/// there.
pub fn foreign_writer(path: &Path) -> Option<ForeignWriter> {
    let real = path.canonicalize().ok()?;
    let file = real.metadata().ok()?;
    let of_file = writer(file.mode(), file.uid(), file.gid()).filter(|_| !is_read_only(&real));
    let of_folder = || {
        let mut above = real.ancestors().skip(1).chain(path.ancestors().skip(1));
        above.find(|folder| {
            folder.metadata().is_ok_and(|it| is_open(it.mode())) && !is_read_only(folder)
        })
    };
    let (path, by, metadata) = if let Some(by) = of_file {
        (real.as_path(), by, file)
    } else if let Some(folder) = of_folder() {
        (folder, By::Folder, folder.metadata().ok()?)
    } else if file.uid() != 0 {
        (real.as_path(), By::Owner(file.uid()), file)
    } else {
        return None;
    };
    Some(ForeignWriter { path: path.to_owned(), by, mode: mode(&metadata) })
}

/// Whether nobody can write there, whatever the modes say: as in a volume of a container.
fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|it| it.flags().contains(FsFlags::ST_RDONLY))
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o7777
}

/// Root's group is root. A group with the number of the owner is the owner's own, as most systems give
/// one to each user.
fn writer(mode: u32, uid: u32, gid: u32) -> Option<By> {
    if mode & OTHERS_MAY_WRITE != 0 {
        return Some(By::Everybody);
    }
    let is_others = mode & GROUP_MAY_WRITE != 0 && gid != 0 && gid != uid;
    is_others.then_some(By::Group(gid))
}

/// Where the sticky bit is set, files are replaced by their owners only.
fn is_open(mode: u32) -> bool {
    mode & OTHERS_MAY_WRITE != 0 && mode & STICKY == 0
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn modes_tell_who_may_write() {
        for (mode, uid, gid, wanted) in [
            (0o755, 0, 0, None),
            (0o775, 0, 0, None),
            (0o775, 1000, 1000, None),
            (0o775, 1000, 0, None),
            (0o775, 0, 50, Some(By::Group(50))),
            (0o775, 1000, 50, Some(By::Group(50))),
            (0o757, 1000, 1000, Some(By::Everybody)),
            (0o777, 0, 50, Some(By::Everybody)),
        ] {
            assert_eq!(writer(mode, uid, gid), wanted, "{mode:o} {uid} {gid}");
        }
        assert!(is_open(0o777) && !is_open(0o1777) && !is_open(0o775));
    }

    #[test]
    fn a_file_is_as_safe_as_the_folders_above_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
        };
        let by = |path: &Path| foreign_writer(path).map(|it| it.by);
        let (below, link) = (folder.path().join("a"), folder.path().join("link"));
        let file = below.join("program");
        std::fs::create_dir(&below).expect("a folder");
        std::fs::write(&file, "").expect("a file");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        set(&below, 0o755);
        set(&file, 0o755);
        // Whoever runs this test owns the file.
        let owner = file.metadata().expect("it is there").uid();
        let safe = (owner != 0).then_some(By::Owner(owner));
        assert_eq!(by(&file), safe);
        set(&below, 0o1777);
        assert_eq!(by(&file), safe);
        set(&below, 0o777);
        for path in [&file, &link] {
            let found = foreign_writer(path).expect("the folder is open");
            assert_eq!((found.by, found.path.ends_with("a")), (By::Folder, true));
        }
        set(&below, 0o755);
        set(folder.path(), 0o777);
        assert_eq!(by(&file), Some(By::Folder));
        set(folder.path(), 0o700);
        set(&file, 0o722);
        let text = foreign_writer(&file).expect("everybody may write it").to_string();
        assert!(text.starts_with("everybody") && text.ends_with("(mode 0722)"), "{text}");
        assert_eq!(by(&folder.path().join("missing")), None);
    }
}
