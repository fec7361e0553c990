//! The service manager above this master: systemd, or whoever set `NOTIFY_SOCKET` for it. It is told by
//! `sd_notify` when all workers are ready, how things are, when a reload begins and when it has its verdict
//! (as `Type=notify-reload` wants it), and that the master stops; and, with `WATCHDOG_USEC`, that the loop
//! turns, twice in each period.
//!
//! What is to be told is compared with what was told, at the end of each turn; so nothing is told
//! twice, the latest counts, and a master at rest sends nothing. A datagram never waits: where there is
//! no room for it, the loop hears when there is. One that cannot be sent at all is tried again in the
//! next turn there is, which it does not bring about itself.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::unistd::Pid;
use tracing::warn;

use super::{Driver, MANAGER, now};
use crate::arbiter::{Notice, Slot, Time};
use crate::sys::notify::{Destination, send_to};

/// Slots in a crash loop that a status names.
const NAMED: usize = 8;

/// What a stop may take beyond the time of the workers: to end strays, to reap, to write the log.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// Who is told, and what has been.
#[derive(Debug, Default)]
pub(super) struct Manager {
    destination: Option<Destination>,
    /// What says when there is room, if there was none.
    full: Option<OwnedFd>,
    is_ready_told: bool,
    is_stopping_told: bool,
    status_told: String,
    /// It was logged that the manager cannot be told.
    has_complained: bool,
    /// The successor that has taken over: all there is to say is where the service went.
    moved_to: Option<Pid>,
    crash_loops: BTreeSet<Slot>,
    /// Reloads that began, and how many of these it knows of.
    reloads: u64,
    reloads_told: u64,
    /// When the newest of them began.
    reload_began: Time,
    /// It waits for the verdict of one.
    is_reload_open: bool,
    watchdog: Option<Watchdog>,
}

/// Somebody who has to hear that the loop turns.
#[derive(Clone, Copy, Debug)]
struct Watchdog {
    every: Duration,
    due: Time,
}

/// How the service is.
#[derive(Clone, Copy, Debug)]
struct Facts {
    now: Time,
    ready: u32,
    target: u32,
    is_stopping: bool,
    /// How long a stop may take as it is configured.
    stop_limit: Duration,
    is_reloading: bool,
    is_upgrading: bool,
    is_drained: bool,
}

impl Manager {
    /// The one that the environment names, if it names one.
    pub(super) fn of_environment(is_successor: bool) -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|it| !it.is_empty()) else {
            return Self::default();
        };
        match Destination::parse(address.as_bytes()) {
            Ok(destination) => {
                let watchdog = Watchdog::of_environment(is_successor);
                Self { destination: Some(destination), watchdog, ..Self::default() }
            }
            Err(error) => {
                let address = address.display();
                warn!("the service manager is told nothing: NOTIFY_SOCKET={address:?}: {error}");
                Self::default()
            }
        }
    }

    pub(super) fn on_notice(&mut self, notice: &Notice, now: Time) {
        if let Notice::CrashLoop { slot, .. } = notice {
            self.crash_loops.insert(*slot);
        } else if let Notice::Recovered { slot } = notice {
            self.crash_loops.remove(slot);
        } else if let Notice::Loading { .. } = notice {
            // An order that comes from now on is for another, whenever it is told of this one.
            (self.reloads, self.reload_began) = (self.reloads + 1, now);
        }
    }

    /// When the loop has to turn, whatever else there is.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.watchdog.filter(|_| self.destination.is_some()).map(|watchdog| watchdog.due)
    }

    /// There is room again.
    pub(super) fn on_room(&mut self, epoll: &Epoll) {
        if let Some(full) = self.full.take() {
            let _ = epoll.delete(&full);
        }
    }

    pub(super) fn raw_fd(&self) -> Option<RawFd> {
        self.full.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// From now on the manager hears of the service from somebody else.
    pub(super) fn move_to(&mut self, successor: Pid) {
        self.moved_to = Some(successor);
    }

    fn tell(&mut self, facts: Facts, epoll: &Epoll) {
        if self.destination.is_none() || self.full.is_some() {
            return;
        }
        if let Some(successor) = self.moved_to {
            if self.send(&format!("MAINPID={successor}\n"), epoll) {
                self.destination = None;
            }
            return;
        }
        let is_reload_news = self.is_ready_told && self.reloads != self.reloads_told;
        if is_reload_news && !facts.is_stopping {
            let began = self.reload_began.as_nanos() / 1000;
            let message = format!("RELOADING=1\nMONOTONIC_USEC={began}\n");
            if !self.send(&message, epoll) {
                return;
            }
            (self.reloads_told, self.is_reload_open) = (self.reloads, true);
        }
        let is_first = !self.is_ready_told && facts.ready >= facts.target;
        let is_verdict = self.is_reload_open && !facts.is_reloading;
        let is_ready_news = (is_first || is_verdict) && !facts.is_stopping;
        let is_stopping_news = facts.is_stopping && !self.is_stopping_told;
        let status = self.status(facts);
        let is_pet = self.watchdog.is_some_and(|watchdog| watchdog.due <= facts.now);
        let is_news = is_ready_news || is_stopping_news || status != self.status_told;
        if !is_news && !is_pet {
            return;
        }
        let mut message = String::new();
        if is_ready_news {
            message += &format!("READY=1\nMAINPID={}\n", std::process::id());
        }
        if is_stopping_news {
            let limit = facts.stop_limit.as_micros();
            message += &format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={limit}\n");
        }
        if is_news {
            message += &format!("STATUS={status}\n");
        }
        if is_pet {
            message += "WATCHDOG=1\n";
        }
        if let Some(watchdog) = self.watchdog.as_mut().filter(|_| is_pet) {
            // Also if it cannot be said: the loop is not to spin.
            watchdog.due = facts.now.after(watchdog.every);
        }
        if self.send(&message, epoll) {
            self.is_ready_told |= is_ready_news;
            self.is_reload_open &= !is_ready_news;
            self.is_stopping_told |= is_stopping_news;
            self.status_told = status;
        }
    }

    /// Whether it was sent.
    fn send(&mut self, message: &str, epoll: &Epoll) -> bool {
        let Some(destination) = &self.destination else { return false };
        let sent = destination.connect().and_then(|socket| {
            let sent = send_to(&socket, message.as_bytes());
            if sent == Err(Errno::EAGAIN) {
                let event = EpollEvent::new(EpollFlags::EPOLLOUT, MANAGER);
                epoll.add(&socket, event)?;
                self.full = Some(socket);
            }
            sent
        });
        match sent {
            Ok(()) => {
                self.has_complained = false;
                return true;
            }
            Err(Errno::EAGAIN) => {}
            Err(errno) if !std::mem::replace(&mut self.has_complained, true) => {
                warn!("the service manager cannot be told how the service is: {errno}");
            }
            Err(_) => {}
        }
        false
    }

    fn status(&self, facts: Facts) -> String {
        if facts.is_stopping {
            return "stopping".to_owned();
        }
        let Facts { ready, target, .. } = facts;
        let doing = match facts {
            Facts { is_reloading: true, .. } => ", reloading",
            Facts { is_upgrading: true, .. } => ", upgrading",
            Facts { is_drained: true, .. } => return "drained until the next reload".to_owned(),
            _ => "",
        };
        let status = format!("{}/{target} ready{doing}", ready.min(target));
        let looping: Vec<_> = self.crash_loops.iter().filter(|slot| slot.0 < target).collect();
        if looping.is_empty() {
            return status;
        }
        let named: Vec<_> = looping.iter().take(NAMED).map(ToString::to_string).collect();
        let more = looping.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let slots = if looping.len() == 1 { "slot" } else { "slots" };
        format!("{status}, crash loop in {slots} {}{more}", named.join(", "))
    }
}

