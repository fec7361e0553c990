//! Which configuration file is meant when none is named.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::exit::Exit;
use crate::failure::Failure;

/// Looked for in the current directory, in this order.
const NAMES: [&str; 4] = ["ph.toml", "ph.ini", "config.ini", "conf/config.ini"];

/// The file of `-c`, else of `PH_CONFIG`, else the first of the usual names that exists.
pub(crate) fn config_file(flag: Option<&Path>, folder: &Path) -> Result<PathBuf, Failure> {
    if let Some(path) = flag {
        return Ok(path.to_owned());
    }
    if let Some(path) = std::env::var_os("PH_CONFIG").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let is_there = |name: &PathBuf| {
        // A link to nowhere, or a folder nobody may enter, was meant, too; reading says what is wrong.
        !folder
            .join(name)
            .symlink_metadata()
            .is_err_and(|error| error.kind() == ErrorKind::NotFound)
    };
    NAMES.into_iter().map(PathBuf::from).find(is_there).ok_or_else(|| {
        let names = NAMES.join(", ");
        Failure::new(Exit::Config, format!("no configuration: none of {names} is here"))
            .remedy("name a file with -c FILE, or a command after `--`")
    })
}
