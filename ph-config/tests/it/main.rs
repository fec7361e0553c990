//! What `load` makes of files and flags, as a caller sees it; one binary for all of it.

mod dialect;
mod files;
mod identity;
mod names;
mod random;
mod report;
mod sample;

use std::path::{Path, PathBuf};

use ph_config::{ConfigErrors, Loaded, Override, Request, load};
use tempfile::TempDir;

/// A private folder with one configuration file, `app.ini`.
struct Site {
    folder: TempDir,
    overrides: Vec<Override>,
    section: Option<&'static str>,
}

impl Site {
    fn new(text: impl AsRef<[u8]>) -> Site {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join("app.ini"), text).expect("the folder is writable");
        Site { folder, overrides: Vec::new(), section: None }
    }

    fn set(mut self, key: &str, value: &str) -> Site {
        let flag = format!("--set {key}");
        self.overrides.push(Override { key: key.into(), value: value.into(), flag });
        self
    }

    fn section(mut self, name: &'static str) -> Site {
        self.section = Some(name);
        self
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    fn load_file(&self, file: &str) -> Result<Loaded, ConfigErrors> {
        load(&Request {
            file: Some(Path::new(file)),
            section: self.section,
            overrides: &self.overrides,
            cwd: self.folder.path(),
            default_name: "unused",
        })
    }

    fn load(&self) -> Result<Loaded, ConfigErrors> {
        self.load_file("app.ini")
    }

    fn good(&self) -> Loaded {
        self.load().unwrap_or_else(|errors| panic!("refused: {errors}"))
    }

    /// The report, with `app.ini` for the file as it was named.
    fn bad(&self) -> String {
        match self.load() {
            Ok(loaded) => panic!("accepted: {loaded:?}"),
            Err(errors) => errors.to_string(),
        }
    }

    fn warnings(&self) -> String {
        let warnings: Vec<String> = self.good().warnings.iter().map(ToString::to_string).collect();
        warnings.join("\n")
    }
}
