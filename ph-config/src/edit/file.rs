//! A configuration file on the disk: read, held, replaced as a whole.
//!
//! Whoever reads the file at any moment finds the old text or the new one. The new text goes to a
//! second file in the same folder, reaches the disk, and takes the name; mode, owner and group are
//! those of the old file. A link is followed first, so it stays and what it points at is replaced.
//!
//! From reading to renaming the file is locked. The lock is on the file that had the name when it
//! was taken, so after taking it the name is looked up again: another edit may have put its own
//! file there in between. An editor that knows nothing of the lock is noticed, too, unless it
//! writes in the instant between the last look and the renaming.
//!
//! Limits. A file with hard links is refused, because the other names would keep the old text.
//! Access control lists and extended attributes are not carried over. After `SIGKILL` the second
//! file may stay behind; its name begins with `.ph-edit-`, so that no pattern of `include` that
//! names an ending takes it for a configuration of its own.

use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::OFlag;

use crate::error::{ConfigErrors, Place, Problem, Report, shown};
use crate::read::{MAX_BYTES, Purpose, read};
use crate::trust::ForeignWriters;

/// How often a file that is replaced while it is opened is opened again.
const MAX_TRIES: usize = 32;

const MARK: &str = "\u{feff}";

/// A configuration file that nobody else edits by ph while this value lives.
#[derive(Debug)]
pub struct EditableFile {
    /// The path as it was given.
    given: PathBuf,
    /// The file itself, links followed.
    target: PathBuf,
    /// Carries the lock.
    file: File,
    /// The text without a byte order mark.
    text: String,
    mark: &'static str,
}

impl EditableFile {
    /// Opens the file at `path`, locks it and reads it. It does not wait for a lock.
    ///
    /// # Errors
    ///
    /// If there is no such file, it may not be written, it is not regular, it has hard links, it is
    /// over 1 MiB, not UTF-8 or holds NUL, or somebody else edits it just now.
    pub fn open(path: &Path) -> Result<EditableFile, ConfigErrors> {
        let editing = Editing(path);
        let target = fs::canonicalize(path).map_err(|error| editing.unopened(&error))?;
        let file = lock(&target, editing)?;
        let mark = match starts_with_mark(&file).map_err(|error| editing.unopened(&error))? {
            true => MARK,
            false => "",
        };
        let text = contents(&target, path).map_err(|problem| ConfigErrors(vec![*problem]))?;
        let file = EditableFile { given: path.to_owned(), target, file, text, mark };
        file.still_there()?;
        Ok(file)
    }

    /// The text of the file, without a byte order mark.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Puts `text` in the place of what the file holds, and gives up the lock. A byte order mark
    /// that the file had stays.
    ///
    /// # Errors
    ///
    /// If the text is over 1 MiB, the file was changed since it was opened, its owner cannot be
    /// kept, or its folder cannot be written. Then the file is what it was, and nothing is left
    /// behind.
    pub fn replace(self, text: &str) -> Result<(), ConfigErrors> {
        let editing = Editing(&self.given);
        let text = text.strip_prefix(MARK).unwrap_or(text);
        if (self.mark.len() + text.len()) as u64 > MAX_BYTES || text.contains('\0') {
            let message = format!("expected a text of at most {MAX_BYTES} bytes without NUL");
            return Err(editing.problem(message, "shorten it, or divide the file"));
        }
        let metadata = self.still_there()?;
        let folder = self.target.parent().unwrap_or(Path::new("/"));
        let failed = |what: &str, error: &io::Error| {
            let folder = shown(&folder.to_string_lossy());
            let message = format!("cannot {what} in the folder {folder}: {error}");
            let mend = "give the user that runs this write permission on the folder, and it space";
            editing.problem(message, mend)
        };
        let opened = File::open(folder).map_err(|error| failed("list the files", &error))?;
        let (new, mut file) =
            NewFile::create(folder).map_err(|error| failed("make a file", &error))?;
        let (uid, gid) = (metadata.uid(), metadata.gid());
        keep_owner(&file, uid, gid).map_err(|error| {
            let message = format!("cannot keep the owner {uid}:{gid} of the file: {error}");
            editing.problem(message, "run this as that user, or as root")
        })?;
        file.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777))
            .and_then(|()| file.write_all(self.mark.as_bytes()))
            .and_then(|()| file.write_all(text.as_bytes()))
            .and_then(|()| file.sync_all())
            .map_err(|error| failed("write a file", &error))?;
        // What took long is behind us; this is the last look.
        self.still_there()?;
        new.rename(&self.target).map_err(|error| failed("rename a file", &error))?;
        opened.sync_all().map_err(|error| {
            let message = format!("the new text is in place, but may not outlast a crash: {error}");
            editing.problem(message, "check the file system")
        })
    }

    /// Fails unless the locked file still has the name, and its text.
    fn still_there(&self) -> Result<Metadata, ConfigErrors> {
        let editing = Editing(&self.given);
        let metadata = self.file.metadata().map_err(|error| editing.unopened(&error))?;
        let unchanged = names(&self.target, &metadata)
            && contents(&self.target, &self.given).is_ok_and(|text| text == self.text);
        if !unchanged {
            let message = "expected nobody else to change the file meanwhile, got another text";
            return Err(editing.problem(message, "try again"));
        }
        refuse_links(&metadata, editing)?;
        Ok(metadata)
    }
}

