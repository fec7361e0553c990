//! What a configuration says of workers. A reload brings another, from the process that has read it, so
//! all of it can be written down; what is code of the program stays with the master.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::command::{Command, CommandError};
use super::conditions::Conditions;
use super::error::RunError;
use super::listeners::{Address, SocketOptions};
use crate::arbiter::{Jitter, Policy};

/// All that may differ between two generations.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) policy: Policy,
    pub(super) addresses: Vec<Address>,
    pub(super) sockets: SocketOptions,
    pub(super) conditions: Conditions,
    #[serde(with = "signal")]
    pub(super) stop_signal: Signal,
    #[serde(with = "signal")]
    pub(super) abort_signal: Signal,
    pub(super) max_requests: u64,
    pub(super) max_requests_jitter: u64,
    /// Of a worker of the class `thread`, and of one of the class `async`.
    pub(super) threads: u32,
    pub(super) connections: u32,
    pub(super) app: BTreeMap<String, String>,
    pub(super) capture_output: Option<bool>,
    /// What the program wants to be reminded of at the next reload.
    pub(super) note: String,
    /// What of the configuration needs a restart, in words.
    pub(super) unapplied: String,
    /// What the log is told while this configuration holds.
    pub(super) log_settings: String,
    /// What is run when people are to be told of something, and where its program is.
    pub(super) on_event: Option<Command>,
    #[serde(with = "path")]
    pub(super) on_event_path: Option<PathBuf>,
    /// What workers execute; forked ones have none.
    pub(super) command: Option<Command>,
    /// What asks whether one is ready, where that is asked.
    pub(super) probe: Option<Command>,
}

impl Spec {
    pub(super) fn new(name: String, command: Option<Command>, policy: Policy) -> Self {
        Self {
            name,
            policy,
            addresses: Vec::new(),
            sockets: SocketOptions::default(),
            conditions: Conditions::default(),
            stop_signal: Signal::SIGTERM,
            abort_signal: Signal::SIGABRT,
            max_requests: 0,
            max_requests_jitter: 0,
            threads: 1,
            connections: 1000,
            app: BTreeMap::new(),
            capture_output: None,
            note: String::new(),
            unapplied: String::new(),
            log_settings: String::new(),
            on_event: None,
            on_event_path: None,
            command,
            probe: None,
        }
    }

    /// After how many requests a worker with this randomness is recycled; 0: never.
    pub(super) fn requests_of(&self, jitter: Jitter) -> u64 {
        let wide =
            u128::from(self.max_requests_jitter) * u128::from(jitter.0) / u128::from(u32::MAX);
        let more = u64::try_from(wide).unwrap_or(u64::MAX);
        if self.max_requests == 0 { 0 } else { self.max_requests.saturating_add(more) }
    }

    /// How listening sockets are made: Unix sockets are the workers' if nobody else is named.
    pub(super) fn socket_options(&self) -> SocketOptions {
        let owner = self.sockets.owner.clone().or_else(|| self.conditions.account().cloned());
        SocketOptions { owner, ..self.sockets.clone() }
    }

    /// Finds the program of `on_event`, where the master looks for programs.
    pub(super) fn find_on_event(&mut self) -> Result<(), RunError> {
        let found = self.event_program().transpose();
        self.on_event_path = found.map_err(RunError::OnEvent)?;
        Ok(())
    }

    pub(super) fn event_program(&self) -> Option<Result<PathBuf, CommandError>> {
        let command = self.on_event.as_ref()?;
        let directory = self.conditions.directory.as_deref();
        Some(command.resolve(directory, std::env::var_os("PATH").as_deref()))
    }

    /// The code of the program comes back to what was written down without it.
    pub(super) fn adopt_code_of(&mut self, former: &Self) {
        self.conditions.expand = former.conditions.expand;
        if let (Some(command), Some(of_former)) = (&mut self.command, &former.command) {
            command.expand = of_former.expand;
        }
        if let (Some(probe), Some(command)) = (&mut self.probe, &former.command) {
            probe.expand = command.expand;
        }
    }
}

/// A signal, by its number.
mod signal {
    use nix::sys::signal::Signal;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(super) fn serialize<S: Serializer>(signal: &Signal, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i32(*signal as i32)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Signal, D::Error> {
        Signal::try_from(i32::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A path, which need not be text.
pub(super) mod path {
    use std::ffi::{OsStr, OsString};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes references")]
    pub(in super::super) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        path.as_deref().map(Path::as_os_str).map(OsStr::to_owned).serialize(to)
    }

    pub(in super::super) fn deserialize<'a, D: Deserializer<'a>>(
        from: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<OsString>::deserialize(from)?.map(PathBuf::from))
    }
}
