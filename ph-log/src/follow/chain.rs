//! The files of a log by their age, while its writers rename, compress and delete them.
//!
//! Nobody's lock is taken, so what a look finds may be over when it is used. What holds all the
//! same, because writers only ever give a file a higher number:
//!
//! * A file and its successor were neighbours at one moment if both were still under their names
//!   when they were looked at once more, the older one first.
//! * A file that is held open keeps its inode to itself, so it is known by that whatever its name
//!   is; if it was compressed meanwhile, by the time of its last line, which the compressed file
//!   has to the nanosecond.
//! * A name may be missed by a listing while it changes. What is not there is looked for again, and
//!   taken for gone only if it stays away.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollTimeout, poll};
use nix::sys::stat::{FileStat, Mode, fstat};

use crate::rotate::{Backup, Names, Packing};
use crate::rotating::folder::{FileId, Folder, is_regular, name_of};
use crate::rotating::packing::unpack;

/// How often a look is taken anew because something moved under it. A rotation takes less than a
/// millisecond, and after the first looks there is a pause before each.
const ROUNDS: u32 = 40;

const ROUNDS_WITHOUT_PAUSE: u32 = 4;

/// How many files that were read are remembered. Only the youngest of them matter.
const PASSED_LIMIT: usize = 1024;

/// One file of the log, as a look found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    /// `None`: the log itself.
    pub(super) backup: Option<Backup>,
    pub(super) id: FileId,
    /// Last written to, since 1970.
    pub(super) modified: Duration,
    size: i64,
}

impl Member {
    fn new(backup: Option<Backup>, stat: &FileStat) -> Member {
        let modified = modified(stat);
        Member { backup, id: FileId::of(stat), modified, size: stat.st_size }
    }

    /// The same file after it was read.
    pub(super) fn as_of_now(&self, file: &File) -> Member {
        fstat(file).map_or(*self, |stat| Member::new(self.backup, &stat))
    }

    /// The number in its name.
    fn index(&self) -> u32 {
        self.backup.map_or(0, |backup| backup.index)
    }

    pub(super) fn packing(&self) -> Option<Packing> {
        self.backup.and_then(|backup| backup.packing)
    }

    pub(super) fn is_packed(&self) -> bool {
        self.backup.is_some_and(Backup::is_packed)
    }

    fn is_like(&self, other: &Member) -> bool {
        (self.id, self.backup) == (other.id, other.backup)
    }
}

/// What follows a file.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing yet.
    Nothing,
    File(Member),
    /// The file that was read last is gone, and this is the oldest that is left: what was between
    /// them, if anything, is gone too.
    AfterGap(Member),
}

/// The folder of a log and the names in it.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) folder: Folder,
    names: Names,
    /// Files that were read to their end, the youngest last.
    passed: VecDeque<Member>,
}

impl Chain {
    pub(super) fn of(log: &Path) -> io::Result<Chain> {
        let names = Names::new(&name_of(log)?);
        Ok(Chain { folder: Folder::of(log)?, names, passed: VecDeque::new() })
    }

    pub(super) fn name(&self, member: &Member) -> OsString {
        member.backup.map_or_else(|| self.names.log.clone(), |backup| self.names.backup(backup))
    }

    /// The log itself, if it is there.
    pub(super) fn log(&self) -> io::Result<Option<Member>> {
        Ok(self.folder.look(&self.names.log)?.map(|stat| Member::new(None, &stat)))
    }

    /// Remembers that a file was read to its end, or is not to be read.
    pub(super) fn pass(&mut self, member: Member) {
        self.passed.push_back(member);
        if self.passed.len() > PASSED_LIMIT {
            self.passed.pop_front();
        }
    }

    /// Opens a file, unless something else has its name by now.
    pub(super) fn open(&self, member: &Member) -> io::Result<Option<File>> {
        match self.folder.open_regular(&self.name(member), OFlag::O_RDONLY, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(file) => Ok((FileId::of(&fstat(&file)?) == member.id).then_some(file)),
        }
    }

    /// All files, the oldest first, as they were when nothing moved.
    pub(super) fn snapshot(&self) -> io::Result<Vec<Member>> {
        let mut before = self.members()?;
        for round in 0..ROUNDS {
            pause(round);
            let now = self.members()?;
            let is_same = now.len() == before.len()
                && now.iter().zip(&before).all(|(now, before)| now.is_like(before));
            before = now;
            if is_same {
                break;
            }
        }
        Ok(before)
    }

    /// The file after `known`, of which `held` is an open description if it could be opened.
    pub(super) fn after(&self, known: &Member, held: Option<&File>) -> io::Result<Next> {
        if let Some(next) = self.neighbour(known)? {
            return Ok(Next::File(next));
        }
        let mut across_gap = None;
        for round in 0..ROUNDS {
            pause(round);
            let members = self.members()?;
            let Some(place) = self.find(known, held, &members) else {
                if held.is_none_or(is_deleted) && round >= ROUNDS_WITHOUT_PAUSE {
                    break;
                }
                continue;
            };
            let Some(next) = members.get(place + 1) else { return Ok(Next::Nothing) };
            let own = &members[place];
            if !self.is_still(own)? || !self.is_still(next)? {
                continue;
            }
            // A gap in the numbers may be a name that the listing missed.
            if next.index() + 1 >= own.index() || across_gap == Some((own.id, next.id)) {
                return Ok(Next::File(*next));
            }
            across_gap = Some((own.id, next.id));
        }
        self.oldest_new(held)
    }

