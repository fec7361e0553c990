//! From an event to the two texts of a line: its message and its fields.
//!
//! An event's values are foreign code: their `Debug` may log, may panic, may write without end.
//! So nothing here holds a lock, every buffer is bounded by the length of a line, and the buffers
//! of a thread are taken out of their place while in use: an event logged by a `Debug` finds the
//! place empty and makes new ones.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::format::{self, Format, Head, LINE_LIMIT, json};
use crate::identity::Role;

thread_local! {
    // A box, for they are handed around by value.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// The texts of one event, kept from event to event for their memory.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    format: Format,
    /// Escaped for the format.
    message: String,
    /// In text; of JSON see `json_fields`.
    fields: String,
    json_fields: json::Fields,
    /// Where the whole line is put together.
    line: String,
    value: String,
    head: KeptHead,
}

/// The head of the last line, which is that of the next as a rule: to write it anew takes as long as
/// all the rest of a line.
#[derive(Debug, Default)]
struct KeptHead {
    text: String,
    /// Of whom it speaks, and when: the millisecond, the level, the process, its role, the format.
    of: Option<(u128, Level, u32, Role, Format)>,
    name: String,
}

impl KeptHead {
    fn text(&mut self, head: Head<'_>, format: Format) -> &str {
        let since = head.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let of = Some((since.as_millis(), head.level, head.pid, head.role, format));
        if self.of != of || self.name != head.name {
            self.text = format::text_of(head, format);
            self.of = of;
            head.name.clone_into(&mut self.name);
        }
        &self.text
    }
}

impl Scratch {
    /// The buffers of this thread, with the texts of `event` in them.
    pub(crate) fn of(event: &Event<'_>, format: Format) -> Box<Scratch> {
        // Fails only while the thread is being taken down.
        let mut scratch = SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_default();
        scratch.format = format;
        scratch.message.clear();
        scratch.fields.clear();
        scratch.json_fields.clear();
        event.record(&mut *scratch);
        if scratch.message.is_empty() && scratch.fields.is_empty() && scratch.json_fields.is_empty()
        {
            escape(&mut scratch.message, event.metadata().name(), format);
        }
        scratch
    }

    /// The whole line.
    pub(crate) fn line(&mut self, head: Head<'_>) -> &str {
        self.line.clear();
        let head = self.head.text(head, self.format);
        match self.format {
            Format::Text => format::line_behind(&mut self.line, head, &self.message, &self.fields),
            Format::Json => {
                json::line_behind(&mut self.line, head, &self.message, &self.json_fields);
            }
        }
        &self.line
    }

    /// Gives the buffers back to the thread.
    pub(crate) fn put_back(self: Box<Self>) {
        let _ = SCRATCH.try_with(|place| place.set(Some(self)));
    }

    fn plain_field(&mut self, field: &Field, value: impl fmt::Display) {
        match self.format {
            Format::Text => {
                format::key(&mut self.fields, field.name());
                // Numbers and truth values neither fail nor need an escape.
                let _ = write!(self.fields, "{value}");
            }
            Format::Json => self.json_fields.plain(field.name(), value),
        }
    }
}

impl Visit for Scratch {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A value whose formatting fails shows what it had written until then.
        if is_message(field) {
            let into = &mut self.message;
            let _ = write!(Escaping { into, format: self.format }, "{value:?}");
            return;
        }
        self.value.clear();
        let _ = write!(Bounded(&mut self.value), "{value:?}");
        match self.format {
            Format::Text => {
                format::key(&mut self.fields, field.name());
                format::debug_value(&mut self.fields, &self.value);
            }
            Format::Json => self.json_fields.debug(field.name(), &self.value),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if is_message(field) {
            escape(&mut self.message, value, self.format);
            return;
        }
        match self.format {
            Format::Text => {
                format::key(&mut self.fields, field.name());
                format::value(&mut self.fields, value);
            }
            Format::Json => self.json_fields.string(field.name(), value),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let is_json = match self.format {
            Format::Text => false,
            Format::Json => true,
        };
        // JSON has no number for the others. `Debug` shows huge ones by their exponent.
        if is_json && value.is_finite() && !is_message(field) {
            self.plain_field(field, format_args!("{value:?}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain_field(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain_field(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain_field(field, value);
    }
}

/// Appends `text` as a line of this format can hold it, and no more than that.
fn escape(into: &mut String, text: &str, format: Format) {
    match format {
        Format::Text => format::escape(into, text),
        Format::Json => {
            json::escape(into, text, LINE_LIMIT);
        }
    }
}

fn is_message(field: &Field) -> bool {
    field.name() == "message"
}

/// Escapes what is written. What is beyond the bound is taken and forgotten: many `Debug`s
/// unwrap their writes.
struct Escaping<'a> {
    into: &'a mut String,
    format: Format,
}

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.into, text, self.format);
        Ok(())
    }
}

/// Keeps what is written, as far as a line can show it.
struct Bounded<'a>(&'a mut String);

impl Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        format::push(self.0, text);
        Ok(())
    }
}
