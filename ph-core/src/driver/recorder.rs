//! The recorder: with `PH_TRACE=FILE` in its environment a master writes down what its arbiter was told and
//! what that wanted, so that `cargo xtask sim --replay FILE` can do it all again.
//!
//! The first line is what the arbiter was made of, each other a step: the time, the event, the actions. It is
//! for looking into trouble, not for service: the master waits for the disk at each step.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tracing::{error, warn};

use crate::arbiter::{Action, Event, HelperRole, Policy, Time};

/// The variable that names the file.
const VARIABLE: &str = "PH_TRACE";

/// What an arbiter is made of.
#[derive(Serialize)]
struct Made<'a> {
    policy: Policy,
    helpers: &'a [HelperRole],
    boot_verdict: bool,
    boot_limit: Option<Duration>,
}

/// One step of it.
#[derive(Serialize)]
struct Stepped<'a> {
    now: Time,
    event: Event,
    actions: &'a [Action],
}

/// The file, until it cannot be written any more.
pub(super) struct Recorder(Option<(File, PathBuf)>);

impl Recorder {
    /// Opens the file if one is asked for; what is there is gone. A successor has the variable of the
    /// master that it replaces, whose file that is: its own has its pid behind the name.
    pub(super) fn begin(
        policy: Policy,
        helpers: &[HelperRole],
        (boot_verdict, boot_limit): (bool, Option<Duration>),
        is_successor: bool,
    ) -> Self {
        let Some(mut path) = std::env::var_os(VARIABLE) else { return Self(None) };
        if is_successor {
            path.push(format!(".{}", std::process::id()));
        }
        let path = PathBuf::from(path);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let mut recorder = match options.open(&path) {
            Ok(file) => {
                warn!(
                    "recording every step to {}: this is for looking into trouble",
                    path.display()
                );
                Self(Some((file, path)))
            }
            Err(error) => {
                error!("{VARIABLE}: {} cannot be written: {error}", path.display());
                Self(None)
            }
        };
        recorder.write(&Made { policy, helpers, boot_verdict, boot_limit });
        recorder
    }

    pub(super) fn step(&mut self, now: Time, event: Event, actions: &[Action]) {
        if self.0.is_some() {
            self.write(&Stepped { now, event, actions });
        }
    }

    pub(super) fn raw_fd(&self) -> Option<RawFd> {
        self.0.as_ref().map(|(file, _)| file.as_raw_fd())
    }

    fn write(&mut self, line: &impl Serialize) {
        let Some((file, path)) = &mut self.0 else { return };
        let written =
            serde_json::to_vec(line).map_err(std::io::Error::other).and_then(|mut text| {
                text.push(b'\n');
                file.write_all(&text)
            });
        if let Err(error) = written {
            error!("recording ends: {} cannot be written: {error}", path.display());
            self.0 = None;
        }
    }
}
