//! What of a service is meant: NAME, NAME@INSTANCE or NAME#SLOT.

use std::str::FromStr;

use crate::exit::Exit;
use crate::failure::Failure;

/// A service, one of its masters, or one of their slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) instance: Option<u32>,
    pub(crate) slot: Option<u32>,
}

impl Target {
    /// What these words mean, each thing once: whatever is part of another target is left out.
    pub(crate) fn all<'a>(words: impl Iterator<Item = &'a String>) -> Result<Vec<Self>, Failure> {
        let all: Vec<Self> = words.map(|word| word.parse()).collect::<Result<_, _>>()?;
        let is_told = |(place, target): &(usize, &Self)| {
            let others = all.iter().enumerate().filter(|(other, _)| other != place);
            let mut wider = others.filter(|(_, other)| other.covers(target));
            // Of two that are the same the first stays.
            wider.any(|(other, wide)| other < *place || !target.covers(wide))
        };
        Ok(all.iter().enumerate().filter(|it| !is_told(it)).map(|(_, it)| it.clone()).collect())
    }

    /// Whether all that another target means is meant by this one.
    fn covers(&self, other: &Self) -> bool {
        let is_in = |part: Option<u32>, of: Option<u32>| of.is_none() || part == of;
        self.name == other.name
            && is_in(other.instance, self.instance)
            && is_in(other.slot, self.slot)
    }

    /// All of a service.
    pub(crate) fn of(name: &str) -> Self {
        Self { name: name.to_owned(), instance: None, slot: None }
    }

    /// Refuses a slot, for verbs that are about whole services.
    pub(crate) fn whole(&self, verb: &str) -> Result<(), Failure> {
        let Some(slot) = self.slot else { return Ok(()) };
        let why = format!("`#{slot}` names one worker, and this verb is about the whole service");
        Err(Failure::new(Exit::Usage, why).attempt(format!("cannot {verb} {}#{slot}", self.name)))
    }
}

impl FromStr for Target {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            let why = format!("{text:?} is no target");
            Failure::new(Exit::Usage, why).remedy("write NAME, NAME@INSTANCE or NAME#SLOT")
        };
        let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
        let (rest, slot) = match text.rsplit_once('#') {
            Some((rest, slot)) => (rest, Some(number(slot)?)),
            None => (text, None),
        };
        let (name, instance) = match rest.rsplit_once('@') {
            Some((name, instance)) => (name, Some(number(instance)?)),
            None => (rest, None),
        };
        if name.is_empty() || instance == Some(0) {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), instance, slot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let read =
            |text: &str| text.parse::<Target>().ok().map(|it| (it.name, it.instance, it.slot));
        let all = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            let all = Target::all(words.iter()).expect("targets");
            all.into_iter().map(|it| (it.name, it.instance, it.slot)).collect::<Vec<_>>()
        };
        let web = |instance, slot| ("web".to_owned(), instance, slot);
        assert_eq!(all(&["web@2", "web", "web#1", "web"]), [web(None, None)]);
        assert_eq!(all(&["web@2", "web@1", "web@2"]), [web(Some(2), None), web(Some(1), None)]);
        assert_eq!(read("web"), Some(("web".to_owned(), None, None)));
        assert_eq!(read("web@2"), Some(("web".to_owned(), Some(2), None)));
        assert_eq!(read("web#0"), Some(("web".to_owned(), None, Some(0))));
        assert_eq!(read("web@2#7"), Some(("web".to_owned(), Some(2), Some(7))));
        for bad in ["", "@1", "#1", "web@", "web#", "web@0", "web@x", "web#-1", "web#1@2"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
