//! The conditions workers run under: who they are, what they may, where and with which variables; and
//! how far the end of one reaches.
//!
//! This is the other half of the front door. Everything is looked up before any fork and, where it can
//! fail, tried once in a child that does nothing else: what would fail in every worker fails at the
//! start, with the name of the step.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};

use super::command::Expand;
use super::error::{RunError, system};
use super::{Master, environment, report};
use crate::sys::fds::NofileLimit;
use crate::sys::privileges::{Account, Ids};
use crate::sys::setup::{Cpus, Failure, ResourceLimit, Setup};
use crate::sys::trial;

/// The CPUs workers may run on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum CpuAffinity {
    /// One CPU each: slot i has CPU i mod n of the n this process may use (as nginx's
    /// `worker_cpu_affinity auto`).
    Spread,
    /// All workers on these, by number.
    List(Vec<u16>),
}

/// How far the SIGKILL of a worker, and the clearing up after it, reaches (systemd's `KillMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum KillMode {
    /// Everything it started, wherever that went: its cgroup where there may be one, else its group,
    /// its session, and what carries its mark in the environment.
    #[default]
    Tree,
    /// Its process group. What left that outlives worker and master.
    Group,
    /// The process itself. What it started outlives worker and master.
    Process,
}

/// See the builder methods of [`Master`].
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Conditions {
    #[serde(with = "super::spec::path")]
    pub(super) directory: Option<PathBuf>,
    pub(super) kill_mode: KillMode,
    account: Option<Account>,
    umask: Option<u32>,
    limits: Vec<ResourceLimit>,
    nice: Option<i32>,
    oom_score_adj: Option<i32>,
    cpus: Option<CpuAffinity>,
    is_clear: bool,
    variables: Vec<Variable>,
    /// What fills in what differs between workers. It is code of the program, and stays with it.
    #[serde(skip)]
    pub(super) expand: Option<Expand>,
}

/// A variable of workers.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Variable {
    name: OsString,
    value: OsString,
    /// Whether something is to be filled in.
    is_late: bool,
}

impl Master {
    /// The workers' working directory. The default is the master's own.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        // Made absolute now; without a current directory it stays relative, and `run` says why.
        let absolute = std::path::absolute(&directory).unwrap_or(directory);
        self.0.spec.conditions.directory = Some(absolute);
        self
    }

    /// User and groups of the workers; the master keeps its own. Anybody but the master's own user
    /// takes root: with the capabilities alone the way back would stay open, and is refused.
    pub fn account(mut self, account: Account) -> Self {
        self.0.spec.conditions.account = Some(account);
        self
    }

    /// The workers' umask, 0..=0o777. The default is the master's own.
    pub fn umask(mut self, umask: u32) -> Self {
        self.0.spec.conditions.umask = Some(umask & 0o777);
        self
    }

    /// A resource limit of the workers, in the kernel's unit for it (setrlimit(2)); `None` is no
    /// limit. The default is the master's own.
    pub fn limit(mut self, resource: Resource, soft: Option<u64>, hard: Option<u64>) -> Self {
        let or_none = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
        // The kernel knows sixteen resources.
        let resource = u8::try_from(resource as u32).unwrap_or(u8::MAX);
        let limit = ResourceLimit { resource, soft: or_none(soft), hard: or_none(hard) };
        self.0.spec.conditions.limits.push(limit);
        self
    }

    /// The workers' nice value, -20..=19. The default is the master's own.
    pub fn nice(mut self, nice: i32) -> Self {
        self.0.spec.conditions.nice = Some(nice);
        self
    }

    /// How soon the kernel's out-of-memory killer picks a worker: -1000 (never) to 1000 (first). The
    /// default is the master's own.
    pub fn oom_score_adj(mut self, score: i32) -> Self {
        self.0.spec.conditions.oom_score_adj = Some(score);
        self
    }

    /// The CPUs workers may run on. The default are the master's own.
    pub fn cpu_affinity(mut self, cpus: CpuAffinity) -> Self {
        self.0.spec.conditions.cpus = Some(cpus);
        self
    }

    /// Whether workers get nothing of the master's own environment. The default is all but what
    /// speaks to the master alone: `PH_*`, `LISTEN_*`, `NOTIFY_SOCKET`, `WATCHDOG_*`.
    pub fn clear_env(mut self, is_clear: bool) -> Self {
        self.0.spec.conditions.is_clear = is_clear;
        self
    }

    /// Variables for the workers, on top of the environment they inherit. Of two with one name the
    /// later counts; those of the master, `PH_*` and `LISTEN_*` among them, count more.
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Self {
        self.0.spec.conditions.add_variables(variables, false);
        self
    }

    /// The same, but that each value is passed through `expand` before every spawn, with the worker's
    /// slot and generation. A master has one such function: of several the last counts.
    pub fn environment_expanded(
        mut self,
        variables: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
        expand: Expand,
    ) -> Self {
        self.0.spec.conditions.expand = Some(expand);
        self.0.spec.conditions.add_variables(variables, true);
        self
    }

    /// How far the end of a worker reaches. The default is its whole tree.
    pub fn kill_mode(mut self, kill_mode: KillMode) -> Self {
        self.0.spec.conditions.kill_mode = kill_mode;
        self
    }
}

