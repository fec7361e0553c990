//! The switch between the ways a line can go, for the life of a process and of its forks.
//!
//! A master that has a log process sends its lines through the `relay`, which never waits; until that is
//! there, and once it is gone, it writes directly.
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

use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tracing_appender::non_blocking::WorkerGuard;

use crate::output::{Output, Writer, lines_in};
use crate::queue::{self, Ledger, Queue};
use crate::relay::{self, Relay};
use crate::shared::{SharedOutput, lock};
use crate::{LogError, LogOptions};

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
        queue: Arc<Queue>,
        guard: WorkerGuard,
    },
}

/// Takes finished lines and gets them written.
#[derive(Debug)]
pub(crate) struct Sink {
    writer: Arc<Writer>,
    output: Arc<SharedOutput>,
    ledger: Arc<Ledger>,
    route: RwLock<Route>,
    /// The master's way to its log process, while there is one.
    relay: Mutex<Option<Relay>>,
}

impl Sink {
    pub(crate) fn open(options: LogOptions) -> Result<Sink, LogError> {
        let writer = Arc::new(Writer::new(options));
        let output = Output::open(&writer)?;
        Ok(Sink {
            writer,
            output: Arc::new(SharedOutput::new(output)),
            ledger: Arc::default(),
            route: RwLock::new(Route::Direct),
            relay: Mutex::new(None),
        })
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
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
        let Some(queue) = self.enter_queue() else {
            return self.write_here(line);
        };
        if let Err(lines) = queue.push(line) {
            self.ledger.settle(lines_in(&lines));
            self.output.write(&lines);
        }
    }

    /// Where the process itself writes: into the pipe of its log process, or into the output.
    fn write_here(&self, line: &[u8]) {
        if let Some(relay) = &mut *lock(&self.relay) {
            let report = |lost| {
                let mut report = String::new();
                self.writer.notice_of_loss(&mut report, lost, relay::NO_ROOM);
                report
            };
            let lost = relay.send(line, report);
            self.writer.dropped.fetch_add(lost, Ordering::Relaxed);
            return;
        }
        self.output.write(line);
    }

    /// Sends the lines of this process through a pipe from now on.
    pub(crate) fn attach(&self, pipe: OwnedFd) {
        *lock(&self.relay) = Some(Relay::new(pipe));
    }

    /// Sends what waits for room, as far as there is any.
    pub(crate) fn resume(&self) {
        if let Some(relay) = &mut *lock(&self.relay) {
            relay.resume();
        }
    }

    /// Sends nothing more: what is logged waits for [`detach`](Sink::detach).
    pub(crate) fn hold(&self) {
        if let Some(relay) = &mut *lock(&self.relay) {
            relay.hold();
        }
    }

    /// Takes other options. Nothing is opened here: that does whoever writes next.
    pub(crate) fn configure(&self, options: LogOptions) {
        self.writer.configure(options);
        self.output.lock().note_options_changed();
    }

    pub(crate) fn is_waiting(&self) -> bool {
        lock(&self.relay).as_ref().is_some_and(Relay::is_waiting)
    }

    /// Writes directly from now on, what still waited first; to stderr alone if the file may hang.
    pub(crate) fn detach(&self, unread: &[u8], is_file_avoided: bool) {
        let Some(relay) = lock(&self.relay).take() else { return };
        let mut output = self.output.lock();
        if is_file_avoided {
            output.leave_file();
        }
        let rest = [unread, &relay.into_rest()].concat();
        if !rest.is_empty() {
            output.write(&rest);
        }
    }

    /// In a forked process: the pipe is the master's.
    fn leave_relay(&self) {
        drop(lock(&self.relay).take());
    }

    pub(crate) fn enter_worker(&self, slot: u32, generation: u32, records: Option<OwnedFd>) {
        self.leave_relay();
        self.writer.identity.become_worker(slot, generation);
        self.writer.dropped.store(0, Ordering::Relaxed);
        self.ledger.reset();
        self.switch(|_| Some(Route::Idle));
        match records {
            Some(pipe) => {
                self.writer.identity.lose_head();
                self.output.lock().send_records(pipe);
            }
            None => self.output.make_own(),
        }
    }

    pub(crate) fn enter_helper(&self, name: &str) {
        self.leave_relay();
        self.writer.identity.become_helper(name);
        self.output.make_own();
    }

    pub(crate) fn compress_pending(&self) {
        if self.is_owner() {
            self.output.compress();
        }
    }

    pub(crate) fn flush(&self) {
        if !self.is_owner() {
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
    fn enter_queue(&self) -> Option<Arc<Queue>> {
        for _ in 0..2 {
            match &*self.route.read().unwrap_or_else(PoisonError::into_inner) {
                Route::Direct | Route::Starting => return None,
                Route::Queue { queue, .. } => {
                    self.ledger.accept();
                    return Some(Arc::clone(queue));
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
                Some((queue, guard)) => Route::Queue { queue: Arc::new(queue), guard },
                None => Route::Direct,
            }),
            // A flush came in between, and its promise is kept: the new thread ends unused.
            Route::Direct | Route::Idle | Route::Queue { .. } => None,
        });
    }

    fn is_owner(&self) -> bool {
        self.writer.identity.is_owner(self.writer.identity.pid())
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
        if self.as_stranger(|output| output.write(line)).is_err() {
            self.writer.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A descriptor for a program that writes to the log by itself.
    pub(crate) fn append_fd(&self) -> io::Result<OwnedFd> {
        match self.is_owner() {
            true => self.output.lock().append_fd(),
            false => self.as_stranger(Output::append_fd)?,
        }
    }

    /// Uses the output the fork has left here, or one opened for this if its lock is frozen.
    fn as_stranger<T>(&self, act: impl FnOnce(&mut Output) -> T) -> Result<T, LogError> {
        match self.output.try_lock() {
            Some(mut output) => Ok(act(&mut output)),
            None => Ok(act(&mut Output::open(&self.writer)?)),
        }
    }
}
