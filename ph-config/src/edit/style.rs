//! How people set keys against their values, so that a new line looks like its neighbours.
//!
//! A block in which the delimiters stand in one column is aligned, and a new key is filled up to
//! that column; a key too long for it gets one blank, as people do it.

/// What stands between a key and its value in one line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap<'t> {
    /// Columns before the gap, counted in characters.
    pub(super) width: usize,
    /// The white space before the delimiter.
    pub(super) before: &'t str,
    pub(super) delimiter: &'t str,
    /// The white space after it; nothing if there is no value in the line.
    pub(super) after: &'t str,
    /// Whether a value follows in the line.
    pub(super) filled: bool,
}

impl Gap<'_> {
    /// Where the delimiter stands.
    fn column(&self) -> usize {
        self.width + self.before.chars().count()
    }

    /// The white space to put before a value in such a line.
    pub(super) fn after(&self) -> &str {
        match (self.filled, self.before.is_empty(), self.delimiter) {
            (true, _, _) => self.after,
            (false, true, "=") => "",
            (false, _, _) => " ",
        }
    }
}

/// The style of a block of lines.
#[derive(Debug)]
pub(super) struct Style {
    column: Option<usize>,
    before: String,
    delimiter: String,
    after: String,
}

impl Style {
    /// The style of the last line, and aligned if the block is; `key = value` where there is none.
    pub(super) fn of(gaps: &[Gap<'_>]) -> Style {
        let Some((last, others)) = gaps.split_last() else {
            let blank = || " ".to_owned();
            return Style { column: None, before: blank(), delimiter: "=".into(), after: blank() };
        };
        let fits = |other: &Gap<'_>| other.column() == last.column() && other.width != last.width;
        let wide = last.before.chars().count() > 1;
        let aligned = !last.before.is_empty() && (wide || others.last().is_some_and(fits));
        Style {
            column: aligned.then(|| last.column()),
            before: last.before.to_owned(),
            delimiter: last.delimiter.to_owned(),
            after: last.after().to_owned(),
        }
    }

    /// The key, the delimiter and the white space around it.
    pub(super) fn apply(&self, key: &str) -> String {
        let before = match self.column {
            Some(column) if !self.before.contains('\t') => {
                " ".repeat(column.saturating_sub(key.chars().count()).max(1))
            }
            _ => self.before.clone(),
        };
        format!("{key}{before}{}{}", self.delimiter, self.after)
    }
}