    /// The file after one that still has the name it had, found without a look at all the others.
    fn neighbour(&self, known: &Member) -> io::Result<Option<Member>> {
        let Some(backup) = known.backup else { return Ok(None) };
        let next = match backup.index - 1 {
            0 => self.log()?,
            index => {
                let plain = Backup { index, packing: None };
                let look = |backup: Backup| {
                    let stat = self.folder.look(&self.names.backup(backup))?.filter(is_regular);
                    Ok::<_, io::Error>(stat.map(|stat| Member::new(Some(backup), &stat)))
                };
                let mut one = look(plain)?;
                for packing in Packing::ALL {
                    one = match (one, look(plain.packed(packing))?) {
                        (one, None) | (None, one) => one,
                        (Some(one), Some(twin)) if one.modified == twin.modified => Some(one),
                        // Which of them comes first is not for this short look.
                        (Some(_), Some(_)) => return Ok(None),
                    };
                }
                one
            }
        };
        let Some(next) = next else { return Ok(None) };
        Ok((self.is_still(known)? && self.is_still(&next)?).then_some(next))
    }

    /// The oldest file that was not read yet.
    pub(super) fn oldest_new(&self, held: Option<&File>) -> io::Result<Next> {
        let members = self.snapshot()?;
        let last_passed = members.iter().rposition(|member| self.is_passed(member));
        let next = members.get(last_passed.map_or(0, |place| place + 1));
        let is_gap = last_passed.is_none() && held.is_some_and(is_deleted);
        Ok(match next {
            None => Next::Nothing,
            Some(member) if is_gap => Next::AfterGap(*member),
            Some(member) => Next::File(*member),
        })
    }

    fn is_passed(&self, member: &Member) -> bool {
        self.passed.iter().any(|passed| match member.is_packed() && !passed.is_packed() {
            true => passed.modified == member.modified,
            false => {
                (passed.id, passed.modified, passed.size)
                    == (member.id, member.modified, member.size)
            }
        })
    }

    /// Where among the files one is that was read before.
    fn find(&self, known: &Member, held: Option<&File>, members: &[Member]) -> Option<usize> {
        let place = members.iter().position(|member| member.id == known.id);
        if place.is_some() || known.is_packed() {
            return place;
        }
        let held = held.filter(|file| is_deleted(file))?;
        let time = modified(&fstat(held).ok()?);
        let is_twin = |at: &usize| members[*at].is_packed() && members[*at].modified == time;
        let twins: Vec<usize> = (0..members.len()).filter(is_twin).collect();
        match twins[..] {
            [] => None,
            [only] => Some(only),
            // The clock of files is coarse.
            _ => twins.into_iter().find(|&at| self.is_same_text(held, &members[at])),
        }
    }

    fn is_same_text(&self, held: &File, packed: &Member) -> bool {
        let Ok(Some(file)) = self.open(packed) else { return false };
        let packing = packed.packing();
        let Ok(mut unpacked) = unpack(file, packing) else { return false };
        let (mut ours, mut theirs) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        let mut at = 0;
        loop {
            let Ok(length) = held.read_at(&mut ours, at) else { return false };
            if length == 0 {
                return matches!(unpacked.read(&mut theirs), Ok(0));
            }
            let is_read = unpacked.read_exact(&mut theirs[..length]).is_ok();
            if !is_read || ours[..length] != theirs[..length] {
                return false;
            }
            at += length as u64;
        }
    }

    fn is_still(&self, member: &Member) -> io::Result<bool> {
        let found = self.folder.look(&self.name(member))?;
        Ok(found.is_some_and(|stat| FileId::of(&stat) == member.id))
    }

    /// One look at all files, the oldest first. What is there twice, compressed and not, is there
    /// once.
    fn members(&self) -> io::Result<Vec<Member>> {
        let mut members: Vec<Member> = Vec::new();
        let backups = match self.folder.backups(&self.names) {
            // Who may not list the folder may still read the log.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Vec::new(),
            found => found?,
        };
        for found in backups.iter().filter(|found| found.is_regular) {
            if let Some(stat) = self.folder.look(&self.names.backup(found.backup))? {
                members.push(Member::new(Some(found.backup), &stat));
            }
        }
        let log = self.folder.look(&self.names.log)?.filter(is_regular);
        members.extend(log.map(|stat| Member::new(None, &stat)));
        members.sort_by_key(|member| (u32::MAX - member.index(), !member.is_packed()));
        let is_twin = |one: &Member, other: &Member| {
            one.index() == other.index() && one.modified == other.modified
        };
        let all = members.clone();
        members.retain(|one| {
            !one.is_packed() || !all.iter().any(|it| !it.is_packed() && is_twin(one, it))
        });
        Ok(members)
    }
}

/// Whether a file has no name any more.
pub(super) fn is_deleted(file: &File) -> bool {
    fstat(file).is_ok_and(|stat| stat.st_nlink == 0)
}

fn modified(stat: &FileStat) -> Duration {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

/// Lets a rotation come to its end.
fn pause(round: u32) {
    if round >= ROUNDS_WITHOUT_PAUSE {
        // An interrupted pause is a short one.
        let _ = poll(&mut [], PollTimeout::from(1_u8));
    }
}
