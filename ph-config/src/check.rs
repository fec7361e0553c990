//! What several settings must agree on.
//!
//! A problem is put where the operator can act: at the stronger origin of the two, a flag before a
//! variable, that before a line, and a line before a default.

use std::path::Path;

use crate::error::{Origin, Place, Problem, Report, shown};
use crate::settings::Settings;
use crate::value::{Amount, Bind, LogTarget, WorkerCount};

/// Reports everything that does not fit together.
pub(crate) fn together(settings: &Settings, report: &mut Report) {
    if settings.backoff_min > settings.backoff_max {
        let message = format!(
            "expected backoff_min <= backoff_max, got {:?} and {:?}",
            settings.backoff_min, settings.backoff_max
        );
        report.error(disagree(
            settings,
            ["backoff_min", "backoff_max"],
            message,
            "raise backoff_max or lower backoff_min",
        ));
    }
    if settings.min_uptime >= settings.boot_timeout {
        let message = format!(
            "expected min_uptime < boot_timeout, got {:?} and {:?}",
            settings.min_uptime, settings.boot_timeout
        );
        let mend = "raise boot_timeout: a worker may first count as ready after min_uptime";
        report.error(disagree(settings, ["min_uptime", "boot_timeout"], message, mend));
    }
    if let WorkerCount::Fixed(count) = settings.number_workers
        && count > settings.max_workers
    {
        let message = format!(
            "expected number_workers <= max_workers, got {count} and {}",
            settings.max_workers
        );
        let mend = "raise max_workers or lower number_workers";
        report.error(disagree(settings, ["number_workers", "max_workers"], message, mend));
    }
    if matches!(settings.reload_surge, Amount::Count(0) | Amount::Percent(0)) {
        let message = "expected room for at least one new worker, got 0".to_owned();
        report.error(disagree(settings, ["reload_surge"; 2], message, "write 1 or more"));
    }
    one_group(settings, report);
    name_of_default_pidfile(settings, report);
    separate_files(settings, report);
}

/// `user` and `group` can both name the group. A name and an id may mean the same one, but only
/// the host could tell.
fn one_group(settings: &Settings, report: &mut Report) {
    if let Some(user) = &settings.user
        && let (Some(first), Some(second)) = (&user.group, &settings.group)
        && first != second
    {
        let message = format!(
            "expected one group, got {} in user and {} in group",
            shown(&first.to_string()),
            shown(&second.to_string())
        );
        let mend = "name the group once, in user or in group";
        report.error(disagree(settings, ["user", "group"], message, mend));
    }
}

fn name_of_default_pidfile(settings: &Settings, report: &mut Report) {
    if settings.origin("pidfile") == Origin::Default && settings.name().contains('/') {
        let message =
            format!("expected a file name in the section, got {}", shown(settings.name()));
        report.error(disagree(settings, ["pidfile"; 2], message, "set pidfile"));
    }
}

/// Two settings that name one file would overwrite each other.
fn separate_files(settings: &Settings, report: &mut Report) {
    let mut files: Vec<(&'static str, &Path)> = vec![("pidfile", &settings.pidfile)];
    if let LogTarget::File(path) = &settings.log_file {
        files.push(("log_file", path));
    }
    if let Some(path) = &settings.unix_socket {
        files.push(("unix_socket", path));
    }
    for bind in &settings.bind {
        if let Bind::Unix(path) = bind {
            files.push(("bind", path));
        }
    }
    for (index, (key, path)) in files.iter().enumerate() {
        if let Some((other, _)) = files[..index].iter().find(|(_, before)| before == path) {
            let text = shown(&path.to_string_lossy());
            let message = format!("expected different files, got {text} for {other} and {key}");
            report.error(disagree(
                settings,
                [other, key],
                message,
                "give one of them another path",
            ));
        }
    }
}

fn disagree(settings: &Settings, keys: [&str; 2], message: String, mend: &str) -> Problem {
    let strength = |key: &str| match settings.origin(key) {
        Origin::Default => 0,
        Origin::File { .. } => 1,
        Origin::Variable(_) => 2,
        Origin::Flag(_) => 3,
    };
    let [first, second] = keys;
    let key = if strength(second) > strength(first) { second } else { first };
    let place = Place::Value(settings.origin(key));
    Problem::new(place, message, mend).about(settings.name(), key)
}
