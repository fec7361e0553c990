//! From the bytes of a pipe to lines of the log. Pure: the same bytes, stamp and carry give the same
//! lines, which is what a log process relies on that comes after one that was killed.

use std::time::{Duration, UNIX_EPOCH};

use memchr::memchr;

use super::escape::{MESSAGE, push_fragment, push_json, push_text};
use super::{SourceKind, StandardStream};
use crate::Format;

/// The end of a line that goes on in the next one.
const CUT: &str = "…[cut]";

/// The smallest `line_max`: several characters fit.
const LINE_MIN: usize = 64;

/// The longest name; what is longer is cut.
const NAME_LIMIT: usize = 1024;

/// Who is named in a line.
enum Who {
    /// By slot and generation.
    Worker(u32, u32),
    Helper(&'static str),
}

/// How lines are formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manner {
    pub(super) name: String,
    pub(super) format: Format,
    pub(super) line_max: usize,
}

impl Manner {
    pub(super) fn new(name: &str, format: Format, line_max: usize) -> Manner {
        let name = &name[..name.floor_char_boundary(NAME_LIMIT)];
        Manner { name: name.to_owned(), format, line_max: line_max.max(LINE_MIN) }
    }

    /// What stands in every line of a batch before the level.
    pub(super) fn before(&self, millis: u64) -> String {
        // Beyond the year 9999 humantime panics.
        let at = UNIX_EPOCH + Duration::from_millis(millis.min(253_402_300_799_999));
        let at = humantime::format_rfc3339_millis(at);
        match self.format {
            Format::Text => format!("{at} "),
            Format::Json => format!("{{\"time\":\"{at}\",\"level\":\""),
        }
    }

    /// What stands in every line of a source between the level and the text.
    pub(super) fn after(&self, kind: SourceKind) -> String {
        let (who, pid, stream) = match kind {
            SourceKind::Ready => return String::new(),
            SourceKind::Records { slot, generation, pid } => {
                (Who::Worker(slot, generation), pid, None)
            }
            SourceKind::Output { slot, generation, pid, stream } => {
                (Who::Worker(slot, generation), pid, Some(stream.name()))
            }
            SourceKind::Helper { name, pid, stream } => {
                (Who::Helper(name), pid, Some(stream.name()))
            }
        };
        let mut after = Vec::new();
        match self.format {
            Format::Text => {
                push_text(&mut after, format!(" {}", self.name).as_bytes());
                after.extend(format!("[{pid}] ").as_bytes());
                match who {
                    Who::Worker(slot, generation) => {
                        after.extend(format!("worker {slot} gen {generation}").as_bytes());
                    }
                    Who::Helper(name) => push_text(&mut after, name.as_bytes()),
                }
                let stream = stream.map(|stream| format!(" {stream}")).unwrap_or_default();
                after.extend(format!("{stream}: ").as_bytes());
            }
            Format::Json => {
                after.extend(b"\",\"name\":\"");
                push_json(&mut after, self.name.as_bytes());
                after.extend(format!("\",\"pid\":{pid},\"role\":\"").as_bytes());
                match who {
                    Who::Worker(slot, generation) => {
                        let place = format!("\"slot\":{slot},\"generation\":{generation}");
                        after.extend(format!("worker\",{place}").as_bytes());
                    }
                    Who::Helper(name) => {
                        push_json(&mut after, name.as_bytes());
                        after.push(b'"');
                    }
                }
                if let Some(stream) = stream {
                    after.extend(format!(",\"stream\":\"{stream}\"").as_bytes());
                }
            }
        }
        // Made of pieces of UTF-8 above.
        String::from_utf8(after).unwrap_or_default()
    }

