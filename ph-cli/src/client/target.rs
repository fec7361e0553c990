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
        assert_eq!(read("web"), Some(("web".to_owned(), None, None)));
        assert_eq!(read("web@2"), Some(("web".to_owned(), Some(2), None)));
        assert_eq!(read("web#0"), Some(("web".to_owned(), None, Some(0))));
        assert_eq!(read("web@2#7"), Some(("web".to_owned(), Some(2), Some(7))));
        for bad in ["", "@1", "#1", "web@", "web#", "web@0", "web@x", "web#-1", "web#1@2"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
