//! Who a worker is: user, group, and the mask for the files it makes.
//!
//! This crate knows no process, so names stay names here: whoever starts the workers looks them
//! up. A number is an id and never looked up, and a name of digits only cannot be written.

use std::fmt;

use super::{Kind, Schema, Shape, ValueError, listed, written};
use crate::error::shown;

/// How long the name of a user or a group may be, in bytes.
const MAX_NAME: usize = 256;
/// How many users and groups `control_allow` may name.
const MAX_ALLOWED: usize = 64;
/// The largest mask: all nine permission bits.
const MAX_UMASK: u32 = 0o777;

pub(crate) const USER: Kind<Option<UserSpec>> = Kind {
    name: "name[:group] or ids",
    shape: Shape::Line,
    schema: Schema::Identity,
    parse: |text, _| if text.is_empty() { Ok(None) } else { user(text).map(Some) },
    write: |user| written(user.as_ref(), UserSpec::to_string),
};

pub(crate) const GROUP: Kind<Option<Id>> = Kind {
    name: "name or id",
    shape: Shape::Line,
    schema: Schema::Identity,
    parse: |text, _| if text.is_empty() { Ok(None) } else { id(text, "group").map(Some) },
    write: |group| written(group.as_ref(), Id::to_string),
};

pub(crate) const ALLOWED: Kind<Vec<Allow>> = Kind {
    name: "list of users and @groups",
    shape: Shape::Lines,
    schema: Schema::List { of: &Schema::Identity, word: None },
    parse: |text, _| allowed(text),
    write: |all| listed(all, Allow::to_string),
};

pub(crate) const UMASK: Kind<u32> = Kind {
    name: "octal number from 0 to 777",
    shape: Shape::Line,
    schema: Schema::Octal { most: MAX_UMASK },
    parse: |text, _| octal(text, "022 or 0o077"),
    write: |mask| format!("{mask:03o}"),
};

/// A user or a group, as it was written.
///
/// Prints in that form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Id {
    /// To be looked up: 1 to 256 bytes without `:`, white space and control characters, neither
    /// beginning with `-` nor made of digits only.
    Name(String),
    /// To be used as it is; never `u32::MAX`, which tells the kernel to leave an id as it is.
    Number(u32),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// Who may use the control socket: `control_allow`.
///
/// Prints in the form it is written in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Allow {
    /// A user.
    User(Id),
    /// All who are in a group, written with a `@` before its name.
    Group(Id),
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => user.fmt(f),
            Self::Group(group) => write!(f, "@{group}"),
        }
    }
}

/// The user of the workers, and perhaps their group: `user`.
///
/// Prints as `user` or `user:group`, the forms it is written in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserSpec {
    /// The user.
    pub user: Id,
    /// The group, where `user` names one.
    /// [`Settings::effective_group`](crate::Settings::effective_group) knows `group` as well.
    pub group: Option<Id>,
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => write!(f, "{}", self.user),
        }
    }
}

fn allowed(text: &str) -> Result<Vec<Allow>, ValueError> {
    let items = text.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty());
    let mut all = Vec::new();
    for item in items {
        if all.len() == MAX_ALLOWED {
            let expected = format!("at most {MAX_ALLOWED} users and groups");
            return Err(ValueError::new(expected, "name a group in their place"));
        }
        all.push(match item.strip_prefix('@') {
            Some(group) => Allow::Group(id(group, "group")?),
            None => Allow::User(id(item, "user")?),
        });
    }
    Ok(all)
}

fn user(text: &str) -> Result<UserSpec, ValueError> {
    let Some((user, group)) = text.split_once(':') else {
        return Ok(UserSpec { user: id(text, "user")?, group: None });
    };
    if user.is_empty() {
        let mend = format!("write a user before the colon; for a group alone, group = {group}");
        return Err(ValueError::new("a user, or user:group", escaped(&mend)));
    }
    if group.is_empty() {
        return Err(ValueError::new("a group after the colon", "name the group, or take out `:`"));
    }
    Ok(UserSpec { user: id(user, "user")?, group: Some(id(group, "group")?) })
}

