//! Process titles, as `ps` shows them.
//!
//! The title is written over the strings the kernel put on the stack for argv, and never beyond
//! them, so `/proc/PID/environ` stays what the operator set. A title longer than argv is cut. From
//! then on `std::env::args` of this process shows the title too: whoever wants the arguments takes
//! them before.

use std::ffi::CString;
use std::sync::OnceLock;

/// Where argv's strings are: start and length.
static ARGV: OnceLock<Option<(usize, usize)>> = OnceLock::new();

/// Finds argv. The master does this once; its children inherit the answer.
pub(crate) fn prepare() {
    ARGV.get_or_init(|| argv_range(&std::fs::read_to_string("/proc/self/stat").ok()?));
}

/// Sets the title, and the short name that `top` and `killall` use.
pub(crate) fn set(title: &str) {
    if let Ok(name) = CString::new(title.as_bytes()) {
        // The kernel cuts it to 15 bytes; a refused name is not worth a word.
        let _ = nix::sys::prctl::set_name(&name);
    }
    let Some((start, length)) = ARGV.get().copied().flatten() else { return };
    let shown = title.as_bytes();
    let end = (0..=shown.len().min(length - 1)).rev().find(|&at| title.is_char_boundary(at));
    let shown = &shown[..end.unwrap_or(0)];
    let area = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel reported start..start+length as the argv area of this process, it is
    // writable, and single-threaded code (a master, or a child just forked) writes it.
    let area = unsafe { std::slice::from_raw_parts_mut(area, length) };
    // The last byte stays NUL: otherwise the kernel would go on showing the environment behind it.
    area.fill(0);
    area[..shown.len()].copy_from_slice(shown);
}

/// Fields 48 and 49 of /proc/self/stat; the second field may hold blanks and brackets.
fn argv_range(stat: &str) -> Option<(usize, usize)> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(45);
    let start: usize = fields.next()?.parse().ok()?;
    let end: usize = fields.next()?.parse().ok()?;
    let length = end.checked_sub(start)?;
    (start != 0 && length > 1).then_some((start, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argv_is_found_behind_a_hostile_name() {
        let fields: Vec<_> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) (b) c) {}", fields.join(" "));
        assert_eq!(argv_range(&stat), Some((48, 1)).filter(|(_, length)| *length > 1));
        let stat = stat.replace(" 49 ", " 148 ");
        assert_eq!(argv_range(&stat), Some((48, 100)));
        assert_eq!(argv_range("7 (x) 1 2"), None);
    }
}
