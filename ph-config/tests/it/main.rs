//! What `load` makes of files and flags, as a caller sees it; one binary for all of it.

mod dialect;
mod differential;
mod edit;
mod edit_file;
mod edit_toml;
mod environment;
mod files;
mod generated;
mod hostile;
mod identity;
mod include;
mod names;
mod own_files;
mod properties;
mod random;
mod reference;
mod report;
mod salvage;
mod sample;
mod toml;
mod trust;

use std::path::{Path, PathBuf};

use ph_config::{ConfigErrors, Configuration, Environment, Loaded, Override, Settings, Source};
use tempfile::TempDir;

/// A private folder with one configuration file, `app.ini` unless it is named otherwise.
struct Site {
    folder: TempDir,
    file: &'static str,
    overrides: Vec<Override>,
    section: Option<String>,
    environment: Environment,
}

impl Site {
    fn new(text: impl AsRef<[u8]>) -> Site {
        Site::named("app.ini", text)
    }

    fn toml(text: impl AsRef<[u8]>) -> Site {
        Site::named("app.toml", text)
    }

    fn named(file: &'static str, text: impl AsRef<[u8]>) -> Site {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let environment = Environment::default();
        let site = Site { folder, file, overrides: Vec::new(), section: None, environment };
        site.file(file, text)
    }

    /// One more file.
    fn file(self, name: &str, text: impl AsRef<[u8]>) -> Site {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it is below the folder")).expect("a folder");
        std::fs::write(path, text).expect("the folder is writable");
        self
    }

    fn set(mut self, key: &str, value: &str) -> Site {
        let flag = format!("--set {key}");
        self.overrides.push(Override { key: key.into(), value: value.into(), flag });
        self
    }

    fn section(mut self, name: impl Into<String>) -> Site {
        self.section = Some(name.into());
        self
    }

    fn environment(mut self, variables: &[(&str, &str)]) -> Site {
        self.environment = Environment::from_iter(variables.iter().copied());
        self
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    fn source<'s>(&'s self, file: &'s str) -> Source<'s> {
        let environment = self.environment.clone();
        Source { file: Some(Path::new(file)), environment, ..Source::new(self.folder.path()) }
    }

    fn read(&self) -> Result<Configuration, ConfigErrors> {
        self.source(self.file).read()
    }

    fn load_file(&self, file: &str) -> Result<Loaded, ConfigErrors> {
        self.source(file).read()?.load(self.section.as_deref(), &self.overrides)
    }

    fn load(&self) -> Result<Loaded, ConfigErrors> {
        self.load_file(self.file)
    }

    fn load_section(&self, name: &str) -> Settings {
        let loaded = self.read().and_then(|configuration| configuration.load(Some(name), &[]));
        loaded.unwrap_or_else(|errors| panic!("refused: {errors}")).settings
    }

    /// The names of all sections, if the file can be read.
    fn sections(&self) -> Vec<String> {
        self.read().expect("the file can be read").sections().to_vec()
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
