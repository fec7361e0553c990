//! The observer's view of upgrades (I19, and I14 for the orders): one at a time, never beside a reload;
//! nothing is given up before the successor has taken over; each failure is told once, with its reason.

use std::time::Duration;

use ph_core::arbiter::{CLOSING_GRACE, LATE_TOLERANCE, Order, TAKEOVER_TIMEOUT, UpgradeFault};

use super::reloads::Stage as Reload;
use super::{Action, Event, Notice, Observer, Outcome, Policy, Time, Verdict, Violation, hold};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Booting { give_up_at: Time },
    Committing { give_up_at: Time },
    Stopping { kill_at: Time },
    Killed { at: Time },
}

impl Stage {
    /// Until when the successor has to get on, and what a fresh period is.
    fn limit(&mut self, policy: &Policy) -> Option<(&mut Time, Duration)> {
        match self {
            Self::Booting { give_up_at } => Some((give_up_at, policy.upgrade_timeout)),
            Self::Committing { give_up_at } => Some((give_up_at, TAKEOVER_TIMEOUT)),
            Self::Stopping { .. } | Self::Killed { .. } => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Upgrades {
    is_wanted: bool,
    stage: Option<Stage>,
    /// What this step must still do.
    due: Due,
    is_handed_over: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Due {
    spawn: bool,
    commit: bool,
    hand_over: bool,
    told: bool,
    fault: Option<UpgradeFault>,
    orders: Vec<Order>,
}

impl Upgrades {
    pub(super) fn is_under_way(&self) -> bool {
        self.stage.is_some()
    }
}

impl Observer {
    pub(super) fn on_upgrade_order(&mut self) {
        self.upgrades.is_wanted |= self.stop.is_none();
    }

    /// Whether no upgrade is under way, or waits.
    pub(in super::super) fn is_upgraded(&self) -> bool {
        self.upgrades.stage.is_none() && !self.upgrades.is_wanted
    }

    /// Whether a successor has still to end, or to be reaped.
    pub(super) fn awaits_successor(&self) -> bool {
        match self.upgrades.stage {
            None => false,
            Some(Stage::Killed { at }) => self.now < at.after(CLOSING_GRACE),
            Some(Stage::Booting { .. } | Stage::Committing { .. } | Stage::Stopping { .. }) => true,
        }
    }

    pub(super) fn on_upgrade_event(&mut self, event: Event) {
        let stage = self.upgrades.stage;
        let is_trying = matches!(stage, Some(Stage::Booting { .. } | Stage::Committing { .. }));
        if event == Event::SuccessorReady && matches!(stage, Some(Stage::Booting { .. })) {
            self.upgrades.due.commit = true;
        }
        if event == Event::TakenOver && matches!(stage, Some(Stage::Committing { .. })) {
            let waiting = [
                (self.reloads.is_wanted, Order::Reload),
                (self.reloads.is_drain_wanted, Order::Drain),
                (self.upgrades.is_wanted, Order::Upgrade),
            ];
            let waiting = waiting.into_iter().filter(|(is_wanted, _)| *is_wanted);
            let orders = waiting.map(|(_, order)| order).collect();
            self.upgrades.due = Due { hand_over: true, told: true, orders, ..Due::default() };
            (self.upgrades.stage, self.upgrades.is_wanted) = (None, false);
            self.begin_stop(Outcome::Upgraded);
        }
        if let Event::SuccessorEnded { status } = event {
            self.upgrades.stage = None;
            let fault = status.map_or(UpgradeFault::NotStarted, UpgradeFault::Ended);
            self.upgrades.due.fault = is_trying.then_some(fault);
        }
    }

    pub(super) fn on_upgrade_action(&mut self, action: Action) -> Verdict {
        let now = self.now;
        let (is_quit, is_stopping) = (self.quit.is_some(), self.stop.is_some());
        let upgrades = &mut self.upgrades;
        match action {
            Action::SpawnSuccessor => {
                let is_idle = matches!(self.reloads.stage, Reload::Idle);
                hold!(6, self.is_started && !is_stopping, "a successor is started in a stop");
                hold!(19, upgrades.stage.is_none(), "a successor beside {:?}", upgrades.stage);
                hold!(19, is_idle, "a successor beside {:?}", self.reloads.stage);
                let is_announced = std::mem::take(&mut upgrades.due.spawn);
                hold!(14, is_announced, "a successor, and nobody is told");
                let give_up_at = now.after(self.policy.upgrade_timeout);
                upgrades.stage = Some(Stage::Booting { give_up_at });
            }
            Action::CommitUpgrade => {
                let is_ready = std::mem::take(&mut upgrades.due.commit);
                hold!(19, is_ready, "it commits in {:?}", upgrades.stage);
                let give_up_at = now.after(TAKEOVER_TIMEOUT);
                upgrades.stage = Some(Stage::Committing { give_up_at });
            }
            Action::HandOver => {
                let is_due = std::mem::take(&mut upgrades.due.hand_over);
                hold!(19, is_due, "it hands over, and nobody has taken over");
                upgrades.is_handed_over = true;
            }
            Action::Forward(order) => {
                let place = upgrades.due.orders.iter().position(|due| *due == order);
                let Some(place) = place else {
                    return Err(Violation::new(14, format!("{order:?} is forwarded")));
                };
                upgrades.due.orders.remove(place);
            }
            Action::StopSuccessor => {
                let limit = upgrades.stage.as_mut().and_then(|stage| stage.limit(&self.policy));
                let Some((&mut give_up_at, period)) = limit else {
                    return Err(Violation::new(4, "a successor is told to stop and is not there"));
                };
                let is_timeout = now >= give_up_at && !is_excused(now.since(give_up_at), period);
                hold!(19, is_stopping || is_timeout, "given up, and it had until {give_up_at:?}");
                let fault = match upgrades.stage {
                    Some(Stage::Committing { .. }) => UpgradeFault::NotTakenOver,
                    _ => UpgradeFault::NotReady { within: self.policy.upgrade_timeout },
                };
                upgrades.due.fault = is_timeout.then_some(fault);
                let kill_at = now.after(self.policy.graceful_timeout);
                upgrades.stage = Some(Stage::Stopping { kill_at });
            }
            Action::KillSuccessor => {
                let in_time = match upgrades.stage {
                    Some(Stage::Stopping { kill_at }) => is_quit || now >= kill_at,
                    Some(Stage::Booting { .. } | Stage::Committing { .. }) => is_quit,
                    Some(Stage::Killed { .. }) | None => false,
                };
                hold!(3, in_time, "a successor is killed in {:?}", upgrades.stage);
                upgrades.stage = Some(Stage::Killed { at: now });
            }
            Action::Spawn { .. }
            | Action::Signal { .. }
            | Action::ReadHeartbeat { .. }
            | Action::ReadMemory { .. }
            | Action::StartProbe { .. }
            | Action::EndProbe { .. }
            | Action::Load { .. }
            | Action::AbandonLoad
            | Action::SpawnHelper { .. }
            | Action::StopHelper { .. }
            | Action::KillHelper { .. }
            | Action::EndStrays
            | Action::ReopenLog
            | Action::Notify(_)
            | Action::Exit(_) => {}
        }
        Ok(())
    }

    pub(super) fn on_upgrade_notice(&mut self, notice: &Notice) -> Verdict {
        let upgrades = &mut self.upgrades;
        if *notice == Notice::Upgrading {
            let is_wanted = std::mem::take(&mut upgrades.is_wanted);
            hold!(14, is_wanted, "an upgrade that nobody ordered");
            upgrades.due.spawn = true;
        }
        if let Notice::Upgraded { .. } = notice {
            let is_due = std::mem::take(&mut upgrades.due.told);
            hold!(19, is_due && upgrades.is_handed_over, "upgraded, and nobody has taken over");
        }
        if let Notice::UpgradeFailed { fault } = notice {
            let due = upgrades.due.fault.take();
            hold!(19, due == Some(*fault), "the upgrade failed by {fault:?}, and it was {due:?}");
        }
        Ok(())
    }

    /// The end of a step: what was due is done, what is late is given up, and what waits is taken up.
    pub(super) fn check_upgrade(&mut self, next_deadline: Option<Time>) -> Verdict {
        let now = self.now;
        let upgrades = &mut self.upgrades;
        let due = &upgrades.due;
        hold!(14, due.orders.is_empty(), "{:?} were not forwarded", due.orders);
        hold!(19, *due == Due::default(), "not done: {due:?}");
        let deadline = next_deadline.unwrap_or(Time::from_nanos(u64::MAX));
        if let Some(Stage::Stopping { kill_at }) = upgrades.stage {
            let is_due = now >= kill_at && deadline > now;
            hold!(3, !is_due, "the successor is overdue for its SIGKILL");
            hold!(13, deadline <= kill_at, "the successor is due {kill_at:?}");
        }
        let limit = upgrades.stage.as_mut().and_then(|stage| stage.limit(&self.policy));
        if let Some((give_up_at, period)) = limit {
            if *give_up_at <= now {
                let is_fresh = is_excused(now.since(*give_up_at), period);
                hold!(19, is_fresh, "the successor has had its time, and is not given up");
                *give_up_at = now.after(period);
            }
            hold!(13, deadline <= *give_up_at, "the successor is due {give_up_at:?}");
        }
        let is_free = upgrades.stage.is_none() && matches!(self.reloads.stage, Reload::Idle);
        let waits = upgrades.is_wanted && is_free && self.is_started && self.stop.is_none();
        hold!(14, !waits || deadline <= now, "an order to upgrade is lost");
        Ok(())
    }

    /// I7 and I19, at the exit.
    pub(super) fn check_successor_left(&self, outcome: Outcome) -> Verdict {
        hold!(7, !self.awaits_successor(), "Exit, and {:?}", self.upgrades.stage);
        let (is_handed_over, said) = (self.upgrades.is_handed_over, outcome == Outcome::Upgraded);
        hold!(19, said == is_handed_over, "{outcome:?}, and handed over: {is_handed_over}");
        Ok(())
    }
}

/// Whether a look comes so late that it grants a fresh period (I20).
fn is_excused(late: Duration, period: Duration) -> bool {
    late > (period / 4).max(LATE_TOLERANCE)
}
