//! Who is at the other end of a Unix socket, as the kernel noted it when they connected.

use std::os::fd::{AsFd, AsRawFd as _};

use nix::errno::Errno;
use nix::sys::socket::{UnixCredentials, getsockopt, sockopt::PeerCredentials};

/// The most groups a process may have, NGROUPS_MAX.
const GROUPS_MAX: usize = 1 << 16;

/// Process, user and group of who connected.
pub(crate) fn credentials(socket: &impl AsFd) -> nix::Result<UnixCredentials> {
    getsockopt(socket, PeerCredentials)
}

/// The supplementary groups of who connected (`SO_PEERGROUPS`, Linux 4.13).
pub(crate) fn groups(socket: impl AsFd) -> nix::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 32];
    loop {
        let mut length = libc::socklen_t::try_from(size_of_val(&groups[..])).unwrap_or(0);
        let number = socket.as_fd().as_raw_fd();
        let buffer = groups.as_mut_ptr().cast();
        // SAFETY: the kernel writes at most `length` bytes, all of which are the vector's.
        let asked = unsafe {
            libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_PEERGROUPS, buffer, &raw mut length)
        };
        let wanted = length as usize / size_of::<u32>();
        match Errno::result(asked) {
            Ok(_) => {
                groups.truncate(wanted);
                return Ok(groups);
            }
            // The length says how much room it takes.
            Err(Errno::ERANGE) if wanted > groups.len() && wanted <= GROUPS_MAX => {
                groups.resize(wanted, 0);
            }
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_is_this_process() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let who = credentials(&one).unwrap();
        assert_eq!(who.pid().unsigned_abs(), std::process::id());
        let mut own: Vec<_> =
            nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        let mut groups = groups(&one).unwrap();
        own.sort_unstable();
        groups.sort_unstable();
        assert_eq!(groups, own);
    }
}
