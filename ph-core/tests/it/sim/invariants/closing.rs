//! The observer's view of what is not a worker: helpers, strays, and the order in which all of it
//! ends.
//!
//! The rules are I2–I4, I6, I7, I9 and I12 once more, for children that are not counted in the
//! target. The time of a closing is on a clock that stands while the master oversleeps, as
//! everywhere: who was frozen with the master has not had it.

use std::time::Duration;

use ph_core::arbiter::{
    CLOSING_GRACE, ExitStatus, HelperEnd, HelperId, HelperRole, Outcome, Policy,
};

use super::{
    Action, LATE_TOLERANCE, Observer, REAP_GRACE, SlotRecord, Time, Verdict, Violation, hold,
};

/// One helper, as far as it can be seen from outside.
#[derive(Clone, Debug)]
struct Helper {
    role: HelperRole,
    /// When its process was asked for; `None`: it has none.
    since: Option<Time>,
    has_run: bool,
    /// Told to leave; when it may, and must, be killed.
    kill_at: Option<Time>,
    is_killed: bool,
    deaths: SlotRecord,
    recall: Recall,
    /// Its last task was not ended well.
    is_unfinished: bool,
}

/// Whether one that was killed in its last task was started once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recall {
    Never,
    /// It has what was left of its time.
    Due {
        kill_at: Time,
    },
    Done,
}

impl Helper {
    fn has_process(&self) -> bool {
        self.since.is_some()
    }
}

/// What workers left behind.
#[derive(Clone, Copy, Debug)]
enum Strays {
    /// Nobody has asked for them.
    Unasked,
    Asked {
        left: Option<u32>,
        counted_at: Time,
        /// When those that are left may, and must, be given up.
        due: Time,
    },
    /// None is left but these, which were named.
    Over { left: u32 },
}

#[derive(Clone, Debug)]
pub(super) struct Closing {
    helpers: Vec<Helper>,
    strays: Strays,
    /// When the master leaves at the latest, once a stop began.
    end_by: Time,
    /// When those that end after the workers are given up.
    helpers_until: Time,
    /// What was told to come of the stop: those that end last are to go.
    leaving: Option<Outcome>,
    /// Whose end this step must tell.
    ended: Option<HelperId>,
}

impl Closing {
    pub(super) fn new(roles: &[HelperRole]) -> Self {
        let helper = |role: &HelperRole| Helper {
            role: *role,
            since: None,
            has_run: false,
            kill_at: None,
            is_killed: false,
            deaths: SlotRecord::default(),
            recall: Recall::Never,
            is_unfinished: false,
        };
        Self {
            helpers: roles.iter().map(helper).collect(),
            strays: Strays::Unasked,
            end_by: Time::from_nanos(u64::MAX),
            helpers_until: Time::from_nanos(u64::MAX),
            leaving: None,
            ended: None,
        }
    }

    pub(super) fn on_late_turn(&mut self, late: Duration) {
        if late > LATE_TOLERANCE {
            self.end_by = self.end_by.after(late);
            self.helpers_until = self.helpers_until.after(late);
        }
    }

    /// A stop leaves so much time, and a second one less.
    pub(super) fn on_stop(&mut self, now: Time, grace: Duration) {
        self.end_by = self.end_by.min(now.after(grace).after(REAP_GRACE));
    }

    /// What workers are told only now, they have all of their time for.
    fn on_delay_over(&mut self, now: Time, grace: Duration) {
        self.end_by = now.after(grace).after(REAP_GRACE);
    }

    /// The part in which those that end after the workers do: it has its own limit, as the one
    /// before had.
    fn begin_helpers_part(&mut self, left: u32, now: Time) {
        self.strays = Strays::Over { left };
        let limit = now.after(CLOSING_GRACE).after(REAP_GRACE);
        self.helpers_until = self.end_by.max(now).min(limit);
    }

    fn due(&self) -> Time {
        self.helpers_until.min(self.end_by)
    }

    /// What those that end last have beyond the time of the stop.
    pub(super) fn writing_grace(&self) -> Duration {
        match self.any_process(|ends| ends == HelperEnd::Last) {
            true => CLOSING_GRACE,
            false => Duration::ZERO,
        }
    }

    fn is_turn(&self, role: HelperRole, is_stopping: bool) -> bool {
        match role.ends {
            HelperEnd::WithWorkers => is_stopping,
            HelperEnd::AfterWorkers => self.is_over(),
            HelperEnd::Last => self.leaving.is_some(),
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.strays, Strays::Over { .. })
    }

