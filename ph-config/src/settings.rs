//! The table of settings: the only list of them in the whole project.
//!
//! One row of `settings!` gives the name, the Rust type, the default, when a change applies, the
//! kind of value and one sentence. From the row come the field of [`Settings`], the entry of
//! [`SETTINGS`], parsing and validation, and whatever else prints or completes keys. To add a
//! setting, add a row, below the heading of the reference that it belongs to. Conditions between
//! several settings are in `check`.
//!
//! A default is text and takes the same way as text from a file, interpolation included. Empty
//! text means "not set" where that is the default, also in a file, so that a section can take back
//! what it inherits; elsewhere it is refused, because it is more likely a slip.
//!
//! What the files of `env_file` hold belongs to the settings too, though no row can hold it.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use crate::error::Origin;
use crate::keys::app_name;
use crate::layers::Overridden;
use crate::load::Reader;
use crate::row::{Apply, Change, SettingInfo, info};
use crate::value::{
    ABORT_SIGNAL, ADDRESSES, ALLOWED, AMOUNT, AbortSignal, Allow, Amount, BACKLOG, BASE_PATH,
    BOOLEAN, Bind, COMMAND, CONNECTION_COUNT, CONTROL_SOCKET, COUNT, COUNT_U64, CPUS,
    ControlTarget, CpuAffinity, DURATION, DURATION_ABOVE_ZERO, ENV_FILES, ENVIRONMENT, EXTRA_KEYS,
    EnvFile, ExtraKeys, FILE, FOLDER, GLOBS, GROUP, Id, KEEPALIVE, KILL_MODE, KeepAlive, KillMode,
    LIMIT_COUNT, LIMIT_MICROSECONDS, LIMIT_NICE, LIMIT_PRIORITY, LIMIT_SECONDS, LIMIT_SIZE,
    LINE_SIZE, LOG_COMPRESS, LOG_FORMAT, LOG_LEVEL, LOG_OVERFLOW, LOG_ROTATE, LOG_TARGET,
    LogCompress, LogFormat, LogLevel, LogOverflow, LogRotate, LogTarget, NAME, NICE, ON_CRASH_LOOP,
    OOM_SCORE, OPTIONAL_BOOLEAN, OPTIONAL_DURATION, OPTIONAL_FILE, OPTIONAL_FOLDER, OnCrashLoop,
    READY, Ready, Rlimit, SECTIONS, SIZE, SOCKET_MODE, STOP_SIGNAL, StopSignal, THREAD_COUNT,
    UMASK, USER, UserSpec, WORKER_CLASS, WORKER_COUNT, WORKER_LIMIT, WorkerClass, WorkerCount,
};

/// The row of a key, if it is in the table.
pub(crate) fn find(name: &str) -> Option<&'static SettingInfo> {
    static BY_NAME: LazyLock<HashMap<&str, &SettingInfo>> =
        LazyLock::new(|| SETTINGS.iter().map(|row| (row.name, row)).collect());
    BY_NAME.get(name).copied()
}

