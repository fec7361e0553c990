//! A service's prospects: everything that would keep it from starting, worded like the errors of a start.

use ph_config::{ForeignWriter, LogTarget, foreign_writer};
use ph_core::{Finding, Master, RunError, Running};

use super::{Service, conditions, control, remedies};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::source;

/// What was found out about a service without starting it.
#[derive(Debug, Default)]
pub(crate) struct Outlook {
    /// What has to be mended before it can start.
    pub(crate) problems: Vec<Failure>,
    /// What is probably not meant.
    pub(crate) warnings: Vec<Failure>,
    /// Its masters that run now.
    pub(crate) running: Vec<Running>,
}

impl Service {
    /// Finds out what would keep the service from starting. `program` is what this program calls itself;
    /// what the processes `leaving` listen on will be free by then.
    pub(crate) fn rehearse(
        &self,
        program: &str,
        is_writable_allowed: bool,
        leaving: &[i32],
    ) -> Outlook {
        let mut outlook = Outlook::default();
        outlook.problems.extend(self.without_workers(program));
        let account = conditions::account(self).unwrap_or_else(|failure| {
            let hidden = conditions::hidden_by_group(self);
            let hidden = hidden.filter(|hidden| hidden.why() != failure.why());
            outlook.problems.push(failure);
            outlook.problems.extend(hidden);
            None
        });
        if let LogTarget::File(path) = &self.settings.log_file {
            match ph_log::probe(path) {
                Ok(trouble) => {
                    outlook.warnings.extend(trouble.map(|why| self.unrotatable(&why, "log_file")));
                }
                Err(error) => outlook.problems.push(self.log_failure(&error)),
            }
        }
        let owner = self.socket_owner().unwrap_or_else(|failure| {
            outlook.problems.push(failure);
            None
        });
        outlook.warnings.extend(self.log_of_workers());
        outlook.problems.extend(self.overwritten_programs());
        let control = control::socket(self).unwrap_or_else(|failure| {
            outlook.problems.push(failure);
            None
        });
        let master = control.into_iter().fold(self.silent_master(account, owner), Master::control);
        let rehearsal = master.rehearse();
        outlook.running = rehearsal.running;
        for finding in &rehearsal.findings {
            if matches!(finding, Finding::Refused(RunError::Command(_))) && self.command.is_none() {
                continue;
            }
            if matches!(finding, Finding::Taken { holder: Some((pid, _)), .. } if leaving.contains(pid))
            {
                continue;
            }
            let failure = self.finding(finding);
            match finding.is_warning() {
                true => outlook.warnings.push(self.warning(failure)),
                false => outlook.problems.push(failure),
            }
        }
        match self.untrusted(&master) {
            Some(failure) if is_writable_allowed || !self.runs_as_root() => {
                outlook.warnings.push(self.warning(failure));
            }
            failure => outlook.problems.extend(failure),
        }
        match self.untrusted_event(&master) {
            Some(failure) if is_writable_allowed => outlook.warnings.push(self.warning(failure)),
            failure => outlook.problems.extend(failure),
        }
        outlook.warnings.extend(self.remarks());
        outlook
    }

    /// The log cannot be opened.
    pub(crate) fn log_failure(&self, error: &ph_log::LogError) -> Failure {
        let failure = self.failure(Exit::Failed, &error.to_string(), "log_file");
        match &self.settings.log_file {
            LogTarget::File(path) if path.starts_with("/dev") => {
                failure.remedy("log_file = - for the standard error")
            }
            LogTarget::File(path) => {
                failure.remedy(format!("ls -ld {}", path.parent().unwrap_or(path).display()))
            }
            LogTarget::Stderr => failure,
        }
    }

    /// What is wrong with the log of the first worker. Without it the workers use that of the master.
    fn log_of_workers(&self) -> Option<Failure> {
        let path = super::log_process::of_worker(self.settings.worker_log_file.as_ref()?, 0, 1);
        match ph_log::probe(&path) {
            Ok(trouble) => trouble.map(|why| self.unrotatable(&why, "worker_log_file")),
            Err(error) => {
                let failure = self.failure(Exit::Failed, &error.to_string(), "worker_log_file");
                let folder = path.parent().unwrap_or(&path).display();
                Some(self.warning(failure.remedy(format!("ls -ld {folder}"))))
            }
        }
    }

    /// The log will grow without end.
    fn unrotatable(&self, why: &ph_log::Unrotatable, key: &str) -> Failure {
        let failure = self.failure(Exit::Failed, &why.to_string(), key);
        self.warning(failure.remedy(format!("ls -ld {}", why.companion.display())))
    }

