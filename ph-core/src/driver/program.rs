//! What a program is, as far as its first bytes tell, and all that the kernel would need to execute it: the
//! interpreters of scripts, which may be scripts themselves, what `env` looks for, and the dynamic linker.
//!
//! The rules are those of the kernel's `binfmt_script` and `binfmt_elf`, and of what `binfmt_misc` was told.
//! Nothing is executed. Programs are read by a child, a bounded time each.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::command::{Command, places};
use super::{elf, formats};
use crate::sys::trial::{self, Use};

/// As much as the kernel reads of a program before it decides what that is.
pub(super) const HEAD: usize = 256;

/// So many interpreters may stand one behind the other.
const DEPTH_AT_MOST: usize = 5;

/// All of that, and what `env` starts anew.
const CHAIN_AT_MOST: usize = 16;

/// What a worker must be able to do for its program to run; the program comes first.
#[derive(Debug)]
pub(super) struct Chain {
    program: PathBuf,
    parts: Vec<Part>,
    is_static: bool,
    /// What the kernel would refuse, and why, that is no question of rights.
    pub(super) fault: Option<(PathBuf, io::Error)>,
}

/// One file that is needed.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) use_of: Use,
    /// What people call it.
    pub(super) name: PathBuf,
    /// Where it may be; the first counts that may be used.
    pub(super) paths: Vec<PathBuf>,
}

impl Chain {
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Whether the program is a binary that needs nothing else.
    pub(super) fn is_static(&self) -> bool {
        self.is_static
    }

    fn add(&mut self, use_of: Use, path: &Path) {
        self.parts.push(Part { use_of, name: path.to_owned(), paths: vec![path.to_owned()] });
    }
}

/// Follows a program to all that is needed to execute it in this directory. `search` is the `PATH` it
/// would have.
pub(super) fn trace(program: PathBuf, directory: Option<&Path>, search: Option<&OsStr>) -> Chain {
    let mut chain =
        Chain { program: program.clone(), parts: Vec::new(), is_static: false, fault: None };
    chain.add(Use::Execute, &program);
    let (mut path, mut depth) = (program.clone(), 0);
    for _ in 0..CHAIN_AT_MOST {
        let Some((interpreter, argument)) = chain.interpreter_of(&path, directory) else {
            return chain;
        };
        depth += 1;
        if depth > DEPTH_AT_MOST {
            break;
        }
        chain.add(Use::Execute, &interpreter);
        let argument = argument.filter(|_| interpreter.file_name() == Some(OsStr::new("env")));
        path = interpreter;
        if let Some(name) = argument.as_deref().and_then(named_to_env) {
            match Command::new([&name]).resolve(directory, search) {
                Ok(found) => path = found,
                Err(error) => {
                    chain.fault = Some((error.path, explain(&name, error.source)));
                    return chain;
                }
            }
            let paths = places(&name, directory, search);
            chain.parts.push(Part { use_of: Use::Execute, name: name.into(), paths });
            depth = 0;
        }
    }
    chain.fault = Some((program, io::Error::from_raw_os_error(libc::ELOOP)));
    chain
}

impl Chain {
    /// What is to interpret the last part, and what it is given besides. `None`: the chain ends here.
    fn interpreter_of(
        &mut self,
        path: &Path,
        directory: Option<&Path>,
    ) -> Option<(PathBuf, Option<OsString>)> {
        let whole = directory.map_or(path.to_owned(), |directory| directory.join(path));
        match kind(&whole) {
            Err(error) => {
                // That it is missing or may not be used is found by the one who has to use it.
                let is_dead = error.kind() == io::ErrorKind::TimedOut;
                let misleading = carriage_return(path, &error);
                let why = if is_dead { Some(error) } else { misleading };
                if let Some(why) = why {
                    self.fault = Some((path.to_owned(), why));
                    self.parts.pop();
                }
                None
            }
            Ok(Kind::Binary { linker }) => {
                self.is_static = linker.is_none() && path == self.program();
                linker.into_iter().for_each(|linker| self.add(Use::Execute, &linker));
                None
            }
            Ok(Kind::Unknown) => None,
            Ok(Kind::NoProgram(why)) => {
                self.fault = Some((path.to_owned(), why));
                None
            }
            Ok(Kind::Registered { interpreter }) => Some((interpreter, None)),
            Ok(Kind::Script { interpreter, argument }) => {
                self.add(Use::Read, path);
                Some((interpreter, argument))
            }
        }
    }
}

