//! What all the files of a log hold, by the numbers of their lines.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::ops::AddAssign;
use std::path::Path;

use anyhow::{Context as _, Result};
use xtask::NumberedLine;

/// Files beside a log that hold no lines of it.
const OTHERS: [&str; 2] = ["lock", "state"];

/// What became of the lines that were written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) found: u64,
    pub(super) lost: u64,
    pub(super) duplicate: u64,
    pub(super) torn: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.found += other.found;
        self.lost += other.lost;
        self.duplicate += other.duplicate;
        self.torn += other.torn;
    }
}

impl Count {
    /// Counts the lines in all files of a folder. Each of so many writers has written `lines`; others
    /// may have written some more.
    pub(super) fn of(folder: &Path, writers: usize, lines: usize) -> Result<Count> {
        let mut count = Count::default();
        let mut seen: Vec<Vec<u8>> = vec![Vec::new(); 100];
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !path.is_file() || name.starts_with('.') || OTHERS.contains(&name) {
                continue;
            }
            let file = fs::File::open(&path).with_context(|| format!("read {}", path.display()))?;
            count.read(BufReader::with_capacity(1 << 20, file), &mut seen)?;
        }
        for seen in &seen {
            count.found += seen.iter().map(|&times| u64::from(times.min(1))).sum::<u64>();
            count.duplicate +=
                seen.iter().map(|&times| u64::from(times.saturating_sub(1))).sum::<u64>();
        }
        for seen in seen.iter().take(writers) {
            let found = seen.iter().take(lines).filter(|&&times| times > 0).count();
            count.lost += u64::try_from(lines - found)?;
        }
        Ok(count)
    }

    fn read(&mut self, mut file: BufReader<fs::File>, seen: &mut [Vec<u8>]) -> Result<()> {
        let mut line = Vec::new();
        while file.read_until(b'\n', &mut line)? > 0 {
            let whole = line.strip_suffix(b"\n").and_then(NumberedLine::parse);
            if let Some((writer, number)) = whole {
                let seen = &mut seen[writer];
                if seen.len() <= number {
                    seen.resize(number + 1, 0);
                }
                seen[number] = seen[number].saturating_add(1);
            } else if NumberedLine::is_in(&line) || !line.ends_with(b"\n") {
                self.torn += 1;
            }
            line.clear();
        }
        Ok(())
    }
}
