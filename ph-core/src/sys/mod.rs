//! Ring 3: calls the system. The only unsafe code of the workspace; it decides nothing.
//!
//! Descriptors are owned types and close-on-exec from birth; every unsafe block says why it is sound.

#![expect(unsafe_code, reason = "this ring is where the system is called")]

pub(crate) mod cgroup;
pub(crate) mod channel;
pub(crate) mod clock;
pub(crate) mod detach;
pub(crate) mod environ;
#[cfg(feature = "tokio")]
pub(crate) mod exclusive;
pub(crate) mod fds;
pub(crate) mod folder;
pub(crate) mod last_words;
pub(crate) mod leaders;
pub(crate) mod lock;
pub(crate) mod mark;
pub(crate) mod notify;
pub(crate) mod oom;
pub(crate) mod passed;
pub(crate) mod peer;
pub(crate) mod privileges;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod reuseport;
pub(crate) mod seats;
pub(crate) mod setup;
pub(crate) mod signals;
pub(crate) mod sockets;
pub(crate) mod spawn;
pub(crate) mod successor;
pub(crate) mod title;
pub(crate) mod trial;
pub(crate) mod unix_sockets;
pub(crate) mod wiped;

pub use nix::sys::resource::Resource;
pub use nix::sys::signal::Signal;
pub use privileges::{Account, AccountError};
pub use signals::reopen_count;
pub use wiped::wiped_by_fork;
