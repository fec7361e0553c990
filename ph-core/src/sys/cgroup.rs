//! One cgroup for each seat, where this process may make any: a tree that nothing leaves by forking.
//!
//! The folder is found through /proc, never assumed: the cgroup v2 mount that shows this process's own
//! cgroup. Below that a folder of the master's is made, and a folder for a seat when it is first used;
//! both go at the end. The kernel kills all of one with one write, in one step, whatever forks there
//! meanwhile, and says when nobody is left.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{AccessFlags, Pid, UnlinkatFlags, faccessat, unlinkat};

use super::environ::c_string;
use super::{fds, lock, process, procfs, signals};

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);

/// How deep what workers make of cgroups in their own is looked into.
const DEPTH: u32 = 16;

/// Names that are tried.
const ATTEMPTS: u32 = 4;

/// Abandoned cgroups that one start removes, at most.
const ABANDONED: usize = 64;

/// Members that are listed of one tree, at most; a kill reaches all of them.
const MEMBERS: usize = 4096;

/// The master's own cgroup.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: OwnedFd,
    parent: OwnedFd,
    name: CString,
    path: PathBuf,
    /// How many cgroups a seat has had before this one. One that was killed is not used again: Linux
    /// 6.14 and later kill whoever is born into it from a cgroup that was not killed as often.
    spoilt: RefCell<BTreeMap<usize, Spoilt>>,
}

impl Cgroup {
    /// Makes one; `None` where that cannot be done.
    pub(crate) fn make(unique: u32) -> Option<Self> {
        let own = own_folder(
            &std::fs::read_to_string("/proc/self/cgroup").ok()?,
            &std::fs::read_to_string("/proc/self/mountinfo").ok()?,
            "",
        )?;
        let parent = open(&own, DIRECTORY, Mode::empty()).ok()?;
        remove_abandoned(&parent);
        (0..ATTEMPTS).find_map(|attempt| Self::make_in(&own, unique.wrapping_add(attempt)))
    }

    /// Makes one of this name. Another master that starts may take it for abandoned before it is locked.
    fn make_in(own: &Path, unique: u32) -> Option<Self> {
        let parent = open(own, DIRECTORY, Mode::empty()).ok()?;
        let name = format!("ph-{}-{unique:08x}", std::process::id());
        let path = own.join(&name);
        let name = c_string(OsStr::new(&name)).ok()?;
        mkdirat(&parent, name.as_c_str(), Mode::from_bits_truncate(0o755)).ok()?;
        let folder = openat(&parent, name.as_c_str(), DIRECTORY, Mode::empty()).ok()?;
        let made = Self { folder, parent, name, path, spoilt: RefCell::default() };
        lock::try_lock(&made.folder).ok().filter(|is_locked| *is_locked)?;
        // Older kernels (before 5.14) cannot kill a whole cgroup; there it is of no use.
        let can_kill = faccessat(&made.folder, c"cgroup.kill", AccessFlags::W_OK, AtFlags::empty());
        can_kill.ok()?;
        // Nor is it of use where a process cannot be born into one: to move there afterwards takes a
        // lock that holds up every fork of the machine, for milliseconds.
        let mask = signals::block_all().ok()?;
        let forked = process::fork_into(made.folder.as_fd());
        if matches!(forked, Ok(process::Fork::Child)) {
            process::exit_now(0);
        }
        signals::set_mask(&mask).ok()?;
        match forked {
            Ok(process::Fork::Master(pid)) if process::reap_now(pid) => Some(made),
            Ok(_) | Err(_) => None,
        }
    }

    /// Where it is, for people.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The cgroup for the next worker of a seat, made if this is the first time it is needed.
    pub(crate) fn seat(&self, seat: usize) -> nix::Result<OwnedFd> {
        if let Some(spoilt) = self.spoilt.borrow_mut().get_mut(&seat)
            && std::mem::take(&mut spoilt.is_newest)
        {
            // What is not empty goes at the end.
            remove_below(&self.folder, Some(&seat_name(seat, spoilt.count)), DEPTH);
            spoilt.count += 1;
        }
        let name = self.name_of(seat);
        let open = || openat(&self.folder, name.as_str(), DIRECTORY, Mode::empty());
        match open() {
            Err(Errno::ENOENT) => {
                mkdirat(&self.folder, name.as_str(), Mode::from_bits_truncate(0o755))?;
                open()
            }
            done => done,
        }
    }

    /// The cgroup of this seat is of no use any more: the next worker gets another.
    pub(crate) fn spoil(&self, seat: usize) {
        self.spoilt.borrow_mut().entry(seat).or_default().is_newest = true;
    }

