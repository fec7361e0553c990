//! Paths, made absolute where they are read.
//!
//! A relative path is taken from `base_path`, a relative `base_path` from the folder of the file
//! that was loaded. Cleaning is lexical: `.` components and doubled slashes go, `..` stays, since
//! with links in the way only the kernel knows what it means. Nothing here asks the file system.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Kind, Schema, Shape, ValueError, listed, written};

/// What relative paths are relative to; both absolute and clean wherever a path is read.
#[derive(Debug, Default)]
pub(crate) struct Folders {
    /// The folder of the configuration file, or the current directory.
    pub(crate) here: PathBuf,
    /// The resolved `base_path`.
    pub(crate) base: PathBuf,
}

pub(crate) const BASE_PATH: Kind<PathBuf> = Kind {
    name: "path",
    shape: Shape::Line,
    schema: Schema::Path,
    parse: |text, folders| resolve(text, &folders.here),
    write: |path| path.display().to_string(),
};

pub(crate) const FOLDER: Kind<PathBuf> =
    Kind { parse: |text, folders| resolve(text, &folders.base), ..BASE_PATH };

pub(crate) const OPTIONAL_FOLDER: Kind<Option<PathBuf>> = Kind {
    name: "path",
    shape: Shape::Line,
    schema: Schema::Path,
    parse: |text, folders| match text {
        "" => Ok(None),
        text => resolve(text, &folders.base).map(Some),
    },
    write: |folder| written(folder.as_ref(), BASE_PATH.write),
};

pub(crate) const FILE: Kind<PathBuf> = Kind { parse: file, ..BASE_PATH };

pub(crate) const OPTIONAL_FILE: Kind<Option<PathBuf>> = Kind {
    parse: |text, folders| match text {
        "" => Ok(None),
        text => file(text, folders).map(Some),
    },
    ..OPTIONAL_FOLDER
};

pub(crate) const LOG_TARGET: Kind<LogTarget> = Kind {
    name: "path, or - for stderr",
    shape: Shape::Line,
    schema: Schema::Path,
    parse: |text, folders| match text {
        "-" => Ok(LogTarget::Stderr),
        text => file(text, folders).map(LogTarget::File),
    },
    write: LogTarget::to_string,
};

pub(crate) const CONTROL_SOCKET: Kind<ControlTarget> = Kind {
    name: "path, or off",
    shape: Shape::Line,
    schema: Schema::Path,
    parse: |text, folders| match text {
        "" => Ok(ControlTarget::BesidePidfile),
        "off" => Ok(ControlTarget::Off),
        text => file(text, folders).map(ControlTarget::File),
    },
    write: ControlTarget::to_string,
};

pub(crate) const GLOBS: Kind<Vec<String>> = Kind {
    name: "list of patterns",
    shape: Shape::Lines,
    schema: Schema::List { of: &Schema::Path, word: None },
    parse: globs,
    write: |all| listed(all, String::clone),
};

/// How many patterns `include` may have.
const MAX_PATTERNS: usize = 64;

/// Where log lines go: `log_file`.
///
/// Prints in the form it is written in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error, written `-` as in gunicorn.
    Stderr,
    /// A file, by its absolute path.
    File(PathBuf),
}

/// Where a master can be asked and told: `control_socket`.
///
/// Prints in the form it is written in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlTarget {
    /// Beside the pidfile, with the ending `.sock`.
    BesidePidfile,
    /// Nowhere.
    Off,
    /// At this absolute path.
    File(PathBuf),
}

impl fmt::Display for ControlTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BesidePidfile => Ok(()),
            Self::Off => f.write_str("off"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Patterns of files, as they were written.
fn globs(text: &str, folders: &Folders) -> Result<Vec<String>, ValueError> {
    let mut all = Vec::new();
    for item in text.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty()) {
        if all.len() == MAX_PATTERNS {
            let expected = format!("at most {MAX_PATTERNS} patterns");
            return Err(ValueError::new(expected, "name fewer files"));
        }
        // It is resolved where it is used; here it is only judged.
        resolve(item, &folders.here)?;
        if item.split('/').any(|part| part == "**") {
            let mend = "name the folders: conf.d/*/*.ini";
            return Err(ValueError::new("patterns without `**`", mend));
        }
        all.push(item.to_owned());
    }
    Ok(all)
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("-"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A path that names a file, not a folder.
pub(crate) fn file(text: &str, folders: &Folders) -> Result<PathBuf, ValueError> {
    if matches!(text.rsplit('/').next(), Some("" | "." | "..")) && !text.is_empty() {
        return Err(ValueError::new(
            "the path of a file",
            "add the name of the file to the folder",
        ));
    }
    resolve(text, &folders.base)
}

fn resolve(text: &str, base: &Path) -> Result<PathBuf, ValueError> {
    if text.is_empty() {
        return Err(ValueError::new("a path", "write a path, or take the line out"));
    }
    if text == "~" || text.starts_with("~/") {
        let mend = "`~` is the shell's; write %(ENV_HOME)s, or ./~ for a folder of that name";
        return Err(ValueError::new("a path", mend));
    }
    Ok(clean(&base.join(text)))
}

/// Takes `.` components and doubled slashes out of an absolute path.
pub(crate) fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_clean() {
        let folders = Folders { here: "/etc/app".into(), base: "/srv".into() };
        let read = |kind: &Kind<PathBuf>, text| (kind.parse)(text, &folders);
        assert_eq!(read(&BASE_PATH, ".").as_deref(), Ok(Path::new("/etc/app")));
        assert_eq!(read(&FOLDER, "./a/./b//c/").as_deref(), Ok(Path::new("/srv/a/b/c")));
        assert_eq!(read(&FILE, "../x").as_deref(), Ok(Path::new("/srv/../x")));
        assert_eq!(read(&FILE, "/./x").as_deref(), Ok(Path::new("/x")));
        for bad in ["", "~", "~/x", "run/", ".", "a/.."] {
            assert!(read(&FILE, bad).is_err(), "{bad}");
        }
    }
}
