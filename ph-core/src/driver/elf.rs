//! What of a binary's headers decides whether this kernel executes it: for which machine it is, and which
//! dynamic linker it asks for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Places and values of elf.h.
const CLASS: usize = 4;
const DATA: usize = 5;
const CLASS_64: u8 = 2;
const ET_EXEC: u64 = 2;
const ET_DYN: u64 = 3;
const PT_INTERP: u64 = 3;

/// The kernel takes no more of program headers than this, and no longer name.
const HEADERS_AT_MOST: u64 = 1 << 16;
const NAME_AT_MOST: u64 = 4096;

/// Machines that may execute one another's binaries, if the kernel was built so: x86-64 and i386, AArch64
/// and Arm, PowerPC of 64 and 32 bits, and those that differ in their word alone.
const RELATED: [(u64, u64); 3] = [(62, 3), (183, 40), (21, 20)];

/// Whether a binary can be executed here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Own,
    Perhaps,
    Other(&'static str),
}

/// Compares a binary's header with that of this program.
pub(super) fn judge(head: &[u8], own: Option<&[u8]>) -> Verdict {
    let header = Header(head);
    if !is_native(head) {
        return Verdict::Other("a binary of another byte order");
    }
    if ![ET_EXEC, ET_DYN].contains(&header.number(16, 2)) {
        return Verdict::Other("an ELF file that is no program");
    }
    let Some(own) = own else { return Verdict::Perhaps };
    let (theirs, ours) = (header.number(18, 2), Header(own).number(18, 2));
    let is_same_class = head.get(CLASS) == own.get(CLASS);
    match theirs == ours {
        true if is_same_class => Verdict::Own,
        true => Verdict::Perhaps,
        false if RELATED.contains(&(ours, theirs)) || RELATED.contains(&(theirs, ours)) => {
            Verdict::Perhaps
        }
        false => Verdict::Other("a binary for another machine"),
    }
}

fn is_native(head: &[u8]) -> bool {
    let native = if cfg!(target_endian = "little") { 1 } else { 2 };
    head.get(DATA) == Some(&native)
}

/// The name of the dynamic linker that a binary asks for.
pub(super) fn linker(file: &File, head: &[u8]) -> io::Result<Vec<u8>> {
    if !head.starts_with(b"\x7fELF") || !is_native(head) {
        return Ok(Vec::new());
    }
    let header = Header(head);
    let (table, size, count) = match header.is_64() {
        true => (header.number(32, 8), 56, header.number(56, 2)),
        false => (header.number(28, 4), 32, header.number(44, 2)),
    };
    let mut entries = vec![0; usize::try_from((size * count).min(HEADERS_AT_MOST)).unwrap_or(0)];
    file.read_exact_at(&mut entries, table)?;
    for entry in entries.chunks_exact(usize::try_from(size).unwrap_or(usize::MAX)) {
        let numbers = Header(entry);
        let (at, length) = match header.is_64() {
            true => (numbers.number(8, 8), numbers.number(32, 8)),
            false => (numbers.number(4, 4), numbers.number(16, 4)),
        };
        if numbers.number(0, 4) == PT_INTERP {
            let mut name = vec![0; usize::try_from(length.min(NAME_AT_MOST)).unwrap_or(0)];
            file.read_exact_at(&mut name, at)?;
            return Ok(name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec());
        }
    }
    Ok(Vec::new())
}

/// Numbers in this machine's byte order; what is behind the end counts as zeros.
struct Header<'a>(&'a [u8]);

impl Header<'_> {
    fn is_64(&self) -> bool {
        self.0.get(CLASS) == Some(&CLASS_64)
    }

    fn number(&self, at: usize, size: usize) -> u64 {
        let bytes = self.0.get(at..at.saturating_add(size)).unwrap_or_default();
        let add = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
        match cfg!(target_endian = "little") {
            true => bytes.iter().rev().fold(0, add),
            false => bytes.iter().fold(0, add),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_of_this_machine_or_not() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let own = &own[..256];
        let changed = |at: usize, byte: u8| {
            let mut head = own.to_vec();
            head[at] = byte;
            judge(&head, Some(own))
        };
        assert_eq!(judge(own, Some(own)), Verdict::Own);
        assert_eq!(judge(own, None), Verdict::Perhaps);
        assert_eq!(changed(CLASS, 3 - own[CLASS]), Verdict::Perhaps);
        assert!(matches!(changed(DATA, 3 - own[DATA]), Verdict::Other(_)));
        assert!(matches!(judge(b"\x7fELF", Some(own)), Verdict::Other(_)));
        // No machine has this number.
        assert!(matches!(changed(19, 0x7f), Verdict::Other(_)));
        let type_place = if cfg!(target_endian = "little") { 16 } else { 17 };
        assert!(matches!(changed(type_place, 1), Verdict::Other(_)), "an object file");
    }

    #[test]
    fn the_dynamic_linker_of_a_binary_is_found() {
        let shell = std::fs::canonicalize("/bin/sh").unwrap();
        let head = std::fs::read(&shell).unwrap()[..256].to_vec();
        let name = String::from_utf8(linker(&File::open(shell).unwrap(), &head).unwrap()).unwrap();
        assert!(name.is_empty() || std::fs::exists(&name).unwrap(), "{name}");
        let text = File::open("/etc/passwd").unwrap();
        assert!(linker(&text, b"root:x:0:0").unwrap().is_empty());
    }
}
