//! What a child is given before any code of its own runs: limits, priority, place, identity.
//!
//! All of it is looked up and laid out before the fork; in the child it is one system call after the
//! other, in the order in which each still has the rights it needs. Nothing is allocated there, no lock
//! is taken, nothing can panic. The first step that fails ends the attempt and is named; a trial goes on,
//! and names them all.

use std::ffi::{CStr, CString, OsStr};
use std::io;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;

use super::environ::c_string;
use super::fds::NofileLimit;
use super::privileges::Ids;
use super::{fds, mark, process};

/// A step of a child between its fork and its own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// A session of its own, and death with the master.
    Session = 1,
    /// Standard streams and listeners in place.
    Descriptors,
    /// A resource limit; which one is the failure's detail.
    Limit,
    /// The nice value.
    Nice,
    /// What the out-of-memory killer thinks of it.
    OomScore,
    /// The CPUs it may run on.
    Affinity,
    /// Supplementary groups.
    Groups,
    /// The group.
    Group,
    /// The user.
    User,
    /// That none of these can be taken back.
    Verify,
    /// The working directory.
    Directory,
    /// The program itself.
    Exec,
}

impl Step {
    const ALL: [Self; 12] = [
        Self::Session,
        Self::Descriptors,
        Self::Limit,
        Self::Nice,
        Self::OomScore,
        Self::Affinity,
        Self::Groups,
        Self::Group,
        Self::User,
        Self::Verify,
        Self::Directory,
        Self::Exec,
    ];

    /// The step with this number.
    pub(crate) fn numbered(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u8 == number)
    }

    /// What was tried, for people.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Session => "start a session for",
            Self::Descriptors => "set up the descriptors of",
            Self::Limit => "set a resource limit of",
            Self::Nice => "set the nice value of",
            Self::OomScore => "set oom_score_adj of",
            Self::Affinity => "set the CPU affinity of",
            Self::Groups => "set the supplementary groups of",
            Self::Group => "set the group of",
            Self::User => "set the user of",
            Self::Verify => "give up for good the master's rights in",
            Self::Directory => "enter the working directory",
            Self::Exec => "exec",
        }
    }
}

/// The step that kept a child from becoming what it was to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// Which one.
    pub(crate) step: Step,
    /// Its errno.
    pub(crate) errno: i32,
    /// The number of the resource, for [`Step::Limit`].
    pub(crate) detail: u8,
}

impl Failure {
    /// Which of the conditions it is about, by the name of the builder's method or of the resource.
    pub(crate) fn condition(self) -> &'static str {
        match self.step {
            Step::Limit => resource_name(self.detail),
            Step::Nice => "nice",
            Step::OomScore => "oom_score_adj",
            Step::Affinity => "cpu_affinity",
            Step::Groups | Step::Group | Step::User | Step::Verify => "account",
            Step::Directory => "directory",
            Step::Session | Step::Descriptors | Step::Exec => "",
        }
    }

    /// What was tried, for people: to be read before the name of what it was tried on.
    pub(crate) fn tried(self) -> String {
        if self.step == Step::Limit {
            return format!("set {} of", resource_name(self.detail));
        }
        self.step.describe().to_owned()
    }

    pub(crate) fn of(step: Step) -> impl Fn(Errno) -> Self {
        move |errno| Self { step, errno: errno as i32, detail: 0 }
    }
}

/// One resource limit.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct ResourceLimit {
    /// The kernel's number of the resource.
    pub(crate) resource: u8,
    /// What the process has, and what it may raise that to.
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// The CPUs workers run on.
#[derive(Clone, Debug)]
pub(crate) enum Cpus {
    /// Slot i on the i-th of these, modulo their number.
    Spread(Vec<usize>),
    /// Every worker on all of these.
    All(CpuSet),
}

