//! Numbered lines of several processes, and the judgement over all files they ended up in.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use flate2::read::GzDecoder;
use ph_log::{RotateLimits, RotatingFile};
use ruzstd::decoding::StreamingDecoder;

/// Limits by which nothing is ever deleted.
pub(crate) fn limits(max_size: u64) -> RotateLimits {
    let max_size = Some(max_size);
    RotateLimits { max_size, backups: 1_000_000, ..RotateLimits::default() }
}

/// The lines of one process in batches, each acknowledged in a pipe once it was written.
pub(crate) struct Author {
    process: u32,
    next: u32,
    acknowledge: fs::File,
}

impl Author {
    pub(crate) fn new(process: u32, acknowledge: OwnedFd) -> Author {
        Author { process, next: 0, acknowledge: fs::File::from(acknowledge) }
    }

    /// Writes so many lines more, 1 to 60 at a time.
    pub(crate) fn write(&mut self, log: &mut RotatingFile, lines: u32) {
        let end = self.next + lines;
        while self.next < end {
            let size = 1 + (self.next.wrapping_mul(2_654_435_761) >> 16) % 60;
            let until = end.min(self.next + size);
            let batch: String = (self.next..until).map(|n| line(self.process, n)).collect();
            let written = log.write_batch(batch.as_bytes());
            assert_eq!(written.lost, 0, "{:?}", written.notice);
            self.next = until;
            self.acknowledge.write_all(&until.to_ne_bytes()).expect("a reader");
        }
    }
}

/// What a process acknowledged last: so many lines of it must be there.
pub(crate) fn acknowledged(pipe: OwnedFd) -> u32 {
    let mut bytes = Vec::new();
    fs::File::from(pipe).read_to_end(&mut bytes).expect("a pipe");
    let last = bytes.chunks_exact(4).last();
    last.map_or(0, |bytes| u32::from_ne_bytes(bytes.try_into().expect("four bytes")))
}

pub(crate) fn line(process: u32, number: u32) -> String {
    format!("p={process:03} n={number:08} {:=<width$} end\n", "", width = (number % 50) as usize)
}

/// What a file of this name holds.
pub(crate) fn unpack(name: &str, bytes: &[u8]) -> io::Result<String> {
    if name.ends_with(".gz") {
        return io::read_to_string(GzDecoder::new(bytes));
    }
    match name.ends_with(".zst") {
        true => io::read_to_string(StreamingDecoder::new(bytes).map_err(io::Error::other)?),
        false => io::read_to_string(bytes),
    }
}

/// What all the files of a log hold.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    /// The numbers of each process's lines, from the oldest file to the youngest.
    numbers: BTreeMap<u32, Vec<u32>>,
    /// What is no line of any process.
    pub(crate) torn: Vec<String>,
    /// The length of every backup and of the log, uncompressed, the oldest first.
    pub(crate) sizes: Vec<usize>,
    pub(crate) packed: usize,
}

impl Trail {
    /// Reads `log` of the folder and its backups.
    pub(crate) fn read(folder: &Path) -> Trail {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).expect("a folder") {
            let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            let Some(rest) = name.strip_prefix("log") else { continue };
            let index =
                rest.trim_start_matches('.').trim_end_matches(".gz").trim_end_matches(".zst");
            files.push((index.parse().unwrap_or(0_u32), name));
        }
        files.sort_by(|a, b| b.cmp(a));
        let mut trail = Trail::default();
        for (at, (index, name)) in files.iter().enumerate() {
            assert!(at == 0 || files[at - 1].0 != *index, "{index} is there twice");
            let bytes = fs::read(folder.join(name)).expect("a file");
            let text = unpack(name, &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            trail.packed += usize::from(name.ends_with(".gz") || name.ends_with(".zst"));
            trail.take(&text);
        }
        trail
    }

    fn take(&mut self, text: &str) {
        self.sizes.push(text.len());
        for found in text.split_inclusive('\n') {
            if found.trim().is_empty() {
                // What was torn and blanked.
                continue;
            }
            // A captured line has a head.
            let text = found.rsplit_once(": ").map_or(found, |(_, text)| text);
            let number = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok();
            match (number(2, 5), number(8, 16)) {
                (Some(process), Some(number)) if line(process, number) == text => {
                    self.numbers.entry(process).or_default().push(number);
                }
                _ => self.torn.push(found.to_owned()),
            }
        }
    }

    /// Takes lines that come again for one.
    pub(crate) fn forget_repeats(&mut self) {
        for numbers in self.numbers.values_mut() {
            let mut seen = 0;
            numbers.retain(|number| {
                *number >= seen && {
                    seen = *number + 1;
                    true
                }
            });
        }
    }

    /// How many lines of a process there are, in whatever order: those of a writer that was stopped
    /// between two files may lie in the older one. They must be the first ones, each once.
    pub(crate) fn found(&self, process: u32) -> u32 {
        let mut numbers = self.numbers.get(&process).cloned().unwrap_or_default();
        numbers.sort_unstable();
        let expected = (0..).zip(&numbers).find(|(expected, number)| expected != *number);
        assert_eq!(expected, None, "process {process}: a line is missing or doubled");
        u32::try_from(numbers.len()).expect("few lines")
    }

    /// How many lines of a process there are. They must be the first ones, each once, in order.
    pub(crate) fn count(&self, process: u32) -> u32 {
        let numbers = self.numbers.get(&process).map_or(&[][..], Vec::as_slice);
        let expected = (0..).zip(numbers).find(|(expected, number)| expected != *number);
        assert_eq!(expected, None, "process {process}: a line is missing, doubled or moved");
        u32::try_from(numbers.len()).expect("few lines")
    }
}
