//! Requests become orders, and what comes of them becomes answers.
//!
//! Requests of one turn are obeyed after the stops among them (I14). Whoever waits is looked at once a
//! turn, after everything that happened in it; with no client that costs nothing.

use nix::sys::epoll::EpollFlags;
use tracing::info;

use super::super::report::{describe_upgrade_fault, span};
use super::super::{CONTROL_FROM, Driver};
use super::client::{Client, OUTPUT_MAX, Stage};
use super::events::event_of;
use super::status::Cursor;
use crate::arbiter::{Event, Generation, Notice, Order, Outcome, Readiness, Time};
use crate::control::{self, Done, EventKind, Reply, Request};

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// The rest of a status.
    Status(Cursor),
    /// That there are so many workers.
    Scale {
        target: u32,
        /// Since when all of them are ready.
        ready_since: Option<Time>,
    },
    /// The verdict of a reload: of the generation that was read after the order, once that is known.
    Reload(Option<Generation>),
    /// The verdict of an upgrade, of one that began after the order.
    Upgrade { is_begun: bool },
    /// The end of the master.
    Stop,
    /// Whatever happens.
    Watch,
}

impl Wish {
    /// Whether such a client is told what happens.
    fn takes_events(self) -> bool {
        match self {
            Self::Status(_) => false,
            Self::Scale { .. }
            | Self::Reload(_)
            | Self::Upgrade { .. }
            | Self::Stop
            | Self::Watch => true,
        }
    }
}

/// Exit codes of a reload or an upgrade that came to nothing.
const BAD_CONFIGURATION: u8 = 6;
const ROLLED_BACK: u8 = 151;
pub(in crate::driver) const PARTLY_DONE: u8 = 153;

/// Below this many waiting bytes a client is sent more of a status.
const STATUS_AHEAD: usize = OUTPUT_MAX / 8;

