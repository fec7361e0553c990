//! A configuration file on the disk: read, held, replaced as a whole.
//!
//! Whoever reads the file at any moment finds the old text or the new one. The new text goes to a
//! second file in the same folder, reaches the disk, and takes the name; mode, owner and group are
//! those of the old file. A link is followed first, so it stays and what it points at is replaced.
//!
//! From reading to renaming the file is locked; a lock of somebody else is waited for, some seconds
//! at most. The lock is on the file that had the name when it was taken, so after taking it the
//! name is looked up again: another edit may have put its own file there in between. An editor that knows nothing of the lock is noticed, too, unless it
//! writes in the instant between the last look and the renaming.
//!
//! Limits. A file with hard links is refused, because the other names would keep the old text.
//! Access control lists and extended attributes are not carried over. After `SIGKILL` the second
//! file may stay behind; its name begins with `.ph-edit-`, so that no pattern of `include` that
//! names an ending takes it for a configuration of its own.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::OFlag;
use nix::poll::poll;

use crate::error::{Place, Problem, shown};
use crate::read::{self, MAX_BYTES, Purpose};

/// How often a name is tried that another process of this pid may have left behind.
const MAX_NAMES: usize = 32;
/// How often a file that somebody else has locked, or replaces just now, is opened again: with the
/// pauses between, for about five seconds.
const MAX_TRIES: usize = 250;
/// The pause before the next try, in milliseconds.
const PAUSE: u16 = 20;

const MARK: &str = "\u{feff}";

/// Why a file was not edited.
///
/// Prints as a [`Problem`] of that file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// Somebody else edits the file, or has changed it meanwhile.
    Busy(Box<Problem>),
    /// The user that runs this may not do it.
    Denied(Box<Problem>),
    /// The file, or the text that is to be its new one, is not one that can be edited: it is not
    /// regular, has several names, is too long, not UTF-8 or holds NUL.
    Unfit(Box<Problem>),
    /// The file is not there, or the system failed at it.
    Io(Box<Problem>),
}

impl FileError {
    /// The finding about the file.
    pub fn problem(&self) -> &Problem {
        match self {
            Self::Busy(problem)
            | Self::Denied(problem)
            | Self::Unfit(problem)
            | Self::Io(problem) => problem,
        }
    }

