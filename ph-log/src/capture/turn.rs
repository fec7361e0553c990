//! The loop of a log process, one turn at a time: wait, look who has something, bring a fair share
//! of it to the log.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};

use super::batch::Outcome;
use super::journal::Loss;
use super::place::{MAIN, Place};
use super::terminal;
use super::{Capture, Drained, Overflow, Turn, pipes};
use crate::output::monotonic;

/// How often writing is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How often trouble is told on stderr.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// How often, while nothing can be written, it is looked for pipes that are nearly full.
const DROP_EVERY: Duration = Duration::from_millis(20);

/// How long stderr is waited for when trouble is told.
const SAY_PATIENCE: Duration = Duration::from_millis(100);

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// After so many sources the control descriptor is looked at again.
const ROUND_MAX: usize = 1024;

impl Capture {
    /// Waits until a source has something, `control` is readable, or something is due; then brings
    /// a fair round to the log: of each source that has something at most 64 KiB, one after the
    /// other. A signal ends the wait too.
    ///
    /// # Errors
    ///
    /// The system refuses to wait, or the journal cannot be written. A log that cannot be written
    /// is no error: see [`Overflow`].
    pub fn turn(&mut self, control: BorrowedFd<'_>) -> io::Result<Turn> {
        let is_recovered = self.is_recovered()?;
        let is_control_ready = self.wait(control)?;
        if !is_recovered {
            return Ok(Turn { ended: Vec::new(), is_control_ready });
        }
        self.look()?;
        self.round()?;
        self.compressor.go_on();
        if let Some(failure) = self.compressor.failure() {
            self.say(&failure);
        }
        Ok(Turn { ended: self.take_ended()?, is_control_ready })
    }

    /// Brings everything to the log that is there now, beginnings of lines too. Ends when nothing
    /// is left, when as much was taken as was there at most, because somebody goes on printing, or
    /// when the limit is over.
    ///
    /// # Errors
    ///
    /// As for [`turn`](Capture::turn).
    pub fn drain(&mut self, limit: Duration) -> io::Result<Drained> {
        self.recover_once(true)?;
        let until = monotonic() + limit;
        let room = self.feeds.values().map(|feed| pipes::capacity(&feed.pipe) as u64).sum::<u64>();
        let enough = self.totals().read.saturating_add(room);
        self.is_draining = true;
        let mut result = Ok(false);
        let mut may_tell = true;
        loop {
            let looked = self.look().and_then(|()| self.round());
            if let Err(error) = looked {
                result = Err(error);
                break;
            }
            let is_told = self.untold() == Loss::default();
            let is_idle = self.rest.is_empty()
                && !self.places.iter().any(|(_, place)| !place.ready.is_empty());
            if (is_idle && self.flight.is_none()) || self.totals().read >= enough {
                if is_told || !std::mem::take(&mut may_tell) {
                    result = Ok(is_told);
                    break;
                }
                // A last attempt, now: there may be no later one.
                self.notice_at = Duration::ZERO;
                continue;
            }
            let now = monotonic();
            if now >= until {
                break;
            }
            let patience = self.patience(now).unwrap_or(RETRY_EVERY).min(until - now);
            if !patience.is_zero() {
                let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
                let is_stalled = self.places.iter().any(|(_, place)| place.is_stalled);
                let stderr = io::stderr();
                let mut asked = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
                // An interrupted pause is a short one.
                let _ = poll(if is_stalled { &mut asked } else { &mut [] }, timeout);
            }
        }
        self.is_draining = false;
        let is_done = result?;
        Ok(Drained { ended: self.take_ended()?, is_done })
    }

