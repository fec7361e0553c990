//! Whether arguments and environment are of a size that `exec` takes: each string for itself, and all of
//! them together, as execve(2) has it under "Limits on size of arguments and environment".

use std::ffi::{OsStr, OsString};
use std::io;

use nix::unistd::{SysconfVar, sysconf};

/// No string may be longer than so many pages, with the NUL byte behind it.
const PAGES_AT_MOST: u64 = 32;

/// All may take a quarter of the stack's limit, but no more than three quarters of its usual size, and
/// always so much.
const USUAL_STACK: u64 = 8 << 20;
const AT_LEAST: u64 = 128 << 10;

/// What keeps a command from getting so much, in the words of a system call that was to prepare it.
pub(super) fn refused(
    path: &OsStr,
    words: &[OsString],
    variables: &[(OsString, OsString)],
    stack: u64,
) -> Option<(&'static str, io::Error)> {
    let most = PAGES_AT_MOST * page_size();
    let of_word = |word: &OsString| word.len() as u64 + 1;
    let of_variable = |(name, value): &(OsString, OsString)| (name.len() + value.len()) as u64 + 2;
    let too_long = |what: &str, size: u64| {
        io::Error::other(format!(
            "{what} takes {size} bytes, and exec takes {most} at most (E2BIG)"
        ))
    };
    if let Some(size) = words.iter().map(of_word).find(|size| *size > most) {
        return Some(("prepare the command", too_long("an argument", size)));
    }
    if let Some(variable) = variables.iter().find(|it| of_variable(it) > most) {
        let what = format!("the variable {}", variable.0.display());
        return Some(("prepare the environment", too_long(&what, of_variable(variable))));
    }
    let pointers = 8 * (words.len() + variables.len()) as u64;
    let strings = words.iter().map(of_word).chain(variables.iter().map(of_variable)).sum::<u64>();
    let (all, room) = (pointers + strings + path.len() as u64 + 1, room(stack));
    (all > room).then(|| {
        let why = format!(
            "arguments and environment take {all} bytes, and exec takes {room} at most under a stack \
             limit of {stack} (E2BIG)"
        );
        ("prepare the command", io::Error::other(why))
    })
}

fn room(stack: u64) -> u64 {
    (stack / 4).clamp(AT_LEAST, USUAL_STACK / 4 * 3)
}

fn page_size() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel is asked too: what it takes is what is said here.
    #[test]
    fn a_string_is_refused_exactly_where_the_kernel_does() {
        let most = usize::try_from(PAGES_AT_MOST * page_size()).unwrap();
        for (length, is_taken) in [(most - 1, true), (most, false)] {
            let word = OsString::from("x".repeat(length));
            let run = std::process::Command::new("true").arg(&word).status();
            assert_eq!(run.is_ok(), is_taken, "the kernel, {length}");
            let words = ["true".into(), word];
            assert_eq!(refused("true".as_ref(), &words, &[], u64::MAX).is_none(), is_taken);
        }
        let variable = |length: usize| [("A".into(), "x".repeat(length).into())];
        assert!(refused("true".as_ref(), &[], &variable(most - 3), u64::MAX).is_none());
        let (call, error) = refused("true".as_ref(), &[], &variable(most - 2), u64::MAX).unwrap();
        assert!(call.contains("environment") && error.to_string().contains("variable A"));
    }

    #[test]
    fn all_strings_together_have_the_room_the_stack_leaves() {
        assert_eq!(room(8 << 20), 2 << 20);
        assert_eq!(room(u64::MAX), 6 << 20);
        assert_eq!(room(0), 128 << 10);
        let words: Vec<_> = (0..3000).map(|_| OsString::from("x".repeat(999))).collect();
        assert!(refused("a".as_ref(), &words, &[], u64::MAX).is_none());
        let error = refused("a".as_ref(), &words, &[], 8 << 20).unwrap().1.to_string();
        assert!(error.contains("2097152") && error.contains("E2BIG"), "{error}");
    }
}
