//! Helpers: children of the master that are not workers, such as the warden. They are kept alive like
//! workers, each with a backoff of its own, and are never counted in the target (I9 and I11 hold for them too).
//!
//! A helper is a place, not a process: it has at most one process at a time, so an end that is told
//! means the one that runs. When it is told to leave, in a stop, is its [`HelperEnd`].

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use super::action::{Action, Notice};
use super::backoff::{Backoff, Jitter};
use super::event::{ExitStatus, HelperId};
use super::policy::Policy;
use super::time::Time;

/// What the arbiter has to know of a helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HelperRole {
    /// Whether it is started again when it ends; else it runs once.
    pub respawn: bool,
    /// Until when it is needed.
    pub ends: HelperEnd,
    /// The longest it is kept waiting between two lives, where others wait for it and `backoff_max`
    /// would be too long for them. `None`: `backoff_max`.
    pub backoff_cap: Option<Duration>,
}

/// When a helper is told to leave, in a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum HelperEnd {
    /// When the workers are.
    WithWorkers,
    /// When no worker and no stray is left.
    AfterWorkers,
    /// When all others have ended: it writes down what they, and the master, have to say.
    Last,
}

/// Where a helper is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has no process before this.
    Waiting {
        spawn_at: Time,
    },
    Running {
        since: Time,
    },
    /// Told to end.
    Stopping {
        kill_at: Time,
    },
    /// Sent SIGKILL.
    Killed,
    /// It has no process and gets none any more.
    Ended,
}

impl State {
    fn deadline(self) -> Option<Time> {
        match self {
            Self::Waiting { spawn_at } => Some(spawn_at),
            Self::Stopping { kill_at } => Some(kill_at),
            Self::Running { .. } | Self::Killed | Self::Ended => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    role: HelperRole,
    state: State,
    backoff: Backoff,
    /// It was killed in its last task, and started once more for that.
    is_recalled: bool,
    /// It did not end its last task well.
    is_unfinished: bool,
}

/// All helpers of a master, and the index of their deadlines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Helpers {
    records: Vec<Record>,
    deadlines: BTreeSet<(Time, HelperId)>,
}

impl Helpers {
    pub(super) fn new(roles: &[HelperRole]) -> Self {
        let record = |role: &HelperRole| Record {
            role: *role,
            state: State::Ended,
            backoff: Backoff::default(),
            is_recalled: false,
            is_unfinished: false,
        };
        Self { records: roles.iter().map(record).collect(), deadlines: BTreeSet::new() }
    }

    /// The master has started: so do they.
    pub(super) fn start(&mut self, now: Time) {
        for helper in self.ids() {
            self.set_state(helper, State::Waiting { spawn_at: now });
        }
    }

