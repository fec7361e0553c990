//! A rehearsal: everything that would keep a master from starting, found without starting it.
//!
//! It goes through what `run` does, in the same order and by the same code, but goes on after a failure,
//! so that all are known after one pass. Beyond that it looks at what `run` can learn from its workers
//! only: whether they, as who they will be, may execute the program, and whether there are descriptors
//! enough. It leaves nothing behind and changes nothing of the process, and a master that runs does not
//! notice.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nix::unistd::Pid;

use super::command::{Command, CommandError};
use super::error::{RunError, named, system};
use super::listeners::{Prospect, prospect};
use super::master::{Settings, WorkerSpec};
use super::pidfile::{Pidfile, Running};
use super::program::{self, Kind};
use super::{Master, environment};
use crate::sys::environ::{Environment, c_string};
use crate::sys::fds::NofileLimit;
use crate::sys::setup::{Setup, Step};
use crate::sys::trial::{Need, Use};
use crate::sys::{process, procfs, trial};

/// What a rehearsal has found out.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// In the order in which `run` would meet it; empty if the master would start.
    pub findings: Vec<Finding>,
    /// Masters of this service that run already. With `single_instance` that alone would keep another
    /// from starting, but it is nothing that has to be mended.
    pub running: Vec<Running>,
}

/// One thing that would keep the master, or its workers, from starting.
#[derive(Debug)]
pub enum Finding {
    /// What `run` would end with.
    Refused(RunError),
    /// Another process listens on the address.
    Taken {
        /// Which one.
        address: String,
        /// The pid and the name of that process, if it can be found.
        holder: Option<(i32, String)>,
    },
    /// The same service listens there already, by another of its addresses.
    Twice {
        /// Which one.
        address: String,
        /// The one before it.
        other: String,
    },
    /// The workers' user may not execute the program, or not even reach it.
    Forbidden {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// What the first line of the program names cannot be executed.
    Interpreter {
        /// The program.
        program: PathBuf,
        /// What is to interpret it.
        interpreter: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The master may not open as many descriptors as it needs for so many workers.
    MasterDescriptors {
        /// For how many.
        workers: u32,
        /// Whether so many are wanted from the start; else it is `max_workers`, and a warning.
        is_target: bool,
        /// What it may need at most.
        needed: u64,
        /// The hard limit of this process.
        limit: u64,
    },
    /// A worker may not open as many descriptors as it starts with.
    WorkerDescriptors {
        /// What it needs at least.
        needed: u64,
        /// What it may have.
        limit: u64,
    },
}

impl Finding {
    /// Whether the master would start all the same.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        matches!(self, Self::MasterDescriptors { is_target: false, .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Taken { address, holder } => {
                let in_use = named(&io::Error::from_raw_os_error(libc::EADDRINUSE));
                write!(f, "cannot listen on {address}: {in_use}")?;
                match holder {
                    Some((pid, name)) => write!(f, ": pid {pid} ({name}) has it"),
                    None => Ok(()),
                }
            }
            Self::Twice { address, other } => {
                write!(f, "cannot listen on {address}: {other} of the same service overlaps it")
            }
            Self::Forbidden { program, source } => {
                write!(f, "exec {} as the workers' user: {}", program.display(), named(source))
            }
            Self::Interpreter { program, interpreter, source } => {
                let (program, interpreter) = (program.display(), interpreter.display());
                write!(f, "exec {program}: its interpreter {interpreter}: {}", named(source))
            }
            Self::MasterDescriptors { workers, needed, limit, .. } => {
                write!(
                    f,
                    "a master of {workers} workers may need {needed} descriptors, and the hard limit \
                     of this process is {limit}"
                )
            }
            Self::WorkerDescriptors { needed, limit } => {
                write!(f, "a worker starts with {needed} descriptors, and its limit is {limit}")
            }
        }
    }
}

impl Master {
    /// Finds out what would keep this master from starting, without starting it. It takes a process of
    /// one thread, as [`run`](Self::run) does. It may wait some seconds for a folder that does not answer.
    #[must_use]
    pub fn rehearse(&self) -> Rehearsal {
        self.0.rehearse()
    }

    /// The program of command workers, as it is found now; `None` if the workers are forked.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be executed.
    pub fn program(&self) -> Option<Result<PathBuf, CommandError>> {
        match &self.0.worker {
            WorkerSpec::Forked(_) => None,
            WorkerSpec::Command(command) => Some(self.0.find(command)),
        }
    }
}

impl Settings {
    fn rehearse(&self) -> Rehearsal {
        let mut findings: Vec<_> = self.bad_app_keys().map(Finding::Refused).collect();
        let (running, errors) = self.pidfile.as_ref().map(Pidfile::look).unwrap_or_default();
        findings.extend(errors.into_iter().map(Finding::Refused));
        self.rehearse_listeners(&running, &mut findings);
        self.count_descriptors(&mut findings);
        self.rehearse_workers(&mut findings);
        Rehearsal { findings, running }
    }

