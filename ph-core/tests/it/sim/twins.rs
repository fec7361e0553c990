//! Copies of the arbiter that never hear of something: until that has failed they do the same, and then
//! they are the same.

use ph_core::arbiter::{Action, Event, Notice, Order, Time};

use super::invariants::{Verdict, Violation, hold};
use super::subject::Subject;

/// What a copy does not hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deaf {
    /// A reload, until its configuration is refused, or nothing is to come of it (I15).
    ToReload,
    /// An upgrade, until its successor has ended (I19).
    ToUpgrade,
}

/// A copy, while there is something to compare.
#[derive(Clone, Debug)]
pub(super) struct Twin {
    deaf: Deaf,
    subject: Subject,
}

impl Twin {
    /// Before each step: an order, where nothing is under way, begins the comparison; what would wait for
    /// the verdict, and what ends the comparison otherwise, ends it.
    pub(super) fn before(twin: &mut Option<Self>, subject: &Subject, now: Time, event: Event) {
        let arbiter = subject.arbiter();
        let is_idle = !arbiter.is_reloading()
            && !arbiter.is_upgrading()
            && !arbiter.is_stopping()
            && subject.next_deadline().is_none_or(|at| at > now);
        let deaf = match event {
            Event::Ordered(Order::Reload) => Deaf::ToReload,
            Event::Ordered(Order::Upgrade) => Deaf::ToUpgrade,
            Event::Ordered(Order::Drain | Order::Stop) | Event::TakenOver => {
                *twin = None;
                return;
            }
            Event::Loaded { .. }
            | Event::LoadFailed { .. }
            | Event::LoadUnneeded { .. }
            | Event::Ordered(Order::Reopen | Order::ScaleBy(_) | Order::ScaleTo(_))
            | Event::Started
            | Event::Ready { .. }
            | Event::Heartbeat { .. }
            | Event::RecycleDue { .. }
            | Event::MemoryRead { .. }
            | Event::SpawnFailed { .. }
            | Event::Exited { .. }
            | Event::HelperEnded { .. }
            | Event::StraysCounted { .. }
            | Event::Watched { .. }
            | Event::Probed { .. }
            | Event::SuccessorReady
            | Event::SuccessorEnded { .. }
            | Event::PredecessorGone
            | Event::Tick => return,
        };
        *twin = is_idle.then(|| Self { deaf, subject: subject.clone() });
    }

    /// After each step.
    pub(super) fn after(
        twin: &mut Option<Self>,
        subject: &Subject,
        now: Time,
        event: Event,
        actions: &[Action],
    ) -> Verdict {
        let Some(Self { deaf, subject: other }) = twin else { return Ok(()) };
        let deaf = *deaf;
        let mut wanted = Vec::new();
        other.step(now, if deaf.is_about(event) { Event::Tick } else { event }, &mut wanted);
        let rolls = |it: &Action| matches!(it, Action::Notify(Notice::Rolling { .. }));
        if subject.arbiter().is_stopping() || actions.iter().any(rolls) {
            *twin = None;
            return Ok(());
        }
        let others: Vec<_> = actions.iter().copied().filter(|it| !deaf.is_of(it)).collect();
        let is_over = match deaf {
            Deaf::ToReload => actions.iter().any(is_refusal),
            Deaf::ToUpgrade => !subject.arbiter().is_upgrading(),
        };
        let is_same = !is_over || other.arbiter() == subject.arbiter();
        let (one, other) = (subject.arbiter(), other.arbiter());
        match deaf {
            Deaf::ToReload => {
                hold!(15, others == wanted, "{others:?}, and without a reload {wanted:?}");
                hold!(15, is_same, "refused: {one:?}\nnever heard: {other:?}");
            }
            Deaf::ToUpgrade => {
                hold!(19, others == wanted, "{others:?}, and without an upgrade {wanted:?}");
                hold!(19, is_same, "failed: {one:?}\nnever heard: {other:?}");
            }
        }
        if is_over {
            *twin = None;
        }
        Ok(())
    }
}

impl Deaf {
    fn is_about(self, event: Event) -> bool {
        match self {
            Self::ToReload => {
                matches!(
                    event,
                    Event::Ordered(Order::Reload)
                        | Event::LoadFailed { .. }
                        | Event::LoadUnneeded { .. }
                )
            }
            Self::ToUpgrade => matches!(
                event,
                Event::Ordered(Order::Upgrade)
                    | Event::SuccessorReady
                    | Event::SuccessorEnded { .. }
            ),
        }
    }

    fn is_of(self, action: &Action) -> bool {
        match self {
            Self::ToReload => matches!(
                action,
                Action::Load { .. }
                    | Action::AbandonLoad
                    | Action::Notify(
                        Notice::Loading { .. }
                            | Notice::LoadRefused { .. }
                            | Notice::LoadUnneeded { .. }
                    )
            ),
            Self::ToUpgrade => matches!(
                action,
                Action::SpawnSuccessor
                    | Action::CommitUpgrade
                    | Action::StopSuccessor
                    | Action::KillSuccessor
                    | Action::Notify(Notice::Upgrading | Notice::UpgradeFailed { .. })
            ),
        }
    }
}

fn is_refusal(action: &Action) -> bool {
    matches!(action, Action::Notify(Notice::LoadRefused { .. } | Notice::LoadUnneeded { .. }))
}
