//! The start of another master in place of this one: the same words and variables as this process was
//! started with, by the same path, whatever is there now.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::ptr;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use super::environ::{Environment, c_string};
use super::fds::{self, NofileLimit};
use super::setup::{Failure, Step};
use super::{process, signals, spawn};

/// The variable that tells a master that it is a successor, and by which descriptor it hears of that.
pub(crate) const VARIABLE: &str = "PH_SUCCESSOR";

/// The variable that tells it what its predecessor noted for it.
const NOTE: &str = "PH_SUCCESSOR_NOTE";

/// How this process was started.
#[derive(Debug)]
pub(crate) struct Origin {
    path: PathBuf,
    words: Vec<CString>,
    variables: Vec<(OsString, OsString)>,
}

impl Origin {
    /// Takes note of it; to be called before the title is written over the words.
    pub(crate) fn of_process() -> io::Result<Self> {
        let line = std::fs::read("/proc/self/cmdline")?;
        let words = line.split_inclusive(|byte| *byte == 0);
        let words = words.filter_map(|word| CStr::from_bytes_with_nul(word).ok());
        let words: Vec<_> = words.map(CStr::to_owned).collect();
        let name = words.first().map(|word| OsStr::from_bytes(word.to_bytes()).to_owned());
        let path = found(&name.unwrap_or_default()).map_or_else(running_program, Ok)?;
        // Sockets that were passed are handed over.
        let is_spent = |name: &OsStr| {
            name == VARIABLE || name == NOTE || name.as_bytes().starts_with(b"LISTEN_")
        };
        let variables = std::env::vars_os().filter(|(name, _)| !is_spent(name));
        let variables = variables.collect();
        Ok(Self { path, words, variables })
    }

    /// The program, by the path it was started by: links in it may lead elsewhere by now.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Forks and executes; the child gets `channel`, and the note. Gives the pid, and the pipe that says what became of
    /// it (see [`spawn::outcome`]). The caller has blocked all signals, and restores its own mask.
    pub(crate) fn spawn(
        &self,
        channel: &OwnedFd,
        note: Option<&str>,
        nofile: NofileLimit,
        ignored: &[i32],
    ) -> io::Result<(Pid, OwnedFd)> {
        let number = channel.as_raw_fd().to_string();
        let environment = Environment::new(self.variables.iter().cloned())?;
        let note = note.map(|note| (NOTE.into(), note.into()));
        let own: Vec<_> = [(VARIABLE.into(), number.into())].into_iter().chain(note).collect();
        let table = environment.table(&own, &[])?;
        let path = c_string(self.path.as_os_str())?;
        let mut argv: Vec<*const libc::c_char> = self.words.iter().map(|it| it.as_ptr()).collect();
        argv.push(ptr::null());
        let (report, failed) = fds::pipe()?;
        match process::fork()? {
            process::Fork::Master(pid) => Ok((pid, report)),
            process::Fork::Child => {
                let Err(failure) = (|| {
                    nofile.restore().map_err(Failure::of(Step::Limit))?;
                    fcntl(channel.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))
                        .map_err(Failure::of(Step::Descriptors))?;
                    for &signal in ignored {
                        // SAFETY: sets a signal's default action in a process of one thread.
                        unsafe { libc::signal(signal, libc::SIG_DFL) };
                    }
                    // An empty mask cannot fail to be set.
                    let _ = signals::set_mask(&SigSet::empty());
                    // SAFETY: path is a C string; both tables end with a null pointer, and what they
                    // point to was made before the fork and is still there.
                    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), table.as_ptr()) };
                    Err::<std::convert::Infallible, _>(Failure::of(Step::Exec)(
                        nix::errno::Errno::last(),
                    ))
                })();
                spawn::tell(&failed, failure);
                process::exit_now(127);
            }
        }
    }
}

/// Where a program of this name was found, as `execvp` finds it, with the links as they are.
fn found(name: &OsStr) -> Option<PathBuf> {
    let candidate = |path: PathBuf| {
        let is_it = std::fs::metadata(&path).is_ok_and(|it| is_this_program(&it));
        is_it.then_some(path)
    };
    if name.as_bytes().contains(&b'/') {
        return candidate(std::path::absolute(name).ok()?);
    }
    let search = std::env::var_os("PATH")?;
    std::env::split_paths(&search)
        .find_map(|folder| candidate(std::path::absolute(folder.join(name)).ok()?))
}

/// Where this program was when it was started; what is there may be another one by now.
fn running_program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let name = path.as_os_str().as_bytes();
    let name = name.strip_suffix(b" (deleted)").filter(|_| !path.exists()).unwrap_or(name);
    Ok(OsStr::from_bytes(name).into())
}

fn is_this_program(there: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let own = std::fs::metadata("/proc/self/exe");
    own.is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()))
}

/// The descriptor this process was given as a successor; it is taken out of the environment, so that
/// nobody else hears of it.
pub(crate) fn inherited_channel() -> Option<OwnedFd> {
    let number: RawFd = std::env::var(VARIABLE).ok()?.parse().ok()?;
    super::environ::forget(VARIABLE);
    super::environ::forget(NOTE);
    fds::adopt(number)
}

/// What the predecessor noted for this process, until the channel is taken.
pub(crate) fn note() -> Option<String> {
    std::env::var(NOTE).ok()
}

/// A copy of it; the variable stays.
pub(crate) fn borrowed_channel() -> Option<OwnedFd> {
    let number: RawFd = std::env::var(VARIABLE).ok()?.parse().ok()?;
    fds::copy_of(number)
}