    fn of(error: &io::Error, problem: Problem) -> FileError {
        if error.kind() == io::ErrorKind::PermissionDenied {
            Self::Denied(Box::new(problem))
        } else {
            Self::Io(Box::new(problem))
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem().fmt(f)
    }
}

impl std::error::Error for FileError {}

/// A configuration file that nobody else edits by ph while this value lives.
#[derive(Debug)]
pub struct EditableFile {
    /// The path as messages spell it.
    shown: PathBuf,
    /// The folder of the file as messages spell it.
    folder: PathBuf,
    /// The file itself, links followed.
    target: PathBuf,
    /// Carries the lock.
    file: File,
    /// The text without a byte order mark.
    text: String,
    mark: &'static str,
}

impl EditableFile {
    /// Opens the file at `path`, locks it and reads it; messages call it `shown`. While somebody
    /// else has locked it, this waits, about five seconds at most.
    ///
    /// # Errors
    ///
    /// If there is no such file, it may not be written, it is not regular, it has hard links, it is
    /// over 1 MiB, not UTF-8 or holds NUL, or somebody else edits it all the time.
    pub fn open(path: &Path, shown: &Path) -> Result<EditableFile, FileError> {
        let editing = Editing(shown);
        let target = fs::canonicalize(path).map_err(|error| editing.unopened(&error))?;
        let file = lock(&target, editing)?;
        let mark = match starts_with_mark(&file).map_err(|error| editing.unopened(&error))? {
            true => MARK,
            false => "",
        };
        let text = contents(&target, editing)?;
        let folder = shown_folder(path, shown, &target);
        let shown = shown.to_owned();
        let file = EditableFile { shown, folder, target, file, text, mark };
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
    pub fn replace(self, text: &str) -> Result<(), FileError> {
        let editing = Editing(&self.shown);
        let text = text.strip_prefix(MARK).unwrap_or(text);
        if (self.mark.len() + text.len()) as u64 > MAX_BYTES || text.contains('\0') {
            let message = format!("expected a text of at most {MAX_BYTES} bytes without NUL");
            return Err(editing.unfit(message, "shorten it, or divide the file"));
        }
        let metadata = self.still_there()?;
        let folder = self.target.parent().unwrap_or(Path::new("/"));
        let failed = |what: &str, error: &io::Error| {
            let folder = shown(&self.folder.to_string_lossy());
            let message = format!("cannot {what} in the folder {folder}: {error}");
            let mend = "give the user that runs this write permission on the folder, and it space";
            FileError::of(error, editing.problem(message, mend))
        };
        let opened = File::open(folder).map_err(|error| failed("list the files", &error))?;
        let (new, mut file) =
            NewFile::create(folder).map_err(|error| failed("make a file", &error))?;
        let (uid, gid) = (metadata.uid(), metadata.gid());
        keep_owner(&file, uid, gid).map_err(|error| {
            let message = format!("cannot keep the owner {uid}:{gid} of the file: {error}");
            FileError::of(&error, editing.problem(message, "run this as that user, or as root"))
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
            FileError::of(&error, editing.problem(message, "check the file system"))
        })
    }

    /// Fails unless the locked file still has the name, and its text.
    fn still_there(&self) -> Result<Metadata, FileError> {
        let editing = Editing(&self.shown);
        let metadata = self.file.metadata().map_err(|error| editing.unopened(&error))?;
        let unchanged = names(&self.target, &metadata)
            && contents(&self.target, editing).is_ok_and(|text| text == self.text);
        if !unchanged {
            let message = "expected nobody else to change the file meanwhile, got another text";
            return Err(FileError::Busy(Box::new(editing.problem(message, "try again"))));
        }
        refuse_links(&metadata, editing)?;
        Ok(metadata)
    }
}

/// The text of the file; who else can write it was judged when the configuration was read.
fn contents(path: &Path, editing: Editing<'_>) -> Result<String, FileError> {
    let file = read::open(path).map_err(|error| editing.unopened(&error))?;
    read::contents(Ok(file), editing.0, &Purpose::CONFIGURATION).map_err(FileError::Unfit)
}

/// The folder as it was spelled, unless a link leads to a file in another one.
fn shown_folder(path: &Path, shown: &Path, target: &Path) -> PathBuf {
    let real = target.parent().unwrap_or(Path::new("/"));
    let given = path.parent().and_then(|folder| fs::canonicalize(folder).ok());
    match shown.parent() {
        Some(spelled) if given.as_deref() == Some(real) => {
            let is_here = spelled.as_os_str().is_empty();
            if is_here { PathBuf::from(".") } else { spelled.to_owned() }
        }
        Some(_) | None => real.to_owned(),
    }
}

/// Says what went wrong with the file of this path.
#[derive(Clone, Copy)]
struct Editing<'a>(&'a Path);

impl Editing<'_> {
    fn problem(self, message: impl Into<String>, mend: impl Into<String>) -> Problem {
        Problem::new(Place::File(self.0.to_owned()), message, mend)
    }

    fn unfit(self, message: impl Into<String>, mend: impl Into<String>) -> FileError {
        FileError::Unfit(Box::new(self.problem(message, mend)))
    }

    fn unopened(self, error: &io::Error) -> FileError {
        let mend = if error.kind() == io::ErrorKind::NotFound {
            "check the path, or write the file"
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            "give the user that runs this read and write permission on the file and its folders"
        } else {
            "check the path and the file system"
        };
        let message = format!("cannot edit the configuration: {error}");
        FileError::of(error, self.problem(message, mend))
    }
}

/// Opens and locks the file that has this name.
fn lock(target: &Path, editing: Editing<'_>) -> Result<File, FileError> {
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
            Err(TryLockError::WouldBlock) => {
                // A signal may cut it short, which only makes the next try come sooner.
                let _ = poll(&mut [], PAUSE);
                continue;
            }
            Err(TryLockError::Error(error)) => return Err(editing.unopened(&error)),
        }
        if names(target, &metadata) {
            refuse_links(&metadata, editing)?;
            return Ok(file);
        }
    }
    Err(busy(editing))
}

fn busy(editing: Editing<'_>) -> FileError {
    let message = "expected to be the only one, got an edit by somebody else";
    FileError::Busy(Box::new(editing.problem(message, "try again")))
}

/// Whether the path leads to this very file.
fn names(path: &Path, file: &Metadata) -> bool {
    fs::symlink_metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == (file.dev(), file.ino()))
}

fn refuse_irregular(metadata: &Metadata, editing: Editing<'_>) -> Result<(), FileError> {
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
    Err(editing.unfit(message, "name a file that holds the settings"))
}

fn refuse_links(metadata: &Metadata, editing: Editing<'_>) -> Result<(), FileError> {
    if metadata.nlink() <= 1 {
        return Ok(());
    }
    let message =
        format!("expected a file with one name, got one with {} hard links", metadata.nlink());
    let mend = "an edit would part them: make the others symbolic links, or edit by hand";
    Err(editing.unfit(message, mend))
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
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < MAX_NAMES => {
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
