//! INI file, defaults and flags merged into one typed [`Settings`], every value with its origin.
//!
//! This crate knows no process and no signal: it turns text into values. [`load()`] takes a
//! [`Request`] and answers with [`Loaded`], or with [`ConfigErrors`], which names every problem
//! with its line and its cure. [`SETTINGS`] is the table everything about settings comes from.
//!
//! Layers, the stronger later: default of the table, `[DEFAULT]` of the file, the section, the
//! command line. Interpolation of `%(name)s` happens after they were merged.
//!
//! ```
//! use std::path::Path;
//! use ph_config::{Origin, Override, Request, load};
//!
//! let overrides = [Override {
//!     key: "number_workers".into(),
//!     value: "4".into(),
//!     flag: "-n".into(),
//! }];
//! let loaded = load(&Request {
//!     file: None,
//!     section: None,
//!     overrides: &overrides,
//!     cwd: Path::new("/srv/jobs"),
//!     default_name: "jobs",
//! })?;
//! assert_eq!(loaded.settings.workers(), 4);
//! assert_eq!(loaded.settings.origin("number_workers"), Origin::Flag("-n".into()));
//! assert_eq!(loaded.settings.pidfile, Path::new("/srv/jobs/jobs.pid"));
//! # Ok::<(), ph_config::ConfigErrors>(())
//! ```
//!
//! | where | what |
//! |---|---|
//! | `settings` | the table, and [`Settings`] |
//! | `value` | kinds of values and their parsers |
//! | `read`, `ini` | a file as text, as a document |
//! | `format` | INI or TOML |
//! | `env_file` | the variables in the files that `env_file` names |
//! | `layers` | figment: which layer wins, and whose value it is |
//! | `interpolate`, `keys` | `%(name)s`; unknown keys, helpers, comments after values |
//! | `load`, `check` | the order of the steps; what settings must agree on |
//! | `error` | [`Problem`], [`Origin`], the report |

mod check;
mod env_file;
mod error;
mod format;
mod ini;
mod interpolate;
mod keys;
mod layers;
mod load;
mod read;
mod settings;
mod value;

pub use error::{ConfigErrors, Origin, Place, Problem};
pub use format::Format;
pub use interpolate::bind_late;
pub use load::{Loaded, Override, Request, load, sections};
pub use settings::{Apply, SETTINGS, SettingInfo, Settings};
pub use value::{
    Amount, Bind, CpuAffinity, EnvFile, ExtraKeys, Id, KillMode, LogLevel, LogTarget, Rlimit,
    StopSignal, UserSpec, ValueError, WorkerCount, parse_boolean, parse_duration, parse_size,
};
