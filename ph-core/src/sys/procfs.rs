//! What /proc says of processes that need not be children. Whatever has ended meanwhile gives `None`.
//!
//! Only what the kernel knows by itself is read. What it has to fetch from a process's memory, as its
//! environment and its arguments, a hostile process can make it wait for, and the reader with it.

use std::collections::BTreeSet;

use nix::unistd::Pid;

/// One process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) pid: Pid,
    pub(crate) parent: Pid,
    pub(crate) group: Pid,
    pub(crate) session: Pid,
    /// When it started, in clock ticks since the machine did: with the pid, an identity.
    pub(crate) started: u64,
    /// It has ended, and was not reaped.
    pub(crate) is_zombie: bool,
    /// It was killed, or is about to exit.
    pub(crate) is_ending: bool,
}

/// In linux/sched.h.
const PF_EXITING: u64 = 4;

/// The ninth bit of the signals that are pending.
const SIGKILL_PENDING: u64 = 1 << (libc::SIGKILL - 1);

/// What is known of a process.
pub(crate) fn facts(pid: Pid) -> Option<Facts> {
    // The name may hold anything, also what is not UTF-8.
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(pid, &String::from_utf8_lossy(&stat))
}

fn parse(pid: Pid, stat: &str) -> Option<Facts> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let mut id = || fields.next()?.parse().ok().map(Pid::from_raw);
    let (parent, group, session) = (id()?, id()?, id()?);
    let mut number = |skipped| fields.nth(skipped)?.parse::<u64>().ok();
    let (flags, started, pending) = (number(2)?, number(12)?, number(8)?);
    let is_ending = flags & PF_EXITING != 0 || pending & SIGKILL_PENDING != 0;
    Some(Facts { pid, parent, group, session, started, is_zombie, is_ending })
}

/// The memory a process holds by itself, in bytes: its resident set.
pub(crate) fn resident(pid: Pid) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten()?;
    Some(pages.saturating_mul(u64::try_from(page).unwrap_or(4096)))
}

/// How many parents a process is asked for. Trees are not so deep.
const PARENTS_AT_MOST: usize = 64;

/// Whether a process is one of these, or comes from one.
pub(crate) fn comes_from(pid: Pid, ancestors: &[Pid]) -> bool {
    let parent = |pid: &Pid| facts(*pid).map(|facts| facts.parent).filter(|it| it.as_raw() > 0);
    let mut line = std::iter::successors(Some(pid), parent).take(PARENTS_AT_MOST);
    line.any(|pid| ancestors.contains(&pid))
}

/// The short name of a process, for people.
pub(crate) fn name(pid: Pid) -> String {
    let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().escape_debug().to_string()
}

/// All processes this one can see.
pub(crate) fn all() -> Vec<Facts> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| facts(Pid::from_raw(name.parse().ok()?))).collect()
}

/// The processes of a list as the kernel writes it. Those outside of this pid namespace are shown as 0.
pub(crate) fn pids(list: &str) -> impl Iterator<Item = Pid> {
    let numbers = list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    numbers.filter(|number| *number > 0).map(Pid::from_raw)
}

/// The children of a process, of all its threads.
pub(crate) fn children(pid: Pid) -> Vec<Pid> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists.flat_map(|list| pids(&list).collect::<Vec<_>>()).collect()
}

/// Some processes and all below them, at most so many.
pub(crate) fn trees(roots: impl IntoIterator<Item = Pid>, most: usize) -> BTreeSet<Pid> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<_> = roots.into_iter().collect();
    while let Some(pid) = waiting.pop() {
        if found.len() < most && found.insert(pid) {
            waiting.extend(children(pid));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_behind_a_hostile_name() {
        let fields: Vec<_> = (4..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) Z (b) S {}", fields.join(" "));
        let wanted = Facts {
            pid: Pid::from_raw(7),
            parent: Pid::from_raw(4),
            group: Pid::from_raw(5),
            session: Pid::from_raw(6),
            started: 22,
            is_zombie: false,
            // The ninth field is 9, and the thirty-first 31: of the bits that matter none is set.
            is_ending: false,
        };
        assert_eq!(parse(Pid::from_raw(7), &stat), Some(wanted));
        assert_eq!(parse(Pid::from_raw(7), "7 (x) S 1"), None);
    }

    #[test]
    fn this_process_is_there() {
        let own = facts(Pid::this()).unwrap();
        assert_eq!((own.parent, own.is_zombie), (Pid::parent(), false));
        assert!(all().contains(&own));
        assert!(resident(Pid::this()).unwrap() > 100_000);
        assert!(comes_from(Pid::this(), &[Pid::parent()]));
        assert!(!comes_from(Pid::parent(), &[Pid::this()]));
        assert!(trees([Pid::parent()], 4096).contains(&Pid::this()));
    }
}