    /// A warning of the log process about itself.
    pub(super) fn notice(
        &self,
        millis: u64,
        pid: u64,
        text: &str,
        fields: &[(&str, u64)],
    ) -> Vec<u8> {
        let mut line = self.before(millis).into_bytes();
        line.extend(b"WARN");
        match self.format {
            Format::Text => {
                push_text(&mut line, format!(" {}", self.name).as_bytes());
                line.extend(format!("[{pid}] log: ").as_bytes());
                push_text(&mut line, text.as_bytes());
                for (name, value) in fields {
                    line.extend(format!(" {name}={value}").as_bytes());
                }
            }
            Format::Json => {
                line.extend(b"\",\"name\":\"");
                push_json(&mut line, self.name.as_bytes());
                line.extend(format!("\",\"pid\":{pid},\"role\":\"log\",\"message\":\"").as_bytes());
                push_json(&mut line, text.as_bytes());
                line.push(b'"');
                let fields: Vec<_> =
                    fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                if !fields.is_empty() {
                    line.extend(format!(",\"fields\":{{{}}}", fields.join(",")).as_bytes());
                }
                line.push(b'}');
            }
        }
        line.push(b'\n');
        line
    }
}

impl StandardStream {
    fn name(self) -> &'static str {
        match self {
            StandardStream::Stdout => "stdout",
            StandardStream::Stderr => "stderr",
        }
    }
}

/// The level of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grade {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Grade {
    const ALL: [Grade; 5] = [Grade::Error, Grade::Warn, Grade::Info, Grade::Debug, Grade::Trace];

    fn name(self) -> &'static str {
        match self {
            Grade::Error => "ERROR",
            Grade::Warn => "WARN",
            Grade::Info => "INFO",
            Grade::Debug => "DEBUG",
            Grade::Trace => "TRACE",
        }
    }

    /// The level a line of a worker names, and the rest of it. A line that names none is one of
    /// level info.
    fn split(line: &[u8]) -> (Grade, &[u8]) {
        if let [first, b' ', rest @ ..] = line
            && let Some(grade) =
                Grade::ALL.iter().find(|grade| grade.name().as_bytes()[0] == *first)
        {
            return (*grade, rest);
        }
        (Grade::Info, line)
    }
}

/// Whether the last line of a source was ended here and not by the worker, and its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Carry(pub(super) Option<Grade>);

impl Carry {
    pub(super) fn to_word(self) -> u64 {
        let place = |grade| Grade::ALL.iter().position(|known| *known == grade);
        self.0.and_then(place).map_or(0, |at| at as u64 + 1)
    }

    pub(super) fn from_word(word: u64) -> Carry {
        let at = usize::try_from(word).unwrap_or(0).checked_sub(1);
        Carry(at.and_then(|at| Grade::ALL.get(at).copied()))
    }
}

/// What is done with bytes behind the last end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// They stay; their rest may come.
    Keep,
    /// They are written as a line.
    End,
    /// As `End`, with the mark of a cut.
    Cut,
}

/// What was made of a piece of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Formed {
    /// How many bytes of the input are in the lines.
    pub(super) taken: usize,
    pub(super) lines: u64,
    pub(super) carry: Carry,
    pub(super) is_cut: bool,
}

/// The lines of one source in one batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Former<'a> {
    pub(super) manner: &'a Manner,
    pub(super) kind: SourceKind,
    pub(super) before: &'a str,
    pub(super) after: &'a str,
}

