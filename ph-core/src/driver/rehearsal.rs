//! A rehearsal: everything that would keep a master from starting, found without starting it.
//!
//! It goes through what `run` does, in the same order and by the same code, but goes on after a failure,
//! so that all are known after one pass. Beyond that it looks at what `run` can learn from its workers
//! only: whether they, as who they will be, may execute the program, and whether there are descriptors
//! enough. It leaves nothing behind and changes nothing of the process, and a master that runs, starts or
//! stops beside it does not notice.
//!
//! A file system that does not answer holds it up for some seconds where the paths of workers are tried,
//! which a child does: the working directory, the program and what interprets it. The folders of pidfile
//! and sockets and those in `PATH` it looks at itself, as `run` does, and would wait there as long as `run`.

use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::Pid;

use super::Master;
use super::command::CommandError;
use super::control::CONTROL_SOCKET;
use super::error::RunError;
use super::listeners::Address;
use super::master::Settings;
use super::pidfile::{Pidfile, Running};
use super::prospect::{Prospect, prospect};
use crate::sys::fds::NofileLimit;
use crate::sys::{clock, procfs};

mod finding;
mod sizes;
mod workers;

pub use finding::Finding;

/// How often the addresses are looked at again because a master has come or gone meanwhile, and the pause
/// before that: workers of one that is gone may take a moment.
const LOOKS: u32 = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// The standard streams, and what a forked worker waits with. What it was given it has already.
const LEAST_OF_FORKED: u64 = 4;

/// Of each event command that runs: what tells of its start, and its outputs until the log has them.
const OF_EVENTS: u64 = 4 * 3;

/// What a rehearsal has found out.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// In the order in which `run` would meet it; empty if the master would start.
    pub findings: Vec<Finding>,
    /// Masters of this service that run already. With `single_instance` that alone would keep another
    /// from starting, but it is nothing that has to be mended.
    pub running: Vec<Running>,
}

impl Master {
    /// Finds out what would keep this master from starting, without starting it. It takes a process of
    /// one thread, as [`run`](Self::run) does. For a working directory, a program or an interpreter that
    /// does not answer it waits some seconds each; for the other folders as long as `run` would.
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
        self.0.spec.command.as_ref().map(|command| self.0.find(command))
    }

    /// The program of [`on_event`](Self::on_event), as it is found now; `None` if there is none to be run.
    ///
    /// # Errors
    ///
    /// It is not there, or cannot be executed.
    pub fn event_program(&self) -> Option<Result<PathBuf, CommandError>> {
        self.0.spec.event_program()
    }
}

impl Settings {
    fn rehearse(&self) -> Rehearsal {
        let mut findings: Vec<_> = self.bad_app_keys().map(Finding::Refused).collect();
        let (running, errors) = self.look_for_masters();
        // What goes with the pidfile has its troubles, which are told already.
        let is_told =
            !errors.is_empty() && self.control.as_ref().is_some_and(|it| it.path.is_none());
        findings.extend(errors.into_iter().map(Finding::Refused));
        let (running, of_listeners) = self.rehearse_listeners(running);
        findings.extend(of_listeners);
        findings.extend(self.look_at_control(&running).filter(|_| !is_told));
        self.count_descriptors(&mut findings);
        self.rehearse_workers(&mut findings);
        findings.extend(self.spec.clone().find_on_event().err().map(Finding::Refused));
        Rehearsal { findings, running }
    }

    fn look_for_masters(&self) -> (Vec<Running>, Vec<RunError>) {
        self.pidfile.as_ref().map(Pidfile::look).unwrap_or_default()
    }

    /// A master that starts takes its lock before its addresses, and one that stops gives them up first;
    /// so whoever has an address that should be free may be a master that was not there before, or
    /// is about to go.
    fn rehearse_listeners(&self, mut running: Vec<Running>) -> (Vec<Running>, Vec<Finding>) {
        let mut findings = self.look_at_addresses(&running);
        for look in 0..LOOKS {
            let taken: Vec<_> = findings.iter().filter(|it| it.may_be_passing()).collect();
            let is_passing = taken.iter().any(|it| it.is_about_to_pass())
                || (look == 0 && taken.iter().any(|it| it.is_by_nobody()));
            let has_changed = !taken.is_empty() && self.look_for_masters().0 != running;
            if !is_passing && !has_changed {
                break;
            }
            clock::pause(LOOK_PAUSE);
            running = self.look_for_masters().0;
            findings = self.look_at_addresses(&running);
        }
        (running, findings)
    }

    fn look_at_addresses(&self, running: &[Running]) -> Vec<Finding> {
        let masters: Vec<_> = running.iter().filter_map(|it| it.pid).map(Pid::from_raw).collect();
        let indexed = self.spec.addresses.iter().enumerate();
        indexed.filter_map(|(index, address)| self.look_at(index, address, &masters)).collect()
    }

