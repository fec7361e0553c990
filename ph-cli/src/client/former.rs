//! A master whose lock is not where the configuration has it now: `pidfile` or `base_path` was changed since
//! it was started.
//!
//! No list of masters is kept anywhere. What a process is called, and where it runs, is a hint; that it holds a
//! lock, and says on its control socket that it was made from this very file and section, is the proof. Only
//! processes of this user are looked at, and none is asked that runs neither in this folder nor in one above
//! the file: most of that name have nothing to do with it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use ph_config::{Escaped, Settings};
use ph_core::Pidfile;

use super::{Master, Service};
use crate::{output, source};

/// How long such a master may take to say whose it is.
const LIMIT: Duration = Duration::from_secs(2);

impl Service {
    /// The same where its masters are, if none runs where the configuration has them.
    pub(super) fn where_it_runs(self, settings: &Settings, made_from: &str) -> Self {
        let is_here = || !matches!(self.masters(), Ok(masters) if masters.is_empty());
        if self.target.instance.is_some() || is_here() {
            return self;
        }
        let Some((there, master)) = self.former(settings, made_from) else { return self };
        let path = there.pidfile().unwrap_or(Path::new("")).display();
        let pid = master.pid.unwrap_or_default();
        let text =
            format!("note: the master of {} (pid {pid}) has another pidfile: {path}", self.name);
        output::note(&Escaped(&text).to_string());
        there
    }

    /// A master of this section that has another pidfile, and its service with that.
    pub(crate) fn former(&self, settings: &Settings, made_from: &str) -> Option<(Self, Master)> {
        let here = std::env::current_dir().ok()?;
        let file = here.join(self.config.as_ref()?);
        let is_near = |pid: &i32| {
            let folder = fs::read_link(format!("/proc/{pid}/cwd"));
            folder.is_ok_and(|folder| folder == here || file.starts_with(folder))
        };
        let title = format!("ph: master [{}]", settings.proc_name);
        let is_called = |shown: &[u8]| title.as_bytes().starts_with(shown);
        let near = masters().iter().filter(|(_, shown)| is_called(shown)).map(|(pid, _)| *pid);
        let places = near.filter(is_near).flat_map(|pid| {
            let paths = locks_of(pid).into_iter().flat_map(|lock| pidfiles_of(&lock));
            paths.map(move |path| (pid, path)).collect::<Vec<_>>()
        });
        places.filter(|(_, path)| self.pidfile() != Some(path)).find_map(|(pid, path)| {
            let pidfile = Some(Pidfile { path, single_instance: false });
            let there = Self { pidfile, ..self.clone() };
            let masters = there.masters().ok()?;
            let master = masters.into_iter().find(|master| master.pid == Some(pid))?;
            let (status, _) = there.status_of(&master, LIMIT).ok()?;
            (status.made_from.as_deref() == Some(made_from)).then_some((there, master))
        })
    }
}

/// What may be masters of this user, with their titles, which may be cut. Looked up once: whoever comes later
/// has the files of the configuration as it is now.
fn masters() -> &'static [(i32, Vec<u8>)] {
    static MASTERS: OnceLock<Vec<(i32, Vec<u8>)>> = OnceLock::new();
    MASTERS.get_or_init(|| {
        let Ok(uid) = source::effective_uid() else { return Vec::new() };
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let titled = entries.flatten().filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let words = fs::read(entry.path().join("cmdline")).ok()?;
            let shown = words.split(|byte| *byte == 0).next()?.to_vec();
            let is_own = || entry.metadata().is_ok_and(|it| it.uid() == uid);
            (shown.starts_with(b"ph:") && is_own()).then_some((pid, shown))
        });
        titled.collect()
    })
}

/// What the pidfile may be called that goes with a lock: that of all instances first.
fn pidfiles_of(lock: &Path) -> Vec<PathBuf> {
    let stem = lock.with_extension("");
    let number = stem.extension().and_then(|it| it.to_str()?.parse::<u32>().ok());
    let of_all = number.map(|_| stem.with_extension("pid"));
    of_all.into_iter().chain([lock.with_extension("pid")]).collect()
}

/// Files it has open that are called as locks are.
fn locks_of(pid: i32) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let files = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    files.filter(|file| file.extension().is_some_and(|ending| ending == "lock")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_goes_with_the_pidfile_of_all_instances_or_with_its_own() {
        let of = |lock: &str| pidfiles_of(Path::new(lock));
        assert_eq!(of("/run/web.lock"), [Path::new("/run/web.pid")]);
        assert_eq!(of("/run/web.2.lock"), [Path::new("/run/web.pid"), Path::new("/run/web.2.pid")]);
    }
}
