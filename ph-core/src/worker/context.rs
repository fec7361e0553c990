//! What a worker may know and ask: its [`Context`].

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::hooks::HookWorker;
use crate::sys::seats::{Seat, Seats};
use crate::sys::signals::WorkerSignals;
use crate::sys::{clock, process};

/// Who a worker is; set before the fork, never changed.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) name: Rc<str>,
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

/// A worker's view of itself and of its master. It belongs to one process and one thread.
#[derive(Debug)]
pub struct Context {
    pub(super) identity: Identity,
    pub(super) seats: Rc<Seats>,
    pub(super) seat_index: usize,
    pub(super) seat: &'static Seat,
    pub(super) signals: WorkerSignals,
    /// How long a wait may last before the next heartbeat; `None`: nobody listens.
    pub(super) beat_every: Option<Duration>,
    pub(super) max_requests: u64,
    pub(super) app: Rc<BTreeMap<String, String>>,
}

impl Context {
    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// The numbered place this worker holds, from 0. A successor has the same one.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.identity.slot
    }

    /// The configuration this worker was started with, counted from 1.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.identity.generation
    }

    /// A number no other worker of this master ever has.
    #[must_use]
    pub fn worker_id(&self) -> u64 {
        self.identity.worker_id
    }

    /// Which of the masters running side by side this one is, from 1.
    #[must_use]
    pub fn instance(&self) -> u32 {
        self.identity.instance
    }

    /// One of the application's own settings.
    #[must_use]
    pub fn app(&self, key: &str) -> Option<&str> {
        self.app.get(key).map(String::as_str)
    }

    /// Whether the worker is to go on. Asking is a heartbeat, and costs no system call.
    #[must_use]
    pub fn running(&self) -> bool {
        self.beat();
        !self.signals.stop_asked()
    }

    /// "I live." A worker that does not say so for `timeout` is stuck and will be replaced; this,
    /// [`running`](Self::running), [`sleep`](Self::sleep) and each return of `handle_request` do.
    pub fn beat(&self) {
        self.seat.beat();
    }

    /// Waits, and beats meanwhile; ends early when the worker is to stop. Says whether to go on.
    pub fn sleep(&self, duration: Duration) -> bool {
        let until = clock::monotonic().saturating_add(clock::nanos(duration));
        while self.running() {
            let left = Duration::from_nanos(until.saturating_sub(clock::monotonic()));
            if left.is_zero() {
                break;
            }
            let wait = self.beat_every.map_or(left, |every| every.min(left));
            self.signals.wait(wait);
        }
        self.running()
    }

    /// Counts a request, and asks for a successor when the worker has served its share.
    pub(super) fn count_request(&self) {
        let served = self.seat.count_request();
        self.beat();
        if served == self.max_requests {
            self.seats.occupy(self.seat_index).report_recycle_due();
        }
    }

    /// Tells the master that this worker is ready.
    pub(super) fn report_ready(&self) {
        self.seats.occupy(self.seat_index).report_ready();
    }

    /// The pid of this process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        process::own_pid()
    }
}
