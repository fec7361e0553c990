//! Old backups are compressed in a thread, so that nobody waits for it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow};

use crate::rotate::{Compression, RotateLimits};
use crate::rotating::{RotateOptions, RotatingFile};

const THREAD_NAME: &str = "ph-compress";

/// At most one thread, and the error of the last one.
#[derive(Debug, Default)]
pub(super) struct Compressor {
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<String>>>,
    /// Logs whose turn comes when the thread has ended.
    later: Vec<(PathBuf, RotateLimits)>,
}

impl Compressor {
    /// Compresses the backups of a log, now or when the thread that is at it has ended.
    pub(super) fn start(&mut self, path: &Path, limits: RotateLimits) {
        if limits.compress == Compression::None {
            return;
        }
        if !self.later.iter().any(|(waiting, _)| waiting == path) {
            self.later.push((path.to_owned(), limits));
        }
        self.go_on();
    }

    /// Starts what waits, if nothing runs. To be called now and then.
    pub(super) fn go_on(&mut self) {
        if self.later.is_empty() || self.thread.as_ref().is_some_and(|one| !one.is_finished()) {
            return;
        }
        let logs = std::mem::take(&mut self.later);
        let failure = Arc::clone(&self.failure);
        let work = move || {
            for (path, limits) in logs {
                if let Err(error) = pack(&path, limits) {
                    let text = format!("cannot compress a backup of {}: {error}", path.display());
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                }
            }
        };
        // Signals are for the thread that knows what to do with them.
        let Ok(before) = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK) else { return };
        self.thread = thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(work).ok();
        // Setting a mask the system itself gave cannot fail.
        let _ = before.thread_set_mask();
    }

    /// What could not be done since the last call.
    pub(super) fn failure(&mut self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn pack(path: &Path, limits: RotateLimits) -> std::io::Result<()> {
    let log = RotatingFile::open(RotateOptions::new(path, limits))?;
    while let Some(job) = log.pending_compression()? {
        let tried = job.backup;
        job.run()?;
        if log.pending_compression()?.is_some_and(|next| next.backup == tried) {
            // It has grown, or somebody else is at it. The next rotation asks again.
            return Ok(());
        }
    }
    Ok(())
}
