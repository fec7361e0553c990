//! What a rehearsal finds out about workers: their conditions, their variables, their program and what asks
//! whether they are ready.

use std::ffi::OsString;
use std::io;

use super::{Finding, sizes};
use crate::driver::command::{Command, CommandError};
use crate::driver::environment;
use crate::driver::error::{RunError, system};
use crate::driver::master::Settings;
use crate::driver::program::{self, Chain, Part};
use crate::sys::environ::{Environment, c_string};
use crate::sys::fds::NofileLimit;
use crate::sys::setup::{Failure, Setup, Step};
use crate::sys::trial::{Need, Use};
use crate::sys::{process, trial};

impl Settings {
    /// Conditions, variables and program.
    pub(super) fn rehearse_workers(&self, findings: &mut Vec<Finding>) {
        let setup = NofileLimit::now().map_err(system("getrlimit"));
        let setup = setup.and_then(|nofile| self.spec.conditions.lay_out(nofile));
        let setup = setup.map_err(|error| findings.push(Finding::Refused(error))).ok();
        if let Err(source) = self.lay_out_environment() {
            let error = RunError::System { call: "prepare the environment", source };
            findings.push(Finding::Refused(error));
        }
        if let Err(error) = see_one_thread() {
            findings.push(Finding::Refused(error));
            findings.extend(self.program_error().map(|it| Finding::Refused(it.into())));
            findings.extend(self.find_probe().err().map(Finding::Refused));
            return;
        }
        let command = self.spec.command.as_ref();
        let chain = command.map(|command| (command, self.trace(command)));
        let parts = chain.as_ref().and_then(|(_, chain)| Some(chain.as_ref().ok()?.parts()));
        if let Some(setup) = &setup {
            self.try_out(setup, parts.unwrap_or_default(), findings);
        }
        match chain {
            Some((_, Err(error))) => findings.push(Finding::Refused(RunError::Command(error))),
            Some((command, Ok(chain))) => self.judge_program(command, chain, findings),
            None => {}
        }
        findings.extend(self.find_probe().err().map(Finding::Refused));
    }

    fn program_error(&self) -> Option<CommandError> {
        match &self.spec.command {
            None => None,
            Some(command) => self.find(command).err(),
        }
    }

    /// Finds a program, and all that is needed to execute it.
    fn trace(&self, command: &Command) -> Result<Chain, CommandError> {
        let path = self.find(command)?;
        let directory = self.spec.conditions.directory.as_deref();
        let search = self.spec.conditions.search_path();
        Ok(program::trace(path, directory, search.as_deref()))
    }

    /// A child becomes what a worker would be, and tries whether it may use these.
    fn try_out(&self, setup: &Setup, parts: &[Part], findings: &mut Vec<Finding>) {
        let need = |part: &Part| Need {
            use_of: part.use_of,
            paths: part.paths.iter().filter_map(|path| c_string(path).ok()).collect(),
        };
        let needs: Vec<_> = parts.iter().map(need).collect();
        match trial::try_out(setup, &needs) {
            Ok(failures) => {
                // The first part that cannot be used makes the others useless.
                let mut has_failed = false;
                let failures = failures.into_iter().filter(|failure| {
                    failure.step != Step::Exec || !std::mem::replace(&mut has_failed, true)
                });
                findings.extend(failures.map(|it| self.finding_of(it, parts)));
            }
            Err((call, errno)) => findings.push(Finding::Refused(system(call)(errno))),
        }
    }

    fn finding_of(&self, failure: Failure, parts: &[Part]) -> Finding {
        let part = parts.get(usize::from(failure.detail)).filter(|_| failure.step == Step::Exec);
        let (Some(part), Some(first)) = (part, parts.first()) else {
            return Finding::Refused(
                self.spec.conditions.refused(failure, self.spec.name.as_ref()),
            );
        };
        let source = io::Error::from_raw_os_error(failure.errno);
        let path = part.name.clone();
        match part.use_of {
            Use::Read => Finding::Unreadable { program: path, source },
            Use::Execute if failure.detail > 0 => {
                Finding::Interpreter { program: first.name.clone(), interpreter: path, source }
            }
            Use::Execute if self.spec.conditions.is_another_account() => {
                Finding::Forbidden { program: path, source }
            }
            Use::Execute => Finding::Refused(CommandError { path, source }.into()),
        }
    }

    /// What can be known of a program that was found without executing it.
    fn judge_program(&self, command: &Command, chain: Chain, findings: &mut Vec<Finding>) {
        let words = command.words_of(0, 1);
        let program = chain.program().to_owned();
        if words.iter().any(|word| c_string(word).is_err()) {
            let source = io::Error::from(io::ErrorKind::InvalidInput);
            let error = RunError::System { call: "prepare the command", source };
            findings.push(Finding::Refused(error));
        }
        let variables = environment::merged(self.variables());
        let stack = self.spec.conditions.stack();
        if let Some((call, source)) = sizes::refused(program.as_ref(), &words, &variables, stack) {
            findings.push(Finding::Refused(RunError::System { call, source }));
        }
        if chain.is_static() {
            for finding in &mut *findings {
                if let Finding::WorkerDescriptors { is_certain, .. } = finding {
                    *is_certain = false;
                }
            }
        }
        if let Some((path, source)) = chain.fault {
            findings.push(match path == program {
                true => Finding::Refused(CommandError { path, source }.into()),
                false => Finding::Interpreter { program, interpreter: path, source },
            });
        }
    }

    /// The variables of one worker.
    fn variables(&self) -> Vec<(OsString, OsString)> {
        let common = environment::common(&self.spec.name, 1, &self.spec.app);
        let listening =
            environment::listening(&vec![self.spec.name.as_str(); self.spec.addresses.len()]);
        let all =
            self.spec.conditions.common_variables().into_iter().chain(common).chain(listening);
        all.chain(self.spec.conditions.own_variables(0, 1)).collect()
    }

    /// Every variable is one that an environment can hold.
    fn lay_out_environment(&self) -> io::Result<()> {
        // Keys of the application that hold a NUL byte have been named already.
        let all = self.variables().into_iter();
        let all = all.filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"PH_APP_"));
        Environment::new(all).map(drop)
    }
}

fn see_one_thread() -> Result<(), RunError> {
    match process::thread_count() {
        Ok(1) => Ok(()),
        Ok(threads) => Err(RunError::Threads { threads }),
        Err(source) => Err(RunError::System { call: "stat /proc/self/task", source }),
    }
}