impl Cpus {
    /// All CPUs this process may use, one for each slot in turn.
    pub(crate) fn spread() -> nix::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let is_allowed = |cpu: &usize| allowed.is_set(*cpu).unwrap_or(false);
        Ok(Self::Spread((0..CpuSet::count()).filter(is_allowed).collect()))
    }

    /// These. A number the kernel has no CPU for is found out by each worker.
    pub(crate) fn all(cpus: &[u16]) -> nix::Result<Self> {
        let mut set = CpuSet::new();
        cpus.iter().try_for_each(|cpu| set.set(usize::from(*cpu)))?;
        Ok(Self::All(set))
    }

    fn apply(&self, slot: u32) -> nix::Result<()> {
        let own = Pid::from_raw(0);
        match self {
            Self::All(set) => sched_setaffinity(own, set),
            Self::Spread(cpus) => {
                let Some(place) = (slot as usize).checked_rem(cpus.len()) else { return Ok(()) };
                let mut set = CpuSet::new();
                set.set(cpus[place])?;
                sched_setaffinity(own, &set)
            }
        }
    }
}

/// Everything that is the same for all workers of a master.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The descriptor limit the operator had set.
    pub(crate) nofile: NofileLimit,
    pub(crate) umask: Option<u32>,
    pub(crate) limits: Vec<ResourceLimit>,
    /// And in decimal, as the kernel reads it.
    pub(crate) nice: Option<(i32, String)>,
    /// In decimal, as the kernel reads it.
    pub(crate) oom_score_adj: Option<String>,
    pub(crate) cpus: Option<Cpus>,
    pub(crate) ids: Option<Ids>,
    pub(crate) directory: Option<CString>,
}

impl Setup {
    /// Changes nothing but what the master had changed of its own.
    pub(crate) fn plain(nofile: NofileLimit) -> Self {
        Self {
            nofile,
            umask: None,
            limits: Vec::new(),
            nice: None,
            oom_score_adj: None,
            cpus: None,
            ids: None,
            directory: None,
        }
    }

    /// The working directory. A path with a NUL byte is refused.
    pub(crate) fn in_directory(mut self, directory: Option<&OsStr>) -> io::Result<Self> {
        self.directory = directory.map(c_string).transpose()?;
        Ok(self)
    }

    /// The child's part. Limits come after what opens a file. Rights go away with the user, so what needs
    /// them comes before; the directory
    /// comes after, because it is the user who must be able to enter it. `worker` is the worker's mark. The
    /// kernel forgets the death
    /// signal when the user changes, so it is asked for again.
    pub(crate) fn apply(&self, slot: u32, master: Pid, worker: Option<u64>) -> Result<(), Failure> {
        self.go_through(slot, master, worker, &mut UpToTheFirst)
    }

    /// The same, but that `course` hears of each step before it is taken, and says of each one that failed
    /// whether that is the end.
    pub(crate) fn go_through(
        &self,
        slot: u32,
        master: Pid,
        worker: Option<u64>,
        course: &mut impl Course,
    ) -> Result<(), Failure> {
        mark::wear(worker);
        if let Some(mask) = self.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        if let Some((nice, text)) = &self.nice {
            course.take(Step::Nice, || set_nice(*nice, text))?;
        }
        if let Some(score) = &self.oom_score_adj {
            course.take(Step::OomScore, || tell_kernel(c"/proc/self/oom_score_adj", score))?;
        }
        if let Some(cpus) = &self.cpus {
            course.take(Step::Affinity, || cpus.apply(slot))?;
        }
        let restored = self.nofile.restore().map_err(|errno| Failure {
            detail: u8::try_from(libc::RLIMIT_NOFILE).unwrap_or(0),
            ..Failure::of(Step::Limit)(errno)
        });
        restored.or_else(|failure| course.judge(failure))?;
        for limit in &self.limits {
            limit.apply().or_else(|failure| course.judge(failure))?;
        }
        if let Some(ids) = &self.ids {
            course.begin(Step::User, 0);
            ids.take_on().or_else(|failure| course.judge(failure))?;
            course.take(Step::Session, || nix::sys::prctl::set_pdeathsig(Signal::SIGKILL))?;
            process::leave_if_orphaned(master);
        }
        if let Some(directory) = &self.directory {
            course.take(Step::Directory, || nix::unistd::chdir(directory.as_c_str()))?;
        }
        Ok(())
    }
}

