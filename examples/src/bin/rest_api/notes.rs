//! Notes, each a file of a folder that several processes share.
//!
//! A note is written into a file of its own first and then put in its place by one system call, so that no
//! reader, in whichever process, sees half of one, whenever the writer is killed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest name.
const NAME_AT_MOST: usize = 64;

/// The notes of one folder.
#[derive(Clone, Debug)]
pub(crate) struct Notes(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Nobody else writes into files of this beginning.
    own: String,
    written: AtomicU64,
}

/// The name of a note: small letters, digits, `-` and `_`, so that it is a file's name and nothing more.
#[derive(Clone, Debug)]
pub(crate) struct Name(String);

/// What has become of a note that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Done,
    /// It was to be new, and there is one.
    ThereIsOne,
}

impl Name {
    pub(crate) fn of(text: &str) -> Option<Self> {
        let is_good = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        let fits = (1..=NAME_AT_MOST).contains(&text.len()) && text.bytes().all(is_good);
        fits.then(|| Self(text.to_owned()))
    }
}

impl Notes {
    /// The folder's notes, for the worker of this number.
    pub(crate) fn in_folder(path: impl AsRef<Path>, worker_id: u64) -> Self {
        // Workers of two masters, as in an upgrade, may have the same number.
        let own = format!(".{}-{worker_id}-", std::process::id());
        Self(Arc::new(Folder { path: path.as_ref().into(), own, written: AtomicU64::new(0) }))
    }

    /// Makes the folder, if nobody has.
    pub(crate) fn make_folder(path: impl AsRef<Path>) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    /// The first `limit` names in their order, and whether there are more.
    pub(crate) fn names(&self, limit: usize) -> io::Result<(Vec<String>, bool)> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0.path)? {
            let name = entry?.file_name().into_string().ok();
            names.extend(name.filter(|name| Name::of(name).is_some()));
        }
        names.sort_unstable();
        let has_more = names.len() > limit;
        names.truncate(limit);
        Ok((names, has_more))
    }

    pub(crate) fn read(&self, name: &Name) -> io::Result<Option<Vec<u8>>> {
        found(fs::read(self.path(name)))
    }

    /// Writes a note over the one that is there, or only where there is none.
    pub(crate) fn write(&self, name: &Name, text: &[u8], must_be_new: bool) -> io::Result<Written> {
        let number = self.0.written.fetch_add(1, Ordering::Relaxed);
        let draft = self.0.path.join(format!("{}{number}", self.0.own));
        let written = self.put(&draft, name, text, must_be_new);
        // In its place it has another name; what is left under this one is a draft that came to nothing.
        found(fs::remove_file(&draft))?;
        written
    }

    fn put(
        &self,
        draft: &Path,
        name: &Name,
        text: &[u8],
        must_be_new: bool,
    ) -> io::Result<Written> {
        let mut file = File::create_new(draft)?;
        file.write_all(text)?;
        file.sync_data()?;
        if !must_be_new {
            fs::rename(draft, self.path(name))?;
            return Ok(Written::Done);
        }
        match fs::hard_link(draft, self.path(name)) {
            Ok(()) => Ok(Written::Done),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Written::ThereIsOne),
            Err(error) => Err(error),
        }
    }

    /// Removes a note; says whether there was one.
    pub(crate) fn remove(&self, name: &Name) -> io::Result<bool> {
        Ok(found(fs::remove_file(self.path(name)))?.is_some())
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.0.path.join(&name.0)
    }
}

/// What is not there is no error.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
