//! What a master and its successor say to each other, over a channel that the successor is born with.
//!
//! ```text
//! successor                     master
//! hello (version)      ->
//!                      <-       descriptors: the lock, then the listeners; then what they are
//! ready (which it has) ->
//!                      <-       commit (how many workers)
//! taken over           ->
//! stopped              ->       only if it was told to stop before the master has gone
//! ```
//!
//! Each message begins with a byte that says what it is. A version neither side knows ends the attempt, and
//! the end of the channel is the end of the other.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::listeners::{Address, MadeSocket};

/// Raised when either side must know something new.
pub(super) const VERSION: u32 = 2;

/// The most that one message may hold, in bytes.
pub(super) const MESSAGE_MAX: usize = 64 * 1024;

/// What a successor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FromSuccessor {
    Hello {
        version: u32,
    },
    /// All its workers are ready. It goes on with these of the listeners, by their places, and perhaps
    /// with the pidfile.
    Ready {
        listeners: Vec<usize>,
        has_pidfile: bool,
    },
    /// Pidfile and sockets are its own now.
    TakenOver,
    /// It had taken over, and ends because an operator has told it to: the order was for the service.
    Stopped,
    /// Why it gives up.
    Failed {
        why: String,
        /// The worker that is to blame, by its pid.
        #[serde(default)]
        worker: Option<u32>,
    },
}

/// What the master says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum FromMaster {
    /// Descriptors come with this.
    Descriptors,
    /// What the descriptors that came are.
    Handover(Handover),
    Commit(Commit),
}

/// What is handed over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Handover {
    pub(super) pid: u32,
    pub(super) instance: u32,
    /// If there is one, the first descriptor is its lock.
    pub(super) pidfile: Option<OsString>,
    pub(super) listeners: Vec<HandedListener>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct HandedListener {
    pub(super) address: Address,
    /// Where each slot has a socket of its own: the slots of those whose descriptors follow this one's, in the
    /// kernel's order.
    #[serde(default)]
    pub(super) slots: Vec<u32>,
    pub(super) made: Option<MadeSocket>,
    pub(super) shown: String,
}

/// The word to take over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Commit {
    /// Workers, as the configuration of the master has it.
    pub(super) configured: u32,
    /// Workers, as an operator may have asked for since.
    pub(super) target: u32,
}

/// A message as it goes over the channel.
pub(super) fn written(message: &impl Serialize) -> Result<Vec<u8>, String> {
    let text = serde_json::to_vec(message).map_err(|error| error.to_string())?;
    if text.len() > MESSAGE_MAX {
        return Err(format!("{} bytes are too much for one message", text.len()));
    }
    Ok(text)
}

/// The other way round; `None`: it makes no sense.
pub(super) fn read<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Option<T> {
    serde_json::from_slice(message).ok()
}
