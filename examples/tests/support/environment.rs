//! What a master's environment is given by its caller, and what of it its workers may see.

use std::collections::BTreeMap;

use super::{Master, Stage};

/// What speaks to a master, or to the one that started it, and not to a worker.
const WITHHELD: [(&str, &str); 8] = [
    ("LISTEN_FDS", "3"),
    ("LISTEN_PID", "1"),
    ("LISTEN_FDNAMES", "a:b:c"),
    ("NOTIFY_SOCKET", "/nowhere"),
    ("WATCHDOG_USEC", "1000"),
    ("WATCHDOG_PID", "1"),
    ("PH_SLOT", "77"),
    ("PH_APP_STALE", "of another master"),
];

/// An operator's variable, which workers get as it is.
const KEPT: (&str, &str) = ("CUSTOM", "kept");

/// Gives the stage's masters variables of both kinds.
pub(crate) fn give_variables(stage: &mut Stage) {
    for (name, value) in WITHHELD.into_iter().chain([KEPT]) {
        stage.variable(name, value);
    }
}

/// The exact environment of the first worker in slot 0, with `app_queue-name = jobs`. `before` are the
/// stage's variables before any were given.
pub(crate) fn of_first_worker(
    before: impl IntoIterator<Item = (String, String)>,
    name: &str,
    master: &Master,
) -> BTreeMap<String, String> {
    let master_pid = master.process.0.to_string();
    let own = [
        KEPT,
        ("PH_NAME", name),
        ("PH_SLOT", "0"),
        ("PH_GENERATION", "1"),
        ("PH_WORKER_ID", "1"),
        ("PH_MASTER_PID", &master_pid),
        ("PH_INSTANCE", "1"),
        ("PH_APP_QUEUE_NAME", "jobs"),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    before.into_iter().chain(own).collect()
}
