//! Who else can write what root is about to obey.
//!
//! A configuration says which program runs as whom, so whoever can write it is root. The rule is
//! that of sudo, cron and logrotate, less strict in two points: a group whose number is that of the
//! owner is the owner's private one, and an owner who is not root is only warned of, because a
//! checkout or a volume of a container often belongs to somebody else on purpose.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The bit of a folder in which only owners may rename or remove.
const STICKY: u32 = 0o1000;

/// What becomes of a file that others than root can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignWriters {
    /// Nothing; for whoever is not root.
    Accept,
    /// A warning.
    Warn,
    /// An error.
    Refuse,
}

/// Somebody who can write a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignWriter {
    /// Who, and by what right: `everybody can write it (mode 0666)`.
    pub who: String,
    /// The command that mends it.
    pub mend: String,
    /// Whether it is only the owner, who may be meant to.
    pub is_owner: bool,
}

/// Who besides root can write the file of this absolute path, or put another one in its place.
/// `metadata` is that of the file itself.
pub fn foreign_writer(path: &Path, metadata: &Metadata) -> Option<ForeignWriter> {
    if let Some(writer) = by_mode(path, metadata) {
        return Some(writer);
    }
    let real = path.canonicalize().ok()?;
    for folder in real.ancestors().skip(1) {
        let Ok(metadata) = folder.metadata() else { continue };
        // A folder that cannot be looked at cannot be judged; the file in it was opened all the same.
        if metadata.mode() & STICKY == 0
            && let Some(writer) = by_mode(folder, &metadata)
        {
            let who = format!("its folder {}: {}", folder.display(), writer.who);
            return Some(ForeignWriter { who, ..writer });
        }
    }
    (metadata.uid() != 0).then(|| ForeignWriter {
        who: format!("user {} owns it", metadata.uid()),
        mend: format!("chown root {}", path.display()),
        is_owner: true,
    })
}

fn by_mode(path: &Path, metadata: &Metadata) -> Option<ForeignWriter> {
    let mode = metadata.mode() & 0o7777;
    let (who, bits) = if mode & 0o002 != 0 {
        ("everybody".to_owned(), "o-w")
    } else if mode & 0o020 != 0 && metadata.gid() != 0 && metadata.gid() != metadata.uid() {
        (format!("group {}", metadata.gid()), "g-w")
    } else {
        return None;
    };
    Some(ForeignWriter {
        who: format!("{who} can write it (mode {mode:04o})"),
        mend: format!("chmod {bits} {}", path.display()),
        is_owner: false,
    })
}
