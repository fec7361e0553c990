//! The configuration that the arguments mean: which file, whose variables, what the flags set.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use ph_config::{Environment, ForeignWriters, Origin, Override, Settings, Source};

use crate::args::SourceArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::find;

/// Where the configuration is looked for.
#[derive(Clone)]
pub(crate) struct Place {
    /// The current directory.
    pub(crate) folder: PathBuf,
    /// The file, as it was named; none for a service without one.
    pub(crate) file: Option<PathBuf>,
    foreign_writers: ForeignWriters,
}

impl Place {
    /// The file of the arguments, or the usual one.
    pub(crate) fn find(args: &SourceArgs) -> Result<Self, Failure> {
        let mut place = Self::without_file(args)?;
        place.file = Some(find::config_file(args.config.as_deref(), &place.folder)?);
        Ok(place)
    }

    /// No file.
    pub(crate) fn without_file(args: &SourceArgs) -> Result<Self, Failure> {
        let folder = std::env::current_dir().map_err(|error| {
            Failure::new(Exit::Failed, format!("the current directory cannot be used: {error}"))
                .remedy("cd into a directory that exists")
        })?;
        let foreign_writers = match (effective_uid().is_ok_and(|uid| uid == 0), args.allow_writable)
        {
            (false, _) => ForeignWriters::Accept,
            (true, true) => ForeignWriters::Warn,
            (true, false) => ForeignWriters::Refuse,
        };
        Ok(Self { folder, file: None, foreign_writers })
    }

    /// By which the master of a section of the file can be told from that of another service. One that
    /// was given a place of its own beside the file is another.
    pub(crate) fn made_from(&self, settings: &Settings) -> Option<String> {
        let file: PathBuf = self.folder.join(self.file.as_ref()?).components().collect();
        let section = format!("{} [{}]", file.display(), settings.name());
        let is_beside = |key| matches!(settings.origin(key), Origin::Variable(_) | Origin::Flag(_));
        Some(match ["base_path", "pidfile"].into_iter().any(is_beside) {
            true => format!("{section}, {}", settings.pidfile.display()),
            false => section,
        })
    }

    /// The source, with the variables of this process.
    pub(crate) fn source(&self) -> Source<'_> {
        Source {
            file: self.file.as_deref(),
            environment: Environment::of_process(),
            foreign_writers: self.foreign_writers,
            ..Source::new(&self.folder)
        }
    }
}

/// What `--set` sets.
pub(crate) fn overrides(args: &SourceArgs) -> Vec<Override> {
    let given = args.set.iter().cloned();
    given.map(|(key, value)| Override { flag: format!("--set {key}"), key, value }).collect()
}

/// The user whose rights this process has.
pub(crate) fn effective_uid() -> io::Result<u32> {
    Ok(std::fs::metadata("/proc/self")?.uid())
}
