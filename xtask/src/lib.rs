//! What the bench and the programs it measures share: the stamp by which a worker says that it runs.
//!
//! A worker reads the clock on entry and writes one [`Stamp`] into a FIFO whose path it finds in the
//! environment. A stamp is shorter than `PIPE_BUF`, so those of many workers never mix. Writers of a
//! log stamp when they are ready, and number their lines; see [`NumberedLine`].

mod numbered;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

pub use numbered::NumberedLine;

use nix::time::{ClockId, clock_gettime};

/// Names the FIFO. It must not start with `PH_`: those variables are the master's own.
pub const STAMPS: &str = "BENCH_STAMPS";

/// What the servers of the bench answer to every request.
pub const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, world!";

/// Bytes of a stamp.
pub const STAMP_LENGTH: usize = 16;

/// "This process runs since then."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Who.
    pub pid: u32,
    /// When, in nanoseconds of [`monotonic`].
    pub at: u64,
}

impl Stamp {
    /// A stamp of this process and this moment.
    #[must_use]
    pub fn now() -> Self {
        let at = monotonic();
        Self { pid: std::process::id(), at }
    }

    /// Writes it in one system call.
    ///
    /// # Errors
    ///
    /// Nobody reads.
    pub fn write(self, mut pipe: &File) -> io::Result<()> {
        let mut bytes = [0; STAMP_LENGTH];
        bytes[..8].copy_from_slice(&self.at.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.pid.to_le_bytes());
        pipe.write_all(&bytes)
    }

    /// Reads what [`write`](Self::write) wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; STAMP_LENGTH]) -> Self {
        let [a, b, c, d, e, f, g, h, p, i, q, r, ..] = bytes;
        Self {
            pid: u32::from_le_bytes([p, i, q, r]),
            at: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        }
    }
}

/// Opens the FIFO of this process's environment for writing.
///
/// # Errors
///
/// The variable is not set, or names nothing that can be written.
pub fn open_stamps() -> io::Result<File> {
    let path = std::env::var_os(STAMPS).ok_or(io::ErrorKind::NotFound)?;
    OpenOptions::new().write(true).open(path)
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which is the same clock in every process.
#[must_use]
pub fn monotonic() -> u64 {
    // This clock exists on every Linux and is never negative.
    let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stamps");
        let stamp = Stamp::now();
        stamp.write(&File::create(&path).unwrap()).unwrap();
        let bytes = std::fs::read(&path).unwrap().try_into().unwrap();
        assert_eq!(Stamp::from_bytes(bytes), stamp);
    }
}
