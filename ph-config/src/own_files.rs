//! The files a service takes for itself, and how to tell that two paths lead to one file.
//!
//! [`Settings::own_files`] is the only list of them. A master makes, replaces or deletes each of
//! these without asking, so none may be another of them, or a file that somebody needs. How the lock
//! and the pidfiles of instances are named is the rule of `ph_core::Pidfile`.
//!
//! [`Whereabouts`] compares files that may not be there yet, and whose last name is never followed if
//! it is a link: by their folder, as the system knows it, and their name in it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::settings::Settings;
use crate::value::{Bind, ControlTarget, LogTarget};

/// The most masters of one section that may run side by side, each with files of its own.
const MAX_INSTANCES: u32 = 1024;

/// A file that a service takes for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFile {
    /// What it is to the service: `log file`.
    pub what: &'static str,
    /// The key whose value names it.
    pub key: &'static str,
    /// Where it is, absolute.
    pub path: PathBuf,
}

impl Settings {
    /// The files the service takes for itself, of its first instance. The pidfile is the first, and
    /// those that go with it come last.
    pub fn own_files(&self) -> Vec<OwnFile> {
        let file = |what, key, path: &Path| OwnFile { what, key, path: path.to_owned() };
        let mut files = vec![file("pidfile", "pidfile", &self.pidfile)];
        if let LogTarget::File(path) = &self.log_file {
            files.push(file("log file", "log_file", path));
        }
        // Workers may share the log; a path that is another for each of them is as it was written.
        let of_workers = self.worker_log_file.iter();
        let is_log = |path: &&PathBuf| self.log_file == LogTarget::File((*path).clone());
        let of_workers = of_workers.filter(|path| !is_log(path));
        files.extend(of_workers.map(|path| file("workers' log file", "worker_log_file", path)));
        files.extend(self.unix_socket.iter().map(|path| file("socket", "unix_socket", path)));
        files.extend(self.bind.iter().filter_map(|bind| match bind {
            Bind::Unix(path) => Some(file("socket", "bind", path)),
            Bind::Tcp { .. } | Bind::Descriptor(_) | Bind::Named(_) => None,
        }));
        files.push(file("lock file", "pidfile", &lock(&self.pidfile)));
        let key = match self.control_socket {
            // It goes with the pidfile, as the lock does.
            ControlTarget::BesidePidfile => "pidfile",
            ControlTarget::Off | ControlTarget::File(_) => "control_socket",
        };
        let control_socket = self.control_socket_path();
        files.extend(control_socket.map(|path| file("control socket", key, &path)));
        files.extend(unfinished(&self.pidfile).map(|path| file("new pidfile", "pidfile", &path)));
        files
    }

    /// Where the first instance can be asked and told.
    pub fn control_socket_path(&self) -> Option<PathBuf> {
        match &self.control_socket {
            ControlTarget::BesidePidfile => Some(beside(&self.pidfile, ".sock")),
            ControlTarget::Off => None,
            ControlTarget::File(path) => Some(path.clone()),
        }
    }
}

/// The lock that goes with a pidfile: without its `.pid`, and with `.lock`.
fn lock(pidfile: &Path) -> PathBuf {
    beside(pidfile, ".lock")
}

fn beside(pidfile: &Path, ending: &str) -> PathBuf {
    let is_plain = pidfile.extension().is_some_and(|extension| extension == "pid");
    let stem = if is_plain { pidfile.with_extension("") } else { pidfile.to_owned() };
    let mut path = stem.into_os_string();
    path.push(ending);
    path.into()
}

/// What a pidfile is called until it is whole.
fn unfinished(pidfile: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(pidfile.file_name()?);
    name.push(".new");
    Some(pidfile.with_file_name(name))
}

/// Where a file is, or will be, whichever way its path takes there.
///
/// ```
/// use ph_config::Whereabouts;
/// assert_eq!(Whereabouts::of("/proc/self/../x".as_ref()), Whereabouts::of("/proc/x".as_ref()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Whereabouts {
    folder: Folder,
    name: OsString,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Folder {
    Found {
        device: u64,
        inode: u64,
    },
    /// It is not there, or hidden.
    Named(PathBuf),
    /// No folder: the file itself, whatever its names.
    Content {
        device: u64,
        inode: u64,
    },
}