    /// Whether any of those has a process that must be waited for.
    fn any_process(&self, ends: impl Fn(HelperEnd) -> bool) -> bool {
        self.helpers.iter().filter(|it| ends(it.role.ends)).any(Helper::has_process)
    }

    fn helper(&mut self, helper: HelperId) -> Result<&mut Helper, Violation> {
        let violation = || Violation::new(2, format!("{helper:?} is nobody"));
        self.helpers.get_mut(helper.0 as usize).ok_or_else(violation)
    }
}

impl Observer {
    pub(super) fn on_delay_over(&mut self) {
        let grace = self.longest_grace();
        self.closing.on_delay_over(self.now, grace);
    }

    /// Whether every helper runs that is to run, for I12.
    pub(in super::super) fn helpers_run(&self) -> bool {
        let runs = |it: &Helper| if it.role.respawn { it.has_process() } else { it.has_run };
        self.closing.helpers.iter().all(runs)
    }

    pub(super) fn on_helper_ended(&mut self, helper: HelperId, status: Option<ExitStatus>) {
        let Some(seen) = self.closing.helpers.get_mut(helper.0 as usize) else { return };
        let Some(since) = seen.since.take() else { return };
        if let Some(kill_at) = seen.kill_at {
            let HelperRole { respawn, ends, .. } = seen.role;
            let is_killed = matches!(status, Some(ExitStatus::Signal { .. })) && !seen.is_killed;
            let is_last = respawn && ends == HelperEnd::Last && seen.recall == Recall::Never;
            if is_killed && is_last && self.now < kill_at {
                (seen.kill_at, seen.recall) = (None, Recall::Due { kill_at });
                self.closing.ended = Some(helper);
            } else {
                seen.is_unfinished = status != Some(ExitStatus::Code(0));
            }
        } else {
            let life = status.map(|_| self.now.since(since));
            let most = self.policy.backoff_max;
            let backoff_max = seen.role.backoff_cap.map_or(most, |cap| most.min(cap));
            let policy = Policy { backoff_max, ..self.policy };
            seen.deaths.on_death(self.now, life, &policy);
            self.closing.ended = Some(helper);
        }
    }

    /// I5: an end that nobody had asked for is told once, and whether there is another start.
    pub(super) fn on_helper_end_told(
        &mut self,
        helper: HelperId,
        respawn_in: Option<Duration>,
    ) -> Verdict {
        hold!(5, self.closing.ended.take() == Some(helper), "{helper:?} did not end now");
        let role = self.closing.helper(helper)?.role;
        hold!(5, respawn_in.is_some() == role.respawn, "{role:?} starts again: {respawn_in:?}");
        Ok(())
    }

    /// Only between steps: an end that was not told.
    pub(super) fn check_ends_told(&mut self) -> Verdict {
        let ended = self.closing.ended.take();
        hold!(5, ended.is_none(), "the end of {ended:?} was not told");
        Ok(())
    }

    /// I6 and I9.
    pub(super) fn on_spawn_helper(&mut self, helper: HelperId) -> Verdict {
        let (now, is_stopping) = (self.now, self.is_leaving());
        let role = self.closing.helper(helper)?.role;
        // Once more, whatever its backoff says: what the others had to say is to be written down.
        let is_last_call = role.ends == HelperEnd::Last && self.closing.leaving.is_some();
        let is_wanted = !self.closing.is_turn(role, is_stopping) || is_last_call;
        let seen = self.closing.helper(helper)?;
        hold!(6, self.is_started, "{helper:?} is started before the master");
        hold!(6, is_wanted && seen.kill_at.is_none(), "{helper:?} is started for the end");
        hold!(1, !seen.has_process(), "{helper:?} has a process already");
        hold!(9, seen.role.respawn || !seen.has_run, "{helper:?} is started a second time");
        let earliest = seen.deaths.earliest;
        hold!(9, now >= earliest || is_last_call, "{helper:?} must wait until {earliest:?}");
        seen.since = Some(now);
        seen.has_run = true;
        Ok(())
    }