    fn rehearse_listeners(&self, running: &[Running], findings: &mut Vec<Finding>) {
        let masters: Vec<_> = running.iter().filter_map(|it| it.pid).map(Pid::from_raw).collect();
        for (index, address) in self.addresses.iter().enumerate() {
            let shown = address.to_string();
            if let Some(other) = self.addresses[..index].iter().find(|it| it.overlaps(address)) {
                findings.push(Finding::Twice { address: shown, other: other.to_string() });
                continue;
            }
            match prospect(address, &masters) {
                Ok(Prospect::Free | Prospect::Own) => {}
                Ok(Prospect::Taken(holder)) => {
                    let holder = holder.map(|pid| (pid.as_raw(), procfs::name(pid)));
                    findings.push(Finding::Taken { address: shown, holder });
                }
                Err(source) => {
                    let error = RunError::Listen { address: shown, source };
                    findings.push(Finding::Refused(error));
                }
            }
        }
    }

    /// The master raises its own limit to the hard one; its workers get the soft one back.
    fn count_descriptors(&self, findings: &mut Vec<Finding>) {
        let Ok(own) = NofileLimit::now() else { return };
        let limit = own.hard();
        let needed = |workers: u32| self.descriptors_of_master(workers.into());
        let (target, most) = (self.policy.target, self.policy.max_workers);
        if needed(target) > limit {
            let needed = needed(target);
            let workers = target;
            findings.push(Finding::MasterDescriptors { workers, is_target: true, needed, limit });
        } else if needed(most) > limit {
            let needed = needed(most);
            let workers = most;
            findings.push(Finding::MasterDescriptors { workers, is_target: false, needed, limit });
        }
        let limit = self.conditions.descriptors().unwrap_or_else(|| own.soft());
        let needed = self.descriptors_of_worker();
        if needed > limit {
            findings.push(Finding::WorkerDescriptors { needed, limit });
        }
    }

    /// What a master may have open at once. Always: the standard streams, the log and the workers' copy
    /// of it, the lock, the wake pipe, epoll, the spare ones, the cgroup and its parent and what says
    /// that it is empty, /dev/null, and of forked workers the bell. For a moment: what a spawn takes, and
    /// a look into /proc. Each helper has a pipe. A listener of commands is there twice, because a spawn
    /// takes a copy above those it overwrites. A command has a pipe until its program runs, and if a disk
    /// is slow none does yet; a forked worker takes none.
    fn descriptors_of_master(&self, workers: u64) -> u64 {
        const ALWAYS: u64 = 3 + 2 + 1 + 2 + 1 + 4 + 3 + 1 + 2;
        const FOR_A_MOMENT: u64 = 6 + 3;
        let helpers = self.all_helpers().count() as u64;
        let listeners = self.addresses.len() as u64;
        let of_workers = match &self.worker {
            WorkerSpec::Forked(_) => listeners,
            WorkerSpec::Command(_) => 2 * listeners + workers,
        };
        ALWAYS + FOR_A_MOMENT + helpers + of_workers
    }

    /// What a worker has open before its own code runs: the standard streams, its listeners; a command
    /// some more for what the dynamic linker opens one after the other; a forked worker its log, its stop
    /// pipe, its bell, and epoll.
    fn descriptors_of_worker(&self) -> u64 {
        let own = match &self.worker {
            WorkerSpec::Forked(_) => 6,
            WorkerSpec::Command(_) => 2,
        };
        3 + self.addresses.len() as u64 + own
    }

    /// Conditions, variables and program.
    fn rehearse_workers(&self, findings: &mut Vec<Finding>) {
        let setup = NofileLimit::now().map_err(system("getrlimit"));
        let setup = setup.and_then(|nofile| self.conditions.lay_out(nofile));
        let setup = setup.map_err(|error| findings.push(Finding::Refused(error))).ok();
        if let Err(source) = self.lay_out_environment() {
            let error = RunError::System { call: "prepare the environment", source };
            findings.push(Finding::Refused(error));
        }
        let found = match &self.worker {
            WorkerSpec::Forked(_) => None,
            WorkerSpec::Command(command) => Some((command, self.find(command))),
        };
        let candidate = found.as_ref().and_then(|(_, found)| found.as_deref().ok());
        let kind = candidate.map(program::kind);
        let interpreter = kind.as_ref().and_then(|kind| kind.interpreter());
        let tried: Vec<_> = candidate.into_iter().chain(interpreter).collect();
        if let Some(setup) = &setup {
            self.try_out(setup, &tried, findings);
        }
        match found {
            Some((_, Err(error))) => {
                findings.push(Finding::Refused(RunError::Command(error)));
            }
            Some((command, Ok(path))) => {
                self.judge_program(command, path, kind.as_ref(), findings);
            }
            None => {}
        }
    }

