//! The order in which sections are started: by `depends_on`, else as they were given.

use crate::check::disagree;
use crate::error::{ConfigErrors, Report, shown};
use crate::settings::Settings;

/// The places of `sections` in the order in which they are to be started: each after those of them that it
/// depends on, and else in the order given. Sections it depends on that are not among them are left out.
///
/// # Errors
///
/// Sections that depend on each other in a circle, at the last line of it.
pub fn start_order(sections: &[&Settings]) -> Result<Vec<usize>, ConfigErrors> {
    let mut order = Vec::new();
    while order.len() < sections.len() {
        let is_placed = |name: &str| {
            let mut left = sections.iter().enumerate().filter(|(place, _)| !order.contains(place));
            !left.any(|(_, other)| other.name() == name)
        };
        let mut left = (0..sections.len()).filter(|place| !order.contains(place));
        let next = left.find(|place| sections[*place].depends_on.iter().all(|it| is_placed(it)));
        match next {
            Some(place) => order.push(place),
            None => {
                let left: Vec<_> =
                    (0..sections.len()).filter(|place| !order.contains(place)).collect();
                return Err(circle(sections, &left));
            }
        }
    }
    Ok(order)
}

/// Each of those that are left depends on another that is left, so whoever follows that comes round.
fn circle(sections: &[&Settings], left: &[usize]) -> ConfigErrors {
    let next = |place: usize| {
        let wanted = &sections[place].depends_on;
        left.iter().copied().find(|other| wanted.iter().any(|it| it == sections[*other].name()))
    };
    let mut way: Vec<usize> = Vec::new();
    let mut at = left.first().copied();
    while let Some(place) = at.filter(|place| !way.contains(place)) {
        way.push(place);
        at = next(place);
    }
    let start = at.and_then(|place| way.iter().position(|it| *it == place)).unwrap_or(0);
    let way = &way[start..];
    let names: Vec<_> = way.iter().chain(way.first()).map(|it| sections[*it].name()).collect();
    let message = format!("expected no circle, got {}", shown(&names.join(" -> ")));
    let Some(last) = way.last() else { return ConfigErrors(Vec::new()) };
    let problem = disagree(
        sections[*last],
        ["depends_on"; 2],
        message,
        "let one of them be started without the next",
    );
    Report::default().give_up(problem)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::Source;

    /// The sections in the order in which they are started.
    fn ordered(text: &str) -> Result<String, String> {
        let mut file = tempfile::Builder::new().suffix(".ini").tempfile().expect("a file");
        write!(file, "{text}").expect("written");
        let source = Source { file: Some(file.path()), ..Source::new(std::path::Path::new("/")) };
        let configuration = source.read().expect("a configuration");
        let load = |name: &String| configuration.load(Some(name), &[]).map(|it| it.settings);
        let all: Result<Vec<_>, _> = configuration.sections().iter().map(load).collect();
        let all = all.map_err(|error| error.to_string())?;
        let all: Vec<_> = all.iter().collect();
        let order = start_order(&all).map_err(|error| error.to_string())?;
        Ok(order.into_iter().map(|place| all[place].name()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_comes_after_what_it_depends_on_and_else_as_in_the_file() {
        assert_eq!(ordered("[c]\n[a]\n[b]\n"), Ok("c a b".to_owned()));
        let text = "[web]\ndepends_on = cache, db\n[cache]\ndepends_on = db\n[log]\n[db]\n";
        assert_eq!(ordered(text), Ok("log db cache web".to_owned()));
    }

    #[test]
    fn a_circle_and_a_section_that_is_not_there_are_refused_at_their_lines() {
        let text = "[x]\ndepends_on = a\n[a]\ndepends_on = b\n[b]\ndepends_on = a\n";
        let error = ordered(text).unwrap_err();
        assert!(error.contains(":6: [b] depends_on") && error.contains("a -> b -> a"), "{error}");
        let error = ordered("[web]\ndepends_on = dv\n[db]\n").unwrap_err();
        assert!(error.contains("dv") && error.contains("did you mean"), "{error}");
        let error = ordered("[web]\ndepends_on = web\n").unwrap_err();
        assert!(error.contains("itself"), "{error}");
    }
}