macro_rules! settings {
    ($(
        $group:literal:
        $($name:ident: $type:ty = $default:literal, $apply:ident, $kind:expr, $doc:literal;)*
    )*) => {
        /// Every setting of one service, typed, checked and with absolute paths.
        ///
        /// Only [`Configuration::load`](crate::Configuration::load) makes one.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($(#[doc = $doc] pub $name: $type,)*)*
            /// The application's own keys: `app_NAME` without its prefix, in lower case, and the
            /// interpolated text.
            pub app: BTreeMap<String, String>,
            pub(crate) file_environment: Vec<(String, String)>,
            name: String,
            origins: BTreeMap<String, Origin>,
            overridden: BTreeMap<String, Vec<Overridden>>,
            pub(crate) header: Option<Origin>,
        }

        /// Every row of the table, in the order of the reference.
        ///
        /// ```
        /// let row = ph_config::SETTINGS.iter().find(|row| row.name == "boot_timeout").unwrap();
        /// assert_eq!((row.default, row.apply.as_str()), ("60s", "live"));
        /// ```
        pub static SETTINGS: &[SettingInfo] =
            &[$($(info($group, stringify!($name), &$kind, $default, Apply::$apply, $doc)),*),*];

        impl Settings {
            /// Types every value; `None` if one of them was refused, which the reader reports.
            pub(crate) fn read(
                reader: &mut Reader<'_>,
                name: &str,
                app: BTreeMap<String, String>,
            ) -> Option<Settings> {
                // All values are read before the first failure ends it, to report them together.
                $($(let $name = reader.take(stringify!($name), &$kind);)*)*
                Some(Settings {
                    $($($name: $name?,)*)*
                    app,
                    file_environment: Vec::new(),
                    name: name.to_owned(),
                    origins: reader.origins(),
                    overridden: reader.overridden(),
                    header: None,
                })
            }

            /// The canonical text of a setting's value, as it would stand in an INI file if `%`
            /// meant itself there; empty for "not set". For an `app_NAME` key it is the text the
            /// application sees. `None` if there is no such setting, or nobody set that key.
            ///
            /// Paths are absolute, names are interpolated, and a duration or a size has the largest
            /// unit of which it is a whole number.
            pub fn text(&self, key: &str) -> Option<String> {
                let key = key.to_lowercase();
                match key.as_str() {
                    $($(stringify!($name) => Some(($kind.write)(&self.$name)),)*)*
                    _ => self.app.get(app_name(&key)?).cloned(),
                }
            }

            /// Which rows have equal values, in the order of the table.
            fn equal_rows(&self, other: &Settings) -> Vec<bool> {
                vec![$($(self.$name == other.$name),*),*]
            }

            /// The resource limits that are set, by their keys (`rlimit_nofile`), in the order of
            /// the table.
            pub fn rlimits(&self) -> Vec<(&'static str, Rlimit)> {
                let values: [(&'static str, &dyn Any); _] =
                    [$($((stringify!($name), &self.$name)),*),*];
                // Of all types only a limit's is this one, so no second list of them is needed.
                let limit = |value: &dyn Any| value.downcast_ref::<Option<Rlimit>>().copied();
                values
                    .into_iter()
                    .filter_map(|(key, value)| Some((key, limit(value)??)))
                    .collect()
            }
        }
    };
}

settings! {
    "Files and logs":
    base_path: PathBuf = ".", Restart, BASE_PATH,
        "The folder that relative paths start from, and the workers' working directory unless `directory` says otherwise; relative to the folder of the file.";
    log_path: PathBuf = ".", Restart, FOLDER,
        "A folder meant for logs, to be used through interpolation.";
    pidfile: PathBuf = "%(base_path)s/%(section)s.pid", Restart, FILE,
        "The file that holds the master's pid.";
    log_file: LogTarget = "-", Live, LOG_TARGET,
        "The master's log, and what workers print.";
    log_level: LogLevel = "info", Live, LOG_LEVEL,
        "The least grave log line that is still written; what workers print is always written.";
    log_format: LogFormat = "text", Live, LOG_FORMAT,
        "How a log line is written: for eyes, or as one JSON object.";
    log_max_size: u64 = "50MB", Live, SIZE,
        "The size at which a log is rotated: it becomes `NAME.1`, and so on; 0 is never.";
    log_rotate: LogRotate = "never", Live, LOG_ROTATE,
        "Rotate a log at every full hour or at midnight too, with the first line that comes after it.";
    log_utc: bool = "false", Live, BOOLEAN,
        "Whether hours and days begin by UTC and not by local time; the stamps of lines are UTC always.";
    log_backups: u32 = "10", Live, COUNT,
        "How many rotated files of a log are kept; with 0 a full log is deleted.";
    log_max_age: Duration = "0", Live, DURATION,
        "Delete rotated files that were last written to longer ago than this, at the next rotation; 0 is never.";
    log_compress: LogCompress = "none", Live, LOG_COMPRESS,
        "What becomes of rotated files from `NAME.2` on.";
    worker_log_file: Option<PathBuf> = "", Live, OPTIONAL_FILE,
        "The file for what workers log and print, if that is not `log_file`; `%(slot)s` gives each slot its own.";
    capture_output: Option<bool> = "", Live, OPTIONAL_BOOLEAN,
        "Whether what workers print becomes lines of the log; if not, it goes where the master's own output goes. If not set: yes for commands, no for forked workers.";
    log_line_max: u64 = "16KB", Live, LINE_SIZE,
        "Printed lines longer than this are cut into several.";
    log_overflow: LogOverflow = "block", Live, LOG_OVERFLOW,
        "What happens to printed output while the log takes nothing: `block` lets whoever prints more than its pipe holds wait, `drop` drops and counts.";
    "Service":
    single_instance: bool = "true", Restart, BOOLEAN,
        "Whether only one master of this section runs at a time; if not, several run side by side, numbered.";
    daemonize: bool = "false", Restart, BOOLEAN,
        "Whether a start without a verb goes to the background.";
    control_socket: ControlTarget = "", Restart, CONTROL_SOCKET,
        "The socket where `ph status`, `ph scale`, `ph stop` and others find the master, or `off`; not set, it is beside the pidfile and ends in `.sock`.";
    control_allow: Vec<Allow> = "", Restart, ALLOWED,
        "Who may use that socket, beside root and the master's own user: users, and groups with a `@` before their names.";
    autostart: bool = "true", Live, BOOLEAN,
        "Whether `ph start` starts this section too when no section is named.";
    depends_on: Vec<String> = "", Live, SECTIONS,
        "Sections that are started before this one, as far as they are started together with it; if one of them fails, this one is not started.";
    proc_name: String = "%(section)s", Live, NAME,
        "The name in the titles that `ps` shows.";
    include: Vec<String> = "", Live, GLOBS,
        "Further files of this configuration, as patterns of a shell, from the folder of the main file; only in its `[DEFAULT]`.";
    extra_keys: ExtraKeys = "refuse", Live, EXTRA_KEYS,
        "Whether an unknown key is an error or a warning.";
    "Workers":
    number_workers: WorkerCount = "1", Live, WORKER_COUNT,
        "How many workers are kept alive; `auto` is one for each CPU allowed to this process.";
    max_workers: u32 = "1024", Restart, WORKER_LIMIT,
        "The most workers that any order can ask for.";
    worker_class: Option<WorkerClass> = "", Roll, WORKER_CLASS,
        "What workers are: `command` executes `command`; `sync`, `thread` and `async` are the code of a program with workers of its own, with one request at a time, one on each thread, or many on one runtime. Not set, it is what there is.";
    preload: bool = "false", Restart, BOOLEAN,
        "Whether the code of the workers loads once, in the master, what all of them share; a program has to have something to load.";
    threads: u32 = "1", Roll, THREAD_COUNT,
        "How many threads serve in each worker of the class `thread`.";
    worker_connections: Option<u32> = "", Roll, CONNECTION_COUNT,
        "How many connections each worker of the class `async` has at most at a time; not set, it is 1000.";
    max_greenlets: Option<u32> = "", Roll, CONNECTION_COUNT,
        "The original's name of `worker_connections`.";
    max_requests: u64 = "0", Live, COUNT_U64,
        "Recycle a worker after so many requests; 0 is never.";
    max_requests_jitter: u64 = "0", Live, COUNT_U64,
        "Up to so many requests more, another number for each worker, so that they are not all recycled together.";
    kill_interval: Duration = "0", Live, DURATION,
        "Recycle a worker at this age, its successor first; 0 is never.";
    kill_interval_jitter: Duration = "0", Live, DURATION,
        "Up to so much is added to `kill_interval`, another part for each worker.";
    max_memory: u64 = "0", Live, SIZE,
        "Recycle a worker that three looks in a row found above this: with all it started, where the kernel counts that for its cgroup, else its own resident memory; 0 is never.";
    memory_check_interval: Duration = "5s", Live, DURATION_ABOVE_ZERO,
        "The time between two looks at the memory of workers.";
    ready: Ready = "spawned", Roll, READY,
        "What makes a command ready: that it was executed, that it says so by `READY=1` at its `NOTIFY_SOCKET`, or that a probe succeeds.";
    ready_interval: Duration = "1s", Roll, DURATION_ABOVE_ZERO,
        "How often a worker that is not ready yet is probed.";
    "Listening":
    bind: Vec<Bind> = "", Roll, ADDRESSES,
        "The sockets to listen on, shared by all workers: `HOST:PORT`, `[IPV6]:PORT`, `:PORT`, `unix:PATH`, or passed \
         by systemd or another parent: `sd:NAME`, `fd:NUMBER`.";
    unix_socket: Option<PathBuf> = "", Roll, OPTIONAL_FILE,
        "One Unix socket to listen on, as `bind = unix:PATH`.";
    backlog: u32 = "2048", Roll, BACKLOG,
        "How many connections the kernel queues while all workers are busy; the system's `net.core.somaxconn` may allow fewer.";
    socket_mode: u32 = "0600", Roll, SOCKET_MODE,
        "The permissions of Unix sockets: who may write may connect.";
    socket_owner: Option<UserSpec> = "", Roll, USER,
        "The owner of Unix sockets, and perhaps the group, as `user[:group]`; not set, it is `user`, else the master's own.";
    keepalive: KeepAlive = "off", Roll, KEEPALIVE,
        "Whether the kernel asks of an idle TCP connection if the client is still there: after the system's own time, or after this one.";
    defer_accept: bool = "false", Roll, BOOLEAN,
        "Whether a TCP connection reaches a worker only when the client has sent something, or after about a second.";
    reuse_port: bool = "false", Roll, BOOLEAN,
        "Whether each slot has a TCP socket with a queue of its own (`SO_REUSEPORT`), instead of one that all workers share.";
    "Command and environment":
    command: Vec<String> = "", Roll, COMMAND,
        "The program each worker executes and its arguments; split into words as a shell does, but never run by one.";
    directory: Option<PathBuf> = "", Roll, OPTIONAL_FOLDER,
        "The workers' working directory, if not `base_path`.";
    clear_env: bool = "false", Roll, BOOLEAN,
        "Whether workers start without the variables of the master's own environment.";
    env_file: Vec<EnvFile> = "", Roll, ENV_FILES,
        "Files of variables for the workers, NAME=value on each line; `-` before a path if the file may be missing.";
    environment: Vec<(String, String)> = "", Roll, ENVIRONMENT,
        "Variables for the workers: `NAME=value, OTHER=\"a, b\"`.";
    "Identity and limits":
    user: Option<UserSpec> = "", Roll, USER,
        "The user of the workers, and perhaps their group.";
    group: Option<Id> = "", Roll, GROUP,
        "The group of the workers, if `user` does not name it.";
    umask: u32 = "022", Roll, UMASK,
        "The permissions that files made by workers do not get.";
    nice: Option<i32> = "", Roll, NICE,
        "The priority of the workers, from -20 for the most urgent to 19.";
    oom_score_adj: Option<i32> = "", Roll, OOM_SCORE,
        "How readily the kernel kills a worker when memory runs out: -1000 is never, 1000 is first.";
    cpu_affinity: Option<CpuAffinity> = "", Roll, CPUS,
        "The CPUs that workers may run on; `spread` gives each worker one of its own in turn.";
    rlimit_as: Option<Rlimit> = "", Roll, LIMIT_SIZE,
        "The address space of a worker.";
    rlimit_core: Option<Rlimit> = "", Roll, LIMIT_SIZE,
        "The core file that a worker leaves when it crashes; 0 is none.";
    rlimit_cpu: Option<Rlimit> = "", Roll, LIMIT_SECONDS,
        "The CPU time of a worker, in whole seconds.";
    rlimit_data: Option<Rlimit> = "", Roll, LIMIT_SIZE,
        "The data segment of a worker.";
    rlimit_fsize: Option<Rlimit> = "", Roll, LIMIT_SIZE,
        "The files that a worker writes.";
    rlimit_memlock: Option<Rlimit> = "", Roll, LIMIT_SIZE,
        "The memory that a worker may lock.";
    rlimit_msgqueue: Option<Rlimit> = "", Roll, LIMIT_SIZE,
        "The POSIX message queues of the workers' user.";
    rlimit_nice: Option<Rlimit> = "", Roll, LIMIT_NICE,
        "How far a worker may raise its own priority: 20 less the lowest nice value it may take.";
    rlimit_nofile: Option<Rlimit> = "", Roll, LIMIT_COUNT,
        "The file descriptors of a worker.";
    rlimit_nproc: Option<Rlimit> = "", Roll, LIMIT_COUNT,
        "The processes and threads of the workers' user.";
    rlimit_rss: Option<Rlimit> = "", Roll, LIMIT_SIZE,
        "The resident memory of a worker; Linux ignores it.";
    rlimit_rtprio: Option<Rlimit> = "", Roll, LIMIT_PRIORITY,
        "The highest real-time priority that a worker may take.";
    rlimit_rttime: Option<Rlimit> = "", Roll, LIMIT_MICROSECONDS,
        "The CPU time that a real-time worker may use without a blocking call, in microseconds.";
    rlimit_sigpending: Option<Rlimit> = "", Roll, LIMIT_COUNT,
        "The queued signals of the workers' user.";
    rlimit_stack: Option<Rlimit> = "", Roll, LIMIT_SIZE,
        "The main thread's stack in a worker.";
    "Stopping":
    drain_delay: Duration = "0s", Live, DURATION,
        "How long workers go on serving after the order to stop, before they hear of it: time for those who send clients to learn of it. A second signal ends it.";
    graceful_timeout: Duration = "30s", Live, DURATION,
        "How long a worker has after a stop request before it is killed.";
    stop_signal: StopSignal = "TERM", Live, STOP_SIGNAL,
        "The signal that asks a worker to stop.";
    abort_signal: AbortSignal = "ABRT", Live, ABORT_SIGNAL,
        "The signal that tells a worker that it is stuck or did not boot in time; SIGKILL follows.";
    kill_mode: KillMode = "tree", Live, KILL_MODE,
        "Whom the kill at the end of a stop reaches: the worker and all its descendants, its process group, or itself alone.";
    "Trouble and backoff":
    timeout: Option<Duration> = "", Live, OPTIONAL_DURATION,
        "How long a worker may be silent before it counts as stuck, 0 for ever; not set, it is 30s for forked workers with listeners and 0 for others.";
    boot_timeout: Duration = "60s", Live, DURATION_ABOVE_ZERO,
        "How long a worker may take to become ready.";
    min_uptime: Duration = "1s", Live, DURATION,
        "A worker that ends sooner than this after its start counts as crashed at boot.";
    backoff_min: Duration = "100ms", Live, DURATION_ABOVE_ZERO,
        "The first pause of a slot whose workers keep dying; it doubles from death to death.";
    backoff_max: Duration = "30s", Live, DURATION_ABOVE_ZERO,
        "The longest such pause.";
    max_restarts: u32 = "10", Live, COUNT,
        "More deaths of one slot than this within `restart_window` put the slot into backoff.";
    restart_window: Duration = "60s", Live, DURATION_ABOVE_ZERO,
        "The time in which `max_restarts` counts.";
    on_crash_loop: OnCrashLoop = "retry", Live, ON_CRASH_LOOP,
        "What follows when a slot's workers keep dying: `retry` ever more slowly, or `exit` with code 155.";
    on_event: Vec<String> = "", Live, COMMAND,
        "A command that is run when something happens that people want to know, with `PH_EVENT` saying what; docs/hooks.md has the list.";
    "Reload":
    reload_surge: Amount = "25%", Live, AMOUNT,
        "How many workers, or which share of them, a roll may start beyond the target.";
    max_unavailable: Amount = "0", Live, AMOUNT,
        "How many workers, or which share of them, may be missing in a roll: so many old ones stop before their successors are ready.";
    canary_hold: Duration = "0", Live, DURATION,
        "How long the first new worker of a roll must have been ready before others follow; at least `min_uptime` in any case.";
    upgrade_timeout: Duration = "60s", Live, DURATION_ABOVE_ZERO,
        "How long the successor of an upgrade may take to have its workers ready.";
}

impl Settings {
    /// The name of the service: its section, or the name in the request where there is none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The line at which its section begins; without a file there is none.
    pub fn header(&self) -> Option<&Origin> {
        self.header.as_ref()
    }

    /// Where the value of `key` came from. For `app_NAME` keys the prefix is part of the key; a
    /// key that nobody set, or that is not known, answers [`Origin::Default`].
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(&key.to_lowercase()).cloned().unwrap_or(Origin::Default)
    }

    /// The values that the one of `key` won over, the strongest first; the last is the default of
    /// the table, if `key` is in it.
    pub fn overridden(&self, key: &str) -> &[Overridden] {
        self.overridden.get(&key.to_lowercase()).map_or(&[], Vec::as_slice)
    }

    /// What differs, from these settings to the others: rows in the order of the table, then the
    /// application's own keys by name. Where values came from does not count. `env_file` differs
    /// also if what its files hold does.
    pub fn diff(&self, other: &Settings) -> Vec<Change> {
        let change = |key: &str, apply| {
            let text = |settings: &Settings| settings.text(key).unwrap_or_default();
            Change { key: key.to_owned(), apply, from: text(self), to: text(other) }
        };
        let same_files = self.file_environment == other.file_environment;
        let rows = SETTINGS.iter().zip(self.equal_rows(other));
        let rows = rows.filter(|(row, same)| !same || (row.name == "env_file" && !same_files));
        let names: BTreeSet<&String> = self.app.keys().chain(other.app.keys()).collect();
        let names = names.into_iter().filter(|name| self.app.get(*name) != other.app.get(*name));
        rows.map(|(row, _)| change(row.name, row.apply))
            .chain(names.map(|name| change(&format!("app_{name}"), Apply::Roll)))
            .collect()
    }

    /// The number of workers to keep: `number_workers` with `auto` resolved and bounded by
    /// `max_workers`.
    pub fn workers(&self) -> u32 {
        self.number_workers.resolve().min(self.max_workers)
    }

    /// How many connections an `async` worker has at most: `worker_connections`, or `max_greenlets`. If
    /// both are set, they are equal.
    pub fn connections(&self) -> u32 {
        self.worker_connections.or(self.max_greenlets).unwrap_or(1000)
    }

    /// The group of the workers: `group`, or the one that `user` names. If both are set, they are
    /// equal.
    pub fn effective_group(&self) -> Option<&Id> {
        let of_user = self.user.as_ref().and_then(|user| user.group.as_ref());
        self.group.as_ref().or(of_user)
    }

    /// The variables in the files of `env_file`, each name once, in the order in which the files
    /// name them; of several values the last. They are to be taken as they are: `%(slot)s` means
    /// nothing in them.
    pub fn file_environment(&self) -> &[(String, String)] {
        &self.file_environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_well_formed() {
        for (index, row) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..index].iter().all(|other| other.name != row.name), "{}", row.name);
            assert!(row.doc.ends_with('.') && !row.doc.contains('\n'), "{}", row.name);
            assert!(!row.name.starts_with("app_"), "{}", row.name);
        }
        let mut groups: Vec<_> = SETTINGS.iter().map(|row| row.group).collect();
        groups.dedup();
        for (index, group) in groups.iter().enumerate() {
            assert!(!groups[..index].contains(group), "{group} is there twice");
        }
    }
}
