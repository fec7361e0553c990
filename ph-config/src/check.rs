//! What several settings must agree on.
//!
//! A problem is put where the operator can act: at the stronger origin of the two, a flag before a
//! variable, that before a line, and a line before a default.

use crate::error::{Origin, Place, Problem, Report, nearest, shown};
use crate::own_files::{OwnFile, Whereabouts};
use crate::settings::Settings;
use crate::value::{Amount, Bind, ProbeTarget, WorkerClass, WorkerCount};

/// Reports everything that does not fit together; `configuration` is where the files of the
/// configuration are.
pub(crate) fn together(settings: &Settings, configuration: &[Whereabouts], report: &mut Report) {
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
    let is_none = |amount| matches!(amount, Amount::Count(0) | Amount::Percent(0));
    if is_none(settings.reload_surge) && is_none(settings.max_unavailable) {
        let message = "expected one worker more or one fewer in a roll, got 0 of both".to_owned();
        let mend =
            "set reload_surge = 1 or, if two workers cannot be there at once, max_unavailable = 1";
        report.error(disagree(settings, ["reload_surge", "max_unavailable"], message, mend));
    }
    own_probe(settings, report);
    one_group(settings, report);
    one_number_of_connections(settings, report);
    class_of_command(settings, report);
    name_of_default_pidfile(settings, report);
    separate_files(settings, configuration, report);
}

/// So many slots are looked at.
const PROBED_SLOTS: u32 = 64;

/// Whoever answers at a listener that all workers share, it need not be the worker that is probed.
fn own_probe(settings: &Settings, report: &mut Report) {
    // All slots that any order can ask for, as far as it makes a difference.
    let slots = 0..settings.max_workers.min(PROBED_SLOTS);
    let targets: Vec<_> = slots.map_while(|slot| settings.ready.target(slot, 1)).collect();
    let is_any = |host: &str| ["0.0.0.0", "::"].contains(&host);
    let is_local = |host: &str| {
        let address = host.parse::<std::net::IpAddr>();
        host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|it| it.is_loopback())
    };
    let is_shared = |bind: &&Bind| match bind {
        Bind::Tcp { host, port } => {
            let is_host = |target: &ProbeTarget| {
                host.as_deref().is_none_or(|host| {
                    is_any(host)
                        || host.eq_ignore_ascii_case(&target.host)
                        || (is_local(host) && is_local(&target.host))
                })
            };
            targets.iter().any(|target| *port == target.port && is_host(target))
        }
        Bind::Unix(_) | Bind::Descriptor(_) | Bind::Named(_) => false,
    };
    if let Some(shared) = settings.bind.iter().find(is_shared) {
        let message =
            format!("expected an address of each worker's own to probe, got {shared} of bind");
        let mend = "let each worker answer at a port of its own, as 80%(slot)s, or use notify";
        report.error(disagree(settings, ["ready", "bind"], message, mend));
    }
}

/// What a section depends on is another section that is there.
pub(crate) fn dependencies(settings: &Settings, sections: &[String], report: &mut Report) {
    for wanted in &settings.depends_on {
        let (message, mend) = if wanted == settings.name() {
            let message = format!("expected other sections, got {} itself", shown(wanted));
            (message, "take it out of depends_on".to_owned())
        } else if sections.contains(wanted) {
            continue;
        } else {
            let near = nearest(wanted, sections.iter().map(String::as_str));
            let mend = near.map_or_else(
                || "name a section of this configuration".to_owned(),
                |near| format!("did you mean {}?", shown(near)),
            );
            (format!("expected sections that are there, got {}", shown(wanted)), mend)
        };
        report.error(disagree(settings, ["depends_on"; 2], message, &mend));
    }
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

fn one_number_of_connections(settings: &Settings, report: &mut Report) {
    if let (Some(first), Some(second)) = (settings.worker_connections, settings.max_greenlets)
        && first != second
    {
        let message = format!("expected one number, got {first} and, as max_greenlets, {second}");
        let keys = ["worker_connections", "max_greenlets"];
        report.error(disagree(settings, keys, message, "take out max_greenlets"));
    }
}

/// A command is not made by the program, whatever it has of its own.
fn class_of_command(settings: &Settings, report: &mut Report) {
    if let Some(class) = settings.worker_class
        && class != WorkerClass::Command
        && !settings.command.is_empty()
    {
        let message = format!("expected worker_class = command, as there is one, got {class}");
        let mend = "take out command, or worker_class";
        report.error(disagree(settings, ["worker_class", "command"], message, mend));
    }
}

fn name_of_default_pidfile(settings: &Settings, report: &mut Report) {
    if settings.origin("pidfile") == Origin::Default && settings.name().contains('/') {
        let message =
            format!("expected a file name in the section, got {}", shown(settings.name()));
        report.error(disagree(settings, ["pidfile"; 2], message, "set pidfile"));
    }
}

/// What the service writes is neither another of its files nor one that it reads: it would overwrite
/// it, or delete it when it stops. `configuration` is where the files of the configuration are.
fn separate_files(settings: &Settings, configuration: &[Whereabouts], report: &mut Report) {
    let mut known: Vec<(Whereabouts, String, &str)> = Vec::new();
    let instances = (!settings.single_instance).then(|| {
        let own_lock = settings.own_files().into_iter().find(|it| it.what == "lock file");
        own_lock.map(|lock| Whereabouts::of(&lock.path))
    });
    let instances = instances.flatten();
    let variables = settings.env_file.iter().flat_map(|file| Whereabouts::all_of(&file.path));
    let variables: Vec<_> = variables.collect();
    for OwnFile { what, key, path } in settings.own_files() {
        let place = Whereabouts::of(&path);
        let name = match what {
            "lock file" | "new pidfile" => format!("the {what} of {key}"),
            "control socket" if key == "pidfile" => format!("the {what} of {key}"),
            _ => key.to_owned(),
        };
        let is_of_instance = || {
            let first = place.lock_of_first_instance();
            key != "pidfile" && first.is_some() && first == instances
        };
        // A log is written where it is, under whatever name; all else gets a new file.
        let written = match key {
            "log_file" | "worker_log_file" => Whereabouts::all_of(&path),
            _ => vec![place.clone()],
        };
        let is_among = |known: &[Whereabouts]| written.iter().any(|place| known.contains(place));
        let other = if is_among(configuration) {
            Some(("the configuration", key, format!("give {key} another path")))
        } else if is_among(&variables) {
            Some(("env_file", "env_file", format!("give {key} another path")))
        } else if is_of_instance() {
            let mend = format!("give {key} another path, or set single_instance = true");
            Some(("another instance of pidfile", "pidfile", mend))
        } else {
            let before = known.iter().find(|(before, ..)| *before == place);
            let mend = "give one of them another path".to_owned();
            before.map(|(_, name, key)| (name.as_str(), *key, mend))
        };
        if let Some((other, other_key, mend)) = other {
            let text = shown(&path.to_string_lossy());
            let message = format!("expected different files, got {text} for {other} and {name}");
            report.error(disagree(settings, [other_key, key], message, &mend));
        }
        known.push((place, name, key));
    }
}

pub(crate) fn disagree(
    settings: &Settings,
    keys: [&str; 2],
    message: String,
    mend: &str,
) -> Problem {
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
