//! The switch between the ways a line can go, for the life of a process and of its forks.
//!
//! The route of a worker is `Idle -> Starting -> Queue -> Direct`, that of a master is `Direct`
//! for good. It changes under a write lock that is never held over a wait, a write or foreign
//! code; a line looks at it under the read lock and lets go before it is sent. So nobody waits for
//! a logger that waits for the disk, and a panic hook that logs or flushes finds no lock held by
//! the thread it runs on.
//!
//! Why no line is lost at a flush: a line that takes the queue is entered in the ledger *under the
//! read lock*. After the flush has switched the route under the write lock, every line that will
//! ever be sent is in the ledger, and the flush waits until the ledger is settled before it lets
//! the thread end.
//!
//! A process forked without `enter_worker` (a helper, or what a user's code forks) is a stranger:
//! the queue's thread is not in it. It writes directly, and if the fork froze the output's lock,
//! on a descriptor opened for that line.

use std::io::Write;
use std::mem::{self, ManuallyDrop};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};

use crate::output::{Output, Writer};
use crate::queue::{self, Ledger};
use crate::{LogError, LogOptions, Target};

/// How long a flush waits for the queue.
const FLUSH_LIMIT: Duration = Duration::from_millis(1100);

/// Which way a line goes now.
#[derive(Debug)]
enum Route {
    /// Written where it is logged.
    Direct,
    /// A worker that has not logged yet. Its first line starts the thread.
    Idle,
    /// Somebody is starting the thread; meanwhile lines are written where they are logged.
    Starting,
    Queue {
        queue: NonBlocking,
        guard: WorkerGuard,
    },
}

/// Takes finished lines and gets them written.
#[derive(Debug)]
pub(crate) struct Sink {
    writer: Arc<Writer>,
    output: Arc<Mutex<Output>>,
    ledger: Arc<Ledger>,
    route: RwLock<Route>,
}

impl Sink {
    pub(crate) fn open(options: LogOptions) -> Result<Sink, LogError> {
        let writer = Arc::new(Writer::new(options));
        let output = Output::open(&writer)?;
        Ok(Sink {
            writer,
            output: Arc::new(Mutex::new(output)),
            ledger: Arc::default(),
            route: RwLock::new(Route::Direct),
        })
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    pub(crate) fn target(&self) -> &Target {
        &self.writer.target
    }

    pub(crate) fn queued(&self) -> u64 {
        self.ledger.open_lines()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.writer.dropped.load(Ordering::Relaxed)
    }

    /// Gets one whole line written, which the process `pid` has made: the calling one.
    pub(crate) fn submit(&self, pid: u32, line: &[u8]) {
        if !self.writer.identity.is_owner(pid) {
            return self.write_as_stranger(line);
        }
        let Some(mut queue) = self.enter_queue() else {
            return lock(&self.output).write(line);
        };
        if queue.write_all(line).is_err() {
            // The thread is gone, by a bug: its receiver lives as long as it does.
            self.ledger.settle(1);
            lock(&self.output).write(line);
        }
    }

    pub(crate) fn enter_worker(&self, slot: u32, generation: u32) {
        self.writer.identity.become_worker(slot, generation);
        self.writer.dropped.store(0, Ordering::Relaxed);
        self.ledger.reset();
        self.switch(|_| Some(Route::Idle));
        lock(&self.output).make_own();
    }

    pub(crate) fn enter_helper(&self, name: &str) {
        self.writer.identity.become_helper(name);
        lock(&self.output).make_own();
    }

    pub(crate) fn flush(&self) {
        if !self.writer.identity.is_owner(std::process::id()) {
            return;
        }
        let old = self.switch(|route| match route {
            Route::Direct => None,
            Route::Idle | Route::Starting | Route::Queue { .. } => Some(Route::Direct),
        });
        let is_settled = self.ledger.wait_settled(FLUSH_LIMIT);
        if let (true, Some(old)) = (is_settled, old) {
            match ManuallyDrop::into_inner(old) {
                // Ends the thread, which has nothing left to do.
                Route::Queue { guard, .. } => drop(guard),
                Route::Direct | Route::Idle | Route::Starting => {}
            }
        }
    }

    /// A way into the queue for one line that is now in the ledger, or `None`: write it directly.
    fn enter_queue(&self) -> Option<NonBlocking> {
        for _ in 0..2 {
            match &*self.route.read().unwrap_or_else(PoisonError::into_inner) {
                Route::Direct | Route::Starting => return None,
                Route::Queue { queue, .. } => {
                    self.ledger.accept();
                    return Some(queue.clone());
                }
                Route::Idle => {}
            }
            self.start_queue();
        }
        None
    }

    fn start_queue(&self) {
        let claimed = self.switch(|route| match route {
            Route::Idle => Some(Route::Starting),
            Route::Direct | Route::Starting | Route::Queue { .. } => None,
        });
        if claimed.is_none() {
            return;
        }
        let mut started = queue::start(&self.output, &self.ledger);
        self.switch(|route| match route {
            Route::Starting => Some(match started.take() {
                Some((queue, guard)) => Route::Queue { queue, guard },
                None => Route::Direct,
            }),
            // A flush came in between, and its promise is kept: the new thread ends unused.
            Route::Direct | Route::Idle | Route::Queue { .. } => None,
        });
    }

    /// Replaces the route if `next` wants another, and returns the old one. It is not dropped by
    /// itself: a queue inherited by a fork has no thread, and its guard would wait for it; one
    /// that is not empty is still needed.
    fn switch(&self, next: impl FnOnce(&Route) -> Option<Route>) -> Option<ManuallyDrop<Route>> {
        let mut route = self.route.write().unwrap_or_else(PoisonError::into_inner);
        let next = next(&route)?;
        Some(ManuallyDrop::new(mem::replace(&mut *route, next)))
    }

    fn write_as_stranger(&self, line: &[u8]) {
        match self.output.try_lock() {
            Ok(mut output) => output.write(line),
            Err(TryLockError::Poisoned(output)) => output.into_inner().write(line),
            Err(TryLockError::WouldBlock) => match Output::open(&self.writer) {
                Ok(mut output) => output.write(line),
                Err(_) => {
                    self.writer.dropped.fetch_add(1, Ordering::Relaxed);
                }
            },
        }
    }
}

/// Locks; what a panic left behind here is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