    /// Whether the workers have the rights of root. Others gain nothing by writing what they execute
    /// but what its user already has.
    pub(crate) fn runs_as_root(&self) -> bool {
        let user = self.settings.user.as_ref().map(|it| it.user.to_string());
        user.is_none_or(|user| user == "root" || user == "0")
    }

    /// Whether somebody else could change the program before root executes it.
    pub(crate) fn untrusted(&self, master: &Master) -> Option<Failure> {
        if source::effective_uid().is_ok_and(|uid| uid != 0) {
            return None;
        }
        // Its owner is often the workers' user, on purpose.
        let program = master.program()?.ok()?;
        let writer = foreign_writer(&program).filter(|writer| !writer.is_owner())?;
        Some(self.writable(&writer, "command"))
    }

    /// The same for the program that is told of events. It runs as the master, so even its owner counts.
    pub(crate) fn untrusted_event(&self, master: &Master) -> Option<Failure> {
        if source::effective_uid().is_ok_and(|uid| uid != 0) {
            return None;
        }
        let writer = foreign_writer(&master.event_program()?.ok()?)?;
        Some(self.writable(&writer, "on_event"))
    }

    fn writable(&self, writer: &ForeignWriter, key: &str) -> Failure {
        let failure = self.failure(Exit::Failed, &writer.to_string(), key);
        failure.remedy(format!("{}, or --allow-writable", writer.cure()))
    }

    /// Something that does not keep the service from starting.
    pub(crate) fn warning(&self, failure: Failure) -> Failure {
        failure.attempt(format!("warning for {}", self.settings.name()))
    }

    /// What is legal, and does less than it seems to.
    fn remarks(&self) -> impl Iterator<Item = Failure> {
        let useless = self.useless();
        let requests = self.settings.max_requests;
        let is_counted = self.command.is_none() || requests == 0;
        let requests = (!is_counted).then(|| {
            let why = format!(
                "max_requests = {requests} counts only what a command reports with REQUESTS=n"
            );
            ("max_requests", why)
        });
        useless.into_iter().chain(requests).map(|(key, why)| {
            let failure = Failure::new(Exit::Ok, why);
            self.warning(failure.value(self.settings.origin(key), key))
        })
    }

    /// One finding, with its origin and its remedy.
    fn finding(&self, finding: &Finding) -> Failure {
        let why = finding.to_string();
        let failure = |key: &str| self.failure(Exit::Failed, &why, key);
        match finding {
            Finding::Refused(error) => self.run_failure(error),
            Finding::Taken { address, holder: Some((pid, _)) } => failure(self.listen_key(address))
                .remedy(format!("choose another address, or stop pid {pid}")),
            Finding::Taken { address, holder: None } => {
                failure(self.listen_key(address)).remedy(remedies::of_address(address, &why))
            }
            Finding::Hidden { address } => failure(self.listen_key(address))
                .remedy("check as the user the service runs as, or as root"),
            Finding::Unseen { address } => failure(self.listen_key(address))
                .remedy("nothing, if no other container has it: the next start replaces it"),
            Finding::SecondInstance { address } => failure(self.listen_key(address))
                .remedy("set single_instance = true, or let the instances have no fixed address"),
            Finding::Twice { address, .. } => {
                failure(self.listen_key(address)).remedy("take out one of the two")
            }
            Finding::Forbidden { program, .. } => failure("command").remedy(format!(
                "`namei -l {}` shows which part of the path they may not use",
                program.display()
            )),
            Finding::Interpreter { program, interpreter, source } => {
                let interpreter = interpreter.display();
                let repair = if source.kind() == std::io::ErrorKind::NotFound {
                    format!("install {interpreter}, or ")
                } else if source.kind() == std::io::ErrorKind::InvalidData {
                    // The line itself is what is wrong.
                    String::new()
                } else {
                    format!("let the workers execute {interpreter}, or ")
                };
                let program = program.display();
                failure("command").remedy(format!("{repair}correct the first line of {program}"))
            }
            Finding::Unreadable { program, .. } => {
                failure("command").remedy(format!("let the workers read {}", program.display()))
            }
            Finding::MasterDescriptors { is_target, needed, .. } => {
                let key = if *is_target { "number_workers" } else { "max_workers" };
                let raise = format!("raise the limit to {needed} (ulimit -Hn, LimitNOFILE=)");
                failure(key).remedy(format!("{raise}, or lower {key}"))
            }
            Finding::WorkerDescriptors { needed, .. } => failure("rlimit_nofile")
                .remedy(format!("set rlimit_nofile to {needed} and what the program itself opens")),
        }
    }
}