    /// I2, I4, and the order of I7.
    pub(super) fn on_stop_helper(&mut self, helper: HelperId) -> Verdict {
        let (now, end_by) = (self.now, self.closing.end_by);
        hold!(7, self.stop.is_some(), "{helper:?} is told to leave, and nobody said so");
        let left = self.living();
        let role = self.closing.helper(helper)?.role;
        let is_turn = self.closing.is_turn(role, true);
        let seen = self.closing.helper(helper)?;
        hold!(2, seen.has_process(), "{helper:?} is told to leave and is not there");
        hold!(4, seen.kill_at.is_none() && !seen.is_killed, "{helper:?} is told to leave twice");
        let is_alone = role.ends == HelperEnd::WithWorkers || left == 0;
        hold!(7, is_turn && is_alone, "{role:?} is told before {left} workers, strays and others");
        let grace_over = now.after(CLOSING_GRACE);
        seen.kill_at = Some(match role.ends {
            HelperEnd::WithWorkers => grace_over,
            HelperEnd::AfterWorkers => grace_over.min(end_by),
            HelperEnd::Last => match seen.recall {
                Recall::Due { kill_at } => kill_at,
                Recall::Never | Recall::Done => end_by,
            },
        });
        if matches!(seen.recall, Recall::Due { .. }) {
            seen.recall = Recall::Done;
        }
        Ok(())
    }

    /// I2 and I3.
    pub(super) fn on_kill_helper(&mut self, helper: HelperId) -> Verdict {
        let (now, is_quit, end_by) = (self.now, self.quit.is_some(), self.closing.end_by);
        let seen = self.closing.helper(helper)?;
        hold!(2, seen.has_process(), "{helper:?} is killed and is not there");
        hold!(3, !seen.is_killed, "a second SIGKILL to {helper:?}");
        let Some(kill_at) = seen.kill_at else {
            return Err(Violation::new(3, format!("SIGKILL to {helper:?}, who was not told")));
        };
        let at_once = is_quit && seen.role.ends == HelperEnd::WithWorkers;
        let in_time = now >= kill_at || now >= end_by || at_once;
        hold!(3, in_time, "SIGKILL to {helper:?} before {kill_at:?}");
        seen.is_killed = true;
        Ok(())
    }

    /// I7: once, and only when there is no worker who could leave more.
    pub(super) fn on_end_strays(&mut self) -> Verdict {
        let left = self.living();
        hold!(7, self.stop.is_some() && left == 0, "strays are ended, and {left} workers live");
        let is_first = matches!(self.closing.strays, Strays::Unasked);
        hold!(7, is_first, "strays are ended twice");
        let counted_at = self.now;
        let due = self.now.after(CLOSING_GRACE).min(self.closing.end_by.max(self.now));
        self.closing.strays = Strays::Asked { left: None, counted_at, due };
        Ok(())
    }

    pub(super) fn on_strays_counted(&mut self, count: u32) {
        if let Strays::Asked { left, counted_at, .. } = &mut self.closing.strays {
            (*left, *counted_at) = (Some(count), self.now);
            if count == 0 {
                self.closing.begin_helpers_part(0, self.now);
            }
        }
    }

    /// I7 and I20: strays are given up in time, by their number, and not by a look that comes so
    /// late that they may have ended unseen.
    pub(super) fn on_strays_left(&mut self, named: u32) -> Verdict {
        let Strays::Asked { left: Some(left), counted_at, due } = self.closing.strays else {
            return Err(Violation::new(7, "strays are given up that nobody has counted"));
        };
        hold!(7, named == left && left > 0, "{named} strays are given up, and there are {left}");
        hold!(7, self.now >= due, "strays are given up before {due:?}");
        let late = self.now.since(due);
        let is_fresh = counted_at == self.now;
        hold!(20, is_fresh || late <= CLOSING_GRACE / 4, "strays are given up {late:?} late");
        self.closing.begin_helpers_part(left, self.now);
        Ok(())
    }

