//! Masters that cannot be asked: which signal does the same, and the stop by signals.
//!
//! Only a master that is known by its lock is sent anything, never a number from a file.

use std::io;
use std::time::Duration;

use ph_config::Escaped;
use ph_core::control::Request;
use ph_core::{Running, Signal};

use super::{Answer, Master, Service};
use crate::exit::Exit;
use crate::failure::Failure;

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
    /// Tells a master by signals to stop, which needs no socket. False if there is none any more, or nobody
    /// knows its pid.
    pub(crate) fn signal_stop(&self, master: &Master, now: bool) -> Result<bool, Failure> {
        let Some(pidfile) = &self.pidfile else { return Ok(false) };
        // The second stop is that at once. Two of one kind could become one on the way.
        let signals = [Signal::SIGTERM, Signal::SIGINT];
        let mut is_told = false;
        for signal in &signals[..if now { 2 } else { 1 }] {
            let sent = pidfile.signal(running(master), *signal);
            is_told |= sent.map_err(|error| self.not_stopped(&error))?;
        }
        Ok(is_told)
    }

    /// Waits until a master that was told by signals has ended. `why` it was not asked is in the answer.
    pub(crate) fn wait_stopped(
        &self,
        master: &Master,
        limit: Duration,
        why: &str,
    ) -> Result<Answer, Failure> {
        let waited = self.pidfile.as_ref().map(|it| it.wait_ended(running(master), limit));
        if waited.transpose().map_err(|error| self.not_stopped(&error))? == Some(false) {
            let why = format!("it has not ended after {:.1} s", limit.as_secs_f64());
            return Err(Failure::new(Exit::TimedOut, why).attempt(self.attempt("stop")));
        }
        let text = format!("stopped by a signal: {}", Escaped(why));
        Ok(Answer { code: Exit::Ok, text, killed: Vec::new() })
    }

    fn not_stopped(&self, error: &io::Error) -> Failure {
        let code = match error.kind() == io::ErrorKind::PermissionDenied {
            true => Exit::NotPermitted,
            false => Exit::Failed,
        };
        Failure::new(code, error.to_string()).attempt(self.attempt("stop"))
    }
}

fn running(master: &Master) -> Running {
    Running { instance: master.instance, pid: master.pid }
}
