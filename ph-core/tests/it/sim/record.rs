//! What is kept of what happens: nothing, a hash that tells two lives apart, or all of it for people.

use std::fmt::Write as _;

use ph_core::arbiter::{Action, Event, Time};

/// How much is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Nothing,
    /// A hash of everything.
    Hash,
    /// Everything, to stdout.
    Trace,
}

impl Record {
    pub(super) fn write(self, hash: &mut u64, now: Time, event: Event, actions: &[Action]) {
        match self {
            Self::Nothing => {}
            Self::Hash => {
                // Writing into a hash cannot fail.
                let _ = write!(Fnv(hash), "{now:?}{event:?}{actions:?}");
            }
            Self::Trace => {
                println!("{:>14} {event:?}", format!("{now:?}"));
                for action in actions {
                    println!("{:>16} {action:?}", "->");
                }
            }
        }
    }
}

/// A hash one can write text into.
struct Fnv<'a>(&'a mut u64);

impl std::fmt::Write for Fnv<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        Ok(())
    }
}
