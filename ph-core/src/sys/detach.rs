//! The way into the background: a process that has a session of its own, which nobody's terminal reaches,
//! and that leads none, so that it never gets one again.

use std::io;
use std::os::fd::AsFd;

use nix::unistd::setsid;

use super::channel::Channel;
use super::process::{Fork, exit_now, fork, reap_now};
use super::{fds, passed, process, signals};

/// Which of the two processes this is, and its end of the channel between them.
pub(crate) enum Side {
    /// The one that was there before.
    Caller(Channel),
    /// The one in the background.
    Background(Channel),
}

/// Forks twice. The caller of this has seen that the process has one thread.
///
/// The new process reads from /dev/null, and has nothing open that the caller's caller let slip into it;
/// its stdout and stderr are the caller's still, and so are its working directory, its umask and its
/// environment.
pub(crate) fn detach() -> io::Result<Side> {
    fds::fill_standard_streams()?;
    // These are kept, and are told by a pid that is not that of the new process.
    passed::take();
    let slipped = fds::inherited();
    let dev_null = fds::dev_null()?;
    let (caller, background) = Channel::pair()?;
    let mask = signals::block_all()?;
    let forked = fork();
    if !matches!(forked, Ok(Fork::Child)) {
        // It was in force a moment ago, so it can be set again.
        let _ = signals::set_mask(&mask);
    }
    match forked? {
        Fork::Master(between) => {
            drop(background);
            // If it could not fork, the channel ends without a word.
            let _ = reap_now(between);
            Ok(Side::Caller(caller))
        }
        Fork::Child => {
            drop(caller);
            // A fresh child leads no group, so this cannot fail.
            let _ = setsid();
            match fork() {
                Ok(Fork::Child) => {}
                Ok(Fork::Master(_)) => exit_now(0),
                Err(_) => exit_now(1),
            }
            process::replace_standard_input(&dev_null)?;
            fds::close_in_child(slipped);
            signals::set_mask(&mask)?;
            Ok(Side::Background(background))
        }
    }
}

/// Puts /dev/null in place of stdout, and of stderr if that is not kept.
pub(crate) fn leave_outputs(keeps_stderr: bool) -> io::Result<()> {
    let dev_null = fds::dev_null()?;
    nix::unistd::dup2_stdout(dev_null.as_fd())?;
    if !keeps_stderr {
        nix::unistd::dup2_stderr(dev_null.as_fd())?;
    }
    Ok(())
}