impl Driver<'_> {
    /// Something came on the control socket.
    pub(in crate::driver) fn hear_clients(&mut self, came: &[(u64, EpollFlags)], now: Time) {
        let mut requests = Vec::new();
        for (token, flags) in came {
            if *token == CONTROL_FROM {
                self.control.accept(&self.epoll, now);
            } else if let Some(request) = self.control.hear(*token, *flags, &self.epoll, now) {
                requests.push((*token, request));
            }
        }
        // A stable sort: the stops first, all others in the order in which they came.
        requests.sort_by_key(|(_, request)| !matches!(request, Request::Stop { .. }));
        for (token, request) in requests {
            self.obey(token, &request, now);
        }
    }

    fn obey(&mut self, token: u64, request: &Request, now: Time) {
        match request {
            Request::Status => self.begin_status(token, now),
            Request::Watch => self.accept(token, Wish::Watch, "watch", now),
            Request::ScaleTo { workers } => {
                self.accept(token, Wish::Watch, &format!("scale to {workers}"), now);
                self.scale(token, i64::from(*workers), Order::ScaleTo(*workers), now);
            }
            Request::ScaleBy { by } => {
                self.accept(token, Wish::Watch, &format!("scale by {by}"), now);
                let wanted = i64::from(self.arbiter.target()) + i64::from(*by);
                self.scale(token, wanted, Order::ScaleBy(*by), now);
            }
            Request::Stop { now: is_at_once } => {
                let what = if *is_at_once { "stop at once" } else { "stop" };
                self.accept(token, Wish::Stop, what, now);
                // One that stops already is not told a second time: that would shorten its stop.
                let orders = match (is_at_once, self.arbiter.is_stopping()) {
                    (true, _) => 2,
                    (false, false) => 1,
                    (false, true) => 0,
                };
                for _ in 0..orders {
                    self.step(now, Event::Ordered(Order::Stop));
                }
            }
            Request::Reopen => {
                self.accept(token, Wish::Watch, "reopen the log files", now);
                self.step(now, Event::Ordered(Order::Reopen));
                self.finish(token, 0, "the log files are opened again", now);
            }
            Request::Reload { if_changed, dry_run } => {
                self.load_flags.join(*if_changed, *dry_run);
                let what = if *dry_run { "judge the configuration" } else { "reload" };
                self.order(token, Wish::Reload(None), what, now);
            }
            Request::Upgrade => {
                self.order(token, Wish::Upgrade { is_begun: false }, "upgrade", now);
            }
        }
    }

    /// Takes an order whose verdict comes later.
    fn order(&mut self, token: u64, wish: Wish, what: &str, now: Time) {
        if self.arbiter.is_stopping() {
            return self.finish(token, 1, "the master stops", now);
        }
        self.accept(token, wish, what, now);
        let is_upgrade = matches!(wish, Wish::Upgrade { .. });
        let order = if is_upgrade { Order::Upgrade } else { Order::Reload };
        self.step(now, Event::Ordered(order));
    }

    /// Tells those who wait for a verdict what it is.
    fn tell_verdict(&mut self, notice: Notice, now: Time) {
        let is_it = |wish: Wish| match (notice, wish) {
            (Notice::Loading { .. }, Wish::Reload(None)) => true,
            (
                Notice::LoadRefused { generation, .. }
                | Notice::LoadUnneeded { generation }
                | Notice::Reloaded { generation, .. }
                | Notice::RolledBack { generation, .. },
                Wish::Reload(Some(wanted)),
            ) => generation == wanted,
            (Notice::Upgrading, Wish::Upgrade { is_begun: false }) => true,
            (
                Notice::Upgraded { .. } | Notice::UpgradeFailed { .. },
                Wish::Upgrade { is_begun },
            ) => is_begun,
            (
                _,
                Wish::Reload(_)
                | Wish::Upgrade { .. }
                | Wish::Status(_)
                | Wish::Scale { .. }
                | Wish::Stop
                | Wish::Watch,
            ) => false,
        };
        let told: Vec<u64> = self
            .control
            .clients()
            .filter(|(_, client)| matches!(client.stage, Stage::Waiting(wish) if is_it(wish)))
            .map(|(token, _)| token)
            .collect();
        for token in told {
            if let Notice::Loading { generation } = notice {
                self.wait_for(token, Wish::Reload(Some(generation)));
            } else if notice == Notice::Upgrading {
                self.wait_for(token, Wish::Upgrade { is_begun: true });
            } else {
                let (code, text) = self.verdict(notice);
                let worker_pid = self.history.culprit.filter(|_| code == ROLLED_BACK);
                if let Some(client) = self.control.client(token) {
                    client.end(&Reply::Done(Done { code, text, worker_pid }), now);
                }
            }
        }
    }

    /// The exit code and the words of a verdict.
    fn verdict(&self, notice: Notice) -> (u8, String) {
        let last_error = || self.history.last_error.clone().unwrap_or_default();
        if let Notice::Reloaded { generation, took } = notice {
            let (workers, took) = (self.arbiter.target(), span(took));
            let text = format!("{workers} workers are of generation {generation} after {took}");
            return match self.eras.current().spec.unapplied.as_str() {
                "" => (0, text),
                unapplied => (PARTLY_DONE, format!("{text}; {unapplied}")),
            };
        }
        if let Notice::LoadUnneeded { .. } = notice {
            return self.history.outlook.clone();
        }
        if let Notice::Upgraded { took } = notice {
            return (0, format!("a successor has taken over after {}", span(took)));
        }
        if let Notice::LoadRefused { is_timeout: false, .. } = notice {
            let why = self.history.refusal.trim_end();
            return (BAD_CONFIGURATION, format!("refused; nothing has changed\n{why}"));
        }
        if let Notice::UpgradeFailed { fault } = notice {
            let how = describe_upgrade_fault(fault);
            let why = self.history.upgrade_faults.iter().map(|line| format!("\n{line}"));
            let why: String = why.collect();
            return (ROLLED_BACK, format!("upgrade failed: {how}; everything is as it was{why}"));
        }
        (ROLLED_BACK, format!("{}; everything is as it was", last_error()))
    }

    /// Has a client wait, and tells it and the log what for. It is told what happens from now on.
    fn accept(&mut self, token: u64, wish: Wish, what: &str, now: Time) {
        let Some(client) = self.control.client(token) else { return };
        if what != "watch" {
            let (pid, uid) = (client.who.pid(), client.who.uid());
            info!("control socket: {what}, from pid {pid} uid {uid}");
        }
        client.stage = Stage::Waiting(wish);
        let (kind, text) = (EventKind::Accepted, what.to_owned());
        let event = control::Event { kind, slot: None, pid: None, generation: None, text };
        // It is the first line, so there is room for it.
        let _ = client.tell(&Reply::Event(event), now);
    }

    fn begin_status(&mut self, token: u64, now: Time) {
        let service = Reply::Service(Box::new(self.service_status(now)));
        let Some(client) = self.control.client(token) else { return };
        let _ = client.tell(&service, now);
        client.stage = Stage::Waiting(Wish::Status(Cursor::default()));
    }

    /// A signal that asks for more than there may be gets what there may be. Who can be told gets
    /// nothing: a slip of the hand does not start a thousand workers.
    fn scale(&mut self, token: u64, wanted: i64, order: Order, now: Time) {
        let most = self.arbiter.max_workers();
        if !(1..=i64::from(most)).contains(&wanted) {
            let why = format!("{wanted} workers were asked for, there may be 1 to {most}");
            return self.finish(token, 1, &why, now);
        }
        let from = self.arbiter.target();
        self.step(now, Event::Ordered(order));
        let target = self.arbiter.target();
        // Those that are kept need no new proof.
        let ready_since = (target <= from).then_some(Time::ZERO);
        self.wait_for(token, Wish::Scale { target, ready_since });
    }

    fn wait_for(&mut self, token: u64, wish: Wish) {
        if let Some(client) = self.control.client(token) {
            client.stage = Stage::Waiting(wish);
        }
    }

    fn finish(&mut self, token: u64, code: u8, text: &str, now: Time) {
        if let Some(client) = self.control.client(token) {
            client.finish(code, text, now);
        }
    }

    /// Tells those who wait what happened.
    pub(in crate::driver) fn tell_clients(&mut self, notice: Notice, now: Time) {
        if self.control.is_quiet() {
            return;
        }
        let Some(event) = event_of(notice, &self.children) else { return };
        let reply = Reply::Event(event);
        let mut gone = Vec::new();
        for (token, client) in self.control.clients() {
            let Stage::Waiting(wish) = client.stage else { continue };
            if !wish.takes_events() || client.tell(&reply, now).is_ok() {
                continue;
            }
            // To others these are but progress.
            if wish == Wish::Watch {
                gone.push(token);
            }
        }
        for token in gone {
            self.control.forget(token, &self.epoll);
        }
        self.tell_verdict(notice, now);
    }

    /// The end of a turn: answers what can be answered now, and sends it.
    pub(in crate::driver) fn serve_clients(&mut self, now: Time) {
        if self.control.is_quiet() {
            return;
        }
        let waiting: Vec<u64> = self
            .control
            .clients()
            .filter(|(_, client)| matches!(client.stage, Stage::Waiting(_)))
            .map(|(token, _)| token)
            .collect();
        for token in waiting {
            let Some(client) = self.control.client(token) else { continue };
            let Stage::Waiting(wish) = client.stage else { continue };
            match wish {
                Wish::Reload(_) | Wish::Upgrade { .. } | Wish::Stop | Wish::Watch => {}
                Wish::Scale { target, ready_since } => {
                    self.judge_scale(token, target, ready_since, now);
                }
                Wish::Status(_) => self.go_on_with_status(token, now),
            }
        }
        self.control.serve(&self.epoll, now);
    }

    /// Answers a scale order that has been carried out, or cannot be any more. A command counts as
    /// ready once it is executed; where a verdict hangs on it, it also has to live for `min_uptime`.
    fn judge_scale(&mut self, token: u64, target: u32, ready_since: Option<Time>, now: Time) {
        let wanted = self.arbiter.target();
        if self.arbiter.is_stopping() {
            return self.finish(token, 1, "the master stops", now);
        }
        if wanted != target {
            let why = format!("another order came: {wanted} workers are wanted now");
            return self.finish(token, 1, &why, now);
        }
        let counts = self.arbiter.counts();
        let policy = self.arbiter.policy();
        let since = (counts.ready >= target).then(|| ready_since.unwrap_or(now));
        let proven_at = since.map(|since| match policy.readiness {
            Readiness::Reported | Readiness::Probed => since,
            Readiness::Spawned => since.after(policy.min_uptime),
        });
        let are_gone = counts.ready == target && counts.live() - counts.unreaped == target;
        if are_gone && proven_at.is_some_and(|at| at <= now) {
            let left = self.sockets_left();
            let text = format!("{target} of {target} workers are ready{left}");
            return self.finish(token, 0, &text, now);
        }
        let Some(client) = self.control.client(token) else { return };
        client.stage = Stage::Waiting(Wish::Scale { target, ready_since: since });
        // What else is missing tells of itself.
        client.look_at = proven_at.filter(|at| *at > now);
    }

    /// Sends as much of a status as the client takes: it is never kept whole for anybody.
    fn go_on_with_status(&mut self, token: u64, now: Time) {
        loop {
            let Some(client) = self.control.client(token) else { return };
            let Stage::Waiting(Wish::Status(mut cursor)) = client.stage else { return };
            if client.flush(now).is_err() || client.waiting_bytes() > STATUS_AHEAD {
                return;
            }
            let rows = self.next_rows(&mut cursor, now);
            let Some(client) = self.control.client(token) else { return };
            if rows.is_empty() {
                return client.finish(0, "", now);
            }
            // There is room, because little waits.
            let _ = client.tell(&Reply::Workers(rows), now);
            client.stage = Stage::Waiting(Wish::Status(cursor));
        }
    }

    /// The master is about to leave: the last lines. Clients are let go when the lock is given up.
    pub(in crate::driver) fn finish_control(&mut self, outcome: Option<Outcome>) {
        self.control.close(&self.epoll);
        let now = super::super::now();
        let code = outcome.map_or(1, |outcome| match outcome {
            Outcome::Unreaped { .. } | Outcome::Unwritten => 1,
            Outcome::Stopped
            | Outcome::Upgraded
            | Outcome::WorkersEnded { .. }
            | Outcome::BootFailed { .. }
            | Outcome::NotExecutable
            | Outcome::NotFound
            | Outcome::CrashLoop
            | Outcome::NotBooted => 0,
        });
        for (_, client) in self.control.clients() {
            let (code, text) = match (&client.stage, outcome) {
                (Stage::Leaving, _) => (None, String::new()),
                (Stage::Waiting(Wish::Stop | Wish::Watch), Some(outcome)) => {
                    (Some(code), describe(outcome))
                }
                (Stage::Waiting(Wish::Upgrade { is_begun: true }), Some(Outcome::Upgraded)) => {
                    (Some(0), describe(Outcome::Upgraded))
                }
                (
                    Stage::Waiting(Wish::Reload(_) | Wish::Upgrade { .. } | Wish::Scale { .. }),
                    Some(Outcome::Upgraded),
                ) => (Some(1), "a successor has taken over; ask it again".to_owned()),
                (Stage::Waiting(_) | Stage::Asking(_), _) => {
                    (Some(1), "the master has stopped".to_owned())
                }
            };
            if let Some(code) = code {
                client.finish(code, text, now);
            }
            // Whoever takes nothing learns it from the end of the connection.
            let _ = Client::flush(client, now);
        }
    }
}

fn describe(outcome: Outcome) -> String {
    match outcome {
        Outcome::Unreaped { processes } => {
            format!("stopped; processes that the kernel does not end: {processes}")
        }
        Outcome::Upgraded => "a successor has taken over".to_owned(),
        Outcome::Stopped
        | Outcome::WorkersEnded { .. }
        | Outcome::BootFailed { .. }
        | Outcome::NotExecutable
        | Outcome::NotFound
        | Outcome::Unwritten
        | Outcome::CrashLoop
        | Outcome::NotBooted => format!("stopped, exit code {}", outcome.code()),
    }
}
