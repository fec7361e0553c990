//! What a worker may know and ask: its [`Context`].

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::hooks::HookWorker;
use super::lanes::Lanes;
use crate::sys::seats::{Seat, Seats};
use crate::sys::signals::WorkerSignals;
use crate::sys::{clock, last_words, process};

/// Those of this process, for the handler of SIGABRT.
static LANES: OnceLock<Arc<Lanes>> = OnceLock::new();

/// Who a worker is; set before the fork, never changed.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) name: Arc<str>,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) worker_id: u64,
    pub(crate) instance: u32,
}

impl Identity {
    /// Who hooks are told of.
    pub(crate) fn of_hook(&self, pid: Option<i32>) -> HookWorker {
        let Self { slot, generation, worker_id, .. } = *self;
        HookWorker { slot, generation, id: worker_id, pid }
    }
}

/// A worker's view of itself and of its master. Its clones are one, and may go to other threads and tasks
/// of the worker.
#[derive(Clone, Debug)]
pub struct Context {
    own: Arc<Own>,
    /// Whose heartbeat it is, where several threads serve.
    lane: Option<(Arc<Lanes>, usize)>,
}

/// What all clones share.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) identity: Identity,
    pub(super) seats: Arc<Seats>,
    pub(super) seat_index: usize,
    pub(super) seat: &'static Seat,
    pub(super) signals: WorkerSignals,
    /// How long a wait may last before the next heartbeat; `None`: nobody listens.
    pub(super) beat_every: Option<Duration>,
    pub(super) max_requests: u64,
    pub(super) threads: usize,
    pub(super) connections: usize,
    pub(super) app: Arc<BTreeMap<String, String>>,
    #[cfg(feature = "tokio")]
    pub(super) stop_watch: super::asynchronous::StopWatch,
}

impl Context {
    pub(super) fn new(own: Own) -> Self {
        Self { own: Arc::new(own), lane: None }
    }

    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.own.identity.name
    }

    /// The numbered place this worker holds, from 0. A successor has the same one.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.own.identity.slot
    }

    /// The configuration this worker was started with, counted from 1.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.own.identity.generation
    }

    /// A number no other worker of this master ever has.
    #[must_use]
    pub fn worker_id(&self) -> u64 {
        self.own.identity.worker_id
    }

    /// Which of the masters running side by side this one is, from 1.
    #[must_use]
    pub fn instance(&self) -> u32 {
        self.own.identity.instance
    }

    /// One of the application's own settings.
    #[must_use]
    pub fn app(&self, key: &str) -> Option<&str> {
        self.own.app.get(key).map(String::as_str)
    }

    /// How many threads serve in a worker of the class `thread`.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.own.threads
    }

    /// How many connections a worker of the class `async` has at most at a time.
    #[must_use]
    pub fn worker_connections(&self) -> usize {
        self.own.connections
    }

    /// Whether the worker is to go on. Asking is a heartbeat, and costs no system call.
    #[must_use]
    pub fn running(&self) -> bool {
        self.beat();
        !self.own.signals.stop_asked()
    }

    /// "I live." A worker that does not say so for `timeout` is stuck and will be replaced; this,
    /// [`running`](Self::running), [`sleep`](Self::sleep) and each return of `handle_request` do. Where
    /// several threads serve, each that is at work has to say so.
    pub fn beat(&self) {
        let is_pulse = match &self.lane {
            None => true,
            // What one moment has heard it need not hear twice; but of who begins to work it must.
            Some((lanes, lane)) if lanes.rests(*lane) || !self.own.seat.has_just_beaten() => {
                lanes.beat(*lane)
            }
            Some(_) => false,
        };
        if is_pulse {
            self.own.seat.beat();
        }
    }

    /// Waits, and beats meanwhile; ends early when the worker is to stop. Says whether to go on.
    pub fn sleep(&self, duration: Duration) -> bool {
        let until = clock::monotonic().saturating_add(clock::nanos(duration));
        while self.running() {
            let left = Duration::from_nanos(until.saturating_sub(clock::monotonic()));
            if left.is_zero() {
                break;
            }
            let wait = self.own.beat_every.map_or(left, |every| every.min(left));
            self.own.signals.wait(wait);
        }
        self.running()
    }

    /// The pid of this process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        process::own_pid()
    }

    pub(super) fn own(&self) -> &Own {
        &self.own
    }

    /// The same for each of several threads, whose heartbeats count together.
    pub(super) fn of_threads(&self, count: usize) -> Vec<Self> {
        let lanes = Arc::new(Lanes::new(count));
        // There is one of them in a process.
        if LANES.set(Arc::clone(&lanes)).is_ok() {
            last_words::are_those_of(|| LANES.get()?.silent());
        }
        let of_lane = |lane| Self { own: Arc::clone(&self.own), lane: Some((lanes.clone(), lane)) };
        (0..count).map(of_lane).collect()
    }

    /// This thread is the one whose context this is.
    pub(super) fn enter_thread(&self) {
        if let Some((lanes, lane)) = &self.lane {
            lanes.enter(*lane);
        }
    }

    /// From here on this thread waits for work, and nobody need hear of it.
    pub(super) fn rest(&self) {
        if let Some((lanes, lane)) = &self.lane
            && lanes.rest(*lane)
        {
            self.own.seat.beat();
        }
    }

    /// Asks this worker to stop, as its master would.
    pub(super) fn end(&self) {
        self.own.signals.ask_stop();
    }

    /// Counts a request, and asks for a successor when the worker has served its share.
    pub(super) fn count_request(&self) {
        let served = self.own.seat.count_request();
        self.beat();
        if served == self.own.max_requests {
            self.own.seats.occupy(self.own.seat_index).report_recycle_due();
        }
    }

    /// Counts a request that panicked.
    pub(super) fn count_panic(&self) {
        self.own.seat.count_panic();
    }

    /// Tells the master that this worker is ready.
    pub(super) fn report_ready(&self) {
        self.own.seats.occupy(self.own.seat_index).report_ready();
    }
}