impl Watchdog {
    /// What sd_watchdog_enabled(3) reads. A successor has the variables of the first master, and its pid.
    fn of_environment(is_successor: bool) -> Option<Self> {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_meant = match std::env::var_os("WATCHDOG_PID") {
            None => true,
            Some(_) => is_successor || number("WATCHDOG_PID") == Some(std::process::id().into()),
        };
        let period = number("WATCHDOG_USEC").filter(|micros| is_meant && *micros > 0)?;
        Some(Self { every: Duration::from_micros(period) / 2, due: Time::ZERO })
    }
}

impl Driver<'_> {
    /// Whether the manager hears of the service from this master, and not from the one before it.
    pub(super) fn is_main(&self) -> bool {
        self.predecessor.is_none() && self.departing.is_none()
    }

    /// Tells the service manager what it does not know yet.
    pub(super) fn tell_manager(&mut self) {
        if !self.is_main() {
            return;
        }
        let policy = self.arbiter.policy();
        let grace = policy.drain_delay.saturating_add(policy.graceful_timeout);
        let facts = Facts {
            now: now(),
            ready: self.arbiter.counts().ready,
            target: self.arbiter.target(),
            is_stopping: self.arbiter.is_stopping(),
            stop_limit: grace.saturating_add(STOP_MARGIN),
            is_reloading: self.arbiter.is_reloading(),
            is_upgrading: self.arbiter.is_upgrading(),
            is_drained: self.arbiter.is_drained(),
        };
        self.manager.tell(facts, &self.epoll);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::notify::{LONGEST, NotifySocket, Received};
    use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};

    fn facts(ready: u32, target: u32) -> Facts {
        Facts {
            now: Time::from_nanos(7_000_000),
            ready,
            target,
            is_stopping: false,
            stop_limit: Duration::from_secs(32),
            is_reloading: false,
            is_upgrading: false,
            is_drained: false,
        }
    }

    fn next(socket: &NotifySocket) -> Option<String> {
        let mut buffer = [0; LONGEST];
        let Ok(Received::Message(length, _)) = socket.receive(&mut buffer) else { return None };
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn manager(name: &str) -> (Manager, NotifySocket, Epoll) {
        let name = format!("ph-test/{}/{name}", std::process::id());
        let socket = NotifySocket::bind(&name).unwrap();
        let destination = Destination::parse(format!("@{name}").as_bytes()).unwrap();
        let manager = Manager { destination: Some(destination), ..Manager::default() };
        (manager, socket, Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap())
    }

    #[test]
    fn it_is_told_what_it_does_not_know_yet_and_nothing_twice() {
        let (mut manager, socket, epoll) = manager("news");
        let pid = std::process::id();
        manager.tell(facts(0, 2), &epoll);
        assert_eq!(next(&socket).unwrap(), "STATUS=0/2 ready\n");
        manager.tell(facts(0, 2), &epoll);
        assert_eq!(next(&socket), None);
        manager.tell(facts(2, 2), &epoll);
        let wanted = format!("READY=1\nMAINPID={pid}\nSTATUS=2/2 ready\n");
        assert_eq!(next(&socket).unwrap(), wanted);
        manager.on_notice(
            &Notice::CrashLoop { slot: Slot(1), deaths: 5, within: None },
            Time::from_nanos(7_000_000),
        );
        manager.tell(facts(1, 2), &epoll);
        assert_eq!(next(&socket).unwrap(), "STATUS=1/2 ready, crash loop in slot 1\n");
        manager.on_notice(&Notice::Recovered { slot: Slot(1) }, Time::from_nanos(7_000_000));
        manager.tell(facts(3, 2), &epoll);
        assert_eq!(next(&socket).unwrap(), "STATUS=2/2 ready\n");
        manager.tell(Facts { is_stopping: true, ..facts(2, 2) }, &epoll);
        assert_eq!(
            next(&socket).unwrap(),
            "STOPPING=1\nEXTEND_TIMEOUT_USEC=32000000\nSTATUS=stopping\n"
        );
        manager.tell(Facts { is_stopping: true, ..facts(0, 2) }, &epoll);
        assert_eq!(next(&socket), None);
    }

    #[test]
    fn each_reload_is_told_when_it_begins_and_when_it_has_its_verdict() {
        let (mut manager, socket, epoll) = manager("reloads");
        let loading = Notice::Loading { generation: crate::arbiter::Generation(2) };
        let reloading = Facts { is_reloading: true, ..facts(2, 2) };
        manager.tell(facts(2, 2), &epoll);
        next(&socket).unwrap();
        for _ in 0..2 {
            // The second begins in the very turn in which the first ends.
            manager.on_notice(&loading, facts(2, 2).now);
            manager.tell(reloading, &epoll);
            assert_eq!(next(&socket).unwrap(), "RELOADING=1\nMONOTONIC_USEC=7000\n");
            let rest = next(&socket).unwrap_or_default();
            assert!(!rest.contains("READY"), "{rest}");
        }
        manager.tell(facts(2, 2), &epoll);
        assert!(next(&socket).unwrap().starts_with("READY=1\n"));
        manager.on_notice(&loading, facts(2, 2).now);
        manager.tell(facts(2, 2), &epoll);
        assert!(next(&socket).unwrap().starts_with("RELOADING=1\n"), "it was over at once");
        assert!(next(&socket).unwrap().starts_with("READY=1\n"));
    }

    #[test]
    fn the_watchdog_hears_twice_in_a_period_that_the_loop_turns() {
        let (mut manager, socket, epoll) = manager("watchdog");
        let every = Duration::from_secs(5);
        manager.watchdog = Some(Watchdog { every, due: Time::ZERO });
        manager.tell(facts(1, 1), &epoll);
        assert!(next(&socket).unwrap().ends_with("WATCHDOG=1\n"));
        let due = manager.deadline().unwrap();
        assert_eq!(due, facts(1, 1).now.after(every));
        manager.tell(facts(1, 1), &epoll);
        assert_eq!(next(&socket), None);
        manager.tell(Facts { now: due, ..facts(1, 1) }, &epoll);
        assert_eq!(next(&socket).unwrap(), "WATCHDOG=1\n");
    }

    #[test]
    fn where_there_is_no_room_the_loop_hears_when_there_is_and_the_latest_is_told() {
        let (mut manager, socket, epoll) = manager("room");
        let mut tried = 0;
        while manager.full.is_none() && tried < 100_000 {
            tried += 1;
            manager.tell(facts(0, tried), &epoll);
        }
        assert!(manager.raw_fd().is_some(), "it is full");
        let mut events = [EpollEvent::empty()];
        assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(0));
        manager.tell(facts(7, 7), &epoll);
        while next(&socket).is_some() {}
        assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(1));
        assert_eq!(events[0].data(), MANAGER);
        manager.on_room(&epoll);
        manager.tell(facts(8, 8), &epoll);
        assert!(next(&socket).unwrap().ends_with("STATUS=8/8 ready\n"));
    }

    #[test]
    fn many_crash_loops_make_no_long_status() {
        let mut manager = Manager::default();
        for slot in (0..20).map(Slot) {
            manager.on_notice(
                &Notice::CrashLoop { slot, deaths: 5, within: None },
                Time::from_nanos(7_000_000),
            );
        }
        let wanted = "0/10 ready, crash loop in slots 0, 1, 2, 3, 4, 5, 6, 7 and 2 more";
        assert_eq!(manager.status(facts(0, 10)), wanted);
    }
}
