//! Settings about who workers are and what they may become the conditions of a master.

use std::ffi::{OsStr, OsString};

use ph_core::{Account, AccountError, CpuAffinity, Master, Resource};

use super::{Service, remedies};
use crate::exit::Exit;
use crate::failure::Failure;

/// Every limit there is a setting for: all the kernel looks at.
const RESOURCES: [(&str, Resource); 15] = [
    ("rlimit_as", Resource::RLIMIT_AS),
    ("rlimit_core", Resource::RLIMIT_CORE),
    ("rlimit_cpu", Resource::RLIMIT_CPU),
    ("rlimit_data", Resource::RLIMIT_DATA),
    ("rlimit_fsize", Resource::RLIMIT_FSIZE),
    ("rlimit_memlock", Resource::RLIMIT_MEMLOCK),
    ("rlimit_msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("rlimit_nice", Resource::RLIMIT_NICE),
    ("rlimit_nofile", Resource::RLIMIT_NOFILE),
    ("rlimit_nproc", Resource::RLIMIT_NPROC),
    ("rlimit_rss", Resource::RLIMIT_RSS),
    ("rlimit_rtprio", Resource::RLIMIT_RTPRIO),
    ("rlimit_rttime", Resource::RLIMIT_RTTIME),
    ("rlimit_sigpending", Resource::RLIMIT_SIGPENDING),
    ("rlimit_stack", Resource::RLIMIT_STACK),
];

/// What names the account of the workers.
const KEYS: [&str; 2] = ["user", "group"];

/// Who the workers are to be, if that is said.
pub(super) fn account(service: &Service) -> Result<Option<Account>, Failure> {
    let settings = &service.settings;
    let user = settings.user.as_ref().map(|it| it.user.to_string());
    let group = settings.effective_group().map(ToString::to_string);
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let found = Account::find(user.as_deref(), group.as_deref());
    found.map(Some).map_err(|error| not_found(service, &error, KEYS))
}

/// A group that is not there hides that the user is not there either: what else is wrong with the account.
pub(super) fn hidden_by_group(service: &Service) -> Option<Failure> {
    let user = service.settings.user.as_ref()?.user.to_string();
    match Account::find(Some(&user), Some("0")) {
        Err(error @ AccountError::NoUser(_)) => Some(not_found(service, &error, KEYS)),
        Ok(_)
        | Err(
            AccountError::NoGroup(_) | AccountError::NoEntry(_) | AccountError::Unanswered { .. },
        ) => None,
    }
}

/// Puts a master's workers under the conditions of the settings.
pub(super) fn apply(service: &Service, master: Master, account: Option<Account>) -> Master {
    let settings = &service.settings;
    let mut master = match account {
        None => master,
        Some(account) => master.account(account),
    };
    master = master.umask(settings.umask).clear_env(settings.clear_env);
    for (key, limit) in settings.rlimits() {
        let resource = RESOURCES.iter().find(|(name, _)| *name == key);
        let (_, resource) = resource.expect("a test compares both lists");
        master = master.limit(*resource, limit.soft, limit.hard);
    }
    if let Some(nice) = settings.nice {
        master = master.nice(nice);
    }
    if let Some(score) = settings.oom_score_adj {
        master = master.oom_score_adj(score);
    }
    if let Some(cpus) = &settings.cpu_affinity {
        master = master.cpu_affinity(match cpus {
            ph_config::CpuAffinity::Spread => CpuAffinity::Spread,
            ph_config::CpuAffinity::List(list) => CpuAffinity::List(list.clone()),
        });
    }
    let of_files = settings.file_environment().iter().cloned();
    master
        .environment(of_files)
        .environment_expanded(settings.environment.iter().cloned(), bind_late)
}

/// Fills `%(slot)s` and `%(generation)s` into one word or value.
pub(super) fn bind_late(word: &OsStr, slot: u32, generation: u32) -> OsString {
    match word.to_str() {
        Some(text) => ph_config::bind_late(text, slot, generation.into()).into(),
        None => word.to_owned(),
    }
}

/// There is no such user or group; the keys are those that name them.
pub(super) fn not_found(
    service: &Service,
    error: &AccountError,
    [user_key, group_key]: [&str; 2],
) -> Failure {
    let settings = &service.settings;
    let why = error.to_string();
    match error {
        AccountError::NoGroup(name) => {
            let key = if settings.group.is_some() { group_key } else { user_key };
            service.failure(Exit::Config, &why, key).remedy(format!("getent group {name}"))
        }
        AccountError::NoEntry(uid) => service
            .failure(Exit::Config, &why, user_key)
            .remedy(format!("write the group too: {user_key} = {uid}:GROUP")),
        AccountError::NoUser(name) | AccountError::Unanswered { name, .. } => {
            let key = if settings.user.is_some() { user_key } else { group_key };
            service.failure(Exit::Config, &why, key).remedy(format!("getent passwd {name}"))
        }
    }
}

/// This process may not give its workers that user or group.
fn account_failure(service: &Service, why: &str) -> Failure {
    let key = if service.settings.user.is_some() { "user" } else { "group" };
    let remedy = "start the master as root, or take the line out";
    service.failure(Exit::Failed, why, key).remedy(remedy)
}

/// One of the conditions cannot be had; `ph-core` has tried it once.
pub(super) fn failure(service: &Service, condition: &str, code: Exit, why: &str) -> Failure {
    let settings = &service.settings;
    let key = match condition {
        "account" => return account_failure(service, why),
        "probe" => {
            let remedy = "name a program that the master can execute, with its folder";
            return service.failure(code, why, "ready").remedy(remedy);
        }
        "directory" if settings.directory.is_none() => "base_path".to_owned(),
        other => other.to_lowercase(),
    };
    let failure = service.failure(code, why, &key);
    match condition {
        "directory" if why.contains("ENOENT") => {
            let folder = settings.directory.as_ref().unwrap_or(&settings.base_path);
            failure.remedy(format!("mkdir -p {}", folder.display()))
        }
        "directory" => failure.remedy("make the folder one that the workers' user can enter"),
        "cpu_affinity" => failure.remedy("nproc --all says how many CPUs there are"),
        _ if why.contains("EPERM") || why.contains("EACCES") => {
            failure.remedy(remedies::of_limit(service, condition))
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_of_the_table_of_settings_is_known() {
        let settings = ph_config::SETTINGS.iter().map(|row| row.name);
        let keys: Vec<_> = settings.filter(|name| name.starts_with("rlimit_")).collect();
        let mut known = RESOURCES.map(|(name, _)| name).to_vec();
        known.sort_unstable();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(known, sorted);
    }
}