    pub(super) fn earliest(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Handles every deadline that has passed.
    pub(super) fn expire(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((at, helper)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            match self.records[index(helper)].state {
                State::Waiting { .. } => {
                    self.set_state(helper, State::Running { since: now });
                    actions.push(Action::SpawnHelper { helper });
                }
                State::Stopping { .. } => self.kill(helper, actions),
                // These have no deadline.
                State::Running { .. } | State::Killed | State::Ended => break,
            }
        }
    }

    /// A helper's process has ended, or none came of its spawn (`status` is `None`).
    pub(super) fn on_ended(
        &mut self,
        helper: HelperId,
        status: Option<ExitStatus>,
        now: Time,
        policy: &Policy,
        jitter: Jitter,
        actions: &mut Vec<Action>,
    ) {
        let Some(record) = self.records.get_mut(index(helper)) else { return };
        let (next, respawn_in) = match record.state {
            State::Waiting { .. } | State::Ended => return,
            State::Stopping { kill_at } if record.is_to_go_on(status) && now < kill_at => {
                record.is_recalled = true;
                return recall(helper, status, actions);
            }
            State::Running { since } if record.role.respawn => {
                let life = status.map(|_| now.since(since));
                let policy = record.role.policy(policy);
                let wait = record.backoff.on_death(now, life, &policy, jitter);
                (State::Waiting { spawn_at: now.after(wait) }, Some(wait))
            }
            State::Running { .. } | State::Stopping { .. } | State::Killed => (State::Ended, None),
        };
        let is_expected = record.state.is_told();
        record.is_unfinished = is_expected && status != Some(ExitStatus::Code(0));
        self.set_state(helper, next);
        if !is_expected {
            actions.push(Action::Notify(Notice::HelperEnded { helper, status, respawn_in }));
        }
    }

    /// Tells helpers to end: those whose turn it is.
    pub(super) fn stop(&mut self, ends: HelperEnd, kill_at: Time, actions: &mut Vec<Action>) {
        for helper in self.ids() {
            let record = &self.records[index(helper)];
            if record.role.ends != ends {
                continue;
            }
            match record.state {
                // What the others had to say is still to be written down.
                State::Waiting { .. } if ends == HelperEnd::Last && record.role.respawn => {
                    self.set_state(helper, State::Stopping { kill_at });
                    actions.extend([Action::SpawnHelper { helper }, Action::StopHelper { helper }]);
                }
                State::Waiting { .. } => self.set_state(helper, State::Ended),
                State::Running { .. } => {
                    self.set_state(helper, State::Stopping { kill_at });
                    actions.push(Action::StopHelper { helper });
                }
                State::Stopping { kill_at: before } => {
                    let kill_at = kill_at.min(before);
                    self.set_state(helper, State::Stopping { kill_at });
                }
                State::Killed | State::Ended => {}
            }
        }
    }

    /// Kills whoever has a process, and whose turn it was by now.
    pub(super) fn kill_all(&mut self, until: HelperEnd, actions: &mut Vec<Action>) {
        for helper in self.ids() {
            let record = &self.records[index(helper)];
            if record.role.ends > until {
                continue;
            }
            match record.state {
                State::Waiting { .. } => self.set_state(helper, State::Ended),
                State::Running { .. } | State::Stopping { .. } => self.kill(helper, actions),
                State::Killed | State::Ended => {}
            }
        }
    }

    /// Whether none of those whose turn it is has a process or is to get one.
    pub(super) fn have_ended(&self, turn: impl Fn(HelperEnd) -> bool) -> bool {
        let mut those = self.records.iter().filter(|record| turn(record.role.ends));
        those.all(|record| record.state == State::Ended)
    }

    /// Whether those that end last have, and said that all is done.
    pub(super) fn have_done_the_last(&self) -> bool {
        let mut those = self.records.iter().filter(|record| record.role.ends == HelperEnd::Last);
        those.all(|record| record.state == State::Ended && !record.is_unfinished)
    }

    /// Compares the index with what it is derived from.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let states = self.ids().zip(&self.records);
        let derived = states.filter_map(|(id, record)| Some((record.state.deadline()?, id)));
        if derived.collect::<BTreeSet<_>>() == self.deadlines {
            Ok(())
        } else {
            Err("the helpers' deadlines differ from what they are derived from")
        }
    }

    fn kill(&mut self, helper: HelperId, actions: &mut Vec<Action>) {
        self.set_state(helper, State::Killed);
        actions.push(Action::KillHelper { helper });
    }

    /// The only place that changes a helper's state.
    fn set_state(&mut self, helper: HelperId, state: State) {
        let Some(record) = self.records.get_mut(index(helper)) else { return };
        let old = core::mem::replace(&mut record.state, state);
        if let Some(at) = old.deadline() {
            self.deadlines.remove(&(at, helper));
        }
        if let Some(at) = state.deadline() {
            self.deadlines.insert((at, helper));
        }
    }

    fn ids(&self) -> impl Iterator<Item = HelperId> + use<> {
        (0..u32::try_from(self.records.len()).unwrap_or(u32::MAX)).map(HelperId)
    }
}

impl State {
    /// Whether it was told to end, so that its end is no news.
    fn is_told(self) -> bool {
        match self {
            Self::Stopping { .. } | Self::Killed => true,
            Self::Waiting { .. } | Self::Running { .. } | Self::Ended => false,
        }
    }
}

impl HelperRole {
    /// The policy with the backoff of this helper.
    fn policy(self, policy: &Policy) -> Policy {
        let cap = self.backoff_cap.unwrap_or(policy.backoff_max);
        Policy { backoff_max: policy.backoff_max.min(cap), ..*policy }
    }
}

impl Record {
    /// Whether its last task, in which it was killed, is still to be done. Who exited has done what
    /// it could, and who is killed twice would be so for ever.
    fn is_to_go_on(&self, status: Option<ExitStatus>) -> bool {
        let HelperRole { respawn, ends, .. } = self.role;
        let is_killed = matches!(status, Some(ExitStatus::Signal { .. }));
        is_killed && respawn && ends == HelperEnd::Last && !self.is_recalled
    }
}

/// It goes on at once, within the time that it had.
fn recall(helper: HelperId, status: Option<ExitStatus>, actions: &mut Vec<Action>) {
    let respawn_in = Some(Duration::ZERO);
    actions.push(Action::Notify(Notice::HelperEnded { helper, status, respawn_in }));
    actions.extend([Action::SpawnHelper { helper }, Action::StopHelper { helper }]);
}

fn index(helper: HelperId) -> usize {
    helper.0 as usize
}
