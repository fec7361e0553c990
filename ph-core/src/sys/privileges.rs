//! Users and groups: found before any fork, taken on in the child, and given up for good.
//!
//! The order is the only one that works: supplementary groups, group, user, each in all three of its
//! forms (real, effective, saved); then what the kernel says is compared with what was asked for, and
//! the way back is tried, which must fail.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist};

use super::environ::c_string;
use super::setup::{Failure, Step};

/// Who workers are.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Account {
    user: Option<u32>,
    group: u32,
    groups: Vec<u32>,
}

/// Why an account cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// There is no such user.
    #[error("there is no user {0:?}")]
    NoUser(String),
    /// There is no such group.
    #[error("there is no group {0:?}")]
    NoGroup(String),
    /// A number that no entry of the user database gives a group to.
    #[error("user {0} has no entry in the user database, so its group must be named too")]
    NoEntry(u32),
    /// The user database does not answer.
    #[error("the user database cannot be asked for {name:?}: {} ({errno:?})", errno.desc())]
    Unanswered {
        /// Whom it was asked for.
        name: String,
        /// The system's answer.
        errno: Errno,
    },
}

impl Account {
    /// Looks up a user, a group, or both, each by name or number (a name that is all digits is looked
    /// up as a name first, as `chown` does). Without a group the user has its own, and in any case
    /// the supplementary groups the database gives it. Without a user the group alone changes.
    ///
    /// ```
    /// use ph_core::Account;
    ///
    /// assert!(Account::find(Some("root"), None).is_ok());
    /// assert!(Account::find(Some("no such user"), None).is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// Nobody of that name, or a database that does not answer.
    pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Self, AccountError> {
        let group = group.map(find_group).transpose()?;
        let Some(name) = user else {
            let group = group.unwrap_or_else(getegid);
            return Ok(Self::new(None, group, &[group]));
        };
        match (find_user(name)?, group) {
            (Found::Entry(entry), group) => {
                let group = group.unwrap_or(entry.gid);
                let unanswered = |errno| AccountError::Unanswered { name: name.to_owned(), errno };
                let login = c_string(&entry.name).map_err(|_| unanswered(Errno::EINVAL))?;
                let groups = getgrouplist(&login, group).map_err(unanswered)?;
                Ok(Self::new(Some(entry.uid), group, &groups))
            }
            (Found::Number(uid), Some(group)) => Ok(Self::new(Some(uid), group, &[group])),
            (Found::Number(uid), None) => Err(AccountError::NoEntry(uid.as_raw())),
        }
    }

    fn new(user: Option<Uid>, group: Gid, groups: &[Gid]) -> Self {
        let groups = groups.iter().map(|group| group.as_raw()).collect();
        Self { user: user.map(Uid::as_raw), group: group.as_raw(), groups }
    }

    /// What a child has to do to be this account; `None`: nothing, it is already. Whether it may is for
    /// the kernel to say.
    pub(crate) fn ids(&self) -> Option<Ids> {
        let user = self.user.map_or_else(geteuid, Uid::from_raw);
        let group = Gid::from_raw(self.group);
        let is_already = !geteuid().is_root() && user == geteuid() && group == getegid();
        let groups = self.groups.iter().copied().map(Gid::from_raw);
        (!is_already).then(|| Ids { user, group, groups: groups.collect() })
    }
}

impl Account {
    /// Whose files are that belong to this account; without a user that stays who it is.
    pub(crate) fn of_files(&self) -> (Option<Uid>, Gid) {
        (self.user.map(Uid::from_raw), Gid::from_raw(self.group))
    }
}

enum Found {
    Entry(Box<User>),
    Number(Uid),
}

fn find_user(name: &str) -> Result<Found, AccountError> {
    let unanswered = |errno| AccountError::Unanswered { name: name.to_owned(), errno };
    if let Some(entry) = User::from_name(name).map_err(unanswered)? {
        return Ok(Found::Entry(Box::new(entry)));
    }
    let Some(number) = number(name) else { return Err(AccountError::NoUser(name.to_owned())) };
    let uid = Uid::from_raw(number);
    let entry = User::from_uid(uid).map_err(unanswered)?;
    Ok(entry.map_or(Found::Number(uid), |entry| Found::Entry(Box::new(entry))))
}

/// A user by name or number.
pub(crate) fn uid_of(name: &str) -> Result<Uid, AccountError> {
    Ok(match find_user(name)? {
        Found::Entry(entry) => entry.uid,
        Found::Number(uid) => uid,
    })
}

/// A group by name or number.
pub(crate) fn gid_of(name: &str) -> Result<Gid, AccountError> {
    find_group(name)
}

fn find_group(name: &str) -> Result<Gid, AccountError> {
    let unanswered = |errno| AccountError::Unanswered { name: name.to_owned(), errno };
    if let Some(entry) = Group::from_name(name).map_err(unanswered)? {
        return Ok(entry.gid);
    }
    number(name).map(Gid::from_raw).ok_or_else(|| AccountError::NoGroup(name.to_owned()))
}

/// The highest number means "leave it as it is" to the kernel, and is nobody's.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

/// What a child becomes.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    user: Uid,
    group: Gid,
    groups: Vec<Gid>,
}

impl Ids {
    /// Makes a file theirs, so that they can open it again by its name in /proc.
    pub(crate) fn give(&self, fd: impl AsFd) -> nix::Result<()> {
        nix::unistd::fchown(fd, Some(self.user), Some(self.group))
    }

    /// Of the user.
    pub(crate) fn user_number(&self) -> u32 {
        self.user.as_raw()
    }

    /// Becomes them, in a child of one thread. System calls only.
    pub(crate) fn take_on(&self) -> Result<(), Failure> {
        nix::unistd::setgroups(&self.groups).map_err(Failure::of(Step::Groups))?;
        nix::unistd::setresgid(self.group, self.group, self.group)
            .map_err(Failure::of(Step::Group))?;
        nix::unistd::setresuid(self.user, self.user, self.user).map_err(Failure::of(Step::User))?;
        self.verify().map_err(Failure::of(Step::Verify))
    }

    /// What was given up is gone, and cannot be had again.
    fn verify(&self) -> nix::Result<()> {
        let users = nix::unistd::getresuid()?;
        let groups = nix::unistd::getresgid()?;
        let are_users =
            [users.real, users.effective, users.saved].iter().all(|id| *id == self.user);
        let are_groups =
            [groups.real, groups.effective, groups.saved].iter().all(|id| *id == self.group);
        if !are_users || !are_groups {
            return Err(Errno::EPERM);
        }
        // SAFETY: with a size of zero the call only counts, and touches no memory.
        let count = unsafe { libc::getgroups(0, std::ptr::null_mut()) };
        if usize::try_from(count) != Ok(self.groups.len()) {
            return Err(Errno::EPERM);
        }
        let (root, roots_group) = (Uid::from_raw(0), Gid::from_raw(0));
        let is_regained = self.user != root
            && (nix::unistd::setuid(root).is_ok()
                || (self.group != roots_group && nix::unistd::setgid(roots_group).is_ok()));
        if is_regained {
            return Err(Errno::EPERM);
        }
        Ok(())
    }
}