impl Conditions {
    /// Whether workers are to be somebody else than the master.
    pub(super) fn is_another_account(&self) -> bool {
        self.ids().is_some()
    }

    pub(super) fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// Who the workers are to be, if that is somebody else.
    pub(super) fn ids(&self) -> Option<Ids> {
        self.account.as_ref()?.ids()
    }

    /// The user's number that workers start with.
    pub(super) fn user_of_workers(&self) -> u32 {
        let own = || nix::unistd::getuid().as_raw();
        self.ids().map_or_else(own, |ids| ids.user_number())
    }

    /// Those that are the master's to set are left to it.
    fn add_variables(
        &mut self,
        given: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
        is_late: bool,
    ) {
        let given = given.into_iter().map(|(name, value)| Variable {
            name: name.into(),
            value: value.into(),
            is_late,
        });
        self.variables.extend(given.filter(|it| !environment::is_masters_own(&it.name)));
    }

    /// The variables all workers get, without those that are the master's to set.
    pub(super) fn common_variables(&self) -> Vec<(OsString, OsString)> {
        let inherited = environment::inherited().filter(|_| !self.is_clear);
        let given = self.variables.iter().filter(|it| !it.is_late);
        let given = given.map(|it| (it.name.clone(), it.value.clone()));
        let mut all: Vec<_> = inherited.chain(given).collect();
        // A name that is there twice means to most programs what it meant first.
        all.retain(|(name, _)| !self.variables.iter().any(|it| it.is_late && it.name == *name));
        all
    }

    /// The variables that differ from worker to worker.
    pub(super) fn own_variables(&self, slot: u32, generation: u32) -> Vec<(OsString, OsString)> {
        let late = self.variables.iter().filter(|it| it.is_late);
        let expanded = |value: &OsString| match self.expand {
            Some(expand) => expand(value, slot, generation),
            None => value.clone(),
        };
        late.map(|it| (it.name.clone(), expanded(&it.value))).collect()
    }

    /// Where a program is looked for: the `PATH` it will have itself.
    pub(super) fn search_path(&self) -> Option<OsString> {
        let given = self.own_variables(0, 1);
        let all = self.common_variables().into_iter().chain(given);
        environment::merged(all)
            .into_iter()
            .find(|(name, _)| name == "PATH")
            .map(|(_, value)| value)
    }

    /// Lays out what each child has to do, and sees that it can be done.
    pub(super) fn setup(&self, nofile: NofileLimit, what: &OsStr) -> Result<Setup, RunError> {
        let setup = self.lay_out(nofile)?;
        let failures = trial::try_out(&setup, &[]);
        let failures = failures.map_err(|(call, errno)| system(call)(errno))?;
        match failures.first() {
            None => Ok(setup),
            Some(failure) => Err(self.refused(*failure, what)),
        }
    }

    /// Lays out what each child has to do.
    pub(super) fn lay_out(&self, nofile: NofileLimit) -> Result<Setup, RunError> {
        let cpus = self.cpus.as_ref().map(|cpus| match cpus {
            CpuAffinity::Spread => Cpus::spread(),
            CpuAffinity::List(list) => Cpus::all(list),
        });
        let setup = Setup {
            umask: self.umask,
            limits: self.limits.clone(),
            nice: self.nice.map(|nice| (nice, nice.to_string())),
            oom_score_adj: self.oom_score_adj.map(|score| score.to_string()),
            cpus: cpus.transpose().map_err(system("sched_getaffinity"))?,
            ids: self.account.as_ref().and_then(Account::ids),
            ..Setup::plain(nofile)
        };
        let directory = self.directory.as_deref().map(Path::as_os_str);
        setup
            .in_directory(directory)
            .map_err(|source| RunError::System { call: "prepare the workers", source })
    }

    /// What a failed step of a trial means; `what` are the workers of.
    pub(super) fn refused(&self, failure: Failure, what: &OsStr) -> RunError {
        let why = report::describe_failure(failure, Path::new(what), self);
        RunError::Conditions { condition: failure.condition(), why }
    }

    /// How many descriptors a worker may have open, if that was said.
    pub(super) fn descriptors(&self) -> Option<u64> {
        self.soft_limit(Resource::RLIMIT_NOFILE)
    }

    /// How large a worker's stack may become: a quarter of it is for arguments and environment.
    pub(super) fn stack(&self) -> u64 {
        let own = || getrlimit(Resource::RLIMIT_STACK).map_or(u64::MAX, |(soft, _)| soft);
        self.soft_limit(Resource::RLIMIT_STACK).unwrap_or_else(own)
    }

    fn soft_limit(&self, resource: Resource) -> Option<u64> {
        let is_meant = |it: &&ResourceLimit| u32::from(it.resource) == resource as u32;
        self.limits.iter().rfind(is_meant).map(|limit| limit.soft)
    }
}
