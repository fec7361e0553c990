//! INI and TOML files, variables and flags merged into one typed [`Settings`], every value with its
//! origin.
//!
//! This crate knows no process and no signal: it turns text into values. A [`Source`] is read into
//! a [`Configuration`], which loads the settings of a section into [`Loaded`], or answers with
//! [`ConfigErrors`], which name every problem with its line and its cure. [`SETTINGS`] is the table
//! everything about settings comes from.
//!
//! Layers, the stronger later: default of the table, `WEB_CONCURRENCY`, `[DEFAULT]` of the main file
//! and of those it includes, the section in the same order, variables, the command line.
//! Interpolation of `%(name)s` happens after they were merged.
//!
//! ```
//! use std::path::Path;
//! use ph_config::{Environment, Origin, Override, Source};
//!
//! let flag = Override { key: "number_workers".into(), value: "4".into(), flag: "-n".into() };
//! let environment = Environment::from_iter([("PH_LOG_LEVEL", "debug"), ("PH_NUMBER_WORKERS", "2")]);
//! let source =
//!     Source { environment, default_name: "jobs", ..Source::new(Path::new("/srv/jobs")) };
//! let settings = source.read()?.load(None, &[flag])?.settings;
//! assert_eq!(settings.workers(), 4);
//! assert_eq!(settings.origin("number_workers"), Origin::Flag("-n".into()));
//! assert_eq!(settings.overridden("number_workers")[0].origin.to_string(), "$PH_NUMBER_WORKERS");
//! assert_eq!(settings.origin("log_level"), Origin::Variable("PH_LOG_LEVEL".into()));
//! assert_eq!(settings.pidfile, Path::new("/srv/jobs/jobs.pid"));
//! # Ok::<(), ph_config::ConfigErrors>(())
//! ```
//!
//! | where | what |
//! |---|---|
//! | `settings`, `row` | the table, and [`Settings`]; what a row of it says |
//! | `value` | kinds of values and their parsers |
//! | `source`, `include` | which files there are, and their sections |
//! | `read`, `trust` | a file as text, and who else can write it |
//! | `format`, `ini`, `toml`, `document` | a text as a document, whatever its language |
//! | `environ` | variables that set keys |
//! | `env_file` | the variables in the files that `env_file` names |
//! | `layers` | figment: which layer wins, and whose value it is |
//! | `interpolate`, `keys` | `%(name)s`; unknown keys, helpers, comments after values |
//! | `load`, `check` | the order of the steps; what settings must agree on |
//! | `order` | which section is started after which |
//! | `own_files` | the files a service takes for itself, and when two paths are one file |
//! | `edit` | one value written back into a file, in place |
//! | `error` | [`Problem`], [`Origin`], the report |
//! | [`reference`](mod@reference) | what people read: the page of all settings, the template of a file |

mod check;
mod document;
mod edit;
mod env_file;
mod environ;
mod error;
mod format;
mod include;
mod ini;
mod interpolate;
mod keys;
mod layers;
mod load;
mod order;
mod own_files;
mod read;
pub mod reference;
mod row;
mod settings;
mod source;
mod toml;
mod trust;
mod value;

pub use document::DEFAULT;
pub use edit::{
    Edit, EditError, EditableFile, FileError, Trial, Verdict, edit, line_of, normalise_key,
    whole_key,
};
pub use environ::{Environment, NotUtf8};
pub use error::{ConfigErrors, Escaped, Origin, Place, Problem, nearest};
pub use format::Format;
pub use interpolate::bind_late;
pub use keys::takes_comment;
pub use layers::Overridden;
pub use load::{Loaded, Override};
pub use order::start_order;
pub use own_files::{OwnFile, Whereabouts};
pub use row::{Apply, Change, SettingInfo};
pub use settings::{SETTINGS, Settings};
pub use source::{Configuration, Source};
pub use trust::{ForeignWriter, ForeignWriters, foreign_writer};
pub use value::{
    AbortSignal, Allow, Amount, Bind, ControlTarget, CpuAffinity, EnvFile, ExtraKeys, Id,
    KeepAlive, KillMode, LogCompress, LogFormat, LogLevel, LogOverflow, LogRotate, LogTarget,
    OnCrashLoop, ProbeTarget, Ready, Rlimit, Schema, StopSignal, UserSpec, ValueError, WorkerClass,
    WorkerCount, parse_boolean, parse_duration, parse_size,
};