    /// What becomes readable, as priority data, whenever somebody enters an empty tree or the last one
    /// has left it: the tree of a seat, or of all. `None`: there is no such cgroup.
    pub(crate) fn events(&self, seat: Option<usize>) -> nix::Result<Option<OwnedFd>> {
        let file = self.file_of(seat, "cgroup.events");
        match openat(&self.folder, file.as_str(), READ, Mode::empty()) {
            Ok(events) => Ok(Some(events)),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether anybody is in the tree of a seat, or of all. What cannot be asked may have somebody.
    pub(crate) fn is_populated(&self, seat: Option<usize>) -> bool {
        self.events(seat).map_or(true, |events| events.is_some_and(|it| is_populated(&it)))
    }

    /// SIGKILL to all in the tree of a seat, or of all seats, at once.
    pub(crate) fn kill(&self, seat: Option<usize>) -> nix::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = self.file_of(seat, "cgroup.kill");
        let kill = openat(&self.folder, file.as_str(), flags, Mode::empty())?;
        fds::write(&kill, b"1")?;
        if let Some(seat) = seat {
            self.spoil(seat);
        }
        Ok(())
    }

    /// What the tree of a seat holds, in bytes; `None` where no memory controller counts it.
    pub(crate) fn memory(&self, seat: usize) -> Option<u64> {
        let file = self.file_of(Some(seat), "memory.current");
        let current = openat(&self.folder, file.as_str(), READ, Mode::empty()).ok()?;
        let mut text = [0; 32];
        let length = fds::read(&current, &mut text).ok()?;
        std::str::from_utf8(text.get(..length)?).ok()?.trim().parse().ok()
    }

    /// Who is in the tree of a seat, or of all.
    pub(crate) fn members(&self, seat: Option<usize>) -> Vec<Pid> {
        let mut found = Vec::new();
        let name = seat.map_or_else(|| ".".to_owned(), |seat| self.name_of(seat));
        if let Ok(folder) = openat(&self.folder, name.as_str(), DIRECTORY, Mode::empty()) {
            walk(&folder, DEPTH, &mut |folder| {
                let room = MEMBERS.saturating_sub(found.len());
                found.extend(procfs::pids(&read_file(folder, "cgroup.procs")).take(room));
            });
        }
        found
    }

    fn name_of(&self, seat: usize) -> String {
        seat_name(seat, self.spoilt.borrow().get(&seat).map_or(0, |spoilt| spoilt.count))
    }

    fn file_of(&self, seat: Option<usize>, file: &str) -> String {
        seat.map_or_else(|| file.to_owned(), |seat| format!("{}/{file}", self.name_of(seat)))
    }

    /// Its own descriptors, which no worker may keep.
    pub(crate) fn raw_fds(&self) -> [i32; 2] {
        [self.folder.as_raw_fd(), self.parent.as_raw_fd()]
    }

    /// Removes all folders that are empty, and says whether none is left.
    pub(crate) fn remove(&self) -> bool {
        remove_below(&self.folder, None, DEPTH);
        let removed = unlinkat(&self.parent, self.name.as_c_str(), UnlinkatFlags::RemoveDir);
        matches!(removed, Ok(()) | Err(Errno::ENOENT))
    }
}

impl Drop for Cgroup {
    /// In the master; children leave by `_exit`, or by an exec.
    fn drop(&mut self) {
        if !self.remove() {
            tracing::warn!("{} cannot be removed; the next start does it", self.path.display());
        }
    }
}

/// Whether a cgroup of this name is a master's: `ph-PID-` and eight hexadecimal digits.
fn is_name(name: &str) -> bool {
    let parts = name.strip_prefix("ph-").and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(pid, unique)| {
        !pid.is_empty()
            && pid.bytes().all(|byte| byte.is_ascii_digit())
            && unique.len() == 8
            && unique.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Removes what masters left that died together with their warden, or before they had one: it is not
/// locked, because a lock lives as long as anybody has the folder open. Who is in there is killed.
fn remove_abandoned(parent: &OwnedFd) {
    let is_masters = |name: &CString| name.to_str().is_ok_and(is_name);
    for name in folders_in(parent).into_iter().filter(is_masters).take(ABANDONED) {
        let Ok(folder) = openat(parent, name.as_c_str(), DIRECTORY, Mode::empty()) else {
            continue;
        };
        if !lock::try_lock(&folder).unwrap_or(false) {
            continue;
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let killed = openat(&folder, "cgroup.kill", flags, Mode::empty())
            .and_then(|kill| fds::write(&kill, b"1"));
        let events = openat(&folder, "cgroup.events", READ, Mode::empty());
        if let (Ok(_), Ok(events)) = (killed, events)
            && is_populated(&events)
        {
            fds::wait_changed(&events, Duration::from_secs(1));
        }
        remove_below(&folder, None, DEPTH);
        // If somebody is still in there, the next start tries again.
        let _ = unlinkat(parent, name.as_c_str(), UnlinkatFlags::RemoveDir);
    }
}

const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC);

/// What an open `cgroup.events` says now.
pub(crate) fn is_populated(events: &OwnedFd) -> bool {
    let mut text = [0; 256];
    let length = nix::sys::uio::pread(events, &mut text, 0).unwrap_or(0);
    text[..length].split(|byte| *byte == b'\n').any(|line| line == b"populated 1")
}

/// What became of the cgroups of one seat.
#[derive(Clone, Copy, Debug, Default)]
struct Spoilt {
    /// Those that were given up before the newest.
    count: u32,
    /// The newest is to be given up too.
    is_newest: bool,
}

fn seat_name(seat: usize, spoilt: u32) -> String {
    if spoilt == 0 { format!("seat.{seat}") } else { format!("seat.{seat}.{spoilt}") }
}

fn read_file(folder: impl AsFd, name: &str) -> String {
    let text = openat(folder, name, READ, Mode::empty()).map_err(io::Error::from);
    text.and_then(|file| io::read_to_string(std::fs::File::from(file))).unwrap_or_default()
}

/// Visits a folder and those below it, a bounded way down.
fn walk(folder: &OwnedFd, depth: u32, visit: &mut impl FnMut(&OwnedFd)) {
    visit(folder);
    if depth == 0 {
        return;
    }
    for name in folders_in(folder) {
        if let Ok(below) = openat(folder, name.as_c_str(), DIRECTORY, Mode::empty()) {
            walk(&below, depth - 1, visit);
        }
    }
}

/// Removes what is below a folder, or of that one folder only, the deepest first. What has members
/// stays.
fn remove_below(folder: &OwnedFd, only: Option<&str>, depth: u32) {
    let is_meant = |name: &CString| only.is_none_or(|only| name.to_bytes() == only.as_bytes());
    for name in folders_in(folder).into_iter().filter(is_meant) {
        let remove = || unlinkat(folder, name.as_c_str(), UnlinkatFlags::RemoveDir);
        if remove().is_ok() || depth == 0 {
            continue;
        }
        // Busy, gone, or with folders of a worker's in it. Whoever asked looks what came of it.
        if let Ok(below) = openat(folder, name.as_c_str(), DIRECTORY, Mode::empty()) {
            remove_below(&below, None, depth - 1);
            let _ = remove();
        }
    }
}

fn folders_in(folder: &OwnedFd) -> Vec<CString> {
    let again = openat(folder, ".", DIRECTORY | OFlag::O_RDONLY, Mode::empty());
    let Ok(mut entries) = again.and_then(nix::dir::Dir::from_fd) else { return Vec::new() };
    let is_folder = |entry: &nix::dir::Entry| {
        entry.file_type() == Some(nix::dir::Type::Directory)
            && !matches!(entry.file_name().to_bytes(), b"." | b"..")
    };
    entries.iter().flatten().filter(is_folder).map(|entry| entry.file_name().to_owned()).collect()
}

/// The folder that shows the cgroup this process is in, by the contents of /proc/self/cgroup and
/// /proc/self/mountinfo: of version 2, or of a controller of version 1.
pub(super) fn own_folder(cgroups: &str, mounts: &str, controller: &str) -> Option<PathBuf> {
    let own = cgroups.lines().find_map(|line| {
        let (controllers, own) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(own)
    })?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        let mut fields = after.split(' ');
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        let is_meant = match controller {
            "" => kind == "cgroup2",
            _ => kind == "cgroup" && options.split(',').any(|name| name == controller),
        };
        let below = Path::new(own).strip_prefix(&root).ok().filter(|_| is_meant)?;
        // A cgroup outside of what this namespace shows is written as `/..`.
        let is_shown = !below.components().any(|part| part.as_os_str() == "..");
        is_shown.then(|| point.join(below))
    })
}

/// Blanks in mountinfo are written `\040`, and so on.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(|_| first == b'\\') {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
24 23 0:22 / /proc rw - proc proc rw
38 31 0:31 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 /a\\040b /sys/fs/with\\040blank rw,relatime shared:9 - cgroup2 cgroup2 rw
42 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn a_masters_cgroup_is_known_by_its_name() {
        assert!(is_name("ph-4121-00ab12ff"));
        for other in ["ph-", "ph-1", "ph--00ab12ff", "ph-x-00ab12ff", "ph-1-00AB12FF", "ph-1-0"] {
            assert!(!is_name(other), "{other}");
        }
    }

    #[test]
    fn the_own_folder_is_found_below_the_mount_that_shows_it() {
        let folder = |own: &str| own_folder(&format!("9:pids:/x\n0::{own}\n"), MOUNTS, "");
        assert_eq!(folder("/").unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(folder("/a b/c").unwrap(), Path::new("/sys/fs/with blank/c"));
        assert_eq!(folder("/a").unwrap(), Path::new("/sys/fs/cgroup/unified/a"));
        assert_eq!(folder("/../outside"), None);
        assert_eq!(own_folder("9:pids:/x\n", MOUNTS, ""), None, "version 1 only");
        assert_eq!(own_folder("0::/\n", "", ""), None);
        let pids = own_folder("9:cpu,pids:/x\n0::/\n", MOUNTS, "pids").unwrap();
        assert_eq!(pids, Path::new("/sys/fs/cgroup/pids/x"));
    }
}