impl Whereabouts {
    /// Where this path leads, without following its last name.
    pub fn of(path: &Path) -> Self {
        let folder = path.parent().unwrap_or(path);
        let folder = match folder.metadata() {
            Ok(it) => Folder::Found { device: it.dev(), inode: it.ino() },
            Err(_) => Folder::Named(folder.to_owned()),
        };
        Self { folder, name: path.file_name().unwrap_or_default().to_owned() }
    }

    /// All places whose loss would be that of the file at this path: its own, and if it is a link,
    /// that of the file it leads to.
    pub fn all_of(path: &Path) -> Vec<Self> {
        let mut all = vec![Self::of(path)];
        let real = path.canonicalize().map(|real| Self::of(&real));
        all.extend(real.ok().filter(|real| *real != all[0]));
        // One file may have several names.
        let there = path.metadata().ok().filter(|it| it.is_file() && it.nlink() > 1);
        all.extend(there.map(|it| Self {
            folder: Folder::Content { device: it.dev(), inode: it.ino() },
            name: OsString::new(),
        }));
        all
    }

    /// The lock file of the first instance, if another one of the same service might have its lock, its
    /// pidfile or its control socket here.
    pub fn lock_of_first_instance(&self) -> Option<Self> {
        let name = self.name.as_bytes();
        let without_new = || name.strip_prefix(b".")?.strip_suffix(b".pid.new");
        let whole = || {
            [&b".lock"[..], b".pid", b".sock"].into_iter().find_map(|end| name.strip_suffix(end))
        };
        let numbered = without_new().or_else(whole)?;
        let dot = numbered.iter().rposition(|byte| *byte == b'.')?;
        let number = std::str::from_utf8(&numbered[dot + 1..]).ok()?;
        let instance = number.parse::<u32>().ok()?;
        let is_one = (2..=MAX_INSTANCES).contains(&instance) && number == instance.to_string();
        let first = [&numbered[..dot], b".lock"].concat();
        is_one.then(|| Self { folder: self.folder.clone(), name: OsString::from_vec(first) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ways_to_a_folder_lead_to_the_same_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("real")).unwrap();
        std::os::unix::fs::symlink("real", path("link")).unwrap();
        let of = |name: &str| Whereabouts::of(&path(name));
        assert_eq!(of("link/a"), of("real/a"));
        assert_eq!(of("real/../real/a"), of("real/a"));
        assert_ne!(of("real/a"), of("real/b"));
        assert_ne!(of("a"), of("real/a"));
        assert_eq!(of("missing/a"), of("missing/a"));
        assert_ne!(of("missing/a"), of("lost/a"));
        std::fs::write(path("real/a"), "").unwrap();
        std::os::unix::fs::symlink("real/a", path("a")).unwrap();
        assert_eq!(Whereabouts::all_of(&path("a")), [of("a"), of("real/a")]);
        assert_eq!(Whereabouts::all_of(&path("real/a")), [of("real/a")]);
    }

    #[test]
    fn files_of_instances_lead_to_the_first() {
        for (name, wanted) in [
            ("w.2.lock", Some("w.lock")),
            ("w.1024.pid", Some("w.lock")),
            ("w.2.sock", Some("w.lock")),
            (".w.3.pid.new", Some("w.lock")),
            ("w.a.2.pid", Some("w.a.lock")),
            ("w.1.lock", None),
            ("w.1025.lock", None),
            ("w.02.lock", None),
            ("w.+2.lock", None),
            ("w.lock", None),
            ("w.2.log", None),
            ("2.lock", None),
            ("lock", None),
        ] {
            let found = Whereabouts::of(&Path::new("/").join(name)).lock_of_first_instance();
            let wanted = wanted.map(|name| Whereabouts::of(&Path::new("/").join(name)));
            assert_eq!(found, wanted, "{name}");
        }
    }
}
