//! Ring 3: calls the system. The only unsafe code of the workspace; it decides nothing.
//!
//! Descriptors are owned types and close-on-exec from birth; every unsafe block says why it is sound.

#![expect(unsafe_code, reason = "this ring is where the system is called")]

pub(crate) mod clock;
pub(crate) mod environ;
pub(crate) mod fds;
pub(crate) mod lock;
pub(crate) mod process;
pub(crate) mod seats;
pub(crate) mod signals;
pub(crate) mod spawn;
pub(crate) mod title;

pub use nix::sys::signal::Signal;
pub use signals::reopen_count;