    /// A child becomes what a worker would be, and tries whether it may execute these: the program and
    /// its interpreter.
    fn try_out(&self, setup: &Setup, tried: &[&std::path::Path], findings: &mut Vec<Finding>) {
        match process::thread_count() {
            Ok(1) => {}
            Ok(threads) => return findings.push(Finding::Refused(RunError::Threads { threads })),
            Err(source) => {
                let error = RunError::System { call: "stat /proc/self/task", source };
                return findings.push(Finding::Refused(error));
            }
        }
        let need = |path: &&std::path::Path| Need {
            use_of: Use::Execute,
            paths: c_string(path).into_iter().collect(),
        };
        let failures = match trial::try_out(setup, &tried.iter().map(need).collect::<Vec<_>>()) {
            Ok(failures) => failures,
            Err((call, errno)) => return findings.push(Finding::Refused(system(call)(errno))),
        };
        for failure in failures {
            let source = io::Error::from_raw_os_error(failure.errno);
            findings.push(match (failure.step, failure.detail, tried) {
                (Step::Exec, 0, [program, ..]) => {
                    let path = program.to_path_buf();
                    match self.conditions.is_another_account() {
                        true => Finding::Forbidden { program: path, source },
                        false => Finding::Refused(CommandError { path, source }.into()),
                    }
                }
                (Step::Exec, _, [program, interpreter]) => Finding::Interpreter {
                    program: program.to_path_buf(),
                    interpreter: interpreter.to_path_buf(),
                    source,
                },
                _ => Finding::Refused(self.conditions.refused(failure, self.name.as_ref())),
            });
        }
    }

    /// What can be known of a program that was found without executing it.
    fn judge_program(
        &self,
        command: &Command,
        path: PathBuf,
        kind: Option<&Kind>,
        findings: &mut Vec<Finding>,
    ) {
        if command.words_of(0, 1).iter().any(|word| c_string(word).is_err()) {
            let source = io::Error::from(io::ErrorKind::InvalidInput);
            let error = RunError::System { call: "prepare the command", source };
            findings.push(Finding::Refused(error));
        }
        match kind {
            Some(Kind::NoProgram) => {
                let source = io::Error::from_raw_os_error(libc::ENOEXEC);
                findings.push(Finding::Refused(CommandError { path, source }.into()));
            }
            Some(Kind::Script { named: Some(named), .. }) => {
                // What `env` will look for, it looks for as the workers would.
                if let Err(error) = self.find(&Command::new([named])) {
                    let (interpreter, source) = (error.path, error.source);
                    findings.push(Finding::Interpreter { program: path, interpreter, source });
                }
            }
            Some(Kind::Binary | Kind::Script { named: None, .. } | Kind::Unknown) | None => {}
        }
    }

    /// Every variable is one that an environment can hold.
    fn lay_out_environment(&self) -> io::Result<()> {
        let common = environment::common(&self.name, 1, &self.app);
        let all = self.conditions.common_variables().into_iter().chain(common);
        let all = all.chain(self.conditions.own_variables(0, 1));
        // Keys of the application that hold a NUL byte have been named already.
        let all = all.filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"PH_APP_"));
        Environment::new(all).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Address, Pidfile};

    fn texts(rehearsal: &Rehearsal) -> Vec<String> {
        rehearsal.findings.iter().map(ToString::to_string).collect()
    }

    /// Beside a second thread there is no trial; the tests of `ph check` see to that.
    #[test]
    fn all_is_found_in_one_pass_and_nothing_is_left_behind() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        let folder = tempfile::tempdir().unwrap();
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let command = Command::new([folder.path().join("missing")]);
        let master = Master::command("web", command)
            .app([("a=b".to_owned(), String::new())].into())
            .pidfile(Pidfile { path: folder.path().join("no/web.pid"), single_instance: true })
            .bind(Address::Tcp { host: Some("127.0.0.1".to_owned()), port })
            .bind(Address::Tcp { host: None, port })
            .bind(Address::Unix(folder.path().join("a.sock")))
            .environment([("A\0", "b")])
            .limit(crate::Resource::RLIMIT_NOFILE, Some(4), None);
        let rehearsal = master.rehearse();
        let found = texts(&rehearsal);
        let wanted = [
            "\"a=b\"",
            "web.lock",
            "EADDRINUSE",
            "overlaps it",
            "starts with 8 ",
            "environment",
            "threads",
            "missing",
        ];
        assert_eq!(found.len(), wanted.len(), "{found:#?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.contains(wanted), "{wanted}: {found}");
        }
        assert!(rehearsal.running.is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(done);
        assert!(thread.join().unwrap().is_err());
    }

    #[test]
    fn descriptors_are_counted_for_the_target_and_for_the_most_there_may_be() {
        let hard = NofileLimit::now().unwrap().hard();
        let beyond = u32::try_from(hard.saturating_add(1)).unwrap_or(u32::MAX);
        let warnings = |target, most| -> Vec<_> {
            let master = Master::command("web", Command::new(["sh"])).policy(|policy| {
                (policy.target, policy.max_workers) = (target, most);
            });
            let mut findings = Vec::new();
            master.0.count_descriptors(&mut findings);
            findings.iter().map(Finding::is_warning).collect()
        };
        assert_eq!(warnings(1, 1), [false; 0]);
        assert_eq!(warnings(1, beyond), [true]);
        assert_eq!(warnings(beyond, beyond), [false]);
    }
}
