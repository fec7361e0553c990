//! Formats that the kernel was told of while it ran: an interpreter for files of some first bytes, or of some
//! ending (binfmt_misc).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::program::Kind;

/// Each format has a file here, beside two that are always there.
const FORMATS: &str = "/proc/sys/fs/binfmt_misc";
const ALWAYS_THERE: [&str; 2] = ["register", "status"];

/// How many formats are looked at.
const FORMATS_AT_MOST: usize = 1024;

/// What a registered format makes of a program. Those come before the kernel's own.
pub(super) fn registered(head: &[u8], path: &Path) -> Option<Kind> {
    let status = std::fs::read_to_string(Path::new(FORMATS).join("status")).ok()?;
    let entries = std::fs::read_dir(FORMATS).ok().filter(|_| status.trim() == "enabled")?;
    let names = entries.take(FORMATS_AT_MOST).filter_map(|it| Some(it.ok()?.file_name()));
    let names = names.filter(|name| ALWAYS_THERE.iter().all(|it| OsStr::new(it) != name));
    let texts = names.filter_map(|it| std::fs::read_to_string(Path::new(FORMATS).join(it)).ok());
    texts.filter_map(|text| Format::parse(&text)).find(|it| it.is_of(head, path)).map(Format::kind)
}

/// One format, as its file describes it.
#[derive(Debug, Default)]
struct Format {
    interpreter: PathBuf,
    /// The kernel holds the interpreter open, wherever it was found.
    is_held: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
    extension: Option<String>,
}

impl Format {
    fn parse(text: &str) -> Option<Self> {
        let mut format = Self::default();
        let mut lines = text.lines();
        (lines.next()? == "enabled").then_some(())?;
        for line in lines {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            match name {
                "interpreter" => format.interpreter = value.into(),
                "flags:" => format.is_held = value.contains('F'),
                "offset" => format.offset = value.parse().ok()?,
                "magic" => format.magic = bytes(value)?,
                "mask" => format.mask = bytes(value)?,
                "extension" => format.extension = Some(value.trim_start_matches('.').to_owned()),
                _ => {}
            }
        }
        Some(format)
    }

    fn is_of(&self, head: &[u8], path: &Path) -> bool {
        if let Some(extension) = &self.extension {
            let name = path.as_os_str().as_bytes();
            let own =
                name.rsplitn(2, |byte| *byte == b'.').next().filter(|it| it.len() < name.len());
            return own == Some(extension.as_bytes());
        }
        let there = head.get(self.offset..).unwrap_or_default();
        let masks = self.mask.iter().copied().chain(std::iter::repeat(0xff));
        let mut pairs = self.magic.iter().zip(there).zip(masks);
        let is_long_enough = !self.magic.is_empty() && there.len() >= self.magic.len();
        is_long_enough && pairs.all(|((magic, byte), mask)| (magic ^ byte) & mask == 0)
    }

    fn kind(self) -> Kind {
        match self.is_held {
            true => Kind::Unknown,
            false => Kind::Registered { interpreter: self.interpreter },
        }
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_known_by_its_first_bytes_or_its_ending() {
        let text = "enabled\ninterpreter /bin/run\nflags: OCF\noffset 2\nmagic 7f41\nmask fff0\n";
        let format = Format::parse(text).unwrap();
        assert!(format.is_held);
        for (head, wanted) in [(&b"xx\x7fA"[..], true), (b"xx\x7fO", true), (b"\x7fA", false)] {
            assert_eq!(format.is_of(head, Path::new("/a")), wanted);
        }
        let format =
            Format::parse("enabled\ninterpreter /bin/run\nflags: \nextension .jar\n").unwrap();
        assert!(format.is_of(b"", Path::new("/a.b/c.jar")));
        assert!(!format.is_of(b"", Path::new("/jar")) && !format.is_of(b"", Path::new("/a.jars")));
        assert!(
            matches!(format.kind(), Kind::Registered { interpreter } if interpreter == Path::new("/bin/run"))
        );
        assert!(Format::parse("disabled\ninterpreter /bin/run\n").is_none());
    }
}
