//! Compressed files: written whole or not at all, and read as if they were not compressed.
//!
//! Both formats are written by Rust alone. `ruzstd` knows one level, which is about zstd's own
//! first, and takes every error of a file for a bug of its caller; therefore [`Kept`] stands between
//! them.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress};

use super::folder::Folder;
use crate::rotate::{Backup, Names, Packing};

/// Opens a backup for reading, whichever way it is stored. A damaged one is an error here or at the
/// read that comes to the damage.
pub(crate) fn open_backup(
    folder: &Folder,
    names: &Names,
    backup: Backup,
) -> io::Result<Box<dyn Read + Send>> {
    let name = names.backup(backup);
    let file = folder.open_regular(&name, OFlag::O_RDONLY, Mode::empty())?;
    unpack(file, backup.packing)
}

/// What a file holds that is stored this way.
pub(crate) fn unpack(file: File, packing: Option<Packing>) -> io::Result<Box<dyn Read + Send>> {
    Ok(match packing {
        None => Box::new(file),
        Some(Packing::Gzip) => Box::new(GzDecoder::new(file)),
        Some(Packing::Zstd) => {
            let decoder = StreamingDecoder::new(BufReader::new(file));
            Box::new(decoder.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?)
        }
    })
}

/// Writes all of a file into another one, compressed. Returns how long it was.
pub(super) fn pack(source: &File, target: &File, packing: Packing) -> io::Result<u64> {
    match packing {
        Packing::Gzip => {
            let mut encoder = GzEncoder::new(target, flate2::Compression::default());
            let length = io::copy(&mut &*source, &mut encoder)?;
            encoder.finish()?.flush()?;
            Ok(length)
        }
        Packing::Zstd => {
            let (mut from, mut to) = (Kept::new(source), Kept::new(target));
            compress(&mut from, &mut to, CompressionLevel::Fastest);
            from.error.or(to.error).map_or(Ok(from.bytes), Err)
        }
    }
}

/// A file that shows no error: it seems to end, or to take everything, and keeps the first one.
struct Kept<'a> {
    file: &'a File,
    bytes: u64,
    error: Option<io::Error>,
}

impl Kept<'_> {
    fn new(file: &File) -> Kept<'_> {
        Kept { file, bytes: 0, error: None }
    }
}

impl Read for Kept<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.error.is_none() {
            match self.file.read(into) {
                Ok(length) => {
                    self.bytes += length as u64;
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.error = Some(error),
            }
        }
        Ok(0)
    }
}

impl Write for Kept<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.error.is_none() {
            self.error = self.file.write_all(bytes).err();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_or_written_is_an_error_and_nothing_more() {
        let full = File::options().write(true).open("/dev/full").expect("a device");
        let source = tempfile::tempfile().expect("a file");
        (&source).write_all(&b"a line\n".repeat(100_000)).expect("room");
        let folder = File::open("/").expect("a folder");
        for packing in [Packing::Gzip, Packing::Zstd] {
            let target = tempfile::tempfile().expect("a file");
            let error = pack(&folder, &target, packing).expect_err("a folder is no text");
            assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
            io::Seek::rewind(&mut &source).expect("a file");
            let error = pack(&source, &full, packing).expect_err("no room");
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }

    #[test]
    fn a_file_that_was_cut_off_anywhere_is_an_error() {
        let source = tempfile::tempfile().expect("a file");
        let text: String = (0..30_000).map(|n| format!("line {n} {}\n", n * n)).collect();
        (&source).write_all(text.as_bytes()).expect("room");
        for packing in [Packing::Gzip, Packing::Zstd] {
            io::Seek::rewind(&mut &source).expect("a file");
            let target = tempfile::tempfile().expect("a file");
            let length = pack(&source, &target, packing).expect("room");
            assert_eq!(length, text.len() as u64);
            let packed = target.metadata().expect("a file").len();
            let read = || {
                io::Seek::rewind(&mut &target)?;
                io::read_to_string(unpack(target.try_clone()?, Some(packing))?)
            };
            assert_eq!(read().expect("all of it"), text);
            for length in [packed - 1, packed - 5, packed / 2, 3, 0] {
                target.set_len(length).expect("a file");
                read().expect_err("a part");
            }
        }
    }
}