    fn look_at(&self, index: usize, address: &Address, masters: &[Pid]) -> Option<Finding> {
        let shown = address.to_string();
        if let Some(other) = self.spec.addresses[..index].iter().find(|it| it.overlaps(address)) {
            return Some(Finding::Twice { address: shown, other: other.to_string() });
        }
        let is_only_one = self.pidfile.as_ref().is_none_or(|pidfile| pidfile.single_instance);
        let is_unix = matches!(address, Address::Unix(_));
        let may_be_given = || if is_unix { self.spec.socket_options().try_owner() } else { Ok(()) };
        let found = prospect(address, masters).and_then(|found| may_be_given().map(|()| found));
        match found {
            Ok(Prospect::Free) => None,
            Ok(Prospect::Own) if is_only_one => None,
            Ok(Prospect::Own) => Some(Finding::SecondInstance { address: shown }),
            Ok(Prospect::Hidden) => Some(Finding::Hidden { address: shown }),
            Ok(Prospect::Unseen) => Some(Finding::Unseen { address: shown }),
            Ok(Prospect::Taken(holder)) => {
                let holder = holder.map(|pid| (pid.as_raw(), procfs::name(pid)));
                Some(Finding::Taken { address: shown, holder })
            }
            Err(source) => Some(Finding::Refused(RunError::Listen { address: shown, source })),
        }
    }

    /// Whether the control socket could be made, or replaced.
    fn look_at_control(&self, running: &[Running]) -> Option<Finding> {
        let path = self.control.as_ref()?.path_of(self.pidfile.as_ref(), 1)?;
        let address = Address::Unix(path.clone());
        let pids = |running: &[Running]| -> Vec<_> {
            running.iter().filter_map(|it| it.pid).map(Pid::from_raw).collect()
        };
        let mut found = prospect(&address, &pids(running));
        for _ in 0..LOOKS {
            if !matches!(found, Ok(Prospect::Taken(_))) {
                break;
            }
            // As above: perhaps by a master that was not there before.
            clock::pause(LOOK_PAUSE);
            found = prospect(&address, &pids(&self.look_for_masters().0));
        }
        let source = match found {
            Ok(Prospect::Free | Prospect::Own | Prospect::Hidden | Prospect::Unseen) => {
                return None;
            }
            Ok(Prospect::Taken(_)) => std::io::Error::from_raw_os_error(libc::EADDRINUSE),
            Err(source) => source,
        };
        Some(Finding::Refused(RunError::File { what: CONTROL_SOCKET, path, source }))
    }

    /// The master raises its own limit to the hard one; its workers get the soft one back.
    fn count_descriptors(&self, findings: &mut Vec<Finding>) {
        let Ok(own) = NofileLimit::now() else { return };
        let limit = own.hard();
        let (target, most) = (self.spec.policy.target, self.spec.policy.max_workers);
        let too_many =
            [(target, true), (most, false)].into_iter().find_map(|(workers, is_target)| {
                let needed = self.descriptors_of_master(workers.into());
                let is_certain = is_target && self.least_of_master() > limit;
                let finding =
                    Finding::MasterDescriptors { workers, is_target, is_certain, needed, limit };
                (needed > limit).then_some(finding)
            });
        findings.extend(too_many);
        let limit = self.spec.conditions.descriptors().unwrap_or_else(|| own.soft());
        let needed = self.descriptors_of_worker();
        if needed > limit {
            // Whether a command needs any is for its dynamic linker to say, and that is tried.
            let is_certain = match &self.spec.command {
                None => limit < LEAST_OF_FORKED,
                Some(_) => limit <= self.spec.addresses.len() as u64 + 3,
            };
            findings.push(Finding::WorkerDescriptors { needed, is_certain, limit });
        }
    }

    /// Without these there is no master of commands, even of one: the standard streams, the wake pipe,
    /// epoll, /dev/null, a lock, the control socket, the helpers, the listeners, and the pipe of a spawn.
    fn least_of_master(&self) -> u64 {
        const ALWAYS: u64 = 3 + 2 + 1 + 1 + 2;
        let lock = u64::from(self.pidfile.is_some());
        let control = u64::from(self.control.is_some());
        let addresses = self.spec.addresses.len() as u64;
        ALWAYS + lock + control + self.all_helpers().count() as u64 + addresses
    }

    /// What a master may have open at once. Always: the standard streams, the log and the workers' copy
    /// of it, the lock, the wake pipe, epoll, the spare ones, the cgroup and its parent and what says
    /// that it is empty, /dev/null, the control socket, and of forked workers the bell. For a moment: what a spawn takes, and
    /// a look into /proc. Each helper has a pipe. A listener of commands is there twice, because a spawn
    /// takes a copy above those it overwrites; with `reuse_port` each slot has its own. A command has a pipe until its program runs, and if a disk
    /// is slow none does yet; a forked worker takes none.
    fn descriptors_of_master(&self, workers: u64) -> u64 {
        const ALWAYS: u64 = 3 + 2 + 1 + 2 + 1 + 4 + 3 + 1 + 2 + 1;
        const FOR_A_MOMENT: u64 = 6 + 3;
        let of_events = if self.spec.on_event.is_some() { OF_EVENTS } else { 0 };
        let helpers = self.all_helpers().count() as u64 + of_events;
        let listeners = self.spec.addresses.len() as u64;
        let of_workers = match &self.spec.command {
            None => listeners,
            Some(_) => 2 * listeners + workers,
        };
        let of_slots = if self.spec.sockets.reuse_port { listeners * workers } else { 0 };
        ALWAYS + FOR_A_MOMENT + helpers + of_workers + of_slots
    }

    /// What a worker has open before its own code runs: the standard streams, its listeners; a command
    /// some more for what the dynamic linker opens one after the other; a forked worker its log, its stop
    /// pipe, its bell, and epoll.
    fn descriptors_of_worker(&self) -> u64 {
        let own = match &self.spec.command {
            None => 6,
            Some(_) => 2,
        };
        3 + self.spec.addresses.len() as u64 + own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Address, Command};

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
        assert_eq!(warnings(beyond, beyond), [true], "an estimate");
    }
}
