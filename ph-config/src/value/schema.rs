//! What can be said about the values of a kind without parsing one.
//!
//! A reference, an editor and a reader of TOML ask this: which type of the file's language a value
//! has, and within which bounds. It is less than a parser knows. Whatever it says, any value may
//! also be text, because `%(name)s` is replaced in text only.

/// The form of a value.
///
/// ```
/// use ph_config::{SETTINGS, Schema};
///
/// let row = SETTINGS.iter().find(|row| row.name == "nice").unwrap();
/// assert_eq!(row.schema, Schema::Integer { least: -20, most: 19, word: None });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// Yes or no.
    Boolean,
    /// A whole number.
    Integer {
        /// The smallest one.
        least: i64,
        /// The largest one.
        most: u64,
        /// A word that stands for a number which is not known beforehand.
        word: Option<&'static str>,
    },
    /// A whole number in octal digits: `022` in INI, `0o022` in TOML.
    Octal {
        /// The largest one.
        most: u32,
    },
    /// A number of seconds, or a number with a unit.
    Duration {
        /// Whether 0 is refused.
        above_zero: bool,
    },
    /// Yes or no, a number of seconds, or a number with a unit.
    SwitchOrDuration,
    /// A number of bytes, or a whole number with a unit.
    Size,
    /// A whole number, or a share of 0% to 100%.
    Share,
    /// A name: letters, digits, `.`, `_` and `-`.
    Name,
    /// The name of a section.
    Section,
    /// A user or a group by name or number, or both with a colon between them.
    Identity,
    /// The path of a file or a folder.
    Path,
    /// An address to listen on.
    Address,
    /// What makes a worker ready: a word, an address to probe, or a command.
    Readiness,
    /// One word of a closed list, in any case.
    Choice {
        /// The list.
        words: &'static [&'static str],
        /// Words that other programs use, which are read as one of the list.
        aliases: &'static [&'static str],
    },
    /// A limit: one value for both, or `SOFT:HARD`; either may be `unlimited`.
    Limit(&'static Schema),
    /// Any number of values, by commas or by lines in INI, an array in TOML; or the word.
    List {
        /// What one of them is.
        of: &'static Schema,
        /// What may stand instead of a list.
        word: Option<&'static str>,
    },
    /// Names and values: `NAME=value, …` in INI, a table in TOML.
    Map,
    /// The words of a command line; in TOML also an array, one item for each word.
    Command,
}
