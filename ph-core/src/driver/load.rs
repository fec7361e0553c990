//! A reload, as the driver sees it.

use super::Driver;
use crate::arbiter::{Event, Generation};

impl Driver<'_> {
    /// Reads the configuration anew. A program that has none goes on with what it has.
    pub(super) fn load(&mut self, generation: Generation) -> Option<Event> {
        let policy = *self.arbiter.policy();
        Some(Event::Loaded { generation, policy })
    }

    pub(super) fn abandon_load(&mut self) {}
}
