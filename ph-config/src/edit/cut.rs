//! Cutting a text and putting lines into it, by offsets.
//!
//! Nothing here knows what the text means; who calls it knows where its parts begin and end.

use std::ops::Range;

use super::Refusal;
use super::literal::quoted;
use super::rows::line_end;

/// A key as it is written: bare if it can be.
pub(super) fn key_text(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

pub(super) fn span(span: Option<Range<usize>>) -> Result<Range<usize>, Refusal> {
    span.ok_or_else(|| Refusal::bug("a value without a place"))
}

pub(super) fn splice(text: &str, at: Range<usize>, new: &str) -> String {
    format!("{}{new}{}", &text[..at.start], &text[at.end..])
}

/// Puts whole lines where a line starts, or behind a last line without an end.
pub(super) fn insert(text: &str, at: usize, lines: &[String]) -> String {
    let end = line_end(text);
    let mut new = lines.join(end) + end;
    if at > 0 && !text[..at].ends_with('\n') {
        new.insert_str(0, end);
    }
    splice(text, at..at, &new)
}

pub(super) fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |before| before + 1)
}

pub(super) fn line_stop(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |length| at + length + 1)
}
