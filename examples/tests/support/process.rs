//! Processes as /proc shows them. Whatever has ended meanwhile gives nothing, never an error.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::eventually;

/// A process, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Process(pub(crate) i32);

impl Process {
    /// The tests' own.
    pub(crate) fn own() -> Self {
        Self(i32::try_from(std::process::id()).expect("a pid"))
    }

    /// All living processes whose environment, as of their `exec`, holds this variable.
    pub(crate) fn with_variable(name: &str, value: &str) -> Vec<Self> {
        let entries = std::fs::read_dir("/proc").expect("/proc");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let processes = names.filter_map(|name| name.parse().ok().map(Self));
        let has_it =
            |process: &Self| process.environment().get(name).is_some_and(|found| found == value);
        processes.filter(has_it).collect()
    }

    /// Whether it lives; a zombie does not.
    pub(crate) fn is_alive(self) -> bool {
        !matches!(self.stat(3).as_deref(), None | Some("Z" | "X"))
    }

    /// Waits for its end.
    pub(crate) fn wait_gone(self) {
        eventually("its end", || (!self.is_alive()).then_some(()));
    }

    /// Its children, zombies included.
    pub(crate) fn children(self) -> Vec<Self> {
        let text = self.read(&format!("task/{}/children", self.0)).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok().map(Self)).collect()
    }

    /// Its threads, each of which has a folder of its own in /proc, though none that is listed there.
    pub(crate) fn threads(self) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(self.path("task")) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| name.parse().ok().map(Self)).collect()
    }

    /// What `ps` shows.
    pub(crate) fn title(self) -> String {
        let text = self.read("cmdline").unwrap_or_default();
        text.trim_end_matches('\0').replace('\0', " ")
    }

    /// Its environment as of its `exec`.
    pub(crate) fn environment(self) -> BTreeMap<String, String> {
        let text = self.read("environ").unwrap_or_default();
        let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// A field of `status`, such as `SigBlk`.
    pub(crate) fn status(self, name: &str) -> String {
        let text = self.read("status").unwrap_or_default();
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        let field = fields.find(|(field, _)| *field == name);
        field.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    }

    /// A field of `status` in numbers, such as `VmRSS`.
    pub(crate) fn status_number(self, name: &str) -> u64 {
        let text = self.status(name);
        let number = text.split_whitespace().next().and_then(|word| word.parse().ok());
        number.unwrap_or_else(|| panic!("{name} of {self:?} is {text:?}"))
    }

    /// A field of `stat`, by its number in proc(5), from 3 on.
    pub(crate) fn stat(self, field: usize) -> Option<String> {
        let text = self.read("stat")?;
        let after_name = &text[text.rfind(')')? + 1..];
        after_name.split_whitespace().nth(field - 3).map(str::to_owned)
    }

    /// The processor time it used, in ticks of 10 ms.
    pub(crate) fn cpu_ticks(self) -> u64 {
        let field = |number| self.stat(number)?.parse::<u64>().ok();
        field(14).zip(field(15)).map_or(0, |(user, system)| user + system)
    }

    /// How often it gave up the processor or lost it.
    pub(crate) fn context_switches(self) -> (u64, u64) {
        let count = |name| self.status_number(name);
        (count("voluntary_ctxt_switches"), count("nonvoluntary_ctxt_switches"))
    }

    /// Its open descriptors and what they name.
    pub(crate) fn descriptors(self) -> BTreeMap<i32, String> {
        let Ok(entries) = std::fs::read_dir(self.path("fd")) else { return BTreeMap::new() };
        let described = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, std::fs::read_link(entry.path()).ok()?.display().to_string()))
        });
        described.collect()
    }

    /// Sends it a signal, which must still be possible.
    pub(crate) fn send(self, signal: Signal) {
        kill(Pid::from_raw(self.0), signal)
            .unwrap_or_else(|errno| panic!("{signal} to {self:?}: {errno}"));
    }

    /// A file of its folder in /proc.
    pub(crate) fn read(self, file: &str) -> Option<String> {
        let bytes = std::fs::read(self.path(file)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn path(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.0))
    }
}
