//! The control socket: where a master is asked how it is, and told what to do.
//!
//! It is part of the one loop and never holds it up: nothing here waits, and everything has a bound. A
//! client has ten seconds to send its request and to take what it is sent; what it does not take is
//! kept up to a bound, then it is cut off. With no client there is no deadline and no system call.
//!
//! The socket's file has mode 0600 from birth; who asks is judged by what the kernel says of who
//! connected (`SO_PEERCRED`), never by what they say. A file that a killed master left is replaced only by
//! one that holds the lock; at the end the file is removed if it is still this socket's.

mod answers;
mod client;
mod events;
mod server;
mod status;

use std::ffi::OsString;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::socket::UnixCredentials;
use nix::unistd::geteuid;
use socket2::Socket;

use super::RunError;
use super::listeners::{SocketOptions, open_unix, replace_unix};
use super::pidfile::Pidfile;
use crate::sys::{AccountError, privileges};

pub(super) use answers::PARTLY_DONE;
pub(super) use server::{CONTROL_FROM, Server};

/// Where a master can be asked and told, and by whom beside root and its own user.
///
/// See [`control`](crate::control) for the language that is spoken there.
#[derive(Clone, Debug, Default)]
pub struct ControlSocket {
    /// The socket; if it is not set, beside the pidfile with the ending `.sock`. The second of several
    /// masters of one service has a `.2` before the ending.
    pub path: Option<PathBuf>,
    /// Who may ask, beside root and the master's own user. If it is not empty, everybody may connect
    /// (mode 0666), and whoever may not ask is told so.
    pub allow: Vec<Allowed>,
}

/// Somebody who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// A user, by number.
    User(u32),
    /// All who are in a group, by number.
    Group(u32),
}

impl Allowed {
    /// Looks up a user by name or number.
    ///
    /// # Errors
    ///
    /// Nobody of that name, or a database that does not answer.
    pub fn user(name: &str) -> Result<Self, AccountError> {
        privileges::uid_of(name).map(|uid| Self::User(uid.as_raw()))
    }

    /// Looks up a group by name or number.
    ///
    /// # Errors
    ///
    /// None of that name, or a database that does not answer.
    pub fn group(name: &str) -> Result<Self, AccountError> {
        privileges::gid_of(name).map(|gid| Self::Group(gid.as_raw()))
    }
}

impl ControlSocket {
    /// Where the socket of an instance is; `None` if there is no pidfile and no path.
    #[must_use]
    pub fn path_of(&self, pidfile: Option<&Pidfile>, instance: u32) -> Option<PathBuf> {
        let Some(path) = &self.path else {
            return pidfile.map(|pidfile| pidfile.path_of(instance, "sock"));
        };
        Some(if instance > 1 { numbered(path, instance) } else { path.clone() })
    }

    /// Opens it. Whoever calls this holds the lock of the service, if it has one.
    fn open(&self, path: &Path) -> io::Result<Listening> {
        self.listening(open_unix(path, &SocketOptions::default())?, path)
    }

    fn listening(&self, socket: Socket, path: &Path) -> io::Result<Listening> {
        let there = std::fs::symlink_metadata(path)?;
        let file = (there.dev(), there.ino());
        let listening = Listening { socket, path: path.to_owned(), file };
        listening.socket.set_nonblocking(true)?;
        if !self.allow.is_empty() {
            std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
        }
        Ok(listening)
    }

    /// The same with the path of an instance, and with an error that names it.
    pub(super) fn open_for(
        &self,
        pidfile: Option<&Pidfile>,
        instance: u32,
    ) -> Result<Listening, RunError> {
        let refused = |path, source| RunError::File { what: CONTROL_SOCKET, path, source };
        let Some(path) = self.path_of(pidfile, instance) else {
            let why = "it has no path, and there is no pidfile to put it beside";
            return Err(refused(PathBuf::new(), io::Error::other(why)));
        };
        self.open(&path).map_err(|source| refused(path, source))
    }

    /// The same for a master that runs already: it has the name of the former one from one moment to the
    /// next, so that whoever connects meets one of the two. It waits for nobody: the lock of the service is
    /// held, so the name it has before is this master's alone.
    pub(super) fn take_over(
        &self,
        pidfile: Option<&Pidfile>,
        instance: u32,
    ) -> Result<Listening, RunError> {
        let refused = |path, source| RunError::File { what: CONTROL_SOCKET, path, source };
        let Some(path) = self.path_of(pidfile, instance) else {
            return self.open_for(pidfile, instance);
        };
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        let beside = Path::new(&beside);
        let opened = replace_unix(beside).and_then(|socket| self.listening(socket, beside));
        let mut listening = opened.map_err(|source| refused(path.clone(), source))?;
        std::fs::rename(beside, &path).map_err(|source| refused(path.clone(), source))?;
        listening.path = path;
        Ok(listening)
    }

