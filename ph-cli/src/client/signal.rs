//! Masters that cannot be asked: which signal does the same, and the stop and the reopening by signals.
//!
//! Only a master that is known by its lock is sent anything, never a number from a file.

use std::io;
use std::time::Duration;

use ph_config::Escaped;
use ph_core::control::Request;
use ph_core::{Running, Signal};

use super::follow::AT_ONCE;
use super::{Answer, Master, Service};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// What does the same as a request, or comes nearest to it. It can be pasted as it is.
pub(super) fn instead_of(request: &Request, pid: i32) -> String {
    match request {
        Request::Stop { .. } => format!("kill -TERM {pid}"),
        Request::Reload { dry_run: true, .. } => "ph check".to_owned(),
        Request::Reload { .. } => format!("kill -HUP {pid}"),
        Request::Upgrade => format!("kill -USR2 {pid}"),
        Request::Reopen => format!("kill -USR1 {pid}"),
        Request::ScaleBy { by: ..0 } => format!("kill -TTOU {pid}, for each worker fewer"),
        Request::ScaleBy { .. } => format!("kill -TTIN {pid}, for each worker more"),
        Request::ScaleTo { .. } => {
            format!("kill -TTIN {pid} for each worker more, -TTOU for each fewer")
        }
        Request::Status | Request::Watch => format!("ps -fp {pid}"),
    }
}

impl Service {
    /// Tells a master by signals what can be said by them: to stop, to open its logs again. That needs no
    /// socket. False if there is none any more, nobody knows its pid, or it cannot be said.
    pub(super) fn signal_instead(
        &self,
        master: &Master,
        request: &Request,
        verb: &str,
    ) -> Result<bool, Failure> {
        let signals = match request {
            // The second stop is that at once. Two of one kind could become one on the way.
            Request::Stop { now: true } => &[Signal::SIGTERM, Signal::SIGINT][..],
            Request::Stop { now: false } => &[Signal::SIGTERM],
            Request::Reopen => &[Signal::SIGUSR1],
            Request::Reload { .. }
            | Request::Upgrade
            | Request::ScaleBy { .. }
            | Request::ScaleTo { .. }
            | Request::Status
            | Request::Watch => &[],
        };
        let Some(pidfile) = &self.pidfile else { return Ok(false) };
        let mut is_told = false;
        for signal in signals {
            let sent = pidfile.signal(running(master), *signal);
            is_told |= sent.map_err(|error| self.not_told(&error, verb))?;
        }
        Ok(is_told)
    }

    /// Waits until a master that was told by signals has ended. `why` it was not asked is in the answer.
    pub(super) fn wait_stopped(
        &self,
        master: &Master,
        limit: Duration,
        why: &str,
        is_told: bool,
    ) -> Result<Answer, Failure> {
        let wait = |limit: Duration| {
            let waited = self.pidfile.as_ref().map(|it| it.wait_ended(running(master), limit));
            let waited = waited.transpose().map_err(|error| self.not_told(&error, "stop"))?;
            Ok::<_, Failure>(waited != Some(false))
        };
        let mut has_ended = wait(limit.min(AT_ONCE))?;
        let was_slow = !has_ended;
        if was_slow {
            if is_told {
                let name = self.name_of(master.instance);
                output::note(&Escaped(&format!("{name}: told by a signal to stop")).to_string());
            }
            has_ended = wait(limit.saturating_sub(AT_ONCE))?;
        }
        if !has_ended {
            let why = format!("it has not ended after {:.1} s", limit.as_secs_f64());
            return Err(Failure::new(Exit::TimedOut, why).attempt(self.attempt("stop")));
        }
        let text = format!("stopped by a signal: {}", Escaped(why));
        Ok(Answer { was_slow, ..Answer::new(Exit::Ok, text) })
    }

    fn not_told(&self, error: &io::Error, verb: &str) -> Failure {
        let code = match error.kind() == io::ErrorKind::PermissionDenied {
            true => Exit::NotPermitted,
            false => Exit::Failed,
        };
        Failure::new(code, error.to_string()).attempt(self.attempt(verb))
    }
}

fn running(master: &Master) -> Running {
    Running { instance: master.instance, pid: master.pid }
}
