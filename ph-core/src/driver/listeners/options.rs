//! How listening sockets are made: what a service says of all of its own.
//!
//! All of it can be changed while a socket listens, so a reload does not open another. A Unix socket has
//! its mode and its owner before anybody can connect, and while either changes nobody may connect who
//! may not both before and after.

use std::fs::Permissions;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::AtFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Gid, Uid, fchown, fchownat, getegid, geteuid};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, TcpKeepalive, Type};

use super::MadeSocket;
use crate::Account;
use crate::sys::sockets;

/// Connections the kernel queues for workers that are busy (gunicorn's default).
const BACKLOG: u32 = 2048;

/// How the listening sockets that a master opens are made. What applies to one of the kinds is ignored for
/// the other; a socket that was passed on to the master is as whoever opened it has made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOptions {
    /// Connections that the kernel queues while all workers are busy; at least 1. The kernel has a limit
    /// of its own, `net.core.somaxconn`. The default is 2048.
    pub backlog: u32,
    /// Who may connect to Unix sockets, 0..=0o777. The default is 0600.
    pub mode: u32,
    /// Whose Unix sockets are. The default is the account of the workers.
    pub owner: Option<Account>,
    /// Whether TCP connections are asked, when they are idle, whether the client is still there.
    pub keepalive: KeepAlive,
    /// Whether a TCP connection is given to a worker only when the client has sent something, or after
    /// about a second (`TCP_DEFER_ACCEPT`). The default is no.
    pub defer_accept: bool,
    /// Whether each slot has a TCP socket of its own, with a queue of its own (`SO_REUSEPORT`), instead of
    /// one that all share. The default is no.
    pub reuse_port: bool,
}

/// When an idle TCP connection is asked whether the client is still there (tcp(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeepAlive {
    /// Never.
    #[default]
    Off,
    /// After the time the system has for it, `net.ipv4.tcp_keepalive_time`.
    On,
    /// After this time: whole seconds, 1..=32767.
    After(Duration),
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            backlog: BACKLOG,
            mode: 0o600,
            owner: None,
            keepalive: KeepAlive::Off,
            defer_accept: false,
            reuse_port: false,
        }
    }
}

impl SocketOptions {
    pub(super) fn backlog(&self) -> i32 {
        i32::try_from(self.backlog.max(1)).unwrap_or(i32::MAX)
    }

    /// What a TCP socket gets; its connections have it from it.
    pub(super) fn apply_to_tcp(&self, socket: &Socket) -> io::Result<()> {
        match self.keepalive {
            KeepAlive::Off => socket.set_keepalive(false)?,
            // One that had a time of its own gets the system's back.
            KeepAlive::On => ask_after(
                socket,
                Socket::new(Domain::IPV4, Type::STREAM, None)?.tcp_keepalive_time()?,
            )?,
            KeepAlive::After(idle) => ask_after(socket, idle)?,
        }
        sockets::set_defer_accept(socket, self.defer_accept)
    }

    /// The mode of a socket's file from its birth on, as the mask that is in force then: nobody gets in
    /// before the owner is right.
    pub(super) fn mask_at_birth(&self) -> u32 {
        if self.owner.is_some() { 0o777 } else { 0o777 & !self.mode }
    }

    /// Gives the file of a socket its owner and its mode, step by step so that nobody may connect in
    /// between who may not before and after. Only `made` is changed, whatever is at that path now. One
    /// that was given to somebody, and is not any more, is the master's own again.
    pub(super) fn apply_to_file(
        &self,
        path: &Path,
        made: Option<MadeSocket>,
        had_owner: bool,
    ) -> io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
        let there = file.metadata()?;
        let is_it = made.is_none_or(|made| made.is(&there));
        if !there.file_type().is_socket() || !is_it {
            return Err(io::Error::other("another file is there by now; it was kept as it is"));
        }
        let by_number = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let set_mode = |mode| std::fs::set_permissions(&by_number, Permissions::from_mode(mode));
        let own = there.mode() & 0o777;
        let own_ids = || had_owner.then(|| (Some(geteuid()), getegid()));
        if let Some((user, group)) = self.owner_ids().or_else(own_ids)
            && (user.is_some_and(|user| user.as_raw() != there.uid())
                || group.as_raw() != there.gid())
        {
            if own & self.mode != own {
                set_mode(own & self.mode)?;
            }
            fchownat(&file, "", user, Some(group), AtFlags::AT_EMPTY_PATH)?;
        }
        if file.metadata()?.mode() & 0o777 != self.mode {
            set_mode(self.mode)?;
        }
        Ok(())
    }

    /// Whether this process may give files to that owner: known by giving it one that nobody sees.
    pub(in super::super) fn try_owner(&self) -> io::Result<()> {
        let Some((user, group)) = self.owner_ids() else { return Ok(()) };
        let file = memfd_create("ph-owner", MFdFlags::MFD_CLOEXEC)?;
        Ok(fchown(&file, user, Some(group))?)
    }

    fn owner_ids(&self) -> Option<(Option<Uid>, Gid)> {
        self.owner.as_ref().map(Account::of_files)
    }
}

fn ask_after(socket: &Socket, idle: Duration) -> io::Result<()> {
    // It sets SO_KEEPALIVE too.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::listeners::open::open_unix;
    use socket2::SockRef;

    fn mode_of(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_socket_has_its_mode_whatever_the_mask_of_the_process() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o660, 0o777, 0] {
            let path = folder.path().join(format!("{mode:o}.sock"));
            let options = SocketOptions { mode, ..SocketOptions::default() };
            let _socket = open_unix(&path, &options).unwrap();
            assert_eq!(mode_of(&path), mode);
        }
    }

    #[test]
    fn only_the_file_that_was_made_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let _socket = open_unix(&path, &SocketOptions::default()).unwrap();
        let made = MadeSocket::at(&path).unwrap();
        let wider = SocketOptions { mode: 0o666, ..SocketOptions::default() };
        wider.apply_to_file(&path, Some(made), false).unwrap();
        assert_eq!(mode_of(&path), 0o666);
        std::fs::rename(&path, folder.path().join("b.sock")).unwrap();
        let _other = open_unix(&path, &SocketOptions::default()).unwrap();
        assert!(wider.apply_to_file(&path, Some(made), false).is_err());
        assert_eq!(mode_of(&path), 0o600);
        std::os::unix::fs::symlink("b.sock", folder.path().join("link")).unwrap();
        assert!(wider.apply_to_file(&folder.path().join("link"), None, false).is_err());
    }

    #[test]
    fn a_connection_has_the_keepalive_of_its_listener() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let options = |keepalive| SocketOptions { keepalive, ..SocketOptions::default() };
        let idle = || {
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (connection, _) = listener.accept().unwrap();
            let connection = SockRef::from(&connection);
            let is_on = connection.keepalive().unwrap();
            is_on.then(|| connection.tcp_keepalive_time().unwrap())
        };
        let of_system = SockRef::from(&listener).tcp_keepalive_time().unwrap();
        assert_eq!(idle(), None);
        let after = Duration::from_secs(77);
        for (keepalive, wanted) in [
            (KeepAlive::After(after), Some(after)),
            (KeepAlive::On, Some(of_system)),
            (KeepAlive::Off, None),
        ] {
            options(keepalive).apply_to_tcp(&SockRef::from(&listener)).unwrap();
            assert_eq!(idle(), wanted);
        }
    }
}