    /// Whether somebody may ask.
    fn allows(&self, who: UnixCredentials, groups: impl FnOnce() -> Vec<u32>) -> bool {
        let (uid, gid) = (who.uid(), who.gid());
        if uid == 0 || uid == geteuid().as_raw() || self.allow.contains(&Allowed::User(uid)) {
            return true;
        }
        let is_member = |gid: u32| self.allow.contains(&Allowed::Group(gid));
        is_member(gid) || groups().into_iter().any(is_member)
    }
}

/// What a [`RunError::File`] calls it.
pub(super) const CONTROL_SOCKET: &str = "control socket";

/// `web.sock` becomes `web.2.sock`.
fn numbered(path: &Path, instance: u32) -> PathBuf {
    let (stem, ending) = match path.extension() {
        Some(ending) => (path.with_extension(""), Some(ending)),
        None => (path.to_owned(), None),
    };
    let mut numbered: OsString = stem.into();
    numbered.push(format!(".{instance}"));
    if let Some(ending) = ending {
        numbered.push(".");
        numbered.push(ending);
    }
    numbered.into()
}

/// An open socket. Dropping it removes its file, if that is still its own.
#[derive(Debug)]
pub(super) struct Listening {
    socket: Socket,
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Listening {
    fn raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether its path leads to it.
    fn is_in_place(&self) -> bool {
        let there = std::fs::symlink_metadata(&self.path);
        there.is_ok_and(|it| (it.dev(), it.ino()) == self.file)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.is_in_place() {
            // Left behind, it would be replaced as stale by the next master.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Client;

    fn beside(folder: &Path) -> Pidfile {
        Pidfile { path: folder.join("web.pid"), single_instance: false }
    }

    #[test]
    fn each_instance_has_a_socket_of_its_own() {
        let of = |path: Option<&str>, instance| {
            let control = ControlSocket { path: path.map(PathBuf::from), allow: Vec::new() };
            control.path_of(Some(&beside(Path::new("/run"))), instance).unwrap()
        };
        assert_eq!(of(None, 1), Path::new("/run/web.sock"));
        assert_eq!(of(None, 2), Path::new("/run/web.2.sock"));
        assert_eq!(of(Some("/run/a.b/c.sock"), 1), Path::new("/run/a.b/c.sock"));
        assert_eq!(of(Some("/run/a.b/c.sock"), 3), Path::new("/run/a.b/c.3.sock"));
        assert_eq!(of(Some("/run/a.b/c"), 3), Path::new("/run/a.b/c.3"));
        assert_eq!(ControlSocket::default().path_of(None, 1), None);
        assert!(ControlSocket::default().open_for(None, 1).is_err());
    }

    #[test]
    fn its_file_is_for_its_owner_and_gone_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d".repeat(120));
        std::fs::create_dir(&path).unwrap();
        let pidfile = beside(&path);
        let path = pidfile.path_of(1, "sock");
        for (allow, wanted) in [(vec![], 0o600), (vec![Allowed::Group(7)], 0o666)] {
            let control = ControlSocket { path: None, allow };
            let listening = control.open_for(Some(&pidfile), 1).unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, wanted);
            Client::ask(&path, &crate::control::Request::Status).unwrap();
            let second = control.open_for(Some(&pidfile), 1).unwrap_err().to_string();
            assert!(second.contains("EADDRINUSE"), "{second}");
            drop(listening);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_what_is_no_socket_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let pidfile = beside(folder.path());
        let path = folder.path().join("web.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listening = ControlSocket::default().open_for(Some(&pidfile), 1).unwrap();
        // Another one's file in its place is not its own to remove.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(listening);
        let refused = ControlSocket::default().open_for(Some(&pidfile), 1).unwrap_err();
        assert!(refused.to_string().contains("not a socket"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another's");
    }

    #[test]
    fn the_owner_root_and_those_named_may_ask() {
        let own = geteuid().as_raw();
        let control =
            ControlSocket { path: None, allow: vec![Allowed::User(4711), Allowed::Group(4712)] };
        let may = |uid, gid, groups: &[u32]| {
            let raw = libc::ucred { pid: 1, uid, gid };
            control.allows(UnixCredentials::from(raw), || groups.to_vec())
        };
        assert!(may(0, 1, &[]) && may(own, 1, &[]) && may(4711, 1, &[]));
        assert!(may(4713, 4712, &[]) && may(4713, 1, &[5, 4712]));
        assert!(!may(4713, 1, &[5, 6]) && !may(4712, 4711, &[4711]));
    }
}