fn id(text: &str, what: &str) -> Result<Id, ValueError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| *number != u32::MAX).map(Id::Number).ok_or_else(
            || {
                let expected = format!("a {what} id from 0 to {}", u32::MAX - 1);
                ValueError::new(expected, "write the name, or the number that `id` shows")
            },
        );
    }
    let good = |c: char| c != ':' && !c.is_whitespace() && !c.is_control();
    if (1..=MAX_NAME).contains(&text.len()) && !text.starts_with('-') && text.chars().all(good) {
        return Ok(Id::Name(text.to_owned()));
    }
    let expected = format!("the name or the id of a {what} (this has {})", shown(text));
    let mend = format!(
        "use 1 to {MAX_NAME} bytes without colon, white space and control characters, and no `-` \
         at the start"
    );
    Err(ValueError::new(expected, mend))
}

/// Permission bits as in a shell, or with the prefix of TOML and Python.
pub(super) fn octal(text: &str, example: &str) -> Result<u32, ValueError> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mask = u32::from_str_radix(digits, 8).ok().filter(|mask| is_octal && *mask <= MAX_UMASK);
    mask.ok_or_else(|| {
        let mend = format!("write octal digits (0 to 7), for example {example}");
        ValueError::new("an octal number from 0 to 777", mend)
    })
}

/// A mend that repeats foreign text, safe to print.
fn escaped(text: &str) -> String {
    crate::error::Escaped(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Id {
        Id::Name(text.to_owned())
    }

    #[test]
    fn users_and_groups() {
        let read = |text| user(text).ok().map(|spec| (spec.user, spec.group));
        assert_eq!(read("www-data"), Some((name("www-data"), None)));
        assert_eq!(read("www:adm"), Some((name("www"), Some(name("adm")))));
        assert_eq!(read("0:0042"), Some((Id::Number(0), Some(Id::Number(42)))));
        assert_eq!(read("4294967294"), Some((Id::Number(u32::MAX - 1), None)));
        assert_eq!(read("DOM\\user$"), Some((name("DOM\\user$"), None)));
        let longest = "x".repeat(MAX_NAME);
        assert_eq!(read(&longest), Some((name(&longest), None)));
        let long = "x".repeat(MAX_NAME + 1);
        for bad in [
            ":",
            ":a",
            "a:",
            "a:b:c",
            "-1",
            "-a",
            "a b",
            "a\u{a0}b",
            "a\x1b",
            "4294967295",
            "99999999999",
            "a:4294967295",
            "a: b",
            &long,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        for text in ["a", "a:7", "3:b"] {
            assert_eq!(user(text).expect("it is good").to_string(), text);
        }
    }

    #[test]
    fn those_who_are_allowed() {
        let (user, group) = (Allow::User, Allow::Group);
        let wanted = vec![user(name("www")), group(name("adm")), user(Id::Number(7))];
        assert_eq!(allowed("www, @adm,\n 7,"), Ok(wanted));
        assert_eq!(allowed(""), Ok(Vec::new()));
        for bad in ["@", "a b", "a:b", "@@", "-a", &"a,".repeat(MAX_ALLOWED + 1)] {
            assert_eq!(allowed(bad).is_err(), bad != "@@", "{bad}");
        }
    }

    #[test]
    fn masks_are_octal() {
        for (text, mask) in
            [("022", 0o22), ("22", 0o22), ("0", 0), ("0777", 0o777), ("0o022", 0o22)]
        {
            assert_eq!(octal(text, ""), Ok(mask));
        }
        for bad in ["", "8", "0o", "0o8", "0x12", "-1", "+22", "1000", "22 ", "77777777777777"] {
            assert!(octal(bad, "").is_err(), "{bad}");
        }
    }
}
