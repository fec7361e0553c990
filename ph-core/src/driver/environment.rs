//! The environment of workers: the operator's own, less what belongs to the master, plus who the
//! worker is.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use crate::worker::Identity;

/// Whether a variable speaks to the master (or to the one that started it) and not to a worker.
pub(super) fn is_masters_own(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name == b"NOTIFY_SOCKET"
        || [&b"PH_"[..], b"LISTEN_", b"WATCHDOG_"].iter().any(|prefix| name.starts_with(prefix))
}

/// What of the master's environment a worker gets.
pub(super) fn inherited() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !is_masters_own(name))
}

/// Variables that are the same for every worker of a master.
pub(super) fn common(
    name: &str,
    instance: u32,
    app: &BTreeMap<String, String>,
) -> Vec<(OsString, OsString)> {
    let mut variables = vec![
        ("PH_NAME".into(), name.into()),
        ("PH_INSTANCE".into(), instance.to_string().into()),
        ("PH_MASTER_PID".into(), std::process::id().to_string().into()),
    ];
    for (key, value) in app {
        let key = key.to_uppercase().replace(['-', '.'], "_");
        variables.push((format!("PH_APP_{key}").into(), value.into()));
    }
    variables
}

/// What tells a command how many listeners it has, and by what names; `LISTEN_PID` is added in the
/// child. The convention is systemd's.
pub(super) fn listening(names: &[&str]) -> Vec<(OsString, OsString)> {
    if names.is_empty() {
        return Vec::new();
    }
    vec![
        ("LISTEN_FDS".into(), names.len().to_string().into()),
        ("LISTEN_FDNAMES".into(), names.join(":").into()),
    ]
}

/// How often a command has to say that it lives, in microseconds; `WATCHDOG_PID` is added in the child.
/// The convention is systemd's: programs do it twice as often.
pub(super) fn watched(timeout: Duration) -> (OsString, OsString) {
    ("WATCHDOG_USEC".into(), timeout.as_micros().to_string().into())
}

/// Variables that tell one worker from another.
pub(super) fn own(identity: &Identity) -> impl Iterator<Item = (OsString, OsString)> {
    let pairs = [
        ("PH_SLOT", identity.slot.to_string()),
        ("PH_GENERATION", identity.generation.to_string()),
        ("PH_WORKER_ID", identity.worker_id.to_string()),
    ];
    pairs.into_iter().map(|(name, value)| (name.into(), value.into()))
}

/// Of several variables of one name the last, in the order of the first of each.
pub(super) fn merged(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let mut places = HashMap::new();
    let mut all: Vec<(OsString, OsString)> = Vec::new();
    for (name, value) in variables {
        match places.get(&name) {
            Some(&place) => {
                let (_, old): &mut (OsString, OsString) = &mut all[place];
                *old = value;
            }
            None => {
                places.insert(name.clone(), all.len());
                all.push((name, value));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_to_the_master_is_withheld() {
        for name in ["PH_SLOT", "LISTEN_FDS", "NOTIFY_SOCKET", "WATCHDOG_USEC"] {
            assert!(is_masters_own(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "PHONE", "LISTENER", "XPH_SLOT", "NOTIFY_SOCKETS"] {
            assert!(!is_masters_own(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn of_one_name_the_last_counts() {
        let pairs = [("a", "1"), ("b", "2"), ("a", "3")].map(|(a, b)| (a.into(), b.into()));
        let wanted = [("a", "3"), ("b", "2")].map(|(a, b)| (a.into(), b.into()));
        assert_eq!(merged(pairs), wanted);
    }

    #[test]
    fn application_keys_become_variable_names() {
        let app = BTreeMap::from([("queue.name-x".to_owned(), "jobs".to_owned())]);
        let variables = common("a", 1, &app);
        assert!(variables.contains(&("PH_APP_QUEUE_NAME_X".into(), "jobs".into())));
    }
}