    /// Brings everything to the log that comes until all sources have ended, or the limit is over.
    ///
    /// # Errors
    ///
    /// As for [`turn`](Capture::turn).
    pub fn drain_to_the_end(&mut self, limit: Duration) -> io::Result<Drained> {
        let until = monotonic() + limit;
        let mut ended = Vec::new();
        loop {
            let left = until.saturating_sub(monotonic());
            let drained = self.drain(left)?;
            ended.extend(drained.ended);
            let left = until.saturating_sub(monotonic());
            if self.feeds.is_empty() || left.is_zero() {
                return Ok(Drained { ended, is_done: drained.is_done && self.feeds.is_empty() });
            }
            if self.places.iter().any(|(_, place)| !place.ready.is_empty()) {
                continue;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            // An interrupted wait is a short one.
            let _ = poll(&mut [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)], timeout);
        }
    }

    /// The sources that have ended, whose accounts are closed now.
    fn take_ended(&mut self) -> io::Result<Vec<u64>> {
        let ended = std::mem::take(&mut self.ended);
        for &id in &ended {
            let slot = self.accounts.iter().position(|account| account.is_of(id));
            if let Some(slot) = slot {
                self.fold(slot)?;
            }
        }
        Ok(ended)
    }

    /// Returns whether the control descriptor is ready.
    fn wait(&self, control: BorrowedFd<'_>) -> io::Result<bool> {
        let timeout = match self.patience(monotonic()) {
            None => PollTimeout::NONE,
            // Rounded up, lest the last millisecond is spent asking.
            Some(patience) if patience.is_zero() => PollTimeout::ZERO,
            Some(patience) => PollTimeout::try_from(patience + Duration::from_millis(1))
                .unwrap_or(PollTimeout::MAX),
        };
        let stderr = io::stderr();
        let mut asked = vec![PollFd::new(control, PollFlags::POLLIN)];
        if self.recovery.is_over {
            asked.push(PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN));
        }
        if self.places.iter().any(|(_, place)| place.is_stalled) {
            asked.push(PollFd::new(stderr.as_fd(), PollFlags::POLLOUT));
        }
        match poll(&mut asked, timeout) {
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
            Ok(_) => Ok(asked[0].any() == Some(true)),
        }
    }

    /// How long nothing is due. `None`: for ever.
    fn patience(&self, now: Duration) -> Option<Duration> {
        if !self.recovery.is_over {
            return Some(self.recovery.retry_at.saturating_sub(now));
        }
        let mut due: Option<Duration> = self.partials.first().map(|(until, _)| *until);
        due = [due, self.ask_at()].into_iter().flatten().min();
        let mut at = |moment: Duration| due = Some(due.map_or(moment, |due| due.min(moment)));
        for (number, place) in self.places.iter() {
            let has_notice =
                number == MAIN && self.flight.is_none() && self.untold() != Loss::default();
            if place.ready.is_empty() && !has_notice {
                continue;
            }
            match self.flight.is_some() || self.is_held_up(place) {
                _ if place.ready.is_empty() => {
                    at(self.notice_at.max(place.retry_at.unwrap_or_default()));
                }
                false => at(Duration::ZERO),
                true => {
                    if let Some(retry_at) = place.retry_at {
                        at(retry_at);
                    }
                    if self.overflow == Overflow::Drop {
                        at(now + DROP_EVERY);
                    }
                }
            }
        }
        due.map(|due| due.saturating_sub(now))
    }

    fn is_held_up(&self, place: &Place) -> bool {
        place.is_stalled || place.retry_at.is_some()
    }

    /// Takes up what the kernel says of the sources, and the beginnings of lines that are due.
    fn look(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        // Every source has one event at most; those of a flood come in the next turn.
        for _ in 0..=self.feeds.len() / EVENTS {
            let found = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
                Err(Errno::EINTR) => 0,
                found => found?,
            };
            for event in &events[..found] {
                let id = event.data();
                if event.events().intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
                    && let Some(feed) = self.feeds.get_mut(&id)
                {
                    feed.is_hung = true;
                }
                self.queue(id);
            }
            if found < EVENTS {
                break;
            }
        }
        self.queue_partials();
        Ok(())
    }

    /// One share for every source that is ready now.
    fn round(&mut self) -> io::Result<()> {
        let is_away = self.is_away()?;
        for number in self.places.numbers() {
            if is_away {
                self.drop_full(number)?;
                continue;
            }
            let now = monotonic();
            if number == MAIN {
                self.put_rest()?;
            }
            let Some(place) = self.places.get(number) else { continue };
            place.is_stalled = place.is_stalled && terminal::is_stalled();
            let is_stalled = place.is_stalled;
            let is_due = place.retry_at.is_none_or(|at| now >= at);
            let mut sources = place.ready.len().min(ROUND_MAX);
            if is_due && number == MAIN && sources == 0 && self.is_notice_due(now) {
                self.batch(number, 0)?;
            }
            while sources > 0 && !is_stalled {
                let Some(place) = self.places.get(number) else { break };
                if place.retry_at.is_some_and(|at| now < at) {
                    break;
                }
                match self.batch(number, sources)? {
                    Some(looked_at) => sources -= looked_at.clamp(1, sources),
                    None => break,
                }
            }
            let Some(place) = self.places.get(number) else { continue };
            let is_held_up = place.is_stalled || place.retry_at.is_some();
            if is_held_up && self.overflow == Overflow::Drop {
                self.drop_full(number)?;
            }
        }
        Ok(())
    }

    fn is_notice_due(&self, now: Duration) -> bool {
        self.untold() != Loss::default() && now >= self.notice_at
    }

    /// Brings one batch to the log. Returns how many sources were looked at, or `None` if writing
    /// does not work.
    fn batch(&mut self, number: usize, sources: usize) -> io::Result<Option<usize>> {
        self.begin();
        if number == MAIN && self.is_notice_due(monotonic()) {
            self.begin_with_notice();
        }
        let looked_at = self.collect(number, sources);
        if self.output.is_empty() && self.record.entries.is_empty() {
            return Ok(Some(looked_at));
        }
        let taker = self.taker(number);
        let outcome = self.write(taker)?;
        let now = monotonic();
        let is_stalled = matches!(outcome, Outcome::Stalled);
        let (retry_at, is_lost, goes_on) = match outcome {
            Outcome::Written => (None, false, true),
            Outcome::Failed(error) => {
                self.say(&format!("cannot write the log: {error}"));
                if number != MAIN && taker == number {
                    // It may be that it could not even be opened again.
                    self.places.close(number);
                }
                (Some(now + RETRY_EVERY), false, false)
            }
            Outcome::Stalled => (None, false, false),
            Outcome::Hanging => {
                self.say("the disk of the log does not answer");
                (None, true, false)
            }
            Outcome::Lost => {
                // Nobody is there to be told, and nobody may ever be.
                self.notice_at = now + SAY_EVERY;
                (None, true, true)
            }
        };
        if !goes_on || is_lost {
            self.trim(is_lost);
        }
        if let Some(place) = self.places.get(number) {
            place.retry_at = retry_at;
            place.is_stalled |= is_stalled;
        }
        self.consume()?;
        if goes_on && taker != number {
            self.tell_why(number);
        }
        Ok(goes_on.then_some(looked_at))
    }

    /// Tells on stderr, for what it is worth, what was dropped and could not be told in the log.
    pub fn tell_loss(&mut self) {
        let Loss { bytes, lines } = self.untold();
        if bytes > 0 {
            self.say_at = Duration::ZERO;
            self.say(&format!("output of workers was dropped lines={lines} bytes={bytes}"));
        }
    }

    /// Tells trouble on stderr, at most once a minute.
    pub(super) fn say(&mut self, text: &str) {
        let now = monotonic();
        if now < self.say_at {
            return;
        }
        self.say_at = now + SAY_EVERY;
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let millis = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        let line = self.manner.notice(millis, u64::from(std::process::id()), text, &[]);
        // There is nobody else to tell.
        self.remark(&line, SAY_PATIENCE);
    }
}
