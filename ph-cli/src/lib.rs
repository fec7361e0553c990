//! Wires `ph-core`, `ph-config` and `ph-log` together: the `ph` command, and [`App`] for programs
//! that carry their own worker.
//!
//! | where | what |
//! |---|---|
//! | `args` | the command line |
//! | `find`, `source` | which configuration is meant |
//! | `client` | which masters are meant, and what is asked of them |
//! | `verbs` | one module a verb |
//! | `wire` | settings become a master and a log; the only place that sees all three crates |
//! | `output` | what goes to stdout |
//! | `exit` | the table of exit codes |
//! | `failure` | errors in three parts: what failed, where it was set, what to do |

mod adhoc;
mod args;
mod client;
mod exit;
mod failure;
mod find;
mod output;
mod source;
mod verbs;
mod wire;

use std::process::ExitCode;
use std::rc::Rc;

use ph_config::WorkerClass;
#[cfg(feature = "tokio")]
use ph_core::AsyncWorker;
use ph_core::{Context, Hooks, Master, ThreadWorker, Worker};

use args::{Cli, Verb};
pub use exit::Exit;
use failure::Failure;

/// The program's own workers: their class, and what makes the master of a service of them.
#[derive(Clone)]
struct Forked {
    class: WorkerClass,
    make_master: Rc<dyn Fn(&str) -> Master>,
}

impl Forked {
    fn new(class: WorkerClass, make_master: impl Fn(&str) -> Master + 'static) -> Self {
        Self { class, make_master: Rc::new(make_master) }
    }
}

/// A command line for a program with its own worker, or, without one, the `ph` command itself.
///
/// ```no_run
/// use ph_cli::App;
/// use ph_core::{Connection, Context, Result, Worker};
///
/// struct Job;
///
/// impl Worker for Job {
///     fn handle_request(&mut self, ctx: &Context, _: Option<Connection>) -> Result {
///         ctx.sleep(std::time::Duration::from_secs(1));
///         Ok(())
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     App::new("job").worker(|_| Job).main()
/// }
/// ```
#[must_use = "an app does nothing until `main`"]
pub struct App {
    name: &'static str,
    forked: Option<Forked>,
    hooks: Option<Rc<dyn Hooks>>,
}

impl App {
    /// A program of this name, without a worker: every service needs a command.
    pub fn new(name: &'static str) -> Self {
        Self { name, forked: None, hooks: None }
    }

    /// Gives the program its worker. A service without a command forks workers made by `factory`,
    /// each in its own process.
    pub fn worker<W: Worker + 'static>(
        mut self,
        factory: impl Fn(&Context) -> W + 'static,
    ) -> Self {
        let factory = Rc::new(factory);
        self.forked = Some(Forked::new(WorkerClass::Sync, move |name| {
            let factory = Rc::clone(&factory);
            Master::forked(name, move |ctx| factory(ctx))
        }));
        self
    }

    /// Gives the program its worker, of the class `thread`: `threads` says how many serve in each.
    pub fn thread_worker<W: ThreadWorker + 'static>(
        mut self,
        factory: impl Fn(&Context) -> W + 'static,
    ) -> Self {
        let factory = Rc::new(factory);
        self.forked = Some(Forked::new(WorkerClass::Thread, move |name| {
            let factory = Rc::clone(&factory);
            Master::threaded(name, move |ctx| factory(ctx))
        }));
        self
    }

    /// Gives the program its worker, of the class `async`: `worker_connections` says how many connections
    /// each has at most.
    #[cfg(feature = "tokio")]
    pub fn async_worker<W: AsyncWorker + 'static>(
        mut self,
        factory: impl Fn(&Context) -> W + 'static,
    ) -> Self {
        let factory = Rc::new(factory);
        self.forked = Some(Forked::new(WorkerClass::Async, move |name| {
            let factory = Rc::clone(&factory);
            Master::asynchronous(name, move |ctx| factory(ctx))
        }));
        self
    }

    /// Code of the program that runs at fixed points of a service's life.
    pub fn hooks(mut self, hooks: impl Hooks + 'static) -> Self {
        self.hooks = Some(Rc::new(hooks));
        self
    }

    /// Reads the command line of the process and does what it says. To be called while the process
    /// has one thread: before any runtime is made.
    #[must_use]
    pub fn main(self) -> ExitCode {
        let cli = match Cli::read(self.name) {
            Ok(cli) => cli,
            Err(error) => {
                let code = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
                // Help that cannot be printed, as into a closed pipe, has no other way out.
                let _ = error.print();
                return code.into();
            }
        };
        let is_json = cli.verb.as_ref().is_some_and(Verb::is_json);
        let done = match cli.verb {
            None => verbs::start::bare(&self, cli.bare),
            Some(verb) => self.perform(verb),
        };
        match done {
            Ok(code) => code,
            Err(failure) => {
                ph_core::tell_predecessor(&failure.to_string());
                // A stdout that cannot be written has nobody to tell.
                if !is_json || output::print_json(&failure.to_json()).is_err() {
                    failure.print(self.name);
                }
                failure.code.into()
            }
        }
    }

    fn perform(&self, verb: Verb) -> Result<ExitCode, Failure> {
        match verb {
            Verb::Status(status) => verbs::status::status(&status),
            Verb::Scale(scale) => verbs::scale::scale(&scale),
            Verb::Reload(reload) => verbs::tell::reload(&reload),
            Verb::Upgrade(upgrade) => verbs::tell::upgrade(&upgrade),
            Verb::Stop(stop) => verbs::tell::stop(&stop),
            Verb::Probe(probe) => verbs::probe::probe(&probe),
            Verb::Run(run) => verbs::run::run(self, &run),
            Verb::Start(start) => verbs::start::start(self, &start),
            Verb::Restart(start) => verbs::start::restart(self, &start),
            Verb::Config(config) => verbs::config::config(&config),
            Verb::Init(init) => verbs::init::init(&init),
            Verb::Check(check) => verbs::check::check(self, &check),
            Verb::Logs(logs) => verbs::logs::logs(&logs),
            Verb::Rotate(rotate) => verbs::rotate::rotate(&rotate),
            Verb::Reopen(reopen) => verbs::tell::reopen(&reopen),
        }
    }
}

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeExamplesCompile;
