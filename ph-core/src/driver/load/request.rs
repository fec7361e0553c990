//! How far a reload is to go: what those who order one want, and what the loader is asked.
//!
//! Orders that wait are one reload. It goes as far as the one that wants the most, and never further: who
//! only asks changes nothing, whoever else asks.

/// What a reload asks of whoever reads the configuration.
#[derive(Clone, Debug, Default)]
pub struct LoadRequest {
    note: String,
    depth: Depth,
}

/// How far a reload goes, from the least to the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::driver) enum Depth {
    /// Another configuration is judged; nothing comes of it.
    JudgeIfChanged,
    /// Whatever the configuration is, it is judged; nothing comes of it.
    Judge,
    /// Another configuration is rolled out.
    IfChanged,
    #[default]
    Always,
}

/// How far those who ordered the next reload want it to go; `None`: nobody has ordered one.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::driver) struct PendingLoad(Option<Depth>);

impl PendingLoad {
    /// One more order. Several that wait are one reload, which goes as far as any of them wants, and
    /// no further.
    pub(in crate::driver) fn join(&mut self, only_if_changed: bool, dry_run: bool) {
        let depth = match (dry_run, only_if_changed) {
            (true, true) => Depth::JudgeIfChanged,
            (true, false) => Depth::Judge,
            (false, true) => Depth::IfChanged,
            (false, false) => Depth::Always,
        };
        self.0 = self.0.max(Some(depth));
    }

    /// Whether somebody wants the whole reload, whatever there is to find.
    pub(in crate::driver) fn is_whole(self) -> bool {
        self.0.unwrap_or_default() == Depth::Always
    }

    /// What they want, once it begins; after that it is nobody's wish any more. What nobody has said
    /// more of is a reload.
    pub(in crate::driver) fn take(&mut self) -> Depth {
        self.0.take().unwrap_or_default()
    }
}

impl LoadRequest {
    pub(in crate::driver) fn new(note: String, depth: Depth) -> Self {
        Self { note, depth }
    }

    /// What [`Master::note`](crate::Master::note) said of the configuration that is in force.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Whether nothing is to happen if the configuration is the one that is in force.
    #[must_use]
    pub fn is_only_if_changed(&self) -> bool {
        matches!(self.depth, Depth::JudgeIfChanged | Depth::IfChanged)
    }

    /// Whether the configuration is only to be judged: nothing will come of it.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        matches!(self.depth, Depth::JudgeIfChanged | Depth::Judge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(orders: &[(bool, bool)]) -> Depth {
        let mut pending = PendingLoad::default();
        for (only_if_changed, dry_run) in orders {
            pending.join(*only_if_changed, *dry_run);
        }
        pending.take()
    }

    #[test]
    fn a_reload_goes_as_far_as_somebody_wants_and_no_further() {
        let (always, if_changed, judge) = ((false, false), (true, false), (false, true));
        assert_eq!(joined(&[]), Depth::Always);
        assert_eq!(joined(&[judge, if_changed]), Depth::IfChanged);
        assert_eq!(joined(&[if_changed, judge]), Depth::IfChanged);
        assert_eq!(joined(&[(true, true), judge]), Depth::Judge);
        assert_eq!(joined(&[judge, always, if_changed]), Depth::Always);
    }

    #[test]
    fn what_was_taken_is_nobodys_wish_any_more() {
        let mut pending = PendingLoad::default();
        pending.join(true, true);
        assert_eq!((pending.take(), pending.take()), (Depth::JudgeIfChanged, Depth::Always));
    }
}