/// What misleads most: a file that was written elsewhere.
fn carriage_return(path: &Path, error: &io::Error) -> Option<io::Error> {
    let is_it = path.as_os_str().as_bytes().ends_with(b"\r");
    (is_it && error.kind() == io::ErrorKind::NotFound).then(|| {
        let why = "the first line ends with a carriage return (CR LF), which belongs to the name";
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

/// Why `env` does not find what a first line names.
fn explain(name: &OsStr, error: io::Error) -> io::Error {
    let bytes = name.as_bytes();
    if let Some(error) = carriage_return(Path::new(name), &error) {
        return error;
    }
    if bytes.iter().any(u8::is_ascii_whitespace) && error.kind() == io::ErrorKind::NotFound {
        let why = "all of it is one name to `env` (ENOENT); `env -S` takes it for several words";
        return io::Error::new(io::ErrorKind::InvalidData, why);
    }
    error
}

/// The program that `env` would execute, given what a first line says behind it, in the usual cases.
fn named_to_env(argument: &OsStr) -> Option<OsString> {
    let argument = argument.as_bytes();
    let split =
        [&b"-S"[..], b"--split-string="].into_iter().find_map(|it| argument.strip_prefix(it));
    let name = match split {
        None => argument,
        Some(text) if text.iter().any(|byte| b"\\'\"$#".contains(byte)) => return None,
        Some(text) => {
            let words = text.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty());
            // With another PATH it would look elsewhere.
            let mut words = words.skip_while(|it| it.contains(&b'=') && !it.starts_with(b"PATH="));
            words.next()?
        }
    };
    let is_name = !name.starts_with(b"-") && !name.contains(&b'=') && !name.is_empty();
    is_name.then(|| OsStr::from_bytes(name).to_owned())
}

/// What a program is.
#[derive(Debug)]
pub(super) enum Kind {
    /// In the kernel's own format, perhaps for a dynamic linker.
    Binary { linker: Option<PathBuf> },
    /// The first line names an interpreter, and what that is given besides; nothing if it is cut off.
    Script { interpreter: PathBuf, argument: Option<OsString> },
    /// In a format that the kernel was told of.
    Registered { interpreter: PathBuf },
    /// Neither; why not.
    NoProgram(io::Error),
    /// It may be executed, or not.
    Unknown,
}

/// Reads the beginning of a program.
fn kind(path: &Path) -> io::Result<Kind> {
    let answer = trial::ask(|| read_head(path)).map_err(|(_, errno)| io::Error::from(errno))?;
    let answer = answer.ok_or(io::Error::from_raw_os_error(libc::ETIMEDOUT))?;
    let (errno, rest) = answer.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    match i32::from_ne_bytes(*errno) {
        0 => {}
        libc::ENOEXEC => return Ok(no_program("a binary that is cut off")),
        errno => return Err(io::Error::from_raw_os_error(errno)),
    }
    let (head, linker) = rest.split_at(rest.len().min(HEAD));
    let linker = (!linker.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(linker)));
    if let Some(kind) = formats::registered(head, path) {
        return Ok(kind);
    }
    Ok(kind_of(head, linker))
}

/// In the child: an errno, the head filled up with zeros, and the name of the dynamic linker.
fn read_head(path: &Path) -> Vec<u8> {
    let read = || {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        let mut head = Vec::new();
        Read::by_ref(&mut &file).take(HEAD as u64).read_to_end(&mut head)?;
        head.resize(HEAD, 0);
        // A binary that ends before its own table does is none.
        let linker = elf::linker(&file, &head);
        head.extend(linker.map_err(|_| io::Error::from_raw_os_error(libc::ENOEXEC))?);
        io::Result::Ok(head)
    };
    match read() {
        Ok(head) => [&0_i32.to_ne_bytes()[..], &head].concat(),
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes().to_vec(),
    }
}

/// What is behind the end of the file counts as zeros.
fn kind_of(head: &[u8], linker: Option<PathBuf>) -> Kind {
    if head.starts_with(b"\x7fELF") {
        let own = trial::ask(|| read_head(Path::new("/proc/self/exe"))).ok().flatten();
        return match elf::judge(head, own.as_deref().and_then(|own| own.get(4..))) {
            elf::Verdict::Own => Kind::Binary { linker },
            elf::Verdict::Perhaps => Kind::Unknown,
            elf::Verdict::Other(why) => no_program(why),
        };
    }
    if !head.starts_with(b"#!") {
        return Kind::NoProgram(io::Error::from_raw_os_error(libc::ENOEXEC));
    }
    script(head)
}

fn no_program(why: &str) -> Kind {
    Kind::NoProgram(io::Error::other(format!("{why} (ENOEXEC)")))
}

/// The first line, as the kernel takes it apart.
fn script(head: &[u8]) -> Kind {
    let is_blank = |byte: &u8| b" \t".contains(byte);
    let is_end = |byte: &u8| b" \t\0".contains(byte);
    let last = head.len().saturating_sub(1);
    let text = head.iter().position(|byte| *byte == 0).unwrap_or(head.len());
    let line_end = head[..text].iter().position(|byte| *byte == b'\n');
    let start = (2..last).find(|at| !is_blank(&head[*at]));
    let Some(start) = start.filter(|at| line_end.is_none_or(|end| *at < end) && head[*at] != 0)
    else {
        return no_program("its first line names no interpreter");
    };
    let is_whole = line_end.is_some() || text < head.len();
    let mut end = line_end.unwrap_or(last);
    if line_end.is_none() && !head[start..last].iter().any(is_end) {
        return no_program("its first line is longer than the 256 bytes that the kernel reads");
    }
    while is_blank(&head[end - 1]) {
        end -= 1;
    }
    let name_end = (start..end).find(|at| is_end(&head[*at])).unwrap_or(end);
    let interpreter = PathBuf::from(OsStr::from_bytes(&head[start..name_end]));
    let argument = (name_end..end).find(|at| !is_blank(&head[*at])).map(|at| &head[at..end]);
    let argument = argument.and_then(|it| it.split(|byte| *byte == 0).next());
    let argument = argument.filter(|it| !it.is_empty() && is_whole && head[name_end] != 0);
    Kind::Script { interpreter, argument: argument.map(|it| OsString::from_vec(it.to_vec())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &[u8]) -> String {
        let mut head = text.to_vec();
        head.resize(HEAD, 0);
        match kind_of(&head, None) {
            Kind::Script { interpreter, argument } => {
                let argument = argument.unwrap_or_default();
                format!("{}|{}", interpreter.display(), argument.display())
            }
            Kind::NoProgram(why) => format!("no: {why}"),
            Kind::Binary { .. } | Kind::Registered { .. } | Kind::Unknown => "no text".to_owned(),
        }
    }

    #[test]
    fn a_first_line_is_taken_apart_as_the_kernel_does() {
        let blanks = " ".repeat(300);
        for (text, wanted) in [
            (&b"#!/bin/sh"[..], "/bin/sh|"),
            (b"#! /bin/sh -e\nls", "/bin/sh|-e"),
            (b"#!\t/bin/sh  -e -x \nls", "/bin/sh|-e -x"),
            (b"#!/bin/sh\0zzz\n", "/bin/sh|"),
            (b"#!/bin/sh -e\0zzz\n", "/bin/sh|-e"),
            (b"#!/bin/sh\r\n", "/bin/sh\r|"),
            (b"#!/bin/sh\x0b\n", "/bin/sh\x0b|"),
            (b"#!bin/sh\n", "bin/sh|"),
            (format!("#!/bin/sh -e{blanks}\n").as_bytes(), "/bin/sh|"),
        ] {
            assert_eq!(shown(text), wanted, "{:?}", String::from_utf8_lossy(text));
        }
        let long = format!("#!/{}\n", "x".repeat(300));
        for text in [&b""[..], b"\x01\x02", b"ls", b"#!", b"#! \nls", long.as_bytes()] {
            let said = shown(text);
            assert!(said.starts_with("no: "), "{said}");
        }
        assert!(shown(long.as_bytes()).contains("256 bytes"));
    }

    #[test]
    fn what_env_would_look_for_is_known_in_the_usual_cases() {
        for (argument, wanted) in [
            ("python3", Some("python3")),
            ("sh -e", Some("sh -e")),
            ("-S python3 -u", Some("python3")),
            ("-Spython3 -u", Some("python3")),
            ("--split-string=python3 -u", Some("python3")),
            ("-S A=1 python3", Some("python3")),
            ("-S PATH=/x python3", None),
            ("-S 'python3'", None),
            ("-S -i python3", None),
            ("-i", None),
            ("A=1", None),
            ("-S", None),
        ] {
            let named = named_to_env(OsStr::new(argument));
            assert_eq!(named.as_deref(), wanted.map(OsStr::new), "{argument}");
        }
    }

    #[test]
    fn misleading_names_are_explained() {
        let missing = || io::Error::from_raw_os_error(libc::ENOENT);
        let explained = |name: &str| explain(OsStr::new(name), missing()).to_string();
        assert!(explained("sh\r").contains("carriage return"));
        assert!(explained("sh -e").contains("env -S"));
        assert_eq!(explained("sh"), missing().to_string());
    }
}