/// What comes of the steps of a setup. It is called in a child, where only system calls are made.
pub(crate) trait Course {
    /// A step is about to be taken, which may never come to an end.
    fn begin(&mut self, step: Step, detail: u8);

    /// A step failed; an error ends the attempt.
    fn judge(&mut self, failure: Failure) -> Result<(), Failure>;

    /// Takes a step.
    fn take(&mut self, step: Step, act: impl FnOnce() -> nix::Result<()>) -> Result<(), Failure> {
        self.begin(step, 0);
        act().map_err(Failure::of(step)).or_else(|failure| self.judge(failure))
    }
}

/// The first step that fails is the end.
struct UpToTheFirst;

impl Course for UpToTheFirst {
    fn begin(&mut self, _: Step, _: u8) {}

    fn judge(&mut self, failure: Failure) -> Result<(), Failure> {
        Err(failure)
    }
}

impl ResourceLimit {
    fn apply(self) -> Result<(), Failure> {
        let limit = libc::rlimit { rlim_cur: self.soft, rlim_max: self.hard };
        // SAFETY: the pointer is to a live variable; an unknown resource is refused with EINVAL.
        let set = unsafe { libc::setrlimit(self.resource.into(), &raw const limit) };
        let failed = |errno| Failure { detail: self.resource, ..Failure::of(Step::Limit)(errno) };
        Errno::result(set).map(drop).map_err(failed)
    }
}

/// The name of a resource, as getrlimit(2) has it.
fn resource_name(resource: u8) -> &'static str {
    let names = [
        (libc::RLIMIT_AS, "RLIMIT_AS"),
        (libc::RLIMIT_CORE, "RLIMIT_CORE"),
        (libc::RLIMIT_CPU, "RLIMIT_CPU"),
        (libc::RLIMIT_DATA, "RLIMIT_DATA"),
        (libc::RLIMIT_FSIZE, "RLIMIT_FSIZE"),
        (libc::RLIMIT_LOCKS, "RLIMIT_LOCKS"),
        (libc::RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK"),
        (libc::RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE"),
        (libc::RLIMIT_NICE, "RLIMIT_NICE"),
        (libc::RLIMIT_NOFILE, "RLIMIT_NOFILE"),
        (libc::RLIMIT_NPROC, "RLIMIT_NPROC"),
        (libc::RLIMIT_RSS, "RLIMIT_RSS"),
        (libc::RLIMIT_RTPRIO, "RLIMIT_RTPRIO"),
        (libc::RLIMIT_RTTIME, "RLIMIT_RTTIME"),
        (libc::RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING"),
        (libc::RLIMIT_STACK, "RLIMIT_STACK"),
    ];
    let named = names.into_iter().find(|(number, _)| u8::try_from(*number) == Ok(resource));
    named.map_or("a resource limit", |(_, name)| name)
}

fn set_nice(nice: i32, text: &str) -> nix::Result<()> {
    // SAFETY: changes the priority of the calling process only, and touches no memory.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })?;
    let own = nix::unistd::getpid();
    if nix::unistd::getsid(None) == Ok(own) {
        // That of the session among others (sched(7)). Not every kernel has it, and none lets everybody set it
        // at any time.
        let _ = tell_kernel(c"/proc/self/autogroup", text);
    }
    Ok(())
}

fn tell_kernel(path: &CStr, text: &str) -> nix::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    fds::write(&file, text.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_found_by_its_number() {
        for step in Step::ALL {
            assert_eq!(Step::numbered(step as u8), Some(step));
        }
        assert_eq!(Step::numbered(0), None);
        assert_eq!(Step::numbered(Step::Exec as u8 + 1), None);
    }

    #[test]
    fn the_cpus_of_this_process_are_spread() {
        let Cpus::Spread(cpus) = Cpus::spread().unwrap() else { panic!("a list") };
        assert_eq!(cpus.len(), std::thread::available_parallelism().unwrap().get());
    }
}