    /// The order of I7, and the timers of I3 and I13.
    pub(super) fn check_closing(&mut self, next_deadline: Option<Time>) -> Verdict {
        let deadline = next_deadline.unwrap_or(Time::from_nanos(u64::MAX));
        let is_due = |seen: &Helper| matches!(seen.recall, Recall::Due { .. });
        let undone = self.closing.helpers.iter().position(is_due);
        hold!(
            9,
            undone.is_none(),
            "helper {undone:?} was killed in its last task, and that is all"
        );
        if self.stop.is_some() && self.living() == 0 && !self.awaits_successor() {
            let is_asked = !matches!(self.closing.strays, Strays::Unasked);
            hold!(7, is_asked, "no worker is left, and nobody asks for strays");
        }
        if let Strays::Asked { left: Some(left), due, .. } = &mut self.closing.strays {
            if self.now.since(*due) > CLOSING_GRACE / 4 {
                *due = self.now.after(CLOSING_GRACE);
            }
            hold!(7, self.now < *due, "{left} strays are waited for, {due:?} is past");
            hold!(13, deadline <= *due, "strays are due {due:?}, the wake {deadline:?}");
        }
        if self.closing.is_over() {
            let is_last = self.closing.leaving.is_some();
            let (ends, due) = match is_last {
                false => (HelperEnd::AfterWorkers, self.closing.due()),
                true => (HelperEnd::Last, self.closing.end_by),
            };
            let is_waited = self.closing.any_process(|it| it == ends || (!is_last && it < ends));
            hold!(7, is_waited, "of {ends:?} nobody is left, and it goes on");
            hold!(7, self.now < due, "{due:?} is past, for {ends:?} alone");
            hold!(13, deadline <= due, "the end is due {due:?}, the wake {deadline:?}");
        }
        for (helper, seen) in (0..).map(HelperId).zip(&self.closing.helpers) {
            let is_to_go = self.closing.is_turn(seen.role, self.is_leaving());
            match (seen.has_process(), seen.kill_at) {
                (true, Some(kill_at)) if !seen.is_killed => {
                    let is_first = seen.role.ends == HelperEnd::WithWorkers;
                    let is_quit = self.quit.is_some() && is_first;
                    hold!(8, !is_quit, "a second stop kills {helper:?} at once");
                    hold!(3, self.now < kill_at, "{helper:?} is overdue for its SIGKILL");
                    hold!(13, deadline <= kill_at, "{helper:?} is due {kill_at:?}");
                }
                (true, None) => hold!(7, !is_to_go, "{helper:?} is not told to leave"),
                (false, _) if self.is_started && !is_to_go => {
                    let runs_again = seen.role.respawn || !seen.has_run;
                    let latest = seen.deaths.latest;
                    hold!(12, !runs_again || latest > self.now, "{helper:?} should run");
                    hold!(13, !runs_again || deadline <= latest, "{helper:?} is due {latest:?}");
                }
                (true, Some(_)) | (false, _) => {}
            }
        }
        Ok(())
    }

    /// I7: those that end last are told when the others have ended, or had their time; says how many
    /// strays are left.
    pub(super) fn begin_last_part(&mut self, outcome: Outcome) -> Result<u32, Violation> {
        let Strays::Over { left } = self.closing.strays else {
            return Err(Violation::new(7, "it leaves, and strays are not counted"));
        };
        let is_first = self.closing.leaving.replace(outcome).is_none();
        hold!(7, is_first, "it leaves twice");
        let others = |ends| ends <= HelperEnd::AfterWorkers;
        let waited = !self.closing.any_process(others) || self.now >= self.closing.due();
        hold!(7, waited, "it leaves before helpers were reaped, and there was time");
        self.closing.end_by = self.closing.end_by.max(self.now.after(CLOSING_GRACE));
        Ok(left)
    }

    /// I7, for what is not a worker; says what was told to come of the stop.
    pub(super) fn check_left(&self) -> Result<Outcome, Violation> {
        let Some(outcome) = self.closing.leaving else {
            return Err(Violation::new(7, "Exit, and nobody was told"));
        };
        for (helper, seen) in (0..).map(HelperId).zip(&self.closing.helpers) {
            let is_ended = !seen.has_process() || seen.is_killed;
            hold!(7, is_ended, "Exit, and {helper:?} was not killed");
        }
        let last = |ends| ends == HelperEnd::Last;
        let waited = !self.closing.any_process(last) || self.now >= self.closing.end_by;
        hold!(7, waited, "Exit before killed helpers were reaped, and there was time");
        let undone = |seen: &Helper| seen.has_process() || seen.is_unfinished;
        let mut writers = self.closing.helpers.iter().filter(|seen| last(seen.role.ends));
        let is_unwritten = outcome == Outcome::Stopped && writers.any(undone);
        Ok(if is_unwritten { Outcome::Unwritten } else { outcome })
    }

    pub(super) fn on_helper_action(&mut self, action: Action) -> Verdict {
        match action {
            Action::SpawnHelper { helper } => self.on_spawn_helper(helper),
            Action::StopHelper { helper } => self.on_stop_helper(helper),
            Action::KillHelper { helper } => self.on_kill_helper(helper),
            Action::EndStrays => self.on_end_strays(),
            Action::Spawn { .. }
            | Action::Signal { .. }
            | Action::ReadHeartbeat { .. }
            | Action::ReadMemory { .. }
            | Action::StartProbe { .. }
            | Action::EndProbe { .. }
            | Action::Load { .. }
            | Action::AbandonLoad
            | Action::SpawnSuccessor
            | Action::CommitUpgrade
            | Action::StopSuccessor
            | Action::KillSuccessor
            | Action::HandOver
            | Action::Forward(_)
            | Action::ReopenLog
            | Action::Notify(_)
            | Action::Exit(_) => Ok(()),
        }
    }
}
