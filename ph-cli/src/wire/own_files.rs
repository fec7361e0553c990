//! What a service would write must not be what it executes.
//!
//! Files against each other, and against those of the configuration, are the business of `ph-config`;
//! where the program is, only the host can tell.

use std::path::PathBuf;

use ph_config::Whereabouts;

use super::Service;
use crate::exit::Exit;
use crate::failure::Failure;

impl Service {
    /// Each file of the service that is its program, or this one.
    pub(crate) fn overwritten_programs(&self) -> Vec<Failure> {
        let found = self.silent_master(None, None).program().and_then(Result::ok);
        let programs = [("the program of its workers", found), ("this program", this_program())];
        let programs = programs.map(|(name, path)| {
            (name, path.iter().flat_map(|path| Whereabouts::all_of(path)).collect::<Vec<_>>())
        });
        let files = self.settings.own_files().into_iter().filter_map(|file| {
            // A log is written where it is, under whatever name; all else gets a new file.
            let written = match file.key {
                "log_file" | "worker_log_file" => Whereabouts::all_of(&file.path),
                _ => vec![Whereabouts::of(&file.path)],
            };
            let is_among = |places: &[Whereabouts]| written.iter().any(|it| places.contains(it));
            let (name, _) = programs.iter().find(|(_, places)| is_among(places))?;
            let path = file.path.display();
            let why = format!("{path} is {name}, and would be overwritten as its {}", file.what);
            let remedy = format!("give {} another path", file.key);
            Some(self.failure(Exit::Config, &why, file.key).remedy(remedy))
        });
        files.collect()
    }
}

fn this_program() -> Option<PathBuf> {
    std::env::current_exe().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ph_config::{Override, Source};

    use super::*;

    /// `ph-config` says which file is the lock, and `ph-core` makes it.
    #[test]
    fn both_crates_mean_the_same_lock() {
        let configuration = Source::new(Path::new("/srv")).read().unwrap();
        for pidfile in ["w.pid", "w", "w.a", "w.lock", "a/.pid", "w.pid.pid", "w.PID", "w.2.pid"] {
            let (key, flag) = ("pidfile".to_owned(), "--set".to_owned());
            let flag = Override { key, value: pidfile.to_owned(), flag };
            let settings = configuration.load(None, &[flag]).unwrap().settings;
            let service = Service { settings, command: None, forked: None };
            let files = service.settings.own_files();
            let lock = files.iter().find(|file| file.what == "lock file").unwrap();
            assert_eq!(lock.path, service.pidfile().lock(), "{pidfile}");
        }
    }
}
