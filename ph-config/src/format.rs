//! Which language a file is written in: its name says so.

use std::path::Path;

/// The language of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Python's ConfigParser dialect: `.ini`, `.conf`, `.cfg`, and whatever is not TOML.
    Ini,
    /// TOML: `.toml`.
    Toml,
}

impl Format {
    /// The language of the file of this name.
    ///
    /// ```
    /// use ph_config::Format;
    ///
    /// assert_eq!(Format::of("conf/ph.toml".as_ref()), Format::Toml);
    /// assert_eq!(Format::of("conf/config.ini".as_ref()), Format::Ini);
    /// assert_eq!(Format::of("conf/config".as_ref()), Format::Ini);
    /// ```
    pub fn of(file: &Path) -> Self {
        let extension = file.extension().and_then(|extension| extension.to_str());
        match extension.is_some_and(|it| it.eq_ignore_ascii_case("toml")) {
            true => Self::Toml,
            false => Self::Ini,
        }
    }
}
