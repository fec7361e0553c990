//! From an event to the two texts of a line: its message and its fields.
//!
//! An event's values are foreign code: their `Debug` may log, may panic, may write without end.
//! So nothing here holds a lock, every buffer is bounded by the length of a line, and the buffers
//! of a thread are taken out of their place while in use: an event logged by a `Debug` finds the
//! place empty and makes new ones.

use std::cell::Cell;
use std::fmt::{self, Write};

use tracing::Event;
use tracing::field::{Field, Visit};

use crate::format;

thread_local! {
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch::new()) };
}

/// The texts of one event, kept from event to event for their memory.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) message: String,
    pub(crate) fields: String,
    /// Where the whole line is put together.
    pub(crate) line: String,
    value: String,
}

impl Scratch {
    const fn new() -> Scratch {
        Scratch {
            message: String::new(),
            fields: String::new(),
            line: String::new(),
            value: String::new(),
        }
    }

    /// The buffers of this thread, with the texts of `event` in them and an empty line.
    pub(crate) fn of(event: &Event<'_>) -> Scratch {
        // Fails only while the thread is being taken down.
        let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
        scratch.message.clear();
        scratch.fields.clear();
        scratch.line.clear();
        event.record(&mut scratch);
        if scratch.message.is_empty() && scratch.fields.is_empty() {
            format::escape(&mut scratch.message, event.metadata().name());
        }
        scratch
    }

    /// Gives the buffers back to the thread.
    pub(crate) fn put_back(self) {
        let _ = SCRATCH.try_with(|place| place.set(self));
    }

    fn plain_field(&mut self, field: &Field, value: impl fmt::Display) {
        format::key(&mut self.fields, field.name());
        // Numbers and truth values neither fail nor need an escape.
        let _ = write!(self.fields, "{value}");
    }
}

impl Visit for Scratch {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A value whose formatting fails shows what it had written until then.
        if is_message(field) {
            let _ = write!(Escaping(&mut self.message), "{value:?}");
        } else {
            self.value.clear();
            let _ = write!(Bounded(&mut self.value), "{value:?}");
            format::key(&mut self.fields, field.name());
            format::debug_value(&mut self.fields, &self.value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if is_message(field) {
            format::escape(&mut self.message, value);
        } else {
            format::key(&mut self.fields, field.name());
            format::value(&mut self.fields, value);
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

fn is_message(field: &Field) -> bool {
    field.name() == "message"
}

/// Escapes what is written. What is beyond the bound is taken and forgotten: many `Debug`s
/// unwrap their writes.
struct Escaping<'a>(&'a mut String);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        format::escape(self.0, text);
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