/// The text of the file; who else can write it was judged when the configuration was read.
fn contents(path: &Path, shown: &Path) -> Result<String, Box<Problem>> {
    let accept = ForeignWriters::Accept;
    read(path, shown, &Purpose::CONFIGURATION, accept, &mut Report::default())
}

/// Says what went wrong with the file of this path.
#[derive(Clone, Copy)]
struct Editing<'a>(&'a Path);

impl Editing<'_> {
    fn problem(self, message: impl Into<String>, mend: impl Into<String>) -> ConfigErrors {
        ConfigErrors(vec![Problem::new(Place::File(self.0.to_owned()), message, mend)])
    }

    fn unopened(self, error: &io::Error) -> ConfigErrors {
        let mend = if error.kind() == io::ErrorKind::NotFound {
            "check the path, or write the file"
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            "give the user that runs this read and write permission on the file and its folders"
        } else {
            "check the path and the file system"
        };
        self.problem(format!("cannot edit the configuration: {error}"), mend)
    }
}

/// Opens and locks the file that has this name.
fn lock(target: &Path, editing: Editing<'_>) -> Result<File, ConfigErrors> {
    for _ in 0..MAX_TRIES {
        // Asked before opening as well, because opening a device can do something.
        let metadata = fs::metadata(target).map_err(|error| editing.unopened(&error))?;
        refuse_irregular(&metadata, editing)?;
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let mut options = OpenOptions::new();
        // Opened for writing, so that a file which may only be read is not replaced.
        options.read(true).write(true).custom_flags(flags.bits());
        let file = options.open(target).map_err(|error| editing.unopened(&error))?;
        let metadata = file.metadata().map_err(|error| editing.unopened(&error))?;
        refuse_irregular(&metadata, editing)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy(editing)),
            Err(TryLockError::Error(error)) => return Err(editing.unopened(&error)),
        }
        if names(target, &metadata) {
            refuse_links(&metadata, editing)?;
            return Ok(file);
        }
    }
    Err(busy(editing))
}

fn busy(editing: Editing<'_>) -> ConfigErrors {
    editing.problem("expected to be the only one, got an edit by somebody else", "try again")
}

/// Whether the path leads to this very file.
fn names(path: &Path, file: &Metadata) -> bool {
    fs::symlink_metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == (file.dev(), file.ino()))
}

fn refuse_irregular(metadata: &Metadata, editing: Editing<'_>) -> Result<(), ConfigErrors> {
    let kind = metadata.file_type();
    let got = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "folder"
    } else if kind.is_fifo() {
        "FIFO"
    } else {
        "device or socket"
    };
    let message = format!("expected a regular file, got a {got}");
    Err(editing.problem(message, "name a file that holds the settings"))
}

fn refuse_links(metadata: &Metadata, editing: Editing<'_>) -> Result<(), ConfigErrors> {
    if metadata.nlink() <= 1 {
        return Ok(());
    }
    let message =
        format!("expected a file with one name, got one with {} hard links", metadata.nlink());
    let mend = "an edit would part them: make the others symbolic links, or edit by hand";
    Err(editing.problem(message, mend))
}

fn starts_with_mark(file: &File) -> io::Result<bool> {
    let mut start = Vec::new();
    file.take(MARK.len() as u64).read_to_end(&mut start)?;
    Ok(start == MARK.as_bytes())
}

/// Gives a file that this process made to the owner of another. Nothing is asked of the system
/// that holds already, because an ordinary user may not ask.
fn keep_owner(file: &File, uid: u32, gid: u32) -> io::Result<()> {
    let own = file.metadata()?;
    let uid = (own.uid() != uid).then_some(uid);
    let gid = (own.gid() != gid).then_some(gid);
    if uid.is_none() && gid.is_none() { Ok(()) } else { fchown(file, uid, gid) }
}

/// A file that vanishes unless it gets its name.
struct NewFile {
    path: Option<PathBuf>,
}

impl NewFile {
    fn create(folder: &Path) -> io::Result<(NewFile, File)> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut tries = 0;
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!(".ph-edit-{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok((NewFile { path: Some(path) }, file)),
                // Left behind by an earlier process of this pid.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < MAX_TRIES => {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn rename(mut self, name: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            fs::rename(path, name)?;
            self.path = None;
        }
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // There is nobody left to tell; the error that led here is the one that counts.
            let _ = fs::remove_file(path);
        }
    }
}
