//! What the workers of one generation are made of. There is one of these for each generation that has
//! workers or may have to start some, so a reload that fails finds everything as it was.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use super::environment;
use serde::{Deserialize, Serialize};
use tracing::error;

use super::error::{RunError, named};
use super::listeners::{Listeners, Opened};
use super::probes::ProbeSource;
use super::spec::Spec;
use crate::arbiter::Generation;
use crate::sys::environ::Environment;
use crate::sys::fds::NofileLimit;
use crate::sys::setup::Setup;
use crate::sys::spawn::Program;
use crate::worker::Factory;

/// What makes workers.
pub(super) enum WorkerSource {
    Forked { factory: Factory, environment: Environment, setup: Setup },
    Command { program: Program, path: PathBuf },
}

/// One generation's makings.
pub(super) struct Era {
    pub(super) name: Arc<str>,
    pub(super) spec: Spec,
    pub(super) app: Arc<BTreeMap<String, String>>,
    pub(super) listeners: Listeners,
    pub(super) source: WorkerSource,
    pub(super) probe: Option<ProbeSource>,
}

/// Where the programs are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Paths {
    #[serde(with = "super::spec::path")]
    pub(super) command: Option<PathBuf>,
    #[serde(with = "super::spec::path")]
    pub(super) probe: Option<PathBuf>,
}

/// What all generations of a master share.
pub(super) struct Makings<'a> {
    /// There is one if workers are forked.
    pub(super) factory: Option<&'a Factory>,
    pub(super) instance: u32,
    pub(super) nofile: NofileLimit,
    /// Signals the master ignores.
    pub(super) ignored: &'a [i32],
}

impl Era {
    /// Prepares everything a spawn needs. No disk and no server is asked for anything: the program was
    /// found (`path`), and the listeners opened, before.
    pub(super) fn new(
        spec: Spec,
        listeners: Listeners,
        setup: Setup,
        Paths { command: path, probe }: Paths,
        makings: &Makings<'_>,
    ) -> Result<Self, RunError> {
        let common = environment::common(&spec.name, makings.instance, &spec.app);
        let variables = spec.conditions.common_variables().into_iter().chain(common.clone());
        let refused = |call| move |source| RunError::System { call, source };
        let source = match (makings.factory, path) {
            (Some(factory), _) => {
                let environment = Environment::new(environment::merged(variables));
                let environment = environment.map_err(refused("prepare the environment"))?;
                WorkerSource::Forked { factory: Rc::clone(factory), environment, setup }
            }
            (None, path) => {
                let path = path.unwrap_or_default();
                let named = listeners.all().iter().map(|it| it.name().unwrap_or(&spec.name));
                let listening = environment::listening(&named.collect::<Vec<_>>());
                let watchdog = spec.policy.timeout.map(environment::watched);
                let own_pid = [
                    (listeners.len() > 0).then_some("LISTEN_PID"),
                    watchdog.is_some().then_some("WATCHDOG_PID"),
                ];
                let variables = environment::merged(variables.chain(listening).chain(watchdog));
                let environment =
                    Environment::new(variables).map_err(refused("prepare the environment"))?;
                let name = path.as_os_str();
                let program =
                    Program::new(name, environment, setup, &listeners.fds(), makings.ignored);
                let program = program.map_err(refused("prepare the command"))?;
                let program = program.with_own_pid(own_pid.into_iter().flatten());
                WorkerSource::Command { program, path }
            }
        };
        let probe = match (probe, &spec.probe) {
            (Some(path), Some(command)) => {
                let setup = Setup::plain(makings.nofile);
                let probe =
                    ProbeSource::new(&path, command.clone(), common, setup, makings.ignored);
                Some(probe.map_err(refused("prepare the probe"))?)
            }
            (Some(_) | None, _) => None,
        };
        let (name, app) = (spec.name.as_str().into(), Arc::new(spec.app.clone()));
        Ok(Self { name, spec, app, listeners, source, probe })
    }

    /// Makes its listeners what its configuration says, also those that were opened for another.
    pub(super) fn settle_listeners(&self) {
        let options = self.spec.socket_options();
        for opened in self.listeners.all() {
            if let Err(error) = opened.settle(&options) {
                error!("{} stays as it was made: {}", opened.shown, named(&error));
            }
        }
    }

    pub(super) fn is_forked(&self) -> bool {
        matches!(self.source, WorkerSource::Forked { .. })
    }

    /// What the master keeps open for workers of this generation.
    pub(super) fn raw_fds(&self) -> Vec<RawFd> {
        let mut all: Vec<_> = self.listeners.all().iter().flat_map(|it| it.raw_fds()).collect();
        if let WorkerSource::Command { program, .. } = &self.source {
            all.extend(program.raw_fds());
        }
        all.extend(self.probe.iter().flat_map(ProbeSource::raw_fds));
        all
    }
}

/// All generations that are needed, by number.
pub(super) struct Eras {
    all: BTreeMap<Generation, Rc<Era>>,
    current: Generation,
}

impl Eras {
    pub(super) fn new(first: Era) -> Self {
        let current = Generation(1);
        Self { all: BTreeMap::from([(current, Rc::new(first))]), current }
    }

    /// That of the generation which is, or is to be, that of all workers.
    pub(super) fn current(&self) -> &Rc<Era> {
        self.all.get(&self.current).expect("the current generation is never forgotten")
    }

    /// That of a generation; of one that nobody knows any more, the current one's.
    pub(super) fn of(&self, generation: Generation) -> &Rc<Era> {
        self.all.get(&generation).unwrap_or_else(|| self.current())
    }

    pub(super) fn add(&mut self, generation: Generation, era: Rc<Era>) {
        self.all.insert(generation, era);
    }

    /// The arbiter has decided which generation is to be that of all workers; says whether that is news.
    pub(super) fn set_current(&mut self, generation: Generation) -> bool {
        let is_known = self.all.contains_key(&generation);
        let is_news = is_known && generation != self.current;
        if is_news {
            self.current = generation;
        }
        is_news
    }

    /// Forgets those that nobody needs; their listeners close unless another has them too.
    pub(super) fn keep(&mut self, is_needed: impl Fn(Generation) -> bool) {
        let current = self.current;
        self.all.retain(|generation, _| *generation == current || is_needed(*generation));
    }

    /// The listeners of all of them, the current one's first, each once.
    pub(super) fn listeners(&self) -> Vec<Rc<Opened>> {
        let mut all: Vec<Rc<Opened>> = Vec::new();
        for opened in
            [self.current()].into_iter().chain(self.iter()).flat_map(|era| era.listeners.all())
        {
            if !all.iter().any(|other| Rc::ptr_eq(other, opened)) {
                all.push(Rc::clone(opened));
            }
        }
        all
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<Era>> {
        self.all.values()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}