impl Former<'_> {
    /// Appends lines to `into` until the input or, with a line that is whole, the room is used up.
    pub(super) fn form(
        &self,
        input: &[u8],
        carry: Carry,
        tail: Tail,
        room: usize,
        into: &mut Vec<u8>,
    ) -> Formed {
        let limit = self.line_limit();
        let end = into.len().saturating_add(room);
        let mut formed = Formed { taken: 0, lines: 0, carry, is_cut: false };
        let head = self.head();
        while formed.taken < input.len() && into.len() < end {
            let rest = &input[formed.taken..];
            let window = &rest[..rest.len().min(limit + 1)];
            let (line, skipped, next) = match memchr(b'\n', window) {
                Some(at) => (&rest[..at], 1, None),
                None if rest.len() > limit => (&rest[..cut_at(rest, limit)], 0, Some(Tail::Cut)),
                None if tail == Tail::Keep => break,
                None => (rest, 0, Some(tail)),
            };
            formed.taken += line.len() + skipped;
            formed.is_cut = next == Some(Tail::Cut);
            // The end of a line that was ended here already.
            let is_rest = formed.carry.0.is_some() && skipped == 1 && matches!(line, b"" | b"\r");
            let (grade, text) = self.split(line, formed.carry);
            formed.carry = Carry(next.map(|_| grade));
            if !is_rest {
                let is_whole = next.is_none();
                let text = if is_whole { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
                self.push(&head, grade, text, formed.is_cut, into);
                formed.lines += 1;
            }
        }
        formed
    }

    /// The longest line of this kind.
    pub(super) fn line_limit(&self) -> usize {
        match self.kind {
            SourceKind::Ready => self.manner.line_max.max(crate::format::LINE_LIMIT),
            SourceKind::Records { .. } | SourceKind::Output { .. } | SourceKind::Helper { .. } => {
                self.manner.line_max
            }
        }
    }

    /// The level of a line and what of it is its text.
    fn split<'b>(&self, line: &'b [u8], carry: Carry) -> (Grade, &'b [u8]) {
        match (self.kind, carry.0) {
            (SourceKind::Records { .. }, Some(grade)) => (grade, line),
            (SourceKind::Records { .. }, None) => Grade::split(line),
            (SourceKind::Ready | SourceKind::Output { .. } | SourceKind::Helper { .. }, _) => {
                (Grade::Info, line)
            }
        }
    }

    /// The beginning of every line that is not of a level of its own.
    fn head(&self) -> Vec<u8> {
        let opening = match self.manner.format {
            Format::Text => "",
            Format::Json => MESSAGE,
        };
        [self.before, Grade::Info.name(), self.after, opening].concat().into_bytes()
    }

    fn push(&self, head: &[u8], grade: Grade, text: &[u8], is_cut: bool, into: &mut Vec<u8>) {
        let is_record = match self.kind {
            SourceKind::Ready => {
                into.extend_from_slice(text);
                into.push(b'\n');
                return;
            }
            SourceKind::Records { .. } => true,
            SourceKind::Output { .. } | SourceKind::Helper { .. } => false,
        };
        if is_record {
            for part in [self.before, grade.name(), self.after] {
                into.extend_from_slice(part.as_bytes());
            }
        } else {
            into.extend_from_slice(head);
        }
        match self.manner.format {
            Format::Text => {
                push_text(into, text);
                if is_cut {
                    into.extend_from_slice(CUT.as_bytes());
                }
            }
            Format::Json => {
                if !is_record {
                    push_json(into, text);
                    into.push(b'"');
                } else if !push_fragment(into, text) {
                    into.extend_from_slice(MESSAGE.as_bytes());
                    push_json(into, text);
                    into.push(b'"');
                }
                into.extend_from_slice(if is_cut { b",\"cut\":true}" } else { b"}" });
            }
        }
        into.push(b'\n');
    }
}

/// Where a line that is too long is cut: not within a character.
fn cut_at(line: &[u8], limit: usize) -> usize {
    let is_inside = |at: usize| line.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
    let back = (0..limit.min(4)).find(|back| !is_inside(limit - back));
    limit - back.unwrap_or(0)
}

/// How many bytes at the end are the beginning of a character.
pub(super) fn open_character(bytes: &[u8]) -> usize {
    let last = &bytes[bytes.len().saturating_sub(3)..];
    let Some(chunk) = last.utf8_chunks().last() else { return 0 };
    let open = chunk.invalid();
    // An invalid sequence that more bytes could complete is at the very end.
    let is_open = std::str::from_utf8(open).is_err_and(|error| error.error_len().is_none());
    if is_open { open.len() } else { 0 }
}

#[cfg(test)]
mod tests;
